//! The second pass: what the recording asks for goes to the slab layer, whose counts are compared.

use kmemlab_trace::event::Event;
use kmemlab_trace::snapshot::SlabRow;

use super::outcome::{CacheOutcome, StackOutcome};
use super::{Ground, StackOptions};
use crate::ReplayError;
use crate::slab::caches::{CacheId, Caches};
use crate::slab::follow::{Follow, KernelSlab, NONE, Object, State, Watch};
use crate::slab::learning::Learned;
use crate::slab::policy::{CacheCounts, NO_TOKEN, PageRequest, SlabPolicy, Token};
use crate::slab::registry;

/// By cache: what the recording did.
#[derive(Clone, Copy, Debug, Default)]
struct Recorded {
    slabs: u64,
    made: u64,
    released: u64,
    events: u64,
    hidden_frees: u64,
    hidden_allocs: u64,
    asked_bytes: u64,
    given_bytes: u64,
}

/// Both at one moment.
#[derive(Clone, Copy, Debug, Default)]
struct Moment {
    model: CacheCounts,
    followed: u64,
}

/// The listener of the second pass.
#[derive(Debug)]
pub(super) struct Drive {
    policy: Box<dyn SlabPolicy>,
    policy_name: String,
    /// By object row: where the policy put it.
    tokens: Vec<Token>,
    recorded: Vec<Recorded>,
    requests: Vec<PageRequest>,
    direct_reclaim: u32,
    live: u64,
    peak_live: u64,
    /// The sample being read by the kernel, and the counts just before.
    next_sample: usize,
    open: Vec<Moment>,
    is_open: bool,
    next_stop: u64,
    worst_percent: f64,
    sum_percent: f64,
    samples: u64,
    followed: (u64, u64, u64),
    last: Vec<(SlabRow, CacheCounts, u64)>,
    is_started: bool,
}

impl Drive {
    pub(super) fn new(
        ground: &Ground,
        learned: &Learned,
        options: &StackOptions,
    ) -> Result<Self, ReplayError> {
        let spec = options.slab.as_deref().unwrap_or(registry::DEFAULT);
        let policy = registry::make(spec, ground.machine.cpus, ground.rules, ground.page_bytes)
            .map_err(ReplayError::Policy)?;
        let mut drive = Self {
            policy,
            policy_name: spec.to_owned(),
            tokens: Vec::new(),
            recorded: Vec::new(),
            requests: Vec::new(),
            direct_reclaim: ground.caches.gfp().direct_reclaim,
            live: 0,
            peak_live: 0,
            next_sample: 0,
            open: Vec::new(),
            is_open: false,
            next_stop: 0,
            worst_percent: 0.0,
            sum_percent: 0.0,
            samples: 0,
            followed: (0, 0, 0),
            last: Vec::new(),
            is_started: false,
        };
        drive.learn(&ground.caches);
        drive.next_stop = ground.samples.first().map_or(u64::MAX, |it| it.stamp.before.0);
        for (index, recorded) in drive.recorded.iter_mut().enumerate() {
            recorded.slabs = learned.cache(CacheId(index as u16)).nameless_slabs;
        }
        Ok(drive)
    }

    /// The layer starts; slabs from before are known.
    pub(super) fn begin(&mut self, caches: &Caches, learned: &Learned) {
        self.policy.seed(caches, learned);
        self.is_started = true;
    }

    /// Caches that came to be known since.
    pub(super) fn learn(&mut self, caches: &Caches) {
        let count = caches.list().len();
        if self.recorded.len() < count {
            self.recorded.resize(count, Recorded::default());
            self.policy.learn(caches);
        }
    }

    /// Time goes on: samples are compared as it passes them.
    #[inline]
    pub(super) fn time(&mut self, now: u64, ground: &Ground) {
        if ground.caches.list().len() > self.recorded.len() {
            self.learn(&ground.caches);
        }
        if now > self.next_stop {
            self.stop(now, ground);
        }
    }

    fn stop(&mut self, now: u64, ground: &Ground) {
        while let Some(sample) = ground.samples.get(self.next_sample) {
            if !self.is_open && now > sample.stamp.before.0 {
                self.open = self.moment();
                self.is_open = true;
            }
            if now <= sample.stamp.after.0 {
                self.next_stop =
                    if self.is_open { sample.stamp.after.0 } else { sample.stamp.before.0 };
                return;
            }
            self.compare(&sample.rows, &ground.caches);
            self.is_open = false;
            self.next_sample += 1;
        }
        self.next_stop = u64::MAX;
    }

    fn moment(&self) -> Vec<Moment> {
        (0..self.recorded.len())
            .map(|index| Moment {
                model: self.policy.counts(CacheId(index as u16)),
                followed: self.recorded[index].slabs,
            })
            .collect()
    }

    /// Compares with one read of `/proc/slabinfo`. The file is read cache by cache, so any count
    /// between those before and after the read is the kernel's moment.
    fn compare(&mut self, rows: &[SlabRow], caches: &Caches) {
        let closed = self.moment();
        let mut wrong_pages = 0;
        let mut pages = 0;
        self.last.clear();
        for row in rows {
            let Some(cache) = caches.find(&row.cache) else { continue };
            let after = closed[cache.index()];
            let before = self.open.get(cache.index()).copied().unwrap_or_default();
            let slabs = nearest(before.model.slabs, after.model.slabs, row.slabs);
            let followed = nearest(before.followed, after.followed, row.slabs);
            let model_pages =
                nearest(before.model.pages, after.model.pages, row.slabs * row.pages_per_slab);
            pages += row.slabs * row.pages_per_slab;
            wrong_pages += model_pages as i64 - (row.slabs * row.pages_per_slab) as i64;
            self.followed.0 += u64::from(followed == row.slabs);
            self.followed.1 += 1;
            self.followed.2 += followed.abs_diff(row.slabs) * row.pages_per_slab;
            let active = nearest(before.model.active, after.model.active, row.active_objects);
            let model = CacheCounts { slabs, active, ..after.model };
            self.last.push((row.clone(), model, followed));
        }
        let percent = wrong_pages.unsigned_abs() as f64 * 100.0 / pages.max(1) as f64;
        self.sum_percent += percent;
        self.worst_percent = self.worst_percent.max(percent);
        self.samples += 1;
    }

    pub(super) fn finish(
        &mut self,
        ground: &Ground,
        follow: &Follow<'_>,
        outcome: &mut StackOutcome,
    ) {
        self.stop(u64::MAX, ground);
        let slab = &mut outcome.slab;
        slab.policy.clone_from(&self.policy_name);
        slab.samples = self.samples;
        slab.pages_error_percent = self.sum_percent / self.samples.max(1) as f64;
        slab.pages_error_worst_percent = self.worst_percent;
        (slab.followed_exact, slab.followed, slab.followed_wrong_pages) = self.followed;
        slab.state_bytes =
            self.policy.state_bytes() + follow.bytes() + self.tokens.len() as u64 * 4;
        slab.live_objects = self.live;
        slab.peak_live_objects = self.peak_live;
        let occupancy = self.policy.occupancy();
        for (index, cache) in ground.caches.list().iter().enumerate() {
            let counts = self.policy.counts(CacheId(index as u16));
            let recorded = self.recorded.get(index).copied().unwrap_or_default();
            let last = self.last.iter().find(|(row, ..)| row.cache == cache.name);
            slab.caches.push(CacheOutcome {
                name: cache.name.clone(),
                new_slabs_model: counts.new_slabs,
                new_slabs_kernel: recorded.made,
                released_slabs_model: counts.released_slabs,
                released_slabs_kernel: recorded.released,
                slabs_model: last.map_or(counts.slabs, |(_, model, _)| model.slabs),
                slabs_kernel: last.map_or(0, |(row, ..)| row.slabs),
                slabs_followed: last.map_or(recorded.slabs, |(.., followed)| *followed),
                active_objects_model: last.map_or(counts.active, |(_, model, _)| model.active),
                active_objects_kernel: last.map_or(0, |(row, ..)| row.active_objects),
                hidden_frees: recorded.hidden_frees,
                hidden_allocs: recorded.hidden_allocs,
                events: recorded.events,
                occupancy: occupancy.get(index).copied().unwrap_or_default(),
                ping_pong: counts.ping_pong,
                pages_model: counts.pages,
                asked_bytes: recorded.asked_bytes,
                given_bytes: recorded.given_bytes,
            });
        }
    }
}

/// What lies between `before` and `after` and is nearest to `wanted`.
fn nearest(before: u64, after: u64, wanted: u64) -> u64 {
    wanted.clamp(before.min(after), before.max(after))
}

impl Watch for Drive {
    fn created(&mut self, _: u32, slab: &KernelSlab, _: usize) {
        let (first, count) = (slab.first as usize, usize::from(slab.objects));
        if self.tokens.len() < first + count {
            self.tokens.resize(first + count, NO_TOKEN);
        }
        self.tokens[first..first + count].fill(NO_TOKEN);
        if let Some(recorded) = self.recorded.get_mut(slab.cache.index()) {
            recorded.slabs += 1;
            recorded.made += u64::from(slab.before == NONE);
        }
    }

    fn destroyed(&mut self, _: u32, slab: &KernelSlab, states: &[State], cpu: usize) {
        for (index, state) in states.iter().enumerate() {
            let token = self.tokens[slab.first as usize + index];
            if *state == State::Live && token != NO_TOKEN {
                self.policy.free(token, slab.cache, cpu);
                self.live -= 1;
                self.recorded[slab.cache.index()].hidden_frees += 1;
            }
        }
        if let Some(recorded) = self.recorded.get_mut(slab.cache.index()) {
            recorded.slabs = recorded.slabs.saturating_sub(1);
            recorded.released += 1;
        }
    }

    #[inline]
    fn alloc(&mut self, object: Object, _: &KernelSlab, event: &Event) {
        let cpu = usize::from(event.cpu.0);
        let recorded = &mut self.recorded[object.cache.index()];
        recorded.events += 1;
        recorded.asked_bytes += event.bytes_requested;
        recorded.given_bytes += event.bytes_allocated;
        let token = &mut self.tokens[object.number as usize];
        if object.was == State::Live {
            recorded.hidden_frees += 1;
            self.policy.free(*token, object.cache, cpu);
        } else {
            self.live += 1;
            self.peak_live = self.peak_live.max(self.live);
        }
        let may_block = event.gfp & self.direct_reclaim != 0;
        *token = self.policy.alloc(object.cache, cpu, may_block);
        if self.requests.len() < 1 << 16 {
            self.requests.clear();
        }
    }

    #[inline]
    fn free(&mut self, object: Object, slab: &KernelSlab, event: &Event) {
        let cpu = usize::from(event.cpu.0);
        let recorded = &mut self.recorded[object.cache.index()];
        recorded.events += 1;
        let place = object.number as usize;
        let token = match object.was {
            State::Untouched => self.policy.before(slab.before, object.cache),
            State::Free => {
                recorded.hidden_allocs += 1;
                self.policy.alloc(object.cache, cpu, true)
            }
            State::Live | State::Owed => {
                self.live -= 1;
                self.tokens[place]
            }
        };
        self.tokens[place] = NO_TOKEN;
        if token != NO_TOKEN {
            self.policy.free(token, object.cache, cpu);
        }
    }
}
