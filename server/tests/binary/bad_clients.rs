//! Clients that are slow, silent or many: they hold their own connection, and nobody else's.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;

use crate::bed::Bed;
use crate::common::{BINARY, Server};
use crate::ready::{Ready, client_config, connect};

/// Longer than any limit of the server.
const PATIENCE: Duration = Duration::from_secs(300);

/// Reads until the other side ends it, which it has to.
fn ended(mut stream: impl Read) -> String {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("it was never ended"),
        _ => String::from_utf8_lossy(&bytes).into_owned(),
    }
}

#[test]
fn slow_clients_are_cut_off_and_hold_up_nobody() {
    let bed = Bed::new();
    // Few enough that each one that stayed for ever would be missed.
    bed.listener("max_connections = 64\n  http_read_timeout = \"10s\"\n  http_read_header_timeout = \"10s\"");
    let server = Server::with_config(&bed.path("coffer.hcl"));
    let ready = Ready::of(bed, server);
    let tls = || {
        let stream = connect(&ready.bed, &ready.server, &rustls::version::TLS13).unwrap();
        stream.sock.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    std::thread::scope(|scope| {
        // No handshake; half of one.
        for first in [&b""[..], b"\x16\x03\x01\x02\x00\x01"] {
            let mut socket = TcpStream::connect(ready.server.address).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.write_all(first).unwrap();
            scope.spawn(move || assert!(!ended(socket).contains("HTTP/")));
        }
        // Nothing after the handshake; half a line.
        for first in [&b""[..], b"GET /v1/"] {
            let mut stream = tls();
            stream.write_all(first).unwrap();
            stream.flush().unwrap();
            scope.spawn(move || drop(ended(stream)));
        }
        // A head without an end, a body without one.
        let mut head = tls();
        head.write_all(b"GET /v1/sys/health HTTP/1.1\r\nhost: x\r\nx-more-to-come: 1\r\n").unwrap();
        head.flush().unwrap();
        scope.spawn(move || drop(ended(head)));
        let mut body = tls();
        let request = ready.request("POST", "secret/data/app").header("content-length", "100");
        body.write_all(&request.end(b"{\"data\":{")).unwrap();
        body.flush().unwrap();
        scope.spawn(move || {
            let text = ended(body);
            let refused = text.starts_with("HTTP/1.1 408 ") && text.contains("was not complete within 10 s");
            assert!(refused, "{text}");
        });
        // All of that is going on, and others are served.
        for _ in 0..20 {
            assert_eq!(ready.send(&ready.request("GET", "secret/data/app").end(b"")).status, 200);
        }
    });
    ready.unharmed();
}

/// How many are idle at once.
const IDLE: usize = 10_000;
/// How many shake hands at once.
const HANDSHAKES: usize = 64;

/// Connects and asks for something, again and again: whenever an idle connection is ended, another one takes its place.
async fn stay(
    address: std::net::SocketAddr,
    connector: tokio_rustls::TlsConnector,
    turns: Arc<Semaphore>,
    open: Arc<AtomicUsize>,
) {
    loop {
        let turn = turns.acquire().await.unwrap();
        let Ok(socket) = tokio::net::TcpStream::connect(address).await else { continue };
        let name = ServerName::try_from("localhost").unwrap();
        let Ok(mut stream) = connector.connect(name, socket).await else { continue };
        let asked = stream.write_all(b"GET /v1/sys/seal-status HTTP/1.1\r\nhost: x\r\n\r\n").await;
        let mut answer = [0; 4096];
        match stream.read(&mut answer).await {
            Ok(length) if asked.is_ok() && answer[..length].starts_with(b"HTTP/1.1 200") => {}
            _ => continue,
        }
        drop(turn);
        open.fetch_add(1, Ordering::SeqCst);
        while stream.read(&mut answer).await.is_ok_and(|length| length > 0) {}
        open.fetch_sub(1, Ordering::SeqCst);
    }
}

#[test]
fn ten_thousand_idle_connections_hold_up_nobody() {
    // For this program; the server sees to itself, also when it is started with few.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    assert!(hard > IDLE as u64 + 1_000, "this machine allows {hard} file descriptors a process");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let bed = Bed::new();
    bed.listener(
        "max_connections = 12000\n  max_connections_per_client = 12000\n  http_read_header_timeout = \"10m\"",
    );
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -S -n 256 && exec \"$1\" server --config \"$2\"", "sh", BINARY]);
    command.arg(bed.path("coffer.hcl"));
    let server = Server::of(command);
    let ready = Ready::of(bed, server);
    let connector = tokio_rustls::TlsConnector::from(client_config(&ready.bed, &rustls::version::TLS13));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let open = Arc::new(AtomicUsize::new(0));
    let turns = Arc::new(Semaphore::new(HANDSHAKES));
    for _ in 0..IDLE {
        let (connector, turns, open) = (connector.clone(), Arc::clone(&turns), Arc::clone(&open));
        runtime.spawn(stay(ready.server.address, connector, turns, open));
    }
    let end = Instant::now() + PATIENCE;
    while open.load(Ordering::SeqCst) < IDLE {
        assert!(Instant::now() < end, "only {} came to be open", open.load(Ordering::SeqCst));
        std::thread::sleep(Duration::from_millis(20));
    }
    for n in 0..50 {
        let body = format!("{{\"data\":{{\"n\":{n}}}}}");
        assert_eq!(ready.send(&ready.request("POST", format!("secret/data/n{n}")).body(body)).status, 200);
        assert_eq!(ready.send(&ready.request("GET", format!("secret/data/n{n}")).end(b"")).status, 200);
    }
    drop(runtime);
    ready.unharmed();
}

#[test]
fn a_websocket_keeps_its_place_among_a_clients_connections() {
    let bed = Bed::new();
    // More than there are commands before.
    const MOST: usize = 16;
    bed.listener(&format!("max_connections_per_client = {MOST}"));
    let server = Server::with_config(&bed.path("coffer.hcl"));
    let ready = Ready::of(bed, server);
    let connect = || connect(&ready.bed, &ready.server, &rustls::version::TLS13);
    let request = format!(
        "GET /v1/sys/events/subscribe/kv*?json=true HTTP/1.1\r\nhost: x\r\nx-vault-token: {}\r\n\
         connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        ready.root
    );
    let subscribe = || {
        // The places of earlier commands are given back a moment after their end.
        let end = Instant::now() + PATIENCE;
        loop {
            let answer = connect().and_then(|mut socket| {
                socket.write_all(request.as_bytes())?;
                let mut head = [0; 12];
                socket.read_exact(&mut head)?;
                Ok((socket, head))
            });
            match answer {
                Ok((socket, head)) if head == *b"HTTP/1.1 101" => return socket,
                other => assert!(Instant::now() < end, "{:?}", other.map(|(_, head)| head)),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let held: Vec<_> = (0..MOST).map(|_| subscribe()).collect();
    let another = connect().and_then(|mut socket| {
        socket.write_all(b"GET /v1/sys/health HTTP/1.1\r\nhost: x\r\n\r\n")?;
        socket.read_exact(&mut [0; 12])
    });
    assert!(another.is_err(), "one more was served");
    drop(held);
    drop(subscribe());
}
