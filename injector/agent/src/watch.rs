//! One event stream for all documents of the pod. Where the server offers none, a slow poll stands in.
//! Never reads a document itself; it only says that one may have changed.

use crate::attempts::{Attempts, Subject};
use crate::clock;
use coffer_client::wire::Event;
use coffer_client::{Client, ClientError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout_at};

/// What the keeper should know.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Signal {
    /// Something happened at this path.
    Changed(String),
    /// Anything may have happened.
    Resync,
}

const POLL: Duration = Duration::from_secs(300);

/// Follows events for as long as someone listens. A new client, after a new login, restarts the stream.
pub(crate) async fn follow(mut clients: watch::Receiver<Option<Client>>, signals: mpsc::Sender<Signal>) {
    let mut position: Option<String> = None;
    let mut attempts = Attempts::default();
    let mut polled = Instant::now();
    loop {
        let client = clients.borrow_and_update().clone();
        let Some(client) = client else {
            if clients.changed().await.is_err() {
                return;
            }
            continue;
        };
        let outcome = tokio::select! {
            outcome = stream(&client, &mut position, &mut attempts, &signals) => outcome,
            changed = clients.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        if let Err(error) = outcome {
            tracing::debug!(%error, "event stream ended");
        }
        if signals.is_closed() {
            return;
        }
        attempts.failed(Subject::Login, clock::boot_ms(), clock::jitter());
        let pause = attempts.not_before(&Subject::Login).saturating_sub(clock::boot_ms());
        sleep(Duration::from_millis(pause)).await;
        if polled.elapsed() >= POLL + POLL / 4 * u32::from(clock::jitter()) / 255 {
            polled = Instant::now();
            let _ = signals.send(Signal::Resync).await;
        }
    }
}

async fn stream(
    client: &Client,
    position: &mut Option<String>,
    attempts: &mut Attempts,
    signals: &mpsc::Sender<Signal>,
) -> Result<(), ClientError> {
    let resuming = position.is_some();
    let mut events = match client.subscribe("*", position.as_deref()).await {
        // A position from before the server's restart may mean nothing to it.
        Err(error) if resuming && matches!(error.status(), Some(400 | 404 | 410)) => {
            *position = None;
            return Err(error);
        }
        other => other?,
    };
    if !resuming {
        // Between the agent's last read and this moment something may have been missed.
        let _ = signals.send(Signal::Resync).await;
    }
    let settled = Instant::now() + Duration::from_secs(60);
    loop {
        let event = match timeout_at(settled, events.next()).await {
            Ok(event) => event?,
            Err(_) => {
                attempts.succeeded(&Subject::Login);
                events.next().await?
            }
        };
        let Some(event) = event else { return Ok(()) };
        if signals.send(signal(position, event)).await.is_err() {
            return Ok(());
        }
    }
}

fn signal(position: &mut Option<String>, event: Event) -> Signal {
    let metadata = event.data.event.metadata;
    if !metadata.position.is_empty() {
        *position = Some(metadata.position);
    }
    if event.event_type.ends_with("resync") { Signal::Resync } else { Signal::Changed(metadata.path) }
}
