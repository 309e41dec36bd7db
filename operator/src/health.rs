//! `/healthz`: answers 200 while the process lives. Never says anything about the vault.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Duration, timeout};

const OK: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 3\r\nconnection: close\r\n\r\nok\n";
const NOT_FOUND: &[u8] = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
const REQUEST_BYTES_MAX: usize = 1024;

/// Serves for ever.
pub(crate) async fn serve(address: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address).await?;
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, usually. That is no reason to end what this endpoint only tells about.
                tracing::debug!("health connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // Each on its own and with a deadline, so that a silent client cannot keep a probe waiting.
        tokio::spawn(async move {
            if let Ok(Err(error)) = timeout(Duration::from_secs(2), answer(stream)).await {
                tracing::debug!("health connection: {error}");
            }
        });
    }
}

async fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut request = [0; REQUEST_BYTES_MAX];
    let length = stream.read(&mut request).await?;
    let known = request.get(..length).is_some_and(|text| text.starts_with(b"GET /healthz "));
    stream.write_all(if known { OK } else { NOT_FOUND }).await?;
    stream.shutdown().await
}
