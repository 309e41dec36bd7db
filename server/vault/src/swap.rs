//! A value that readers share and a writer replaces whole.
//!
//! Never held across an await: `load` clones the `Arc` and lets the lock go.

use std::sync::{Arc, PoisonError, RwLock};

/// A shared, replaceable value.
pub(crate) struct Swap<T>(RwLock<Arc<T>>);

impl<T> Swap<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(RwLock::new(Arc::new(value)))
    }

    /// The present value.
    pub(crate) fn load(&self) -> Arc<T> {
        // A reader or writer that panicked left a whole `Arc` behind, so the poison means nothing here.
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another value in place; those who loaded the old one keep it.
    pub(crate) fn store(&self, value: T) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(value);
    }
}
