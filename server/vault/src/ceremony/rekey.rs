//! Rekey: new unseal keys, by default with a new master key, and with a rehearsal of the new keys if wanted.

use coffer_barrier::{NewKeys, NewMaster, Rekeyed};
use coffer_core::shamir::{ShamirError, Share, Threshold};
use serde_json::{Value, json};

use super::{Collected, Dialect, WRONG_SHARES, is_wrong, no_pgp, required, says, share};
use crate::door::os_rng;
use crate::error::{Fail, bad};
use crate::open::Open;
use crate::outcome::Outcome;
use crate::params;
use crate::pipeline::Ctx;
use crate::request::Operation;

/// Why new shares alone are weaker than they look.
const PLAIN_WARNING: &str = "the master key was not changed: old unseal keys together with an old copy of the \
     storage still open everything, also what is written from now on";
/// What to do when the store does not answer for the commit.
const UNKNOWN_WARNING: &str = "the storage did not say whether the change is in force: keep the old and the new keys \
     until the next unseal has shown which of them count";

/// What was asked for.
struct Wanted {
    threshold: Threshold,
    change: NewMaster,
    verify: bool,
}

/// New keys that wait for their rehearsal.
struct Pending {
    keys: NewKeys,
    collected: Collected,
}

/// The one rekey that may go on.
#[derive(Default)]
pub(crate) struct Rekey {
    wanted: Option<Wanted>,
    collected: Collected,
    pending: Option<Pending>,
}

/// Handles `init`, `update`, `verify` and `backup` of a family of endpoints.
pub(crate) async fn handle(ctx: &Ctx, dialect: Dialect, rest: &str) -> Result<Outcome, Fail> {
    use Operation::{Delete, Read, Update};
    let open = &ctx.open;
    let mut rekey = open.ceremonies.rekey.lock().await;
    match (rest, ctx.request.operation) {
        ("init", Read) => rekey.status(open, dialect).await,
        ("init", Update) => rekey.begin(ctx, dialect).await,
        ("init", Delete) => {
            *rekey = Rekey::default();
            Ok(Outcome::empty())
        }
        ("update", Update) => rekey.update(ctx, dialect).await,
        ("verify", Read) => rekey.verification(dialect),
        ("verify", Update) => rekey.verify(ctx, dialect).await,
        ("verify", Delete) => {
            let none = bad(dialect.pick("no rekey configuration found", "no rotation configuration found"));
            rekey.pending.as_mut().ok_or(none)?.collected = Collected::begin();
            rekey.verification(dialect)
        }
        // Backups are of keys encrypted for PGP, and there are none.
        ("backup" | "recovery-key-backup", Read) => Err(bad("no backed-up keys found")),
        ("backup" | "recovery-key-backup", Delete) => Ok(Outcome::empty()),
        ("init" | "update" | "verify" | "backup" | "recovery-key-backup", _) => Err(Fail::NoOperation),
        _ => Err(Fail::NoRoute(ctx.request.path.clone())),
    }
}

impl Rekey {
    async fn status(&self, open: &Open, dialect: Dialect) -> Result<Outcome, Fail> {
        let required = required(&open.barrier).await?;
        Ok(dialect.reply(self.body(required, dialect)))
    }

    fn body(&self, required: usize, dialect: Dialect) -> Value {
        let (t, n) = self.counts();
        let nonce = &self.collected.nonce;
        let (started, verify) = (self.wanted.is_some(), self.wanted.as_ref().is_some_and(|w| w.verify));
        let progress = self.collected.progress();
        let verification = self.pending.as_ref().map(|p| p.collected.nonce.as_str());
        match dialect {
            Dialect::Present if !started => json!({ "n": 0, "required": required, "started": false, "t": 0 }),
            Dialect::Present => json!({
                "n": n, "nonce": nonce, "progress": progress, "required": required, "started": true, "t": t,
                "verification_nonce": verification.unwrap_or(""), "verification_required": verify,
            }),
            Dialect::Legacy => {
                let mut body = json!({
                    "nonce": nonce, "started": started, "t": t, "n": n, "progress": progress,
                    "required": required, "pgp_fingerprints": null, "backup": false,
                    "verification_required": verify,
                });
                if let (Some(nonce), Value::Object(map)) = (verification, &mut body) {
                    map.insert("verification_nonce".into(), nonce.into());
                }
                body
            }
        }
    }

    fn counts(&self) -> (u8, u8) {
        self.wanted.as_ref().map_or((0, 0), |w| (w.threshold.needed(), w.threshold.shares()))
    }

    async fn begin(&mut self, ctx: &Ctx, dialect: Dialect) -> Result<Outcome, Fail> {
        let body = &ctx.request.body;
        no_pgp(says(body.get("pgp_keys")), "pgp_keys")?;
        if self.wanted.is_some() {
            return Err(bad(dialect.pick("rekey already in progress", "rotation already in progress")));
        }
        let count = |name| Ok::<_, Fail>(params::number(body, name)?.unwrap_or(0));
        let label = dialect.pick("rekey", "rotate");
        let threshold = threshold(count("secret_shares")?, count("secret_threshold")?)
            .map_err(|why| bad(format!("invalid {label} seal configuration: {why}")))?;
        let rotate = params::flag(body, "rotate_master")?.unwrap_or(true);
        let change = if rotate { NewMaster::Yes } else { NewMaster::No };
        let verify = params::flag(body, "require_verification")?.unwrap_or(false);
        let required = required(&ctx.open.barrier).await?;
        *self = Self {
            wanted: Some(Wanted { threshold, change, verify }),
            collected: Collected::begin(),
            pending: None,
        };
        let mut outcome = dialect.reply(self.body(required, dialect));
        if change == NewMaster::No {
            outcome.warnings.push(PLAIN_WARNING.into());
        }
        Ok(outcome)
    }

    async fn update(&mut self, ctx: &Ctx, dialect: Dialect) -> Result<Outcome, Fail> {
        let none = bad(dialect.pick("no barrier rekey in progress", "no rotation in progress"));
        let wanted = self.wanted.as_ref().ok_or(none)?;
        if self.pending.is_some() {
            return Err(bad("the new keys are there and wait for their verification"));
        }
        let what = dialect.pick("this rekey operation", "rotation");
        let share = given(ctx, dialect, &self.collected.nonce, what)?;
        let required = required(&ctx.open.barrier).await?;
        if !self.collected.add(share) {
            let what = dialect.pick("generation operation", "rotation");
            return Err(bad(format!("given key has already been provided during this {what}")));
        }
        let Some(shares) = self.collected.complete(required) else {
            return Ok(dialect.reply(self.body(required, dialect)));
        };
        let barrier = &ctx.open.barrier;
        let made = barrier.prepare_rekey(&shares, wanted.threshold, wanted.change, &mut os_rng()).await;
        let keys = match made {
            Ok(keys) => keys,
            Err(error) if is_wrong(&error) => {
                return Err(bad(format!("failed to read root key: {WRONG_SHARES}")));
            }
            Err(other) => return Err(other.into()),
        };
        let mut body = self.new_keys(&keys, dialect);
        let mut warnings = Vec::new();
        if self.wanted.as_ref().is_some_and(|w| w.verify) {
            let collected = Collected::begin();
            if let Value::Object(map) = &mut body {
                map.insert("verification_nonce".into(), collected.nonce.clone().into());
            }
            self.pending = Some(Pending { keys, collected });
        } else {
            // The shares leave with this reply even if the store does not answer: one of the two sets counts.
            let unknown = barrier.rekey(&keys, ctx.open.now()).await? == Rekeyed::Unknown;
            warnings = self.warnings(unknown);
            *self = Self::default();
        }
        let mut outcome = dialect.reply(body);
        outcome.warnings = warnings;
        Ok(outcome)
    }

    fn new_keys(&self, keys: &NewKeys, dialect: Dialect) -> Value {
        let hex: Vec<String> = keys.shares().iter().map(|s| s.to_hex().to_string()).collect();
        let base64: Vec<String> = keys.shares().iter().map(|s| s.to_base64().to_string()).collect();
        let verify = self.wanted.as_ref().is_some_and(|w| w.verify);
        let mut body = json!({
            "nonce": self.collected.nonce, "complete": true, "keys": hex, "keys_base64": base64,
            "pgp_fingerprints": null, "backup": false, "verification_required": verify,
        });
        if let (Dialect::Present, Value::Object(map)) = (dialect, &mut body) {
            map.insert("verification_nonce".into(), "".into());
        }
        body
    }

    fn warnings(&self, unknown: bool) -> Vec<String> {
        let plain = self.wanted.as_ref().is_some_and(|w| w.change == NewMaster::No);
        let said = [(plain, PLAIN_WARNING), (unknown, UNKNOWN_WARNING)];
        said.into_iter().filter(|(is, _)| *is).map(|(_, text)| text.to_owned()).collect()
    }

    fn verification(&self, dialect: Dialect) -> Result<Outcome, Fail> {
        let none = bad(dialect.pick("no rekey configuration found", "no rotation configuration found"));
        let pending = self.pending.as_ref().ok_or(none)?;
        let threshold = pending.keys.threshold();
        Ok(dialect.reply(json!({
            "nonce": pending.collected.nonce, "started": true, "t": threshold.needed(),
            "n": threshold.shares(), "progress": pending.collected.progress(),
        })))
    }

    async fn verify(&mut self, ctx: &Ctx, dialect: Dialect) -> Result<Outcome, Fail> {
        let none = bad(dialect.pick("no rekey in progress", "no rotation in progress"));
        let pending = self.pending.as_mut().ok_or(none)?;
        let share = given(ctx, dialect, &pending.collected.nonce, "this verify operation")?;
        if !pending.collected.add(share) {
            return Err(bad("given key has already been provided during this verify operation"));
        }
        let Some(shares) = pending.collected.complete(pending.keys.threshold().needed().into()) else {
            return self.verification(dialect);
        };
        let barrier = &ctx.open.barrier;
        match barrier.verify_rekey(&pending.keys, &shares).await {
            Ok(()) => {}
            Err(error) if is_wrong(&error) => {
                pending.collected = Collected::begin();
                let what = dialect.pick("rekey", "rotation");
                return Err(bad(format!("{what} verification failed; incorrect key shares supplied")));
            }
            Err(other) => return Err(other.into()),
        }
        let nonce = pending.collected.nonce.clone();
        let unknown = barrier.rekey(&pending.keys, ctx.open.now()).await? == Rekeyed::Unknown;
        let mut outcome = dialect.reply(json!({ "nonce": nonce, "complete": true }));
        outcome.warnings = self.warnings(unknown);
        *self = Self::default();
        Ok(outcome)
    }
}

/// The share of a body, if it comes with the right nonce.
fn given(ctx: &Ctx, dialect: Dialect, nonce: &str, what: &str) -> Result<Share, Fail> {
    let key = ctx.text("key")?.filter(|key| !key.is_empty());
    let said = ctx.text("nonce")?.unwrap_or("");
    if dialect == Dialect::Present && said.is_empty() {
        return Err(bad("missing required field 'nonce'"));
    }
    let missing =
        dialect.pick("'key' must be specified in request body as JSON", "missing required field 'key'");
    let key = key.ok_or_else(|| bad(missing))?;
    let share = share(key).map_err(|_| bad("'key' must be a valid hex or base64 string"))?;
    if said != nonce {
        return Err(bad(format!("incorrect nonce supplied; nonce for {what} is \"{nonce}\"")));
    }
    Ok(share)
}

/// A threshold, refused in Vault's words.
pub(crate) fn threshold(shares: u64, needed: u64) -> Result<Threshold, &'static str> {
    match Threshold::new(shares, needed) {
        Ok(threshold) => Ok(threshold),
        Err(ShamirError::SingleOfMany) => Err("threshold must be greater than one for multiple shares"),
        Err(_) if shares == 0 => Err("shares must be at least one"),
        Err(_) if needed == 0 => Err("threshold must be at least one"),
        Err(_) if shares > 255 => Err("shares must be less than or equal to 255"),
        Err(_) => Err("threshold cannot be larger than shares"),
    }
}
