//! Carries out the plan: one step after the other, each followed by a save of the state. It is told
//! the time, so that a test drives a day in a moment. Never decides what comes next; `plan` does.

use crate::attempts::{Attempts, Subject};
use crate::config::{Config, Wanted};
use crate::documents::{self, Found};
use crate::error::AgentError;
use crate::files::Tree;
use crate::plan::{self, Situation, Step};
use crate::state::{Held, Issue, Lease, Life, Retired, Retiring, State, StateFile, Token};
use crate::status::Status;
use crate::{clock, notify, render};
use coffer_client::wire::Disclose;
use coffer_client::{Client, ClientError};
use std::collections::BTreeSet;
use std::fs;
use zeroize::Zeroizing;

pub use crate::watch::Signal;

// A settle that takes more steps than this goes on after a breath: no state may spin.
const STEPS_MAX: usize = 256;
// Pods wait on a document that cannot be used until it is edited; without events that shows this late.
const BROKEN_RETRY_MS: u64 = 60_000;
const NEVER_MS: u64 = u64::MAX;

/// Keeps one pod's secrets.
#[derive(Debug)]
pub struct Keeper {
    config: Config,
    pub(crate) anonymous: Client,
    pub(crate) client: Option<Client>,
    pub(crate) state: State,
    attempts: Attempts,
    stale: BTreeSet<String>,
    pub(crate) store: StateFile,
    tree: Tree,
    status: Status,
}

impl Keeper {
    /// Takes up where the last container of this pod stopped.
    ///
    /// # Errors
    /// [`AgentError`] if the client cannot be set up.
    pub fn new(config: Config) -> Result<Self, AgentError> {
        let builder = Client::builder(&config.address).ca_pem(&config.ca_pem);
        let store = StateFile::new(&config.state_dir);
        let mut state = store.load().unwrap_or_else(|error| {
            tracing::error!(%error, "starting without the former container's state");
            State::default()
        });
        let tree = Tree::new(&config.mount_path, config.mode_floor);
        state.secrets.retain(|name, _| config.secrets.iter().any(|w| w.name == *name));
        for (name, held) in &mut state.secrets {
            held.shown = held.shown.filter(|_| tree.has(name));
        }
        let mut keeper = Self {
            anonymous: builder.build()?,
            client: None,
            status: Status::new(&config.state_dir),
            attempts: Attempts::default(),
            stale: BTreeSet::new(),
            config,
            state,
            store,
            tree,
        };
        if let Some(token) = &keeper.state.token {
            tracing::info!(accessor = token.accessor, "going on with the former container's token");
            keeper.client = Some(keeper.anonymous.with_token(&token.secret)?);
        }
        Ok(keeper)
    }

    /// The client with the current token, for the event stream.
    pub fn client(&self) -> Option<Client> {
        self.client.clone()
    }

    /// What is held; for tests and for the log.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Does everything that is due, and says when the next thing is.
    pub async fn settle(&mut self, now_ms: u64) -> Option<u64> {
        for _ in 0..STEPS_MAX {
            let step = plan::next(&Situation {
                wanted: &self.config.secrets,
                state: &self.state,
                attempts: &self.attempts,
                stale: &self.stale,
                now_ms,
            });
            if let Step::Idle(until_ms) = step {
                return until_ms;
            }
            self.take(step, now_ms).await;
            if let Err(error) = self.store.save(&self.state) {
                tracing::error!(%error, "state not saved: a restart would log in again");
            }
        }
        tracing::warn!("much to do: pausing");
        Some(now_ms.saturating_add(1_000))
    }

    /// Takes note of an event.
    pub fn mark(&mut self, signal: &Signal) {
        let prefix = format!("delivery/{}", documents::prefix(&self.config));
        for wanted in self.config.secrets.iter().filter(|w| w.path.is_none()) {
            let concerns = match signal {
                Signal::Resync => true,
                Signal::Changed(path) => path
                    .strip_prefix(&prefix)
                    .and_then(|rest| rest.split_once('/'))
                    .is_some_and(|(_, name)| name == wanted.name),
            };
            if concerns {
                self.stale.insert(wanted.name.clone());
                self.attempts.forget(|s| *s == Subject::Document(wanted.name.clone()));
            }
        }
        if let Signal::Changed(path) = signal {
            for held in self.state.secrets.values_mut() {
                if let Some(issue) = held.issue.as_mut().filter(|i| i.lease.is_none() && i.source == *path) {
                    issue.read_ms = 0;
                }
            }
        }
    }

    async fn take(&mut self, step: Step, now_ms: u64) {
        let (subject, outcome) = match step {
            Step::Idle(_) => return,
            Step::Issue(name) => (Subject::Issue(name.clone()), self.issue(&name, now_ms).await),
            Step::Login => (Subject::Login, self.login(now_ms).await),
            Step::ReadDocument(name) => (Subject::Document(name.clone()), self.document(&name, now_ms).await),
            Step::RenewLease(name) => (Subject::Lease(name.clone()), self.renew_lease(&name, now_ms).await),
            Step::RenewToken => (Subject::Token, self.renew_token(now_ms).await),
            Step::Revoke(i) => {
                let name = self.state.retiring.get(i).map_or_else(String::new, |r| r.what.name().to_owned());
                (Subject::Revoke(name), self.revoke(i).await)
            }
            Step::Show(name) => (Subject::Render(name.clone()), self.show(&name, now_ms)),
        };
        match outcome {
            Ok(()) => self.attempts.succeeded(&subject),
            Err(error) => {
                if error.client().is_some_and(ClientError::is_denied) {
                    self.denied(&subject, now_ms).await;
                }
                self.note(&subject, &error, now_ms);
            }
        }
    }

    fn note(&mut self, subject: &Subject, error: &AgentError, now_ms: u64) {
        let times = self.attempts.failures(subject);
        match error {
            // Only an edit helps, and an edit makes itself known.
            AgentError::Render { .. } => self.attempts.postpone(subject.clone(), NEVER_MS),
            AgentError::Document { .. } => {
                self.attempts.postpone(subject.clone(), now_ms.saturating_add(BROKEN_RETRY_MS));
            }
            _ => self.attempts.failed(subject.clone(), now_ms, clock::jitter()),
        }
        // Powers of two, so that an hour of outage is a dozen lines.
        if (times + 1).is_power_of_two() {
            tracing::warn!(%subject, %error, failures = times + 1, "failed, will try again");
        }
        self.status.say(&format!("{subject}: {error}"));
    }

    async fn login(&mut self, now_ms: u64) -> Result<(), AgentError> {
        let file = &self.config.token_file;
        // Read each time: the kubelet replaces the token long before it ends.
        let jwt = Zeroizing::new(fs::read_to_string(file).map_err(AgentError::file("read", file))?);
        let jwt = Disclose::from(jwt.trim());
        let auth = self.anonymous.login_kubernetes(&self.config.auth_mount, &self.config.role, jwt).await?;
        tracing::info!(accessor = auth.accessor, role = self.config.role, "logged in");
        self.client = Some(self.anonymous.with_token(&auth.client_token)?);
        let life = Life::new(now_ms, auth.lease_duration, auth.renewable);
        let token = Token { secret: auth.client_token, accessor: auth.accessor, life };
        if let Some(former) = self.state.token.replace(token) {
            // Its leases end with it, so they need no revocation of their own.
            self.state.retiring.retain(|r| matches!(r.what, Retired::Token { .. }));
            if former.life.ttl_ms == 0 || now_ms < former.life.since_ms + former.life.ttl_ms {
                let what = Retired::Token { secret: former.secret, accessor: former.accessor };
                self.state.retiring.push(Retiring { what, revoke_ms: None });
                self.release_former_tokens(now_ms);
            }
        }
        Ok(())
    }

    async fn renew_token(&mut self, now_ms: u64) -> Result<(), AgentError> {
        let auth = self.session()?.renew_self(None).await?;
        if let Some(token) = &mut self.state.token {
            token.life = token.life.renewed(now_ms, auth.lease_duration);
            tracing::debug!(accessor = token.accessor, seconds = auth.lease_duration, "token renewed");
        }
        Ok(())
    }

    async fn document(&mut self, name: &str, now_ms: u64) -> Result<(), AgentError> {
        let wanted = self.wanted(name)?.clone();
        let found = documents::find(&self.session()?, &self.config, &wanted).await?;
        let held = self.state.secrets.entry(name.to_owned()).or_default();
        let path = format!("{}*/{name}", documents::prefix(&self.config));
        match found {
            Found::Document(document) => {
                self.stale.remove(name);
                if held
                    .document
                    .as_ref()
                    .is_some_and(|known| known.version == document.version && known.body == document.body)
                {
                    return Ok(());
                }
                check(held, &document, self.config.mode_floor)
                    .map_err(|why| AgentError::Document { path, why: why.to_string() })?;
                tracing::info!(secret = name, version = document.version, "document read");
                held.document = Some(*document);
                self.attempts.forget(|s| *s == Subject::Render(name.to_owned()));
                Ok(())
            }
            // What was delivered once is not taken back by the agent: the operator revokes it.
            Found::Absent | Found::Denied if held.document.is_some() => {
                self.stale.remove(name);
                tracing::warn!(secret = name, "the document is gone; the files stay");
                Ok(())
            }
            Found::Absent => Err(AgentError::Waiting(format!(
                "there is no DynamicSecret or StaticSecret {name:?} in namespace {:?} yet",
                self.config.namespace
            ))),
            Found::Denied => {
                self.denied(&Subject::Document(name.to_owned()), now_ms).await;
                Err(AgentError::Waiting(format!(
                    "role {:?} may not read {name:?} yet: its DynamicSecret or StaticSecret does not exist, or does not \
                     name this ServiceAccount as a consumer",
                    self.config.role
                )))
            }
        }
    }

    async fn issue(&mut self, name: &str, now_ms: u64) -> Result<(), AgentError> {
        let client = self.session()?;
        let owner = self.state.token.as_ref().map_or_else(String::new, |t| t.accessor.clone());
        let held = self.state.secrets.entry(name.to_owned()).or_default();
        let Some(document) = &held.document else { return Ok(()) };
        let source = document.body.source.path.clone();
        let reply = client.read_secret(&source).await?;
        let empty = || ClientError::Decode { path: source.clone(), what: "the secret is empty".to_owned() };
        let data = reply.data.as_ref().ok_or_else(empty)?;
        let data = Disclose::new(documents::secret_of(data.expose()).clone());
        let lease = (!reply.lease_id.is_empty()).then(|| Lease {
            id: reply.lease_id,
            life: Life::new(now_ms, reply.lease_duration, reply.renewable),
        });
        if let Some(issue) = &mut held.issue
            && lease.is_none()
            && issue.lease.is_none()
            && issue.source == source
            && issue.data.expose() == data.expose()
        {
            issue.read_ms = now_ms;
            return Ok(());
        }
        if let Some(old) = held.issue.take()
            && let Some(lease) = old.lease
            // A lease of a former token ends with that token.
            && old.owner == owner
        {
            held.superseded.push(lease.id);
        }
        held.issues += 1;
        tracing::info!(secret = name, lease = lease.as_ref().map(|l| l.id.as_str()), "secret read");
        held.issue = Some(Issue { number: held.issues, source, owner, read_ms: now_ms, lease, data });
        self.attempts.forget(|s| matches!(s, Subject::Render(n) | Subject::Lease(n) if n == name));
        Ok(())
    }

    async fn renew_lease(&mut self, name: &str, now_ms: u64) -> Result<(), AgentError> {
        let client = self.session()?;
        let lease = self.state.secrets.get_mut(name).and_then(|h| h.issue.as_mut()?.lease.as_mut());
        let Some(lease) = lease else { return Ok(()) };
        match client.renew_lease(&lease.id, None).await {
            Ok(reply) => {
                lease.life = lease.life.renewed(now_ms, reply.lease_duration);
                tracing::debug!(secret = name, seconds = reply.lease_duration, "lease renewed");
                Ok(())
            }
            // The server does not know the lease, or not as renewable: its login may be gone already.
            Err(error) if matches!(error.status(), Some(400 | 404)) => {
                tracing::warn!(secret = name, %error, "lease cannot be renewed, taking a new one");
                lease.life = Life { since_ms: now_ms, ttl_ms: 1, exhausted: true };
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn show(&mut self, name: &str, now_ms: u64) -> Result<(), AgentError> {
        let Some(held) = self.state.secrets.get_mut(name) else { return Ok(()) };
        let (Some(document), Some(issue)) = (&held.document, &held.issue) else { return Ok(()) };
        let files = render::render(&document.body, &issue.data, self.config.mode_floor)?;
        // By the files themselves: a container that was stopped and started again has given its state back.
        let first = !self.tree.has(name);
        self.tree.swap(name, &files, now_ms)?;
        held.shown = Some((document.version, issue.number));
        tracing::info!(secret = name, files = files.len(), "files in place");
        if !first {
            notify::change(name, &document.body.on_change);
        }
        let revoke_ms = Some(now_ms.saturating_add(plan::overlap_ms(held)));
        for id in held.superseded.drain(..) {
            self.state.retiring.push(Retiring { what: Retired::Lease { id }, revoke_ms });
        }
        self.release_former_tokens(now_ms);
        if plan::all_shown(&self.config.secrets, &self.state) && !self.status.is_ready() {
            self.status.set_ready();
            self.status.say("every file is in place");
            tracing::info!("every file is in place");
        }
        Ok(())
    }

    // A former token goes once no file shows a lease of it, and the longest overlap has passed.
    fn release_former_tokens(&mut self, now_ms: u64) {
        let Some(token) = &self.state.token else { return };
        let leased = |h: &&Held| h.issue.as_ref().is_some_and(|i| i.lease.is_some());
        let moved = |h: &Held| {
            let issue = h.issue.as_ref();
            issue.is_some_and(|i| i.owner == token.accessor && h.shown.is_some_and(|s| s.1 == i.number))
        };
        if !self.state.secrets.values().filter(leased).all(moved) {
            return;
        }
        let overlap = self.state.secrets.values().filter(leased).map(plan::overlap_ms).max().unwrap_or(0);
        for retiring in &mut self.state.retiring {
            retiring.revoke_ms.get_or_insert(now_ms.saturating_add(overlap));
        }
    }

    async fn revoke(&mut self, i: usize) -> Result<(), AgentError> {
        let client = self.session()?;
        let Some(retiring) = self.state.retiring.get(i) else { return Ok(()) };
        let outcome = match &retiring.what {
            Retired::Lease { id } => client.revoke_lease(id).await,
            Retired::Token { secret, .. } => self.anonymous.with_token(secret)?.revoke_self().await,
        };
        match outcome {
            Ok(()) => {}
            // Gone already, or not ours any more: either way there is nothing left to do here.
            Err(error) if matches!(error.status(), Some(400 | 403 | 404)) => {
                tracing::debug!(%error, "nothing left to revoke");
            }
            Err(error) => return Err(error.into()),
        }
        let gone = self.state.retiring.remove(i);
        tracing::info!(what = gone.what.name(), "revoked");
        Ok(())
    }

    // A 403 says either that the token is no token any more, or that it lacks a policy.
    async fn denied(&mut self, subject: &Subject, now_ms: u64) {
        if matches!(subject, Subject::Login) {
            return;
        }
        let Ok(client) = self.session() else { return };
        if client.lookup_self().await.is_err_and(|error| error.is_denied()) {
            tracing::warn!("the token is no longer valid, logging in anew");
            self.state.token = None;
            self.client = None;
        } else {
            self.refresh_login(now_ms);
        }
    }

    // A token has the policies its role had at login. As long as nothing depends on it, a new login may
    // find the ones that are missing.
    fn refresh_login(&mut self, now_ms: u64) {
        if self.state.secrets.values().any(|held| held.issue.is_some()) {
            return;
        }
        if let Some(token) = self.state.token.take() {
            let what = Retired::Token { secret: token.secret, accessor: token.accessor };
            self.state.retiring.push(Retiring { what, revoke_ms: Some(now_ms) });
            self.client = None;
            self.attempts.failed(Subject::Login, now_ms, clock::jitter());
        }
    }

    fn session(&self) -> Result<Client, AgentError> {
        self.client.clone().ok_or_else(|| AgentError::State("there is no token".to_owned()))
    }

    fn wanted(&self, name: &str) -> Result<&Wanted, AgentError> {
        let found = self.config.secrets.iter().find(|w| w.name == name);
        found.ok_or_else(|| AgentError::State(format!("{name:?} is not wanted")))
    }
}

// A document must fit what is held before it replaces one that does.
fn check(held: &Held, document: &crate::state::Document, mode_floor: u32) -> Result<(), AgentError> {
    render::check(&document.body)?;
    match &held.issue {
        Some(issue) if issue.source == document.body.source.path => {
            render::render(&document.body, &issue.data, mode_floor).map(drop)
        }
        _ => Ok(()),
    }
}
