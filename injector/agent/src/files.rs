//! The directory the application reads. A secret's files change all at once: a new directory is
//! filled beside the old one and a symlink is renamed over. Never shows half of a secret.
//!
//! ```text
//! <mount>/..data -> ..12345-7        swapped by rename
//! <mount>/..12345-7/<secret>/<file>
//! <mount>/<secret> -> ..data/<secret>
//! ```

use crate::error::AgentError;
use crate::render::Rendered;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

const DATA: &str = "..data";
const DATA_NEW: &str = "..data_new";

/// The mounted directory.
#[derive(Debug)]
pub struct Tree {
    mount: PathBuf,
    dir_mode: u32,
}

impl Tree {
    /// The tree under this mount; directories are as open as `mode_floor` says files are.
    pub fn new(mount: &Path, mode_floor: u32) -> Self {
        // Whoever may read files must be able to enter, and nobody else.
        let enter = (mode_floor | 0o440) >> 2 & 0o111;
        Self { mount: mount.to_owned(), dir_mode: 0o700 | (mode_floor | 0o440) & 0o055 | enter }
    }

    /// Replaces the files of one secret and leaves all others as they are. `stamp` names the new
    /// directory and must differ from the one in place.
    ///
    /// # Errors
    /// [`AgentError::File`]; the old files are still in place then.
    pub fn swap(&self, secret: &str, files: &[Rendered], stamp: u64) -> Result<(), AgentError> {
        let old = self.current()?;
        let new = self.fresh(stamp)?;
        let filled = self.fill(&new, old.as_deref(), secret, files).and_then(|()| self.publish(&new, secret));
        if let Err(error) = filled {
            // What was half written must not stay; the error that led here is the one to tell.
            let _ = fs::remove_dir_all(&new);
            return Err(error);
        }
        self.sweep(&new);
        Ok(())
    }

    /// Whether the secret's files are in place.
    pub fn has(&self, secret: &str) -> bool {
        self.mount.join(DATA).join(secret).is_dir() && self.mount.join(secret).exists()
    }

    fn current(&self) -> Result<Option<PathBuf>, AgentError> {
        let link = self.mount.join(DATA);
        match fs::read_link(&link) {
            Ok(target) => Ok(Some(self.mount.join(target))),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(AgentError::file("read link", link)(e)),
        }
    }

    fn fresh(&self, stamp: u64) -> Result<PathBuf, AgentError> {
        let mut last = None;
        for n in 0..16u32 {
            let path = self.mount.join(format!("..{stamp}-{n}"));
            match self.make_dir(&path) {
                Ok(()) => return Ok(path),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| AgentError::State("no directory name left".to_owned())))
    }

    fn make_dir(&self, path: &Path) -> Result<(), AgentError> {
        fs::create_dir(path).map_err(AgentError::file("create", path))?;
        let set_gid =
            fs::metadata(path).map_err(AgentError::file("stat", path))?.permissions().mode() & 0o2000;
        // The setgid bit came from the volume's fsGroup and must go on to what is made inside.
        fs::set_permissions(path, Permissions::from_mode(self.dir_mode | set_gid))
            .map_err(AgentError::file("set mode of", path))
    }

    fn fill(
        &self,
        new: &Path,
        old: Option<&Path>,
        secret: &str,
        files: &[Rendered],
    ) -> Result<(), AgentError> {
        if let Some(old) = old {
            for entry in fs::read_dir(old).map_err(AgentError::file("read", old))? {
                let entry = entry.map_err(AgentError::file("read", old))?;
                if entry.file_name() != *secret {
                    self.link_tree(&entry.path(), &new.join(entry.file_name()))?;
                }
            }
        }
        let dir = new.join(secret);
        self.make_dir(&dir)?;
        for file in files {
            self.write(&dir, file)?;
        }
        Ok(())
    }

    // Unchanged secrets keep their inodes: nothing is copied, and readers see no change.
    fn link_tree(&self, from: &Path, to: &Path) -> Result<(), AgentError> {
        if !from.is_dir() {
            return fs::hard_link(from, to).map_err(AgentError::file("link", to));
        }
        self.make_dir(to)?;
        for entry in fs::read_dir(from).map_err(AgentError::file("read", from))? {
            let entry = entry.map_err(AgentError::file("read", from))?;
            self.link_tree(&entry.path(), &to.join(entry.file_name()))?;
        }
        Ok(())
    }

    fn write(&self, dir: &Path, file: &Rendered) -> Result<(), AgentError> {
        let path = dir.join(&file.name);
        let mut parent = dir.to_owned();
        let segments: Vec<&str> = file.name.split('/').collect();
        for segment in segments.iter().take(segments.len().saturating_sub(1)) {
            parent.push(segment);
            if !parent.is_dir() {
                self.make_dir(&parent)?;
            }
        }
        let mut out = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(AgentError::file("create", &path))?;
        out.write_all(&file.content).map_err(AgentError::file("write", &path))?;
        // Set at last and explicitly: the umask has no say in it.
        out.set_permissions(Permissions::from_mode(file.mode)).map_err(AgentError::file("set mode of", &path))
    }

    fn publish(&self, new: &Path, secret: &str) -> Result<(), AgentError> {
        let name = new.file_name().unwrap_or_default();
        replace_link(Path::new(name), &self.mount.join(DATA), &self.mount.join(DATA_NEW))?;
        let link = self.mount.join(secret);
        let target = Path::new(DATA).join(secret);
        if fs::read_link(&link).is_ok_and(|found| found == target) {
            return Ok(());
        }
        replace_link(&target, &link, &self.mount.join(DATA_NEW))
    }

    // Removes every directory but the one in place, also those a killed agent left behind. What cannot
    // be removed now is tried again at the next swap.
    fn sweep(&self, keep: &Path) {
        let Ok(entries) = fs::read_dir(&self.mount) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let ours = name.to_str().is_some_and(|n| n.starts_with("..") && n != DATA && n != DATA_NEW);
            if ours
                && entry.path() != keep
                && let Err(error) = fs::remove_dir_all(entry.path())
            {
                tracing::warn!(%error, "an old directory could not be removed");
            }
        }
    }
}

fn replace_link(target: &Path, link: &Path, temporary: &Path) -> Result<(), AgentError> {
    match fs::remove_file(temporary) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(AgentError::file("remove", temporary)(e)),
        _ => {}
    }
    symlink(target, temporary).map_err(AgentError::file("link", temporary))?;
    fs::rename(temporary, link).map_err(AgentError::file("rename", link))
}

#[cfg(test)]
mod tests {
    use super::*;
    use zeroize::Zeroizing;

    fn file(name: &str, mode: u32, content: &str) -> Rendered {
        Rendered { name: name.to_owned(), mode, content: Zeroizing::new(content.as_bytes().to_vec()) }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn one_secret_changes_and_the_other_stays_the_same_file() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::new(dir.path(), 0o400);
        tree.swap("a", &[file("user", 0o440, "u1"), file("sub/pass", 0o400, "p1")], 1).unwrap();
        tree.swap("b", &[file("x", 0o444, "x1")], 1).unwrap();
        use std::os::unix::fs::MetadataExt;
        let inode = fs::metadata(dir.path().join("b/x")).unwrap().ino();
        tree.swap("a", &[file("user", 0o440, "u2")], 2).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("a/user")).unwrap(), "u2");
        assert!(!dir.path().join("a/sub").exists());
        assert_eq!(fs::metadata(dir.path().join("b/x")).unwrap().ino(), inode);
        assert_eq!(mode(&dir.path().join("a/user")), 0o440);
        assert_eq!(mode(&dir.path().join("b/x")), 0o444);
        assert!(tree.has("a") && tree.has("b") && !tree.has("c"));
        let left = fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(left, 4, "..data, one directory, two links");
    }

    #[test]
    fn a_reader_that_holds_the_old_directory_sees_the_old_pair() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::new(dir.path(), 0o400);
        tree.swap("a", &[file("user", 0o440, "u1"), file("pass", 0o440, "p1")], 1).unwrap();
        let mut open = fs::File::open(dir.path().join("a/pass")).unwrap();
        tree.swap("a", &[file("user", 0o440, "u2"), file("pass", 0o440, "p2")], 2).unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut open, &mut text).unwrap();
        assert_eq!(text, "p1");
    }

    #[test]
    fn what_fails_leaves_the_old_files() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::new(dir.path(), 0o400);
        tree.swap("a", &[file("user", 0o440, "u1")], 1).unwrap();
        let twice = [file("user", 0o440, "u2"), file("user", 0o440, "u2")];
        assert!(tree.swap("a", &twice, 2).is_err());
        assert_eq!(fs::read_to_string(dir.path().join("a/user")).unwrap(), "u1");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }

    #[test]
    fn directories_are_as_open_as_their_files() {
        let dir = tempfile::tempdir().unwrap();
        Tree::new(dir.path(), 0o400).swap("a", &[], 1).unwrap();
        assert_eq!(mode(&dir.path().join("..data/a")), 0o750);
        Tree::new(dir.path(), 0o444).swap("a", &[], 2).unwrap();
        assert_eq!(mode(&dir.path().join("..data/a")), 0o755);
    }
}
