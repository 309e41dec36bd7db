//! Stories: requests in an order, as data, told to both servers.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::compare::{Difference, Same};
use crate::http::{Answer, Sent, exchange};
use crate::issuer;
use crate::servers::{Kind, ROOT, Running, Start};

/// How long a step with `until` is repeated.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

/// A file of `stories/`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Story {
    /// What it is about.
    pub(crate) about: String,
    #[serde(default)]
    pub(crate) start: Start,
    pub(crate) steps: Vec<Step>,
}

/// One request.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    /// Method and path below `/v1/`; `{{name}}` stands for what an earlier step kept.
    #[serde(rename = "do")]
    pub(crate) what: String,
    /// The body, as JSON.
    #[serde(default)]
    with: Option<Value>,
    /// The body as it is, in place of `with`.
    #[serde(default)]
    raw: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// Whose token: root's unless said; `nobody` sends none.
    #[serde(default, rename = "as")]
    who: Option<String>,
    /// What later steps need of the answer: name, and where it is in the body.
    #[serde(default)]
    keep: BTreeMap<String, String>,
    /// Asked again until the body says so, `place=value`: for what a server does in the background.
    #[serde(default)]
    until: Option<String>,
    /// Which behaviours of the table this step shows.
    #[serde(default)]
    pub(crate) shows: Vec<String>,
}

/// What one step came to.
pub(crate) struct Told {
    pub(crate) step: Step,
    pub(crate) bao_status: u16,
    pub(crate) differences: Vec<Difference>,
    /// Both answers, for a reader.
    pub(crate) answers: [String; 2],
}

impl Story {
    /// Reads a story.
    pub(crate) fn load(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap();
        serde_yaml::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// Tells it to both.
    pub(crate) fn tell(&self) -> Vec<Told> {
        let bao = Running::start(Kind::Bao, self.start);
        let coffer = Running::start(Kind::Coffer, self.start);
        // Somewhere to write: each server's own directory; and what an issuer signed.
        let home = |server: &Running| {
            let mut kept = issuer::texts().clone();
            kept.insert("home".to_owned(), server.home.path().display().to_string());
            kept
        };
        let mut kept = [home(&bao), home(&coffer)];
        let mut same = Same::default();
        let mut told = Vec::new();
        for step in &self.steps {
            let [theirs, ours] = [(&bao, 0), (&coffer, 1)].map(|(server, i)| {
                let sent = step.sent(&kept[i]);
                let answer = step.ask(server, &sent);
                let answer =
                    answer.unwrap_or_else(|e| panic!("{}: {} {}: {e}", self.about, sent.method, sent.target));
                step.keep(&answer, &mut kept[i]);
                answer.without(server.home.path())
            });
            told.push(Told {
                step: step.clone(),
                bao_status: theirs.status,
                differences: same.compare(&theirs, &ours),
                answers: [shown(&theirs), shown(&ours)],
            });
        }
        told
    }
}

impl Step {
    fn sent(&self, kept: &BTreeMap<String, String>) -> Sent {
        let what = fill(&self.what, kept);
        let (method, path) =
            what.split_once(' ').unwrap_or_else(|| panic!("{what:?}: expected method and path"));
        let mut headers = Vec::new();
        match self.who.as_deref() {
            None => headers.push(("x-vault-token".to_owned(), fill("{{root}}", kept))),
            Some("nobody") => {}
            Some(token) => headers.push(("x-vault-token".to_owned(), fill(token, kept))),
        }
        headers.extend(self.headers.iter().map(|(key, value)| (key.clone(), fill(value, kept))));
        let body = match (&self.with, &self.raw) {
            (Some(json), _) => fill(&json.to_string(), kept),
            (None, Some(text)) => fill(text, kept),
            (None, None) => String::new(),
        };
        Sent { method: method.to_owned(), target: format!("/v1/{path}"), headers, body: body.into_bytes() }
    }

    /// Asks, once or until the answer is the one that is waited for. The last answer counts.
    fn ask(&self, server: &Running, sent: &Sent) -> std::io::Result<Answer> {
        let began = std::time::Instant::now();
        loop {
            let answer = exchange(server.address, sent)?;
            let Some((place, value)) = self.until.as_ref().and_then(|until| until.split_once('=')) else {
                return Ok(answer);
            };
            let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            if at(&body, place) == value || began.elapsed() > PATIENCE || body.get("errors").is_some() {
                return Ok(answer);
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// A name that is not found stays empty: the steps that need it then show the difference.
    fn keep(&self, answer: &Answer, kept: &mut BTreeMap<String, String>) {
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        for (name, place) in &self.keep {
            kept.insert(name.clone(), at(&body, place).to_owned());
        }
    }

    /// Method and path, without a query.
    pub(crate) fn endpoint(&self) -> (&str, &str) {
        let (method, path) = self.what.split_once(' ').unwrap_or((&self.what, ""));
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let method = match query {
            "list=true" => "LIST",
            "scan=true" => "SCAN",
            _ => method,
        };
        (method, path)
    }
}

/// The text at a place; empty when there is none.
fn at<'a>(body: &'a Value, place: &str) -> &'a str {
    let pointer = format!("/{}", place.replace('.', "/"));
    body.pointer(&pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Puts what was kept in the place of `{{name}}`.
fn fill(text: &str, kept: &BTreeMap<String, String>) -> String {
    let mut out = text.to_owned();
    for (name, value) in kept {
        out = out.replace(&format!("{{{{{name}}}}}"), value);
    }
    out.replace("{{root}}", ROOT)
}

fn shown(answer: &Answer) -> String {
    format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body).trim())
}
