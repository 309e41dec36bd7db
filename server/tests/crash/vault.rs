//! A vault that is killed and started again: its directory, and what opens it.

use std::path::{Path, PathBuf};
use std::process::Command;

use coffer_client::Client;
use coffer_client::wire::Disclose;
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::bed::Bed;
use crate::common::{Server, Shell};
use crate::load::{self, Notes, WRITERS};
use crate::order::{DYING, ORDER, Order};

/// A store with what opens it.
pub(crate) struct Vault {
    pub(crate) bed: Bed,
    /// Which executable serves it.
    program: PathBuf,
    pub(crate) order: PathBuf,
    pub(crate) key: String,
    pub(crate) root: String,
    pub(crate) runtime: Runtime,
}

impl Vault {
    /// Initialised, unsealed, and with what the writers need.
    pub(crate) fn new(program: &Path) -> (Self, Server) {
        let mut vault = Self::bare(program);
        let server = vault.start();
        vault.initialise(&server);
        (vault, server)
    }

    /// A directory in which nothing ran yet.
    pub(crate) fn bare(program: &Path) -> Self {
        let bed = Bed::new();
        let order = bed.path("order");
        let runtime = Runtime::new().unwrap();
        let program = program.to_owned();
        Self { bed, program, order, key: String::new(), root: String::new(), runtime }
    }

    /// A copy of the store as it is, that another server can be started on. Whoever serves this one stands still.
    pub(crate) fn copy(&self) -> Self {
        let mut copy = Self::bare(&self.program);
        for part in ["data", "audit"] {
            let (from, to) = (self.bed.path(part), copy.bed.path(part));
            let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
            assert!(copied.success(), "{part}");
        }
        (copy.key, copy.root) = (self.key.clone(), self.root.clone());
        copy
    }

    pub(crate) fn initialise(&mut self, server: &Server) {
        let shell = self.shell(server);
        let made = shell.json(&["operator", "init", "--key-shares", "1", "--key-threshold", "1"]);
        made["unseal_keys_b64"][0].as_str().unwrap().clone_into(&mut self.key);
        made["root_token"].as_str().unwrap().clone_into(&mut self.root);
        self.unseal(server);
        let client = self.client(server);
        self.runtime.block_on(async {
            let kv = json!({"type": "kv", "options": {"version": "2"}});
            client.write("sys/mounts/secret", &kv).await.unwrap();
            let maker = json!({"policy": "path \"auth/token/create\" { capabilities = [\"update\"] }"});
            client.write("sys/policies/acl/maker", &maker).await.unwrap();
        });
    }

    /// Starts the server, sealed.
    pub(crate) fn start(&self) -> Server {
        self.try_start().unwrap_or_else(|said| panic!("it did not start: {said:#?}"))
    }

    /// The same; or what it said, if it ended before it served.
    pub(crate) fn try_start(&self) -> Result<Server, Vec<String>> {
        let mut command = Command::new(&self.program);
        command.args(["server", "--config"]).arg(self.bed.path("coffer.hcl")).env(ORDER, &self.order);
        Server::try_of(command)
    }

    pub(crate) fn unseal(&self, server: &Server) {
        self.shell(server).ok_with(&["operator", "unseal"], &self.key);
    }

    pub(crate) fn shell(&self, server: &Server) -> Shell {
        Shell::new(format!("https://{}", server.address), Some(self.bed.path("ca.crt")))
    }

    /// A client with the root token.
    pub(crate) fn client(&self, server: &Server) -> Client {
        let ca = std::fs::read(self.bed.path("ca.crt")).unwrap();
        let client = Client::builder(&format!("https://{}", server.address)).ca_pem(ca).build().unwrap();
        client.with_token(&Disclose::new(self.root.clone())).unwrap()
    }

    /// Lets the writers write: until the server is gone, or so often.
    pub(crate) fn write(&self, server: &Server, round: u64, seed: u64, most: Option<u32>) -> Vec<Notes> {
        let client = self.client(server);
        self.runtime.block_on(async {
            let mut writers = JoinSet::new();
            for writer in 0..WRITERS {
                writers.spawn(load::write(client.clone(), round, writer, seed, most));
            }
            writers.join_all().await
        })
    }

    /// A server that was ordered to die is dead, by that order; the name of the step.
    pub(crate) fn died(&self, server: &mut Server, order: Order, place: &str) -> String {
        let (code, said) = server.end();
        assert_eq!(code, None, "{place}: it ended by itself: {said:#?}");
        assert!(!said.iter().any(|line| line.contains("panicked")), "{place}: {said:#?}");
        let step = said.iter().find_map(|line| line.strip_prefix(DYING));
        let step = step.unwrap_or_else(|| panic!("{place}: it died of something else: {said:#?}"));
        assert!(order.step.is_none_or(|ordered| ordered.name() == step), "{place}: {step}");
        std::fs::remove_file(&self.order).unwrap();
        step.to_owned()
    }

    /// The audit log is whole, link by link, from its beginning to its end.
    pub(crate) fn verify_log(&self, server: &Server, place: &str) {
        let shell = self.shell(server);
        let verified = shell.ok(&["audit", "verify", self.bed.path("audit").to_str().unwrap()]);
        assert!(verified.contains(": intact, "), "{place}: {verified}");
    }
}
