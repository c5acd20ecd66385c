//! What a recording of this host would lack, and the command that mends it. Changes nothing.

mod files;
mod privilege;
#[cfg(test)]
mod tests;

use crate::error::Error;
use crate::root::Root;
use crate::tracefs::Tracefs;

/// How a check went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// As it should be.
    Ok,
    /// A recording can be made, but will lack something.
    Warn,
    /// No recording can be made.
    Fail,
}

/// One thing looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// How it went.
    pub state: State,
    /// What was found; where nothing can mend it, also why.
    pub found: String,
    /// The shell command, to be run as root, that mends it.
    pub mend: Option<String>,
}

impl Check {
    fn new(
        name: impl Into<String>,
        state: State,
        found: impl Into<String>,
        mend: Option<String>,
    ) -> Self {
        let mend = mend.filter(|_| state != State::Ok);
        Self { name: name.into(), state, found: found.into(), mend }
    }
}

const MOUNT_TRACEFS: &str = "mount -t tracefs nodev /sys/kernel/tracing";
const NOT_PERMITTED: &str = "not permitted; run as root";

/// Without these two there is nothing to replay; every other tracepoint may be lacked.
const NEEDED: [(&str, &str); 2] = [("kmem", "mm_page_alloc"), ("kmem", "mm_page_free")];

/// Looks at all that a recording needs. `wanted` names the tracepoints: system, event and the
/// fields that it must have.
#[must_use]
pub fn check(root: &Root, wanted: &[(&str, &str, &[&str])]) -> Vec<Check> {
    let rights = privilege::Rights::read(root);
    let mut checks = Vec::new();
    match Tracefs::find(root) {
        Ok(tracefs) => {
            checks.push(Check::new(
                "tracefs",
                State::Ok,
                tracefs.path().display().to_string(),
                None,
            ));
            checks.extend(wanted.iter().map(|(system, event, fields)| {
                tracepoint(&tracefs, &rights, system, event, fields)
            }));
            checks.push(instances(&tracefs, &rights));
            checks.push(kprobes(&tracefs));
        }
        Err(Error::Denied { .. }) => {
            checks.push(Check::new("tracefs", State::Fail, NOT_PERMITTED, rights.grant()));
        }
        Err(error) => {
            let mend = Some(MOUNT_TRACEFS.to_owned());
            checks.push(Check::new("tracefs", State::Fail, error.to_string(), mend));
        }
    }
    privilege::check(root, &rights, wanted.len(), &mut checks);
    files::check(root, &rights, &mut checks);
    checks
}

fn tracepoint(
    tracefs: &Tracefs,
    rights: &privilege::Rights,
    system: &str,
    event: &str,
    fields: &[&str],
) -> Check {
    let name = format!("{system}:{event}");
    let lacking = if NEEDED.contains(&(system, event)) { State::Fail } else { State::Warn };
    let format = match tracefs.format(system, event) {
        Ok(Some(format)) => format,
        Ok(None) => return Check::new(name, lacking, "this kernel has none", None),
        Err(Error::Denied { .. }) => {
            return Check::new(name, State::Fail, NOT_PERMITTED, rights.grant());
        }
        Err(error) => return Check::new(name, lacking, error.to_string(), None),
    };
    let missing: Vec<&str> =
        fields.iter().copied().filter(|field| format.field(field).is_none()).collect();
    if missing.is_empty() {
        Check::new(name, State::Ok, format!("{} fields", format.fields.len()), None)
    } else {
        let found = format!("this kernel's event has no field {}", missing.join(", "));
        Check::new(name, lacking, found, None)
    }
}

/// Where events come from when no call chains are asked for; perf is the other way.
fn instances(tracefs: &Tracefs, rights: &privilege::Rights) -> Check {
    let name = "tracefs instances";
    if !tracefs.exists("instances") {
        let found = "this kernel has none: events come through perf";
        return Check::new(name, State::Warn, found, None);
    }
    if rights.may_make_instances() {
        Check::new(name, State::Ok, "available", None)
    } else {
        let found = "only root may make one: events come through perf";
        Check::new(name, State::Warn, found, None)
    }
}

/// Only some experiments need them.
fn kprobes(tracefs: &Tracefs) -> Check {
    if tracefs.exists("kprobe_events") {
        Check::new("kprobes", State::Ok, "available", None)
    } else {
        let found =
            "this kernel has none: CONFIG_KPROBE_EVENTS is off; only tracepoints are recorded";
        Check::new("kprobes", State::Warn, found, None)
    }
}
