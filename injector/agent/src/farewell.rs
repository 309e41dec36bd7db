//! The end of a pod: its leases and tokens go back at once. Never waits longer than its caller lets it;
//! what is left then, the operator's pod watch revokes by the pod's UID.

use crate::keeper::Keeper;
use crate::state::Retired;

impl Keeper {
    /// Gives everything back: the pod is at its end. Bounded by the caller's patience.
    pub async fn farewell(&mut self) {
        let leases: Vec<String> = self
            .state
            .secrets
            .values()
            .flat_map(|h| {
                h.superseded.iter().chain(h.issue.iter().filter_map(|i| Some(&i.lease.as_ref()?.id)))
            })
            .chain(self.state.retiring.iter().filter_map(|r| match &r.what {
                Retired::Lease { id } => Some(id),
                Retired::Token { .. } => None,
            }))
            .cloned()
            .collect();
        if let Some(client) = &self.client {
            let mut calls = tokio::task::JoinSet::new();
            for id in leases {
                let client = client.clone();
                calls.spawn(async move { client.revoke_lease(&id).await });
            }
            while let Some(done) = calls.join_next().await {
                if let Ok(Err(error)) = done {
                    tracing::warn!(%error, "lease not revoked; its token's end will do it");
                }
            }
        }
        let former = self.state.retiring.iter().filter_map(|r| match &r.what {
            Retired::Token { secret, .. } => Some(secret),
            Retired::Lease { .. } => None,
        });
        for secret in self.state.token.iter().map(|t| &t.secret).chain(former) {
            let revoked = match self.anonymous.with_token(secret) {
                Ok(client) => client.revoke_self().await,
                Err(error) => Err(error),
            };
            if let Err(error) = revoked {
                tracing::warn!(%error, "token not revoked; the operator's pod watch will do it");
            }
        }
        if let Err(error) = self.store.remove() {
            tracing::warn!(%error, "state not removed");
        }
        tracing::info!("leases and token given back");
    }
}
