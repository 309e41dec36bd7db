//! Identifiers that stand in the built-in log as HMACs, for whoever must not learn from the log who works with what.
//!
//! The salt is in the barrier, one for all nodes, and known while the vault is unsealed; whoever has a text and may ask
//! `sys/audit-hash/builtin` finds its records. What is written while it is not known has no identifiers at all.

use coffer_barrier::Barrier;
use coffer_core::audit::AuditRecord;

use super::device::Salt;
use super::tail::Filter;
use crate::codec::{self, transact};
use crate::error::Fail;
use crate::rows;

/// What stands in the place of an identifier while nobody knows the salt.
const WITHHELD: &str = "(withheld)";

/// Texts of errors that name nothing of anybody's, and so stay readable where paths are covered.
const PLAIN_ERRORS: &[&str] = &[
    "Vault is sealed",
    "a required audit device could not be written",
    "bad token",
    "internal error",
    "invalid token",
    "lease not found",
    "not found",
    "permission denied",
    "the audit log could not be written",
    "unsupported operation",
    "unsupported path",
];

/// Which identifiers are covered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Covered {
    /// Accessors of tokens.
    pub accessors: bool,
    /// Addresses of clients.
    pub addresses: bool,
    /// Display names, the path of the login, and the labels of tokens and requests.
    pub names: bool,
    /// Paths, the ids of leases and the path of the login, which are or begin with paths, and errors, which may name them.
    pub paths: bool,
}

impl Covered {
    /// Whether anything is.
    pub fn any(self) -> bool {
        self != Self::default()
    }
}

/// The salt of the built-in log, made when it is first needed.
pub(crate) async fn salt_of(barrier: &Barrier) -> Result<Salt, Fail> {
    let key = rows::audit_salt();
    if let Some(salt) = codec::get::<Salt>(&barrier.reader().await?, &key).await? {
        return Ok(salt);
    }
    let fresh = Salt::random();
    transact!(barrier, |w| {
        match codec::get::<Salt>(&*w as &dyn coffer_barrier::Read, &key).await? {
            Some(salt) => salt,
            None => {
                codec::put(w, &key, &fresh).await?;
                fresh.clone()
            }
        }
    })
}

/// A record as it is written.
pub(super) fn cover(record: &AuditRecord, covered: Covered, salt: Option<&Salt>) -> AuditRecord {
    let hidden = |text: &str| salt.map_or_else(|| WITHHELD.to_owned(), |salt| salt.identify(text));
    let mut record = record.clone();
    let hide = |field: &mut Option<String>, yes: bool| {
        if let Some(text) = field.as_mut().filter(|text| yes && !text.is_empty()) {
            *text = hidden(text);
        }
    };
    // The log's own affairs name nobody, but for the addresses that were counted.
    let own = record.accessor.is_none()
        && record.display_name.as_deref() == Some("system")
        && matches!(record.operation.as_str(), "suppress" | "verify");
    if own {
        if covered.addresses {
            let address = |key: String| match key.strip_prefix("from ") {
                Some(address) => format!("from {}", hidden(address)),
                None => key,
            };
            record.metadata = record.metadata.into_iter().map(|(k, v)| (address(k), v)).collect();
        }
        return record;
    }
    if covered.paths {
        record.path = hidden(&record.path);
        let plain = |error: &str| PLAIN_ERRORS.contains(&error) || error.starts_with("login refused: ");
        let named = record.error.as_deref().is_some_and(|error| !plain(error));
        hide(&mut record.error, named);
        hide(&mut record.lease_id, true);
    }
    hide(&mut record.auth_method, covered.paths || covered.names);
    hide(&mut record.display_name, covered.names);
    if covered.names {
        record.metadata.values_mut().for_each(|value| *value = hidden(value));
    }
    hide(&mut record.accessor, covered.accessors);
    hide(&mut record.client_ip, covered.addresses);
    record
}

/// What to look for in a log in which identifiers are covered. A path is found as a whole only.
pub(super) fn cover_filter(filter: &Filter, covered: Covered, salt: &Salt) -> Filter {
    let hidden = |text: &Option<String>, yes: bool| {
        text.as_ref().map(|text| if yes { salt.identify(text) } else { text.clone() })
    };
    Filter {
        lease_id: hidden(&filter.lease_id, covered.paths),
        accessor: hidden(&filter.accessor, covered.accessors),
        path_prefix: hidden(&filter.path_prefix, covered.paths),
        ..filter.clone()
    }
}

#[cfg(test)]
mod tests {
    use coffer_core::audit::RecordType;
    use coffer_core::time::Timestamp;

    use super::*;

    const ALL: Covered = Covered { accessors: true, addresses: true, names: true, paths: true };

    fn record(operation: &str, path: &str) -> AuditRecord {
        AuditRecord::new(Timestamp::from_secs(1), RecordType::Completion, "r", operation, path)
    }

    fn full() -> AuditRecord {
        let text = |text: &str| Some(text.to_owned());
        AuditRecord {
            status: Some(400),
            accessor: text("MARK-accessor"),
            display_name: text("MARK-name"),
            auth_method: text("auth/userpass/login/MARK-name"),
            client_ip: text("MARK-address"),
            lease_id: text("MARK-path/1"),
            error: text("unknown role: MARK-path"),
            metadata: [("pod_name".to_owned(), "MARK-label".to_owned())].into(),
            ..record("read", "MARK-path")
        }
    }

    #[test]
    fn what_is_covered_cannot_be_read_and_can_be_found() {
        let salt = Salt::random();
        for known in [Some(&salt), None] {
            let shown = serde_json::to_string(&cover(&full(), ALL, known)).unwrap();
            assert!(!shown.contains("MARK"), "{shown}");
        }
        let covered = cover(&full(), ALL, Some(&salt));
        assert_eq!(covered.path, salt.identify("MARK-path"));
        assert_eq!(covered.client_ip, Some(salt.identify("MARK-address")));
        assert_eq!(covered.metadata["pod_name"], salt.identify("MARK-label"));
        assert_eq!(
            (covered.status, covered.request_id.as_str(), covered.operation.as_str()),
            (Some(400), "r", "read")
        );
    }

    #[test]
    fn each_kind_is_covered_by_itself() {
        let salt = Salt::random();
        let left = |covered: Covered| {
            let shown = serde_json::to_string(&cover(&full(), covered, Some(&salt))).unwrap();
            ["MARK-accessor", "MARK-address", "MARK-label", "MARK-path"].map(|mark| shown.contains(mark))
        };
        let none = Covered::default();
        assert_eq!(left(none), [true; 4]);
        assert_eq!(left(Covered { accessors: true, ..none }), [false, true, true, true]);
        assert_eq!(left(Covered { addresses: true, ..none }), [true, false, true, true]);
        assert_eq!(left(Covered { names: true, ..none }), [true, true, false, true]);
        assert_eq!(left(Covered { paths: true, ..none }), [true, true, true, false]);
        let names = cover(&full(), Covered { names: true, ..none }, Some(&salt));
        assert!(!serde_json::to_string(&names).unwrap().contains("MARK-name"));
    }

    #[test]
    fn errors_that_name_nobody_and_the_logs_own_affairs_stay_readable() {
        let salt = Salt::random();
        let denied = AuditRecord { error: Some("permission denied".into()), ..full() };
        assert_eq!(cover(&denied, ALL, Some(&salt)).error.as_deref(), Some("permission denied"));
        let own = |operation: &str| AuditRecord {
            display_name: Some("system".into()),
            error: Some("7 records lost after 3".into()),
            metadata: [("from 10.0.0.7".to_owned(), "5".to_owned())].into(),
            ..record(operation, "sys/audit")
        };
        let told = cover(&own("verify"), ALL, Some(&salt));
        assert_eq!((told.error, told.path), (own("verify").error, "sys/audit".to_owned()));
        let counted = cover(&own("suppress"), ALL, Some(&salt)).metadata;
        assert_eq!(counted, [(format!("from {}", salt.identify("10.0.0.7")), "5".to_owned())].into());
        // Somebody who only calls his method so is not the system.
        let other = AuditRecord { display_name: None, ..own("verify") };
        assert_ne!(cover(&other, ALL, Some(&salt)).path, "sys/audit");
    }
}
