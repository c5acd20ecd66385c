//! Screens of kmemlab.
//!
//! A [`Source`] says what there is to see; [`App`] is what is on the screen and changes by
//! [`Action`]s; [`view::draw`] paints it. [`run`] joins the three to a terminal, [`once`] to a
//! text. Neither `App` nor the views touch a file, a clock or a terminal, so tests drive them
//! whole.

pub mod app;
pub mod history;
pub mod keys;
pub mod marks;
mod number;
pub mod parts;
mod run;
pub mod source;
pub mod table;
mod terminal;
pub mod theme;
pub mod view;

pub use app::{Action, App, Format, View};
pub use keys::Keys;
pub use marks::{MarkKind, Marks};
pub use run::{Export, Host, frame_time, once, run};
pub use source::{
    About, Loss, MirrorError, Outline, Pressure, SlabSample, Snapshot, Source, Told, Work,
    ZoneState,
};
pub use theme::Theme;
