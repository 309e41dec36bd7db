//! Hits, misses, evictions and sizes, one label for each cache.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// The counters of one cache.
#[derive(Clone, Debug)]
pub(crate) struct CacheMeter {
    pub(crate) hits: IntCounter,
    pub(crate) misses: IntCounter,
    /// For want of room.
    pub(crate) evictions: IntCounter,
    pub(crate) bytes: IntGauge,
}

/// The counters of all caches.
#[derive(Clone, Debug)]
pub(crate) struct CacheMeters {
    pub(crate) tokens: CacheMeter,
    pub(crate) policies: CacheMeter,
    pub(crate) secrets: CacheMeter,
}

impl CacheMeters {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| -> Result<IntCounterVec, prometheus::Error> {
            let metric = IntCounterVec::new(Opts::new(name, help), &["cache"])?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let hits = counter("coffer_cache_hits_total", "Lookups answered from memory")?;
        let misses = counter("coffer_cache_misses_total", "Lookups that went to the store")?;
        let evictions = counter("coffer_cache_evictions_total", "Entries dropped for want of room")?;
        let bytes = IntGaugeVec::new(Opts::new("coffer_cache_bytes", "Estimated bytes held"), &["cache"])?;
        registry.register(Box::new(bytes.clone()))?;
        let of = |cache: &str| CacheMeter {
            hits: hits.with_label_values(&[cache]),
            misses: misses.with_label_values(&[cache]),
            evictions: evictions.with_label_values(&[cache]),
            bytes: bytes.with_label_values(&[cache]),
        };
        Ok(Self { tokens: of("tokens"), policies: of("policies"), secrets: of("secrets") })
    }
}
