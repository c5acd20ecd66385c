//! What the views ask of the app.

use kmemlab_trace::unit::Nanos;

use super::{App, Format, Prompt, View};
use crate::keys::Keys;
use crate::source::{Outline, Snapshot};
use crate::table::{Table, TableState};
use crate::view;

impl App {
    /// What the source said of itself.
    #[must_use]
    pub fn outline(&self) -> &Outline {
        &self.outline
    }

    /// The snapshot on the screen: the one before, while the one asked for cannot be read.
    #[must_use]
    pub fn snapshot(&self) -> Option<&Snapshot> {
        self.shown.as_ref().map(|(_, snapshot)| snapshot)
    }

    /// The moment asked for.
    #[must_use]
    pub fn at(&self) -> Nanos {
        self.at
    }

    /// How many readings of `/proc` there are up to it.
    #[must_use]
    pub fn step(&self) -> usize {
        self.outline.times.partition_point(|time| *time <= self.at)
    }

    /// The moment that changes are counted from.
    #[must_use]
    pub fn mark(&self) -> Option<Nanos> {
        self.mark
    }

    /// Why the snapshot asked for is not the one on the screen.
    #[must_use]
    pub fn trouble(&self) -> Option<&str> {
        let key = self.key();
        self.trouble.as_ref().filter(|(known, _)| *known == key).map(|(_, why)| why.as_str())
    }

    /// What was just done, for the bottom line.
    #[must_use]
    pub fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }

    /// Says something on the bottom line until the next key.
    pub fn say(&mut self, message: String) {
        self.message = Some(message);
    }

    /// The view at hand.
    #[must_use]
    pub fn view(&self) -> View {
        self.view
    }

    /// The keys in force.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// How the table at hand is looked at.
    #[must_use]
    pub fn table_state(&self) -> &TableState {
        &self.tables[self.view as usize]
    }

    /// The table at hand, and its rows in their order.
    #[must_use]
    pub fn table(&self) -> (&Table, &[usize]) {
        (&self.table, &self.order)
    }

    /// The row of the snapshot's list at the cursor.
    #[must_use]
    pub fn selected_row(&self) -> Option<usize> {
        self.order.get(self.table_state().selected).copied()
    }

    /// What is asked for at the bottom line.
    #[must_use]
    pub fn prompt(&self) -> Option<&Prompt> {
        self.prompt.as_ref()
    }

    /// The slabs are shown exactly as slabtop does.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.is_exact
    }

    /// The map shows the letters of types.
    #[must_use]
    pub fn is_lettered(&self) -> bool {
        self.is_lettered
    }

    /// The page block at the cursor.
    #[must_use]
    pub fn block(&self) -> usize {
        self.block
    }

    /// Size of the screen.
    #[must_use]
    pub fn size(&self) -> (u16, u16) {
        self.size
    }

    /// The help is open.
    #[must_use]
    pub fn is_help_open(&self) -> bool {
        self.is_help_open
    }

    /// Lines of the help above the first one on the screen.
    #[must_use]
    pub fn help_scroll(&self) -> usize {
        self.help_scroll
    }

    /// How fast time goes on; `None` while it stands.
    #[must_use]
    pub fn speed(&self) -> Option<u32> {
        self.speed
    }

    /// The screen stands at the end of something that grows.
    #[must_use]
    pub fn is_following(&self) -> bool {
        self.is_following
    }

    /// The table at hand is to be exported; asked once.
    pub fn take_export(&mut self) -> Option<(Format, Table, Vec<usize>)> {
        let format = self.wants_export.take()?;
        let snapshot = self.snapshot()?;
        if self.view.is_table() {
            return Some((format, self.table.clone(), self.order.clone()));
        }
        let table = view::export_table(self.view, snapshot);
        let order = (0..table.rows.len()).collect();
        Some((format, table, order))
    }

    /// It is time to leave.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.is_done
    }
}
