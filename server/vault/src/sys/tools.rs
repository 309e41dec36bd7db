//! `sys/tools/...`: random bytes and hashes. Keeps nothing.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rand::Rng as _;
use serde_json::json;
use sha2::Digest as _;
use zeroize::Zeroizing;

use crate::door::os_rng;
use crate::error::{Fail, bad};
use crate::outcome::Outcome;
use crate::params;
use crate::pipeline::{Ctx, only};
use crate::request::Operation;

/// The most random bytes of one answer.
const RANDOM_MAX: usize = 128 << 10;
const RANDOM_DEFAULT: i64 = 32;

/// Handles `sys/tools/<below>`.
pub(crate) fn handle(ctx: &Ctx, below: &str) -> Result<Outcome, Fail> {
    only(&ctx.request, &[Operation::Update])?;
    let (tool, rest) = below.split_once('/').unwrap_or((below, ""));
    match tool {
        "random" => random(ctx, rest),
        "hash" => hash(ctx, rest),
        _ => Err(Fail::UnsupportedPath),
    }
}

fn encoded(ctx: &Ctx, bytes: &[u8], default: &str, quoted: bool) -> Result<String, Fail> {
    match ctx.text("format")?.unwrap_or(default) {
        "hex" => Ok(hex::encode(bytes)),
        "base64" => Ok(STANDARD.encode(bytes)),
        other => {
            let shown = other.escape_default().to_string();
            let shown = if quoted { format!("{shown:?}") } else { shown };
            Err(bad(format!("unsupported encoding format {shown}; must be \"hex\" or \"base64\"")))
        }
    }
}

/// `random`, `random/<bytes>`, `random/<source>` or `random/<source>/<bytes>`.
fn random(ctx: &Ctx, rest: &str) -> Result<Outcome, Fail> {
    let (first, second) = rest.split_once('/').unwrap_or((rest, ""));
    let (source, count) = match first {
        "platform" | "seal" | "all" => (first, second),
        _ => (ctx.text("source")?.unwrap_or("platform"), rest),
    };
    if !matches!(source, "platform" | "seal" | "all") {
        return Err(bad("unsupported entropy source; must be \"platform\", \"seal\" or \"all\""));
    }
    let count = if count.is_empty() {
        match ctx.request.body.get("bytes") {
            None | Some(serde_json::Value::Null) => RANDOM_DEFAULT,
            Some(value) => {
                let text = value.as_str().and_then(|t| t.parse().ok());
                value.as_i64().or(text).ok_or_else(|| bad("bytes must be a whole number"))?
            }
        }
    } else {
        count.parse().map_err(|_| bad("error parsing url-set byte count"))?
    };
    if count < 1 {
        return Err(bad("'bytes' cannot be less than 1"));
    }
    let count = usize::try_from(count).ok().filter(|n| *n <= RANDOM_MAX);
    let count = count.ok_or_else(|| bad(format!("'bytes' should be less than {RANDOM_MAX}")))?;
    let mut bytes = Zeroizing::new(vec![0; count]);
    os_rng().fill_bytes(&mut bytes);
    let outcome = Outcome::data(json!({ "random_bytes": encoded(ctx, &bytes, "base64", true)? }));
    Ok(match source {
        "platform" | "all" => outcome,
        _ => outcome.warning(vec![
            "no seal/entropy augmentation available, using platform entropy source".to_owned(),
        ]),
    })
}

/// In Go's words, as far as there are the same.
fn not_base64(error: &base64::DecodeError) -> String {
    use base64::DecodeError::{InvalidByte, InvalidLastSymbol};
    match error {
        InvalidByte(at, _) | InvalidLastSymbol(at, _) => {
            format!("unable to decode input as base64: illegal base64 data at input byte {at}")
        }
        _ => "unable to decode input as base64: illegal base64 data".to_owned(),
    }
}

fn hash(ctx: &Ctx, rest: &str) -> Result<Outcome, Fail> {
    let algorithm = if rest.is_empty() { ctx.text("algorithm")?.unwrap_or("sha2-256") } else { rest };
    let input = STANDARD.decode(ctx.text("input")?.unwrap_or(""));
    let input = Zeroizing::new(input.map_err(|error| bad(not_base64(&error)))?);
    let sum = match algorithm {
        "sha2-224" => sha2::Sha224::digest(&*input).to_vec(),
        "sha2-256" => sha2::Sha256::digest(&*input).to_vec(),
        "sha2-384" => sha2::Sha384::digest(&*input).to_vec(),
        "sha2-512" => sha2::Sha512::digest(&*input).to_vec(),
        other => return Err(bad(format!("unsupported algorithm {}", other.escape_default()))),
    };
    params::text(&ctx.request.body, "format")?;
    Ok(Outcome::data(json!({ "sum": encoded(ctx, &sum, "hex", false)? })))
}
