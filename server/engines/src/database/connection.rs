//! `config/<name>`: a database and the login that the engine has there. The password goes in and never out.

use coffer_barrier::RecordKind;
use coffer_core::secret::SecretString;
use coffer_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use std::time::Duration;

use super::driver::{Endpoint, Plugin};
use super::fence::Term;
use super::root::RootRotation;
use super::tls;
use super::url::Target;
use crate::engine::EngineRequest;
use crate::input::{self, Labels, object};
use crate::{EngineError, ReadView, WriteView, codec};

const POSTGRES: &str = "postgresql-database-plugin";
const FORMAT: u8 = 1;
const RECORD_BYTES_MAX: usize = 256 * 1024;
const PASSWORD_BYTES_MAX: usize = 1024;
const ROLES_MAX: usize = 1000;
/// Open sessions where the connection does not say how many: Vault's default.
const SESSIONS_DEFAULT: u64 = 4;
/// The most open sessions of one connection, whatever it asks for.
const SESSIONS_MAX: u64 = 64;
/// When a connection's own password is due, in order.
const DUE: &str = "rotate-root-due";

/// What Vault's plugin also knows and this engine does not.
const IGNORED: [&str; 5] = [
    "disable_escaping",
    "max_idle_connections",
    "plugin_version",
    "root_rotation_statements",
    "skip_static_role_import_rotation",
];

/// How generated passwords are sent to the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum PasswordForm {
    /// As a SCRAM verifier: the password itself is in no statement, so in no log of the database.
    ScramSha256,
    /// As it is, for statements that need it.
    Password,
}

/// A database and the engine's login there.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Connection {
    format: u8,
    #[serde(default = "postgres")]
    plugin: String,
    url: String,
    pub(super) username: String,
    #[serde(with = "codec::secret_text")]
    pub(super) password: SecretString,
    /// The next password while its rotation is under way: the database knows this one or the other.
    #[serde(with = "codec::secret_text_option")]
    pub(super) pending: Option<SecretString>,
    root_ca: Option<String>,
    #[serde(default)]
    server_name: Option<String>,
    /// Zero for the default.
    #[serde(default)]
    max_open: u64,
    /// By which passwords are generated; empty for the usual ones.
    #[serde(default)]
    pub(super) password_policy: String,
    /// How accounts are named; empty for the usual names.
    #[serde(default)]
    pub(super) username_template: String,
    /// Of a session, in milliseconds; zero for as long as it works.
    #[serde(default)]
    max_lifetime: u64,
    allowed_roles: Vec<String>,
    verify: bool,
    pub(super) form: PasswordForm,
    labels: Option<Labels>,
    /// When the password rotates by itself.
    #[serde(default)]
    pub(super) root: RootRotation,
    /// Changes with every write, so that sessions opened under older settings are not used again.
    pub(super) generation: u64,
}

impl Connection {
    /// What is stored under `name` once the request is carried out.
    pub(super) fn merged(stored: Option<Self>, req: &EngineRequest<'_>) -> Result<Self, EngineError> {
        let body = req.body;
        let name = match (input::text(body, "plugin_name")?, &stored) {
            (Some(name), _) => name.to_owned(),
            (None, Some(old)) => old.plugin.clone(),
            (None, None) => return Err(EngineError::bad("empty plugin name")),
        };
        let Some((plugin, name_bytes_max)) = Plugin::named(&name) else {
            return Err(EngineError::bad(format!("unknown plugin_name: there are {}", Plugin::names())));
        };
        let url = given_or(input::text(body, "connection_url")?, stored.as_ref().map(|old| old.url.as_str()));
        let url = url.ok_or_else(|| EngineError::bad("connection_url is missing"))?;
        let target = Target::parse(plugin, &url)?;
        let username =
            given_or(input::text(body, "username")?, stored.as_ref().map(|old| old.username.as_str()));
        let username = checked_username(username)?;
        let root_ca = match input::text(body, "root_ca")?.or(input::text(body, "tls_ca")?) {
            Some("") => None,
            Some(pem) => Some(pem.to_owned()),
            None => stored.as_ref().and_then(|old| old.root_ca.clone()),
        };
        tls::client(target.tls, root_ca.as_deref())?;
        let server_name = match input::text(body, "tls_server_name")? {
            Some("") => None,
            Some(name) => Some(checked_server_name(plugin, name)?),
            None => stored.as_ref().and_then(|old| old.server_name.clone()),
        };
        let allowed = input::texts(body, "allowed_roles", true)?;
        let labels = input::labels(body)?;
        let form = match input::text(body, "password_authentication")? {
            None => stored.as_ref().map_or(PasswordForm::ScramSha256, |old| old.form),
            Some("scram-sha-256") => PasswordForm::ScramSha256,
            Some("password") => PasswordForm::Password,
            Some(_) => return Err(EngineError::bad("unknown password_authentication")),
        };
        let verify = input::boolean(body, "verify_connection")?;
        let kept = |given: Option<&str>, old: fn(&Self) -> &String| match (given, &stored) {
            (Some(given), _) => given.to_owned(),
            (None, Some(stored)) => old(stored).clone(),
            (None, None) => String::new(),
        };
        let password_policy = kept(input::text(body, "password_policy")?, |old| &old.password_policy);
        let username_template = kept(input::text(body, "username_template")?, |old| &old.username_template);
        if !username_template.is_empty() {
            super::username::check(&username_template, name_bytes_max)?;
        }
        let max_open = input::whole(body, "max_open_connections")?;
        let max_lifetime = input::duration(body, "max_connection_lifetime")?.map(super::role::millis);
        let mut merged = Self {
            format: FORMAT,
            plugin: name,
            server_name,
            password_policy,
            username_template,
            max_open: max_open.unwrap_or_else(|| stored.as_ref().map_or(0, |old| old.max_open)),
            max_lifetime: max_lifetime.unwrap_or_else(|| stored.as_ref().map_or(0, |old| old.max_lifetime)),
            password: SecretString::copy_of(""),
            pending: None,
            allowed_roles: allowed
                .unwrap_or_else(|| stored.as_ref().map_or_else(Vec::new, |old| old.allowed_roles.clone())),
            verify: verify.unwrap_or_else(|| stored.as_ref().is_none_or(|old| old.verify)),
            labels: labels.or_else(|| stored.as_ref().and_then(|old| old.labels.clone())),
            root: stored.as_ref().map(|old| old.root.clone()).unwrap_or_default().merged(req)?,
            url,
            username,
            root_ca,
            form,
            generation: rand::random(),
        };
        if merged.allowed_roles.len() > ROLES_MAX {
            return Err(EngineError::bad(format!("allowed_roles has more than {ROLES_MAX} entries")));
        }
        merged.take_password(input::text(body, "password")?, stored, &target)?;
        Ok(merged)
    }

    /// The password that was given, else the stored one, if it goes where it has always gone.
    fn take_password(
        &mut self,
        given: Option<&str>,
        stored: Option<Self>,
        target: &Target,
    ) -> Result<(), EngineError> {
        match (given, stored) {
            (Some(password), _) if password.len() > PASSWORD_BYTES_MAX => {
                Err(EngineError::bad(format!("password is longer than {PASSWORD_BYTES_MAX} bytes")))
            }
            (Some(password), _) if !password.is_empty() => {
                self.password = SecretString::copy_of(password);
                Ok(())
            }
            (_, Some(stored)) => {
                let same = stored.target()?.same_server(target)
                    && stored.root_ca == self.root_ca
                    && stored.server_name == self.server_name
                    && stored.username == self.username;
                if !same {
                    return Err(EngineError::bad(
                        "host, port, TLS or username changed: the stored password is not sent anywhere new, \
                         give the password again",
                    ));
                }
                self.password = stored.password;
                self.pending = stored.pending;
                Ok(())
            }
            _ => Err(EngineError::bad("password is missing")),
        }
    }

    fn plugin(&self) -> Result<(Plugin, usize), EngineError> {
        Plugin::named(&self.plugin).ok_or(EngineError::Corrupt("database connection of an unknown plugin"))
    }

    /// The longest account name there, in bytes.
    pub(super) fn name_bytes_max(&self) -> Result<usize, EngineError> {
        Ok(self.plugin()?.1)
    }

    fn target(&self) -> Result<Target, EngineError> {
        Target::parse(self.plugin()?.0, &self.url)
    }

    /// Where sessions go. `name` is the connection's, `term` whose they are.
    pub(super) fn endpoint(&self, name: &str, term: &Term) -> Result<Endpoint, EngineError> {
        Ok(Endpoint {
            plugin: self.plugin()?.0,
            name: super::account::target(name),
            place: self.target()?,
            username: self.username.clone(),
            root_ca: self.root_ca.clone(),
            server_name: self.server_name.clone(),
            term: term.clone(),
        })
    }

    /// How many sessions may be open at a time.
    pub(super) fn sessions_max(&self) -> usize {
        let asked = if self.max_open == 0 { SESSIONS_DEFAULT } else { self.max_open };
        usize::try_from(asked.min(SESSIONS_MAX)).unwrap_or(1)
    }

    /// After how long a session is replaced.
    pub(super) fn session_lifetime(&self) -> Option<Duration> {
        (self.max_lifetime != 0).then(|| Duration::from_millis(self.max_lifetime))
    }

    /// Whether the login is to be tried before the settings are accepted.
    pub(super) fn verifies(&self) -> bool {
        self.verify
    }

    /// Whether credentials of `role` may be made here.
    pub(super) fn allows(&self, role: &str) -> bool {
        self.allowed_roles.iter().any(|pattern| glob(pattern, role))
    }

    /// What a read shows: everything but passwords, flat and as Vault nests it.
    pub(super) fn json(&self) -> Map<String, Value> {
        let details = json!({
            "connection_url": self.url,
            "username": self.username,
            "password_authentication": self.form,
            "root_ca": self.root_ca,
            "max_open_connections": self.sessions_max(),
            "max_connection_lifetime": format!("{}s", self.max_lifetime / 1000),
            "username_template": self.username_template,
            "tls_server_name": self.server_name.clone().unwrap_or_default(),
        });
        let mut shown = object(json!({
            "plugin_name": self.plugin,
            "plugin_version": "",
            "allowed_roles": self.allowed_roles,
            "verify_connection": self.verify,
            "custom_metadata": self.labels,
            "password_policy": self.password_policy,
            "root_credentials_rotate_statements": [],
            "rotation_pending": self.pending.is_some(),
            "connection_details": details,
        }));
        shown.extend(object(details));
        self.root.show(&mut shown);
        shown
    }

    /// What was asked for and has no effect.
    pub(super) fn warnings(&self, req: &EngineRequest<'_>) -> Result<Vec<String>, EngineError> {
        let unknown = IGNORED.iter().filter(|name| input::field(req.body, name).is_some());
        let mut warnings: Vec<String> = unknown.map(|name| format!("{name} has no effect here")).collect();
        for name in self.target()?.ignored {
            warnings
                .push(format!("{name} in connection_url has no effect: the server names its own sessions"));
        }
        if self.allowed_roles.is_empty() {
            warnings.push("allowed_roles is empty: no role can use this connection".to_owned());
        }
        Ok(warnings)
    }
}

fn postgres() -> String {
    POSTGRES.to_owned()
}

fn checked_server_name(plugin: Plugin, name: &str) -> Result<String, EngineError> {
    if plugin != Plugin::MySql {
        return Err(EngineError::bad("tls_server_name is for MySQL; PostgreSQL has sslmode=verify-ca"));
    }
    super::url::checked_host(name).map_err(|_| EngineError::bad("tls_server_name must be one DNS name"))
}

fn given_or(given: Option<&str>, stored: Option<&str>) -> Option<String> {
    given.or(stored).filter(|text| !text.is_empty()).map(str::to_owned)
}

fn checked_username(name: Option<String>) -> Result<String, EngineError> {
    let name = name.ok_or_else(|| EngineError::bad("username is missing"))?;
    if name.len() > 63 || name.chars().any(|c| c.is_control() || c == '"' || c == '\'' || c == '\\') {
        return Err(EngineError::bad(
            "username: at most 63 bytes, no quotes, backslashes or control characters",
        ));
    }
    Ok(name)
}

/// Vault's globs: `*` at the start, at the end, or both.
fn glob(pattern: &str, text: &str) -> bool {
    let (from, pattern) = match pattern.strip_prefix('*') {
        Some(rest) => (true, rest),
        None => (false, pattern),
    };
    let (to, middle) = match pattern.strip_suffix('*') {
        Some(rest) => (true, rest),
        None => (false, pattern),
    };
    match (from, to) {
        (true, true) => text.contains(middle),
        (true, false) => middle.is_empty() || text.ends_with(middle),
        (false, true) => text.starts_with(middle),
        (false, false) => text == middle,
    }
}

fn row(name: &str) -> String {
    format!("config/{name}")
}

pub(super) async fn load(view: &ReadView<'_>, name: &str) -> Result<Option<Connection>, EngineError> {
    let stored: Option<Connection> =
        view.record(RecordKind::Entry, &row(name), "database connection").await?;
    if stored.as_ref().is_some_and(|stored| stored.format != FORMAT) {
        return Err(EngineError::Corrupt("database connection of an unknown format"));
    }
    Ok(stored)
}

pub(super) async fn store(
    view: &mut WriteView<'_>,
    name: &str,
    connection: &Connection,
) -> Result<(), EngineError> {
    let was = load(&view.reading(), name).await?.and_then(|stored| stored.root.wake());
    view.link(&row(name)).await?;
    let plain = codec::encode(connection, "connection", RECORD_BYTES_MAX)?;
    view.put_secret(RecordKind::Entry, &row(name), &plain).await?;
    set_due(view, name, was, connection.root.wake()).await
}

async fn set_due(
    view: &mut WriteView<'_>,
    name: &str,
    was: Option<Timestamp>,
    is: Option<Timestamp>,
) -> Result<(), EngineError> {
    if let Some(was) = was.filter(|was| Some(*was) != is) {
        view.delete_due(DUE, was, name).await?;
    }
    match is {
        Some(is) => view.put_due(DUE, is, name).await,
        None => Ok(()),
    }
}

/// The names of connections whose own password is due by `now`.
pub(super) async fn due(
    view: &ReadView<'_>,
    now: Timestamp,
    limit: usize,
) -> Result<Vec<String>, EngineError> {
    view.due(DUE, now, limit).await
}

/// Whether there was one.
pub(super) async fn delete(view: &mut WriteView<'_>, name: &str) -> Result<bool, EngineError> {
    let Some(stored) = load(&view.reading(), name).await? else { return Ok(false) };
    set_due(view, name, stored.root.wake(), None).await?;
    view.delete(RecordKind::Entry, &row(name)).await?;
    view.unlink(&row(name)).await?;
    Ok(true)
}
