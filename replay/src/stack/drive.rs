//! The second pass: what the recording asks for goes to the slab layer, whose counts are compared.

use kmemlab_trace::event::Event;
use kmemlab_trace::snapshot::SlabRow;

use super::outcome::{CacheOutcome, Cause, SiteOutcome, SlabOutcome};
use super::sums::{CacheCount, CacheSample, Held, SlabSums};
use super::{First, Ground};
use crate::policy::PolicySet;
use crate::policy::slab::Host;
use crate::slab::ahead::Ahead;
use crate::slab::caches::{Cache, CacheId, Caches};
use crate::slab::follow::{Follow, KernelSlab, NONE, Object, State, Watch};
use crate::slab::learning::{BeforeSlab, Learned};
use crate::slab::policy::{Ask, CacheCounts, NO_TOKEN, PageRequest, SlabPolicy, Token};
use crate::slab::samples::SlabSample;

/// By cache: what the recording did.
#[derive(Clone, Copy, Debug, Default)]
struct Recorded {
    slabs: u64,
    made: u64,
    released: u64,
    events: u64,
    hidden_frees: u64,
    hidden_allocs: u64,
    unseen_slabs: u64,
    asked_bytes: u64,
    given_bytes: u64,
}

impl Recorded {
    /// Why events are missing: objects in sheaves, whole slabs without one, or objects alone.
    fn cause(&self, has_sheaves: bool) -> Cause {
        if has_sheaves && self.hidden_frees > 0 {
            Cause::Sheaf
        } else if self.unseen_slabs > 0 {
            Cause::HiddenThreads
        } else if self.hidden_allocs > 0 {
            Cause::Bulk
        } else if self.hidden_frees > 0 {
            Cause::KfreeRcu
        } else {
            Cause::Complete
        }
    }
}

/// Objects, bytes asked for and bytes given.
type Given = (u64, u64, u64);

/// Call sites told.
const TOP_SITES: usize = 15;

/// Both at one moment.
#[derive(Clone, Copy, Debug, Default)]
struct Moment {
    model: CacheCounts,
    followed: u64,
}

/// Nanoseconds after which a layer is told that time goes on: finer than any timer of one.
const TICK_NS: u64 = 10_000_000;

/// The listener of the second pass.
#[derive(Debug)]
pub(super) struct Drive<'a> {
    policy: Box<dyn SlabPolicy>,
    /// By object row: where the policy put it.
    tokens: Vec<Token>,
    /// By slab from before.
    learned: Vec<BeforeSlab>,
    /// By slab from before: objects free at the start that were not allocated yet.
    left_free: Vec<u16>,
    recorded: Vec<Recorded>,
    /// By cache.
    strides: Vec<u32>,
    /// By call site.
    sites: Vec<Given>,
    requests: Vec<PageRequest>,
    /// Flags of the request that is being served.
    gfp: u32,
    direct_reclaim: u32,
    live: u64,
    peak_live: u64,
    /// The sample being read by the kernel, and the counts just before.
    next_sample: usize,
    open: Vec<Moment>,
    is_open: bool,
    next_stop: u64,
    next_tick: u64,
    next_shrink: usize,
    worst_percent: f64,
    sum_percent: f64,
    samples: u64,
    sums: SlabSums,
    /// Every cache at every sample, if they are wanted.
    rows: Option<Vec<CacheSample>>,
    followed: (u64, u64, u64),
    last: Vec<(SlabRow, CacheCounts, u64)>,
    is_started: bool,
    ahead: Ahead<'a, Token>,
}

impl<'a> Drive<'a> {
    pub(super) fn new(ground: &Ground, first: &'a First, set: &PolicySet) -> Self {
        let learned = &first.slabs;
        let (cpus, rules, page_bytes) = (ground.machine.cpus, ground.rules, ground.page_bytes);
        let policy = set.slab.make(&Host { cpus, rules, page_bytes });
        let mut drive = Self {
            policy,
            tokens: Vec::new(),
            learned: learned.before.clone(),
            left_free: learned.before.iter().map(|slab| slab.free).collect(),
            recorded: Vec::new(),
            strides: Vec::new(),
            sites: vec![(0, 0, 0); ground.sites.len()],
            requests: Vec::new(),
            gfp: ground.caches.gfp().direct_reclaim | ground.caches.gfp().kswapd_reclaim,
            direct_reclaim: ground.caches.gfp().direct_reclaim,
            live: 0,
            peak_live: 0,
            next_sample: 0,
            open: Vec::new(),
            is_open: false,
            next_stop: 0,
            next_tick: 0,
            next_shrink: 0,
            worst_percent: 0.0,
            sum_percent: 0.0,
            samples: 0,
            sums: SlabSums::default(),
            rows: None,
            followed: (0, 0, 0),
            last: Vec::new(),
            is_started: false,
            ahead: Ahead::new(&first.moments),
        };
        drive.learn(&ground.caches);
        drive.live = live_at_start(ground, learned);
        drive.peak_live = drive.live;
        drive.next_stop = ground.samples.first().map_or(u64::MAX, |it| it.stamp.before.0);
        for (index, recorded) in drive.recorded.iter_mut().enumerate() {
            recorded.slabs = learned.cache(CacheId(index as u16)).nameless_slabs;
        }
        drive
    }

    /// The layer starts; slabs from before are known.
    pub(super) fn begin(&mut self, caches: &Caches, learned: &Learned) {
        self.policy.seed(caches, learned);
        self.is_started = true;
    }

    /// Every cache at every sample is wanted.
    pub(super) fn keep_rows(&mut self) {
        self.rows = Some(Vec::new());
    }

    /// Caches that came to be known since.
    pub(super) fn learn(&mut self, caches: &Caches) {
        let count = caches.list().len();
        if self.recorded.len() < count {
            self.recorded.resize(count, Recorded::default());
            self.strides = caches.list().iter().map(|cache| cache.stride).collect();
            self.policy.learn(caches);
        }
    }

    /// Time goes on: samples are compared as it passes them.
    #[inline]
    pub(super) fn time(&mut self, now: u64, ground: &Ground) {
        if ground.caches.list().len() > self.recorded.len() {
            self.learn(&ground.caches);
        }
        while let Some((at, cache)) = ground.shrinks.get(self.next_shrink).copied()
            && now > at
        {
            self.policy.shrink(cache);
            self.next_shrink += 1;
        }
        if now > self.next_stop {
            self.stop(now, ground);
        }
        if now > self.next_tick {
            self.policy.tick(now);
            self.next_tick = now + TICK_NS;
        }
    }

    /// An event comes: allocations that it overtook are made first.
    #[inline]
    pub(super) fn begin_event(&mut self) {
        self.ahead.begin_event();
        while let Some(due) = self.ahead.next_due() {
            let may_block = due.gfp & self.direct_reclaim != 0;
            self.gfp = if due.gfp == 0 { self.gfp } else { due.gfp };
            let (cache, cpu) = (due.cache, usize::from(due.cpu));
            let bytes = if due.bytes > 0 { due.bytes } else { self.strides[cache.index()] };
            let token = self.policy.alloc(&Ask { cache, cpu, bytes, may_block });
            self.ahead.park(&due, token);
        }
    }

    /// Frees that take effect after this event only.
    #[inline]
    pub(super) fn end_event(&mut self) {
        while let Some(held) = self.ahead.release() {
            self.policy.free(held.token, held.cache, held.cpu);
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
            self.compare(sample, ground);
            self.is_open = false;
            self.next_sample += 1;
        }
        self.next_stop = u64::MAX;
    }

    /// An object is allocated whose first event that is: free at the start, or freed unseen.
    fn untouched(&mut self, slab: &KernelSlab, cache: CacheId, cpu: usize) {
        match self.left_free.get_mut(slab.before as usize) {
            Some(left) if *left > 0 => *left -= 1,
            Some(_) => {
                self.recorded[cache.index()].hidden_frees += 1;
                let token = self.policy.before(slab.before, cache);
                if token != NO_TOKEN {
                    self.policy.free(token, cache, cpu);
                }
            }
            None => {}
        }
    }

    /// What the layer asked of the page allocator since the last call, and the flags of the request
    /// that it served last.
    pub(super) fn requests(&mut self) -> (&mut Vec<PageRequest>, u32) {
        self.policy.take_requests(&mut self.requests);
        (&mut self.requests, self.gfp)
    }

    /// The policy.
    pub(super) fn policy(&self) -> &dyn SlabPolicy {
        &*self.policy
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
    fn compare(&mut self, sample: &SlabSample, ground: &Ground) {
        let closed = self.moment();
        let (mut model_held, mut kernel_held) = (Held::default(), Held::default());
        self.last.clear();
        for row in &sample.rows {
            let Some(cache) = ground.caches.find(&row.cache) else { continue };
            let after = closed[cache.index()];
            let before = self.open.get(cache.index()).copied().unwrap_or_default();
            let kernel = CacheCount::of_row(row);
            let model = CacheCount::nearest(&before.model, &after.model, &kernel);
            let bytes = row.object_size_bytes;
            model_held.add(model.pages, model.active_objects, bytes);
            kernel_held.add(kernel.pages, kernel.active_objects, bytes);
            let followed = nearest(before.followed, after.followed, row.slabs);
            self.followed.0 += u64::from(followed == row.slabs);
            self.followed.1 += 1;
            let wrong = followed.abs_diff(row.slabs).saturating_mul(row.pages_per_slab);
            self.followed.2 = self.followed.2.saturating_add(wrong);
            let (slabs, active) = (model.slabs, model.active_objects);
            self.last.push((row.clone(), CacheCounts { slabs, active, ..after.model }, followed));
            if let Some(rows) = &mut self.rows {
                let (at_ns, cache) = (sample.stamp.before.0, cache.index());
                rows.push(CacheSample { at_ns, cache, object_bytes: bytes, kernel, model });
            }
        }
        if model_held.pages == 0 {
            // SLOB knows pages and no caches' slabs.
            model_held.add(self.policy.pages(), 0, 0);
        }
        self.sums.add(model_held, kernel_held, ground.page_bytes);
        let away = model_held.pages.abs_diff(kernel_held.pages);
        let percent = away as f64 * 100.0 / kernel_held.pages.max(1) as f64;
        self.sum_percent += percent;
        self.worst_percent = self.worst_percent.max(percent);
        self.samples += 1;
    }

    pub(super) fn finish(&mut self, ground: &Ground, follow: &Follow<'_>) -> SlabOutcome {
        self.stop(u64::MAX, ground);
        let mut slab = SlabOutcome { pages_model: self.policy.pages(), ..SlabOutcome::default() };
        slab.pages_kernel = self.last.iter().fold(0, |sum: u64, (row, ..)| {
            sum.saturating_add(row.slabs.saturating_mul(row.pages_per_slab))
        });
        slab.samples = self.samples;
        slab.sums = self.sums;
        slab.starts_compact = self.policy.starts_compact();
        slab.rows = self.rows.take().unwrap_or_default();
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
                stride_bytes: u64::from(cache.stride),
                cause: recorded.cause(cache.sheaf > 0),
                room: counts.objects,
            });
        }
        slab.sites = self.top_sites();
        slab
    }

    /// The call sites that waste most.
    fn top_sites(&self) -> Vec<SiteOutcome> {
        let mut sites: Vec<SiteOutcome> = self
            .sites
            .iter()
            .enumerate()
            .filter(|(_, (_, asked, given))| given > asked)
            .map(|(stack, (allocs, asked, given))| SiteOutcome {
                stack: stack as u32,
                allocs: *allocs,
                asked_bytes: *asked,
                given_bytes: *given,
                ..SiteOutcome::default()
            })
            .collect();
        let waste = |site: &SiteOutcome| site.given_bytes - site.asked_bytes;
        sites.sort_by_key(|site| (std::cmp::Reverse(waste(site)), site.stack));
        sites.truncate(TOP_SITES);
        sites
    }
}

/// Objects that were live at the start, by what is known of their slabs.
fn live_at_start(ground: &Ground, learned: &Learned) -> u64 {
    let of = |(index, cache): (usize, &Cache)| {
        let start = learned.cache(CacheId(index as u16));
        let told = start.slabs.iter().map(|number| {
            let slab = learned.before[*number as usize];
            u64::from(slab.objects.saturating_sub(slab.free))
        });
        let room = start.nameless_slabs * u64::from(cache.objects);
        told.sum::<u64>() + room.saturating_sub(start.nameless_free)
    };
    ground.caches.list().iter().enumerate().map(of).sum()
}

/// What lies between `before` and `after` and is nearest to `wanted`.
pub(super) fn nearest(before: u64, after: u64, wanted: u64) -> u64 {
    wanted.clamp(before.min(after), before.max(after))
}

impl Watch for Drive<'_> {
    fn created(&mut self, _: u32, slab: &KernelSlab, _: usize) {
        let (first, count) = (slab.first as usize, usize::from(slab.objects));
        if self.tokens.len() < first + count {
            self.tokens.resize(first + count, NO_TOKEN);
        }
        self.tokens[first..first + count].fill(NO_TOKEN);
        if let Some(recorded) = self.recorded.get_mut(slab.cache.index()) {
            recorded.slabs += 1;
            recorded.made += u64::from(slab.before == NONE);
            if self.is_started && slab.before != NONE {
                recorded.unseen_slabs += 1;
                let learned = self.learned.get(slab.before as usize).copied().unwrap_or_default();
                self.policy.adopt(slab.before, slab.cache, &learned);
            }
        }
    }

    fn destroyed(&mut self, _: u32, slab: &KernelSlab, states: &[State], cpu: usize) {
        for (index, state) in states.iter().enumerate() {
            let token = self.tokens[slab.first as usize + index];
            if *state == State::Live && token != NO_TOKEN {
                self.policy.free(token, slab.cache, cpu);
                self.live = self.live.saturating_sub(1);
                self.recorded[slab.cache.index()].hidden_frees += 1;
            }
        }
        if let Some(recorded) = self.recorded.get_mut(slab.cache.index()) {
            recorded.slabs = recorded.slabs.saturating_sub(1);
            recorded.released += 1;
        }
    }

    #[inline]
    fn alloc(&mut self, object: Object, slab: &KernelSlab, event: &Event) {
        let cpu = usize::from(event.cpu.0);
        let recorded = &mut self.recorded[object.cache.index()];
        recorded.events += 1;
        recorded.asked_bytes = recorded.asked_bytes.saturating_add(event.bytes_requested);
        recorded.given_bytes = recorded.given_bytes.saturating_add(event.bytes_allocated);
        if let Some(site) = self.sites.get_mut(event.stack as usize) {
            site.0 += 1;
            site.1 = site.1.saturating_add(event.bytes_requested);
            site.2 = site.2.saturating_add(event.bytes_allocated);
        }
        if object.was == State::Live {
            recorded.hidden_frees += 1;
            let token = self.tokens[object.number as usize];
            self.policy.free(token, object.cache, cpu);
        } else {
            self.live += 1;
            self.peak_live = self.peak_live.max(self.live);
            if object.was == State::Untouched {
                self.untouched(slab, object.cache, cpu);
            }
        }
        if let Some(token) = self.ahead.take() {
            self.tokens[object.number as usize] = token;
            return;
        }
        let token = &mut self.tokens[object.number as usize];
        self.gfp = event.gfp;
        let may_block = event.gfp & self.direct_reclaim != 0;
        let bytes = event.bytes_requested.min(u64::from(u32::MAX)) as u32;
        *token = self.policy.alloc(&Ask { cache: object.cache, cpu, bytes, may_block });
    }

    #[inline]
    fn free(&mut self, object: Object, slab: &KernelSlab, event: &Event) {
        let cpu = usize::from(event.cpu.0);
        let recorded = &mut self.recorded[object.cache.index()];
        recorded.events += 1;
        let place = object.number as usize;
        let token = match object.was {
            State::Untouched => {
                self.live = self.live.saturating_sub(1);
                self.policy.before(slab.before, object.cache)
            }
            State::Free => {
                recorded.hidden_allocs += 1;
                let bytes = self.strides[object.cache.index()];
                let ask = Ask { cache: object.cache, cpu, bytes, may_block: true };
                self.ahead.take().unwrap_or_else(|| self.policy.alloc(&ask))
            }
            State::Live | State::Owed => {
                self.live = self.live.saturating_sub(1);
                self.tokens[place]
            }
        };
        self.tokens[place] = NO_TOKEN;
        if token != NO_TOKEN && !self.ahead.hold(token, object.cache, cpu) {
            self.policy.free(token, object.cache, cpu);
        }
    }
}
