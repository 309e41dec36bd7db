//! What may be asked of a file device, and where its file may be.
//!
//! The file is always a regular one with mode 0600, written line by line and nothing else. An administrator of the vault
//! is not one of its host: what would let him choose modes, prefixes or places is refused.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};

use super::line::Style;
use crate::error::{Fail, bad};

/// The most bytes of an option.
const OPTION_MAX: usize = 4096;

/// Options that were understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileOptions {
    pub(crate) file_path: PathBuf,
    pub(crate) style: Style,
    /// Requests wait for this device, and fail when it does.
    pub(crate) required: bool,
}

impl FileOptions {
    /// Understands options, or says what is wrong with them.
    pub(crate) fn parse(options: &BTreeMap<String, String>) -> Result<Self, Fail> {
        if options.iter().any(|(key, value)| key.len() > OPTION_MAX || value.len() > OPTION_MAX) {
            return Err(Fail::TooLarge(format!("an option is longer than {OPTION_MAX} bytes")));
        }
        let text = |key: &str| options.get(key).map(String::as_str).filter(|value| !value.is_empty());
        let flag = |key: &str, otherwise: bool| match text(key) {
            None => Ok(otherwise),
            Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(_) => Err(bad(format!("option {key} must be true or false"))),
        };
        if flag("log_raw", false)? {
            return Err(bad("log_raw is not supported: secrets are never written in the clear"));
        }
        if text("mode").is_some_and(|mode| !matches!(mode, "0600" | "600")) {
            return Err(bad("mode cannot be chosen: the file's mode is 0600"));
        }
        for refused in ["prefix", "exec"] {
            if text(refused).is_some() {
                return Err(bad(format!("option {refused} is not supported")));
            }
        }
        if text("format").is_some_and(|format| format != "json") {
            return Err(bad("format must be json"));
        }
        let file_path = text("file_path").or(text("path")).ok_or_else(|| bad("file_path is required"))?;
        Ok(Self {
            file_path: PathBuf::from(file_path),
            style: Style {
                hmac_accessor: flag("hmac_accessor", true)?,
                elide_lists: flag("elide_list_responses", false)?,
            },
            required: flag("required", false)?,
        })
    }
}

/// Where files of devices may be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    /// Named in the configuration.
    pub(crate) allowed: Vec<PathBuf>,
    /// The built-in log's own.
    pub(crate) own: PathBuf,
}

impl Places {
    /// Whether a device that was asked for by API may have this file.
    pub(crate) fn check(&self, file: &Path) -> Result<(), Fail> {
        let dir = self.check_declared(file)?;
        let inside = |allowed: &PathBuf| allowed.canonicalize().is_ok_and(|allowed| dir.starts_with(allowed));
        if self.allowed.iter().any(inside) {
            Ok(())
        } else {
            Err(bad("file_path is not in a directory that the configuration names for audit devices"))
        }
    }

    /// Whether a device that the configuration declares may have this file. Gives back its directory, without links.
    pub(crate) fn check_declared(&self, file: &Path) -> Result<PathBuf, Fail> {
        let plain = file.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        let (true, true, Some(dir), Some(_)) = (file.is_absolute(), plain, file.parent(), file.file_name())
        else {
            return Err(bad("file_path must be an absolute path of a file, without . and .."));
        };
        let dir = dir.canonicalize().map_err(|_| bad("the directory of file_path does not exist"))?;
        match self.own.canonicalize() {
            Ok(own) if dir.starts_with(&own) => {
                Err(bad("file_path is in the directory of the built-in audit log"))
            }
            _ => Ok(dir),
        }
    }
}

/// Opens or creates a device's file.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        // Neither a link nor something that blocks when opened.
        .custom_flags((nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_NONBLOCK).bits())
        .open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    // Another name of the same file may be somebody's who should not have it written to, or read.
    if found.nlink() != 1 {
        return Err(io::Error::other("the file has more than one name"));
    }
    if found.mode() & 0o077 != 0 {
        return Err(io::Error::other("the file can be read or written by others: its mode must be 0600"));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn what_would_show_secrets_or_reach_the_host_is_refused() {
        let good = ("file_path", "/var/log/a.log");
        for bad in [
            ("log_raw", "true"),
            ("mode", "0644"),
            ("prefix", "#!/bin/sh"),
            ("exec", "x"),
            ("format", "jsonx"),
            ("hmac_accessor", "perhaps"),
        ] {
            assert!(FileOptions::parse(&options(&[good, bad])).is_err(), "{bad:?}");
        }
        assert!(FileOptions::parse(&options(&[])).is_err());
        let fine = [good, ("log_raw", "false"), ("mode", "0600"), ("prefix", ""), ("hmac_accessor", "false")];
        let parsed = FileOptions::parse(&options(&fine)).unwrap();
        assert!(!parsed.style.hmac_accessor && !parsed.required);
    }

    #[test]
    fn files_are_only_where_the_configuration_allows_them() {
        let root = tempfile::tempdir().unwrap();
        let dir = |name: &str| {
            let dir = root.path().join(name);
            std::fs::create_dir(&dir).unwrap();
            dir
        };
        let (allowed, own, other) = (dir("allowed"), dir("own"), dir("other"));
        symlink(&other, allowed.join("out")).unwrap();
        let places = Places { allowed: vec![allowed.clone(), root.path().join("absent")], own: own.clone() };
        places.check(&allowed.join("a.log")).unwrap();
        for bad in [
            other.join("a.log"),
            own.join("audit.log"),
            allowed.join("out/a.log"),
            allowed.join("../other/a.log"),
            allowed.join("none/a.log"),
            PathBuf::from("a.log"),
            PathBuf::from("/"),
            PathBuf::from("stdout"),
        ] {
            assert!(places.check(&bad).is_err(), "{bad:?}");
        }
        assert!(Places::default().check(&allowed.join("a.log")).is_err());
        places.check_declared(&other.join("a.log")).unwrap();
        places.check_declared(&own.join("audit.log")).unwrap_err();
    }

    #[test]
    fn a_file_is_the_devices_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let made = open(&path).unwrap();
        assert_eq!(made.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        open(&path).unwrap();
        symlink(&path, dir.path().join("link")).unwrap();
        assert!(open(&dir.path().join("link")).is_err());
        std::fs::hard_link(&path, dir.path().join("name")).unwrap();
        assert!(open(&path).is_err());
        let public = dir.path().join("public");
        std::fs::write(&public, "").unwrap();
        std::fs::set_permissions(&public, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(open(&public).is_err());
        nix::unistd::mkfifo(&dir.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(open(&dir.path().join("pipe")).is_err());
    }
}
