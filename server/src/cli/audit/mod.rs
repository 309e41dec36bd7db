//! `audit`: check the log, search it, and read its end.
//!
//! The check works on files alone, so that it needs no server and can be made on a copy. What the server
//! vouches for is given to it in a file.

mod device;
#[cfg(test)]
mod fuzz;
mod log;
mod query;
mod verify;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use coffer_client::Call;
use coffer_client::wire::Envelope;
use coffer_core::audit::{AuditRecord, RecordType};
use serde_json::Value;

use super::Done;
use super::out::{Out, printable};
use super::session::Session;

/// Verbs of `audit`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Check that nothing in the log was changed, dropped or moved (exit code 2 if something was)
    Verify(verify::VerifyArgs),
    /// Search the log's files (exit code 2 if their chain is not whole there)
    Query(Box<query::QueryArgs>),
    /// Add a device beside the built-in log
    Enable(device::EnableArgs),
    /// Remove a device; its file stays
    Disable {
        /// Its name.
        path: String,
    },
    /// List the devices
    List,
    /// Show how a text, read from standard input, looks in a device's lines, or in the log (builtin)
    Hash {
        /// The device's name.
        path: String,
    },
    /// Show the last records
    Tail(TailArgs),
}

/// Options of `audit tail`.
#[derive(Debug, Args)]
pub(crate) struct TailArgs {
    /// Read the log of this directory, all its files, instead of asking the server.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// How many records.
    #[arg(long, short = 'n', default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    limit: u64,
    /// Only records of this lease.
    #[arg(long, value_name = "ID")]
    lease: Option<String>,
    /// Only records of the token with this accessor.
    #[arg(long, allow_hyphen_values = true)]
    accessor: Option<String>,
    /// Only records of paths that begin so.
    #[arg(long, value_name = "PREFIX")]
    path: Option<String>,
    /// Only records of this request.
    #[arg(long, value_name = "ID")]
    request: Option<String>,
}

impl TailArgs {
    fn takes(&self, line: &str) -> bool {
        let all =
            self.lease.is_none() && self.accessor.is_none() && self.path.is_none() && self.request.is_none();
        let same =
            |wanted: &Option<String>, found: Option<&String>| wanted.is_none() || wanted.as_ref() == found;
        all || AuditRecord::from_line(line).is_some_and(|record| {
            same(&self.lease, record.lease_id.as_ref())
                && same(&self.accessor, record.accessor.as_ref())
                && same(&self.request, Some(&record.request_id))
                && self.path.as_ref().is_none_or(|prefix| record.path.starts_with(prefix.as_str()))
        })
    }
}

/// What needs no server; none if the command needs one.
pub(crate) fn offline(command: &Command, out: &Out) -> Option<Done> {
    match command {
        Command::Verify(args) => Some(verify::verify(args, out)),
        Command::Query(args) => Some(query::query(args, out)),
        Command::Tail(args) => args.dir.as_deref().map(|dir| tail_of_files(dir, args, out)),
        Command::Enable(_) | Command::Disable { .. } | Command::List | Command::Hash { .. } => None,
    }
}

/// What asks the server.
pub(crate) async fn run(command: Command, session: &Session, out: &Out) -> Done {
    let args = match command {
        Command::Tail(args) => args,
        Command::Enable(args) => return device::enable(&args, session, out).await,
        Command::Disable { path } => return device::disable(&path, session, out).await,
        Command::List => return device::list(session, out).await,
        Command::Hash { path } => return device::hash(&path, session, out).await,
        Command::Verify(_) | Command::Query(_) => anyhow::bail!("this command works on files alone"),
    };
    let limit = args.limit.to_string();
    let mut query = vec![("limit", limit.as_str())];
    let filters = [
        ("lease_id", &args.lease),
        ("accessor", &args.accessor),
        ("path", &args.path),
        ("request_id", &args.request),
    ];
    query.extend(filters.iter().filter_map(|(key, value)| value.as_deref().map(|value| (*key, value))));
    let call = Call { query: &query, ..Call::new("GET", "sys/audit/tail") };
    let reply: Envelope<Value> =
        session.client()?.exchange(call, None::<&()>).await.context("reading the audit log")?;
    let data = reply.data.unwrap_or_default();
    let records = ["records", "lines", "entries"].iter().find_map(|key| data.get(key)?.as_array());
    let records = records.context("the server's reply has no records")?;
    for record in records {
        // Records come as objects, or as the lines of the log.
        let line = record.as_str().map_or_else(|| record.to_string(), str::to_owned);
        show(&line, out)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn tail_of_files(dir: &Path, args: &TailArgs, out: &Out) -> Done {
    let mut found: Vec<String> = Vec::new();
    // The newest file first, as far back as records are wanted.
    for path in log::files(dir)?.iter().rev() {
        let wanted = usize::try_from(args.limit)?.saturating_sub(found.len());
        if wanted == 0 {
            break;
        }
        let mut older = log::last_lines(path, wanted, |line| args.takes(line))?;
        older.append(&mut found);
        found = older;
    }
    for line in found {
        show(&line, out)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn show(line: &str, out: &Out) -> anyhow::Result<()> {
    if out.is_json() {
        return out.line(line);
    }
    match AuditRecord::from_line(line) {
        Some(record) => out.line(&printable(&for_people(&record)).replace('\n', "\\n")),
        None => out.line(&format!("(no record: {} bytes)", line.len())),
    }
}

/// One line: when, what, how it went, who, from where.
fn for_people(record: &AuditRecord) -> String {
    let kind = match record.kind {
        RecordType::Intent => "intent",
        RecordType::Completion => "done",
        RecordType::Read => "read",
    };
    let status = record.status.map_or_else(|| "...".to_owned(), |status| status.to_string());
    let mut text = format!(
        "{:<24} #{:<5} {kind:<6} {status:<3} {:<7} {}",
        record.time.to_rfc3339(),
        record.seq,
        record.operation,
        record.path
    );
    let mut add = |label: &str, value: Option<&str>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            text.push_str(&format!("  {label}{value}"));
        }
    };
    add("by ", record.display_name.as_deref().or(record.accessor.as_deref()));
    let meta = |key: &str| record.metadata.get(key).map(String::as_str);
    if let Some(pod) = meta("pod_name") {
        let namespace = meta("service_account_namespace").unwrap_or("?");
        add("pod ", Some(&format!("{namespace}/{pod}")));
    }
    add("from ", record.client_ip.as_deref());
    add("lease ", record.lease_id.as_deref());
    add(
        "",
        record
            .response_time_us
            .filter(|us| *us > 0)
            .map(|us| format!("{}.{:03} ms", us / 1000, us % 1000))
            .as_deref(),
    );
    add("error: ", record.error.as_deref());
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use coffer_core::audit::Chain;
    use coffer_core::time::Timestamp;

    #[test]
    fn a_line_for_people() {
        let time = Timestamp::from_secs(1_800_000_000);
        let mut record = AuditRecord::new(time, RecordType::Read, "r0", "read", "secret/a");
        record.status = Some(200);
        record.display_name = Some("root".into());
        let line = Chain::default().append(&record).unwrap();
        assert_eq!(
            for_people(&AuditRecord::from_line(&line).unwrap()),
            "2027-01-15T08:00:00Z     #0     read   200 read    secret/a  by root"
        );
    }
}
