//! Numbers as the screen writes them.

pub(crate) use kmemlab_trace::show::count;
use kmemlab_trace::unit::Nanos;

use crate::source::About;

/// A count in at most `width` characters: thousands as `123k`, millions as `12M`.
pub(crate) fn short(number: u64, width: usize) -> String {
    let mut value = number;
    let mut text = number.to_string();
    for unit in ["k", "M", "G", "T"] {
        if text.len() <= width {
            break;
        }
        value /= 1000;
        text = format!("{value}{unit}");
    }
    text
}

/// Pages in MiB, with one digit after the point.
pub(crate) fn mebibytes(pages: u64, page_size_bytes: u64) -> String {
    let tenths = u128::from(pages) * u128::from(page_size_bytes) * 10 / (1 << 20);
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// Bytes in the largest unit that keeps a digit before the point: `1.5 MiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = "KiB";
    for next in ["MiB", "GiB", "TiB", "PiB", "EiB"] {
        if value < 999.95 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

/// Nanoseconds in the largest unit that keeps a digit before the point: `1.50 ms`.
pub(crate) fn duration(nanos: u64) -> String {
    match nanos {
        0..1_000 => format!("{nanos} ns"),
        1_000..1_000_000 => format!("{:.1} us", nanos as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} ms", nanos as f64 / 1e6),
        1_000_000_000..1_000_000_000_000 => format!("{:.2} s", nanos as f64 / 1e9),
        _ => format!("{} s", nanos / 1_000_000_000),
    }
}

/// A change with its sign, and nothing for none.
pub(crate) fn signed(change: i64, written: impl Fn(u64) -> String) -> String {
    match change {
        0 => "0".to_owned(),
        1.. => format!("+{}", written(change.unsigned_abs())),
        _ => format!("-{}", written(change.unsigned_abs())),
    }
}

/// Thousandths as `12.3 %`.
pub(crate) fn percent(thousandths: u64) -> String {
    format!("{}.{} %", thousandths / 10, thousandths % 10)
}

/// A part of a whole as `12.3%`, as slabtop writes it.
pub(crate) fn share(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".to_owned();
    }
    format!("{:.1}%", part as f64 * 100.0 / whole as f64)
}

/// `+4.906 s`, `+3:04:05`
pub(crate) fn since(start: Nanos, at: Nanos) -> String {
    let (sign, span) = if at >= start { ('+', at.0 - start.0) } else { ('-', start.0 - at.0) };
    let seconds = span / 1_000_000_000;
    if seconds < 100 {
        return format!("{sign}{seconds}.{:03} s", span / 1_000_000 % 1000);
    }
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    format!("{sign}{hours}:{minutes:02}:{:02}", seconds % 60)
}

/// Time of day at the recorded machine's clock, in UTC.
pub(crate) fn clock(about: &About, at: Nanos) -> String {
    let wall = i128::from(about.start_realtime_ns) + i128::from(at.0) - i128::from(about.start.0);
    let seconds = wall.div_euclid(1_000_000_000).rem_euclid(86_400);
    format!("{:02}:{:02}:{:02} UTC", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(short(12_345, 5), "12345");
        assert_eq!(short(123_456, 5), "123k");
        assert_eq!(short(u64::MAX, 9), "18446744T");
        assert_eq!(mebibytes(1000, 4096), "3.9");
        assert_eq!(mebibytes(u64::MAX, 65_536), "1152921504606846975.9");
        assert_eq!(percent(1000), "100.0 %");
        assert_eq!(share(1, 0), "-");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1_572_864), "1.5 MiB");
        assert_eq!(bytes(1_048_575), "1.0 MiB");
        assert_eq!(duration(1_500_000), "1.50 ms");
        assert_eq!(signed(-2048, bytes), "-2.0 KiB");
    }

    #[test]
    fn times_read_well() {
        assert_eq!(since(Nanos(0), Nanos(4_906_000_000)), "+4.906 s");
        assert_eq!(since(Nanos(1_500_000_000), Nanos(0)), "-1.500 s");
        assert_eq!(since(Nanos(0), Nanos(11_045_000_000_000)), "+3:04:05");
        let about = About { start: Nanos(500), ..About::default() };
        assert_eq!(clock(&about, Nanos(0)), "23:59:59 UTC");
        assert_eq!(clock(&about, Nanos(3_600_000_000_500)), "01:00:00 UTC");
    }
}
