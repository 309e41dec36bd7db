//! One keep-alive HTTP/1.1 connection over TLS 1.3, as thin as can be: what the generator spends, the server lacks.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The longest reply that is taken.
const REPLY_BYTES_MAX: usize = 4 << 20;

/// A connection.
pub(crate) struct Connection {
    stream: TlsStream<TcpStream>,
    buffer: Vec<u8>,
    filled: usize,
}

/// A reply's head, and where its body lies in the buffer.
struct Head {
    status: u16,
    body: usize,
    length: Option<usize>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr, tls: &Arc<ClientConfig>) -> Result<Self> {
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::from(address.ip());
        let stream = TlsConnector::from(Arc::clone(tls)).connect(name, tcp).await?;
        Ok(Self { stream, buffer: vec![0; 16 << 10], filled: 0 })
    }

    /// Sends a whole request and waits for the whole reply; gives its status.
    pub(crate) async fn send(&mut self, request: &[u8]) -> Result<u16> {
        self.exchange(request).await.map(|(status, ..)| status)
    }

    /// The same, with the body.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> Result<(u16, Vec<u8>)> {
        let (status, start, end) = self.exchange(request).await?;
        Ok((status, self.buffer[start..end].to_vec()))
    }

    async fn exchange(&mut self, request: &[u8]) -> Result<(u16, usize, usize)> {
        self.stream.write_all(request).await?;
        self.stream.flush().await?;
        self.filled = 0;
        let head = loop {
            self.more().await?;
            if let Some(head) = head(&self.buffer[..self.filled])? {
                break head;
            }
        };
        match head.length {
            Some(length) => {
                while self.filled < head.body + length {
                    self.more().await?;
                }
                Ok((head.status, head.body, head.body + length))
            }
            None => {
                // Go's way with replies above 2 KiB: chunks, of which only the last one matters here.
                while !self.buffer[head.body..self.filled].ends_with(b"0\r\n\r\n") {
                    self.more().await?;
                }
                let end = self.join_chunks(head.body)?;
                Ok((head.status, head.body, end))
            }
        }
    }

    async fn more(&mut self) -> Result<()> {
        if self.filled == self.buffer.len() {
            if self.filled >= REPLY_BYTES_MAX {
                bail!("a reply is longer than {REPLY_BYTES_MAX} bytes");
            }
            self.buffer.resize(self.filled * 2, 0);
        }
        match self.stream.read(&mut self.buffer[self.filled..]).await? {
            0 => bail!("the server closed a connection"),
            count => self.filled += count,
        }
        Ok(())
    }

    /// Takes the chunks' lengths out of a body from `at` on; gives its end.
    fn join_chunks(&mut self, at: usize) -> Result<usize> {
        let (mut from, mut to) = (at, at);
        loop {
            let line = self.buffer[from..self.filled].windows(2).position(|w| w == b"\r\n");
            let line = line.context("a chunk without a length")?;
            let digits = std::str::from_utf8(&self.buffer[from..from + line])?;
            let length = usize::from_str_radix(digits.trim(), 16).context("a chunk's length")?;
            let start = from + line + 2;
            if length == 0 {
                return Ok(to);
            }
            if start + length > self.filled {
                bail!("a chunk longer than its body");
            }
            self.buffer.copy_within(start..start + length, to);
            to += length;
            from = start + length + 2;
        }
    }
}

fn head(bytes: &[u8]) -> Result<Option<Head>> {
    let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else { return Ok(None) };
    let digits = bytes.get(9..12).context("a reply without a status")?;
    let status = std::str::from_utf8(digits)?.parse()?;
    let lines = || bytes[..end].split(|b| *b == b'\n').skip(1);
    let value = |name: &str| {
        lines().find_map(|line| {
            let (key, value) = line.split_at(line.iter().position(|b| *b == b':')?);
            key.eq_ignore_ascii_case(name.as_bytes()).then(|| value[1..].trim_ascii())
        })
    };
    let length = match value("content-length") {
        Some(digits) => Some(std::str::from_utf8(digits)?.parse()?),
        None if value("transfer-encoding").is_some() => None,
        None => Some(0),
    };
    Ok(Some(Head { status, body: end + 4, length }))
}
