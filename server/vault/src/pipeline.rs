//! One request from its arrival to its reply: door, authentication, permission, intent, effect, record.
//!
//! The order is fixed here, so that no handler can leave a step out. Never looks into a body.

use std::net::IpAddr;
use std::sync::Arc;

use coffer_core::audit::{AuditRecord, RecordType};
use coffer_core::failpoint::{self, Step};
use coffer_core::time::Timestamp;
use coffer_core::token::TokenHash;

use crate::audit::Audited;
use crate::audit::device::{self, Told};
use crate::auth::direct;
use crate::dispatch::{self, Target};
use crate::error::Fail;
use crate::events::{Draft, wait};
use crate::open::{Open, Surroundings};
use crate::outcome::{Outcome, Undo};
use crate::permit::{self, Permitted};
use crate::quota;
use crate::refusal;
use crate::request::{Operation, Refusal, Reply, Request};
use crate::revoke;
use crate::token::{self, LiveToken, TokenEntry};

/// The longest path kept of a request that was refused before it was understood.
const REFUSED_PATH_MAX: usize = 1024;
/// The longest text of a refusal in a record: an answer may name more of what was sent than a line has room for.
const ERROR_BYTES_MAX: usize = 8 << 10;

/// One request on its way.
pub(crate) struct Ctx {
    pub(crate) open: Arc<Open>,
    pub(crate) request: Request,
    /// The time of the request: everything in it happens at this moment.
    pub(crate) now: Timestamp,
    record: AuditRecord,
    intent: bool,
    /// The token whose last use this is.
    used_up: Option<TokenHash>,
    told: Told,
}

impl Ctx {
    /// Writes the intent: from here on there may be an effect. Once per request.
    pub(crate) async fn intend(&mut self, lease_id: Option<&str>) -> Result<(), Fail> {
        if self.intent {
            return Ok(());
        }
        device::before(&self.open, &self.request, &mut self.told, None).await?;
        let intent = AuditRecord {
            kind: RecordType::Intent,
            lease_id: lease_id.map(str::to_owned),
            time: self.open.now(),
            ..self.record.clone()
        };
        failpoint::reach(Step::BeforeIntent);
        self.open.around.audit.write(&intent).await?;
        failpoint::reach(Step::IntentWritten);
        self.intent = true;
        Ok(())
    }

    /// Says in the record which lease or identity a request turned out to be about.
    pub(crate) fn about_lease(&mut self, id: &str) {
        self.record.lease_id = Some(id.to_owned());
    }

    /// Says in the record what else a request turned out to be about. Never a secret.
    pub(crate) fn about(&mut self, what: &str, which: &str) {
        self.record.metadata.insert(what.to_owned(), which.to_owned());
    }

    /// A text parameter of the body that must be there.
    pub(crate) fn required(&self, name: &str) -> Result<&str, Fail> {
        self.text(name)?.ok_or_else(|| crate::error::bad(format!("missing {name}")))
    }

    /// A text parameter of the body that must be there and not be empty.
    pub(crate) fn filled(&self, name: &str) -> Result<&str, Fail> {
        let given = self.text(name)?.filter(|text| !text.is_empty());
        given.ok_or_else(|| crate::error::bad(format!("missing {name}")))
    }

    /// A text parameter that must be there and not be empty: of the body, or of the query, where a DELETE has it.
    pub(crate) fn filled_anywhere(&self, name: &str) -> Result<&str, Fail> {
        match (self.text(name)?, self.request.query.get(name)) {
            (None, Some(given)) if self.request.operation == Operation::Delete && !given.is_empty() => {
                Ok(given)
            }
            _ => self.filled(name),
        }
    }

    /// A text parameter of the body.
    pub(crate) fn text(&self, name: &str) -> Result<Option<&str>, Fail> {
        crate::params::text(&self.request.body, name)
    }
}

/// How a request ended.
pub(crate) struct Ended {
    pub(crate) reply: Audited<Reply>,
    /// The vault is to be sealed now.
    pub(crate) seal: bool,
}

/// What is left to say of a request that panicked.
pub(crate) struct Lost {
    received: Timestamp,
    id: String,
    operation: Operation,
    path: String,
    client_ip: IpAddr,
}

impl Lost {
    pub(crate) fn of(request: &Request) -> Self {
        let Request { received, operation, client_ip, .. } = *request;
        Self { received, id: request.id.clone(), operation, path: request.path.clone(), client_ip }
    }

    /// What may have been changed at the path, and nobody knows.
    pub(crate) fn doubt(&self) -> Option<Draft> {
        self.operation.writes().then(|| Draft::doubt(&self.path))
    }

    pub(crate) fn record(self) -> AuditRecord {
        AuditRecord {
            status: Some(500),
            error: Some("internal error".to_owned()),
            client_ip: Some(self.client_ip.to_string()),
            ..AuditRecord::new(
                self.received,
                RecordType::Completion,
                self.id,
                self.operation.as_str(),
                self.path,
            )
        }
    }
}

/// Handles a request of an unsealed or sealed vault.
pub(crate) async fn run(around: Arc<Surroundings>, door: Option<Arc<Open>>, request: Request) -> Ended {
    let record = blank(&request);
    let Some(open) = door else {
        if request.path == "sys/seal" && request.operation == Operation::Update {
            // As in Vault, sealing what is sealed is no error; nobody can be asked who may do so.
            let record = AuditRecord { kind: RecordType::Completion, status: Some(204), ..record };
            let reply = around.audit.conclude_refusal(request.client_ip, &record, Reply::empty()).await.reply;
            return Ended { reply, seal: false };
        }
        return Ended { reply: refuse(&around, record, &Fail::Sealed, &request).await, seal: false };
    };
    let now = open.now();
    around.metrics.request(request.operation);
    let mut ctx = Ctx { open, request, now, record, intent: false, used_up: None, told: Told::default() };
    let result = serve(&mut ctx).await;
    finish(ctx, result).await
}

/// Answers what never became a request.
pub(crate) async fn refused(around: &Surroundings, refusal: Refusal) -> Audited<Reply> {
    let mut path = refusal.path;
    cut(&mut path, REFUSED_PATH_MAX);
    let record = AuditRecord {
        status: Some(refusal.status),
        client_ip: Some(refusal.client_ip.to_string()),
        error: Some(refusal.message.clone()),
        ..AuditRecord::new(around.clock.now(), RecordType::Completion, refusal.id, refusal.method, path)
    };
    // As in Vault, an unknown method is told by the status alone.
    let words: &[&str] = if refusal.status == 405 { &[] } else { &[&refusal.message] };
    let reply = Reply::errors(refusal.status, words);
    around.audit.conclude_refusal(refusal.client_ip, &record, reply).await.reply
}

fn blank(request: &Request) -> AuditRecord {
    AuditRecord {
        client_ip: Some(request.client_ip.to_string()),
        ..AuditRecord::new(
            request.received,
            RecordType::Read,
            request.id.as_str(),
            request.operation.as_str(),
            request.path.as_str(),
        )
    }
}

async fn refuse(
    around: &Surroundings,
    mut record: AuditRecord,
    fail: &Fail,
    request: &Request,
) -> Audited<Reply> {
    let reply = fail.reply();
    record.kind = RecordType::Completion;
    record.status = Some(reply.status);
    record.error = Some(said(fail));
    record.time = around.clock.now();
    record.response_time_us = Some(micros(record.time, request.received));
    around.audit.conclude_refusal(request.client_ip, &record, reply).await.reply
}

/// Everything between arrival and record.
async fn serve(ctx: &mut Ctx) -> Result<Outcome, Fail> {
    let mut generation = ctx.open.tokens.generation();
    let target = dispatch::route(&ctx.open, &ctx.request);
    let permitted = permit(ctx, target.as_ref().ok()).await;
    ctx.told.allowed = permitted.is_ok();
    if ctx.told.caller.is_some() {
        let refused = permitted.as_ref().err().map(Fail::to_string);
        device::before(&ctx.open, &ctx.request, &mut ctx.told, refused.as_deref()).await?;
    }
    let (permitted, target) = (permitted?, target?);
    if let Some(max) = permitted.page_max() {
        let limit = ctx.request.query.entry("limit".to_owned()).or_default();
        if limit.is_empty() || limit.parse() == Ok(0) {
            *limit = max.to_string();
        }
    }
    let login = target.is_login(&ctx.request);
    // What everybody may try has its intent once it is believed: until then it has no effect.
    let on_trial = login || target.by_wrapping_token(&ctx.request);
    if ctx.request.operation.writes() && !on_trial && !target.only_asks(&ctx.request) {
        // The last moment to see what was cut off since.
        generation = unchanged(ctx, &permitted, generation).await?;
        ctx.intend(None).await?;
    }
    let mut index = None;
    if wait::asked(&ctx.request) {
        index = Some(wait::wait(ctx, &permitted, &target).await?);
        ctx.now = ctx.open.now();
        // Whoever waited is looked at anew, whether or not anybody noticed a change.
        generation = ctx.open.tokens.generation();
        decide_again(ctx, &permitted).await?;
    }
    let mut outcome = dispatch::handle(ctx, &permitted, target).await?;
    outcome.index = index;
    if login {
        ctx.intend(None).await?;
    }
    let outcome = wrapped(ctx, &permitted, outcome).await?;
    if !ctx.intent {
        unchanged(ctx, &permitted, generation).await?;
    }
    Ok(outcome)
}

/// Puts the reply away if that was asked for. What cannot be put away is taken back.
async fn wrapped(ctx: &mut Ctx, permitted: &Permitted, mut outcome: Outcome) -> Result<Outcome, Fail> {
    let Some(ttl) = ctx.request.wrap_ttl else { return Ok(outcome) };
    let inner = outcome.undo.take();
    match token::wrapping::wrap(ctx, ttl, permitted.caller().ok(), outcome).await {
        Ok(mut outcome) => {
            outcome.undo = match (outcome.undo.take(), inner) {
                (Some(a), Some(b)) => Some(Undo::Both(Box::new(a), Box::new(b))),
                (a, b) => a.or(b),
            };
            Ok(outcome)
        }
        Err(fail) => {
            if let Some(undo) = inner {
                take_back(&ctx.open, undo).await;
            }
            Err(fail)
        }
    }
}

/// R7: if anything was cut off since `generation`, the request is decided again, in the present. Gives back the
/// generation that the decision holds for.
async fn unchanged(ctx: &Ctx, permitted: &Permitted, generation: u64) -> Result<u64, Fail> {
    let mut decided = generation;
    let mut in_store = false;
    loop {
        let present = ctx.open.tokens.generation();
        // A server that nobody vouches for any more decides in the store, whatever it found in memory.
        let vouched = ctx.open.validity.holds(ctx.open.now());
        if present == decided && (vouched || in_store) {
            return Ok(present);
        }
        in_store |= !vouched;
        decided = present;
        decide_again(ctx, permitted).await?;
    }
}

/// Who asks, and whether he may. Paths that do not exist are refused to those who may not see them.
async fn permit(ctx: &mut Ctx, target: Option<&Target>) -> Result<Permitted, Fail> {
    if target.is_some_and(|t| t.is_login(&ctx.request) || t.by_wrapping_token(&ctx.request)) {
        admit_login(ctx, target)?;
        return Ok(permit::anonymous());
    }
    let by_shares = ctx.open.around.config.unauthenticated_ceremonies && ctx.request.token.is_none();
    if by_shares && target.is_some_and(|t| t.by_shares(&ctx.request)) {
        return Ok(permit::anonymous());
    }
    let caller = match authenticate(ctx).await {
        Err(Fail::BadToken) if target.is_some_and(|t| t.for_everybody(&ctx.request)) => {
            return Ok(permit::anonymous());
        }
        found => found?,
    };
    if target.is_some_and(|t| t.for_any_token(&ctx.request)) {
        return Ok(permit::any_token(caller));
    }
    let existence = dispatch::existence(&ctx.open, &ctx.request, target);
    let decided = permit::decide(Arc::clone(&caller), &ctx.request, existence).await;
    decided.map_err(|fail| match (&fail, refusal::needs(&caller, &ctx.request, target)) {
        (Fail::Denied, Some(what)) => Fail::Lacking(what),
        _ => fail,
    })
}

/// A login whose role has a rate limit of its own.
fn admit_login(ctx: &Ctx, target: Option<&Target>) -> Result<(), Fail> {
    if ctx.request.over_limit {
        return Err(quota::over(&ctx.request.path));
    }
    match (target, ctx.text("role")) {
        (Some(Target::Auth(mount, ..)), Ok(Some(role))) => {
            ctx.open.quotas.admit_role(&mount.full_path(), role, ctx.request.client_ip, ctx.now)
        }
        _ => Ok(()),
    }
}

async fn authenticate(ctx: &mut Ctx) -> Result<Arc<LiveToken>, Fail> {
    let token = ctx.request.token.as_ref().ok_or(Fail::BadToken)?;
    let open = &ctx.open;
    if ctx.request.over_limit && direct::looks_like_one(token) {
        // It is nobody's that is let through all the same, and to verify it costs as much as a login.
        return Err(quota::over(&ctx.request.path));
    }
    let caller = open.caller(token, Some(ctx.request.client_ip), ctx.now).await?.ok_or(Fail::BadToken)?;
    let hash = caller.entry.hash;
    if ctx.request.over_limit && !caller.acl.is_root() {
        return Err(quota::over(&ctx.request.path));
    }
    describe(&mut ctx.record, &caller.entry);
    ctx.told.caller = Some(Arc::clone(&caller));
    if !caller.refused_rules.is_empty() {
        ctx.record.metadata.insert("refused_policy_rules".into(), caller.refused_rules.join("; "));
    }
    if !caller.entry.bound_cidrs.admits(ctx.request.client_ip) {
        return Err(Fail::BadToken);
    }
    if let Some(left) = caller.entry.uses_left {
        open.tokens.spend_use(&hash, ctx.now).await?;
        ctx.used_up = (left <= 1).then_some(hash);
    }
    Ok(caller)
}

async fn decide_again(ctx: &Ctx, permitted: &Permitted) -> Result<(), Fail> {
    let Ok(token) = permitted.token() else { return Ok(()) };
    let open = &ctx.open;
    let now = open.now();
    let caller = open.tokens.live_in_use(&open.policies, token, now).await?.ok_or(Fail::BadToken)?;
    let target = dispatch::route(open, &ctx.request)?;
    if target.for_any_token(&ctx.request) {
        return Ok(());
    }
    permit::decide(caller, &ctx.request, dispatch::existence(open, &ctx.request, Some(&target)))
        .await
        .map(|_| ())
}

/// Says in a record who asked.
pub(crate) fn describe(record: &mut AuditRecord, entry: &TokenEntry) {
    record.accessor = Some(entry.accessor.as_str().to_owned());
    record.display_name = Some(entry.display_name.clone());
    record.auth_method = Some(entry.path.clone());
    // Beside what is said there already: a login may have been wrapped.
    record.metadata.extend(entry.metadata.clone());
}

/// Writes the last record, then lets the reply and the events go.
async fn finish(ctx: Ctx, result: Result<Outcome, Fail>) -> Ended {
    let Ctx { open, request, mut record, intent, used_up, mut told, .. } = ctx;
    record.time = open.now();
    record.response_time_us = Some(micros(record.time, request.received));
    let mut seal = false;
    let (reply, events, undo) = match result {
        Ok(mut outcome) => {
            record.kind = if intent { RecordType::Completion } else { RecordType::Read };
            if let Some(id) = outcome.lease_id.take() {
                record.lease_id = Some(id);
            }
            if let (None, Some(identity)) = (&record.accessor, &outcome.identity) {
                describe(&mut record, identity);
            }
            record.status = Some(outcome.status);
            let events = std::mem::take(&mut outcome.events);
            let undo = outcome.undo.take();
            seal = outcome.seal;
            (outcome.into_reply(&request.id), events, undo)
        }
        Err(fail) => {
            if matches!(fail, Fail::TooManyRequests(_)) {
                open.around.metrics.rate_limited.inc();
            }
            record.kind = RecordType::Completion;
            record.status = Some(fail.status());
            record.error = Some(said(&fail));
            // A write that failed here, or whose end nobody knows, may have changed something.
            let doubtful = intent && request.operation.writes() && fail.status() >= 500;
            let doubts = doubtful.then(|| Draft::doubt(&request.path));
            (fail.reply(), doubts.into_iter().collect(), None)
        }
    };
    if intent {
        failpoint::reach(Step::BeforeCompletion);
    }
    let audit = &open.around.audit;
    let nobody = record.error.is_some() && !intent && told.caller.is_none();
    let concluded = if nobody && !audit.admits(request.client_ip, record.time) {
        audit.conclude_counted(reply)
    } else {
        match device::after(&open, &request, &mut told, record.error.as_deref(), &reply).await {
            Err(_) => audit.conclude_untold(record).await,
            Ok(()) if intent => audit.conclude_announced(&record, reply).await,
            Ok(()) => audit.conclude(&record, reply).await,
        }
    };
    if intent {
        failpoint::reach(Step::CompletionWritten);
    }
    let mut answer = concluded.reply;
    if concluded.recorded {
        let wrote = !events.is_empty();
        open.around.events.publish(events, open.now());
        if wrote {
            answer = answer.map(|reply| Reply { index: Some(open.around.events.now_at()), ..reply });
        }
    } else {
        // What is not recorded is not told, but that there was something is.
        let doubts = events.iter().map(|event| Draft::doubt(&event.path)).collect();
        open.around.events.publish(doubts, open.now());
        if let Some(undo) = undo {
            take_back(&open, undo).await;
        }
    }
    if let Some(hash) = used_up {
        // It is dead already; what hangs from it goes now rather than when its time would be over.
        if let Err(error) = revoke::token(&open, &hash).await {
            tracing::warn!(%error, "a used-up token could not be revoked yet");
        }
    }
    if intent {
        failpoint::reach(Step::BeforeReply);
    }
    Ended { reply: answer, seal: seal && concluded.recorded }
}

/// A credential nobody wrote down must not stay.
async fn take_back(open: &Arc<Open>, undo: Undo) {
    let result = match undo {
        Undo::Both(first, second) => {
            Box::pin(take_back(open, *first)).await;
            Box::pin(take_back(open, *second)).await;
            return;
        }
        Undo::Lease(id) => revoke::leases(open, &[id]).await.map(|_| ()),
        Undo::Token(hash) => revoke::token(open, &hash).await.map(|_| ()),
    };
    if let Err(error) = result {
        tracing::error!(%error, "what was issued without an audit record could not be revoked yet");
    }
}

fn cut(text: &mut String, bytes: usize) {
    text.truncate(text.floor_char_boundary(bytes));
}

/// What a record says of a refusal.
fn said(fail: &Fail) -> String {
    let mut text = fail.to_string();
    cut(&mut text, ERROR_BYTES_MAX);
    text
}

fn micros(now: Timestamp, received: Timestamp) -> u64 {
    u64::try_from(now.saturating_sub(received).as_micros()).unwrap_or(u64::MAX)
}

/// Whether an operation is one of the given ones; otherwise `405`.
pub(crate) fn only(request: &Request, allowed: &[Operation]) -> Result<(), Fail> {
    if allowed.contains(&request.operation) { Ok(()) } else { Err(Fail::NoOperation) }
}
