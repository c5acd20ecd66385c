//! The caches that the names in the events stand for.

use kmemlab_trace::EventBatch;
use kmemlab_trace::event::{Column, Event};

use crate::slab::caches::{CacheId, Caches};

/// Caches by the number of their name.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    ids: Vec<CacheId>,
    /// Names that are no cache yet.
    unknown: Vec<(usize, String)>,
}

impl Names {
    /// The names of a batch.
    pub(super) fn read(&mut self, batch: &EventBatch, caches: &Caches) {
        self.ids.clear();
        self.unknown.clear();
        for number in 0..batch.names() {
            let name = batch.name(number as u16);
            let known = caches.find(name).unwrap_or(CacheId::UNKNOWN);
            if known == CacheId::UNKNOWN {
                self.unknown.push((number, name.to_owned()));
            }
            self.ids.push(known);
        }
    }

    /// The cache that an event names; one that `/proc/slabinfo` does not know is made now.
    #[inline]
    pub(super) fn cache_of(&mut self, event: &Event, caches: &mut Caches) -> CacheId {
        if !event.has(Column::Name) {
            return CacheId::UNKNOWN;
        }
        let number = usize::from(event.name);
        let Some(id) = self.ids.get_mut(number) else { return CacheId::UNKNOWN };
        if *id == CacheId::UNKNOWN && event.has(Column::BytesAllocated) {
            let name = self.unknown.iter().find(|(unknown, _)| *unknown == number);
            *id = name.map_or(*id, |(_, name)| caches.named(name, event.bytes_allocated));
        }
        *id
    }
}
