//! Tells the application that its files changed: an empty POST to an address of its own pod. Never
//! sends a secret, and never leaves loopback.

use crate::error::AgentError;
use bytes::Bytes;
use coffer_client::wire::ChangeAction;
use http::{Request, Uri};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::net::IpAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

const PAUSES: [Duration; 3] = [Duration::from_millis(500), Duration::from_secs(3), Duration::from_secs(15)];
const CALL: Duration = Duration::from_secs(5);

/// Carries out the actions of a change, each in the background, so that an application that does not
/// answer holds nothing up.
pub(crate) fn change(secret: &str, actions: &[ChangeAction]) {
    for action in actions {
        let secret = secret.to_owned();
        match action {
            ChangeAction { http: Some(call), .. } => {
                let url = call.post.clone();
                tokio::spawn(async move { post_until_heard(&secret, &url).await });
            }
            ChangeAction { signal: Some(signal), .. } => {
                tracing::warn!(secret, signal, "this version cannot signal: use on-change http");
            }
            _ => {
                tracing::warn!(secret, "the document asks for a way of notifying this version does not know")
            }
        }
    }
}

async fn post_until_heard(secret: &str, url: &str) {
    for pause in PAUSES {
        match post(url).await {
            Ok(()) => {
                tracing::info!(secret, url, "application notified");
                return;
            }
            Err(error) => tracing::warn!(secret, %error, "application not notified"),
        }
        sleep(pause).await;
    }
    if let Err(error) = post(url).await {
        tracing::error!(secret, %error, "application not notified, giving up");
    }
}

async fn post(url: &str) -> Result<(), AgentError> {
    let failed = |why: String| AgentError::Notify { url: url.to_owned(), why };
    let (host, port, uri) = target(url).map_err(|why| failed(why.to_owned()))?;
    let call = async {
        let stream = TcpStream::connect((host.as_str(), port)).await.map_err(|e| failed(e.to_string()))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| failed(e.to_string()))?;
        let serving = tokio::spawn(connection);
        let authority = uri.authority().map_or("localhost", |a| a.as_str());
        let request = Request::post(uri.path_and_query().map_or("/", |p| p.as_str()))
            .header(http::header::HOST, authority)
            .header(http::header::CONTENT_LENGTH, "0")
            .body(Empty::<Bytes>::new())
            .map_err(|e| failed(e.to_string()))?;
        let reply = sender.send_request(request).await.map_err(|e| failed(e.to_string()));
        serving.abort();
        let status = reply?.status();
        if status.is_success() { Ok(()) } else { Err(failed(format!("status {}", status.as_u16()))) }
    };
    timeout(CALL, call).await.unwrap_or_else(|_| Err(failed("no answer".to_owned())))
}

pub(crate) fn target(url: &str) -> Result<(String, u16, Uri), &'static str> {
    let uri: Uri = url.parse().map_err(|_| "is not a URL")?;
    if uri.scheme_str() != Some("http") {
        return Err("needs http://");
    }
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
    let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if !loopback {
        return Err("is not on loopback");
    }
    let port = uri.port_u16().unwrap_or(80);
    Ok((host, port, uri))
}

#[cfg(test)]
mod tests {
    use super::target;

    #[test]
    fn only_loopback_is_called() {
        assert!(target("http://127.0.0.1:8080/-/reload").is_ok());
        assert!(target("http://[::1]:8080/").is_ok());
        for bad in ["http://169.254.169.254/", "https://127.0.0.1/", "http://example.com/", "x"] {
            assert!(target(bad).is_err(), "{bad}");
        }
    }
}
