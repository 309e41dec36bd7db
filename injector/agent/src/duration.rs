//! Durations as the delivery document writes them (`1h30m`). Never guesses a unit.

/// Milliseconds of `90s`, `15m`, `1h30m`; `None` if it is not such a duration.
pub(crate) fn parse_ms(text: &str) -> Option<u64> {
    let mut total: u64 = 0;
    let mut number: Option<u64> = None;
    for c in text.chars() {
        let factor = match c {
            'h' => 3_600_000,
            'm' => 60_000,
            's' => 1_000,
            _ => {
                let digit = u64::from(c.to_digit(10)?);
                number = Some(number.unwrap_or(0).checked_mul(10)?.checked_add(digit)?);
                continue;
            }
        };
        total = total.checked_add(number.take()?.checked_mul(factor)?)?;
    }
    (number.is_none() && !text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::parse_ms;

    #[test]
    fn durations() {
        assert_eq!(parse_ms("5m"), Some(300_000));
        assert_eq!(parse_ms("1h30m5s"), Some(5_405_000));
        for bad in ["", "5", "m", "5d", "1h5", "-1s", "99999999999999999999h"] {
            assert_eq!(parse_ms(bad), None, "{bad}");
        }
    }
}
