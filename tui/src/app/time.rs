//! Moments as people write them: `3m ago`, `12:03:10`, `+2.5s`.

use kmemlab_trace::unit::Nanos;

use crate::source::Outline;

const SECOND_NS: u64 = 1_000_000_000;
const DAY_NS: i128 = 86_400 * SECOND_NS as i128;

/// The moment that a text tells, seen from the moment on the screen; `None` when it tells none.
pub(super) fn parse(text: &str, outline: &Outline, at: Nanos) -> Option<Nanos> {
    let text = text.trim().to_ascii_lowercase();
    if let Some(span) = text.strip_suffix("ago") {
        return Some(Nanos(outline.end.0.saturating_sub(span_of(span)?)));
    }
    if text.contains(':') {
        return clock(&text, outline);
    }
    if let Some(span) = text.strip_prefix('-') {
        return Some(Nanos(at.0.saturating_sub(span_of(span)?)));
    }
    let span = span_of(text.strip_prefix('+').unwrap_or(&text))?;
    Some(Nanos(outline.about.start.0.saturating_add(span)))
}

/// `10m20s`, `2.5s`, `250ms`; a bare number is seconds.
fn span_of(text: &str) -> Option<u64> {
    let text = text.trim();
    let mut total = 0u64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().ok()?;
        rest = rest[digits..].trim_start();
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let unit_ns: u64 = match &rest[..letters] {
            "" | "s" => SECOND_NS,
            "ns" => 1,
            "us" => 1_000,
            "ms" => 1_000_000,
            "m" | "min" => 60 * SECOND_NS,
            "h" => 3600 * SECOND_NS,
            _ => return None,
        };
        rest = rest[letters..].trim_start();
        total = total.checked_add((number * unit_ns as f64) as u64)?;
    }
    (!text.is_empty()).then_some(total)
}

/// A time of day, in UTC as the title line writes it: the first one after the beginning, unless the
/// one before is nearer.
fn clock(text: &str, outline: &Outline) -> Option<Nanos> {
    let mut parts = text.split(':');
    let (hours, minutes) = (parts.next()?.parse::<u64>().ok()?, parts.next()?.parse::<u64>().ok()?);
    let seconds = parts.next().map_or(Some(0.0), |part| part.parse::<f64>().ok())?;
    if parts.next().is_some() || hours > 23 || minutes > 59 || !(0.0..60.0).contains(&seconds) {
        return None;
    }
    let about = &outline.about;
    let of_day = i128::from(hours * 3600 + minutes * 60) * i128::from(SECOND_NS)
        + (seconds * SECOND_NS as f64) as i128;
    let begin = i128::from(about.start_realtime_ns) + i128::from(outline.begin.0)
        - i128::from(about.start.0);
    let mut wall = begin.div_euclid(DAY_NS) * DAY_NS + of_day;
    if wall < begin - DAY_NS / 2 {
        wall += DAY_NS;
    }
    let nanos = wall - i128::from(about.start_realtime_ns) + i128::from(about.start.0);
    Some(Nanos(u64::try_from(nanos.max(0)).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::About;

    #[test]
    fn moments_as_people_write_them() {
        let start = Nanos(1000 * SECOND_NS);
        // 22:13:20 UTC.
        let about =
            About { start, start_realtime_ns: 1_700_000_000 * SECOND_NS, ..About::default() };
        let end = Nanos(start.0 + 600 * SECOND_NS);
        let outline = Outline { about, begin: start, end, ..Outline::default() };
        let at = |text: &str| {
            let found = parse(text, &outline, Nanos(start.0 + 100 * SECOND_NS));
            found.map(|at| (at.0 - start.0) / 1_000_000)
        };
        assert_eq!(at("+2.5s"), Some(2_500));
        assert_eq!(at("10m20s"), Some(620_000));
        assert_eq!(at("3m ago"), Some(420_000));
        assert_eq!(at("-250ms"), Some(99_750));
        assert_eq!(at("22:13:30"), Some(10_000));
        assert_eq!(at("22:14"), Some(40_000));
        assert_eq!(at("22:14:00.25"), Some(40_250));
        // Past midnight.
        assert_eq!(at("0:00"), Some((6400) * 1000));
        for wrong in ["", "soon", "3x", "25:00", "1:2:3:4", "ago", "1..5", "+"] {
            assert_eq!(at(wrong), None, "{wrong:?}");
        }
    }
}
