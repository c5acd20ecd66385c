//! Screens of kmemlab.
//!
//! A [`Source`] says what there is to see; [`App`] is what is on the screen and changes by
//! [`Action`]s; [`view::draw`] paints it. [`run`] joins the three to a terminal, [`once`] to a
//! text. Neither `App` nor the views touch a file, a clock or a terminal, so tests drive them
//! whole.

pub mod app;
pub mod history;
pub mod keys;
mod number;
mod run;
pub mod source;
mod terminal;
pub mod theme;
pub mod view;

pub use app::{Action, App, View};
pub use run::{Host, once, run};
pub use source::{About, Loss, Outline, SlabSample, Snapshot, Source, ZoneState};
pub use theme::Theme;
