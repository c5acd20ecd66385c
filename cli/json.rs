//! JSON on stdout.

use serde_json::Value;

/// Prints a value, indented, with a line end.
pub(crate) fn print(value: &Value) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    crate::exit::print(&text)
}

/// A number with at most six digits after the point: enough for a share, no noise.
pub(crate) fn rounded(number: f64) -> Value {
    let rounded = (number * 1e6).round() / 1e6;
    serde_json::Number::from_f64(rounded).map_or(Value::Null, Value::Number)
}
