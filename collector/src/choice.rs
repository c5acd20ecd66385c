//! Which tracepoints a recording takes: those that are asked for and that this kernel has.

use kmemlab_trace::event::Kind;
use kmemlab_trace::manifest::TracepointRecord;
use kmemlab_trace::tracepoint::{self, Group, Need, Tracepoint};

use crate::backend::Counting;
use crate::error::Error;
use crate::layout::Layout;
use crate::perf::Wanted;
use crate::record_error::RecordError;
use crate::tracefs::{Format, Tracefs};

/// The tracepoints of a recording.
#[derive(Debug, Default)]
pub(crate) struct Choice {
    pub(crate) layout: Layout,
    pub(crate) wanted: Vec<Wanted>,
    /// By the position in `wanted`.
    pub(crate) kinds: Vec<Kind>,
    /// By the position in `wanted`.
    pub(crate) records: Vec<TracepointRecord>,
    pub(crate) absent: Vec<String>,
    pub(crate) notes: Vec<String>,
}

impl Choice {
    /// Looks for every tracepoint of these groups; of all, when none is named.
    pub(crate) fn make(
        tracefs: &Tracefs,
        groups: &[Group],
        release: &str,
    ) -> Result<Self, RecordError> {
        let mut choice = Self::default();
        for (group, name) in Group::ALL {
            if !groups.is_empty() && !groups.contains(group) {
                continue;
            }
            if let Some(missing) = choice.first_missing(tracefs, *group)? {
                if *group == Group::Page {
                    return Err(RecordError::NoTracepoint {
                        tracepoint: missing.to_owned(),
                        group: name,
                        release: release.to_owned(),
                    });
                }
                let note = format!("group {name} is not recorded: this kernel has no {missing}");
                choice.notes.push(note);
                choice.absent.extend(of_group(*group).map(|it| it.kind.name().to_owned()));
                continue;
            }
            for tracepoint in of_group(*group) {
                choice.add(tracefs, tracepoint, release)?;
            }
        }
        Ok(choice)
    }

    fn first_missing(
        &self,
        tracefs: &Tracefs,
        group: Group,
    ) -> Result<Option<&'static str>, RecordError> {
        for tracepoint in of_group(group).filter(|it| it.need == Need::Required) {
            if tracefs.format_text(tracepoint.system(), tracepoint.event())?.is_none() {
                return Ok(Some(tracepoint.kind.name()));
            }
        }
        Ok(None)
    }

    /// The tracepoints that are to be counted beside the ring.
    pub(crate) fn counted(&self, counting: Counting) -> Vec<Wanted> {
        let is_counted = |kind: Kind| match counting {
            Counting::All => true,
            Counting::ButSlab => {
                let found = tracepoint::ALL.iter().find(|tracepoint| tracepoint.kind == kind);
                found.is_some_and(|tracepoint| tracepoint.group != Group::Slab)
            }
            Counting::None => false,
        };
        let pairs = self.wanted.iter().zip(&self.kinds);
        pairs.filter(|(_, kind)| is_counted(**kind)).map(|(wanted, _)| wanted.clone()).collect()
    }

    fn add(
        &mut self,
        tracefs: &Tracefs,
        tracepoint: &Tracepoint,
        release: &str,
    ) -> Result<(), RecordError> {
        let name = tracepoint.kind.name().to_owned();
        let Some(text) = tracefs.format_text(tracepoint.system(), tracepoint.event())? else {
            self.absent.push(name);
            return Ok(());
        };
        let path = tracefs.path().join("events").join(tracepoint.system()).join(tracepoint.event());
        let format = Format::parse(&text).map_err(|source| Error::Parse { path, source })?;
        let id = self.layout.add(tracepoint, &format, release)?;
        let is_allocation = matches!(
            tracepoint.kind,
            Kind::PageAlloc
                | Kind::Kmalloc
                | Kind::KmallocNode
                | Kind::CacheAlloc
                | Kind::CacheAllocNode
        );
        self.wanted.push(Wanted { name: name.clone(), id, is_allocation });
        self.kinds.push(tracepoint.kind);
        let id = u64::from(id);
        self.records.push(TracepointRecord { name, id, format: text, ..Default::default() });
        Ok(())
    }
}

fn of_group(group: Group) -> impl Iterator<Item = &'static Tracepoint> {
    tracepoint::ALL.iter().filter(move |it| it.group == group)
}
