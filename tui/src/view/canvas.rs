//! A rectangle of the screen that cannot be painted outside of.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Span;

/// Columns that a text takes.
pub(super) fn width_of(text: &str) -> u16 {
    u16::try_from(Span::raw(text).width()).unwrap_or(u16::MAX)
}

/// A text in lines of that width at most, broken between words.
pub(super) fn wrapped(text: &str, width: u16) -> Vec<String> {
    let (mut lines, mut line) = (Vec::new(), String::new());
    for word in text.split_whitespace() {
        if !line.is_empty() && width_of(&line) + 1 + width_of(word) > width {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

/// Columns and lines count from the rectangle's upper left corner.
#[derive(Debug)]
pub(super) struct Canvas<'a> {
    buf: &'a mut Buffer,
    area: Rect,
}

impl<'a> Canvas<'a> {
    pub(super) fn new(buf: &'a mut Buffer, area: Rect) -> Self {
        let area = area.intersection(buf.area);
        Self { buf, area }
    }

    pub(super) fn width(&self) -> u16 {
        self.area.width
    }

    pub(super) fn height(&self) -> u16 {
        self.area.height
    }

    /// A smaller rectangle, as much of it as there is.
    pub(super) fn part(&mut self, x: u16, y: u16, width: u16, height: u16) -> Canvas<'_> {
        let x = self.area.x + x.min(self.area.width);
        let y = self.area.y + y.min(self.area.height);
        let width = width.min(self.area.right() - x);
        let height = height.min(self.area.bottom() - y);
        Canvas { buf: &mut *self.buf, area: Rect { x, y, width, height } }
    }

    /// Writes a text, cut with `…` where the rectangle ends; gives the next column.
    pub(super) fn text(&mut self, x: u16, y: u16, text: &str, style: Style) -> u16 {
        let next = x.saturating_add(width_of(text));
        if x >= self.area.width || y >= self.area.height {
            return next;
        }
        let (left, top) = (self.area.x + x, self.area.y + y);
        let room = self.area.width - x;
        self.buf.set_stringn(left, top, text, usize::from(room), style);
        if next > self.area.width {
            self.buf.set_stringn(left + room - 1, top, "…", 1, style);
        }
        next
    }

    /// Writes a text so that it ends before column `end`.
    pub(super) fn right(&mut self, end: u16, y: u16, text: &str, style: Style) {
        let x = end.saturating_sub(width_of(text));
        self.part(0, y, end, 1).text(x, 0, text, style);
    }

    /// Styles a stretch of a line.
    pub(super) fn paint(&mut self, x: u16, y: u16, width: u16, style: Style) {
        let area = self.part(x, y, width, 1).area;
        self.buf.set_style(area, style);
    }

    /// Empties the rectangle and frames it.
    pub(super) fn frame(&mut self, title: &str, style: Style) {
        use ratatui::widgets::{Block, Clear, Widget};
        Clear.render(self.area, self.buf);
        Block::bordered().title(title).style(style).render(self.area, self.buf);
    }
}
