//! Where a secret is: its mount, the rest of its path, and whether the mount keeps versions.

use anyhow::Context;
use clap::Args;
use coffer_client::Client;
use serde_json::Value;

use super::super::generic::clean;

/// Where a secret is.
#[derive(Debug, Args)]
pub(crate) struct PlaceArgs {
    /// The secret, such as secret/app.
    path: String,
    /// The engine's mount, if the path is below it.
    #[arg(long)]
    mount: Option<String>,
}

/// A secret's mount and the rest of its path.
pub(super) struct Place {
    mount: String,
    rest: String,
    /// Whether it is an engine of version 2.
    pub(super) versioned: bool,
}

impl Place {
    /// Where the mount ends is the server's to know. A server that does not tell is taken to have a mount of
    /// version 2 at the first segment.
    pub(super) async fn find(args: &PlaceArgs, client: &Client) -> anyhow::Result<Self> {
        let path = clean(&args.path);
        let (asked_for, guess) = match &args.mount {
            Some(mount) => (clean(mount), clean(mount)),
            None => (path, path.split('/').next().unwrap_or(path)),
        };
        let asked = client.get::<Value>(&format!("sys/internal/ui/mounts/{asked_for}")).await;
        let told = match asked {
            Ok(reply) => reply.data,
            Err(error) if matches!(error.status(), Some(400 | 403 | 404 | 405)) => None,
            Err(error) => return Err(error).with_context(|| format!("looking for the mount of {path}")),
        };
        let mount = told.as_ref().and_then(|data| data.get("path")).and_then(Value::as_str).map(clean);
        let version = told.as_ref().map(|data| data.pointer("/options/version").and_then(Value::as_str));
        let mount = mount.unwrap_or(guess).to_owned();
        let rest = match &args.mount {
            Some(_) => path,
            None => path.strip_prefix(mount.as_str()).unwrap_or("").trim_start_matches('/'),
        };
        Ok(Self { rest: rest.to_owned(), mount, versioned: version.is_none_or(|v| v == Some("2")) })
    }

    /// The API's path: with `part` between mount and secret where there are versions.
    pub(super) fn path(&self, part: &str) -> String {
        let parts = [self.mount.as_str(), if self.versioned { part } else { "" }, self.rest.as_str()];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
    }
}
