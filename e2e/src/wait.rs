//! Waiting for something to become true, with a limit and a reason. Never a bare sleep.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

const PAUSE: Duration = Duration::from_millis(50);

/// Calls `probe` until it gives a value. When `limit` is over, fails with what `probe` said last.
pub async fn eventually<T, F, Fut>(what: &str, limit: Duration, mut probe: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T>>,
{
    let start = Instant::now();
    loop {
        match probe().await {
            Ok(value) => return Ok(value),
            Err(why) if start.elapsed() > limit => {
                return Err(why.context(format!("{what}: not within {} s", limit.as_secs())));
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// As [`eventually`], and says how long it took.
pub async fn within<F, Fut>(what: &str, limit: Duration, mut probe: F) -> Result<Duration>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<bool>>,
{
    let start = Instant::now();
    eventually(what, limit, || {
        let answer = probe();
        async move { if answer.await? { Ok(()) } else { Err(anyhow!("still not so")) } }
    })
    .await?;
    Ok(start.elapsed())
}
