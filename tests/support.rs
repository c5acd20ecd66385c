//! Folders that vanish, the program as a user runs it, and what this machine lets a test do.

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// The program under test.
pub(crate) const KMEMLAB: &str = env!("CARGO_BIN_EXE_kmemlab");
pub(crate) const KPTR_RESTRICT: &str = "/proc/sys/kernel/kptr_restrict";
/// No run of the program takes so long that it is not stuck.
const STUCK: Duration = Duration::from_secs(60);

/// A folder of its own for each test, removed at its end.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("kmemlab-suite-{}-{number}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a run of a program came to.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) what: String,
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Exit 0, and nothing that looks like a panic.
    #[track_caller]
    pub(crate) fn done(self) -> Self {
        assert_eq!(self.code(), Some(0), "{self:#?}");
        assert!(!self.stderr.contains("panicked"), "{self:#?}");
        self
    }

    /// Exit 2, nothing on stdout, and on stderr one sentence with all these words in it.
    #[track_caller]
    pub(crate) fn refused(self, words: &[&str]) -> Self {
        assert_eq!(self.code(), Some(2), "{self:#?}");
        assert_eq!(self.stdout, "", "{self:#?}");
        assert_eq!(self.stderr.lines().count(), 1, "more than a line: {self:#?}");
        let line = self.stderr.trim_end_matches('\n');
        let sentence = line.strip_prefix("kmemlab: ").unwrap_or_else(|| panic!("{self:#?}"));
        assert!(is_one_sentence(sentence), "{self:#?}");
        for word in words {
            assert!(sentence.contains(word), "no {word:?} in {self:#?}");
        }
        self
    }

    /// Done, or refused in good order; `true` when done.
    #[track_caller]
    pub(crate) fn done_or_refused(self) -> bool {
        if self.code() == Some(0) {
            self.done();
            return true;
        }
        self.refused(&[]);
        false
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{}: {error}", self.what))
    }
}

/// A text without a line end, a panic's words, or a full stop followed by another sentence.
pub(crate) fn is_one_sentence(text: &str) -> bool {
    let starts_anew = |(at, _): (usize, &str)| text[at + 2..].starts_with(char::is_uppercase);
    !text.trim().is_empty()
        && !text.contains('\n')
        && !text.contains("panicked")
        && !text.match_indices(". ").any(starts_anew)
}

/// Runs the program; a run that is stuck is ended and fails the test.
#[track_caller]
pub(crate) fn kmemlab<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Ran {
    let mut command = Command::new(KMEMLAB);
    command.args(args);
    run(&mut command)
}

/// As [`kmemlab`], for any command.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Ran {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let what = format!("{command:?}");
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{what}: {error}"));
    let stdout = drain(child.stdout.take().unwrap());
    let stderr = drain(child.stderr.take().unwrap());
    let status = wait(&mut child, STUCK).unwrap_or_else(|| panic!("stuck: {what}"));
    let (stdout, stderr) = (stdout.join().unwrap(), stderr.join().unwrap());
    Ran { what, status, stdout, stderr }
}

fn drain(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// The exit status within that time; after it the child is killed and there is none.
pub(crate) fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let until = Instant::now() + limit;
    while Instant::now() < until {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        thread::sleep(Duration::from_millis(5));
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}

/// Sends a signal to a child of ours.
pub(crate) fn signal(child: &Child, name: &str) {
    let kill = format!("kill -{name} {}", child.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
}

/// `kmemlab info --json`, which has to succeed.
#[track_caller]
pub(crate) fn info(recording: &Path, more: &[&str]) -> Value {
    let args = [OsStr::new("info"), OsStr::new("--json"), recording.as_os_str()];
    kmemlab(args.into_iter().chain(more.iter().map(OsStr::new))).done().json()
}

/// `kmemlab replay --json`, which has to succeed.
#[track_caller]
pub(crate) fn replay(recording: &Path, more: &[&str]) -> Value {
    let args = [OsStr::new("replay"), OsStr::new("--json"), recording.as_os_str()];
    kmemlab(args.into_iter().chain(more.iter().map(OsStr::new))).done().json()
}

/// An unsigned number of a JSON object, by `a.b.c`.
#[track_caller]
pub(crate) fn number(value: &Value, path: &str) -> u64 {
    let found = at(value, path).and_then(Value::as_u64);
    found.unwrap_or_else(|| panic!("no number {path} in {value:#}"))
}

/// A value of a JSON object, by `a.b.c`.
pub(crate) fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value, |value, key| value.get(key))
}

/// SplitMix64: small, and the same everywhere.
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// `SEED` from the environment, else a fixed one; a test prints it with its first failure.
pub(crate) fn seed() -> u64 {
    std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_260_101)
}

/// The recordings that come with the sources.
pub(crate) fn sample_trace(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("sample-traces/{name}.kmt"))
}

pub(crate) fn sample_traces() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("sample-traces");
    let mut traces: Vec<PathBuf> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension() == Some(OsStr::new("kmt")))
        .collect();
    traces.sort();
    if traces.is_empty() {
        skipped("there are no sample-traces/*.kmt");
    }
    traces
}

/// Says that a test, or a part of it, did not run.
pub(crate) fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}

pub(crate) fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    uid.and_then(|uid| uid.split_whitespace().nth(1)) == Some("0")
}

/// Whether a live kernel can be recorded here; says why not.
pub(crate) fn may_record() -> bool {
    let can = is_root()
        && fs::read_dir("/sys/kernel/tracing/events/kmem").is_ok()
        && fs::File::open("/proc/kpageflags").is_ok();
    if !can {
        skipped("it needs root, tracefs at /sys/kernel/tracing, and /proc/kpageflags");
    }
    can
}

/// One live recording at a time: each takes all processors.
pub(crate) fn one_at_a_time() -> MutexGuard<'static, ()> {
    static LIVE: Mutex<()> = Mutex::new(());
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Forks, maps and slab objects without end, until dropped.
#[derive(Debug)]
pub(crate) struct Load(Child);

impl Load {
    pub(crate) fn start() -> Self {
        let script = "while :; do /bin/true; head -c 8M /dev/zero | tail -c 1; \
                      cat /proc/self/maps; done >/dev/null";
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::null()).stderr(Stdio::null());
        Self(command.stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts `kmemlab record -o OUTPUT ...` with its stderr kept for later.
pub(crate) fn start_recording(output: &Path, more: &[&str]) -> Child {
    let mut command = Command::new(KMEMLAB);
    command.args(["record", "-o"]).arg(output).args(more);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// The rest of a recording that was started.
#[track_caller]
pub(crate) fn end_of(mut child: Child, limit: Duration) -> Ran {
    let stdout = drain(child.stdout.take().unwrap());
    let stderr = drain(child.stderr.take().unwrap());
    let status = wait(&mut child, limit).expect("the recorder did not end in time");
    let (stdout, stderr) = (stdout.join().unwrap(), stderr.join().unwrap());
    Ran { what: "a recording".to_owned(), status, stdout, stderr }
}

/// The bytes of a program's output as text, for commands that are none of ours.
#[track_caller]
pub(crate) fn text_of(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
