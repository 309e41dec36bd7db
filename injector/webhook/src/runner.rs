//! As whom the agent runs, so that the application can read its files and as few others as possible.
//! Pure. Never root: a pod whose containers run as root gets files that root can read too.

use k8s_openapi::api::core::v1::{Container, PodSpec};

/// The agent's identity, and the bits its files need.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Runner {
    pub(crate) uid: i64,
    pub(crate) gid: i64,
    /// Permission bits every file gets, octal.
    pub(crate) mode_floor: &'static str,
    pub(crate) warning: Option<String>,
}

const NOBODY: i64 = 65532;

pub(crate) fn runner(spec: &PodSpec, readers: &[&Container]) -> Runner {
    let pod = spec.security_context.as_ref();
    let uids: Vec<Option<i64>> = readers
        .iter()
        .map(|c| c.security_context.as_ref().and_then(|s| s.run_as_user).or(pod.and_then(|p| p.run_as_user)))
        .collect();
    let gids: Vec<Option<i64>> = readers
        .iter()
        .map(|c| {
            c.security_context.as_ref().and_then(|s| s.run_as_group).or(pod.and_then(|p| p.run_as_group))
        })
        .collect();
    match (common(&uids), pod.and_then(|p| p.fs_group)) {
        (Some(uid), _) if uid > 0 => {
            Runner { uid, gid: common(&gids).unwrap_or(NOBODY), mode_floor: "0400", warning: None }
        }
        // The volume belongs to the fsGroup, which every container of the pod is in.
        (_, Some(_)) => Runner { uid: NOBODY, gid: NOBODY, mode_floor: "0440", warning: None },
        (_, None) => Runner {
            uid: NOBODY,
            gid: NOBODY,
            mode_floor: "0444",
            warning: Some(
                "coffer: the containers state no common runAsUser and the pod no fsGroup, so the secret files are readable \
                 by every user inside the containers that mount them; set runAsUser or fsGroup in the securityContext"
                    .to_owned(),
            ),
        },
    }
}

fn common(ids: &[Option<i64>]) -> Option<i64> {
    let first = ids.first().copied().flatten()?;
    ids.iter().all(|id| *id == Some(first)).then_some(first)
}
