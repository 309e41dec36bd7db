//! Durations as users write them (`1h30m`). Never accepts what the CRD's pattern refuses.

/// The pattern of a duration in the schema: hours, minutes and seconds, in any mix.
pub const PATTERN: &str = "^([0-9]+(h|m|s))+$";

/// Longest duration accepted: ten years. More is a typing error, and would overflow clocks further down.
pub const SECONDS_MAX: u64 = 10 * 365 * 24 * 3600;

/// Parses `90s`, `15m`, `1h30m` to seconds; `None` when it is not such a duration or is too long.
pub fn parse_seconds(text: &str) -> Option<u64> {
    let mut total: u64 = 0;
    let mut digits = String::new();
    for c in text.chars() {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        let unit = match c {
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        let n: u64 = digits.parse().ok()?;
        digits.clear();
        total = total.checked_add(n.checked_mul(unit)?)?;
    }
    if !digits.is_empty() || text.is_empty() || total > SECONDS_MAX {
        return None;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_users_write() {
        assert_eq!(parse_seconds("90s"), Some(90));
        assert_eq!(parse_seconds("15m"), Some(900));
        assert_eq!(parse_seconds("1h30m"), Some(5400));
        assert_eq!(parse_seconds("24h"), Some(86_400));
    }

    #[test]
    fn refuses_what_is_no_duration() {
        for bad in ["", "1", "h", "1d", "1h30", "-1s", "1.5h", "99999999999h", "18446744073709551615h"] {
            assert_eq!(parse_seconds(bad), None, "{bad}");
        }
    }
}
