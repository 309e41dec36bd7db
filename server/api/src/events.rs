//! `sys/events/subscribe`: events as lines of a response that does not end, or as websocket messages.
//!
//! Who may see which event is decided by the vault, anew for each one. Nothing is buffered here: a slow
//! reader makes the vault's stream wait, and is told by it what he missed.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use bytes::Bytes;
use coffer_vault::{EventStream, Operation};
use futures::StreamExt;
use futures::stream;
use http::request::Parts;
use serde_json::Map;
use tokio::time::timeout;

use crate::answer;
use crate::parse::{Head, Unfit};
use crate::routes::{Admitted, request};
use crate::state::{Api, Held};

/// A subscriber says nothing but pongs and goodbye.
const INCOMING_BYTES_MAX: usize = 4 << 10;
/// How long a websocket subscriber may take to take a message.
const SEND: Duration = Duration::from_secs(30);

/// Subscribes; permission is settled before anything is upgraded.
pub(crate) async fn subscribe(
    api: &Api,
    id: &str,
    parts: &mut Parts,
    head: Head,
    admitted: Admitted,
    pattern: &str,
) -> Result<Response, Unfit> {
    if head.operation != Operation::Read {
        return Err(Unfit::Method);
    }
    if head.wrap_ttl.is_some() {
        return Err(Unfit::Wrapping("a stream cannot be wrapped"));
    }
    let held = parts.extensions.get::<Held>().cloned();
    let upgrade = WebSocketUpgrade::from_request_parts(parts, &()).await.ok();
    let after = head.query.get("after").cloned();
    let request = request(api, id, head, admitted, (Map::new(), None));
    let events = match api.vault.subscribe(request, pattern, after).await {
        Ok(events) => Events { events, api: api.clone() },
        Err(refused) => return Ok(answer::audited(refused)),
    };
    Ok(match upgrade {
        None => answer::stream(Body::from_stream(lines(events))),
        Some(upgrade) => upgrade
            .max_message_size(INCOMING_BYTES_MAX)
            .max_frame_size(INCOMING_BYTES_MAX)
            .on_upgrade(|socket| async move {
                messages(socket, events).await;
                drop(held);
            }),
    })
}

/// A vault's stream, with the server's end and the silence between events.
struct Events {
    events: EventStream,
    api: Api,
}

enum Next {
    Event(String),
    Silence,
    End,
}

impl Events {
    /// Safe to cancel: an event that was not given out comes again.
    async fn next(&mut self) -> Next {
        let keep_alive = self.api.limits.stream_keep_alive;
        tokio::select! {
            biased;
            () = closing(&mut self.api) => Next::End,
            event = self.events.next() => event.map_or(Next::End, |event| Next::Event(event.to_string())),
            () = tokio::time::sleep(keep_alive) => Next::Silence,
        }
    }
}

async fn closing(api: &mut Api) {
    // That the sender is gone means the same.
    let _gone = api.closing.wait_for(|closing| *closing).await.is_err();
}

/// One JSON object a line; a blank line now and then, so that nobody on the way takes the silence for an end.
fn lines(events: Events) -> impl stream::Stream<Item = Result<Bytes, Infallible>> {
    stream::unfold(events, |mut events| async move {
        let line = match events.next().await {
            Next::Event(event) => Bytes::from(event + "\n"),
            Next::Silence => Bytes::from_static(b"\n"),
            Next::End => return None,
        };
        Some((Ok(line), events))
    })
}

async fn messages(mut socket: WebSocket, mut events: Events) {
    loop {
        let sent = tokio::select! {
            next = events.next() => match next {
                Next::Event(event) => send(&mut socket, Message::Text(event.into())).await,
                Next::Silence => send(&mut socket, Message::Ping(Bytes::new())).await,
                Next::End => break,
            },
            // Pings are answered by the library; all that counts is whether somebody is there.
            heard = socket.recv() => match heard {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => true,
            },
        };
        if !sent {
            return;
        }
    }
    let goodbye = CloseFrame { code: close_code::AWAY, reason: "the stream has ended".into() };
    let _already_gone = send(&mut socket, Message::Close(Some(goodbye))).await;
}

/// Whether the subscriber took it, in time: one who takes nothing keeps his seat from others.
async fn send(socket: &mut WebSocket, message: Message) -> bool {
    matches!(timeout(SEND, socket.send(message)).await, Ok(Ok(())))
}
