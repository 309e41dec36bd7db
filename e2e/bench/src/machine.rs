//! What machine this is, as far as it matters for reading the numbers, and how busy others keep it. No names.

use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};
use serde_json::{Value, json};

pub(crate) fn describe() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let after = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_once(':').map(|(_, value)| value.trim().to_owned())
    };
    json!({
        "processor": after(&read("/proc/cpuinfo"), "model name"),
        "cores": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        "memory": after(&read("/proc/meminfo"), "MemTotal"),
        // Without what whoever built it added to the version.
        "kernel": read("/proc/sys/kernel/osrelease").trim().split('-').next(),
        // Of the minute before: above the number of cores, somebody else was at work.
        "load_before": read("/proc/loadavg").split(' ').next(),
    })
}

/// Processor time that everything on this machine has used since it was started; none where the kernel does not tell.
pub(crate) fn busy() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    let per_second = sysconf(SysconfVar::CLK_TCK).ok()??;
    busy_ticks(&text).map(|ticks| Duration::from_secs_f64(ticks as f64 / per_second as f64))
}

/// Of the first line of `/proc/stat`: user, nice, system, irq and softirq; neither idle nor waiting.
fn busy_ticks(text: &str) -> Option<u64> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line.split_whitespace().map_while(|field| field.parse().ok()).collect();
    [0, 1, 2, 5, 6].iter().map(|at| ticks.get(*at).copied()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_time_leaves_out_who_is_idle_or_waits() {
        assert_eq!(
            busy_ticks("cpu  1 20 300 4000 50000 600000 7000000 80000000 9 9\ncpu0 1"),
            Some(7_600_321)
        );
        assert_eq!(busy_ticks("cpu  1 2 3"), None);
        assert_eq!(busy_ticks("intr 1"), None);
    }
}
