//! Disks that are full or read-only. Each server has a mount namespace of its own, so that nothing is left behind
//! whatever happens to the test.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::bed::Bed;
use crate::common::{BINARY, Server};
use crate::ready::Ready;
use serde_json::json;

/// A server of this bed, started by a shell that has made these mounts before; `$1` is the bed's directory.
fn command(bed: &Bed, mounts: &str) -> Command {
    let mut command = Command::new("unshare");
    let script = format!("set -e; {mounts}; exec \"$2\" server --config \"$1/coffer.hcl\"");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh"]);
    command.arg(bed.path("")).arg(BINARY);
    command
}

/// Runs a command where a server's mounts are.
fn inside(server: &Server, script: &str, bed: &Bed) {
    let mut command = Command::new("nsenter");
    command
        .args(["--mount", "--target", &server.id().to_string(), "sh", "-c", script, "sh"])
        .arg(bed.path(""));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn on_tmpfs(name: &str, megabytes: u32) -> (Bed, Server) {
    let bed = Bed::new();
    std::fs::create_dir_all(bed.path(name)).unwrap();
    let mount = format!("mount -t tmpfs -o size={megabytes}m,mode=0700 tmpfs \"$1/{name}\"");
    let server = Server::of(command(&bed, &mount));
    (bed, server)
}

/// Writes secrets of a quarter of a mebibyte until one is refused; how many were acknowledged, and the refusal.
fn fill(ready: &Ready, from: usize) -> (usize, u16, String) {
    let filler = "f".repeat(256 << 10);
    for n in from..from + 1_000 {
        let body = json!({"data": {"n": n, "filler": filler}}).to_string();
        let answer = ready.send(&ready.request("POST", format!("secret/data/fill/{n}")).body(body));
        if answer.status != 200 {
            return (n, answer.status, answer.error());
        }
    }
    panic!("the disk was never full");
}

/// All that was acknowledged is there.
fn all_there(ready: &Ready, count: usize) {
    for n in 0..count {
        let answer = ready.send(&ready.request("GET", format!("secret/data/fill/{n}")).end(b""));
        assert!(
            answer.status == 200 && answer.body.contains(&format!("\"n\":{n}")),
            "{n}: {}",
            answer.status
        );
    }
}

#[test]
fn a_full_store_refuses_writes_serves_reads_and_goes_on_when_there_is_room() {
    let (bed, server) = on_tmpfs("data", 40);
    let ready = Ready::of(bed, server);
    let (count, status, error) = fill(&ready, 0);
    assert!(count > 0, "{error}");
    assert!(status == 503 && error.contains("no room"), "{status}: {error}");
    all_there(&ready, count);
    // Of the room that is left something smaller may still be taken; it is never taken and lost.
    let (count, status, error) = fill(&ready, count);
    assert!(
        status == 503 && error.contains("no room"),
        "it stays full, and says so each time: {status}: {error}"
    );
    inside(&ready.server, "mount -o remount,size=120m \"$1/data\"", &ready.bed);
    let more = ready.send(&ready.request("POST", "secret/data/small").body("{\"data\":{\"k\":\"v\"}}"));
    assert_eq!(more.status, 200, "{more:?}");
    all_there(&ready, count);
    ready.unharmed();
}

#[test]
fn a_full_audit_disk_stops_requests_and_not_for_ever() {
    let (bed, server) = on_tmpfs("audit", 4);
    let ready = Ready::of(bed, server);
    let read = |path: &str| ready.send(&ready.request("GET", format!("secret/data/{path}")).end(b""));
    // Each leaves a record with its path.
    let long = "p".repeat(900);
    let refusal = (0..20_000).map(|_| read(&long)).find(|answer| answer.status != 404).unwrap();
    assert!(refusal.status == 500 && refusal.error().contains("audit"), "{refusal:?}");
    // That one was the smallest there is: nothing larger is begun.
    let refused = (0..20_000).map(|_| read("app")).find(|answer| answer.status != 200).unwrap();
    assert!(refused.status == 500 && refused.error().contains("audit"), "{refused:?}");
    let write = ready.request("POST", format!("secret/data/{long}")).body("{\"data\":{\"k\":\"v\"}}");
    let write = ready.send(&write);
    assert!(write.status == 500 && write.error().contains("audit"), "{write:?}");
    let told = ready.shell.run(&["status"]);
    assert_eq!(told.status.code(), Some(0), "what needs no record is answered: {told:?}");
    inside(&ready.server, "mount -o remount,size=32m \"$1/audit\"", &ready.bed);
    // The volume is looked at once a second.
    let end = Instant::now() + Duration::from_secs(120);
    while read("app").status == 500 {
        assert!(Instant::now() < end, "there is room, and requests are still refused");
        std::thread::sleep(Duration::from_millis(50));
    }
    let verify = format!("{BINARY} audit verify \"$1/audit\" | grep ': intact, '");
    inside(&ready.server, &verify, &ready.bed);
    assert_eq!(read(&long).status, 404, "what was refused had no effect");
    ready.well();
}

/// What a server says that ends at once.
fn refusal(bed: &Bed, mounts: &str) -> String {
    let output = command(bed, mounts).output().unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.code() == Some(1) && !said.contains("panicked"), "{said}");
    said
}

#[test]
fn a_read_only_disk_is_named_at_the_start_and_nothing_is_lost() {
    let mut ready = Ready::new();
    ready.server.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(ready.server.end().0, Some(0));
    for name in ["data", "audit"] {
        let mount =
            format!("mount --bind \"$1/{name}\" \"$1/{name}\"; mount -o remount,bind,ro \"$1/{name}\"");
        let said = refusal(&ready.bed, &mount);
        let named = said.contains(&ready.bed.path(name).display().to_string());
        assert!(named && said.contains("Read-only file system"), "{name}: {said}");
    }
    let server = Server::with_config(&ready.bed.path("coffer.hcl"));
    ready.again(server);
    ready.unharmed();
}

/// As ext4 does after an error of its disk: it goes on, but takes nothing any more until it is mounted anew.
#[test]
fn a_disk_that_becomes_read_only_refuses_writes_and_has_lost_nothing_when_it_is_back() {
    const MOUNT: &str = "mount -o loop \"$1/disk.img\" \"$1/data\"; chmod 0700 \"$1/data\"";
    let bed = Bed::new();
    std::fs::create_dir_all(bed.path("data")).unwrap();
    let image = bed.path("disk.img");
    std::fs::File::create(&image).unwrap().set_len(128 << 20).unwrap();
    let made = Command::new("mkfs.ext4").arg("-q").arg(&image).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let server = Server::of(command(&bed, MOUNT));
    let mut ready = Ready::of(bed, server);
    let write = |ready: &Ready, n: usize| {
        let body = json!({"data": {"n": n, "filler": "f"}}).to_string();
        ready.send(&ready.request("POST", format!("secret/data/fill/{n}")).body(body))
    };
    for n in 0..20 {
        assert_eq!(write(&ready, n).status, 200);
    }
    inside(&ready.server, "mount -o remount,abort \"$1/data\"", &ready.bed);
    let refused = write(&ready, 20);
    assert!(refused.status >= 500 && !refused.error().is_empty(), "{refused:?}");
    for n in 21..23 {
        let refused = write(&ready, n);
        assert!(refused.status == 503 && refused.error().contains("Read-only file system"), "{refused:?}");
    }
    let told = format!("{:?}", ready.shell.run(&["status"]));
    assert!(told.contains("Read-only file system"), "it is there and says what is wrong: {told}");
    ready.server.signal(nix::sys::signal::Signal::SIGTERM);
    ready.server.end();
    let server = Server::of(command(&ready.bed, MOUNT));
    ready.again(server);
    all_there(&ready, 20);
    assert_eq!(write(&ready, 20).status, 200);
    all_there(&ready, 21);
    ready.unharmed();
}
