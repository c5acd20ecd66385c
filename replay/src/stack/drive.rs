//! The second pass: what the recording asks for goes to the slab layer, whose counts are compared.

use kmemlab_trace::snapshot::SlabRow;

use super::kernel::KernelSlabs;
use super::outcome::{Apart, CacheOutcome, SiteOutcome, SlabOutcome};
use super::recorded::Recorded;
use super::routes::Routes;
use super::sites::Functions;
use super::sums::{CacheCount, CacheSample, Held, SlabSums};
use super::{First, Ground, NODE_CACHE};
use crate::model::Request;
use crate::policy::PolicySet;
use crate::policy::slab::Host;
use crate::slab::ahead::Ahead;
use crate::slab::caches::{Cache, CacheId};
use crate::slab::follow::Follow;
use crate::slab::gfp::GfpBits;
use crate::slab::graces::Grace;
use crate::slab::learning::{BeforeSlab, Learned};
use crate::slab::policy::{CacheCounts, PageRequest, SlabPolicy, Token};
use crate::slab::role::Role;
use crate::slab::samples::SlabSample;

mod watch;

pub(super) use watch::{Asking, Served, slab_flags};

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
    routes: Routes,
    /// Who asks, where merged caches are apart.
    functions: Functions,
    apart: Apart,
    /// By object row: where the policy put it.
    tokens: Vec<Token>,
    /// By object row: the model's cache, where it may be another than the kernel's.
    served_by: Vec<CacheId>,
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
    bits: GfpBits,
    /// By cache: migrate type of its slabs' pages, as the page events told.
    migrates: Vec<u8>,
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
    /// How full the kernel's slabs are.
    kernel: KernelSlabs,
    /// Requests that took effect before or after their events.
    ahead: Ahead<'a, Token>,
    /// By call site: what it does.
    roles: Vec<Role>,
    /// Threads that hold a sheaf: who, of which cache, where.
    lent: Vec<(u32, CacheId, usize)>,
    /// How many objects those still to come want of their sheaf.
    wanted: &'a [u8],
    /// The cache of the nodes of trees.
    nodes: CacheId,
}

impl<'a> Drive<'a> {
    pub(super) fn new(ground: &Ground, first: &'a First, set: &PolicySet) -> Self {
        let learned = &first.slabs;
        let (cpus, rules, page_bytes) =
            (ground.machine.cpus, ground.decides.slab, ground.page_bytes);
        let callers = ground.callers.clone().filter(|_| set.slab.is_unmerged());
        let policy = set.slab.make(&Host { cpus, rules, page_bytes });
        let mut drive = Self {
            policy,
            routes: Routes::new(&ground.caches, &rules, callers.as_ref()),
            functions: callers.map_or_else(Functions::default, |callers| callers.functions),
            apart: Apart::default(),
            tokens: Vec::new(),
            served_by: Vec::new(),
            learned: learned.before.clone(),
            left_free: learned.before.iter().map(|slab| slab.free).collect(),
            recorded: Vec::new(),
            strides: Vec::new(),
            sites: vec![(0, 0, 0); ground.sites.len()],
            requests: Vec::new(),
            gfp: ground.caches.gfp().direct_reclaim | ground.caches.gfp().kswapd_reclaim,
            bits: *ground.caches.gfp(),
            migrates: vec![0; ground.caches.list().len()],
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
            kernel: KernelSlabs::new(&ground.caches, learned),
            ahead: Ahead::new(&first.moments),
            roles: ground.roles.clone(),
            lent: Vec::new(),
            wanted: &first.wanted,
            nodes: ground.caches.find(NODE_CACHE).unwrap_or(CacheId::UNKNOWN),
        };
        let count = ground.caches.list().len();
        drive.recorded.resize(count, Recorded::default());
        drive.strides = ground.caches.list().iter().map(|cache| cache.stride).collect();
        drive.policy.learn(drive.routes.caches());
        for (cache, migrate) in &first.unseen.types {
            if let Some(told) = drive.migrates.get_mut(cache.index()) {
                *told = *migrate;
            }
        }
        drive.live = live_at_start(ground, learned);
        drive.peak_live = drive.live;
        drive.next_stop = ground.samples.first().map_or(u64::MAX, |it| it.stamp.before.0);
        for (index, recorded) in drive.recorded.iter_mut().enumerate() {
            recorded.slabs = learned.cache(CacheId(index as u16)).nameless_slabs;
        }
        drive
    }

    /// The layer starts; slabs from before are known.
    pub(super) fn begin(&mut self, learned: &Learned) {
        self.policy.seed(self.routes.caches(), learned);
    }

    /// Every cache at every sample is wanted.
    pub(super) fn keep_rows(&mut self) {
        self.rows = Some(Vec::new());
    }

    /// Time goes on: samples are compared as it passes them.
    #[inline]
    pub(super) fn time(&mut self, now: u64, ground: &Ground) {
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

    /// What the layer asked of the page allocator since the last call, and the flags of the request
    /// that it served last.
    pub(super) fn requests(&mut self) -> (&mut Vec<PageRequest>, u32) {
        self.policy.take_requests(&mut self.requests);
        (&mut self.requests, self.gfp)
    }

    /// The request for a slab's pages, by a caller with these flags.
    pub(super) fn page_request(&self, cpu: usize, cache: CacheId, order: u8, gfp: u32) -> Request {
        let gfp = slab_flags(gfp, &self.bits);
        let like = self.routes.like(cache).index();
        let migrate = self.migrates.get(like).copied().unwrap_or(0);
        Request { cpu, order, gfp, migrate }
    }

    /// The policy.
    pub(super) fn policy(&self) -> &dyn SlabPolicy {
        &*self.policy
    }

    /// A grace period goes on.
    pub(super) fn grace(&mut self, grace: Grace, cpu: usize) {
        self.policy.grace(grace, cpu);
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
            let kernel = CacheCount::of_row(row, ground.page_bytes);
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
        for added in self.routes.added() {
            let (held, cache) = (self.policy.counts(added), self.routes.caches().get(added));
            let bytes = cache.map_or(0, |cache| u64::from(cache.stride));
            model_held.add(held.pages, held.active, bytes);
        }
        if model_held.pages == 0 {
            // SLOB knows pages and no caches' slabs.
            model_held.add(self.policy.pages(), 0, 0);
        }
        self.sums.add(model_held, kernel_held, ground.page_bytes);
        let (model, kernel) = self.kernel.fullness(&*self.policy, &ground.caches);
        self.sums.add_fullness(&model, &kernel);
        let away = model_held.pages.abs_diff(kernel_held.pages);
        let percent = away as f64 * 100.0 / kernel_held.pages.max(1) as f64;
        self.sum_percent += percent;
        self.worst_percent = self.worst_percent.max(percent);
        self.samples += 1;
    }

    pub(super) fn finish(&mut self, ground: &Ground, follow: &Follow<'_>) -> SlabOutcome {
        self.stop(u64::MAX, ground);
        let mut slab = SlabOutcome { pages_model: self.policy.pages(), ..SlabOutcome::default() };
        slab.pages_kernel = self
            .last
            .iter()
            .fold(0, |sum: u64, (row, ..)| sum.saturating_add(row.pages(ground.page_bytes)));
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
        slab.is_shrunk = !ground.shrinks.is_empty();
        let (occupancy, held) = (self.policy.occupancy(), self.kernel.held());
        for (index, cache) in self.routes.caches().list().iter().enumerate() {
            let counts = self.policy.counts(CacheId(index as u16));
            let recorded = self.recorded.get(index).copied().unwrap_or_default();
            let held = held.get(index).copied().unwrap_or_default();
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
                min_order_model: counts.min_order,
                min_order_kernel: recorded.least_slabs,
                pages_model: counts.pages,
                asked_bytes: recorded.asked_bytes,
                given_bytes: recorded.given_bytes,
                stride_bytes: u64::from(cache.stride),
                cause: recorded.cause(cache.sheaf > 0),
                room: counts.objects,
                occupancy_kernel: held.occupancy,
                room_kernel: held.room,
                ping_pong_kernel: held.ping_pong,
                listed_free_kernel: last
                    .map_or(0, |(row, ..)| row.objects.saturating_sub(row.active_objects)),
                listed_free_model: last
                    .map_or(0, |(_, model, _)| model.objects.saturating_sub(model.active)),
            });
        }
        slab.apart = self.routes.apart().map(|[merged, names, functions]| Apart {
            merged_caches: merged,
            caches_by_name: names,
            caches_by_function: functions,
            ..self.apart
        });
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
