//! A new root token for whoever brings enough shares: it leaves only under a one-time pad.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use coffer_core::policy::PolicyName;
use coffer_core::secret::SecretString;
use coffer_core::token::{Accessor, Token};
use rand::RngExt as _;
use rand::distr::Alphanumeric;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{Collected, Dialect, WRONG_SHARES, is_wrong, no_pgp, required, says, share};
use crate::codec::transact;
use crate::door::os_rng;
use crate::error::{Fail, bad};
use crate::open::Open;
use crate::outcome::{Outcome, Undo};
use crate::pipeline::Ctx;
use crate::request::Operation;
use crate::token::{TokenEntry, Tokens};

/// Bytes of a token, and so of the pad: `s.` and 43 characters.
const OTP_BYTES: usize = 45;

/// The one attempt that may go on.
#[derive(Default)]
pub(crate) struct RootAttempt {
    otp: Option<SecretString>,
    collected: Collected,
}

/// What has become of an attempt, for its reply.
#[derive(Default)]
struct Shown<'a> {
    /// The pad, shown once to whoever let Coffer make it.
    otp: &'a str,
    encoded: &'a str,
    complete: bool,
    /// How many shares there were when it was complete.
    progress: Option<usize>,
}

/// Handles `attempt` and `update` of a family of endpoints.
pub(crate) async fn handle(ctx: &Ctx, dialect: Dialect, rest: &str) -> Result<Outcome, Fail> {
    use Operation::{Delete, Read, Update};
    let mut root = ctx.open.ceremonies.root.lock().await;
    match (rest, ctx.request.operation) {
        ("attempt", Read) => {
            let required = required(&ctx.open.barrier).await?;
            Ok(dialect.reply(root.body(required, dialect, &Shown::default())))
        }
        ("attempt", Update) => root.begin(ctx, dialect).await,
        ("attempt", Delete) => {
            *root = RootAttempt::default();
            Ok(Outcome::empty())
        }
        ("update", Update) => root.update(ctx, dialect).await,
        ("attempt" | "update", _) => Err(Fail::NoOperation),
        _ => Err(Fail::NoRoute(ctx.request.path.clone())),
    }
}

impl RootAttempt {
    fn body(&self, required: usize, dialect: Dialect, shown: &Shown<'_>) -> Value {
        let started = self.otp.is_some();
        let progress = shown.progress.unwrap_or_else(|| self.collected.progress());
        let mut body = json!({
            "started": started, "progress": progress, "required": required, "complete": shown.complete,
            "otp": shown.otp, "otp_length": OTP_BYTES,
        });
        let Value::Object(map) = &mut body else { return body };
        if dialect == Dialect::Legacy || started {
            map.insert("nonce".into(), self.collected.nonce.as_str().into());
            map.insert("pgp_fingerprint".into(), "".into());
            map.insert("encoded_token".into(), shown.encoded.into());
        }
        if dialect == Dialect::Legacy {
            map.insert("encoded_root_token".into(), shown.encoded.into());
        }
        body
    }

    async fn begin(&mut self, ctx: &Ctx, dialect: Dialect) -> Result<Outcome, Fail> {
        no_pgp(says(ctx.request.body.get("pgp_key")), "pgp_key")?;
        let given = ctx.text("otp")?.filter(|otp| !otp.is_empty());
        if given.is_some_and(|otp| otp.len() != OTP_BYTES) {
            return Err(bad("OTP string has incorrect length"));
        }
        if self.otp.is_some() {
            return Err(bad("root generation already in progress"));
        }
        let required = required(&ctx.open.barrier).await?;
        let otp = given.map_or_else(new_otp, SecretString::copy_of);
        let shown = Shown { otp: if given.is_some() { "" } else { otp.expose() }, ..Shown::default() };
        let mut next = Self { otp: None, collected: Collected::begin() };
        next.otp = Some(SecretString::copy_of(otp.expose()));
        let body = next.body(required, dialect, &shown);
        *self = next;
        Ok(dialect.reply(body))
    }

    async fn update(&mut self, ctx: &Ctx, dialect: Dialect) -> Result<Outcome, Fail> {
        let Some(otp) = &self.otp else { return Err(bad("no root generation in progress")) };
        let key = ctx.text("key")?.filter(|key| !key.is_empty());
        let missing = dialect.pick("'key' must be specified in request body as JSON", "key is required");
        let share = share(key.ok_or_else(|| bad(missing))?)?;
        let said = ctx.text("nonce")?.unwrap_or("");
        if dialect == Dialect::Present && said.is_empty() {
            return Err(bad("nonce is required"));
        }
        let nonce = self.collected.nonce.clone();
        if said != nonce {
            let what = "nonce for this root generation operation is";
            return Err(bad(format!("incorrect nonce supplied; {what} \"{nonce}\"")));
        }
        let required = required(&ctx.open.barrier).await?;
        if !self.collected.add(share) {
            return Err(bad("given key has already been provided during this generation operation"));
        }
        let Some(shares) = self.collected.complete(required) else {
            return Ok(dialect.reply(self.body(required, dialect, &Shown::default())));
        };
        match ctx.open.barrier.prove(&shares).await {
            Ok(()) => {}
            Err(error) if is_wrong(&error) => {
                let what = "root generation aborted: unable to authenticate: unable to retrieve stored keys";
                return Err(bad(format!("{what}: {WRONG_SHARES}")));
            }
            Err(other) => return Err(other.into()),
        }
        let (token, entry) = new_root(&ctx.open).await?;
        let encoded = encode(&token, otp);
        let shown = Shown { encoded: &encoded, complete: true, progress: Some(required), ..Shown::default() };
        let mut outcome = dialect.reply(self.body(required, dialect, &shown));
        outcome.undo = Some(Undo::Token(entry.hash));
        *self = Self::default();
        Ok(outcome)
    }
}

async fn new_root(open: &Open) -> Result<(Token, TokenEntry), Fail> {
    let token = Token::generate(&mut os_rng());
    let entry = root_entry(&token, open);
    transact!(open.barrier, |w| Tokens::insert_in(w, &entry).await?)?;
    Ok((token, entry))
}

fn root_entry(token: &Token, open: &Open) -> TokenEntry {
    TokenEntry {
        policies: vec![PolicyName::root()],
        display_name: "root".into(),
        path: "auth/token/root".into(),
        ..TokenEntry::blank(open.tokens.hash(token), Accessor::generate(&mut os_rng()), open.now())
    }
}

/// The token under the pad, as every Vault client takes it off again.
fn encode(token: &Token, otp: &SecretString) -> Zeroizing<String> {
    let pairs = token.expose().bytes().zip(otp.expose().bytes());
    let bytes: Zeroizing<Vec<u8>> = Zeroizing::new(pairs.map(|(t, o)| t ^ o).collect());
    Zeroizing::new(STANDARD_NO_PAD.encode(&*bytes))
}

fn new_otp() -> SecretString {
    let mut rng = os_rng();
    let text: Zeroizing<String> =
        Zeroizing::new((0..OTP_BYTES).map(|_| char::from(rng.sample(Alphanumeric))).collect());
    SecretString::copy_of(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pad_is_as_long_as_a_token_and_comes_off_again() {
        let token = Token::generate(&mut os_rng());
        assert_eq!(token.expose().len(), OTP_BYTES);
        let otp = new_otp();
        let bytes = STANDARD_NO_PAD.decode(&*encode(&token, &otp)).unwrap();
        let plain: Vec<u8> = bytes.iter().zip(otp.expose().bytes()).map(|(e, o)| e ^ o).collect();
        assert_eq!(plain, token.expose().as_bytes());
        assert_ne!(new_otp().expose(), new_otp().expose());
    }
}
