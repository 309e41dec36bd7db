//! Unique texts that are put into requests, and where each kind of them may be seen again.

use std::collections::BTreeMap;

use serde_json::Value;

/// What a mark stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Secret values, and whatever else only a reply to its owner may show.
    Value,
    /// Settings such as types, durations and the text of policies: an error may say which one is wrong.
    Setting,
    /// Tokens, secret ids, shares, passwords: sent or issued.
    Token,
    /// Names in paths of secrets, mounts, roles, connections.
    Path,
    /// Names of users and what tokens are called.
    User,
    /// Names of policies.
    Policy,
    /// Metadata of tokens.
    Meta,
}

/// A place where marks are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Store,
    Audit,
    Device,
    ProcessLog,
    Metrics,
    Debug,
    /// An error, told to the one who sent the mark.
    OwnError,
    /// Whatever somebody else is told, who did not send the mark and may not see it.
    OthersReply,
}

impl Place {
    pub const ALL: [Self; 8] = [
        Self::Store,
        Self::Audit,
        Self::Device,
        Self::ProcessLog,
        Self::Metrics,
        Self::Debug,
        Self::OwnError,
        Self::OthersReply,
    ];
}

impl Kind {
    /// The table of what may appear where. Everything else is a leak.
    pub const fn may_be_in(self, place: Place) -> bool {
        match (self, place) {
            // Values and tokens: nowhere. A device has their HMACs.
            (Self::Value | Self::Token, _) => false,
            // Names: in the audit log, so that it says what happened to what; in an error to who sent them; in the Debug
            // of a request, which is its path.
            (_, Place::Audit | Place::Device | Place::OwnError | Place::Debug) => true,
            (_, Place::Store | Place::ProcessLog | Place::Metrics | Place::OthersReply) => false,
        }
    }

    const fn letter(self) -> &'static str {
        match self {
            Self::Value => "v",
            Self::Setting => "s",
            Self::Token => "t",
            Self::Path => "p",
            Self::User => "u",
            Self::Policy => "y",
            Self::Meta => "m",
        }
    }
}

/// All marks made so far.
#[derive(Default)]
pub struct Marks {
    made: BTreeMap<String, Kind>,
    /// Tokens that the vault made: they look like anything.
    issued: Vec<String>,
}

/// What all marks begin with, and how long they are.
const BEGIN: &str = "cnry";
const LENGTH: usize = 13;

impl Marks {
    /// A new mark. Lower-case letters and digits, so that every name may be one.
    pub fn make(&mut self, kind: Kind) -> String {
        let text = format!("cnry{}{:06}qz", kind.letter(), self.made.len());
        assert_eq!(text.len(), LENGTH);
        self.made.insert(text.clone(), kind);
        text
    }

    /// Counts a text of the vault's own making as a token.
    pub fn add(&mut self, text: &str) {
        // Anything shorter would be found by chance.
        if text.len() >= 12 && !text.starts_with(BEGIN) && !self.issued.iter().any(|known| known == text) {
            self.issued.push(text.to_owned());
        }
    }

    /// Counts what a reply hands out as marks: tokens, secret ids, passwords, shares.
    pub fn add_issued(&mut self, reply: &Value) {
        const ISSUED: &[&str] = &[
            "client_token",
            "token",
            "secret_id",
            "password",
            "keys_base64",
            "root_token",
            "encoded_token",
            "encoded_root_token",
            "otp",
            "random_bytes",
        ];
        match reply {
            Value::Object(map) => {
                for (key, value) in map {
                    match value {
                        Value::String(text) if ISSUED.contains(&key.as_str()) => self.add(text),
                        Value::Array(items) if key == "keys_base64" => {
                            items.iter().filter_map(Value::as_str).for_each(|text| self.add(text));
                        }
                        other => self.add_issued(other),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.add_issued(item)),
            _ => {}
        }
    }

    /// The marks that are in `text` and must not be in `place`.
    pub fn leaks(&self, place: Place, text: &str) -> Vec<(Kind, String)> {
        self.in_text(text).into_iter().filter(|(kind, _)| !kind.may_be_in(place)).collect()
    }

    /// All marks in `text`.
    pub fn in_text(&self, text: &str) -> Vec<(Kind, String)> {
        let made = text
            .match_indices(BEGIN)
            .filter_map(|(at, _)| self.made.get_key_value(text.get(at..at + LENGTH)?))
            .map(|(mark, kind)| (*kind, mark.clone()));
        let issued = self.issued.iter().filter(|token| text.contains(token.as_str()));
        made.chain(issued.map(|token| (Kind::Token, token.clone()))).collect()
    }

    pub fn count(&self) -> usize {
        self.made.len()
    }
}
