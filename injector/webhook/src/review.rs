//! The frame around a patch: an AdmissionReview in, an AdmissionReview out. Never logs either; a pod
//! may carry what its author should not have written into it.

use crate::patch::patch;
use crate::settings::Settings;
use k8s_openapi::api::core::v1::Pod;
use kube::core::DynamicObject;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview, Operation};

/// Answers a review; `None` if it is none.
pub fn answer(body: &[u8], settings: &Settings) -> Option<AdmissionReview<DynamicObject>> {
    let review: AdmissionReview<Pod> = serde_json::from_slice(body).ok()?;
    let request: AdmissionRequest<Pod> = review.try_into().ok()?;
    Some(decide(&request, settings).into_review())
}

fn decide(request: &AdmissionRequest<Pod>, settings: &Settings) -> AdmissionResponse {
    let response = AdmissionResponse::from(request);
    // Only creation can add a container; the webhook's rules ask for nothing else.
    let (Operation::Create, Some(pod)) = (&request.operation, &request.object) else { return response };
    let namespace = request.namespace.as_deref().unwrap_or_default();
    match patch(pod, settings) {
        Ok(outcome) => {
            if !outcome.patch.0.is_empty() {
                tracing::info!(namespace, uid = request.uid, "injected");
            }
            let mut response = response;
            response.warnings = (!outcome.warnings.is_empty()).then_some(outcome.warnings);
            if outcome.patch.0.is_empty() {
                return response;
            }
            response.with_patch(outcome.patch).unwrap_or_else(|error| {
                AdmissionResponse::from(request).deny(format!("coffer: patch not serializable: {error}"))
            })
        }
        Err(refusal) => {
            tracing::info!(namespace, uid = request.uid, "refused");
            response.deny(refusal)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn settings() -> Settings {
        Settings {
            server_addr: "https://coffer:8200".to_owned(),
            ca_pem: String::new(),
            cluster: "c".to_owned(),
            auth_mount: "kubernetes/c".to_owned(),
            audience: "coffer".to_owned(),
            agent_image: "agent:1".to_owned(),
            agent_image_pull_policy: "IfNotPresent".to_owned(),
        }
    }

    fn review(inject: &str) -> Value {
        json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {
                "uid": "r1", "operation": "CREATE", "userInfo": {}, "namespace": "shop", "name": "",
                "kind": {"group": "", "version": "v1", "kind": "Pod"},
                "resource": {"group": "", "version": "v1", "resource": "pods"},
                "object": {
                    "apiVersion": "v1", "kind": "Pod",
                    "metadata": {"generateName": "a-", "annotations": {"coffer.dev/inject": inject}},
                    "spec": {"containers": [{"name": "app", "image": "x"}]}
                }
            }
        })
    }

    fn ask(review: &Value) -> Value {
        let answer = answer(review.to_string().as_bytes(), &settings()).unwrap();
        serde_json::to_value(answer).unwrap()
    }

    #[test]
    fn a_pod_that_asks_is_patched() {
        let answer = ask(&review("orders-db"));
        assert_eq!(answer["response"]["allowed"], true);
        assert_eq!(answer["response"]["uid"], "r1");
        assert_eq!(answer["response"]["patchType"], "JSONPatch");
        assert!(answer["response"]["warnings"][0].as_str().unwrap().contains("runAsUser"));
    }

    #[test]
    fn a_refusal_is_a_sentence_for_the_author() {
        let answer = ask(&review(""));
        assert_eq!(answer["response"]["allowed"], false);
        let message = answer["response"]["status"]["message"].as_str().unwrap();
        assert!(message.starts_with("coffer: coffer.dev/inject has an empty name"), "{message}");
    }

    #[test]
    fn rubbish_is_no_review() {
        assert!(answer(b"{}", &settings()).is_none());
        assert!(answer(b"\xff", &settings()).is_none());
    }
}
