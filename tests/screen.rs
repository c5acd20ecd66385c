//! The screen in a real terminal, driven by keys; and `kmemlab top` beside slabtop.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{
    Folder, KMEMLAB, end_of, is_root, kmemlab, may_record, one_at_a_time, run, signal, skipped,
    start_recording, text_of,
};
use crate::synthetic::{Ending, Synthetic};

/// No screen takes so long to change.
const PATIENCE: Duration = Duration::from_secs(20);

/// A terminal of our own, gone when dropped.
struct Terminal(String);

impl Terminal {
    /// A shell in a terminal of that size; `None` without tmux.
    fn open(width: u16, height: u16) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let terminal = Self(format!("kmemlab-suite-{}-{number}", std::process::id()));
        let size = [width.to_string(), height.to_string()];
        let shell = "env -u NO_COLOR LANG=C.UTF-8 LC_ALL=C.UTF-8 PS1='$ ' XDG_CONFIG_HOME=/nowhere \
                     bash --norc --noprofile -i";
        let mut command = terminal.tmux(&["-f", "/dev/null", "new-session", "-d"]);
        command.args(["-x", &size[0], "-y", &size[1], shell]);
        match command.output() {
            Ok(output) if output.status.success() => Some(terminal),
            _ => {
                skipped("it needs tmux");
                None
            }
        }
    }

    fn tmux(&self, args: &[&str]) -> Command {
        let mut command = Command::new("tmux");
        command.args(["-L", &self.0]).args(args);
        command
    }

    fn keys(&self, keys: &[&str]) {
        for key in keys {
            let output = self.tmux(&["send-keys", key]).output().unwrap();
            assert!(output.status.success(), "{output:?}");
        }
    }

    fn line(&self, text: &str) {
        self.keys(&[text, "Enter"]);
    }

    fn text(&self) -> String {
        text_of(&self.tmux(&["capture-pane", "-p"]).output().unwrap())
    }

    /// The screen as soon as it holds all these texts.
    #[track_caller]
    fn shows(&self, texts: &[&str]) -> String {
        let begun = Instant::now();
        loop {
            let screen = self.text();
            if texts.iter().all(|text| screen.contains(text)) {
                return screen;
            }
            assert!(begun.elapsed() < PATIENCE, "no {texts:?} on\n{screen}");
            thread::sleep(Duration::from_millis(30));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.tmux(&["kill-server"]).output();
    }
}

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sample-traces").join(name)
}

#[test]
fn a_tour_by_keys() {
    let Some(terminal) = Terminal::open(80, 24) else { return };
    terminal.line(&format!("{KMEMLAB} tui {}", sample("pressure.kmt").display()));
    terminal.shows(&["[1 Overview]", "[PAUSED]", "LOST 0", "7/7", "from events"]);
    terminal.keys(&["["]);
    terminal.shows(&["stall", "+1.586 s"]);
    terminal.keys(&["7"]);
    terminal.shows(&["[7 Latency]", "direct compaction", "P99", "python3"]);
    terminal.keys(&["4", "t"]);
    terminal.shows(&["Node 0 Normal", "page blocks", "letter: type", "MMMM"]);
    terminal.keys(&["5", "/"]);
    terminal.keys(&["b", "p", "f"]);
    terminal.shows(&["Filter: bpf", "bpf_prog_pack_alloc"]);
    terminal.keys(&["Escape"]);
    // Escape and a letter at once would be Alt and the letter.
    terminal.shows(&["/ filter"]);
    terminal.keys(&["g"]);
    terminal.keys(&["+", "2", ".", "5", "s", "Enter"]);
    terminal.shows(&["+2.500 s"]);
    terminal.keys(&["2", "c"]);
    terminal.shows(&["▼CACHE SIZE", "DELTA"]);
    terminal.keys(&["m", "Right", ":"]);
    terminal.keys(&["s", "o", "r", "t", "Space", "d", "e", "l", "t", "a", "Enter"]);
    terminal.shows(&["DELTA since +2.500 s"]);
    terminal.keys(&["x"]);
    terminal.shows(&["  OBJS ACTIVE  USE OBJ SIZE  SLABS OBJ/SLAB CACHE SIZE NAME"]);
    terminal.keys(&["?"]);
    terminal.shows(&["Keys of Slabs", "sort by objects per slab"]);
    terminal.keys(&["?", "1", "Home", "Space"]);
    terminal.shows(&["[PLAYING 1x]"]);
    terminal.keys(&["+", "+", "+", "+"]);
    terminal.shows(&["[PAUSED]", "7/7"]);
    terminal.keys(&["6"]);
    terminal.shows(&["kernel | mirror | model", "free blocks", "MODEL"]);
    terminal.keys(&["q"]);
    // The shell's own screen is back: what is typed before goes to nobody.
    terminal.shows(&["$ /"]);
    terminal.line("echo over $?");
    terminal.shows(&["over 0"]);
}

#[test]
fn a_terminal_is_given_back_as_it_was() {
    let Some(terminal) = Terminal::open(100, 30) else { return };
    let sane = |terminal: &Terminal, mark: &str| {
        terminal.line("clear");
        terminal
            .line(&format!("stty -a | tr ' ' '\\n' | grep -xE 'icanon;?|echo;?'; echo {mark}-"));
        terminal.shows(&["icanon", "\necho", &format!("{mark}-")]);
    };
    let start = format!("{KMEMLAB} tui {} --view slabs", sample("slab-churn.kmt").display());
    terminal.line(&start);
    terminal.shows(&["[2 Slabs]", "dentry"]);
    terminal.keys(&["C-z"]);
    terminal.shows(&["Stopped"]);
    sane(&terminal, "suspended");
    terminal.line("fg");
    terminal.shows(&["[2 Slabs]", "dentry"]);
    let resize = terminal.tmux(&["resize-window", "-x", "60", "-y", "15"]).output().unwrap();
    assert!(resize.status.success(), "{resize:?}");
    terminal.shows(&["[2 Slabs]", "Tab view"]);
    terminal.keys(&["C-c"]);
    terminal.shows(&["$ fg"]);
    sane(&terminal, "interrupted");
    terminal.line(&format!("{start} & sleep 1; kill -TERM %1; fg; echo gone-"));
    terminal.shows(&["\ngone-"]);
    sane(&terminal, "ended");
}

/// Whose terminal goes away ends: it does not stay behind and turn in circles.
#[test]
fn a_terminal_that_goes_away_takes_the_screen_along() {
    let Some(terminal) = Terminal::open(80, 24) else { return };
    let folder = Folder::new("hangup");
    let pid_file = folder.join("pid");
    let trace = sample("fork-open.kmt");
    let (pid_path, trace) = (pid_file.display(), trace.display());
    terminal.line(&format!("sh -c 'echo $$ >{pid_path}; exec {KMEMLAB} tui {trace}'"));
    terminal.shows(&["[1 Overview]"]);
    let pid = fs::read_to_string(&pid_file).unwrap();
    drop(terminal);
    let begun = Instant::now();
    while Path::new("/proc").join(pid.trim()).exists() {
        assert!(begun.elapsed() < PATIENCE, "process {pid} stays behind");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn without_a_terminal_it_says_what_to_do() {
    let trace = sample("fork-open.kmt");
    let trace = trace.to_str().unwrap();
    kmemlab(["tui", trace]).refused(&["needs a terminal", "--once"]);
    kmemlab(["top"]).refused(&["needs a terminal", "--once"]);
    let once = kmemlab(["tui", trace, "--once", "--view", "sites"]).done().stdout;
    assert!(once.contains("CALL SITE") && once.contains("__d_alloc+0x"), "{once}");
    assert!(once.lines().all(|line| line.chars().count() <= 80), "{once}");
}

#[test]
fn two_recordings_are_compared() {
    let [one, two] = ["fork-open.kmt", "slab-churn.kmt"].map(sample);
    let args = ["tui".as_ref(), one.as_os_str(), two.as_os_str(), "--once".as_ref()];
    let text = kmemlab(args).done().stdout;
    for word in ["[6 Compare]", "A: fork-open.kmt  B: slab-churn.kmt", "free blocks"] {
        assert!(text.contains(word), "no {word} in {text}");
    }
}

/// What can be read is shown, what cannot is told with what mends it.
#[test]
fn files_of_proc_that_are_missing_are_told() {
    let folder = Folder::new("top-root");
    let root = folder.path().to_str().unwrap();
    fs::create_dir_all(folder.join("proc")).unwrap();
    let top = |more: &[&str]| kmemlab(["top", "--once", "--root", root].iter().chain(more));
    top(&[]).refused(&["slabinfo", "expected the file"]);
    let text = top(&["--view", "slabs"]).done().stdout;
    assert!(text.contains("slabinfo"), "{text}");
    let buddy = "Node 0, zone   Normal      5      4      3      2      1      0      0      0 \
                 0      0      7\n";
    fs::write(folder.join("proc/buddyinfo"), buddy).unwrap();
    let text = top(&["--view", "overview"]).done().stdout;
    assert!(text.contains("Node 0 Normal") && text.contains("Note"), "{text}");
    for view in ["sites", "blocks", "latency"] {
        let text = top(&["--view", view]).done().stdout;
        assert!(text.contains("kmemlab top --events"), "{text}");
    }
    fs::write(folder.join("proc/slabinfo"), "slabinfo - version: 2.1\nnonsense\n").unwrap();
    top(&[]).refused(&["slabinfo, line 2"]);
}

#[test]
fn a_configuration_is_read_and_its_mistakes_are_told() {
    let folder = Folder::new("config");
    fs::create_dir_all(folder.join("kmemlab")).unwrap();
    let tui = |text: &str| {
        fs::write(folder.join("kmemlab/config.toml"), text).unwrap();
        let mut command = Command::new(KMEMLAB);
        command.args(["tui", "--once"]).arg(sample("fork-open.kmt"));
        run(command.env("XDG_CONFIG_HOME", folder.path()))
    };
    let text = tui("view = \"slabs\"\nsort = \"n\"\n[columns]\nslabs = [\"slabs\"]\n").done();
    let titles = text.stdout.lines().nth(8).unwrap_or_default();
    let titles: Vec<&str> = titles.split_whitespace().collect();
    assert_eq!(titles, ["SLABS", "NAME▲"], "{text:?}");
    tui("colour = \"pink\"\n").refused(&["config.toml", "unknown field", "colour"]);
    tui("[keys]\nhelp = \"q\"\n").refused(&["config.toml", "q is the key of quit"]);
}

/// A recorder that was cut off leaves a recording without an end: nobody waits for it.
#[test]
fn a_recording_without_an_end_is_shown() {
    let folder = Folder::new("tui-cut");
    let path = Synthetic::write(&folder.join("cut.kmt"), Ending::CutOff).path;
    for view in ["overview", "sites", "blocks", "compare"] {
        kmemlab(["tui", path.to_str().unwrap(), "--once", "--view", view]).done();
    }
}

/// Both read the same text: a file stands in the place of `/proc/slabinfo` for them alone.
#[test]
fn top_prints_what_slabtop_prints() {
    let has_slabtop = Command::new("slabtop").arg("--version").output().is_ok();
    if !is_root() || !has_slabtop {
        return skipped("it needs root, and slabtop of procps");
    }
    let folder = Folder::new("slabtop");
    let file = folder.join("slabinfo");
    fs::write(&file, fs::read_to_string("/proc/slabinfo").unwrap()).unwrap();
    let both = |letter: char| {
        let script = format!(
            "mount --bind {} /proc/slabinfo || exit 77; slabtop -o -s {letter} || exit 77; \
             echo ====; {KMEMLAB} top --once --sort {letter}",
            file.display()
        );
        run(Command::new("unshare").args(["-m", "sh", "-c", &script]))
    };
    for letter in "abclvnopsu".chars() {
        let ran = both(letter);
        if ran.code() == Some(77) {
            return skipped("it needs a mount namespace");
        }
        let text = ran.done().stdout;
        let (theirs, ours) = text.split_once("====\n").unwrap();
        for (line, (their, our)) in theirs.lines().zip(ours.lines()).enumerate() {
            let their: Vec<&str> = their.split_whitespace().collect();
            let our: Vec<&str> = our.split_whitespace().collect();
            assert_eq!(our, their, "sorted by {letter}, line {line}");
        }
        assert_eq!(ours, theirs, "sorted by {letter}");
        assert!(ours.lines().count() > 50, "{ours}");
    }
}

#[test]
fn events_make_the_live_screen_whole() {
    if !may_record() {
        return;
    }
    let _turn = one_at_a_time();
    let folder = Folder::new("top-events");
    let output = folder.join("kept.kmt");
    let args = ["top", "--events", "--once", "--view", "sites", "-d", "500ms", "-o"];
    let mut command = Command::new(KMEMLAB);
    let text = run(command.args(args).arg(&output)).done().stdout;
    assert!(text.contains("CALL SITE") && text.contains("+0x"), "{text}");
    kmemlab(["info".as_ref(), output.as_os_str()]).done();
}

/// The screen of a recording that is being written goes on with it.
#[test]
fn a_growing_recording_is_followed() {
    if !may_record() {
        return;
    }
    let _turn = one_at_a_time();
    let Some(terminal) = Terminal::open(80, 24) else { return };
    let folder = Folder::new("tui-follow");
    let output = folder.join("growing.kmt");
    let recorder = start_recording(&output, &["--snapshot-every", "200ms"]);
    while !output.join("snapshots/buddyinfo.arrows").exists() {
        thread::sleep(Duration::from_millis(50));
    }
    thread::sleep(Duration::from_secs(1));
    terminal.line(&format!("{KMEMLAB} tui {}", output.display()));
    terminal.shows(&["[LIVE]", "LOST", "from events"]);
    terminal.keys(&["Space"]);
    terminal.shows(&["[PAUSED]"]);
    terminal.keys(&["End"]);
    terminal.shows(&["[LIVE]"]);
    signal(&recorder, "INT");
    end_of(recorder, PATIENCE).done();
    // Its end is the end: nothing is live any more.
    terminal.shows(&["[PAUSED]"]);
    fs::remove_dir_all(&output).unwrap();
    terminal.keys(&["3", "2", "q"]);
    terminal.shows(&["$ /"]);
    terminal.line("echo over $?");
    terminal.shows(&["over 0"]);
}
