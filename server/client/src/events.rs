//! The event stream: one JSON object a line for as long as the connection lives. Never reconnects
//! by itself; the caller resumes from the last position it has handled.

use crate::call::{read_body, refusal};
use crate::{Call, Client, ClientError};
use bytes::BytesMut;
use coffer_wire::Event;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;

const LINE_BYTES_MAX: usize = 64 << 10;

/// Events as they happen.
#[derive(Debug)]
pub struct EventStream {
    body: Incoming,
    buffer: BytesMut,
    idle: std::time::Duration,
    path: String,
}

impl Client {
    /// Subscribes to the events of a pattern such as `*` or `delivery/*`, after a position.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn subscribe(&self, pattern: &str, after: Option<&str>) -> Result<EventStream, ClientError> {
        let path = format!("sys/events/subscribe/{pattern}");
        let query = after.map(|position| [("after", position)]);
        let query = query.as_ref().map_or(&[][..], |pairs| &pairs[..]);
        let call = Call { method: "GET", path: &path, query, any_status: false };
        let request = self.request(call, None::<&()>)?;
        let limits = self.transport.limits;
        let opening = async {
            let (_connection, response) = self.transport.send(&call, request).await?;
            let status = response.status();
            if status.is_success() {
                return Ok(response.into_body());
            }
            let text = read_body(call, response, limits.body_bytes_max).await?;
            Err(refusal(status, &text))
        };
        let body = timeout(limits.call, opening)
            .await
            .map_err(|_| ClientError::Timeout { path: path.clone(), seconds: limits.call.as_secs() })??;
        Ok(EventStream { body, buffer: BytesMut::new(), idle: limits.stream_idle, path })
    }
}

impl EventStream {
    /// The next event; `None` once the server has ended the stream. Safe to cancel: what has
    /// arrived stays in the buffer.
    ///
    /// # Errors
    /// [`ClientError::Timeout`] when the server has been silent for too long, and as for any call.
    pub async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        loop {
            while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end + 1);
                let line = line.trim_ascii();
                if !line.is_empty() {
                    return self.parse(line).map(Some);
                }
            }
            if self.buffer.len() > LINE_BYTES_MAX {
                return Err(ClientError::TooLarge { path: self.path.clone(), limit: LINE_BYTES_MAX });
            }
            let frame = timeout(self.idle, self.body.frame()).await.map_err(|_| ClientError::Timeout {
                path: self.path.clone(),
                seconds: self.idle.as_secs(),
            })?;
            match frame {
                None => return Ok(None),
                Some(Err(error)) => {
                    return Err(ClientError::Unreachable(format!("GET {}: {error}", self.path)));
                }
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
            }
        }
    }

    fn parse(&self, line: &[u8]) -> Result<Event, ClientError> {
        serde_json::from_slice(line).map_err(|e| ClientError::Decode {
            path: self.path.clone(),
            what: format!("{:?} error at column {}", e.classify(), e.column()),
        })
    }
}
