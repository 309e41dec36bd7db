//! Which pods' tokens must end. Pure: everything it looks at is an argument.

use std::collections::BTreeSet;

use coffer_client::wire::PodToken;
use k8s_openapi::api::core::v1::Pod;

/// Whether a pod has come to its end: none of its containers will run again.
pub(crate) fn is_over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Pods with tokens that are not among those seen alive. A suspicion only: a watch lags behind, and pods that were
/// not injected are not watched.
pub(crate) fn suspects<'a>(with_tokens: &'a [PodToken], alive: &BTreeSet<String>) -> Vec<&'a PodToken> {
    with_tokens.iter().filter(|pod| !alive.contains(&pod.uid)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(uid: &str) -> PodToken {
        PodToken { uid: uid.into(), name: "n".into(), namespace: "s".into(), tokens: 1 }
    }

    #[test]
    fn tokens_of_pods_not_seen_alive_are_suspect() {
        let alive = BTreeSet::from(["a".to_owned(), "c".to_owned()]);
        assert_eq!(suspects(&[token("a"), token("b")], &alive), [&token("b")]);
        assert!(suspects(&[], &alive).is_empty());
    }

    #[test]
    fn a_pod_is_over_in_its_terminal_phases() {
        for (phase, over) in [("Pending", false), ("Running", false), ("Succeeded", true), ("Failed", true)] {
            let pod: Pod = serde_yaml::from_str(&format!("status: {{phase: {phase}}}")).unwrap();
            assert_eq!(is_over(&pod), over, "{phase}");
        }
    }
}
