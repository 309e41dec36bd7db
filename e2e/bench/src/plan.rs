//! What is measured, in which order. One server at a time has the machine to itself.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};

use crate::load::{self, Measured, Span};
use crate::machine;
use crate::open_loop;
use crate::pki::Pki;
use crate::process::Memory;
use crate::requests;
use crate::service::{Kind, Service};
use crate::settings::Settings;

/// One measured line. What does not apply is none.
#[derive(Clone, Default)]
pub(crate) struct Row {
    pub(crate) service: &'static str,
    pub(crate) name: String,
    pub(crate) rate: Option<f64>,
    pub(crate) p50_us: Option<f64>,
    pub(crate) p99_us: Option<f64>,
    pub(crate) p999_us: Option<f64>,
    /// Server's processor time a request.
    pub(crate) cpu_us: Option<f64>,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<u16>,
    pub(crate) unanswered: u64,
    /// Cores' time that others took meanwhile.
    pub(crate) others: Option<f64>,
    pub(crate) seconds: Option<f64>,
    pub(crate) memory: Option<Memory>,
    /// Secrets there were.
    pub(crate) secrets: Option<u64>,
}

/// Everything that was seen.
pub(crate) struct Results {
    pub(crate) machine: Value,
    pub(crate) rows: Vec<Row>,
    pub(crate) took: Duration,
    /// What could not be measured to the end, and why.
    pub(crate) failures: Vec<String>,
}

impl Results {
    pub(crate) fn find(&self, service: &str, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.service == service && row.name == name)
    }
}

/// Measures all that the settings ask for.
pub(crate) fn run(settings: &Settings) -> Result<Results> {
    let since = Instant::now();
    let mut results = Results {
        machine: machine::describe(),
        rows: Vec::new(),
        took: Duration::ZERO,
        failures: Vec::new(),
    };
    results.machine["connections"] = json!(settings.connections);
    results.machine["generator_threads"] = json!(settings.threads);
    let pki = Pki::new()?;
    for kind in Kind::ALL {
        if settings.wants(kind.name()) {
            eprintln!("-- {}", kind.name());
            let mut one = One { settings, kind, rows: &mut results.rows };
            // What was measured before it failed counts, and so do the others.
            if let Err(error) = one.measure(&pki) {
                eprintln!("   {} FAILED: {error:#}", kind.name());
                results.failures.push(format!("{}: {error:#}", kind.name()));
            }
        }
    }
    results.took = since.elapsed();
    Ok(results)
}

struct One<'a> {
    settings: &'a Settings,
    kind: Kind,
    rows: &'a mut Vec<Row>,
}

impl One<'_> {
    fn measure(&mut self, pki: &Pki) -> Result<()> {
        let mut service = Service::start(self.kind, self.settings, pki)?;
        let secrets = self.settings.secrets;
        if self.kind == Kind::Ceiling {
            self.closed("reads", &service, &requests::reads(&service.tokens, secrets))?;
            self.paced("paced", &service, secrets)?;
            self.mix("mix", self.settings.mix_rate, &service, secrets)?;
            return self.memory("memory", &service, secrets);
        }
        self.load("load", &service, 0, secrets, Duration::from_secs(600))?;
        self.closed("reads", &service, &requests::reads(&service.tokens, secrets))?;
        self.paced("paced", &service, secrets)?;
        self.closed("writes", &service, &requests::writes(&service.tokens, secrets))?;
        self.memory("memory", &service, secrets)?;
        self.mix("mix", self.settings.mix_rate, &service, secrets)?;
        // A tenth of it, which both can do: their latencies compare.
        self.mix("mix-tenth", self.settings.mix_rate / 10, &service, secrets)?;
        if self.settings.wants_row("logins") {
            match service.approle()? {
                Some((role, secret)) => self.closed("logins", &service, &requests::logins(&role, &secret))?,
                None => eprintln!("   logins: no AppRole here"),
            }
        }
        self.closed("creates", &service, &requests::creates(&service.tokens))?;
        self.start("start", &mut service, false, secrets)?;
        if self.kind != Kind::CofferDisk && self.settings.many > secrets {
            let limit = if self.kind == Kind::OpenBao {
                self.settings.load_limit_openbao
            } else {
                self.settings.load_limit
            };
            let there = self.load("load-many", &service, secrets, self.settings.many, limit)?;
            self.closed("reads-many", &service, &requests::reads(&service.tokens, there))?;
            self.paced("paced-many", &service, there)?;
            self.memory("memory-many", &service, there)?;
            self.start("start-many", &mut service, false, there)?;
            self.start("start-many-after-kill", &mut service, true, there)?;
        }
        service.process.stop()
    }

    fn span(&self) -> Span {
        Span { warm_up: self.settings.warm_up, measure: self.settings.measure }
    }

    fn closed(&mut self, name: &str, service: &Service, maker: &requests::Maker) -> Result<()> {
        if self.settings.wants_row(name) {
            let measured = load::closed(&service.target, self.span(), maker, &service.process)?;
            self.latencies(name, &measured);
        }
        Ok(())
    }

    fn mix(&mut self, name: &str, rate: u64, service: &Service, secrets: u64) -> Result<()> {
        self.planned(name, rate, service, &requests::mix(&service.tokens, secrets))
    }

    /// The two parts of a mix: a write waits for the disk, and with one in twenty being one, the p99 of all is theirs.
    fn parts(&mut self, name: &str, measured: &Measured) {
        for (part, of) in
            [("reads", measured.latencies.without(&measured.writes)), ("writes", measured.writes.clone())]
        {
            let at = |share: f64| Some(of.quantile_us(share));
            self.add(Row {
                name: format!("{name}-{part}"),
                p50_us: at(0.5),
                p99_us: at(0.99),
                p999_us: at(0.999),
                others: measured.others,
                ..Row::default()
            });
        }
    }

    /// Reads at a rate that leaves every server idle most of the time: what one reader waits.
    fn paced(&mut self, name: &str, service: &Service, secrets: u64) -> Result<()> {
        let rate = self.settings.mix_rate / 10;
        self.planned(name, rate, service, &requests::reads(&service.tokens, secrets))
    }

    fn planned(&mut self, name: &str, rate: u64, service: &Service, maker: &requests::Maker) -> Result<()> {
        if self.settings.wants_row(name) {
            // One thread: the pace needs little, and each more takes a core from the server.
            let target = load::Target { threads: 1, ..service.target.clone() };
            let measured = open_loop::planned(&target, self.span(), rate, maker, &service.process)?;
            self.latencies(name, &measured);
            if measured.writes.count() > 0 {
                self.parts(name, &measured);
            }
        }
        Ok(())
    }

    fn latencies(&mut self, name: &str, measured: &Measured) {
        let at = |share: f64| Some(measured.latencies.quantile_us(share));
        self.add(Row {
            name: name.to_owned(),
            rate: Some(measured.rate()),
            p50_us: at(0.5),
            p99_us: at(0.99),
            p999_us: at(0.999),
            cpu_us: Some(measured.server_cpu_us),
            errors: measured.errors,
            first_error: measured.first_error,
            unanswered: measured.unanswered,
            others: measured.others,
            ..Row::default()
        });
    }

    fn load(&mut self, name: &str, service: &Service, from: u64, to: u64, limit: Duration) -> Result<u64> {
        let (there, took) = load::fill(&service.target, &service.tokens, from, to, limit)?;
        let rate = (there - from) as f64 / took.as_secs_f64();
        let seconds = Some(took.as_secs_f64());
        let (name, secrets) = (name.to_owned(), Some(there));
        self.add(Row { name, rate: Some(rate), seconds, secrets, ..Row::default() });
        Ok(there)
    }

    fn memory(&mut self, name: &str, service: &Service, secrets: u64) -> Result<()> {
        let memory = Some(service.process.memory()?);
        self.add(Row { name: name.to_owned(), memory, secrets: Some(secrets), ..Row::default() });
        Ok(())
    }

    fn start(&mut self, name: &str, service: &mut Service, crash: bool, secrets: u64) -> Result<()> {
        if self.settings.wants_row(name) {
            let seconds = Some(service.restart(crash)?.as_secs_f64());
            self.add(Row { name: name.to_owned(), seconds, secrets: Some(secrets), ..Row::default() });
        }
        Ok(())
    }

    fn add(&mut self, row: Row) {
        let row = Row { service: self.kind.name(), ..row };
        eprintln!("   {}", crate::report::line(&row));
        self.rows.push(row);
    }
}
