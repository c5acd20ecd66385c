//! Values on the command line: times, sizes, lists.

use std::time::Duration;

use kmemlab_collector::Stacks;
use kmemlab_trace::tracepoint::Group;
use kmemlab_tui::view::slabs::Sort;

/// `10s`, `500ms`, `2m`, `1h`; a bare number is seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let wrong = || format!("{text} is no time; write 10s, 500ms, 2m or 1h");
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "" | "s" => number,
        "ms" => number / 1e3,
        "us" => number / 1e6,
        "m" | "min" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(wrong()),
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

/// As [`duration`], but not none at all.
pub(crate) fn span(text: &str) -> Result<Duration, String> {
    let span = duration(text)?;
    let least = Duration::from_millis(50);
    if span < least { Err("at least 50ms".to_owned()) } else { Ok(span) }
}

/// slabtop's letter for a sort.
pub(crate) fn sort(text: &str) -> Result<Sort, String> {
    let mut letters = text.chars();
    let letter = letters.next().filter(|_| letters.next().is_none());
    letter
        .and_then(Sort::of_letter)
        .ok_or_else(|| format!("{text} is none of slabtop's letters a b c l v n o p s u"))
}

/// `8M`, `512K`, `1G`, with or without `iB`; a bare number is bytes.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let wrong = || format!("{text} is no size; write 8M, 512K or 1G");
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let shift = match unit.trim_end_matches("iB").trim_end_matches('B') {
        "" => 0,
        "K" | "k" => 10,
        "M" => 20,
        "G" => 30,
        _ => return Err(wrong()),
    };
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

/// A group of events by its name.
pub(crate) fn group(text: &str) -> Result<Group, String> {
    let known: Vec<&str> = Group::ALL.iter().map(|(_, name)| *name).collect();
    Group::from_name(text)
        .ok_or_else(|| format!("there is no group of events {text}; known: {}", known.join(", ")))
}

/// `none`, `sampled`, `sampled:N` or `all`.
pub(crate) fn stacks(text: &str) -> Result<Stacks, String> {
    let wrong =
        || format!("{text} is no choice of stacks; write none, sampled, sampled:100 or all");
    match text.split_once(':') {
        None if text == "none" => Ok(Stacks::None),
        None if text == "all" => Ok(Stacks::All),
        None if text == "sampled" => Ok(Stacks::Sampled(100)),
        Some(("sampled", period)) => match period.parse() {
            Ok(period) if period > 0 => Ok(Stacks::Sampled(period)),
            _ => Err(wrong()),
        },
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_read_as_people_write_them() {
        assert_eq!(duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert!(
            duration("").is_err() && duration("-1s").is_err() && duration("5 parsecs").is_err()
        );
        assert_eq!(size("8M"), Ok(8 << 20));
        assert_eq!(size("64KiB"), Ok(64 << 10));
        assert_eq!(size("4096"), Ok(4096));
        assert!(size("M").is_err() && size("99999999999999999999").is_err());
        assert!(size("18446744073709551615G").is_err());
    }

    #[test]
    fn stacks_need_a_period_above_zero() {
        assert_eq!(stacks("sampled:7"), Ok(Stacks::Sampled(7)));
        assert!(stacks("sampled:0").is_err() && stacks("some").is_err());
    }
}
