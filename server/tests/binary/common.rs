//! Runs the built binary: servers on ports the system chooses, and commands against them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What ships.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_coffer");

/// How long an end may take on a machine that does much else.
const END_MAX: Duration = Duration::from_secs(120);

/// A running server. Killed when dropped.
pub(crate) struct Server {
    child: Child,
    /// What it says, line by line, from both of its outputs.
    lines: mpsc::Receiver<String>,
    seen: Vec<String>,
    pub(crate) address: SocketAddr,
    /// Its temporary directory: what a killed server leaves behind goes with it.
    _tmp: tempfile::TempDir,
}

impl Server {
    /// A development server.
    pub(crate) fn dev() -> Self {
        let mut server = Self::start(&["server", "--dev", "--dev-listen-address", "127.0.0.1:0"]);
        server.until("Audit log: ");
        server
    }

    /// A development server with a root token of our choosing.
    pub(crate) fn dev_with_root(token: &str) -> Self {
        Self::start(&["server", "-dev", "-dev-listen-address=127.0.0.1:0", "-dev-root-token-id", token])
    }

    /// A server with a configuration that listens once.
    pub(crate) fn with_config(config: &Path) -> Self {
        Self::start(&["server", "--config", config.to_str().unwrap()])
    }

    /// A server whose configuration makes its log JSON; its address is left unread.
    pub(crate) fn with_json_log(config: &Path) -> Self {
        let mut command = Command::new(BINARY);
        command.args(["server", "--config", config.to_str().unwrap()]);
        let mut server = Self::spawn(command);
        server.until("\"message\":\"started\"");
        server
    }

    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(BINARY);
        command.args(arguments);
        Self::of(command)
    }

    /// Whatever serves when this command is run.
    pub(crate) fn of(command: Command) -> Self {
        Self::try_of(command).unwrap_or_else(|said| panic!("it did not start: {said:#?}"))
    }

    /// The same; or what it said, if it ended before it served.
    pub(crate) fn try_of(command: Command) -> Result<Self, Vec<String>> {
        let mut server = Self::spawn(command);
        let Some(line) = server.hear("listening address=") else { return Err(server.end().1) };
        let text = line.split("address=").nth(1).unwrap().split(' ').next().unwrap();
        server.address = text.parse().unwrap();
        if server.hear("started").is_none() {
            return Err(server.end().1);
        }
        Ok(server)
    }

    fn spawn(mut command: Command) -> Self {
        let tmp = tempfile::tempdir().unwrap();
        command.env_remove("RUST_LOG").env("TMPDIR", tmp.path()).stdin(Stdio::null());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = mpsc::channel();
        follow(child.stdout.take().unwrap(), sender.clone());
        follow(child.stderr.take().unwrap(), sender);
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        Self { child, lines, seen: Vec::new(), address, _tmp: tmp }
    }

    /// The first line with this text, said already or to come. Panics when the server ends without it.
    pub(crate) fn until(&mut self, text: &str) -> String {
        self.hear(text).unwrap_or_else(|| panic!("no {text:?} in {:#?}", self.seen))
    }

    /// The same; nothing when the server ends without it.
    fn hear(&mut self, text: &str) -> Option<String> {
        if let Some(line) = self.seen.iter().find(|line| line.contains(text)) {
            return Some(line.clone());
        }
        loop {
            let line = self.lines.recv().ok()?;
            self.seen.push(line.clone());
            if line.contains(text) {
                return Some(line);
            }
        }
    }

    /// What follows a label of the development server's greeting.
    pub(crate) fn said(&mut self, label: &str) -> String {
        self.until(label).split_once(label).unwrap().1.trim().to_owned()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// Waits for the end; gives the exit code and everything that was said.
    pub(crate) fn end(&mut self) -> (Option<i32>, Vec<String>) {
        let until = Instant::now() + END_MAX;
        let code = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status.code();
            }
            if Instant::now() > until {
                self.child.kill().unwrap();
                self.seen.extend(self.lines.iter());
                panic!("it does not end: {:#?}", self.seen);
            }
            thread::sleep(Duration::from_millis(5));
        };
        self.seen.extend(self.lines.iter());
        (code, std::mem::take(&mut self.seen))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _reaped_already = self.child.wait();
    }
}

fn follow(output: impl Read + Send + 'static, sender: mpsc::Sender<String>) {
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
}

/// Somebody at a shell, with a home of their own.
pub(crate) struct Shell {
    pub(crate) home: tempfile::TempDir,
    address: String,
    ca: Option<PathBuf>,
}

impl Shell {
    pub(crate) fn new(address: String, ca: Option<PathBuf>) -> Self {
        Self { home: tempfile::tempdir().unwrap(), address, ca }
    }

    pub(crate) fn address_of(&self) -> String {
        self.address.clone()
    }

    /// Runs a command with nothing on standard input.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.run_with(arguments, "")
    }

    /// Runs a command with this on standard input.
    pub(crate) fn run_with(&self, arguments: &[&str], input: &str) -> Output {
        let mut command = self.command(arguments);
        command.env("COFFER_ADDR", &self.address);
        if let Some(ca) = &self.ca {
            command.env("COFFER_CACERT", ca);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A command that reads nothing may be gone before this is written.
        let _unread = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    /// A command in an empty environment, but for a home.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.args(arguments).env_clear().env("HOME", self.home.path());
        command
    }

    /// Runs a command that must succeed; gives its standard output.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        self.ok_with(arguments, "")
    }

    pub(crate) fn ok_with(&self, arguments: &[&str], input: &str) -> String {
        let output = self.run_with(arguments, input);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command that must fail; gives its exit code and complaint.
    pub(crate) fn fails(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments:?}: {output:?}");
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let mut all = vec!["--format", "json"];
        all.extend(arguments);
        serde_json::from_str(&self.ok(&all)).unwrap()
    }
}
