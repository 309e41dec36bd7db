//! Signing keys from a real HTTPS server with a private CA: what login needs in a cluster.

use std::sync::Arc;

use coffer_core::secret::{SecretBytes, SecretString};
use coffer_engines::webhook::{WebhookCall, Webhooks as _};
use coffer_vault::{
    ApiCall, ApiServer, Credential, FetchKeys as _, HttpKeys, HttpWebhooks, KeysQuery, Outbound,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Serves one kind of answer for ever, to who asks for keys with the right token; gives back its port and its certificate.
async fn api_server(answer: &'static str) -> Result<(u16, String), Box<dyn std::error::Error>> {
    serve(move |asked| {
        let asked = asked.to_lowercase();
        let allowed = asked.starts_with("get /openid/v1/jwks ")
            && asked.contains("authorization: bearer own-token\r\n");
        if allowed { answer.to_owned() } else { "HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n".to_owned() }
    })
    .await
}

/// Answers requests, each with what it makes of it.
async fn serve(
    answer: impl Fn(&str) -> String + Send + Sync + 'static,
) -> Result<(u16, String), Box<dyn std::error::Error>> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()])?;
    let pem = made.cert.pem();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(socket).await else { continue };
            let answer = answer(&request(&mut stream).await);
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    Ok((port, pem))
}

/// One request with its body, as text.
async fn request(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut text = String::new();
    let mut bytes = vec![0; 4096];
    loop {
        let read = stream.read(&mut bytes).await.unwrap_or(0);
        text.push_str(&String::from_utf8_lossy(&bytes[..read]));
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.trim().parse().unwrap()) {
                return text;
            }
        }
        if read == 0 {
            return text;
        }
    }
}

#[tokio::test]
async fn fetches_with_a_private_ca_and_the_servers_own_token() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let here = Outbound::allowing(&["127.0.0.0/8", "::1"])?;
    std::fs::write(dir.path().join("token"), "own-token\n")?;
    let keys = HttpKeys::with_dir(dir.path(), here.clone());
    let (port, pem) = api_server("HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n{\"keys\":[]}").await?;
    let query = KeysQuery {
        url: format!("https://localhost:{port}/openid/v1/jwks"),
        ca_pem: Some(pem.clone()),
        own_token: true,
    };
    assert_eq!(keys.fetch(&query).await?, "{\"keys\":[]}");
    // The same from the CA that Kubernetes puts beside the token.
    std::fs::write(dir.path().join("ca.crt"), &pem)?;
    assert!(keys.fetch(&KeysQuery { ca_pem: None, ..query.clone() }).await.is_ok());
    // The token goes nowhere else.
    assert_eq!(keys.fetch(&KeysQuery { own_token: false, ..query.clone() }).await, Err("status 403".into()));
    let (_, other) = api_server("").await?;
    assert!(keys.fetch(&KeysQuery { ca_pem: Some(other), ..query.clone() }).await.is_err(), "another CA");
    let plain = query.url.replace("https", "http");
    assert!(keys.fetch(&KeysQuery { url: plain, ..query.clone() }).await.is_err(), "never in the clear");
    // Nowhere that only this machine can reach, by name or by number, unless that is allowed.
    let elsewhere = HttpKeys::with_dir(dir.path(), Outbound::default());
    for host in ["localhost", "127.0.0.1", "[::1]"] {
        let url = query.url.replace("localhost", host);
        let refused = elsewhere.fetch(&KeysQuery { url, ..query.clone() }).await.unwrap_err();
        assert!(refused.contains("not allowed"), "{refused}");
    }
    let redirect = "HTTP/1.1 302 Found\r\nlocation: https://localhost/\r\ncontent-length: 0\r\n\r\n";
    let (port, pem) = api_server(redirect).await?;
    let url = format!("https://localhost:{port}/openid/v1/jwks");
    let query = KeysQuery { url, ca_pem: Some(pem), own_token: true };
    assert_eq!(keys.fetch(&query).await, Err("status 302".into()));
    Ok(())
}

#[tokio::test]
async fn asks_an_api_server_as_whom_it_is_told_with_the_token_as_it_is_now()
-> Result<(), Box<dyn std::error::Error>> {
    // Says what it was asked, and by whom.
    let (port, pem) = serve(|asked| {
        let line = asked.lines().next().unwrap_or_default();
        let by = asked.lines().find(|line| line.to_lowercase().starts_with("authorization:"));
        let body = asked.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let said = format!("{line}|{}|{body}", by.unwrap_or_default());
        let status = if asked.starts_with("POST") { "201 Created" } else { "404 Not Found" };
        format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{said}", said.len())
    })
    .await?;
    let dir = tempfile::tempdir()?;
    let here = Outbound::allowing(&["127.0.0.0/8", "::1"])?;
    let keys = HttpKeys::with_dir(dir.path(), here);
    let host = format!("https://localhost:{port}/");
    let mut server =
        ApiServer { host, ca_pem: Some(pem.clone()), own_ca: false, credential: Credential::Own };
    let review = ApiCall { path: "/review".into(), body: Some("{}".to_owned().into()) };
    let read = ApiCall { path: "/read".into(), body: None };
    assert!(keys.ask(&server, &read).await.unwrap_err().contains("own ServiceAccount token"));
    // kubelet replaces the file; the next question has the new token.
    for token in ["first", "second"] {
        std::fs::write(dir.path().join("token"), format!("{token}\n"))?;
        let reply = keys.ask(&server, &review).await?;
        let said = format!("POST /review HTTP/1.1|authorization: Bearer {token}|{{}}");
        assert_eq!((reply.status, reply.body), (201, said));
    }
    server.credential = Credential::Given("given".to_owned().into());
    let reply = keys.ask(&server, &read).await?;
    assert_eq!((reply.status, reply.body.as_str()), (404, "GET /read HTTP/1.1|authorization: Bearer given|"));
    // Trust: in the CA that was given, or the one beside the token, and in no other.
    server.ca_pem = None;
    assert!(keys.ask(&server, &read).await.is_err());
    server.own_ca = true;
    assert!(keys.ask(&server, &read).await.is_err(), "there is no CA beside the token");
    std::fs::write(dir.path().join("ca.crt"), &pem)?;
    assert!(keys.ask(&server, &read).await.is_ok());
    // Nowhere that only this machine can reach.
    let refused = HttpKeys::with_dir(dir.path(), Outbound::default()).ask(&server, &read).await.unwrap_err();
    assert!(refused.contains("not allowed"), "{refused}");
    Ok(())
}

#[tokio::test]
async fn a_webhook_is_asked_over_https_and_only_where_it_may() -> Result<(), Box<dyn std::error::Error>> {
    let (port, pem) = serve(|asked| {
        let lower = asked.to_lowercase();
        let good = lower.starts_with("post /rotate ")
            && lower.contains("idempotency-key: one\r\n")
            && lower.contains("content-type: application/json\r\n")
            && lower.contains("authorization: bearer hook-secret\r\n")
            && asked.ends_with("{\"action\":\"rotate\"}");
        match good {
            true => "HTTP/1.1 200 OK\r\ncontent-length: 16\r\n\r\n{\"data\":{\"a\":1}}".to_owned(),
            // Redirects would take the secret elsewhere.
            false => "HTTP/1.1 307 No\r\nlocation: /rotate\r\ncontent-length: 0\r\n\r\n".to_owned(),
        }
    })
    .await?;
    let call = |path: &str, bearer: &str| WebhookCall {
        url: format!("https://localhost:{port}/{path}"),
        ca_pem: Some(pem.clone()),
        headers: vec![
            ("idempotency-key", SecretString::copy_of("one")),
            ("authorization", SecretString::copy_of(bearer)),
        ],
        body: SecretBytes::copy_of(b"{\"action\":\"rotate\"}"),
    };
    let hooks = HttpWebhooks::new(Outbound::allowing(&["127.0.0.0/8", "::1"]).unwrap());
    let reply = hooks.post(&call("rotate", "Bearer hook-secret")).await?;
    assert_eq!((reply.status, reply.body.expose()), (200, b"{\"data\":{\"a\":1}}".as_slice()));
    assert_eq!(hooks.post(&call("elsewhere", "Bearer hook-secret")).await?.status, 307);
    let refused = hooks.post(&call("rotate", "Bearer hook\nsecret")).await.err().unwrap();
    assert!(refused.contains("no header") && !refused.contains("hook"), "{refused}");
    let mut stranger = call("rotate", "Bearer hook-secret");
    stranger.ca_pem = None;
    assert!(hooks.post(&stranger).await.is_err(), "a CA that nobody named");
    let strict = HttpWebhooks::new(Outbound::default());
    let refused = strict.post(&call("rotate", "Bearer hook-secret")).await.err().unwrap();
    assert!(refused.contains("not allowed") && !refused.contains("hook-secret"), "{refused}");
    Ok(())
}
