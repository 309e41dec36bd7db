//! The audit log's metrics. Labels are closed sets.

use prometheus::{IntCounter, IntGauge, IntGaugeVec, Opts, Registry};

/// What can be wrong with the log while it may still be serving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alarm {
    /// The quota or the volume is nearly used up.
    Space,
    /// Records cannot be written.
    Failing,
    /// Records wait in memory.
    Degraded,
}

impl Alarm {
    const ALL: [Self; 3] = [Self::Space, Self::Failing, Self::Degraded];

    const fn reason(self) -> &'static str {
        match self {
            Self::Space => "space",
            Self::Failing => "failing",
            Self::Degraded => "degraded",
        }
    }
}

/// The metrics. Cheap to clone: all clones are the same numbers.
#[derive(Clone, Debug)]
pub(crate) struct AuditMeters {
    pub(super) records: IntCounter,
    pub(super) batches: IntCounter,
    pub(super) bytes: IntGauge,
    pub(super) failures: IntCounter,
    pub(super) sync_failures: IntCounter,
    pub(super) waiting: IntGauge,
    pub(super) suppressed: IntCounter,
    pub(super) device_dropped: IntCounter,
    pub(super) device_failing: IntGauge,
    alarms: IntGaugeVec,
}

impl AuditMeters {
    /// All at zero. Fails only if `registry` has one of their names already.
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
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
        let alarms = IntGaugeVec::new(
            Opts::new("coffer_audit_alarm", "1 while something is wrong with the audit log"),
            &["reason"],
        )?;
        registry.register(Box::new(alarms.clone()))?;
        let meters = Self {
            records: counter("coffer_audit_records_total", "Audit records written since the start")?,
            batches: counter("coffer_audit_batches_total", "Writes that carried them")?,
            bytes: gauge("coffer_audit_bytes", "Bytes of the audit log, all files together")?,
            failures: counter("coffer_audit_failures_total", "Audit records that could not be taken")?,
            sync_failures: counter("coffer_audit_sync_failures_total", "Failed syncs of the audit log")?,
            waiting: gauge("coffer_audit_waiting_bytes", "Bytes of audit records that wait in memory")?,
            suppressed: counter(
                "coffer_audit_suppressed_total",
                "Refused requests that were counted in the audit log instead of recorded one by one",
            )?,
            device_dropped: counter(
                "coffer_audit_device_dropped_total",
                "Lines that further audit devices could not take",
            )?,
            device_failing: gauge("coffer_audit_devices_failing", "Further audit devices that fail now")?,
            alarms,
        };
        Alarm::ALL.into_iter().for_each(|alarm| {
            meters.set(alarm, false);
        });
        Ok(meters)
    }

    /// Raises or ends an alarm. Says whether that is a change.
    pub(super) fn set(&self, alarm: Alarm, on: bool) -> bool {
        let gauge = self.alarms.with_label_values(&[alarm.reason()]);
        let changed = gauge.get() != i64::from(on);
        gauge.set(i64::from(on));
        changed
    }

    /// Whether an alarm is on.
    #[cfg(test)]
    pub(super) fn is_raised(&self, alarm: Alarm) -> bool {
        self.alarms.with_label_values(&[alarm.reason()]).get() == 1
    }
}
