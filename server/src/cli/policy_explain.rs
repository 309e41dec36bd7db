//! `policy explain`: which rule of which policy decides, and what is missing.

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use coffer_client::Call;
use coffer_client::wire::{Disclose, Envelope};
use serde_json::{Map, Value, json};

use super::generic::clean;
use super::out::{Out, printable};
use super::session::Session;
use super::{Done, input};

/// Options of `policy explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The path, without /v1/.
    path: String,
    /// create, read, update, write, patch, delete, list, scan or subscribe; without it a table of all.
    operation: Option<String>,
    /// About another token, which is read from standard input.
    #[arg(long, conflicts_with_all = ["accessor", "policies"])]
    stdin: bool,
    /// About the token with this accessor.
    #[arg(long, allow_hyphen_values = true, conflicts_with = "policies")]
    accessor: Option<String>,
    /// About whoever has these policies; may be given several times.
    #[arg(long = "policy", value_name = "NAME")]
    policies: Vec<String>,
    /// Parameters of the request, as for `write`; their values are compared and never shown.
    #[arg(long = "parameter", value_name = "KEY=VALUE")]
    parameters: Vec<String>,
}

/// Asks and shows. The exit code says whether everything that was asked about is allowed: 0, or 2.
pub(crate) async fn run(args: ExplainArgs, session: &Session, out: &Out) -> Done {
    let mut body = Map::new();
    let path = match (args.stdin, &args.accessor, args.policies.is_empty()) {
        (true, ..) => {
            let token = input::secret("Token (will be hidden)")?;
            body.insert("token".into(), token.expose().clone().into());
            "sys/policy-explain"
        }
        (_, Some(accessor), _) => {
            body.insert("accessor".into(), accessor.as_str().into());
            "sys/policy-explain-accessor"
        }
        (_, _, false) => {
            body.insert("policies".into(), json!(args.policies));
            "sys/policy-explain"
        }
        _ => "sys/policy-explain-self",
    };
    let slash = if args.path.ends_with('/') { "/" } else { "" };
    body.insert("path".into(), format!("{}{slash}", clean(&args.path)).into());
    body.extend(args.operation.as_ref().map(|operation| ("operation".to_owned(), operation.as_str().into())));
    if !args.parameters.is_empty() {
        body.insert("parameters".into(), Value::Object(input::pairs(&args.parameters)?));
    }
    let body = Disclose::new(body);
    let call = Call::new("POST", path);
    let reply: Envelope<Value> = session.client()?.exchange(call, Some(&body)).await.context("asking why")?;
    let data = reply.data.context("the reply is empty")?;
    let operations = data["operations"].as_array().context("the reply has no operations")?;
    let allowed = operations.iter().all(|one| one["allowed"] == true);
    if out.is_json() {
        out.json(&data)?;
    } else if args.operation.is_some() {
        for one in operations {
            for sentence in one["explanation"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                out.line(&printable(sentence))?;
            }
        }
    } else {
        let rows: Vec<Vec<String>> = operations.iter().map(row).collect();
        out.table(&["Operation", "Allowed", "Why", "Rule", "Policies", "Missing"], &rows)?;
    }
    for rule in data["refused_rules"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        super::out::complain(&format!("Warning: a rule does not count: {}", printable(rule)));
    }
    Ok(ExitCode::from(if allowed || args.operation.is_none() { 0 } else { 2 }))
}

fn row(one: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let joined = |items: Vec<&str>| if items.is_empty() { "-".to_owned() } else { items.join(", ") };
    let names = one["rule"]["policies"].as_array().into_iter().flatten().filter_map(|p| p["name"].as_str());
    let missing = one["missing"].as_array().into_iter().flatten().filter_map(Value::as_str);
    vec![
        text(&one["operation"]),
        (if one["allowed"] == true { "yes" } else { "no" }).to_owned(),
        text(&one["reason"]),
        text(&one["rule"]["path"]),
        joined(names.collect()),
        joined(missing.collect()),
    ]
}
