//! The file system that the kernel's files are read from: `/`, or a folder of fixtures.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use kmemlab_trace::snapshot::Stamp;

use crate::clock;
use crate::error::Error;

/// Room asked for at once: most of /proc's files fit, and none is probed with a short first read.
const READ_BYTES: usize = 64 * 1024;

/// A file system root; every path handed to it is relative (`proc/buddyinfo`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Root {
    path: PathBuf,
}

impl Default for Root {
    fn default() -> Self {
        Self::new("/")
    }
}

impl Root {
    /// A root at any folder; [`Root::default`] is the host's own.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The whole path of a file; a leading `/` does not lead out of the root.
    #[must_use]
    pub fn join(&self, rel: &str) -> PathBuf {
        self.path.join(rel.trim_start_matches('/'))
    }

    /// Opens a file for reading.
    ///
    /// # Errors
    /// The file is missing or may not be read.
    pub fn open(&self, rel: &str) -> Result<File, Error> {
        File::open(self.join(rel)).map_err(|source| self.error(rel, source))
    }

    /// The bytes of a file.
    ///
    /// # Errors
    /// The file is missing or cannot be read.
    pub fn read_bytes(&self, rel: &str) -> Result<Vec<u8>, Error> {
        self.read_open(rel, self.open(rel)?)
    }

    /// The text of a file; bytes that are no UTF-8 become the replacement character.
    ///
    /// # Errors
    /// The file is missing or cannot be read.
    pub fn read(&self, rel: &str) -> Result<String, Error> {
        self.read_bytes(rel).map(text)
    }

    /// The text of a file that not every kernel has, or that may not be ours to read.
    ///
    /// # Errors
    /// The file is there and may be read, but reading failed.
    pub fn read_if_told(&self, rel: &str) -> Result<Option<String>, Error> {
        match self.read(rel) {
            Ok(text) => Ok(Some(text)),
            Err(Error::Missing { .. } | Error::Denied { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The text of a file and the moments around the read.
    ///
    /// # Errors
    /// The file is missing or cannot be read.
    pub fn read_stamped(&self, rel: &str) -> Result<(Stamp, String), Error> {
        let file = self.open(rel)?;
        let before = clock::now();
        let bytes = self.read_open(rel, file)?;
        let after = clock::now();
        Ok((Stamp { before, after }, text(bytes)))
    }

    /// Whether there is such a file or folder, as far as we may see.
    #[must_use]
    pub fn exists(&self, rel: &str) -> bool {
        self.join(rel).exists()
    }

    /// The names in a folder, sorted; empty when there is no such folder.
    #[must_use]
    pub fn names(&self, rel: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.join(rel)) else {
            return Vec::new();
        };
        let mut names: Vec<String> = entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort_unstable();
        names
    }

    /// The error of a failed system call on a file.
    pub(crate) fn error(&self, rel: &str, source: io::Error) -> Error {
        Error::from_io(rel.trim_start_matches('/'), self.join(rel), source)
    }

    fn read_open(&self, rel: &str, mut file: File) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::with_capacity(READ_BYTES);
        file.read_to_end(&mut bytes).map_err(|source| self.error(rel, source))?;
        Ok(bytes)
    }
}

/// Command names and caches may hold any byte: never fail for one.
fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// A folder that a test fills, removed at its end.
#[cfg(test)]
pub(crate) mod scratch {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    static NEXT: AtomicU32 = AtomicU32::new(0);

    #[derive(Debug)]
    pub(crate) struct Scratch(pub(crate) Root);

    impl Scratch {
        pub(crate) fn new() -> Self {
            let name = format!(
                "kmemlab-collector-{}-{}",
                std::process::id(),
                NEXT.fetch_add(1, Ordering::Relaxed)
            );
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).unwrap();
            Self(Root::new(path))
        }

        pub(crate) fn write(&self, rel: &str, bytes: impl AsRef<[u8]>) {
            let path = self.0.join(rel);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            fs::remove_dir_all(self.0.path()).unwrap();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::scratch::Scratch;
    use super::*;

    #[test]
    fn a_path_stays_below_the_root() {
        let root = Root::new("/tree");
        assert_eq!(root.join("/proc/vmstat"), Path::new("/tree/proc/vmstat"));
        assert_eq!(Root::default().join("proc/vmstat"), Path::new("/proc/vmstat"));
    }

    #[test]
    fn reads_text_between_two_moments() {
        let scratch = Scratch::new();
        scratch.write("proc/vmstat", b"nr_free_pages 1\n\xff");
        let (stamp, text) = scratch.0.read_stamped("proc/vmstat").unwrap();
        assert_eq!(text, "nr_free_pages 1\n\u{fffd}");
        assert!(stamp.before.0 > 0 && stamp.before <= stamp.after);
        assert!(scratch.0.exists("proc/vmstat"));
        assert_eq!(scratch.0.names("proc"), ["vmstat"]);
    }

    #[test]
    fn what_is_missing_is_told_from_what_fails() {
        let scratch = Scratch::new();
        scratch.write("proc/vmstat", "");
        assert!(scratch.0.read("proc/none").unwrap_err().is_missing());
        assert_eq!(scratch.0.read_if_told("proc/none").unwrap(), None);
        assert!(matches!(scratch.0.read("proc").unwrap_err(), Error::Read { .. }));
        assert!(scratch.0.names("none").is_empty());
    }
}
