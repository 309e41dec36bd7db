//! `sys/events/subscribe`: events as lines of a response that does not end, or as websocket messages.
//!
//! Who may see which event is decided by the vault, anew for each one. Nothing is buffered here: a slow
//! reader makes the vault's stream wait, and is told by it what he missed.

use std::convert::Infallible;

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

use crate::answer;
use crate::parse::{Head, Unfit};
use crate::routes::{Admitted, request};
use crate::state::Api;

/// A subscriber says nothing but pongs and goodbye.
const INCOMING_BYTES_MAX: usize = 4 << 10;

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
    let upgrade = WebSocketUpgrade::from_request_parts(parts, &()).await.ok();
    let after = head.query.get("after").cloned();
    let request = request(api, id, head, admitted, Map::new());
    let events = match api.vault.subscribe(request, pattern, after).await {
        Ok(events) => Events { events, api: api.clone() },
        Err(refused) => return Ok(answer::audited(refused)),
    };
    Ok(match upgrade {
        None => answer::stream(Body::from_stream(lines(events))),
        Some(upgrade) => upgrade
            .max_message_size(INCOMING_BYTES_MAX)
            .max_frame_size(INCOMING_BYTES_MAX)
            .on_upgrade(|socket| messages(socket, events)),
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
                Next::Event(event) => socket.send(Message::Text(event.into())).await,
                Next::Silence => socket.send(Message::Ping(Bytes::new())).await,
                Next::End => break,
            },
            // Pings are answered by the library; all that counts is whether somebody is there.
            heard = socket.recv() => match heard {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => Ok(()),
            },
        };
        if sent.is_err() {
            return;
        }
    }
    let goodbye = CloseFrame { code: close_code::AWAY, reason: "the stream has ended".into() };
    let _already_gone = socket.send(Message::Close(Some(goodbye))).await.is_err();
}
