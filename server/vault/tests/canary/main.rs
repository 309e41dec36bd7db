//! Canaries: a crawl over the whole API puts unique texts everywhere and then looks for them everywhere they must not be.
//!
//! `table.rs` has a request for every route, `marks.rs` says what may appear where, `routes.rs` reads the dispatch out of
//! the source: a new handler without a row in the table fails this test.
#![allow(clippy::unwrap_used, unreachable_pub, reason = "a test of several files")]

#[path = "../vault/bed/mod.rs"]
mod bed;
mod marks;
mod routes;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::{Arc, Mutex};

use bed::Bed;
use coffer_core::secret::SecretString;
use coffer_vault::Operation::{self, Delete, List, Patch, Read, Scan, Update};
use coffer_vault::{Refusal, Request, StatusRequest, VaultConfig};
use marks::{Kind, Marks, Place};
use serde_json::{Map, Value, json};
use table::Row;

/// Everything that is logged at any level.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Parameters whose values are nobody's business, whatever their type.
const SECRETS: &[&str] =
    &["data", "document", "input", "jwt", "k", "list", "password", "secret_id", "token", "custom_metadata"];

/// Who sends a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    /// May do everything.
    Admin,
    /// May do what every token may.
    Stranger,
    /// Has a token that never was one.
    Forger,
    Nobody,
}

struct Crawl {
    bed: Bed,
    dir: tempfile::TempDir,
    marks: Marks,
    /// What a name's placeholder stands for throughout.
    names: BTreeMap<&'static str, String>,
    kept: BTreeMap<String, String>,
    admin: String,
    stranger: String,
    log: Captured,
    /// What was found where it must not be.
    leaks: BTreeSet<String>,
    /// Rows of the table that did not go as it says.
    untrue: Vec<String>,
    sent: usize,
}

impl Crawl {
    async fn new() -> Self {
        let log = Captured::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::set_global_default(subscriber).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let audit_directories = vec![dir.path().to_owned()];
        let config = VaultConfig { audit_directories, ..VaultConfig::default() };
        let bed = Bed::configured(config).await.and_pods().await;
        let mut marks = Marks::default();
        marks.add(&bed.root);
        marks.add(&bed.unseal_key);
        marks.add(bed::database::CANARY);
        let kinds = [
            ("<path>", Kind::Path),
            ("<user>", Kind::User),
            ("<policy>", Kind::Policy),
            ("<meta>", Kind::Meta),
        ];
        let names = kinds.map(|(name, kind)| (name, marks.make(kind))).into();
        let claims = bed.cluster.claims("shop", "orders", "pod-1", coffer_vault::Clock::now(&*bed.clock));
        let jwt = bed.cluster.jwt(&claims);
        marks.add(&jwt);
        let password = marks.make(Kind::Token);
        let kept = [("jwt", jwt), ("password", password), ("dir", dir.path().to_str().unwrap().to_owned())];
        let kept = kept.map(|(key, text)| (key.to_owned(), text)).into();
        let options = json!({"file_path": dir.path().join("device.log"), "required": "true"});
        bed.root(Update, "sys/audit/device", json!({"type": "file", "options": options})).await.expect(204);
        let (admin, stranger, leaks) = (String::new(), String::new(), BTreeSet::new());
        Self { bed, dir, marks, names, kept, admin, stranger, log, leaks, untrue: Vec::new(), sent: 0 }
    }

    /// Tokens that live: rows revoke what they run with.
    async fn renew_callers(&mut self) {
        for (policy, admin) in [("root", true), ("default", false)] {
            let token = if admin { &self.admin } else { &self.stranger };
            if !token.is_empty() && self.bed.get("auth/token/lookup-self", token).await.status == 200 {
                continue;
            }
            let body = json!({"policies": [policy], "ttl": "10h"});
            let made = self.bed.root(Update, "auth/token/create", body).await.expect(200);
            let token = made.text("/auth/client_token");
            self.marks.add(&token);
            *(if admin { &mut self.admin } else { &mut self.stranger }) = token;
        }
    }

    /// Puts marks into a text.
    fn fill(&mut self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, mark) in &self.names {
            text = text.replace(name, mark);
        }
        for (name, kind) in [("<value>", Kind::Value), ("<token>", Kind::Token), ("<setting>", Kind::Setting)]
        {
            while text.contains(name) {
                text = text.replacen(name, &self.marks.make(kind), 1);
            }
        }
        for (name, value) in &self.kept {
            text = text.replace(&format!("{{{name}}}"), value);
        }
        text
    }

    fn fill_json(&mut self, value: &Value) -> Value {
        match value {
            Value::String(text) => self.fill(text).into(),
            Value::Array(items) => items.iter().map(|item| self.fill_json(item)).collect(),
            Value::Object(map) => Value::Object(
                map.iter().map(|(key, value)| (self.fill(key), self.fill_json(value))).collect(),
            ),
            other => other.clone(),
        }
    }

    /// Sends a request and looks at what comes back.
    async fn send(&mut self, caller: Caller, operation: Operation, path: &str, body: Value) -> (u16, Value) {
        let token = match caller {
            Caller::Admin => Some(self.admin.clone()),
            Caller::Stranger => Some(self.stranger.clone()),
            Caller::Forger => Some(format!("s.{}", self.marks.make(Kind::Token))),
            Caller::Nobody => None,
        };
        let sent = format!("{path} {body}");
        let request: Request = self.bed.request(operation, path, token.as_deref(), body);
        self.look(Place::Debug, &format!("{request:?}"), "a request");
        let reply = self.bed.vault.handle(request).await.into_inner();
        self.look(Place::Debug, &format!("{reply:?}"), "a reply");
        self.sent += 1;
        let (status, answer) = (reply.status, bed::Answer::of(reply).body);
        let what = format!("{operation:?} {path} by {caller:?}: {status}");
        self.look_at_reply(caller, &what, status, &sent, &answer);
        if caller == Caller::Admin || status < 400 {
            self.marks.add_issued(&answer);
        }
        (status, answer)
    }

    fn look(&mut self, place: Place, text: &str, what: &str) {
        for (kind, mark) in self.marks.leaks(place, text) {
            self.leaks.insert(format!("{kind:?} {mark} in {place:?}: {what}"));
        }
    }

    fn look_at_reply(&mut self, caller: Caller, what: &str, status: u16, sent: &str, answer: &Value) {
        let text = answer.to_string();
        // A version that was deleted is a 404 with the metadata of what was there.
        let refused = status >= 400 && answer.get("data").is_none_or(Value::is_null);
        if refused {
            self.look(Place::OwnError, &text, what);
        }
        // What somebody has by right: a login's own token, a token's own entry and cubbyhole.
        let own = sent.starts_with("auth/token/") || sent.starts_with("cubbyhole");
        let own = !refused && (caller == Caller::Nobody || (caller == Caller::Stranger && own));
        if (refused || caller != Caller::Admin) && !own {
            for (kind, mark) in self.marks.in_text(&text) {
                if !sent.contains(&mark) && !kind.may_be_in(Place::OthersReply) {
                    self.leaks
                        .insert(format!("{kind:?} {mark} told to one who did not send it: {what}: {text}"));
                }
            }
        }
    }

    /// A row as it is meant.
    async fn run(&mut self, row: &Row) {
        self.renew_callers().await;
        let (path, body) = (self.fill(row.path), self.fill_json(&row.body));
        let caller = if row.anonymous { Caller::Nobody } else { Caller::Admin };
        let (status, answer) = self.send(caller, row.operation, &path, body).await;
        let what = format!("{:?} {}: {status} {answer}", row.operation, row.path);
        if (status >= 400) != row.fails && !row.either {
            self.untrue.push(what);
            return;
        }
        for (name, pointer) in row.keep {
            let text = answer.pointer(pointer).and_then(Value::as_str);
            self.kept.insert(
                (*name).to_owned(),
                text.unwrap_or_else(|| panic!("no {pointer}: {what}")).to_owned(),
            );
        }
    }

    /// A row as it is not meant: other callers, other operations, each parameter of a wrong type.
    async fn vary(&mut self, row: &Row) {
        self.renew_callers().await;
        for caller in [Caller::Stranger, Caller::Forger, Caller::Nobody] {
            let (path, body) = (self.fill(row.path), self.fill_json(&row.body));
            self.send(caller, row.operation, &path, body).await;
        }
        if row.ends {
            return;
        }
        for operation in [Read, List, Scan, Update, Patch, Delete] {
            let (path, body) = (self.fill(row.path), self.fill_json(&row.body));
            self.send(Caller::Admin, operation, &path, body).await;
        }
        let Value::Object(template) = &row.body else { return };
        for key in template.keys() {
            self.renew_callers().await;
            let secret = SECRETS.contains(&key.as_str());
            let mark = if secret { "<value>" } else { "<setting>" };
            for wrong in [json!(mark), json!([mark]), json!({"key": mark}), json!(-7)] {
                let (path, wrong) = (self.fill(row.path), self.fill_json(&wrong));
                let Value::Object(mut body) = self.fill_json(&row.body) else { continue };
                body.insert(key.clone(), wrong);
                let caller = if row.anonymous { Caller::Nobody } else { Caller::Admin };
                self.send(caller, row.operation, &path, Value::Object(body)).await;
            }
        }
    }

    /// What does not come as a request of an unsealed vault.
    async fn ceremonies(&mut self) {
        let share = self.marks.make(Kind::Token);
        let unseal = StatusRequest::Unseal { key: Some(SecretString::copy_of(&share)), reset: false };
        let debug = format!("{unseal:?}");
        self.look(Place::Debug, &debug, "a status request");
        let answer = self.bed.status(unseal).await;
        self.look(Place::OwnError, &answer.body.to_string(), "unseal");
        let path = self.fill("<path>/../<user>");
        let refusal = Refusal {
            id: "refused".into(),
            method: "GET".into(),
            path,
            client_ip: [10, 0, 0, 9].into(),
            status: 400,
            message: "path has a relative segment".into(),
        };
        let answer = bed::Answer::of(self.bed.vault.refuse(refusal).await.into_inner());
        self.look(Place::OwnError, &answer.body.to_string(), "a refusal");
        let _sealed = self.send(Caller::Admin, Update, "sys/seal", Value::Null).await;
        let path = self.fill("secret/data/<path>");
        let body = self.fill_json(&json!({"data": {"k": "<value>"}}));
        self.send(Caller::Admin, Update, &path, body).await;
        self.bed.unseal().await;
    }

    /// Looks everywhere.
    async fn look_everywhere(&mut self) {
        self.bed.vault.anchor().await.unwrap();
        let metrics = self.bed.root(Read, "sys/metrics?format=prometheus", Value::Null).await;
        self.look(Place::Metrics, metrics.body.as_str().unwrap(), "sys/metrics");
        let audit = self.bed.audit_text();
        self.look(Place::Audit, &audit, "audit.log");
        let device = std::fs::read_to_string(self.dir.path().join("device.log")).unwrap();
        self.look(Place::Device, &device, "device.log");
        let log = String::from_utf8_lossy(&self.log.0.lock().unwrap()).into_owned();
        self.look(Place::ProcessLog, &log, "the process log");
        let rows: Vec<u8> = self.bed.store.dump().into_iter().flat_map(|(k, v)| [k, v].concat()).collect();
        self.look(Place::Store, &String::from_utf8_lossy(&rows), "the store");
        // The crawl was there at all: what may be in these places is.
        for text in [&audit, &device] {
            for name in self.names.values().filter(|name| !name.starts_with("cnrym")) {
                assert!(text.contains(name), "{name} was never seen by the audit log");
            }
        }
        assert!(log.contains("a mark for the log"), "the process log is not captured");
    }
}

#[tokio::test]
async fn marks_are_only_where_the_table_allows_them() {
    let mut crawl = Crawl::new().await;
    tracing::trace!("a mark for the log");
    let rows = table::rows();
    for row in rows.iter().filter(|row| !row.ends) {
        crawl.run(row).await;
    }
    assert!(crawl.untrue.is_empty(), "the table is not true any more:\n{}", crawl.untrue.join("\n"));
    for row in &rows {
        crawl.vary(row).await;
    }
    crawl.ceremonies().await;
    crawl.look_everywhere().await;
    let Crawl { leaks, sent, marks, .. } = crawl;
    let shown: Vec<_> = leaks.iter().take(40).cloned().collect();
    assert!(leaks.is_empty(), "{} leaks:\n{}", leaks.len(), shown.join("\n"));
    assert!(sent > 1000 && marks.count() > 1000, "{sent} requests, {} marks", marks.count());
}

#[test]
fn every_handler_is_crawled() {
    let rows = table::rows();
    let paths: Vec<String> =
        rows.iter().map(|row| format!("/{}/", row.path.split('?').next().unwrap())).collect();
    let crawled = |segment: &str| {
        let part = format!("/{}/", segment.trim_matches('/'));
        paths.iter().any(|path| path.contains(&part))
    };
    let segments = routes::segments();
    assert!(segments.len() > 50, "the dispatch cannot be read out of the source any more: {segments:?}");
    let missing: Vec<_> = segments.iter().filter(|(segment, _)| !crawled(segment)).collect();
    assert!(missing.is_empty(), "add a row to tests/canary/table.rs for: {missing:#?}");
}

#[test]
fn a_leak_would_be_found() {
    let mut marks = Marks::default();
    let (value, path) = (marks.make(Kind::Value), marks.make(Kind::Path));
    let text = format!("...{value}...{path}...");
    for place in Place::ALL {
        let found: Vec<_> = marks.leaks(place, &text).into_iter().map(|(kind, _)| kind).collect();
        assert!(found.contains(&Kind::Value), "{place:?}");
        assert_eq!(found.contains(&Kind::Path), !Kind::Path.may_be_in(place), "{place:?}");
    }
    let issued: Map<String, Value> =
        [("auth".to_owned(), json!({"client_token": "s.0123456789abc"}))].into_iter().collect();
    marks.add_issued(&Value::Object(issued));
    assert_eq!(marks.leaks(Place::Audit, "x s.0123456789abc y").len(), 1);
}
