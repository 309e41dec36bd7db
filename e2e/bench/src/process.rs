//! A process that was started here: its end, its memory, its processor time. Never touches any other.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, SysconfVar, sysconf};

/// How long an orderly end may take.
const END: Duration = Duration::from_secs(30);

/// A running process. Killed when dropped.
pub(crate) struct Process {
    child: Child,
    name: String,
}

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// Resident.
    pub(crate) rss: u64,
    /// Of that: not backed by a file.
    pub(crate) anonymous: u64,
    /// Shared pages counted by their share; none where the kernel does not tell.
    pub(crate) pss: Option<u64>,
}

impl Process {
    /// Starts a program whose outputs go to `log`.
    pub(crate) fn start(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("starting {name}"))?;
        Ok(Self { child, name: name.to_owned() })
    }

    /// Asks it to end, and waits.
    pub(crate) fn stop(&mut self) -> Result<()> {
        kill(Pid::from_raw(self.child.id().try_into()?), Signal::SIGTERM)?;
        let since = Instant::now();
        while self.child.try_wait()?.is_none() {
            if since.elapsed() > END {
                bail!("{} did not end within {} s", self.name, END.as_secs());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Ends it at once, as a crash would.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Fails if it has ended by itself.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended by itself: {status}", self.name),
        }
    }

    /// Processor time used so far.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        processor_time(&self.child.id().to_string())
    }

    /// Memory in use now.
    pub(crate) fn memory(&self) -> Result<Memory> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id()));
        Ok(Memory {
            rss: kibibytes(&status, "VmRSS:").context("/proc: VmRSS")?,
            anonymous: kibibytes(&status, "RssAnon:").context("/proc: RssAnon")?,
            pss: rollup.ok().and_then(|text| kibibytes(&text, "Pss:")),
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Ended already, mostly.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Processor time a process has used so far, by its id or `self`.
pub(crate) fn processor_time(id: &str) -> Result<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    // The name may hold anything but ends at the last parenthesis.
    let fields = text.rsplit_once(')').context("/proc: stat")?.1;
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).map(|n| n.parse::<u64>().unwrap_or(0)).sum();
    let per_second = sysconf(SysconfVar::CLK_TCK)?.context("clock ticks")?;
    Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
}

fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|number| number * 1024)
}
