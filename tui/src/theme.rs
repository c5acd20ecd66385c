//! Colours, and what stands for them where there are none.
//!
//! Views draw in Unicode and colour; [`Theme::finish`] takes away, in one place, what the terminal
//! cannot show. Nothing is told by colour alone: a view that shades also writes a number or a mark.

use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier, Style};

/// How many colours there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Colours {
    /// None: `NO_COLOR`, a dumb terminal, or a text.
    None,
    /// The sixteen that every colour terminal has.
    Sixteen,
    /// The 256 of xterm.
    Many,
}

/// What the terminal can show.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Theme {
    colours: Colours,
    unicode: bool,
}

/// How bad something is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Mood {
    /// Nothing to do.
    Fine,
    /// Worth a look.
    Warn,
    /// Trouble now.
    Bad,
}

impl Mood {
    /// Stands beside the colour.
    pub(crate) fn mark(self) -> &'static str {
        match self {
            Self::Fine => "ok",
            Self::Warn => "! ",
            Self::Bad => "!!",
        }
    }
}

/// Levels of the heat map.
pub(crate) const LEVELS: u64 = 10;

/// One hue, dark to light, in xterm's numbers.
const RAMP: [u8; LEVELS as usize] = [0, 17, 18, 19, 20, 26, 32, 38, 44, 51];

/// What stands for a level where there is no colour.
const MARKS: [char; LEVELS as usize] = [' ', ' ', '-', '-', '=', '=', '*', '*', '#', '#'];

/// What stands for a character where there is no Unicode.
const ASCII: [(char, char); 21] = [
    ('\u{2581}', '_'),
    ('\u{2582}', '.'),
    ('\u{2583}', ':'),
    ('\u{2584}', '-'),
    ('\u{2585}', '='),
    ('\u{2586}', '+'),
    ('\u{2587}', '*'),
    ('\u{2588}', '#'),
    ('─', '-'),
    ('│', '|'),
    ('┌', '+'),
    ('┐', '+'),
    ('└', '+'),
    ('┘', '+'),
    ('←', '<'),
    ('→', '>'),
    ('↑', '^'),
    ('↓', 'v'),
    ('▼', 'v'),
    ('▲', '^'),
    ('…', '~'),
];

impl Theme {
    /// A theme by hand.
    #[must_use]
    pub const fn new(colours: Colours, unicode: bool) -> Self {
        Self { colours, unicode }
    }

    /// What the environment says: `NO_COLOR`, `TERM`, `COLORTERM` and the locale.
    pub fn detect(env: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name| env(name).filter(|value| !value.is_empty());
        let term = set("TERM").unwrap_or_default();
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set).unwrap_or_default();
        let locale = locale.to_ascii_lowercase();
        let unicode = locale.contains("utf-8") || locale.contains("utf8");
        let colours = if set("NO_COLOR").is_some() || term.is_empty() || term == "dumb" {
            Colours::None
        } else if set("COLORTERM").is_some() || term.contains("256") || term.contains("direct") {
            Colours::Many
        } else {
            Colours::Sixteen
        };
        Self { colours, unicode: unicode && term != "dumb" }
    }

    /// Its colours.
    #[must_use]
    pub fn colours(self) -> Colours {
        self.colours
    }

    /// The same with so many colours.
    #[must_use]
    pub fn with_colours(self, colours: Colours) -> Self {
        Self { colours, ..self }
    }

    /// The same in ASCII.
    #[must_use]
    pub fn without_unicode(self) -> Self {
        Self { unicode: false, ..self }
    }

    /// The same without colour: for a text.
    #[must_use]
    pub fn without_colour(self) -> Self {
        Self { colours: Colours::None, ..self }
    }

    pub(crate) fn has_colour(&self) -> bool {
        self.colours != Colours::None
    }

    pub(crate) fn title(&self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    pub(crate) fn heading(&self) -> Style {
        Style::new().fg(Color::Cyan).add_modifier(Modifier::BOLD)
    }

    pub(crate) fn plain(&self) -> Style {
        Style::new()
    }

    pub(crate) fn table(&self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    pub(crate) fn chosen(&self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED | Modifier::BOLD)
    }

    /// The line at the cursor; it also carries a `>`.
    pub(crate) fn cursor(&self) -> Style {
        Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED)
    }

    /// A page block by migrate type; its sign tells fill or type as well.
    pub(crate) fn block(&self, migrate: u8, is_mixed: bool, is_cursor: bool) -> Style {
        const BY_TYPE: [Color; 6] =
            [Color::Red, Color::Green, Color::Yellow, Color::Magenta, Color::Cyan, Color::DarkGray];
        let colour = BY_TYPE.get(usize::from(migrate)).copied().unwrap_or(Color::Gray);
        let mut style = Style::new().fg(colour);
        if is_mixed {
            style = style.add_modifier(Modifier::UNDERLINED | Modifier::BOLD);
        }
        if is_cursor {
            style = style.add_modifier(Modifier::REVERSED);
        }
        style
    }

    pub(crate) fn dim(&self) -> Style {
        Style::new().fg(Color::DarkGray)
    }

    pub(crate) fn line(&self) -> Style {
        Style::new().fg(Color::Blue)
    }

    pub(crate) fn mood(&self, mood: Mood) -> Style {
        match mood {
            Mood::Fine => Style::new().fg(Color::Green),
            Mood::Warn => Style::new().fg(Color::Yellow),
            Mood::Bad => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
        }
    }

    /// A cell of the heat map.
    pub(crate) fn heat(&self, level: usize) -> Style {
        let level = level.min(RAMP.len() - 1);
        match self.colours {
            _ if level == 0 => Style::new().fg(Color::DarkGray),
            Colours::Many if level < 6 => {
                Style::new().bg(Color::Indexed(RAMP[level])).fg(Color::White)
            }
            Colours::Many => Style::new().bg(Color::Indexed(RAMP[level])).fg(Color::Black),
            _ if level < 6 => Style::new().bg(Color::Blue).fg(Color::White),
            _ => Style::new().bg(Color::LightBlue).fg(Color::Black),
        }
    }

    /// What a cell of the heat map writes behind its number: nothing where there is colour.
    pub(crate) fn heat_mark(&self, level: usize) -> char {
        if self.has_colour() { ' ' } else { MARKS[level.min(MARKS.len() - 1)] }
    }

    /// What the cells of the heat map mean.
    pub(crate) fn heat_legend(&self) -> &'static str {
        if self.has_colour() {
            "lighter: more of the free pages"
        } else {
            "free pages: - 1/9 = 1/3 * 5/9 # 7/9"
        }
    }

    /// Takes away what the terminal cannot show.
    pub(crate) fn finish(&self, buf: &mut Buffer) {
        for cell in &mut buf.content {
            if !self.has_colour() {
                cell.fg = Color::Reset;
                cell.bg = Color::Reset;
            }
            if !self.unicode && !cell.symbol().is_ascii() {
                let symbol = cell.symbol().chars().next().unwrap_or(' ');
                let known = ASCII.iter().find(|(from, _)| *from == symbol);
                cell.set_char(known.map_or('?', |(_, to)| *to));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detect(env: &[(&str, &str)]) -> Theme {
        let find = |name: &str| env.iter().find(|(known, _)| *known == name);
        Theme::detect(|name| find(name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn the_environment_decides() {
        let theme = detect(&[("TERM", "xterm-256color"), ("LANG", "en_US.UTF-8")]);
        assert_eq!(theme, Theme::new(Colours::Many, true));
        let theme = detect(&[("TERM", "linux"), ("LANG", "en_US.UTF-8"), ("LC_ALL", "C")]);
        assert_eq!(theme, Theme::new(Colours::Sixteen, false));
        let theme = detect(&[("TERM", "xterm"), ("NO_COLOR", "1"), ("LC_CTYPE", "C.utf8")]);
        assert_eq!(theme, Theme::new(Colours::None, true));
        assert_eq!(detect(&[("NO_COLOR", ""), ("TERM", "xterm")]).colours, Colours::Sixteen);
        assert!(!detect(&[("TERM", "dumb"), ("LANG", "C.UTF-8")]).unicode);
    }

    #[test]
    fn what_cannot_be_shown_is_taken_away() {
        let mut buf = Buffer::with_lines(["█─é…x"]);
        buf.set_style(buf.area, Style::new().fg(Color::Red).bg(Color::Blue));
        Theme::new(Colours::None, false).finish(&mut buf);
        assert_eq!(buf, Buffer::with_lines(["#-?~x"]));
    }
}
