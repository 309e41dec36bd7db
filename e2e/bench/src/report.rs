//! What was seen, as a table, as ratios against what is wanted, and as JSON.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::markdown;
use crate::plan::{Results, Row};
use crate::settings::Settings;
use crate::svg;

/// A number to reach.
pub(crate) struct Goal {
    pub(crate) what: &'static str,
    pub(crate) wanted: &'static str,
    pub(crate) reached: Option<f64>,
    pub(crate) met: Option<bool>,
}

impl Goal {
    /// In a word.
    pub(crate) const fn verdict(&self) -> &'static str {
        match self.met {
            Some(true) => "met",
            Some(false) => "missed",
            None => "not measured",
        }
    }
}

/// What the project asks for, and what this run says.
pub(crate) fn goals(results: &Results) -> Vec<Goal> {
    let rate = |service, name| results.find(service, name).and_then(|row| row.rate);
    let ratio = |a: Option<f64>, b: Option<f64>| a.zip(b).map(|(a, b)| a / b);
    let rates = |name| ratio(rate("coffer", name), rate("openbao", name));
    let rss = |service| {
        let memory = results.find(service, "memory").and_then(|row| row.memory);
        memory.map(|memory| memory.rss as f64)
    };
    let p50 = |name| results.find("coffer", name).and_then(|row| row.p50_us);
    let mix = results.find("coffer", "mix");
    let start = |name| results.find("coffer", name).and_then(|row| row.seconds);
    let least = |what, wanted, reached: Option<f64>, limit: f64| Goal {
        what,
        wanted,
        reached,
        met: reached.map(|reached| reached >= limit),
    };
    let most = |what, wanted, reached: Option<f64>, limit: f64| Goal {
        what,
        wanted,
        reached,
        met: reached.map(|reached| reached <= limit),
    };
    vec![
        least("reads/s, times OpenBao's", ">= 10", rates("reads"), 10.0),
        least(
            "reads/s, part of the ceiling",
            ">= 0.5",
            ratio(rate("coffer", "reads"), rate("ceiling", "reads")),
            0.5,
        ),
        least("writes/s, times OpenBao's", ">= 5", rates("writes"), 5.0),
        least("AppRole logins/s, times OpenBao's", ">= 5", rates("logins"), 5.0),
        least("token creates/s, times OpenBao's", "(none set)", rates("creates"), 0.0),
        most("mix, p99 in ms", "< 1", mix.and_then(|row| row.p99_us).map(|p99| p99 / 1000.0), 1.0),
        most(
            "resident memory, part of OpenBao's",
            "<= 0.33",
            ratio(rss("coffer"), rss("openbao")),
            1.0 / 3.0,
        ),
        most("p50 of reads, many : few, at 1,000/s", "<= 1.2", ratio(p50("paced-many"), p50("paced")), 1.2),
        most(
            "p50 of reads, many : few, as fast as can be",
            "<= 1.2",
            ratio(p50("reads-many"), p50("reads")),
            1.2,
        ),
        most("start to first read with many, s", "< 5", start("start-many"), 5.0),
        most("the same after a kill, s", "< 5", start("start-many-after-kill"), 5.0),
    ]
}

/// One row in words.
pub(crate) fn line(row: &Row) -> String {
    let mut text = format!("{:<22}", row.name);
    let mut add = |label: &str, value: Option<f64>, decimals: usize| {
        if let Some(value) = value {
            let _ = write!(text, " {label} {value:.decimals$}");
        }
    };
    add("per second", row.rate, 0);
    add("p50 us", row.p50_us, 0);
    add("p99 us", row.p99_us, 0);
    add("p99.9 us", row.p999_us, 0);
    add("server cpu us", row.cpu_us, 1);
    add("seconds", row.seconds, 2);
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    add("RSS MiB", row.memory.map(|m| mebibytes(m.rss)), 0);
    add("anonymous MiB", row.memory.map(|m| mebibytes(m.anonymous)), 0);
    add("secrets", row.secrets.map(|n| n as f64), 0);
    add("others' cores", row.others, 2);
    if row.errors > 0 {
        let _ = write!(text, " ERRORS {} (first: status {})", row.errors, row.first_error.unwrap_or(0));
    }
    if row.unanswered > 0 {
        let _ = write!(text, " unanswered {}", row.unanswered);
    }
    text
}

/// Prints all of it.
pub(crate) fn print(results: &Results, settings: &Settings) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\nmode {}, {:.0} s in all", settings.mode, results.took.as_secs_f64())?;
    let mut last = "";
    for row in &results.rows {
        if row.service != last {
            writeln!(out, "\n{}", row.service)?;
            last = row.service;
        }
        writeln!(out, "  {}", line(row))?;
    }
    writeln!(out, "\n{:<44} {:>10} {:>9}", "goal", "wanted", "reached")?;
    for goal in goals(results) {
        let reached = goal.reached.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
        writeln!(out, "{:<44} {:>10} {reached:>9}  {}", goal.what, goal.wanted, goal.verdict())?;
    }
    for failure in &results.failures {
        writeln!(out, "FAILED {failure}")?;
    }
    Ok(out.flush()?)
}

/// Writes JSON, plot and tables.
pub(crate) fn write(results: &Results, settings: &Settings) -> Result<()> {
    let out = &settings.out;
    std::fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    let put = |name: &str, text: &str| {
        let path = out.join(name);
        std::fs::write(&path, text).with_context(|| path.display().to_string())
    };
    put(&format!("{}.json", settings.mode), &format!("{:#}\n", as_json(results, settings)))?;
    put(&format!("{}.svg", settings.mode), &svg::plot(results))?;
    put(&format!("{}.md", settings.mode), &markdown::tables(results, settings))?;
    writeln!(std::io::stdout(), "\nwritten: {0}/{1}.json, .svg and .md", out.display(), settings.mode)?;
    Ok(())
}

fn as_json(results: &Results, settings: &Settings) -> Value {
    let rows: Vec<Value> = results.rows.iter().map(row_json).collect();
    let goals: Vec<Value> = goals(results)
        .iter()
        .map(|goal| {
            json!({ "what": goal.what, "wanted": goal.wanted, "reached": goal.reached.map(round), "met": goal.met })
        })
        .collect();
    json!({
        "unix_time": SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        "mode": settings.mode,
        "seconds": round(results.took.as_secs_f64()),
        "machine": results.machine,
        "failures": results.failures,
        "goals": goals,
        "rows": rows,
    })
}

fn row_json(row: &Row) -> Value {
    let mut map = serde_json::Map::new();
    map.insert("service".into(), row.service.into());
    map.insert("row".into(), row.name.clone().into());
    let numbers = [
        ("per_second", row.rate),
        ("p50_us", row.p50_us),
        ("p99_us", row.p99_us),
        ("p999_us", row.p999_us),
        ("server_cpu_us", row.cpu_us),
        ("seconds", row.seconds),
        ("others_cores", row.others),
    ];
    for (name, value) in numbers {
        if let Some(value) = value {
            map.insert(name.into(), round(value).into());
        }
    }
    if let Some(memory) = row.memory {
        map.insert("rss_bytes".into(), memory.rss.into());
        map.insert("anonymous_bytes".into(), memory.anonymous.into());
        map.insert("pss_bytes".into(), json!(memory.pss));
    }
    if let Some(secrets) = row.secrets {
        map.insert("secrets".into(), secrets.into());
    }
    if row.rate.is_some() && row.secrets.is_none() {
        map.insert("errors".into(), row.errors.into());
        map.insert("unanswered".into(), row.unanswered.into());
    }
    Value::Object(map)
}

fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
