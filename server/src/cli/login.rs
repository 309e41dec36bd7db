//! `login`: a token from standard input, checked and kept in a file that only its owner can read.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use coffer_client::wire::{Disclose, TokenLookup};

use super::out::{Out, duration};
use super::session::{Session, token_path};
use super::{Done, input};

/// Options of `login`.
#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    /// `-`, or nothing: the token is read from standard input, never from the command line.
    #[arg(value_parser = ["-"], hide_possible_values = true)]
    source: Option<String>,
    /// Check the token, but do not keep it.
    #[arg(long)]
    no_store: bool,
}

/// Checks and keeps.
pub(crate) async fn run(args: LoginArgs, session: &Session, out: &Out) -> Done {
    let token = input::secret("Token (will be hidden)")?;
    let client = session.with_token(&token)?;
    let found = client.lookup_self().await.context("checking the token")?;
    if !args.no_store {
        let path = token_path()?;
        store(&path, &token).with_context(|| format!("keeping the token in {}", path.display()))?;
    }
    if out.is_json() {
        out.json(&found)?;
    } else {
        out.line(if args.no_store { "The token is good." } else { "You are logged in; the token is kept." })?;
        out.line("")?;
        out.pairs(&rows(&found))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn rows(found: &TokenLookup) -> Vec<(String, String)> {
    let life = if found.expire_time.is_none() { "never ends".to_owned() } else { duration(found.ttl) };
    vec![
        ("token_accessor".to_owned(), found.accessor.clone()),
        ("token_display_name".to_owned(), found.display_name.clone()),
        ("token_duration".to_owned(), life),
        ("token_renewable".to_owned(), found.renewable.to_string()),
        ("token_policies".to_owned(), format!("[{}]", found.policies.join(" "))),
    ]
}

/// Written beside and renamed, so that no moment shows half a token or one that others may read.
fn store(path: &Path, token: &Disclose) -> std::io::Result<()> {
    let beside = path.with_extension(format!("{}.tmp", std::process::id()));
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)
        .and_then(|mut file| {
            file.write_all(token.expose().as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| std::fs::rename(&beside, path));
    if written.is_err() {
        let _nothing_to_remove = std::fs::remove_file(&beside);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn tokens_are_for_their_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".coffer-token");
        std::fs::write(&path, "old").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        store(&path, &Disclose::from("s.new")).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "s.new");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
