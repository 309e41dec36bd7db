//! `audit enable`, `disable`, `list` and `hash`: further devices beside the built-in log.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use coffer_client::Call;
use coffer_client::wire::{Disclose, Envelope};
use serde_json::{Map, Value, json};

use super::super::out::{Out, cell};
use super::super::session::Session;
use super::super::{Done, input};

/// Options of `audit enable`.
#[derive(Debug, Args)]
pub(crate) struct EnableArgs {
    /// The type of device: file.
    kind: String,
    /// Its options, such as file_path=/var/log/devices/a.log.
    #[arg(value_name = "KEY=VALUE")]
    options: Vec<String>,
    /// Its name; its type unless given.
    #[arg(long)]
    path: Option<String>,
    /// For people.
    #[arg(long, default_value = "")]
    description: String,
}

/// Adds a device.
pub(super) async fn enable(args: &EnableArgs, session: &Session, out: &Out) -> Done {
    let name = args.path.as_deref().unwrap_or(&args.kind).trim_matches('/');
    let body = json!({ "type": args.kind, "description": args.description, "options": input::labels(&args.options)? });
    let at = format!("sys/audit/{name}");
    let _no_content: Envelope<Value> = session
        .client()?
        .exchange(Call::new("PUT", &at), Some(&body))
        .await
        .with_context(|| format!("enabling audit device {name}/"))?;
    out.success(&format!("Enabled the {} audit device at: {name}/", args.kind))?;
    Ok(ExitCode::SUCCESS)
}

/// Removes a device; its file stays.
pub(super) async fn disable(name: &str, session: &Session, out: &Out) -> Done {
    let name = name.trim_matches('/');
    let client = session.client()?;
    client
        .delete(&format!("sys/audit/{name}"))
        .await
        .with_context(|| format!("disabling audit device {name}/"))?;
    out.success(&format!("Disabled audit device (if it was enabled) at: {name}/"))?;
    Ok(ExitCode::SUCCESS)
}

/// Lists the devices.
pub(super) async fn list(session: &Session, out: &Out) -> Done {
    let reply: Envelope<Map<String, Value>> =
        session.client()?.get("sys/audit").await.context("listing audit devices")?;
    let devices = reply.data.unwrap_or_default();
    if out.is_json() {
        out.json(&devices)?;
    } else if devices.is_empty() {
        out.line("No further audit devices are enabled; the built-in log is always on.")?;
    } else {
        let rows: Vec<Vec<String>> = devices
            .iter()
            .map(|(path, device)| {
                vec![
                    path.clone(),
                    cell(&device["type"]),
                    cell(&device["options"]),
                    cell(&device["description"]),
                ]
            })
            .collect();
        out.table(&["Path", "Type", "Options", "Description"], &rows)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// How a text looks in a device's lines. The text may be a secret, so it comes from standard input.
pub(super) async fn hash(name: &str, session: &Session, out: &Out) -> Done {
    let input = input::secret("Text (will be hidden)")?;
    let body = Disclose::new(Map::from_iter([("input".to_owned(), Value::from(input.expose().as_str()))]));
    let at = format!("sys/audit-hash/{}", name.trim_matches('/'));
    let reply: Envelope<Value> =
        session.client()?.exchange(Call::new("POST", &at), Some(&body)).await.context("asking for a hash")?;
    let data = reply.data.context("the reply is empty")?;
    if out.is_json() {
        out.json(&data)?
    } else {
        out.line(data["hash"].as_str().unwrap_or_default())?
    }
    Ok(ExitCode::SUCCESS)
}
