//! Statements for databases with their placeholders filled in, and the names and passwords that go in.
//!
//! Nothing is escaped, because nothing that needs escaping is let in: each value is checked against a narrow
//! alphabet first. Never runs a statement.

use rand::CryptoRng;
use zeroize::Zeroizing;

use crate::secret::SecretString;
use crate::time::Timestamp;

/// The longest statement, before filling in.
pub const MAX_STATEMENT_BYTES: usize = 64 * 1024;
/// The most placeholders a statement may have.
pub const MAX_PLACEHOLDERS: usize = 256;
/// The longest password that may be put into a statement.
pub const MAX_PASSWORD_BYTES: usize = 512;
/// The longest account name the generator makes: PostgreSQL's limit.
pub const MAX_USERNAME_BYTES: usize = 63;
/// Names that may not be longer than this have no time in them.
const SHORT_USERNAME_BYTES: usize = 48;
/// The length of generated passwords.
pub const PASSWORD_CHARS: usize = 32;

const DIGITS: &[u8] = b"0123456789";
const LOWER: &[u8] = b"abcdefghijklmnopqrstuvwxyz";
const UPPER: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const PASSWORD_ALPHABET: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-";
const NAME_ALPHABET: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// Why a statement could not be filled in. Never carries a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A placeholder that nothing is known for.
    #[error("unknown placeholder {{{{{0}}}}} in statement")]
    Unknown(String),
    /// `{{` without `}}`.
    #[error("placeholder is not closed in statement")]
    Unclosed,
    /// Too many placeholders.
    #[error("statement has more than {MAX_PLACEHOLDERS} placeholders")]
    TooMany,
    /// Too long.
    #[error("statement is longer than {MAX_STATEMENT_BYTES} bytes")]
    TooLong,
    /// A value outside its alphabet.
    #[error("{0} has a character that is not allowed in a statement")]
    Value(&'static str),
}

/// What may be put into a statement. Every value has passed its alphabet.
#[derive(Debug)]
pub struct StatementValues<'a> {
    username: &'a str,
    password: &'a SecretString,
    expiration: String,
}

impl<'a> StatementValues<'a> {
    /// Checks the values. `expiration` is written as PostgreSQL and MySQL read it, in UTC.
    pub fn new(
        username: &'a str,
        password: &'a SecretString,
        expiration: Timestamp,
    ) -> Result<Self, TemplateError> {
        let name = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-');
        if username.is_empty() || username.len() > MAX_USERNAME_BYTES || !username.bytes().all(name) {
            return Err(TemplateError::Value("username"));
        }
        let word = |c: u8| PASSWORD_ALPHABET.contains(&c) || c == b'_';
        if password.is_empty() || password.len() > MAX_PASSWORD_BYTES || !password.expose().bytes().all(word)
        {
            return Err(TemplateError::Value("password"));
        }
        let seconds = Timestamp::from_secs(expiration.as_secs());
        let expiration = seconds.to_rfc3339().replace('T', " ").replace('Z', "+0000");
        Ok(Self { username, password, expiration })
    }

    /// Fills in `{{name}}`, `{{username}}`, `{{password}}` and `{{expiration}}`. The result holds a password.
    pub fn render(&self, statement: &str) -> Result<SecretString, TemplateError> {
        if statement.len() > MAX_STATEMENT_BYTES {
            return Err(TemplateError::TooLong);
        }
        // Growing would leave copies behind, so the room for every value is taken up front.
        let count = statement.matches("{{").count();
        if count > MAX_PLACEHOLDERS {
            return Err(TemplateError::TooMany);
        }
        let widest = self.username.len().max(self.password.len()).max(self.expiration.len());
        let mut out = Zeroizing::new(String::with_capacity(statement.len() + count * widest));
        let mut rest = statement;
        while let Some((before, tail)) = rest.split_once("{{") {
            let (key, after) = tail.split_once("}}").ok_or(TemplateError::Unclosed)?;
            out.push_str(before);
            out.push_str(self.value(key.trim())?);
            rest = after;
        }
        out.push_str(rest);
        Ok(SecretString::copy_of(&out))
    }

    fn value(&self, key: &str) -> Result<&str, TemplateError> {
        match key {
            "name" | "username" => Ok(self.username),
            "password" => Ok(self.password.expose()),
            "expiration" => Ok(&self.expiration),
            other => Err(TemplateError::Unknown(other.chars().take(32).collect())),
        }
    }
}

/// Checks a statement's placeholders when it is written, long before it runs.
pub fn check_statement(statement: &str) -> Result<(), TemplateError> {
    let password = SecretString::copy_of("x");
    StatementValues::new("x", &password, Timestamp::ZERO)?.render(statement).map(drop)
}

/// An account name: `v-<display>-<role>-<20 random characters>-<seconds>`, at most `max_bytes` long (and at most
/// [`MAX_USERNAME_BYTES`]). The readable parts give way first, so that the random part is always whole.
pub fn username(
    display: &str,
    role: &str,
    max_bytes: usize,
    now: Timestamp,
    rng: &mut impl CryptoRng,
) -> String {
    let max = max_bytes.min(MAX_USERNAME_BYTES);
    // Where there is little room the time goes, then readability: the random part alone keeps names apart.
    let (random, time) = if max < SHORT_USERNAME_BYTES {
        (max.saturating_sub(3).min(16), String::new())
    } else {
        (20, format!("-{}", now.as_secs()))
    };
    let random: String = (0..random).map(|_| pick(NAME_ALPHABET, rng)).collect();
    let tail = format!("{random}{time}");
    // "v-", two dashes, and the tail; what is left is shared by the readable parts, at most eight each.
    let room = max.saturating_sub(tail.len() + 4) / 2;
    let mut name = String::from("v-");
    for part in [display, role] {
        if room > 0 {
            name.push_str(&readable(part, room.min(8)));
            name.push('-');
        }
    }
    name.push_str(&tail);
    name.truncate(max);
    name
}

/// The first characters of a name, with anything outside the alphabet replaced.
fn readable(text: &str, chars: usize) -> String {
    let keep = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
    text.chars().take(chars).map(keep).collect()
}

/// A password of [`PASSWORD_CHARS`] characters, with at least one of each class, from an alphabet that needs no
/// escaping in SQL, shells or URLs. It begins with a letter or digit.
pub fn password(rng: &mut impl CryptoRng) -> SecretString {
    loop {
        let mut text = Zeroizing::new(String::with_capacity(PASSWORD_CHARS));
        (0..PASSWORD_CHARS).for_each(|_| text.push(pick(PASSWORD_ALPHABET, rng)));
        let has = |class: &[u8]| text.bytes().any(|c| class.contains(&c));
        // Throwing whole candidates away keeps the rest uniform, which replacing characters would not.
        if has(DIGITS) && has(LOWER) && has(UPPER) && has(b"-") && !text.starts_with('-') {
            return SecretString::copy_of(&text);
        }
    }
}

/// A uniformly chosen character. Bytes that would favour the start of the alphabet are thrown away.
fn pick(alphabet: &[u8], rng: &mut impl CryptoRng) -> char {
    let fair = 256 - 256 % alphabet.len();
    loop {
        let mut byte = [0u8; 1];
        rng.fill_bytes(&mut byte);
        let at = usize::from(byte[0]);
        if at < fair {
            return char::from(alphabet[at % alphabet.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    #[test]
    fn fills_in() {
        let password = SecretString::copy_of("Ab1-x");
        let values =
            StatementValues::new("v-app", &password, Timestamp::from_millis(951_827_696_250)).unwrap();
        let sql = r#"CREATE ROLE "{{name}}" PASSWORD '{{password}}' VALID UNTIL '{{ expiration }}' -- {{username}}"#;
        assert_eq!(
            values.render(sql).unwrap().expose(),
            r#"CREATE ROLE "v-app" PASSWORD 'Ab1-x' VALID UNTIL '2000-02-29 12:34:56+0000' -- v-app"#
        );
        assert_eq!(values.render("{{nmae}}").unwrap_err(), TemplateError::Unknown("nmae".into()));
        assert_eq!(values.render("x {{name").unwrap_err(), TemplateError::Unclosed);
        assert!(check_statement("DROP ROLE \"{{name}}\"").is_ok());
        assert!(check_statement("{{secret}}").is_err());
        assert!(check_statement(&"x".repeat(MAX_STATEMENT_BYTES + 1)).is_err());
        assert!(check_statement(&"{{name}}".repeat(MAX_PLACEHOLDERS)).is_ok());
        assert_eq!(check_statement(&"{{name}}".repeat(MAX_PLACEHOLDERS + 1)), Err(TemplateError::TooMany));
    }

    #[test]
    fn nothing_that_needs_escaping_gets_in() {
        let good = SecretString::copy_of("x");
        for name in ["", "a\"; DROP", "a'b", "a b", "{{password}}", "ü", &"x".repeat(64)] {
            assert_eq!(
                StatementValues::new(name, &good, Timestamp::ZERO).unwrap_err(),
                TemplateError::Value("username")
            );
        }
        for secret in ["", "it's", "a\\b", "{{name}}"] {
            let secret = SecretString::copy_of(secret);
            assert_eq!(
                StatementValues::new("x", &secret, Timestamp::ZERO).unwrap_err(),
                TemplateError::Value("password")
            );
        }
    }

    #[test]
    fn usernames_fit_and_pass_their_own_alphabet() {
        let mut rng = StdRng::seed_from_u64(3);
        let now = Timestamp::from_millis(1_795_000_000_000);
        let name = username("kubernetes-prod-shop", "k8s.prod.shop.db", 63, now, &mut rng);
        assert!(name.starts_with("v-kubernet-k8s-prod-") && name.ends_with("-1795000000"), "{name}");
        let good = SecretString::copy_of("x");
        let short = username("kubernetes", "orders", 32, now, &mut rng);
        assert!(short.starts_with("v-kubern-orders-") && short.len() == 32, "{short}");
        let shortest = username("kubernetes", "orders", 16, now, &mut rng);
        assert!(shortest.starts_with("v-") && shortest.len() == 15, "{shortest}");
        for max in [63, 32, 40, 16, 1000] {
            for display in ["", "täst'; DROP", "root"] {
                let name = username(display, display, max, now, &mut rng);
                assert!(name.len() <= max.min(63));
                assert!(StatementValues::new(&name, &good, now).is_ok(), "{name}");
            }
        }
        assert_ne!(username("a", "b", 63, now, &mut rng), username("a", "b", 63, now, &mut rng));
    }

    #[test]
    fn passwords_have_every_class() {
        let mut rng = StdRng::seed_from_u64(4);
        for _ in 0..200 {
            let password = password(&mut rng);
            let text = password.expose();
            assert_eq!(text.len(), PASSWORD_CHARS);
            assert!(!text.starts_with('-'));
            for class in [DIGITS, LOWER, UPPER, b"-"] {
                assert!(text.bytes().any(|c| class.contains(&c)));
            }
        }
    }

    #[test]
    fn picking_is_fair() {
        let mut rng = StdRng::seed_from_u64(5);
        let mut counts = [0u32; 128];
        for _ in 0..62_000 {
            counts[pick(NAME_ALPHABET, &mut rng) as usize] += 1;
        }
        for c in NAME_ALPHABET {
            let n = counts[usize::from(*c)];
            assert!((800..1200).contains(&n), "{} came {n} times", char::from(*c));
        }
    }
}
