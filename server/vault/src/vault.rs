//! The vault as its users hold it: one object, a handful of verbs.
//!
//! A client who hangs up cannot stop an effect half way: a request that has to wait for anything goes on in a task of
//! its own.

use std::collections::HashMap;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::Poll;

use coffer_barrier::Barrier;
use coffer_barrier::seal::Seal;
use coffer_barrier::seal::shamir::ShamirSeal;
use coffer_core::secret::SecretString;
use coffer_core::token::{Accessor, Token};
use coffer_engines::{DatabaseEngine, Engine, KvEngine, PlainKvEngine};
use futures::FutureExt as _;
use tokio_util::sync::CancellationToken;

use crate::audit::{AuditLog, Audited, anchor};
use crate::background;
use crate::codec::{self, transact};
use crate::deps::Deps;
use crate::door::{Door, os_rng};
use crate::error::{Fail, VaultError};
use crate::events::{self, EventStream, Events, Subscription};
use crate::metrics::Metrics;
use crate::mounts::{Class, MountTable, blank};
use crate::open::{Open, Surroundings};
use crate::outbound::Outbound;
use crate::pipeline::{self, Lost};
use crate::quota::Admission;
use crate::request::{Refusal, Reply, Request, StatusRequest};
use crate::rows;
use crate::status;
use crate::token::{TokenEntry, Tokens};
use crate::webhooks::HttpWebhooks;
use crate::{lease, reconcile, rotations, sweep};

/// The secrets engines of this version. Webhooks are asked where `outbound` permits.
pub fn standard_engines(outbound: &Outbound) -> Vec<Arc<dyn Engine>> {
    vec![
        Arc::new(KvEngine::with_webhooks(Arc::new(HttpWebhooks::new(outbound.clone())))),
        Arc::new(PlainKvEngine::new()),
        Arc::new(DatabaseEngine::default()),
    ]
}

/// The vault.
pub struct Vault {
    around: Arc<Surroundings>,
    door: Arc<Door>,
}

/// What [`Vault::dev_init`] gives to the developer.
#[derive(Debug)]
pub struct DevInit {
    /// May do everything.
    pub root_token: Token,
    /// The only share.
    pub unseal_key: SecretString,
}

impl Vault {
    /// A sealed vault over a store. Opens the audit log; fails when it cannot.
    pub fn new(deps: Deps) -> Result<Arc<Self>, VaultError> {
        Self::with_seal(deps, Arc::new(ShamirSeal))
    }

    /// The same, sealed in another way than by shares.
    pub fn with_seal(deps: Deps, seal: Arc<dyn Seal>) -> Result<Arc<Self>, VaultError> {
        let Deps { store, store_is_exclusive, clock, keys, engines, audit_dir, ca_bundle, config } = deps;
        let metrics = Metrics::new().map_err(|error| VaultError::Refused(error.to_string()))?;
        let audit = AuditLog::open(&audit_dir, config.audit.clone(), metrics.audit.clone())?;
        let engines: HashMap<_, _> = engines.into_iter().map(|engine| (engine.kind(), engine)).collect();
        let around = Arc::new(Surroundings {
            barrier: Arc::new(Barrier::with_seal(store, seal)),
            store_is_exclusive,
            clock,
            events: Events::new(&config.node_name, config.subscribers, metrics.subscribers.clone()),
            config,
            engines,
            keys,
            audit,
            metrics,
            ca_bundle,
        });
        let door = Arc::new(Door::new(Arc::clone(&around)));
        Ok(Arc::new(Self { around, door }))
    }

    /// Handles a request: everything but the closed list of [`Vault::status`].
    pub async fn handle(&self, request: Request) -> Audited<Reply> {
        let (around, door) = (Arc::clone(&self.around), Arc::clone(&self.door));
        let lost = Lost::of(&request);
        let work = async move {
            let ended = pipeline::run(around, door.open(), request).await;
            if ended.seal {
                door.seal().await;
            }
            ended.reply
        };
        match detached(work).await {
            Some(reply) => reply,
            // A bug: answered and recorded as such, and nobody else is harmed.
            None => {
                let refusal = Fail::Internal("request").reply();
                let now = self.around.clock.now();
                self.around.events.publish(lost.doubt().into_iter().collect(), now);
                self.around.audit.conclude(&lost.record(), refusal).await.reply
            }
        }
    }

    /// Counts a request by the rate limits, before anything of it but its path is looked at.
    pub fn admit(&self, path: &str, client_ip: IpAddr, token: Option<&Token>) -> Admission {
        let Some(open) = self.door.open() else { return Admission::Pass(None) };
        let admission = open.quotas.admit(path, client_ip, token.map(Token::expose), open.now());
        if matches!(&admission, Admission::Over(over) if !over.unless_root) {
            self.around.metrics.rate_limited.inc();
        }
        admission
    }

    /// Answers and records a request that the transport could not even parse.
    pub async fn refuse(&self, refusal: Refusal) -> Audited<Reply> {
        pipeline::refused(&self.around, refusal).await
    }

    /// Answers one of the closed list of requests that work in every state. Initialisation and unsealing are
    /// recorded, too.
    pub async fn status(&self, id: &str, client_ip: IpAddr, request: StatusRequest) -> Reply {
        status::answer(&self.around, &self.door, id, client_ip, request).await
    }

    /// Subscribes to events whose type matches `pattern`. The request is the one to `sys/events/subscribe/<pattern>`;
    /// it is permitted and recorded like any other. The stream ends when the permission does.
    pub async fn subscribe(
        &self,
        request: Request,
        pattern: &str,
        after: Option<String>,
    ) -> Result<EventStream, Audited<Reply>> {
        // Chosen before the decision: nothing that happens in between is missed.
        let start = self.around.events.start(after.as_deref());
        let (path, request_id, client_ip) = (request.path.clone(), request.id.clone(), request.client_ip);
        let door = self.door.open();
        let token = request.token.as_ref().and_then(|token| Token::parse(token.expose()).ok());
        let checked = events::check(pattern, &request);
        let reply = self.handle(request).await;
        let (Some(open), Some(token), Ok(pattern), 200) = (door, token, checked, reply.get().status) else {
            return Err(reply);
        };
        let subscription =
            Subscription { request_id: request_id.clone(), client_ip, token, path, pattern, start };
        let path = subscription.path.clone();
        match events::subscribe(&open, subscription).await {
            Ok(stream) => Ok(stream),
            Err(fail) => {
                let (status, message, method) = (fail.status(), fail.to_string(), "read".to_owned());
                let refusal = Refusal { id: request_id, method, path, client_ip, status, message };
                Err(self.refuse(refusal).await)
            }
        }
    }

    /// Lets reads that wait for a change be answered now: the server is about to end.
    pub fn end_waits(&self) {
        self.around.events.end_waits();
    }

    /// Sweeping, flushing, anchoring, until `shutdown`; then a last anchor. To be run once.
    pub async fn run_background(self: Arc<Self>, shutdown: CancellationToken) {
        background::run(Arc::clone(&self.around), Arc::clone(&self.door), shutdown).await;
    }

    /// Sweeps once, now: what the background does every second; but waits for the targets. For whoever moves the clock himself.
    pub async fn sweep(&self) -> Result<(), VaultError> {
        match self.door.open() {
            Some(open) => {
                let swept = sweep::sweep(&open).await;
                open.leases.queues.idle().await;
                let swept = swept.and(lease::measure(&open).await);
                Ok(rotations::sweep(&open).await.and(swept)?)
            }
            None => Ok(()),
        }
    }

    /// Compares accounts with leases once, now: what the background does when it takes over and every hour.
    pub async fn reconcile(&self) -> Result<(), VaultError> {
        match self.door.open() {
            Some(open) => Ok(reconcile::reconcile(&open).await?),
            None => Ok(()),
        }
    }

    /// Brings rows under the newest keys, until none is left under older ones: what the background does by itself.
    pub async fn rewrap(&self) -> Result<(), VaultError> {
        match self.door.open() {
            Some(open) => Ok(background::rewrap(&open).await?),
            None => Ok(()),
        }
    }

    /// Opens a vault whose seal needs nobody: what the background does by itself.
    pub async fn open_alone(&self) -> Result<(), VaultError> {
        Ok(self.door.open_alone().await?)
    }

    /// Publishes and trims the change log once, now: what the background does by itself.
    pub async fn trim(&self) -> Result<(), VaultError> {
        if let Some(open) = self.door.open() {
            open.barrier.publish_log().await.map_err(Fail::from)?;
            background::trim(&open).await?;
        }
        Ok(())
    }

    /// Opens the files of further audit devices by their names again: somebody renamed them.
    pub fn reopen_audit_devices(&self) {
        if let Some(open) = self.door.open() {
            open.devices.reopen();
        }
    }

    /// Anchors the head of the audit log, now, and brings the log to the disk.
    pub async fn anchor(&self) -> Result<(), VaultError> {
        let _next_time = self.around.audit.tell_counted(self.around.clock.now()).await.is_err();
        if let Some(open) = self.door.open() {
            anchor::anchor(&open).await?;
        }
        self.around.audit.flush()?;
        Ok(())
    }

    /// Seals, with a last anchor, and brings the audit log to the disk: the end of the process.
    pub async fn close(&self) -> Result<(), VaultError> {
        self.door.seal().await;
        self.around.audit.flush()?;
        Ok(())
    }

    /// For `--dev`: initialises with one share, unseals, mounts `secret/` and gives everything away.
    pub async fn dev_init(&self) -> Result<DevInit, VaultError> {
        let made = self.door.initialize(1, 1).await?;
        let share = made.shares.first().ok_or(Fail::Internal("no share"))?;
        let unseal_key = SecretString::copy_of(&share.to_hex());
        self.door.unseal(Some(SecretString::copy_of(&share.to_hex())), false).await?;
        let open = self.door.open().ok_or(Fail::Sealed)?;
        mount_kv(&open).await?;
        Ok(DevInit { root_token: made.root, unseal_key })
    }

    /// For `--dev`: the root token of [`Vault::dev_init`] is replaced by one of the developer's choosing.
    pub async fn dev_root(&self, made: &mut DevInit, chosen: Token) -> Result<(), VaultError> {
        let open = self.door.open().ok_or(Fail::Sealed)?;
        let old = open.tokens.hash(&made.root_token);
        let reader = open.barrier.reader().await?;
        let mut entry = codec::get::<TokenEntry>(&reader, &rows::token(&old))
            .await?
            .ok_or(Fail::Internal("no root token"))?;
        entry.hash = open.tokens.hash(&chosen);
        entry.accessor = Accessor::generate(&mut os_rng());
        // As in Vault, where it is made by a call.
        entry.display_name = "token".into();
        entry.path = "auth/token/create".into();
        transact!(open.barrier, |w| Tokens::insert_in(w, &entry).await?)?;
        open.tokens.kill(&[old], open.now()).await?;
        made.root_token = chosen;
        Ok(())
    }
}

async fn mount_kv(open: &Open) -> Result<(), Fail> {
    let mut mount = blank(Class::Secret, "secret", "kv", open.now());
    "key/value secret storage".clone_into(&mut mount.description);
    mount.options.insert("version".into(), "2".into());
    transact!(open.barrier, |w| {
        open.barrier.create_kek(w, mount.id).await?;
        MountTable::put_in(w, &mount).await?;
    })?;
    open.mounts.reload().await
}

/// Runs `work` to its end even if the caller is dropped meanwhile; none if it panicked. What is done at the first poll,
/// such as a read answered from memory, needs no task for that.
async fn detached<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Option<T> {
    let mut work = Box::pin(AssertUnwindSafe(work).catch_unwind());
    let first = std::future::poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await;
    match first {
        Poll::Ready(done) => done.ok(),
        Poll::Pending => tokio::spawn(work).await.ok().and_then(Result::ok),
    }
}
