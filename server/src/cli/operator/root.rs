//! `operator generate-root`: a new root token for enough unseal keys.
//!
//! The token is never shown by the server: it comes under a one-time pad, which only whoever began has.

use std::process::ExitCode;

use anyhow::{Context, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use clap::Args;
use coffer_client::Call;
use coffer_client::wire::Disclose;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::cli::out::Out;
use crate::cli::session::Session;
use crate::cli::{Done, input};

/// Options of `operator generate-root`.
#[derive(Debug, Args)]
pub(crate) struct RootArgs {
    /// Begin: prints the one-time pad, once.
    #[arg(long, conflicts_with_all = ["cancel", "status", "decode"])]
    init: bool,
    /// Forget the keys given so far, and the attempt.
    #[arg(long, conflicts_with_all = ["status", "decode"])]
    cancel: bool,
    /// Show how far it is.
    #[arg(long, conflicts_with = "decode")]
    status: bool,
    /// Take the one-time pad off an encoded token; the pad is read from standard input.
    #[arg(long, value_name = "ENCODED_TOKEN")]
    decode: Option<String>,
    /// The number of the attempt, for certainty that it is the one meant; asked from the server if not given.
    #[arg(long)]
    nonce: Option<String>,
    /// `-`, or nothing: the key is read from standard input, never from the command line.
    #[arg(value_parser = ["-"], hide_possible_values = true)]
    source: Option<String>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct Attempt {
    nonce: String,
    started: bool,
    progress: u64,
    required: u64,
    complete: bool,
    encoded_token: String,
    otp: Disclose,
    otp_length: u64,
}

#[derive(Serialize)]
struct Given<'a> {
    key: Disclose,
    nonce: &'a str,
}

const ATTEMPT: &str = "sys/generate-root/attempt";

/// Does what is asked.
pub(crate) async fn run(args: RootArgs, session: &Session, out: &Out) -> Done {
    if let Some(encoded) = &args.decode {
        let token = decode(encoded, &input::secret("One-time pad (will be hidden)")?)?;
        if out.is_json() {
            out.json(&json!({ "token": token.expose() }))?;
        } else {
            out.line(token.expose())?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let client = session.client()?;
    let attempt: Attempt = if args.init {
        client.exchange(Call::new("PUT", ATTEMPT), Some(&json!({}))).await.context("beginning")?
    } else if args.cancel {
        client.delete(ATTEMPT).await.context("cancelling")?;
        out.success("The attempt is cancelled.")?;
        return Ok(ExitCode::SUCCESS);
    } else {
        let now: Attempt = client
            .exchange(Call::new("GET", ATTEMPT), None::<&()>)
            .await
            .context("asking for the attempt")?;
        if args.status {
            now
        } else {
            if !now.started {
                bail!("no root generation is going on: begin one with --init");
            }
            let nonce = args.nonce.as_deref().unwrap_or(&now.nonce);
            let body = Given { key: input::secret("Unseal key (will be hidden)")?, nonce };
            let call = Call::new("PUT", "sys/generate-root/update");
            client.exchange(call, Some(&body)).await.context("giving a key")?
        }
    };
    show(&attempt, out)?;
    Ok(ExitCode::SUCCESS)
}

fn show(attempt: &Attempt, out: &Out) -> anyhow::Result<()> {
    if out.is_json() {
        return out.json(attempt);
    }
    let mut rows = vec![
        ("Nonce", if attempt.nonce.is_empty() { "n/a".to_owned() } else { attempt.nonce.clone() }),
        ("Started", attempt.started.to_string()),
        ("Progress", format!("{}/{}", attempt.progress, attempt.required)),
        ("Complete", attempt.complete.to_string()),
    ];
    if !attempt.otp.expose().is_empty() {
        rows.push(("OTP", attempt.otp.expose().clone()));
    }
    if !attempt.encoded_token.is_empty() {
        rows.push(("Encoded Token", attempt.encoded_token.clone()));
    }
    let rows: Vec<(String, String)> = rows.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    out.pairs(&rows)?;
    if !attempt.encoded_token.is_empty() {
        out.line("")?;
        out.line("Take the pad off with: coffer operator generate-root --decode <Encoded Token>")?;
    }
    Ok(())
}

pub(super) fn decode(encoded: &str, otp: &Disclose) -> anyhow::Result<Disclose> {
    let bytes = STANDARD_NO_PAD.decode(encoded.trim().trim_end_matches('=')).context("the encoded token")?;
    if bytes.len() != otp.expose().len() {
        bail!("the one-time pad has {} characters, the token {}", otp.expose().len(), bytes.len());
    }
    let plain: Vec<u8> = bytes.iter().zip(otp.expose().bytes()).map(|(byte, pad)| byte ^ pad).collect();
    match String::from_utf8(plain) {
        Ok(text) if text.chars().all(|c| c.is_ascii_graphic()) => Ok(Disclose::from(text)),
        _ => bail!("this is not the pad of this token"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pad_comes_off_and_another_does_not_fit() {
        // Made by OpenBao.
        let otp = Disclose::from("4hFqdZBrZfGbxeyUcXxod3Uwnd");
        let token = decode("R0ZyFwwTcTM2IC8jIiZIYlo8Gxs+fAUePws", &otp).unwrap();
        assert!(token.expose().starts_with("s.") && token.expose().len() == 26);
        assert!(decode("R0ZyFwwTcTM2IC8jIiZIYlo8Gxs+fAUePws", &Disclose::from("short")).is_err());
        assert!(decode("%%%", &otp).is_err());
    }
}
