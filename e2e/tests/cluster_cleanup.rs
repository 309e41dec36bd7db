//! A cluster that is killed at any moment leaves nothing on the machine: no process, mount, device,
//! route, rule or cgroup. `COFFER_CLEANUP_ROUNDS` says how often to try (2 unless told), and
//! `COFFER_CLEANUP_SEED` repeats a run.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use coffer_e2e::cluster_script;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// What the machine looks like from outside, but for processes.
struct Machine {
    mounts: BTreeSet<String>,
    links: BTreeSet<String>,
    routes: BTreeSet<String>,
    rules: BTreeSet<String>,
    cgroups: BTreeSet<PathBuf>,
}

fn lines(program: &str, args: &[&str]) -> BTreeSet<String> {
    let output = Command::new(program).args(args).output().unwrap();
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

impl Machine {
    fn look() -> Self {
        let links = fs::read_dir("/sys/class/net").unwrap().flatten();
        let mut rules = lines("ip", &["rule"]);
        rules.extend(lines("nft", &["list", "ruleset"]));
        Self {
            mounts: fs::read_to_string("/proc/self/mounts").unwrap().lines().map(str::to_owned).collect(),
            links: links.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect(),
            routes: lines("ip", &["route", "show", "table", "all"]),
            rules,
            cgroups: cgroups_of("cleanup"),
        }
    }

    /// What is there now and was not before.
    fn left_since(before: &Self) -> Vec<String> {
        let now = Self::look();
        let sets = [
            (now.mounts, &before.mounts),
            (now.links, &before.links),
            (now.routes, &before.routes),
            (now.rules, &before.rules),
        ];
        let mut left: Vec<String> =
            sets.iter().flat_map(|(now, before)| now.difference(before).cloned()).collect();
        left.extend(now.cgroups.difference(&before.cgroups).map(|path| path.display().to_string()));
        left
    }
}

/// Processes that carry `mark` in their environment (everything `up` starts does) or live in one of `namespaces`.
fn processes(mark: &str, namespaces: &BTreeSet<PathBuf>) -> Vec<String> {
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let environment = fs::read(process.path().join("environ")).unwrap_or_default();
        let marked = environment.split(|byte| *byte == 0).any(|var| var == mark.as_bytes());
        if marked || namespaces_of(&process.path()).iter().any(|namespace| namespaces.contains(namespace)) {
            found.push(format!(
                "{}: {}",
                process.path().display(),
                read_line(&process.path().join("cmdline"))
            ));
        }
    }
    found
}

fn namespaces_of(process: &Path) -> Vec<PathBuf> {
    ["net", "pid", "mnt"]
        .iter()
        .filter_map(|kind| fs::read_link(process.join("ns").join(kind)).ok())
        .collect()
}

fn read_line(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).replace('\0', " ")
}

fn cgroups_of(name: &str) -> BTreeSet<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let below = fs::read_dir(root).unwrap().flatten().map(|entry| entry.path());
    let all = below.chain([root.to_owned()]).filter_map(|dir| fs::read_dir(dir).ok());
    let wanted = format!("coffer-cluster-{name}");
    all.flat_map(|dir| dir.flatten())
        .map(|entry| entry.path())
        .filter(|path| path.ends_with(&wanted))
        .collect()
}

/// A cluster of its own, beside the one the other tests use.
struct Spare {
    config: TempDir,
}

impl Spare {
    fn new() -> Self {
        let config = TempDir::new().unwrap();
        let text = "kind: Cluster\nname: cleanup\nnetworking:\n  podSubnet: 10.245.0.0/16\n  \
                    serviceSubnet: 10.97.0.0/16\nnodes:\n  - role: control-plane\n";
        let spare = Self { config };
        fs::write(spare.file(), text).unwrap();
        spare
    }

    fn file(&self) -> PathBuf {
        self.config.path().join("kind.yaml")
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(cluster_script());
        command.arg(verb).env("KIND_CONFIG", self.file()).env("LINK_NET", "198.18.1");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    fn down(&self) {
        assert!(self.command("down").status().unwrap().success(), "cluster down failed");
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        let _ = self.command("down").arg("--purge").status();
    }
}

/// Kills `up` itself, its whole process group or the cluster's own pid 1 after `delay`. Hands back the
/// namespaces that the cluster had.
fn up_and_kill(spare: &Spare, delay: Duration, whom: u32) -> BTreeSet<PathBuf> {
    let mut up = spare.command("up").stderr(Stdio::null()).process_group(0).spawn().unwrap();
    let start = Instant::now();
    while start.elapsed() < delay && up.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let init = init_of("/cluster/cleanup");
    let namespaces = init.map(|pid| namespaces_of(Path::new(&format!("/proc/{pid}")))).unwrap_or_default();
    let up_pid = Pid::from_raw(i32::try_from(up.id()).unwrap());
    match whom {
        0 => _ = kill(up_pid, Signal::SIGKILL),
        1 => _ = nix::sys::signal::killpg(up_pid, Signal::SIGKILL),
        _ => {
            // `up` notices by itself that the cluster is gone; it must not hang.
            if let Some(init) = init {
                _ = kill(init, Signal::SIGKILL);
            }
        }
    }
    up.wait().unwrap();
    let ours = namespaces_of(Path::new("/proc/self"));
    namespaces.into_iter().filter(|namespace| !ours.contains(namespace)).collect()
}

/// The cluster's pid 1, found by the state directory in its command line.
fn init_of(state_suffix: &str) -> Option<Pid> {
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = process.file_name().to_string_lossy().parse::<i32>() else { continue };
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let ours = line.split(|byte| *byte == 0).any(|arg| {
            let arg = String::from_utf8_lossy(arg);
            arg.starts_with("--cluster-state=") && arg.ends_with(state_suffix)
        });
        let status = fs::read_to_string(process.path().join("status")).unwrap_or_default();
        let inner =
            status.lines().find(|line| line.starts_with("NSpid:")).and_then(|line| line.split('\t').nth(2));
        if ours && inner == Some("1") {
            return Some(Pid::from_raw(pid));
        }
    }
    None
}

#[test]
fn a_killed_cluster_leaves_nothing() {
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let rounds = number("COFFER_CLEANUP_ROUNDS", 2);
    let mut seed = number("COFFER_CLEANUP_SEED", u64::from(std::process::id()));
    println!("seed {seed}");
    let spare = Spare::new();
    spare.down();
    let before = Machine::look();
    for round in 0..rounds {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // `up` takes about 6 s; early moments, where most things are half made, come more often.
        let delay = Duration::from_millis(if seed & (1 << 20) == 0 {
            (seed >> 33) % 1_000
        } else {
            (seed >> 33) % 6_500
        });
        let whom = u32::try_from((seed >> 24) % 3).unwrap();
        println!(
            "round {round}: kill {} after {} ms",
            ["up", "up's group", "pid 1"][whom as usize],
            delay.as_millis()
        );
        let namespaces = up_and_kill(&spare, delay, whom);
        spare.down();
        let mut left = Machine::left_since(&before);
        left.extend(processes(&format!("KIND_CONFIG={}", spare.file().display()), &namespaces));
        assert!(left.is_empty(), "left behind: {left:#?}");
    }
    // Not even the keys that a killed `up` was about to make.
    let purge = spare.command("down").arg("--purge").stderr(Stdio::piped()).output().unwrap();
    assert!(purge.status.success(), "{}", String::from_utf8_lossy(&purge.stderr));
}
