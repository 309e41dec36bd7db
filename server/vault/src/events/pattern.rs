//! Which types of events somebody wants: globs, several of them by comma. Pure.

use crate::error::{Fail, bad};

/// The type of the event that says: something may have happened, look at everything again. Comes whatever was asked
/// for, because it stands for events of any type.
pub(crate) const RESYNC: &str = "coffer/resync";

const BYTES_MAX: usize = 256;
const GLOBS_MAX: usize = 16;

/// A checked pattern.
#[derive(Clone, Debug)]
pub(crate) struct Pattern(Vec<String>);

impl Pattern {
    /// Reads `kv-v2/data-write`, `kv*`, `*-delete,database/*`. At most 256 bytes and 16 globs.
    pub(crate) fn parse(text: &str) -> Result<Self, Fail> {
        let globs: Vec<String> = text.split(',').map(|glob| glob.trim().to_owned()).collect();
        let good = |c: u8| c.is_ascii_alphanumeric() || b"-_/*".contains(&c);
        let fits = text.len() <= BYTES_MAX && globs.len() <= GLOBS_MAX;
        if !fits || globs.iter().any(|glob| glob.is_empty() || !glob.bytes().all(good)) {
            return Err(bad("invalid event type pattern"));
        }
        Ok(Self(globs))
    }

    /// Whether events of this type are wanted.
    pub(crate) fn wants(&self, event_type: &str) -> bool {
        event_type == RESYNC || self.0.iter().any(|pattern| glob(pattern, event_type))
    }
}

/// Whether a text matches a pattern in which each `*` stands for any run of characters, also none.
pub(crate) fn glob(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let mut middle = rest.split('*').peekable();
    while let Some(part) = middle.next() {
        if middle.peek().is_none() {
            return text.ends_with(part);
        }
        // The first place where it fits leaves most for the others.
        let Some(at) = text.find(part) else { return false };
        text = &text[at + part.len()..];
    }
    true
}

#[cfg(test)]
mod tests {
    use coffer_fuzz::{Target, kind, text};

    use super::*;

    /// The same, so simple that it cannot be wrong, and so slow that it is no use.
    fn plainly(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|at| plainly(rest, &text[at..])),
            Some((byte, rest)) => text.first() == Some(byte) && plainly(rest, &text[1..]),
        }
    }

    /// A pattern, and an event's type in the line after it.
    #[test]
    fn patterns_want_what_their_globs_match_and_nothing_else() {
        let words = ["*", ",", "kv-v2/data-write", "kv", "data", "-", "/", "coffer/resync", "\n", "ab", " "];
        Target::new("event-pattern").words(&words).run(|input| {
            let given = text(input);
            let (globs, event_type) = given.split_once('\n').unwrap_or((&given, "kv-v2/data-write"));
            let pattern = match Pattern::parse(globs) {
                Ok(pattern) => pattern,
                Err(why) => return kind(&why.to_string()),
            };
            assert!(globs.len() <= BYTES_MAX && pattern.0.len() <= GLOBS_MAX);
            assert!(pattern.wants(RESYNC), "comes whatever was asked for");
            let again = Pattern::parse(&pattern.0.join(",")).unwrap();
            assert_eq!(again.wants(event_type), pattern.wants(event_type));
            // Types are short; the plain way takes too long over many stars.
            let stars = pattern.0.iter().map(|glob| glob.matches('*').count()).max().unwrap_or(0);
            if event_type.len() > 40 || stars > 4 {
                return "long".into();
            }
            let plain = pattern.0.iter().any(|glob| plainly(glob.as_bytes(), event_type.as_bytes()));
            assert_eq!(pattern.wants(event_type), plain || event_type == RESYNC, "{globs} {event_type}");
            format!("{} {stars} {plain}", pattern.0.len().min(4))
        });
    }

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, text, fits) in [
            ("*", "kv-v2/data-write", true),
            ("kv*", "kv-v2/data-write", true),
            ("kv*", "database/rotate", false),
            ("*write", "kv-v2/data-write", true),
            ("*write", "kv-v2/data-writes", false),
            ("kv-v2/data-*", "kv-v2/data-patch", true),
            ("kv*data*write", "kv-v2/data-write", true),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("**", "", true),
            ("kv", "kv-v2", false),
            ("*ab*b", "ab", false),
            ("*-*-*", "a-b-c-d", true),
        ] {
            assert_eq!(glob(pattern, text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn one_of_several_is_enough_and_a_resync_is_always_wanted() {
        let pattern = Pattern::parse("kv-v1/*, database*").unwrap();
        assert!(pattern.wants("database/rotate") && pattern.wants("kv-v1/write") && pattern.wants(RESYNC));
        assert!(!pattern.wants("kv-v2/data-write"));
        for wrong in ["", "kv,", "kv v2", "kv?", &"k".repeat(257), &["k"; 17].join(",")] {
            assert!(Pattern::parse(wrong).is_err(), "{wrong}");
        }
    }
}
