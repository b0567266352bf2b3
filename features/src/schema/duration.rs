//! Durations as written in a schema: `10s`, `5m`, `24h`, `30d`.

use std::time::Duration;

/// The shortest window.
pub(super) const SHORTEST: Duration = Duration::from_secs(10);
/// The longest window.
pub(super) const LONGEST: Duration = Duration::from_secs(30 * 86_400);

/// Reads a duration.
///
/// # Errors
/// What is wrong and what is allowed.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no duration: write a whole number and `s`, `m`, `h` or `d`, such as `10m`");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let number: u64 = text.strip_suffix(unit).and_then(|digits| digits.parse().ok()).filter(|number| *number > 0).ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

/// Reads a window: 10 s to 30 d.
///
/// # Errors
/// What is wrong and what is allowed.
pub(super) fn window(text: &str) -> Result<Duration, String> {
    let window = parse(text)?;
    if window < SHORTEST || window > LONGEST {
        return Err(format!("`{text}` is no window: from `10s` to `30d` are allowed"));
    }
    Ok(window)
}

/// A duration in words: `10 minutes`, `1 day`.
pub(super) fn words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (number, unit) = match seconds {
        _ if seconds.is_multiple_of(86_400) && seconds > 86_400 => (seconds / 86_400, "day"),
        _ if seconds.is_multiple_of(3_600) => (seconds / 3_600, "hour"),
        _ if seconds.is_multiple_of(60) => (seconds / 60, "minute"),
        _ => (seconds, "second"),
    };
    if number == 1 { unit.to_owned() } else { format!("{number} {unit}s") }
}
