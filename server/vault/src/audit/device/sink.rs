//! A device's file, and the thread that writes to it.
//!
//! Requests only leave their lines here. What the file cannot take waits, up to a limit; beyond it lines are dropped
//! and counted, because the built-in log has them. Requests wait for a device only if it says so.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{io, mem, thread};

use tokio::sync::oneshot;

use super::options;
use crate::audit::disk::{Disk, LogFile};
use crate::audit::meters::AuditMeters;

/// The most bytes of lines that wait.
const WAITING_MAX: usize = 16 << 20;
/// How often a file that failed is tried again.
const RETRY: Duration = Duration::from_millis(250);
/// How long a request waits for a device it must wait for.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Where lines are left.
pub(super) struct Sink {
    shared: Arc<Shared>,
}

/// Whether a file may be where it is said to be.
pub(super) type Check = Box<dyn Fn(&Path) -> io::Result<()> + Send + Sync>;

struct Shared {
    path: PathBuf,
    disk: Box<dyn Disk>,
    check: Check,
    meters: AuditMeters,
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Default)]
struct Queue {
    lines: VecDeque<Line>,
    bytes: usize,
    dropped: u64,
    reopen: bool,
    closing: bool,
}

struct Line {
    bytes: Vec<u8>,
    /// Somebody waits for it.
    done: Option<oneshot::Sender<bool>>,
}

impl Sink {
    /// Starts the thread. The file is opened by it, and again whenever that is needed.
    pub(super) fn start(
        path: &Path,
        disk: Box<dyn Disk>,
        check: Check,
        meters: AuditMeters,
    ) -> io::Result<Self> {
        let (path, queue, wake) = (path.to_owned(), Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { path, disk, check, meters, queue, wake });
        let theirs = Arc::clone(&shared);
        // Not joined: a file that blocks must not hold up a seal. It ends when its queue is empty.
        thread::Builder::new().name("audit-device".into()).spawn(move || theirs.run())?;
        Ok(Self { shared })
    }

    /// Leaves a line.
    pub(super) fn leave(&self, bytes: Vec<u8>) {
        self.shared.put(Line { bytes, done: None });
    }

    /// Leaves a line and waits until the file has it. Gives back whether it has.
    pub(super) async fn deliver(&self, bytes: Vec<u8>) -> bool {
        let (done, answer) = oneshot::channel();
        self.shared.put(Line { bytes, done: Some(done) });
        matches!(tokio::time::timeout(WAIT_MAX, answer).await, Ok(Ok(true)))
    }

    /// Opens the file by its name again: the old one was renamed.
    pub(super) fn reopen(&self) {
        self.shared.queue().reopen = true;
        self.shared.wake.notify_one();
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.shared.queue().closing = true;
        self.shared.wake.notify_one();
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, line: Line) {
        let mut queue = self.queue();
        if queue.bytes + line.bytes.len() > WAITING_MAX {
            // Whoever waits for it learns by its sender's end.
            queue.dropped += 1;
            self.meters.device_dropped.inc();
            return;
        }
        queue.bytes += line.bytes.len();
        queue.lines.push_back(line);
        self.wake.notify_one();
    }

    fn run(&self) {
        let mut file: Option<Box<dyn LogFile>> = None;
        // Whether the last line may have been written in part.
        let mut broken = false;
        let mut failing = false;
        loop {
            let (lines, reopen) = {
                let mut queue = self.queue();
                while queue.lines.is_empty() && !queue.reopen && !queue.closing {
                    queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
                }
                if queue.lines.is_empty() && queue.closing {
                    return;
                }
                // Their bytes count until it is settled what becomes of them.
                (mem::take(&mut queue.lines), mem::take(&mut queue.reopen))
            };
            if reopen {
                file = None;
                broken = false;
            }
            let result = self.write(&mut file, &lines, &mut broken);
            if result.is_err() != failing {
                failing = result.is_err();
                match &result {
                    Err(error) => tracing::error!(%error, path = %self.path.display(), "audit device fails"),
                    Ok(()) => tracing::info!(path = %self.path.display(), "audit device works again"),
                }
                self.meters.device_failing.add(if failing { 1 } else { -1 });
            }
            let written = result.is_ok();
            if !written {
                file = None;
            }
            if self.settle(lines, written) && !written {
                if failing {
                    self.meters.device_failing.sub(1);
                }
                return;
            }
        }
    }

    fn write(
        &self,
        file: &mut Option<Box<dyn LogFile>>,
        lines: &VecDeque<Line>,
        broken: &mut bool,
    ) -> io::Result<()> {
        let target = match file {
            Some(file) => file,
            None => {
                (self.check)(&self.path)?;
                file.insert(self.disk.file(options::open(&self.path)?))
            }
        };
        let mut bytes = Vec::with_capacity(lines.iter().map(|line| line.bytes.len()).sum::<usize>() + 1);
        if *broken {
            bytes.push(b'\n');
        }
        lines.iter().for_each(|line| bytes.extend_from_slice(&line.bytes));
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            match target.append(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    rest = rest.get(n..).unwrap_or_default();
                    *broken = !rest.is_empty();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Answers those who wait; puts back what is to be tried again, after a while. Says whether this is the end.
    fn settle(&self, lines: VecDeque<Line>, written: bool) -> bool {
        let (mut again, mut answers) = (VecDeque::new(), Vec::new());
        let mut over = 0;
        for mut line in lines {
            let done = line.done.take();
            if !written && done.is_none() {
                again.push_back(line);
                continue;
            }
            over += line.bytes.len();
            answers.extend(done);
        }
        let mut queue = self.queue();
        queue.bytes -= over;
        let dropped = if written { mem::take(&mut queue.dropped) } else { 0 };
        // Whoever hears that a line is written finds its room free.
        for done in answers {
            let _gone = done.send(written);
        }
        if written {
            if dropped > 0 {
                tracing::error!(dropped, path = %self.path.display(), "audit device: lines were dropped");
            }
            return false;
        }
        if queue.closing {
            return true;
        }
        again.append(&mut queue.lines);
        queue.lines = again;
        drop(queue);
        thread::sleep(RETRY);
        false
    }
}

#[cfg(test)]
#[path = "sink_tests.rs"]
mod tests;
