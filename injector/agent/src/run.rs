//! The two verbs: `run` until told to stop, `ready` for the startup probe. Never holds logic of its own.

use crate::config::{self, Config};
use crate::keeper::Keeper;
use crate::status::Status;
use crate::{clock, watch};
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch as channel};
use tokio::time::{sleep, timeout};

/// How long giving everything back may take; well within a pod's grace period.
const FAREWELL: Duration = Duration::from_secs(8);
/// The longest sleep: a bound on what a mistake in the plan can cost.
const SLEEP_MAX_MS: u64 = 600_000;

/// `coffer-agent run`.
pub fn run() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_max_level(tracing::Level::INFO)
        .init();
    // A panic's message may quote what it was about, and that may be a secret: only its place is told.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or_else(String::new, ToString::to_string);
        tracing::error!(place, "internal error");
    }));
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "no runtime");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(keep()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `coffer-agent ready`: succeeds once every file is in place, else says what the agent waits for.
pub fn ready() -> ExitCode {
    match config::state_dir_from_env() {
        Ok(dir) => {
            let status = Status::new(&dir);
            if status.is_ready() {
                return ExitCode::SUCCESS;
            }
            say(&status.line())
        }
        Err(error) => say(&error.to_string()),
    }
}

/// Says what can be asked for.
pub fn usage() -> ExitCode {
    say("usage: coffer-agent run | ready")
}

fn say(line: &str) -> ExitCode {
    // If stderr is closed there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "{line}");
    ExitCode::FAILURE
}

async fn keep() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let config = Config::from_env()?;
    let mut keeper = Keeper::new(config)?;
    let (clients, watching) = channel::channel(keeper.client());
    let (signals, mut news) = mpsc::channel(64);
    tokio::spawn(watch::follow(watching, signals));
    let mut accessor = None;
    loop {
        // A step that is cut off by the signal may have had an effect at the server; it belongs to the
        // token then, and the token's revocation takes it along.
        let wake_ms = tokio::select! {
            wake_ms = keeper.settle(clock::boot_ms()) => wake_ms,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        };
        let now_accessor = keeper.state().token.as_ref().map(|t| t.accessor.clone());
        if now_accessor != accessor {
            accessor = now_accessor;
            clients.send_replace(keeper.client());
        }
        let pause = wake_ms.unwrap_or(u64::MAX).saturating_sub(clock::boot_ms()).min(SLEEP_MAX_MS);
        tokio::select! {
            () = sleep(Duration::from_millis(pause)) => {}
            Some(signal) = news.recv() => keeper.mark(&signal),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    tracing::info!("stopping");
    if timeout(FAREWELL, keeper.farewell()).await.is_err() {
        tracing::warn!("the server did not answer in time; leases end by the operator's pod watch");
    }
    Ok(())
}
