//! The least HTTP/1.1 client there can be: what is sent is exactly what a story says, whatever a library would
//! make of the path or the method.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Nothing in a story takes this long; a server that hangs fails its story.
const PATIENCE: Duration = Duration::from_secs(60);

/// A request, ready to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) method: String,
    /// With `/v1/` and the query.
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// What came back.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// A header's value; empty when there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// The same, with a directory's name taken out.
    pub(crate) fn without(mut self, home: &std::path::Path) -> Self {
        if let Ok(text) = std::str::from_utf8(&self.body) {
            self.body = text.replace(&home.display().to_string(), "<home>").into_bytes();
        }
        self
    }
}

/// Sends a request on a connection of its own.
pub(crate) fn exchange(address: SocketAddr, sent: &Sent) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut head =
        format!("{} {} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n", sent.method, sent.target);
    for (name, value) in &sent.headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("content-length: {}\r\n\r\n", sent.body.len());
    stream.write_all(head.as_bytes())?;
    // A server may refuse a large body before it has read it.
    let _refused_early = stream.write_all(&sent.body);
    read(BufReader::new(stream), &sent.method)
}

fn read(mut from: impl BufRead, method: &str) -> std::io::Result<Answer> {
    let wrong = |what: &str| std::io::Error::other(format!("no HTTP answer: {what}"));
    let mut line = String::new();
    from.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| wrong(&line))?;
    let mut headers = Vec::new();
    loop {
        line.clear();
        from.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut answer = Answer { status, headers, body: Vec::new() };
    if method == "HEAD" || status == 204 {
        return Ok(answer);
    }
    if answer.header("transfer-encoding") == "chunked" {
        loop {
            line.clear();
            from.read_line(&mut line)?;
            let size = usize::from_str_radix(line.trim(), 16).map_err(|_| wrong("a chunk without a size"))?;
            let mut chunk = vec![0; size + 2];
            from.read_exact(&mut chunk)?;
            answer.body.extend_from_slice(&chunk[..size]);
            if size == 0 {
                return Ok(answer);
            }
        }
    }
    match answer.header("content-length").parse() {
        Ok(length) => {
            answer.body = vec![0; length];
            from.read_exact(&mut answer.body)?;
        }
        Err(_) => drop(from.read_to_end(&mut answer.body)?),
    }
    Ok(answer)
}
