//! `rotation/<path>`: when a secret gets its next value, and who makes it. Never shows a value, or what a webhook knows
//! the vault by.

use std::time::Duration;

use coffer_barrier::RecordKind;
use coffer_core::password_policy::PasswordPolicy;
use coffer_core::rotation::Rotation;
use coffer_core::schedule::Timing;
use coffer_core::secret::SecretString;
use coffer_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::hook;
use crate::engine::EngineRequest;
use crate::input::object;
use crate::timing::{self, Asked};
use crate::{EngineError, ReadView, WriteView, codec, input};

const FORMAT: u8 = 1;
const RECORD_BYTES_MAX: usize = 256 * 1024;
const PERIOD_MIN: Duration = Duration::from_secs(10);
const GRACE_DEFAULT: Duration = Duration::from_secs(120);
const GRACE_MAX: Duration = Duration::from_secs(3600);
const FIELD_BYTES_MAX: usize = 256;
const CHARSET_CHARS_MAX: usize = 1024;
/// Letters and digits.
const CHARSET: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
const SECRET_BYTES_MAX: usize = 4096;
const CA_BYTES_MAX: usize = 64 * 1024;
/// When a secret's next rotation is due, in order.
const DUE: &str = "rotation-due";

/// Makes a value.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Generator {
    /// By the password policy of that name; else by length and charset.
    pub(super) password_policy: String,
    length: u64,
    charset: String,
}

impl Generator {
    /// The policy's own, where no policy is named.
    pub(super) fn own(&self) -> Result<PasswordPolicy, EngineError> {
        // Quoted as HCL reads it back.
        let charset = Value::String(self.charset.clone());
        let text = format!("length = {}\nrule \"charset\" {{ charset = {charset} }}", self.length);
        PasswordPolicy::parse(&text).map_err(|why| EngineError::bad(format!("length or charset: {why}")))
    }
}

/// How a webhook knows that it is the vault that calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Proof {
    /// A signature over time and body.
    Hmac,
    /// The secret itself.
    Bearer,
}

/// Who is asked.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Webhook {
    pub(super) url: String,
    pub(super) ca_pem: Option<String>,
    pub(super) proof: Proof,
    #[serde(with = "codec::secret_text")]
    pub(super) secret: SecretString,
}

/// What a rotation has in hand before it is published.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Work {
    /// The same for every attempt at it.
    pub(super) key: String,
    /// The generated value.
    #[serde(with = "codec::secret_text_option")]
    pub(super) value: Option<SecretString>,
}

/// A secret's rotation.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Policy {
    format: u8,
    timing: Timing,
    /// Which key of the data changes.
    pub(super) field: String,
    pub(super) generator: Option<Generator>,
    pub(super) webhook: Option<Webhook>,
    /// In milliseconds.
    grace: u64,
    pub(super) delete_previous: bool,
    pub(super) rotation: Rotation<Work>,
    /// Which version of the secret the last rotation published, and which the one before.
    pub(super) published: u64,
    pub(super) previous: u64,
    due: Timestamp,
}

impl Policy {
    /// What is stored once the request is carried out.
    pub(super) fn merged(stored: Option<Self>, req: &EngineRequest<'_>) -> Result<Self, EngineError> {
        let body = req.body;
        let timing = match (
            timing::asked(body, stored.as_ref().map(|old| &old.timing), PERIOD_MIN, false)?,
            &stored,
        ) {
            (Asked::Timing(timing), _) => Some(timing),
            (_, Some(_)) => None,
            (_, None) => return Err(EngineError::bad("rotation_period or rotation_schedule is required")),
        };
        let mut policy = match (stored, &timing) {
            (Some(stored), _) => stored,
            (None, Some(timing)) => Self::new(timing.clone()),
            (None, None) => return Err(EngineError::bad("rotation_period or rotation_schedule is required")),
        };
        if let Some(timing) = timing {
            policy.due = match (&timing, policy.rotation.since) {
                (Timing::Every(_), Some(since)) => timing.next_after(since),
                _ => timing.next_after(req.now),
            };
            policy.timing = timing;
        }
        if let Some(field) = input::text(body, "field")? {
            if field.is_empty() || field.len() > FIELD_BYTES_MAX || field.chars().any(char::is_control) {
                return Err(EngineError::bad(format!(
                    "field must have 1 to {FIELD_BYTES_MAX} bytes and no control characters"
                )));
            }
            field.clone_into(&mut policy.field);
        }
        policy.take_generator(body)?;
        policy.take_webhook(body)?;
        if policy.generator.is_none() && policy.webhook.is_none() {
            return Err(EngineError::bad("a rotation needs length, password_policy or webhook_url"));
        }
        if let Some(grace) = input::duration(body, "grace_period")? {
            if grace > GRACE_MAX {
                return Err(EngineError::bad("grace_period must be at most an hour"));
            }
            policy.grace = super::millis(grace);
        }
        if let Some(delete) = input::boolean(body, "delete_previous")? {
            policy.delete_previous = delete;
        }
        Ok(policy)
    }

    fn new(timing: Timing) -> Self {
        Self {
            format: FORMAT,
            timing,
            field: "value".to_owned(),
            generator: None,
            webhook: None,
            grace: super::millis(GRACE_DEFAULT),
            delete_previous: false,
            rotation: Rotation::default(),
            published: 0,
            previous: 0,
            due: Timestamp::ZERO,
        }
    }

    fn take_generator(&mut self, body: &Map<String, Value>) -> Result<(), EngineError> {
        let (length, charset) = (input::whole(body, "length")?, input::text(body, "charset")?);
        let named = input::text(body, "password_policy")?;
        if length.is_none() && charset.is_none() && named.is_none() {
            return Ok(());
        }
        if named.is_some_and(|name| !name.is_empty()) && (length.is_some() || charset.is_some()) {
            return Err(EngineError::bad("give password_policy, or length and charset, not both"));
        }
        if charset.is_some_and(|set| set.chars().count() > CHARSET_CHARS_MAX) {
            return Err(EngineError::bad(format!("charset has more than {CHARSET_CHARS_MAX} characters")));
        }
        if length == Some(0) || (named == Some("") && length.is_none()) {
            self.generator = None;
            return Ok(());
        }
        let before = self.generator.take();
        let generator = Generator {
            password_policy: named.unwrap_or_default().to_owned(),
            length: length.or(before.as_ref().map(|old| old.length)).unwrap_or(32),
            charset: charset
                .map(str::to_owned)
                .or(before.map(|old| old.charset))
                .unwrap_or_else(|| CHARSET.to_owned()),
        };
        generator.own()?;
        self.generator = Some(generator);
        Ok(())
    }

    fn take_webhook(&mut self, body: &Map<String, Value>) -> Result<(), EngineError> {
        let url = input::text(body, "webhook_url")?;
        if url == Some("") {
            self.webhook = None;
            return Ok(());
        }
        let secret = input::text(body, "webhook_secret")?.filter(|secret| !secret.is_empty());
        if secret
            .is_some_and(|secret| secret.len() > SECRET_BYTES_MAX || secret.chars().any(char::is_control))
        {
            return Err(EngineError::bad(format!(
                "webhook_secret: at most {SECRET_BYTES_MAX} bytes and no control characters"
            )));
        }
        let proof = match input::text(body, "webhook_auth")? {
            None => None,
            Some("hmac") => Some(Proof::Hmac),
            Some("bearer") => Some(Proof::Bearer),
            Some(_) => return Err(EngineError::bad("webhook_auth: hmac or bearer")),
        };
        let ca_pem = input::text(body, "webhook_ca")?;
        if ca_pem.is_some_and(|pem| pem.len() > CA_BYTES_MAX) {
            return Err(EngineError::bad(format!("webhook_ca has more than {CA_BYTES_MAX} bytes")));
        }
        let before = self.webhook.take();
        let Some(url) = url.map(str::to_owned).or_else(|| before.as_ref().map(|old| old.url.clone())) else {
            if secret.is_some() || proof.is_some() || ca_pem.is_some() {
                return Err(EngineError::bad("webhook_url is missing"));
            }
            return Ok(());
        };
        let origin = hook::origin(&url)?;
        // What one of them knows the vault by is told to no other.
        let same = before.as_ref().is_some_and(|old| hook::origin(&old.url).is_ok_and(|o| o == origin));
        let kept_ca = before.as_ref().and_then(|old| old.ca_pem.clone());
        let kept_proof = before.as_ref().map_or(Proof::Hmac, |old| old.proof);
        let secret = match (secret, before) {
            (Some(secret), _) => SecretString::copy_of(secret),
            (None, Some(old)) if same && ca_pem.is_none_or(|pem| old.ca_pem.as_deref() == Some(pem)) => {
                old.secret
            }
            (None, Some(_)) => {
                return Err(EngineError::bad(
                    "webhook_url or webhook_ca changed: the stored secret is not sent anywhere new, give it again",
                ));
            }
            (None, None) => return Err(EngineError::bad("webhook_secret is missing")),
        };
        let ca_pem = match ca_pem {
            Some("") => None,
            Some(pem) => Some(pem.to_owned()),
            None => kept_ca,
        };
        self.webhook = Some(Webhook { url, ca_pem, proof: proof.unwrap_or(kept_proof), secret });
        Ok(())
    }

    pub(super) fn grace(&self) -> Duration {
        Duration::from_millis(self.grace)
    }

    pub(super) fn due(&self) -> Timestamp {
        self.due
    }

    pub(super) fn wake(&self) -> Timestamp {
        self.rotation.wake(self.due)
    }

    /// Whether the rotation that is due may still be begun.
    pub(super) fn in_time(&self, now: Timestamp) -> bool {
        self.timing.allows(self.due, now)
    }

    /// The window went by.
    pub(super) fn missed(&mut self, now: Timestamp) {
        self.due = self.timing.next_after(now);
    }

    /// One is wanted now.
    pub(super) fn wanted(&mut self, now: Timestamp) {
        self.rotation.hurry(now);
        self.due = now;
    }

    /// The candidate is the secret's version `number` from now on.
    pub(super) fn publish(&mut self, candidate: u64, number: u64, now: Timestamp) {
        self.rotation.published(candidate, now, self.grace());
        // The version has it; a second copy would outlive its destruction.
        self.rotation.secret = None;
        self.previous = self.published;
        self.published = number;
        self.due = self.timing.next_after(now);
    }

    /// Where the rotation is.
    pub(super) fn phase(&self) -> Map<String, Value> {
        let rotation = &self.rotation;
        let phase = match (&rotation.candidate, &rotation.retiring) {
            (Some(_), _) => "applying",
            (None, Some(_)) => "grace",
            (None, None) => "settled",
        };
        object(json!({
            "version": self.published,
            "rotation_phase": phase,
            "rotation_error": rotation.trouble(),
            "previous_version": rotation.retiring.as_ref().map(|_| self.previous),
            "previous_valid_until": rotation.retiring.as_ref().map(|last| last.until.to_rfc3339()),
            "last_rotation": rotation.since.map(Timestamp::to_rfc3339),
            "next_rotation": self.due.to_rfc3339(),
        }))
    }

    /// What a read shows.
    pub(super) fn json(&self) -> Map<String, Value> {
        let mut shown = object(json!({
            "field": self.field,
            "grace_period": self.grace / 1000,
            "delete_previous": self.delete_previous,
        }));
        if let Some(generator) = &self.generator {
            if generator.password_policy.is_empty() {
                shown.insert("length".to_owned(), json!(generator.length));
                shown.insert("charset".to_owned(), json!(generator.charset));
            } else {
                shown.insert("password_policy".to_owned(), json!(generator.password_policy));
            }
        }
        if let Some(webhook) = &self.webhook {
            shown.insert("webhook_url".to_owned(), json!(webhook.url));
            shown.insert("webhook_auth".to_owned(), json!(webhook.proof));
            shown.insert("webhook_ca".to_owned(), json!(webhook.ca_pem));
        }
        timing::show(&self.timing, &mut shown);
        shown.extend(self.phase());
        shown
    }
}

fn row(path: &str) -> String {
    format!("rotation/{path}")
}

pub(super) async fn load(view: &ReadView<'_>, path: &str) -> Result<Option<Policy>, EngineError> {
    let stored: Option<Policy> = view.record(RecordKind::Entry, &row(path), "kv rotation").await?;
    if stored.as_ref().is_some_and(|stored| stored.format != FORMAT) {
        return Err(EngineError::Corrupt("kv rotation of an unknown format"));
    }
    Ok(stored)
}

/// Stores the policy, and when somebody has to look at it next. `was` is what stands there.
pub(super) async fn store(
    view: &mut WriteView<'_>,
    path: &str,
    was: Option<Timestamp>,
    policy: &Policy,
) -> Result<(), EngineError> {
    let plain = codec::encode(policy, "rotation", RECORD_BYTES_MAX)?;
    view.put_secret(RecordKind::Entry, &row(path), &plain).await?;
    if let Some(was) = was.filter(|was| *was != policy.wake()) {
        view.delete_due(DUE, was, path).await?;
    }
    view.put_due(DUE, policy.wake(), path).await
}

/// Whether there was one.
pub(super) async fn delete(view: &mut WriteView<'_>, path: &str) -> Result<bool, EngineError> {
    let Some(policy) = load(&view.reading(), path).await? else { return Ok(false) };
    view.delete_due(DUE, policy.wake(), path).await?;
    view.delete(RecordKind::Entry, &row(path)).await?;
    Ok(true)
}

/// The secrets that need somebody by `now`.
pub(super) async fn due(
    view: &ReadView<'_>,
    now: Timestamp,
    limit: usize,
) -> Result<Vec<String>, EngineError> {
    view.due(DUE, now, limit).await
}
