//! A vault to test against.

use std::sync::Arc;

use coffer_barrier::Barrier;
use coffer_barrier::store::Store;
use coffer_core::shamir::{Share, Threshold};
use coffer_storage::memory::MemoryStore;
use rand::SeedableRng;
use rand::rngs::StdRng;

/// A seeded generator.
pub(crate) fn rng() -> StdRng {
    StdRng::seed_from_u64(7)
}

/// An initialised, sealed barrier and its shares.
pub(crate) async fn sealed(store: Arc<dyn Store>, n: u64, k: u64) -> (Arc<Barrier>, Vec<Share>) {
    let barrier = Arc::new(Barrier::new(store));
    let shares = barrier.initialize(Threshold::new(n, k).unwrap(), &mut rng()).await.unwrap();
    (barrier, shares)
}

/// An unsealed barrier over `store`.
pub(crate) async fn over(store: Arc<dyn Store>) -> Arc<Barrier> {
    let (barrier, shares) = sealed(store, 1, 1).await;
    barrier.unseal(&shares).await.unwrap();
    barrier
}

/// An unsealed barrier over a memory store, and the store.
#[allow(dead_code, reason = "not every test file looks at the store")]
pub(crate) async fn unsealed() -> (Arc<Barrier>, MemoryStore) {
    let store = MemoryStore::new();
    (over(Arc::new(store.clone())).await, store)
}
