//! Open loop: requests arrive at a fixed rate whether or not the earlier ones are answered, and latency counts from the
//! moment a request should have been sent. A server that falls behind shows it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::sync::{Notify, mpsc};

use crate::connection::Connection;
use crate::load::{Measured, Seen, Span, Target, connect, local, on_threads};
use crate::process::Process;
use crate::requests::{self, Maker, Rng, Turn};

/// After the end, how long late answers are waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Arrivals that nobody has taken up yet.
#[derive(Default)]
struct Line {
    waiting: VecDeque<(Instant, u64)>,
    ended: bool,
}

/// Sends `rate` requests a second.
pub(crate) fn planned(
    target: &Target,
    span: Span,
    rate: u64,
    maker: &Maker,
    server: &Process,
) -> Result<Measured> {
    on_threads(target, span, server, |thread, ready| {
        local(async {
            let mut connections = connect(target, thread).await;
            ready.wait();
            let start = Instant::now();
            let line = Rc::new(RefCell::new(Line::default()));
            let news = Rc::new(Notify::new());
            // Shared, so that what was answered counts also where somebody is still waiting at the end.
            let seen = Rc::new(RefCell::new(Seen::new()));
            let connections = std::mem::take(connections.as_mut().map_err(|e| anyhow::anyhow!("{e:#}"))?);
            let tasks: Vec<_> = connections
                .into_iter()
                .map(|(number, connection)| {
                    let (line, news, seen) = (Rc::clone(&line), Rc::clone(&news), Rc::clone(&seen));
                    let maker = Arc::clone(maker);
                    tokio::task::spawn_local(async move {
                        answer(number, connection, (start, span), maker, &line, &news, &seen).await
                    })
                })
                .collect();
            pace(target, thread, start, span, rate, &line, &news).await;
            let mut late = 0;
            let last = tokio::time::Instant::now() + PATIENCE;
            for task in tasks {
                match tokio::time::timeout_at(last, task).await {
                    Ok(ended) => ended??,
                    Err(_) => late += 1,
                }
            }
            let mut seen = seen.replace(Seen::new());
            seen.unanswered = late + line.borrow().waiting.len() as u64;
            Ok(seen)
        })
    })
}

/// Puts each arrival into the line at its time.
async fn pace(
    target: &Target,
    thread: usize,
    start: Instant,
    span: Span,
    rate: u64,
    line: &RefCell<Line>,
    news: &Notify,
) {
    let (sender, mut arrivals) = mpsc::unbounded_channel();
    let threads = target.threads as u64;
    let end = start + span.warm_up + span.measure;
    // Another thread's sleep: the runtime's timers are a millisecond coarse.
    let clock = std::thread::spawn(move || {
        // Where the kernel refuses, arrivals are up to 50 us late, and counted as late.
        let _ = nix::sys::prctl::set_timerslack(1);
        let mut number = thread as u64;
        loop {
            let due = start + Duration::from_secs_f64(number as f64 / rate as f64);
            if due >= end {
                return;
            }
            let wait = due.saturating_duration_since(Instant::now());
            if !wait.is_zero() {
                std::thread::sleep(wait);
            }
            if sender.send((due, number)).is_err() {
                return;
            }
            number += threads;
        }
    });
    while let Some(arrival) = arrivals.recv().await {
        line.borrow_mut().waiting.push_back(arrival);
        news.notify_one();
    }
    line.borrow_mut().ended = true;
    news.notify_waiters();
    // It has hung up: it is over.
    let _ = clock.join();
}

async fn answer(
    connection_number: usize,
    mut connection: Connection,
    (start, span): (Instant, Span),
    maker: Maker,
    line: &RefCell<Line>,
    news: &Notify,
    seen: &RefCell<Seen>,
) -> Result<()> {
    let mut rng = Rng::new(connection_number as u64 + 1);
    let mut request = Vec::with_capacity(4096);
    let from = start + span.warm_up;
    let give_up = from + span.measure + PATIENCE;
    loop {
        let told = news.notified();
        let (next, ended) = {
            let mut line = line.borrow_mut();
            (line.waiting.pop_front(), line.ended)
        };
        let Some((due, number)) = next else {
            if ended {
                return Ok(());
            }
            told.await;
            continue;
        };
        request.clear();
        maker(Turn { connection: connection_number, number }, &mut rng, &mut request);
        let status = connection.send(&request).await?;
        let now = Instant::now();
        if due >= from {
            let mut seen = seen.borrow_mut();
            seen.count(status, now - due);
            if requests::is_write(&request) && (200..300).contains(&status) {
                seen.writes.record(now - due);
            }
        }
        if now >= give_up {
            return Ok(());
        }
    }
}
