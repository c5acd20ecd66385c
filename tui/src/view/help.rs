//! The keys of the view at hand, printed from the table that the keys are read by.

use super::canvas::{Canvas, width_of};
use crate::app::View;
use crate::keys;
use crate::theme::Theme;

/// Columns of a key's label.
const LABEL: u16 = 10;
/// Columns between two columns of keys.
const GAP: u16 = 3;

pub(super) fn draw(view: View, theme: &Theme, canvas: &mut Canvas<'_>) {
    let bindings: Vec<_> = keys::of(view).collect();
    let texts = bindings.iter().map(|binding| LABEL + width_of(binding.help));
    let column = texts.max().unwrap_or(LABEL) + GAP;
    let room = canvas.height().saturating_sub(2).max(1);
    let lines = u16::try_from(bindings.len()).unwrap_or(u16::MAX);
    let columns = lines.div_ceil(room).max(1);
    let rows = lines.div_ceil(columns);
    let width = (column * columns + 2).min(canvas.width());
    let height = (rows + 2).min(canvas.height());
    let (x, y) = ((canvas.width() - width) / 2, (canvas.height() - height) / 2);
    let mut popup = canvas.part(x, y, width, height);
    popup.frame(&format!(" Keys of {} ", view.name()), theme.title());
    let mut inner = popup.part(2, 1, width.saturating_sub(3), height.saturating_sub(2));
    for (index, binding) in (0..).zip(bindings) {
        let (x, y) = (index / rows * column, index % rows);
        inner.text(x, y, binding.label, theme.heading());
        inner.text(x + LABEL, y, binding.help, theme.plain());
    }
}
