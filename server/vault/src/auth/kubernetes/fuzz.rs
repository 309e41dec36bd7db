//! Fuzz targets of the selectors of namespaces that a role's author writes, and of what an API server answers.

use std::collections::BTreeMap;

use coffer_fuzz::{Target, kind, text};
use serde_json::Value;

use super::api;
use super::claims::Identity;
use super::selector::Selector;

#[test]
fn a_selector_that_is_taken_asks_for_something() {
    let words = [
        "matchLabels",
        "matchExpressions",
        "key",
        "operator",
        "In",
        "NotIn",
        "Exists",
        "DoesNotExist",
        "values",
        "a: b",
        "\n",
        "  - ",
        "&a",
        "*a",
        "{",
        "}",
        "!!binary",
    ];
    Target::new("selector").words(&words).runs(3_000).run(|input| {
        let Some(selector) = Selector::parse(&text(input)) else { return "refused".into() };
        let fits = |labels: &[(&str, &str)]| {
            let labels: BTreeMap<_, _> =
                labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            selector.fits(&labels)
        };
        format!("{} {}", fits(&[]), fits(&[("team", "shop")]))
    });
}

/// The token is that of `shop/web` in the pod `p-1`, and meant for `coffer`.
#[test]
fn a_token_is_believed_only_if_the_review_says_so_of_its_very_owner_for_us() {
    let words = [
        "status",
        "authenticated",
        "true",
        "audiences",
        "coffer",
        "username",
        "system:serviceaccount:shop:web",
        "uid",
        "u-1",
        "authentication.kubernetes.io/pod-uid",
        "p-1",
        "metadata",
        "labels",
    ];
    let identity = Identity {
        namespace: "shop".into(),
        service_account: "web".into(),
        service_account_uid: "u-1".into(),
        pod: Some(("web-0".into(), "p-1".into())),
    };
    Target::new("token-review").words(&words).runs(3_000).run(|input| {
        let body = text(input);
        let labels = api::labels(&body).map_or(0, |labels| labels.len().min(1));
        if let Err(why) = api::check_review(&body, "coffer", &identity) {
            return format!("{} {labels}", kind(&why));
        }
        let review: Value = serde_json::from_str(&body).unwrap();
        let status = &review["status"];
        assert_eq!(status["authenticated"], true);
        assert!(status["audiences"].as_array().unwrap().contains(&"coffer".into()));
        assert_eq!(status["user"]["username"], "system:serviceaccount:shop:web");
        assert_eq!(status["user"]["uid"], "u-1");
        let pods = &status["user"]["extra"]["authentication.kubernetes.io/pod-uid"];
        assert!(pods.as_array().is_none_or(|pods| pods.iter().all(|uid| uid == "p-1")), "{pods}");
        format!("believed {labels}")
    });
}
