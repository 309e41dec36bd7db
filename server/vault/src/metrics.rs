//! Numbers for operators, in Prometheus' form. Labels are closed sets: no path, name or id becomes one.

use coffer_core::time::Timestamp;
use prometheus::proto::MetricType;
use prometheus::{Encoder as _, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};
use serde_json::{Map, Value, json};

use crate::audit::AuditMeters;
use crate::cache::CacheMeters;
use crate::request::Operation;

/// The vault's metrics.
pub(crate) struct Metrics {
    registry: Registry,
    requests: [IntCounter; Operation::ALL.len()],
    pub(crate) caches: CacheMeters,
    pub(crate) leases_issued: IntCounter,
    pub(crate) rate_limited: IntCounter,
    pub(crate) leases_revoked: IntCounter,
    pub(crate) revoke_failures: IntCounter,
    pub(crate) leases_overdue: IntGauge,
    pub(crate) leases_stuck: IntGauge,
    pub(crate) targets_failing: IntGauge,
    pub(crate) accounts_lost: IntGauge,
    pub(crate) accounts_dropped: IntCounter,
    pub(crate) reconcile_failures: IntCounter,
    pub(crate) subscribers: IntGauge,
    pub(crate) passwords_hashed: IntCounter,
    pub(crate) sweeper_errors: IntCounter,
    pub(crate) unsealed: IntGauge,
    pub(crate) clock_ahead: IntGauge,
    pub(crate) audit: AuditMeters,
}

impl Metrics {
    /// All metrics, at zero. Fails only if two had the same name.
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let metric = IntCounter::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let metric = IntGauge::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let requests = IntCounterVec::new(
            Opts::new("coffer_requests_total", "Requests to an unsealed vault"),
            &["operation"],
        )?;
        registry.register(Box::new(requests.clone()))?;
        let requests = Operation::ALL.map(|operation| requests.with_label_values(&[operation.as_str()]));
        Ok(Self {
            requests,
            caches: CacheMeters::new(&registry)?,
            rate_limited: counter("coffer_requests_rate_limited_total", "Requests refused by a rate limit")?,
            leases_issued: counter("coffer_leases_issued_total", "Leases delivered since the start")?,
            leases_revoked: counter("coffer_leases_revoked_total", "Leases taken back since the start")?,
            revoke_failures: counter(
                "coffer_lease_revoke_failures_total",
                "Failed attempts at revoking a lease",
            )?,
            leases_overdue: gauge(
                "coffer_leases_overdue",
                "Leases whose time is over and whose credential is not known to be gone",
            )?,
            leases_stuck: gauge(
                "coffer_leases_stuck",
                "Those of them that could not be taken back in many tries",
            )?,
            targets_failing: gauge(
                "coffer_lease_targets_failing",
                "Targets that failed several times in a row, whichever lease it was about",
            )?,
            accounts_lost: gauge(
                "coffer_accounts_without_lease",
                "Accounts of this vault at databases that the last comparison found without a lease",
            )?,
            accounts_dropped: counter(
                "coffer_accounts_dropped_total",
                "Accounts without a lease that were taken away since the start",
            )?,
            reconcile_failures: counter(
                "coffer_reconcile_failures_total",
                "Targets that could not be compared with the leases, and accounts that could not be taken away",
            )?,
            subscribers: gauge(
                "coffer_event_subscribers",
                "Streams of events and waiting reads at this moment",
            )?,
            passwords_hashed: counter(
                "coffer_passwords_hashed_total",
                "Passwords hashed or verified since the start",
            )?,
            sweeper_errors: counter("coffer_sweeper_errors_total", "Sweeps that could not be completed")?,
            clock_ahead: gauge(
                "coffer_clock_ahead_seconds",
                "By how much the wall clock is ahead of the time that leases are measured by",
            )?,
            unsealed: gauge("coffer_unsealed", "1 while this server is unsealed")?,
            audit: AuditMeters::new(&registry)?,
            registry,
        })
    }

    /// Counts a request.
    pub(crate) fn request(&self, operation: Operation) {
        if let Some(counter) = self.requests.get(operation as usize) {
            counter.inc();
        }
    }

    /// The text of `sys/metrics`.
    pub(crate) fn render(&self) -> Result<String, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// The same in the form of Vault's JSON.
    pub(crate) fn told(&self, now: Timestamp) -> Value {
        let (mut gauges, mut counters, mut samples) = (Vec::new(), Vec::new(), Vec::new());
        for family in self.registry.gather() {
            for metric in family.get_metric() {
                let labels: Map<String, Value> =
                    metric.get_label().iter().map(|l| (l.name().to_owned(), l.value().into())).collect();
                let name = family.name();
                match family.get_field_type() {
                    MetricType::GAUGE => {
                        let value = metric.get_gauge().get_value();
                        gauges.push(json!({ "Name": name, "Value": value, "Labels": labels }));
                    }
                    MetricType::COUNTER => {
                        let sum = metric.get_counter().get_value();
                        counters.push(json!({ "Name": name, "Count": sum, "Sum": sum, "Labels": labels }));
                    }
                    _ => {
                        let histogram = metric.get_histogram();
                        let (count, sum) = (histogram.get_sample_count(), histogram.get_sample_sum());
                        samples.push(json!({ "Name": name, "Count": count, "Sum": sum, "Labels": labels }));
                    }
                }
            }
        }
        json!({ "Timestamp": now.to_rfc3339(), "Gauges": gauges, "Points": [], "Counters": counters,
            "Samples": samples })
    }
}
