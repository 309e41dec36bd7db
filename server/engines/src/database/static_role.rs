//! `static-roles/<name>`: an account (or two that take turns) whose password the engine changes. Never talks to the
//! database.

use std::time::Duration;

use coffer_barrier::RecordKind;
use coffer_core::rotation::{Rotation, Step};
use coffer_core::schedule::Timing;
use coffer_core::secret::SecretString;
use coffer_core::template::{StatementValues, check_statement};
use coffer_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::passwords;
use super::role::{STATEMENT_BYTES_MAX, checked, millis};
use crate::engine::EngineRequest;
use crate::input::{self, Labels, object};
use crate::timing::{self, Asked};
use crate::{EngineError, ReadView, WriteView, codec};

const FORMAT: u8 = 1;
const RECORD_BYTES_MAX: usize = 256 * 1024;
/// PostgreSQL's limit; MySQL's is shorter, and says so itself.
const USERNAME_BYTES_MAX: usize = 63;
/// As in Vault.
const PERIOD_MIN: Duration = Duration::from_secs(5);
const GRACE_DEFAULT: Duration = Duration::from_secs(120);
const GRACE_MAX: Duration = Duration::from_secs(3600);
/// When a role's next rotation is due, in order.
const DUE: &str = "static-roles-due";

/// A password within the record, which is itself kept as a secret.
#[derive(Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Kept(#[serde(with = "codec::secret_text")] pub(super) SecretString);

/// An account whose password rotates.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StaticRole {
    format: u8,
    pub(super) connection: String,
    /// One, or two that take turns.
    pub(super) usernames: Vec<String>,
    /// In milliseconds; where `timing` says nothing.
    period: u64,
    /// When it rotates.
    #[serde(default)]
    timing: Option<Timing>,
    pub(super) statements: Vec<String>,
    /// In milliseconds: how long the last of two accounts stays good.
    grace: u64,
    labels: Option<Labels>,
    /// Instead of the connection's.
    #[serde(default)]
    pub(super) password_policy: Option<String>,
    pub(super) rotation: Rotation<Kept>,
    /// When the next rotation is due, whatever is under way.
    due: Timestamp,
}

impl StaticRole {
    /// What is stored once the request is carried out.
    pub(super) fn merged(stored: Option<Self>, req: &EngineRequest<'_>) -> Result<Self, EngineError> {
        let body = req.body;
        if input::text(body, "credential_type")?.is_some_and(|kind| kind != "password") {
            return Err(EngineError::bad("credential_type: only password is supported"));
        }
        let usernames = usernames(body)?;
        let is_new = stored.is_none();
        let mut role = match stored {
            Some(role) if usernames.as_ref().is_some_and(|names| *names != role.usernames) => {
                return Err(EngineError::bad("cannot update static account username"));
            }
            Some(role) => role,
            None => Self {
                format: FORMAT,
                connection: String::new(),
                usernames: usernames.ok_or_else(|| {
                    EngineError::bad("username is a required field to create a static account")
                })?,
                period: 0,
                timing: None,
                statements: Vec::new(),
                grace: millis(GRACE_DEFAULT),
                labels: None,
                password_policy: None,
                rotation: Rotation::default(),
                due: req.now,
            },
        };
        if let Some(name) = input::text(body, "db_name")? {
            if !is_new && name != role.connection {
                return Err(EngineError::bad("db_name of a static role cannot be changed"));
            }
            name.clone_into(&mut role.connection);
        }
        if role.connection.is_empty() {
            return Err(EngineError::bad("db_name is a required field"));
        }
        super::check_name(&role.connection)?;
        let stored_timing = (!is_new).then(|| role.timing());
        match timing::asked(body, stored_timing.as_ref(), PERIOD_MIN, false)? {
            Asked::Timing(timing) => role.retime(timing, req.now),
            Asked::Nothing | Asked::None if is_new => {
                return Err(EngineError::bad(
                    "one of rotation_schedule or rotation_period must be provided to create a static account",
                ));
            }
            Asked::Nothing | Asked::None => {}
        }
        if let Some(grace) = input::duration(body, "grace_period")? {
            if grace > GRACE_MAX || grace.is_zero() {
                return Err(EngineError::bad("grace_period must be at most an hour, and not zero"));
            }
            role.grace = millis(grace);
        }
        if let Some(statements) = input::texts(body, "rotation_statements", false)? {
            role.statements = checked("rotation_statements", statements)?;
        }
        if let Some(policy) = passwords::of_role(body)? {
            role.password_policy = Some(policy).filter(|policy| !policy.is_empty());
        }
        role.check_statements()?;
        if let Some(labels) = input::labels(body)? {
            role.labels = Some(labels);
        }
        if is_new && input::boolean(body, "skip_import_rotation")? == Some(true) {
            role.due = role.timing().next_after(req.now);
        }
        Ok(role)
    }

    /// Own statements carry names that nobody quotes, so those must need no quotes.
    fn check_statements(&self) -> Result<(), EngineError> {
        if self.statements.is_empty() {
            return Ok(());
        }
        let bytes: usize = self.statements.iter().map(String::len).sum();
        if bytes > STATEMENT_BYTES_MAX {
            return Err(EngineError::bad(format!(
                "the statements have more than {STATEMENT_BYTES_MAX} bytes"
            )));
        }
        let word = SecretString::copy_of("x");
        for statement in &self.statements {
            check_statement(statement).map_err(|why| EngineError::bad(why.to_string()))?;
        }
        for name in &self.usernames {
            StatementValues::new(name, &word, Timestamp::ZERO).map_err(|_| {
                EngineError::bad(
                    "with rotation_statements of one's own a username may have letters, digits, '_' and '-' only; \
                     without them every name is quoted",
                )
            })?;
        }
        Ok(())
    }

    /// When it rotates.
    pub(super) fn timing(&self) -> Timing {
        self.timing.clone().unwrap_or(Timing::Every(Duration::from_millis(self.period)))
    }

    /// A schedule's next time is from now on, whenever the last rotation was; a period is from the last rotation.
    fn retime(&mut self, timing: Timing, now: Timestamp) {
        if self.rotation.version > 0 {
            self.due = match &timing {
                Timing::Every(_) => self.rotation.since.map_or(self.due, |since| timing.next_after(since)),
                Timing::At { .. } => timing.next_after(now),
            };
        }
        self.timing = Some(timing);
    }

    pub(super) fn grace(&self) -> Duration {
        Duration::from_millis(self.grace)
    }

    /// The account that a candidate or a version has.
    pub(super) fn username(&self, account: usize) -> Result<&str, EngineError> {
        self.usernames
            .get(account)
            .map(String::as_str)
            .ok_or(EngineError::Corrupt("static role without its account"))
    }

    /// When the next rotation is due.
    pub(super) fn due_at(&self) -> Timestamp {
        self.due
    }

    /// Once a rotation is published, the next one is when its time comes again.
    pub(super) fn settle_due(&mut self) {
        self.due = self.rotation.since.map_or(self.due, |since| self.timing().next_after(since));
    }

    /// Whether the rotation that is due may still be begun. A first password is never late.
    pub(super) fn in_time(&self, now: Timestamp) -> bool {
        self.rotation.version == 0 || self.timing().allows(self.due, now)
    }

    /// The window of what is due went by: it waits for the next one, and so does a candidate that the database has not
    /// taken.
    pub(super) fn missed(&mut self, now: Timestamp) {
        self.due = self.timing().next_after(now);
        if let Some(version) = self.rotation.candidate.as_ref().map(|candidate| candidate.version) {
            self.rotation.deferred(version, self.due);
        }
    }

    /// A rotation is wanted now, not when its time comes.
    pub(super) fn wanted(&mut self, now: Timestamp) {
        self.due = now;
    }

    pub(super) fn step(&self, now: Timestamp) -> Step {
        self.rotation.next(self.due, now)
    }

    fn wake(&self) -> Timestamp {
        self.rotation.wake(self.due)
    }

    /// What a read of the role shows.
    pub(super) fn json(&self) -> Map<String, Value> {
        let mut shown = object(json!({
            "username": self.usernames.first(),
            "db_name": self.connection,
            "rotation_statements": self.statements,
            "credential_type": "password",
            "last_vault_rotation": self.rotation.since.map(Timestamp::to_rfc3339),
            "custom_metadata": self.labels,
        }));
        timing::show(&self.timing(), &mut shown);
        if self.usernames.len() > 1 {
            shown.insert("usernames".to_owned(), json!(self.usernames));
            shown.insert("grace_period".to_owned(), json!(self.grace / 1000));
        }
        if let Some(policy) = &self.password_policy {
            shown.insert("credential_config".to_owned(), json!({ "password_policy": policy }));
        }
        shown.extend(object(self.phase()));
        shown
    }

    /// Where the rotation is.
    pub(super) fn phase(&self) -> Value {
        let rotation = &self.rotation;
        let phase = match (&rotation.candidate, &rotation.retiring) {
            (Some(_), _) => "applying",
            (None, Some(_)) => "grace",
            (None, None) => "settled",
        };
        json!({
            "version": rotation.version,
            "rotation_phase": phase,
            "rotation_error": rotation.trouble(),
            "previous_valid_until": rotation.retiring.as_ref().map(|last| last.until.to_rfc3339()),
        })
    }

    /// What a read of the credential shows.
    pub(super) fn credential(&self, now: Timestamp) -> Result<Map<String, Value>, EngineError> {
        let rotation = &self.rotation;
        let (Some(secret), Some(since)) = (&rotation.secret, rotation.since) else {
            return Err(EngineError::bad(
                "the account's password is not known yet: its first rotation is not over",
            ));
        };
        let left = self.due.saturating_sub(now).as_secs();
        let mut shown = object(json!({
            "username": self.username(rotation.account)?,
            "password": secret.0.expose(),
            "last_vault_rotation": since.to_rfc3339(),
            "ttl": left,
            "version": rotation.version,
        }));
        timing::show(&self.timing(), &mut shown);
        Ok(shown)
    }
}

/// `username`, or `usernames` for two accounts that take turns.
fn usernames(body: &Map<String, Value>) -> Result<Option<Vec<String>>, EngineError> {
    let names = match (input::text(body, "username")?, input::texts(body, "usernames", true)?) {
        (Some(_), Some(_)) => return Err(EngineError::bad("give username or usernames, not both")),
        (Some(""), None) | (None, None) => return Ok(None),
        (Some(name), None) => vec![name.to_owned()],
        (None, Some(names)) if names.len() == 2 && names.first() != names.last() => names,
        (None, Some(_)) => return Err(EngineError::bad("usernames must be two different names")),
    };
    for name in &names {
        if name.is_empty() || name.len() > USERNAME_BYTES_MAX || name.chars().any(char::is_control) {
            return Err(EngineError::bad(format!(
                "a username must have 1 to {USERNAME_BYTES_MAX} bytes and no control characters"
            )));
        }
    }
    Ok(Some(names))
}

fn row(name: &str) -> String {
    format!("static-roles/{name}")
}

pub(super) async fn load(view: &ReadView<'_>, name: &str) -> Result<Option<StaticRole>, EngineError> {
    let stored: Option<StaticRole> =
        view.record(RecordKind::Entry, &row(name), "database static role").await?;
    if stored.as_ref().is_some_and(|stored| stored.format != FORMAT) {
        return Err(EngineError::Corrupt("database static role of an unknown format"));
    }
    Ok(stored)
}

/// Stores the role, and when somebody has to look at it next. `was` is what is stored.
pub(super) async fn store(
    view: &mut WriteView<'_>,
    name: &str,
    was: Option<Timestamp>,
    role: &StaticRole,
) -> Result<(), EngineError> {
    view.link(&row(name)).await?;
    let plain = codec::encode(role, "static role", RECORD_BYTES_MAX)?;
    view.put_secret(RecordKind::Entry, &row(name), &plain).await?;
    if let Some(was) = was.filter(|was| *was != role.wake()) {
        view.delete_due(DUE, was, name).await?;
    }
    view.put_due(DUE, role.wake(), name).await
}

/// Whether there was one.
pub(super) async fn delete(view: &mut WriteView<'_>, name: &str) -> Result<bool, EngineError> {
    let Some(role) = load(&view.reading(), name).await? else { return Ok(false) };
    view.delete_due(DUE, role.wake(), name).await?;
    view.delete(RecordKind::Entry, &row(name)).await?;
    view.unlink(&row(name)).await?;
    Ok(true)
}

/// Makes the commit fail if the role changes in the meantime.
pub(super) fn guard(view: &mut WriteView<'_>, name: &str) -> Result<(), EngineError> {
    view.guard(RecordKind::Entry, &row(name))
}

/// When the role's row in the order of what is due stands.
pub(super) fn stands_at(role: &StaticRole) -> Timestamp {
    role.wake()
}

/// The names of roles that need somebody by `now`.
pub(super) async fn due(
    view: &ReadView<'_>,
    now: Timestamp,
    limit: usize,
) -> Result<Vec<String>, EngineError> {
    view.due(DUE, now, limit).await
}
