//! A cluster's API server, as far as a vault asks it: which tokens it believes, and which labels namespaces have.

use std::collections::HashMap;
use std::sync::Mutex;

use coffer_vault::{ApiCall, ApiReply, ApiServer, Credential};
use serde_json::{Value, json};
use tokio::sync::Notify;

#[derive(Default)]
pub struct FakeApi {
    /// `status` of a review, by the token.
    reviews: Mutex<HashMap<String, Value>>,
    labels: Mutex<HashMap<String, Value>>,
    /// What it answers everybody with, in place of anything else.
    pub refuses: Mutex<Option<u16>>,
    /// Who asked: `own`, or the token.
    pub asked_by: Mutex<Vec<String>>,
    /// Rings at each question.
    pub came: Notify,
    /// While somebody holds it there is no answer.
    pub gate: tokio::sync::Mutex<()>,
}

impl FakeApi {
    /// Believes the token of these claims, for the audiences that it has.
    pub fn believe(&self, jwt: &str, claims: &Value) {
        let kubernetes = &claims["kubernetes.io"];
        let user = json!({
            "username": claims["sub"],
            "uid": kubernetes["serviceaccount"]["uid"],
            "groups": ["system:serviceaccounts"],
            "extra": {"authentication.kubernetes.io/pod-uid": [kubernetes["pod"]["uid"]]},
        });
        self.say(jwt, json!({"authenticated": true, "audiences": claims["aud"], "user": user}));
    }

    /// Says this of a token.
    pub fn say(&self, jwt: &str, status: Value) {
        self.reviews.lock().unwrap().insert(jwt.to_owned(), status);
    }

    /// Believes it no more: its pod is gone.
    pub fn forget(&self, jwt: &str) {
        self.reviews.lock().unwrap().remove(jwt);
    }

    pub fn label(&self, namespace: &str, labels: Value) {
        self.labels.lock().unwrap().insert(namespace.to_owned(), labels);
    }

    pub async fn answer(&self, server: &ApiServer, call: &ApiCall) -> Result<ApiReply, String> {
        self.came.notify_one();
        drop(self.gate.lock().await);
        let by = match &server.credential {
            Credential::Own => "own".to_owned(),
            Credential::Given(token) => token.to_string(),
        };
        self.asked_by.lock().unwrap().push(by);
        if let Some(status) = *self.refuses.lock().unwrap() {
            return Ok(ApiReply { status, body: "{}".into() });
        }
        let reply = |status, body: Value| Ok(ApiReply { status, body: body.to_string() });
        match (call.path.as_str(), &call.body) {
            ("/apis/authentication.k8s.io/v1/tokenreviews", Some(body)) => {
                let mut review: Value = serde_json::from_str(body).unwrap();
                let token = review["spec"]["token"].as_str().unwrap();
                let known = self.reviews.lock().unwrap().get(token).cloned();
                review["status"] = known.unwrap_or_else(|| json!({"error": "no such pod"}));
                reply(201, review)
            }
            (path, None) => {
                let name = path.strip_prefix("/api/v1/namespaces/").unwrap();
                match self.labels.lock().unwrap().get(name) {
                    Some(labels) => reply(200, json!({"metadata": {"name": name, "labels": labels}})),
                    None => reply(404, json!({"kind": "Status"})),
                }
            }
            other => panic!("{other:?}"),
        }
    }
}
