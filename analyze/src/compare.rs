//! Two recordings, or model runs, held against each other.
//!
//! A difference means something only beyond the model's own error: that of the baseline model
//! against the kernel on the same recording, which every model run carries. Between two recordings
//! of kernels there is no such error, and none is shown.

use kmemlab_trace::{Error, Recording};

mod side;
mod stack;

pub use side::Side;

/// Orders at which the unusable free space index is compared.
pub const UNUSABLE_ORDERS: [u8; 3] = [3, 9, 10];

/// Which way is good.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Better {
    /// Less is better.
    Lower,
    /// More is better.
    Higher,
    /// Neither: it is work or chance.
    Neither,
}

/// What a difference says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// There is none.
    Equal,
    /// It is no larger than the model's own error.
    WithinError,
    /// B is better.
    Better,
    /// B is worse.
    Worse,
    /// B is other, and neither better nor worse for it.
    Other,
}

impl Verdict {
    /// One word, or two.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::WithinError => "within error",
            Self::Better => "better",
            Self::Worse => "worse",
            Self::Other => "other",
        }
    }
}

/// One number of both.
#[derive(Clone, PartialEq, Debug)]
pub struct Metric {
    /// Name, with the unit at its end.
    pub name: String,
    /// What it is, in a few words.
    pub what: String,
    /// A's.
    pub a: f64,
    /// B's.
    pub b: f64,
    /// How far the model may be off; `None` when no model is involved.
    pub error: Option<f64>,
    /// Which way is good.
    pub better: Better,
}

impl Metric {
    /// The change in words: `steals (+12, error 3)`.
    #[must_use]
    pub fn change(&self) -> String {
        let difference = show(self.b - self.a);
        let sign = if self.b > self.a { "+" } else { "" };
        match self.error {
            Some(error) => format!("{} ({sign}{difference}, error {})", self.what, show(error)),
            None => format!("{} ({sign}{difference})", self.what),
        }
    }

    /// What the difference says.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let difference = self.b - self.a;
        if difference.abs() < 1e-9 {
            return Verdict::Equal;
        }
        // A hair more than the error is the error, rounded: a hair of numbers as large as these.
        let hair = 1e-12 * self.a.abs().max(self.b.abs()).max(1000.0);
        if self.error.is_some_and(|error| difference.abs() <= error + hair) {
            return Verdict::WithinError;
        }
        match (self.better, difference < 0.0) {
            (Better::Neither, _) => Verdict::Other,
            (Better::Lower, true) | (Better::Higher, false) => Verdict::Better,
            _ => Verdict::Worse,
        }
    }
}

/// A number with two digits after the point, if it has any.
#[must_use]
pub fn show(number: f64) -> String {
    if number.fract() == 0.0 { format!("{number:.0}") } else { format!("{number:.2}") }
}

/// Free blocks of one order, mean over the samples.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct OrderRow {
    /// Order.
    pub order: usize,
    /// A's.
    pub a: f64,
    /// B's.
    pub b: f64,
}

/// Two, side by side.
#[derive(Clone, Debug)]
pub struct Compared {
    /// The first.
    pub a: Side,
    /// The second.
    pub b: Side,
    /// Both tell of the same events, so their samples are pairs.
    pub same_events: bool,
    /// Pages that stand at another order in B than in A, mean over pairs of samples, in percent of
    /// A's free pages; `None` unless both tell of the same events.
    pub order_difference_percent: Option<f64>,
    /// The same of the baseline model and the kernel, to hold that against.
    pub order_error_percent: Option<f64>,
    /// Free blocks by order, all zones together.
    pub orders: Vec<OrderRow>,
    /// The numbers.
    pub metrics: Vec<Metric>,
    /// What a reader should know, in whole sentences.
    pub notes: Vec<String>,
}

impl Compared {
    /// The metrics of a verdict.
    pub fn of(&self, verdict: Verdict) -> impl Iterator<Item = &Metric> {
        self.metrics.iter().filter(move |metric| metric.verdict() == verdict)
    }

    /// The answer in one sentence.
    #[must_use]
    pub fn verdict(&self) -> String {
        let names = |verdict| -> Vec<String> {
            let is_told = |metric: &&Metric| !metric.name.contains("_last_");
            self.of(verdict).filter(is_told).map(Metric::change).collect()
        };
        let (better, worse) = (names(Verdict::Better), names(Verdict::Worse));
        let has_error = self.metrics.iter().any(|metric| metric.error.is_some());
        let beyond = if has_error { " beyond the model's own error" } else { "" };
        match (better.as_slice(), worse.as_slice()) {
            ([], []) if has_error && self.of(Verdict::Other).next().is_some() => {
                let others = names(Verdict::Other).join(", ");
                format!("no difference{beyond} for better or worse; other: {others}")
            }
            ([], []) if has_error => {
                "no difference that the model can vouch for: all are within its own error"
                    .to_owned()
            }
            ([], []) => "no difference for better or worse".to_owned(),
            (better, []) => format!("B is better{beyond} in {}", better.join(", ")),
            ([], worse) => format!("B is worse{beyond} in {}", worse.join(", ")),
            (better, worse) => {
                format!(
                    "B is better{beyond} in {}, worse in {}",
                    better.join(", "),
                    worse.join(", ")
                )
            }
        }
    }
}

/// Compares two recordings or model runs.
pub fn compare(a: &Recording, b: &Recording) -> Result<Compared, Error> {
    let same_events = side::events_crc32(a) == side::events_crc32(b);
    let (mut a_from, mut b_from) = (side::begins_ns(a)?, side::begins_ns(b)?);
    if same_events {
        (a_from, b_from) = (a_from.max(b_from), a_from.max(b_from));
    }
    let (mut a, mut b) = (Side::read(a, a_from)?, Side::read(b, b_from)?);
    if same_events {
        // What only a replay counts of the kernel.
        let kernel = a.kernel_counts.or(b.kernel_counts);
        let run = a.stack.clone().or(b.stack.clone());
        for side in [&mut a, &mut b] {
            if side.error.is_none() {
                side.counts = kernel.unwrap_or(side.counts);
                side.stack = run.as_ref().map(stack::kernel_of);
            }
        }
    }
    let mut notes = Vec::new();
    if !same_events {
        notes.push(
            "the two tell of different events: differences are the workloads' as well as the \
             policies'"
                .to_owned(),
        );
    }
    let is_modelled = a.error.is_some() || b.error.is_some();
    let error = if same_events { a.error.clone().or(b.error.clone()) } else { None };
    if is_modelled && !same_events {
        notes.push(
            "the model's error on one recording says nothing of another: it is not shown"
                .to_owned(),
        );
    }
    notes.extend(stack::note(&a, &b));
    let bars = Bars { error: error.as_ref(), kernel: a.kernel_counts.or(b.kernel_counts) };
    let (orders, order_difference_percent) = (a.orders(&b), a.order_difference_percent(&b));
    Ok(Compared {
        metrics: metrics(&a, &b, &bars),
        same_events,
        order_difference_percent: order_difference_percent.filter(|_| same_events),
        order_error_percent: error.map(|error| error.order_difference_percent),
        orders,
        notes,
        a,
        b,
    })
}

/// How far a number may be off.
struct Bars<'a> {
    error: Option<&'a kmemlab_trace::manifest::ModelError>,
    kernel: Option<kmemlab_trace::manifest::RunCounts>,
}

fn metrics(a: &Side, b: &Side, bars: &Bars<'_>) -> Vec<Metric> {
    let mut metrics = Vec::new();
    for (index, order) in UNUSABLE_ORDERS.into_iter().enumerate() {
        let bar = bars.error.map(|error| {
            error.unusable.iter().find(|bar| bar.order == order).copied().unwrap_or_default()
        });
        let mut add = |when: &str, a: f64, b: f64, error: Option<f64>| {
            metrics.push(Metric {
                name: format!("unusable_index_order_{order}_{when}_points"),
                what: format!("unusable free space at order {order}, {when}"),
                a,
                b,
                error,
                better: Better::Lower,
            });
        };
        let (mean, worst) = (bar.map(|bar| bar.mean_points), bar.map(|bar| bar.worst_points));
        add("mean", a.unusable_mean[index], b.unusable_mean[index], mean);
        add("last", a.unusable_last[index], b.unusable_last[index], worst);
    }
    type Count = fn(&kmemlab_trace::manifest::RunCounts) -> u64;
    let counts: [(&str, &str, Count, Better); 7] = [
        ("whole_claims", "whole pageblocks claimed", |c| c.whole_claims, Better::Neither),
        ("small_claims", "pageblocks claimed", |c| c.small_claims, Better::Lower),
        ("steals", "blocks stolen", |c| c.steals, Better::Lower),
        ("failures", "failed requests", |c| c.failures, Better::Lower),
        ("kswapd_wakes", "wakes of kswapd", |c| c.kswapd_wakes, Better::Lower),
        ("refills", "refills", |c| c.refills, Better::Neither),
        ("drains", "drains", |c| c.drains, Better::Neither),
    ];
    for (name, what, count, better) in counts {
        let bar = bars
            .error
            .zip(bars.kernel)
            .map(|(error, kernel)| count(&kernel).abs_diff(count(&error.baseline_counts)) as f64);
        metrics.push(Metric {
            name: name.to_owned(),
            what: what.to_owned(),
            a: count(&a.counts) as f64,
            b: count(&b.counts) as f64,
            error: bar,
            better,
        });
    }
    if let Some((a, b)) = a.stalls.zip(b.stalls) {
        for (name, what, a, b) in [
            ("direct_reclaims", "direct reclaims", a.direct_reclaims, b.direct_reclaims),
            ("direct_reclaim_ns", "time in direct reclaim", a.reclaim_ns, b.reclaim_ns),
            ("compactions", "compactions", a.compactions, b.compactions),
        ] {
            let (a, b, what) = (a as f64, b as f64, what.to_owned());
            let name = name.to_owned();
            metrics.push(Metric { name, what, a, b, error: None, better: Better::Lower });
        }
    }
    stack::metrics(a, b, bars.error.is_some(), &mut metrics);
    metrics
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metric(a: f64, b: f64, error: Option<f64>, better: Better) -> Verdict {
        let (name, what) = (String::new(), String::new());
        Metric { name, what, a, b, error, better }.verdict()
    }

    #[test]
    fn a_difference_counts_only_beyond_the_model_s_error() {
        assert_eq!(metric(5.0, 5.0, Some(0.0), Better::Lower), Verdict::Equal);
        assert_eq!(metric(5.0, 4.0, Some(1.0), Better::Lower), Verdict::WithinError);
        assert_eq!(metric(5.0, 3.9, Some(1.0), Better::Lower), Verdict::Better);
        assert_eq!(metric(5.0, 6.1, Some(1.0), Better::Lower), Verdict::Worse);
        assert_eq!(metric(5.0, 6.1, None, Better::Higher), Verdict::Better);
        // As of sums over three samples, divided by three.
        let (a, b) = (122_425_216.0 / 3.0, 121_823_748.0 / 3.0);
        assert_eq!(metric(a, b, Some(601_468.0 / 3.0), Better::Lower), Verdict::WithinError);
        assert_eq!(metric(5.0, 6.1, None, Better::Neither), Verdict::Other);
    }
}
