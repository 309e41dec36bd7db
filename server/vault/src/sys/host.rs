//! `sys/host-info`: the machine a server runs on, as far as Linux tells it in `/proc`. Read-only; nothing of the vault.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::error::Fail;
use crate::outcome::Outcome;
use crate::pipeline::{Ctx, only};
use crate::request::Operation;

/// The largest file that is read, in bytes.
const FILE_MAX: u64 = 1 << 20;

/// Handles `sys/host-info`. What cannot be read is left out, and said in a warning.
pub(crate) async fn handle(ctx: &Ctx) -> Result<Outcome, Fail> {
    only(&ctx.request, &[Operation::Read])?;
    let (info, missing) =
        tokio::task::spawn_blocking(collect).await.map_err(|_| Fail::Internal("host information"))?;
    let mut data = info;
    data.insert("timestamp".into(), ctx.now.to_rfc3339().into());
    let warnings = missing.iter().map(|part| format!("error fetching information of the host: {part}"));
    Ok(Outcome::data(Value::Object(data)).warning(warnings.collect()))
}

/// The parts that could be read, and the names of the others.
fn collect() -> (Map<String, Value>, Vec<&'static str>) {
    let mut info = Map::new();
    let mut missing = Vec::new();
    let parts: [(&'static str, Option<Value>); 4] = [
        ("cpu", file("/proc/cpuinfo").map(|text| cpus(&text))),
        ("cpu_times", file("/proc/stat").map(|text| cpu_times(&text))),
        ("memory", file("/proc/meminfo").map(|text| memory(&text))),
        ("host", host()),
    ];
    for (name, part) in parts {
        match part {
            Some(part) => drop(info.insert(name.to_owned(), part)),
            None => missing.push(name),
        }
    }
    (info, missing)
}

fn file(path: impl AsRef<Path>) -> Option<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path).ok()?.take(FILE_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

/// One entry for each processor of `/proc/cpuinfo`.
fn cpus(text: &str) -> Value {
    let cpu = |block: &str| -> Option<Value> {
        let fields: Vec<(&str, &str)> =
            block.lines().filter_map(|l| l.split_once(':')).map(|(k, v)| (k.trim(), v.trim())).collect();
        let get = |name: &str| fields.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| *value);
        let number = |name: &str| get(name).parse::<i64>().unwrap_or(0);
        let index: i64 = get("processor").parse().ok()?;
        Some(json!({
            "cpu": index,
            "vendorId": get("vendor_id"),
            "family": get("cpu family"),
            "model": get("model"),
            "stepping": number("stepping"),
            "physicalId": get("physical id"),
            "coreId": get("core id"),
            "cores": number("cpu cores"),
            "modelName": get("model name"),
            "mhz": get("cpu MHz").parse::<f64>().unwrap_or(0.0),
            "cacheSize": get("cache size").split(' ').next().and_then(|n| n.parse::<i64>().ok()).unwrap_or(0),
            "flags": get("flags").split_whitespace().collect::<Vec<_>>(),
            "microcode": get("microcode"),
        }))
    };
    text.split("\n\n").filter_map(cpu).collect()
}

/// The processors' times of `/proc/stat`, in seconds.
fn cpu_times(text: &str) -> Value {
    const TICKS: f64 = 100.0;
    const NAMES: [&str; 10] =
        ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guestNice"];
    let one = |line: &str| -> Option<Value> {
        let mut words = line.split_whitespace();
        let name = words.next().filter(|w| w.len() > 3 && w.starts_with("cpu"))?;
        let mut times = Map::from_iter([("cpu".to_owned(), name.into())]);
        for field in NAMES {
            let ticks: f64 = words.next().and_then(|w| w.parse().ok()).unwrap_or(0.0);
            times.insert(field.to_owned(), (ticks / TICKS).into());
        }
        Some(Value::Object(times))
    };
    text.lines().filter_map(one).collect()
}

/// The fields of `/proc/meminfo`, in bytes.
fn memory(text: &str) -> Value {
    let kib = |name: &str| -> u64 {
        let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|rest| rest.trim().split(' ').next()?.parse().ok()).unwrap_or(0)
    };
    let bytes = |name: &str| kib(name).saturating_mul(1024);
    let (total, available) = (bytes("MemTotal"), bytes("MemAvailable"));
    let used = total.saturating_sub(available);
    let percent = if total == 0 { 0.0 } else { used as f64 * 100.0 / total as f64 };
    json!({
        "total": total, "available": available, "used": used, "usedPercent": percent,
        "free": bytes("MemFree"), "active": bytes("Active"), "inactive": bytes("Inactive"),
        "buffers": bytes("Buffers"), "cached": bytes("Cached"), "dirty": bytes("Dirty"),
        "shared": bytes("Shmem"), "slab": bytes("Slab"), "mapped": bytes("Mapped"),
        "swaptotal": bytes("SwapTotal"), "swapfree": bytes("SwapFree"),
    })
}

fn host() -> Option<Value> {
    let kernel = |name: &str| file(format!("/proc/sys/kernel/{name}")).map(|text| text.trim().to_owned());
    let uptime = file("/proc/uptime")?.split('.').next()?.parse::<u64>().ok()?;
    let boot = file("/proc/stat")?.lines().find_map(|l| l.strip_prefix("btime ")?.parse::<u64>().ok())?;
    let release = file("/etc/os-release").unwrap_or_default();
    let said = |name: &str| {
        let value = release.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix('='));
        value.map_or("", |value| value.trim_matches('"')).to_owned()
    };
    Some(json!({
        "hostname": kernel("hostname")?, "uptime": uptime, "bootTime": boot, "os": std::env::consts::OS,
        "platform": said("ID"), "platformVersion": said("VERSION_ID"),
        "kernelVersion": kernel("osrelease")?, "kernelArch": std::env::consts::ARCH,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_linux_says_is_told_in_vaults_fields() {
        let cpu = "processor\t: 0\nvendor_id\t: GenuineX\ncpu MHz\t\t: 2000.5\ncache size\t: 512 KB\nflags\t: a b\n\nprocessor\t: 1\n\n";
        let told = cpus(cpu);
        assert_eq!((&told[0]["vendorId"], &told[0]["mhz"]), (&json!("GenuineX"), &json!(2000.5)));
        assert_eq!((&told[0]["flags"], &told[0]["cacheSize"]), (&json!(["a", "b"]), &json!(512)));
        assert_eq!((told.as_array().map(Vec::len), &told[1]["cpu"]), (Some(2), &json!(1)));
        let times = cpu_times("cpu  1 1 1\ncpu0 100 50 0 7 0 0 0 0 0 0\nintr 5\n");
        assert_eq!(times[0]["nice"], 0.5, "the sum of all is no processor");
        assert_eq!(times.as_array().map(Vec::len), Some(1));
        let told =
            memory("MemTotal:       1000 kB\nMemAvailable:    750 kB\nActive(anon): 9 kB\nActive:   3 kB\n");
        assert_eq!((&told["used"], &told["usedPercent"]), (&json!(256_000), &json!(25.0)));
        assert_eq!(told["active"], 3072);
    }
}
