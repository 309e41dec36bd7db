//! Closed loops: each connection asks again as soon as it is answered. Finds how much a server can do.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustls::ClientConfig;
use tokio::task::LocalSet;

use crate::connection::Connection;
use crate::histogram::Histogram;
use crate::machine;
use crate::process::{Process, processor_time};
use crate::requests::{self, Maker, Rng, Turn};

/// Whom to ask, and with how many at once.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) tls: Arc<ClientConfig>,
    pub(crate) connections: usize,
    pub(crate) threads: usize,
}

/// What was seen.
pub(crate) struct Measured {
    pub(crate) latencies: Histogram,
    /// Of these, the writes of a mix.
    pub(crate) writes: Histogram,
    pub(crate) errors: u64,
    /// The first status that was no success.
    pub(crate) first_error: Option<u16>,
    pub(crate) took: Duration,
    /// Processor time of the server for each request, in microseconds.
    pub(crate) server_cpu_us: f64,
    /// Arrivals that were planned and not answered in time.
    pub(crate) unanswered: u64,
    /// How many cores' time others on this machine took meanwhile; none where nobody knows.
    pub(crate) others: Option<f64>,
}

impl Measured {
    pub(crate) fn rate(&self) -> f64 {
        self.latencies.count() as f64 / self.took.as_secs_f64()
    }
}

/// What one thread saw.
pub(crate) struct Seen {
    pub(crate) latencies: Histogram,
    pub(crate) writes: Histogram,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<u16>,
    pub(crate) unanswered: u64,
}

impl Seen {
    pub(crate) fn new() -> Self {
        Self {
            latencies: Histogram::new(),
            writes: Histogram::new(),
            errors: 0,
            first_error: None,
            unanswered: 0,
        }
    }

    pub(crate) fn count(&mut self, status: u16, latency: Duration) {
        if (200..300).contains(&status) {
            self.latencies.record(latency);
        } else {
            self.errors += 1;
            self.first_error.get_or_insert(status);
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.latencies.merge(&other.latencies);
        self.writes.merge(&other.writes);
        self.errors += other.errors;
        self.first_error = self.first_error.or(other.first_error);
        self.unanswered += other.unanswered;
    }
}

/// The span that counts: what began before it is warm-up.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    pub(crate) warm_up: Duration,
    pub(crate) measure: Duration,
}

/// Runs `work` on each thread, each with a runtime of its own; measures the server meanwhile. `work` gets the thread's
/// number and a barrier to pass when its connections are open.
pub(crate) fn on_threads<F>(target: &Target, span: Span, server: &Process, work: F) -> Result<Measured>
where
    F: Fn(usize, &Barrier) -> Result<Seen> + Send + Sync,
{
    let ready = Barrier::new(target.threads + 1);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..target.threads)
            .map(|number| {
                let (work, ready) = (&work, &ready);
                scope.spawn(move || work(number, ready))
            })
            .collect();
        ready.wait();
        std::thread::sleep(span.warm_up);
        let (since, cpu, all) = (Instant::now(), server.cpu()?, shared_time());
        std::thread::sleep(span.measure);
        let (took, cpu) = (since.elapsed(), server.cpu()?.saturating_sub(cpu));
        let others = shared_time().zip(all).map(|(now, then)| {
            now.saturating_sub(then).saturating_sub(cpu).as_secs_f64() / took.as_secs_f64()
        });
        let mut seen = Seen::new();
        for thread in threads {
            let part = thread.join().map_err(|_| anyhow::anyhow!("a thread of the generator panicked"))?;
            seen.merge(&part?);
        }
        let answered = (seen.latencies.count() + seen.errors).max(1);
        Ok(Measured {
            server_cpu_us: cpu.as_secs_f64() * 1e6 / answered as f64,
            latencies: seen.latencies,
            writes: seen.writes,
            errors: seen.errors,
            first_error: seen.first_error,
            unanswered: seen.unanswered,
            others,
            took,
        })
    })
}

/// Processor time of everybody but this process.
fn shared_time() -> Option<Duration> {
    machine::busy().zip(processor_time("self").ok()).map(|(all, own)| all.saturating_sub(own))
}

/// Asks as fast as it is answered.
pub(crate) fn closed(target: &Target, span: Span, maker: &Maker, server: &Process) -> Result<Measured> {
    on_threads(target, span, server, |thread, ready| {
        local(async {
            let mut connections = connect(target, thread).await;
            ready.wait();
            let start = Instant::now();
            let tasks: Vec<_> = std::mem::take(connections.as_mut().map_err(|e| anyhow::anyhow!("{e:#}"))?)
                .into_iter()
                .map(|(number, connection)| {
                    tokio::task::spawn_local(ask_again(number, connection, start, span, Arc::clone(maker)))
                })
                .collect();
            let mut seen = Seen::new();
            for task in tasks {
                seen.merge(&task.await??);
            }
            Ok(seen)
        })
    })
}

async fn ask_again(
    number: usize,
    mut connection: Connection,
    start: Instant,
    span: Span,
    maker: Maker,
) -> Result<Seen> {
    let mut rng = Rng::new(number as u64 + 1);
    let mut seen = Seen::new();
    let mut request = Vec::with_capacity(4096);
    let (from, until) = (start + span.warm_up, start + span.warm_up + span.measure);
    loop {
        request.clear();
        maker(Turn { connection: number, number: 0 }, &mut rng, &mut request);
        let since = Instant::now();
        if since >= until {
            return Ok(seen);
        }
        let status = connection.send(&request).await?;
        let now = Instant::now();
        if now >= from && now < until {
            seen.count(status, now - since);
        }
    }
}

/// The connections of one thread, with their numbers.
pub(crate) async fn connect(target: &Target, thread: usize) -> Result<Vec<(usize, Connection)>> {
    let mut connections = Vec::new();
    for number in (thread..target.connections).step_by(target.threads) {
        connections.push((number, Connection::open(target.address, &target.tls).await?));
    }
    Ok(connections)
}

/// Runs a future on a runtime of this thread alone.
pub(crate) fn local<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, work)
}

/// Writes the secrets from `from` up to `to`, each once, until `limit` is over. Gives how many there are then, all
/// from 0 on, and how long it took.
pub(crate) fn fill(
    target: &Target,
    tokens: &Arc<Vec<String>>,
    from: u64,
    to: u64,
    limit: Duration,
) -> Result<(u64, Duration)> {
    let next = AtomicU64::new(from);
    let since = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..target.threads)
            .map(|thread| {
                let next = &next;
                scope.spawn(move || {
                    local(async {
                        let connections = connect(target, thread).await?;
                        let writers = connections.into_iter().map(|(number, mut connection)| {
                            let tokens = Arc::clone(tokens);
                            async move {
                                let mut rng = Rng::new(number as u64 + 1_000_000);
                                let mut request = Vec::with_capacity(4096);
                                while since.elapsed() < limit {
                                    // Only what is taken is written, and what is taken is written: no hole stays.
                                    let secret = next.fetch_add(1, Ordering::Relaxed);
                                    if secret >= to {
                                        break;
                                    }
                                    request.clear();
                                    let token = &tokens[number % tokens.len()];
                                    requests::write(&mut request, token, secret, &mut rng);
                                    write_once(&mut connection, &request).await?;
                                }
                                Ok(())
                            }
                        });
                        together(writers).await
                    })
                })
            })
            .collect();
        for thread in threads {
            thread.join().map_err(|_| anyhow::anyhow!("a thread of the loader panicked"))??;
        }
        anyhow::Ok(())
    })
    .context("loading secrets")?;
    Ok((next.into_inner().min(to), since.elapsed()))
}

/// Writes one secret; a server that is busy with itself (OpenBao without a leader) gets some time.
async fn write_once(connection: &mut Connection, request: &[u8]) -> Result<()> {
    const PATIENCE: Duration = Duration::from_secs(30);
    let since = Instant::now();
    loop {
        let (status, body) = connection.ask(request).await?;
        match status {
            200 => return Ok(()),
            // It has lost its leader and names another: itself, in a moment.
            307 | 500.. if since.elapsed() < PATIENCE => tokio::time::sleep(Duration::from_millis(50)).await,
            _ => bail!("loading: {status} {}", String::from_utf8_lossy(&body)),
        }
    }
}

async fn together<F: Future<Output = Result<()>>>(all: impl Iterator<Item = F>) -> Result<()> {
    let mut all: Vec<_> = all.map(Box::pin).collect();
    let mut results = Vec::new();
    std::future::poll_fn(|cx| {
        all.retain_mut(|one| match one.as_mut().poll(cx) {
            std::task::Poll::Ready(result) => {
                results.push(result);
                false
            }
            std::task::Poll::Pending => true,
        });
        if all.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    results.into_iter().collect()
}
