//! Paths, times, tokens, shares, statements: what fits on one line.

use coffer_fuzz::{Target, kind, text};

use crate::path::{MAX_PATH_BYTES, MAX_PATH_SEGMENTS, VaultPath};
use crate::schedule::Schedule;
use crate::secret::SecretString;
use crate::shamir::{self, Share, Threshold};
use crate::template::{StatementValues, check_statement};
use crate::time::{MAX_DURATION, Timestamp, duration_from_json, parse_duration};
use crate::token::{Accessor, MAX_TOKEN_BYTES, Token, TokenHash};

#[test]
fn a_path_has_one_spelling_and_keeps_its_limits() {
    let words =
        ["/", "//", "..", ".", "%2f", "%2E", "%00", "%c3%a9", "%C2%85", "%25", "sys/", "é", "\u{2028}"];
    Target::new("path").words(&words).run(|input| {
        let given = text(input);
        let path = match VaultPath::parse_encoded(&given) {
            Ok(path) => path,
            Err(why) => return kind(&why),
        };
        let plain = path.as_str();
        assert!(plain.len() <= MAX_PATH_BYTES && path.segments().count() <= MAX_PATH_SEGMENTS);
        assert!(path.segments().all(|s| !matches!(s, "" | "." | "..") && !s.chars().any(char::is_control)));
        assert!(!plain.starts_with('/'));
        assert_eq!(VaultPath::parse(plain).as_ref(), Ok(&path), "accepted once more, as it is");
        let escaped: String = plain.bytes().map(|c| format!("%{c:02x}")).collect();
        assert_eq!(VaultPath::parse_encoded(&escaped).as_ref(), Ok(&path), "escaped all over");
        assert_eq!(path.to_dir().trimmed(), path.trimmed());
        format!("{} {}", path.is_dir(), path.segments().count())
    });
}

#[test]
fn a_duration_is_bounded_and_reads_back() {
    let words = ["ms", "s", "m", "h", "d", "w", ".", "-", "+", " ", "1.5h", "٣"];
    Target::new("duration").words(&words).run(|input| {
        let given = text(input);
        let json = duration_from_json(&given.as_ref().into());
        let read = parse_duration(&given);
        assert_eq!(json, read, "in a document as on its own");
        if let Ok(number) = serde_json::from_slice::<serde_json::Number>(input) {
            let as_number = duration_from_json(&serde_json::Value::Number(number));
            assert!(as_number.is_err() || as_number.is_ok_and(|d| d <= MAX_DURATION));
        }
        match read {
            Ok(duration) => {
                assert!(duration <= MAX_DURATION);
                assert!(!given.contains('-'), "no negative one");
                let millis = format!("{}ms", duration.as_millis());
                assert_eq!(parse_duration(&millis), Ok(duration));
                format!("{}", duration.is_zero())
            }
            Err(why) => kind(&why),
        }
    });
}

#[test]
fn a_schedule_goes_forward_by_whole_minutes() {
    let words =
        ["*", "*/", "-", ",", "?", "L", "W", "#", "H", "JAN", "SUN", "7", "59", "2 30", "@daily", "TZ=UTC "];
    Target::new("schedule").words(&words).run(|input| {
        let given = text(input);
        let schedule = match Schedule::parse(&given) {
            Ok(schedule) => schedule,
            Err(why) => return kind(&why),
        };
        let from = Timestamp::from_secs(1_795_521_600);
        let next = schedule.next_after(from).unwrap();
        assert!(next > from && next.as_millis() % 60_000 == 0);
        assert!(schedule.next_after(next).is_none_or(|after| after > next));
        let stored = serde_json::to_string(&schedule).unwrap();
        assert_eq!(serde_json::from_str::<Schedule>(&stored).unwrap(), schedule);
        format!("{}", given.split_ascii_whitespace().count())
    });
}

#[test]
fn a_time_reads_back() {
    let words = ["T", "Z", "-02-29", "+00:00", "-23:59", "9999", "0000", ".999999999", ":60", " "];
    Target::new("timestamp").words(&words).run(|input| {
        let Ok(time) = Timestamp::parse_rfc3339(&text(input)) else { return "refused".into() };
        assert_eq!(Timestamp::parse_rfc3339(&time.to_rfc3339()), Ok(time));
        assert!(time.plus(MAX_DURATION).saturating_sub(time) == MAX_DURATION);
        format!("{}", input.len().min(40))
    });
}

#[test]
fn tokens_and_accessors_are_taken_as_sent_or_not_at_all() {
    let words = ["s.", "b.", "hvs.", " ", "\u{7f}", "é", "AAAAAAAAAAAAAAAAAAAAAAAA", "0f", "\""];
    Target::new("token").words(&words).run(|input| {
        let given = text(input);
        let token = Token::parse(&given);
        if let Ok(token) = &token {
            assert_eq!(token.expose(), given);
            assert!(
                (1..=MAX_TOKEN_BYTES).contains(&given.len()) && given.bytes().all(|c| c.is_ascii_graphic())
            );
            assert_eq!(format!("{token:?}"), "Token([redacted])");
        }
        let accessor = Accessor::parse(&given);
        if let Ok(accessor) = &accessor {
            assert_eq!(accessor.as_str(), given);
            assert!(token.is_ok());
        }
        let hash = serde_json::from_value::<TokenHash>(given.as_ref().into());
        if let Ok(hash) = &hash {
            assert_eq!(hash.to_hex(), given.to_ascii_lowercase());
        }
        format!("{} {} {}", token.is_ok(), accessor.is_ok(), hash.is_ok())
    });
}

/// Each line a share.
#[test]
fn shares_in_any_spelling_are_the_same_and_never_more_than_was_given() {
    let words = ["00", "ff", "=", "==", "/", "+", "\n", " ", "AQ==", "01"];
    Target::new("share").words(&words).runs(3_000).run(|input| {
        let given = text(input);
        let mut shares = Vec::new();
        let mut refused = 0;
        for line in given.lines().take(20) {
            let Ok(share) = Share::parse(line) else {
                refused += 1;
                continue;
            };
            assert!(share.expose().len() <= line.len());
            for spelling in [share.to_hex(), share.to_base64()] {
                // Base64 of digits and the letters a to f alone is taken for hexadecimal.
                let again = Share::parse(&spelling).unwrap();
                let ambiguous = hex::decode(&*spelling).is_ok() && *spelling != *share.to_hex();
                assert!(ambiguous || again.expose() == share.expose());
            }
            shares.push(share);
        }
        let mut answers = String::new();
        for threshold in [(1, 1), (5, 3), (255, 255)] {
            let threshold = Threshold::new(threshold.0, threshold.1).unwrap();
            match shamir::combine(&shares, threshold) {
                Ok(secret) => {
                    assert!(secret.len() <= shares[0].expose().len());
                    answers.push('y');
                }
                Err(why) => answers.push_str(&kind(&why)),
            }
        }
        format!("{refused} {} {answers}", shares.len())
    });
}

#[test]
fn a_statement_is_itself_with_values_in_the_place_of_placeholders() {
    let words = [
        "{{name}}",
        "{{username}}",
        "{{password}}",
        "{{expiration}}",
        "{{",
        "}}",
        "{{ name }}",
        "{{x}}",
        "'",
    ];
    Target::new("statement").words(&words).run(|input| {
        let given = text(input);
        let checked = check_statement(&given);
        let password = SecretString::copy_of("P4ssw0rd-q");
        let values = StatementValues::new("v-u-r-1", &password, Timestamp::from_secs(1_800_000_000)).unwrap();
        let rendered = values.render(&given);
        assert_eq!(rendered.as_ref().map(drop), checked.as_ref().copied(), "checked with any values");
        let Ok(rendered) = rendered else { return kind(&checked.unwrap_err()) };
        // Taken apart independently: the text between the placeholders stands there as it was.
        let mut rest = rendered.expose();
        let mut parts = given.split("{{");
        rest = rest.strip_prefix(parts.next().unwrap()).unwrap();
        for part in parts {
            let (key, after) = part.split_once("}}").unwrap();
            let value = match key.trim() {
                "password" => "P4ssw0rd-q",
                "expiration" => "2027-01-15 08:00:00+0000",
                _ => "v-u-r-1",
            };
            rest = rest.strip_prefix(value).unwrap().strip_prefix(after).unwrap();
        }
        assert_eq!(rest, "");
        format!("{}", given.matches("{{").count())
    });
}
