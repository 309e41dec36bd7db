//! Which records are wanted. Reads what was typed once, then only compares.

use std::net::IpAddr;
use std::str::FromStr as _;

use anyhow::{Context as _, ensure};
use clap::{Args, ValueEnum};
use coffer_core::audit::{AuditRecord, RecordType};
use coffer_core::time::{Timestamp, parse_duration};
use ipnet::IpNet;

/// What may be asked for. All that is given must fit; of what is given several times, one.
#[derive(Debug, Default, Args)]
pub(crate) struct FilterArgs {
    /// From this time on: RFC 3339 (2026-11-24T12:00:00Z), a day (2026-11-24, UTC), or how long ago (2h, 7d).
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Before this time.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Paths that begin so; with * (anything) or + (one whole segment) in it, paths that match as a whole.
    #[arg(long, value_name = "PATH")]
    path: Vec<String>,
    /// Operations, such as read,delete.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    operation: Vec<String>,
    /// The token with this accessor.
    #[arg(long, value_name = "ACCESSOR", allow_hyphen_values = true)]
    accessor: Option<String>,
    /// The name of whoever asked; with * in it, names that match.
    #[arg(long, value_name = "NAME")]
    display_name: Option<String>,
    /// Where it came from: an address, or a block such as 10.0.0.0/8.
    #[arg(long, value_name = "ADDRESS")]
    client: Vec<String>,
    /// The request with this id.
    #[arg(long, value_name = "ID")]
    request: Option<String>,
    /// The lease with this id.
    #[arg(long, value_name = "ID")]
    lease: Option<String>,
    /// How it ended: 403, 4xx, 400-499.
    #[arg(long, value_name = "STATUS", value_delimiter = ',')]
    status: Vec<String>,
    /// Only what went wrong.
    #[arg(long)]
    failed: bool,
    /// Errors with this text in them, whatever the case of their letters.
    #[arg(long, value_name = "TEXT")]
    error: Option<String>,
    /// Labels of the token or the request, such as pod_name=web-0.
    #[arg(long, value_name = "KEY=VALUE")]
    metadata: Vec<String>,
    /// Kinds of records.
    #[arg(long = "type", value_enum, value_delimiter = ',')]
    kinds: Vec<Kind>,
}

/// A kind of record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Before an effect.
    Intent,
    /// After it, or a refusal.
    Completion,
    /// A read.
    Read,
}

/// What was understood.
#[derive(Debug, Default)]
pub(super) struct Filter {
    pub(super) since: Option<Timestamp>,
    pub(super) until: Option<Timestamp>,
    paths: Vec<String>,
    operations: Vec<String>,
    accessor: Option<String>,
    display_name: Option<String>,
    clients: Vec<IpNet>,
    /// Addresses as they stand in a log that covers them.
    covered_clients: Vec<String>,
    request: Option<String>,
    lease: Option<String>,
    statuses: Vec<(u16, u16)>,
    failed: bool,
    error: Option<String>,
    metadata: Vec<(String, String)>,
    kinds: Vec<Kind>,
}

impl FilterArgs {
    /// Understands what was typed, or says what is wrong with it.
    pub(super) fn read(&self, now: Timestamp) -> anyhow::Result<Filter> {
        let time = |text: &Option<String>| text.as_deref().map(|text| moment(text, now)).transpose();
        let (since, until) = (time(&self.since)?, time(&self.until)?);
        if let (Some(since), Some(until)) = (since, until) {
            ensure!(since < until, "--since is not before --until");
        }
        let (covered, plain): (Vec<_>, Vec<_>) =
            self.client.iter().partition(|text| text.starts_with("hmac-"));
        Ok(Filter {
            since,
            until,
            paths: self.path.iter().map(|path| path.trim_start_matches('/').to_owned()).collect(),
            operations: self.operation.clone(),
            accessor: self.accessor.clone(),
            display_name: self.display_name.clone(),
            clients: plain.into_iter().map(|text| block(text)).collect::<anyhow::Result<_>>()?,
            covered_clients: covered.into_iter().cloned().collect(),
            request: self.request.clone(),
            lease: self.lease.clone(),
            statuses: self.status.iter().map(|text| statuses(text)).collect::<anyhow::Result<_>>()?,
            failed: self.failed,
            error: self.error.as_ref().map(|text| text.to_lowercase()),
            metadata: self.metadata.iter().map(|text| label(text)).collect::<anyhow::Result<_>>()?,
            kinds: self.kinds.clone(),
        })
    }
}

impl Filter {
    /// Whether a record is wanted.
    pub(super) fn takes(&self, record: &AuditRecord) -> bool {
        let same =
            |wanted: &Option<String>, found: Option<&String>| wanted.is_none() || wanted.as_ref() == found;
        let any =
            |wanted: &[String], fits: &dyn Fn(&String) -> bool| wanted.is_empty() || wanted.iter().any(fits);
        self.since.is_none_or(|since| record.time >= since)
            && self.until.is_none_or(|until| record.time < until)
            && any(&self.paths, &|path| on_path(path, &record.path))
            && any(&self.operations, &|operation| *operation == record.operation)
            && same(&self.accessor, record.accessor.as_ref())
            && self.display_name.as_ref().is_none_or(|wanted| {
                record.display_name.as_ref().is_some_and(|name| glob(wanted, name, false))
            })
            && self.from(record.client_ip.as_deref())
            && same(&self.request, Some(&record.request_id))
            && same(&self.lease, record.lease_id.as_ref())
            && self.ended(record)
            && self.error.as_ref().is_none_or(|text| {
                record.error.as_ref().is_some_and(|error| error.to_lowercase().contains(text))
            })
            && self.metadata.iter().all(|(key, value)| record.metadata.get(key) == Some(value))
            && (self.kinds.is_empty() || self.kinds.contains(&kind(record)))
    }

    fn from(&self, client: Option<&str>) -> bool {
        if self.clients.is_empty() && self.covered_clients.is_empty() {
            return true;
        }
        let Some(client) = client else { return false };
        let address = IpAddr::from_str(client).ok();
        self.covered_clients.iter().any(|covered| covered == client)
            || address.is_some_and(|address| self.clients.iter().any(|block| block.contains(&address)))
    }

    fn ended(&self, record: &AuditRecord) -> bool {
        let status = record.status;
        let within = |(low, high): &(u16, u16)| status.is_some_and(|status| (*low..=*high).contains(&status));
        let failed = record.error.is_some() || status.is_some_and(|status| status >= 400);
        (self.statuses.is_empty() || self.statuses.iter().any(within)) && (!self.failed || failed)
    }
}

fn kind(record: &AuditRecord) -> Kind {
    match record.kind {
        RecordType::Intent => Kind::Intent,
        RecordType::Completion => Kind::Completion,
        RecordType::Read => Kind::Read,
    }
}

/// A point in time, in one of its spellings.
fn moment(text: &str, now: Timestamp) -> anyhow::Result<Timestamp> {
    if let Ok(time) = Timestamp::parse_rfc3339(text) {
        return Ok(time);
    }
    if let Ok(time) = Timestamp::parse_rfc3339(&format!("{text}T00:00:00Z")) {
        return Ok(time);
    }
    let ago = parse_duration(text).ok().filter(|_| !text.trim().is_empty());
    let ago = ago.with_context(|| {
        format!("{text:?}: expected a time such as 2026-11-24T12:00:00Z, a day, or how long ago, such as 2h")
    })?;
    let millis = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
    Ok(Timestamp::from_millis(now.as_millis().saturating_sub(millis)))
}

fn block(text: &str) -> anyhow::Result<IpNet> {
    let whole = || IpAddr::from_str(text).ok().map(IpNet::from);
    IpNet::from_str(text)
        .ok()
        .or_else(whole)
        .with_context(|| format!("{text:?}: expected an address or a block"))
}

fn statuses(text: &str) -> anyhow::Result<(u16, u16)> {
    let number = |text: &str| text.parse::<u16>().ok().filter(|n| (100..=599).contains(n));
    let found = match (text.strip_suffix("xx"), text.split_once('-')) {
        (Some(class), _) => number(&format!("{class}00")).map(|low| (low, low + 99)),
        (None, Some((low, high))) => number(low).zip(number(high)).filter(|(low, high)| low <= high),
        (None, None) => number(text).map(|status| (status, status)),
    };
    found.with_context(|| format!("{text:?}: expected a status such as 403, 4xx or 400-499"))
}

fn label(text: &str) -> anyhow::Result<(String, String)> {
    let (key, value) = text.split_once('=').with_context(|| format!("{text:?}: expected key=value"))?;
    Ok((key.to_owned(), value.to_owned()))
}

fn on_path(wanted: &str, path: &str) -> bool {
    let pattern = wanted.contains('*') || wanted.split('/').any(|segment| segment == "+");
    if pattern { glob(wanted, path, true) } else { path.starts_with(wanted) }
}

/// Whether `text` matches: `*` is anything, and where `segments` are meant, `+` is one whole of them. In time that is
/// at most the product of the two lengths.
fn glob(pattern: &str, text: &str, segments: bool) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let bounded = |chars: &[char], at: usize| {
        (at == 0 || chars[at - 1] == '/') && chars.get(at + 1).is_none_or(|next| *next == '/')
    };
    // Where in the text the pattern may stand so far.
    let mut here = vec![false; text.len() + 1];
    here[0] = true;
    for (at, wanted) in pattern.iter().enumerate() {
        let mut next = vec![false; text.len() + 1];
        match wanted {
            '*' => {
                let first = here.iter().position(|reached| *reached).unwrap_or(next.len());
                next[first..].fill(true);
            }
            '+' if segments && bounded(&pattern, at) => {
                for (from, _) in here.iter().enumerate().filter(|(_, reached)| **reached) {
                    let len = text[from..].iter().take_while(|c| **c != '/').count();
                    if len > 0 {
                        next[from + len] = true;
                    }
                }
            }
            wanted => {
                for (from, found) in text.iter().enumerate() {
                    next[from + 1] = here[from] && found == wanted;
                }
            }
        }
        here = next;
    }
    here[text.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn args(change: impl Fn(&mut FilterArgs)) -> FilterArgs {
        let mut args = FilterArgs::default();
        change(&mut args);
        args
    }

    fn record() -> AuditRecord {
        let mut record = AuditRecord::new(NOW, RecordType::Completion, "r1", "read", "secret/data/a/b");
        record.status = Some(403);
        record.accessor = Some("-acc".into());
        record.display_name = Some("userpass-bob".into());
        record.client_ip = Some("10.1.2.3".into());
        record.lease_id = Some("database/creds/app/1".into());
        record.error = Some("permission denied".into());
        record.metadata.insert("pod_name".into(), "web-0".into());
        record
    }

    /// Name, how it is set, values that fit the record, values that do not.
    type Case<'a> = (&'a str, fn(&mut FilterArgs, &str), &'a [&'a str], &'a [&'a str]);

    #[test]
    fn each_filter_takes_what_fits_and_nothing_else() {
        let cases: &[Case<'_>] = &[
            (
                "since",
                |a, v| a.since = Some(v.into()),
                &["2027-01-15T08:00:00Z", "2027-01-15", "1s", "0"],
                &["2027-01-16"],
            ),
            (
                "until",
                |a, v| a.until = Some(v.into()),
                &["2027-01-15T08:00:00.001Z"],
                &["2027-01-15T08:00:00Z", "1h"],
            ),
            (
                "path",
                |a, v| a.path.push(v.into()),
                &["secret/data/a", "/secret", "*/a/*", "secret/+/a/b", "secret/+/a/*"],
                &["secret/data/b", "secret/+/b", "secret/+", "+/a/b"],
            ),
            ("operation", |a, v| a.operation.push(v.into()), &["read"], &["delete", "rea"]),
            ("accessor", |a, v| a.accessor = Some(v.into()), &["-acc"], &["-ac"]),
            (
                "display name",
                |a, v| a.display_name = Some(v.into()),
                &["userpass-bob", "userpass-*"],
                &["bob", "+"],
            ),
            (
                "client",
                |a, v| a.client.push(v.into()),
                &["10.1.2.3", "10.0.0.0/8"],
                &["10.1.2.4", "::/0", "hmac-sha256:00"],
            ),
            ("request", |a, v| a.request = Some(v.into()), &["r1"], &["r"]),
            ("lease", |a, v| a.lease = Some(v.into()), &["database/creds/app/1"], &["database"]),
            (
                "status",
                |a, v| a.status.push(v.into()),
                &["403", "4xx", "400-403"],
                &["404", "5xx", "200-402"],
            ),
            ("error", |a, v| a.error = Some(v.into()), &["DENIED"], &["sealed"]),
            ("metadata", |a, v| a.metadata.push(v.into()), &["pod_name=web-0"], &["pod_name=web", "x=web-0"]),
        ];
        for (name, set, fit, miss) in cases {
            let takes = |value: &str| args(|a| set(a, value)).read(NOW).unwrap().takes(&record());
            fit.iter().for_each(|value| assert!(takes(value), "{name} {value}"));
            miss.iter().for_each(|value| assert!(!takes(value), "{name} {value}"));
        }
        assert!(args(|a| a.failed = true).read(NOW).unwrap().takes(&record()));
        let good = AuditRecord { status: Some(204), error: None, ..record() };
        assert!(!args(|a| a.failed = true).read(NOW).unwrap().takes(&good));
        assert!(args(|a| a.kinds = vec![Kind::Read, Kind::Completion]).read(NOW).unwrap().takes(&record()));
        assert!(!args(|a| a.kinds = vec![Kind::Intent]).read(NOW).unwrap().takes(&record()));
        let both = args(|a| {
            a.path = vec!["sys/".into(), "secret/".into()];
            a.operation = vec!["list".into()];
        });
        assert!(!both.read(NOW).unwrap().takes(&record()));
    }

    #[test]
    fn what_cannot_be_understood_is_refused() {
        for wrong in [
            args(|a| a.since = Some("yesterday".into())),
            args(|a| a.since = Some(String::new())),
            args(|a| (a.since, a.until) = (Some("1h".into()), Some("2h".into()))),
            args(|a| a.client.push("localhost".into())),
            args(|a| a.status.push("4x".into())),
            args(|a| a.status.push("500-400".into())),
            args(|a| a.metadata.push("pod".into())),
        ] {
            assert!(wrong.read(NOW).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_hostile_pattern_is_matched_in_bounded_time() {
        assert!(!glob(&"*a".repeat(500), &"a".repeat(499), true));
        assert!(glob(&"*a".repeat(500), &"a".repeat(500), true));
    }
}
