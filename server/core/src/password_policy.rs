//! Password policies: how long a generated password is, and which characters it has. In Vault's HCL:
//! `length = 20` and `rule "charset" { charset = "abc" min-chars = 1 }`.
//!
//! <https://developer.hashicorp.com/vault/docs/concepts/password-policies>. Never keeps a password.

use rand::CryptoRng;
use rand::seq::SliceRandom as _;
use zeroize::Zeroizing;

use crate::hcl::{self, Value};
use crate::secret::SecretString;

/// The longest text of a policy, in bytes.
pub const MAX_PASSWORD_POLICY_BYTES: usize = 64 * 1024;
/// The longest password.
pub const MAX_LENGTH: usize = 512;
/// The most rules of a policy.
pub const MAX_RULES: usize = 64;
/// How often a password that breaks a rule is thrown away before one is put together rule by rule.
const TRIES: usize = 200;

/// Why a text is no password policy. Never quotes a charset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PasswordPolicyError {
    /// Too long.
    #[error("password policy is longer than {MAX_PASSWORD_POLICY_BYTES} bytes")]
    TooLong,
    /// No HCL.
    #[error("unable to decode: {0}")]
    Hcl(#[from] hcl::HclError),
    /// An entry that there is not.
    #[error("invalid key {0:?} in password policy")]
    Key(String),
    /// `length` is no number of characters.
    #[error("length must be > 0")]
    NoLength,
    /// `length` is too large.
    #[error("length must be at most {MAX_LENGTH}")]
    Long,
    /// Not even one rule.
    #[error("no charset specified")]
    NoCharset,
    /// Too many rules.
    #[error("more than {MAX_RULES} rules")]
    TooMany,
    /// A rule that there is not.
    #[error("unable to parse rules: unable to parse rule {0}: unrecognized rule type {0}")]
    Rule(String),
    /// A rule's entry that makes no sense.
    #[error("unable to parse rules: rule charset: {0}")]
    Charset(&'static str),
    /// More is asked for than there is room.
    #[error("specified rules require at least {needed} characters but {length} is specified")]
    TooFew {
        /// By the rules.
        needed: usize,
        /// By the policy.
        length: usize,
    },
}

struct Rule {
    charset: Vec<char>,
    min: usize,
}

/// How passwords are made.
pub struct PasswordPolicy {
    length: usize,
    rules: Vec<Rule>,
    /// All characters of all rules, each once.
    alphabet: Vec<char>,
}

impl PasswordPolicy {
    /// Reads a policy.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(source: &str) -> Result<Self, PasswordPolicyError> {
        if source.len() > MAX_PASSWORD_POLICY_BYTES {
            return Err(PasswordPolicyError::TooLong);
        }
        let body = hcl::parse(source)?;
        if let Some(other) = body.entries.iter().find(|entry| entry.key != "length" && entry.key != "rule") {
            return Err(PasswordPolicyError::Key(other.key.chars().take(40).collect()));
        }
        let length = match body.get("length") {
            Some(Value::Integer(length)) if *length > 0 => usize::try_from(*length).unwrap_or(usize::MAX),
            _ => return Err(PasswordPolicyError::NoLength),
        };
        if length > MAX_LENGTH {
            return Err(PasswordPolicyError::Long);
        }
        let blocks = body.labelled_blocks("rule")?;
        if blocks.len() > MAX_RULES {
            return Err(PasswordPolicyError::TooMany);
        }
        let mut rules = Vec::new();
        for block in blocks {
            if block.label != "charset" {
                return Err(PasswordPolicyError::Rule(block.label.chars().take(40).collect()));
            }
            rules.push(rule(block.body)?);
        }
        let mut alphabet: Vec<char> = rules.iter().flat_map(|rule| rule.charset.iter().copied()).collect();
        alphabet.sort_unstable();
        alphabet.dedup();
        if alphabet.is_empty() {
            return Err(PasswordPolicyError::NoCharset);
        }
        let needed = rules.iter().map(|rule| rule.min).fold(0usize, usize::saturating_add);
        if needed > length {
            return Err(PasswordPolicyError::TooFew { needed, length });
        }
        Ok(Self { length, rules, alphabet })
    }

    /// A password that keeps all rules.
    pub fn generate(&self, rng: &mut impl CryptoRng) -> SecretString {
        // Throwing whole candidates away keeps the rest uniform.
        for _ in 0..TRIES {
            let candidate = Zeroizing::new(draw(&self.alphabet, self.length, rng));
            if self.keeps(&candidate) {
                return together(&candidate);
            }
        }
        // Rules that chance hardly ever keeps.
        let mut chars = Zeroizing::new(Vec::with_capacity(self.length));
        for rule in &self.rules {
            chars.extend(draw(&rule.charset, rule.min, rng));
        }
        let rest = self.length.saturating_sub(chars.len());
        chars.extend(draw(&self.alphabet, rest, rng));
        chars.shuffle(rng);
        together(&chars)
    }

    fn keeps(&self, candidate: &[char]) -> bool {
        self.rules.iter().all(|rule| {
            rule.min == 0 || candidate.iter().filter(|c| rule.charset.contains(c)).count() >= rule.min
        })
    }
}

fn rule(body: &hcl::Body) -> Result<Rule, PasswordPolicyError> {
    let mut found = Rule { charset: Vec::new(), min: 0 };
    for entry in &body.entries {
        match (entry.key.as_str(), &entry.value) {
            ("charset", Value::String(text)) => {
                found.charset = text.chars().collect();
                found.charset.sort_unstable();
                found.charset.dedup();
            }
            ("charset", _) => return Err(PasswordPolicyError::Charset("charset must be text")),
            ("min-chars" | "min_chars", Value::Integer(min)) => {
                found.min = usize::try_from(*min)
                    .map_err(|_| PasswordPolicyError::Charset("min-chars must not be negative"))?;
            }
            ("min-chars" | "min_chars", _) => {
                return Err(PasswordPolicyError::Charset("min-chars must be a whole number"));
            }
            _ => return Err(PasswordPolicyError::Charset("only charset and min-chars are known")),
        }
    }
    if found.charset.is_empty() {
        return Err(PasswordPolicyError::Charset("charset is empty"));
    }
    if found.charset.iter().any(|c| c.is_control()) {
        return Err(PasswordPolicyError::Charset("charset has a control character"));
    }
    Ok(found)
}

/// `count` characters, each as likely as any other.
fn draw(alphabet: &[char], count: usize, rng: &mut impl CryptoRng) -> Vec<char> {
    use rand::seq::IndexedRandom as _;
    (0..count).filter_map(|_| alphabet.choose(rng).copied()).collect()
}

fn together(chars: &[char]) -> SecretString {
    let mut text = Zeroizing::new(String::with_capacity(chars.iter().map(|c| c.len_utf8()).sum()));
    text.extend(chars);
    SecretString::copy_of(&text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    fn refusal(source: &str) -> String {
        match PasswordPolicy::parse(source) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("{source} is not refused"),
        }
    }

    #[test]
    fn passwords_keep_their_rules() {
        let source = r#"
            length = 12
            rule "charset" { charset = "abcdefghij" min-chars = 1 }
            rule "charset" {
              charset   = "0123456789"
              min-chars = 3
            }
            rule "charset" { charset = "-!ä" min-chars = 8 }
        "#;
        let policy = PasswordPolicy::parse(source).unwrap();
        let mut rng = StdRng::seed_from_u64(1);
        for _ in 0..100 {
            let password = policy.generate(&mut rng);
            let text = password.expose();
            assert_eq!(text.chars().count(), 12);
            let count = |set: &str| text.chars().filter(|c| set.contains(*c)).count();
            assert_eq!((count("abcdefghij"), count("0123456789"), count("-!ä")), (1, 3, 8), "{text}");
        }
        let json =
            PasswordPolicy::parse(r#"{"length": 8, "rule": [{"charset": {"charset": "xy"}}]}"#).unwrap();
        assert_eq!(json.generate(&mut rng).len(), 8);
    }

    #[test]
    fn every_character_is_as_likely_as_any_other() {
        let policy =
            PasswordPolicy::parse("length = 100\nrule \"charset\" { charset = \"aabbbcd\" }").unwrap();
        let mut rng = StdRng::seed_from_u64(2);
        let mut counts = [0u32; 4];
        for _ in 0..400 {
            for c in policy.generate(&mut rng).expose().bytes() {
                counts[usize::from(c - b'a')] += 1;
            }
        }
        for count in counts {
            assert!((9_000..11_000).contains(&count), "{counts:?}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_openbaos_words() {
        let charset = "rule \"charset\" { charset = \"abc\" min-chars = 30 }";
        for (source, why) in [
            ("length = 20", "no charset specified"),
            ("rule \"charset\" { charset = \"abc\" }", "length must be > 0"),
            ("length = -1\nrule \"charset\" { charset = \"abc\" }", "length must be > 0"),
            (
                &format!("length = 20\n{charset}"),
                "specified rules require at least 30 characters but 20 is specified",
            ),
            (
                "length = 20\nrule \"foo\" { charset = \"abc\" }",
                "unable to parse rules: unable to parse rule foo: unrecognized rule type foo",
            ),
        ] {
            assert_eq!(refusal(source), why);
        }
        for source in [
            "length = 600\nrule \"charset\" { charset = \"abc\" }",
            "length = 20\nrule \"charset\" { charset = \"\" }",
            "length = 20\nrule \"charset\" { charset = \"a\\n\" }",
            "length = 20\nrule \"charset\" { charset = \"a\" min-chars = -1 }",
            "length = 20\nrule \"charset\" { charset = \"a\" other = 1 }",
            "length = 20\nwidth = 3",
            "length = ",
            &"x".repeat(MAX_PASSWORD_POLICY_BYTES + 1),
        ] {
            assert!(!refusal(source).is_empty());
        }
    }
}
