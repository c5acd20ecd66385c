//! The model beside the kernel and the mirror, run in the background when somebody asks for it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use kmemlab_replay::model::FallbackCounts;
use kmemlab_replay::policy::PolicySet;
use kmemlab_replay::rules::Rules;
use kmemlab_replay::{Options, SampleRow};
use kmemlab_trace::Recording;
use kmemlab_trace::measure;
use kmemlab_trace::unit::Nanos;
use kmemlab_tui::parts::{Compared, Comparison};

use super::index::{BROKEN, Plan};

/// Free blocks of a zone by one teller at one sample.
#[derive(Clone, Debug)]
struct Row {
    teller: usize,
    label: String,
    free_blocks: Vec<u64>,
}

/// What the replays came to.
#[derive(Debug, Default)]
struct Runs {
    tellers: Vec<String>,
    /// By the time of the sample, rising.
    samples: Vec<(Nanos, Vec<Row>)>,
    fallbacks: Vec<FallbackCounts>,
    verdicts: Vec<String>,
}

#[derive(Clone, Debug)]
enum State {
    Idle,
    Running,
    Done(Arc<Runs>),
    Failed(String),
}

/// The replays of a recording.
#[derive(Clone, Debug)]
pub(super) struct Models {
    plan: Plan,
    /// A release whose rules a second model follows.
    rules: Option<String>,
    /// One set of policies to compare with the baseline, or two with each other.
    policies: Vec<PolicySet>,
    state: Arc<Mutex<State>>,
    /// The replays came to an end, and nobody was told yet.
    done: Arc<AtomicBool>,
}

impl Models {
    pub(super) fn new(plan: Plan, rules: Option<String>, policies: Vec<PolicySet>) -> Self {
        Self {
            plan,
            rules,
            policies,
            state: Arc::new(Mutex::new(State::Idle)),
            done: Arc::default(),
        }
    }

    /// Who tells what at the sample nearest to a moment; starts the replays at the first call.
    pub(super) fn at(&self, at: Nanos) -> Result<Comparison, String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &*state {
            State::Done(runs) => {
                let runs = Arc::clone(runs);
                drop(state);
                Ok(runs.at(at))
            }
            State::Failed(why) => Err(why.clone()),
            State::Running => Err("The model is still being run; it will be here.".to_owned()),
            State::Idle => {
                *state = State::Running;
                let this = self.clone();
                let spawned = thread::Builder::new().name("model".to_owned()).spawn(move || {
                    let done = catch_unwind(AssertUnwindSafe(|| this.run()));
                    let done = match done {
                        Ok(Ok(runs)) => State::Done(Arc::new(runs)),
                        Ok(Err(why)) => State::Failed(format!("{why}.")),
                        Err(_) => State::Failed(format!("{BROKEN}.")),
                    };
                    *this.state.lock().unwrap_or_else(PoisonError::into_inner) = done;
                    this.done.store(true, Ordering::Release);
                });
                match spawned {
                    Ok(_) => Err("The model is being run.".to_owned()),
                    Err(error) => Err(format!("The model cannot be run: {error}.")),
                }
            }
        }
    }

    /// Whether [`Self::at`] answers anew since this was asked last.
    pub(super) fn take_done(&self) -> bool {
        self.done.swap(false, Ordering::AcqRel)
    }

    /// Whether the replays are under way.
    pub(super) fn is_running(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(*state, State::Running)
    }

    /// Whose numbers stand in the second and the third column.
    fn compared(&self, has_rules: bool) -> [&str; 2] {
        match self.policies.as_slice() {
            [] if has_rules => ["model", ""],
            [] => ["mirror", "model"],
            [one] => ["model", &one.name],
            [one, other, ..] => [&one.name, &other.name],
        }
    }

    fn run(&self) -> anyhow::Result<Runs> {
        let recording = Recording::open(&self.plan.path, self.plan.salvage)?;
        let mut runs = Runs::default();
        let second = self.rules.as_deref().map(Rules::of);
        let [first, other] = self.compared(second.is_some());
        let options = Options { policies: self.policies.clone(), ..Options::default() };
        let outcome = kmemlab_replay::replay(&recording, &options, &mut |row| {
            if let kmemlab_replay::Row::Sample(row) = row {
                let tellers = ["kernel", first, other].into_iter().enumerate();
                let told = tellers.filter(|(_, source)| *source == row.source);
                told.for_each(|(teller, _)| runs.add(teller, &row));
            }
        })?;
        let is_kernel_s = second.is_none() && self.policies.is_empty();
        let names = if is_kernel_s { ["kernel", "mirror", "model"] } else { ["kernel", "A", "B"] };
        runs.tellers = names.map(str::to_owned).to_vec();
        runs.fallbacks = vec![outcome.model.fallback.kernel];
        if self.policies.len() < 2 {
            runs.fallbacks.push(outcome.model.fallback.model);
        }
        let sets = outcome.policies.iter().map(|run| run.result.fallback.model);
        runs.fallbacks.extend(sets);
        if !self.policies.is_empty() {
            let name =
                |source: &str| if source == "model" { "the baseline" } else { source }.to_owned();
            runs.verdicts.push(format!("A: {}; B: {}", name(first), name(other)));
        }
        if let Some(rules) = second {
            let options = Options { rules: Some(rules), ..Options::default() };
            let other = kmemlab_replay::replay(&recording, &options, &mut |row| {
                if let kmemlab_replay::Row::Sample(row) = row
                    && row.source == "model"
                {
                    runs.add(2, &row);
                }
            })?;
            runs.fallbacks.push(other.model.fallback.model);
            runs.verdicts.push(format!(
                "A: the model with the rules of {}; B: with those of {}",
                outcome.rules, other.rules
            ));
        }
        let model = &outcome.model;
        runs.verdicts.push(format!(
            "whole recording: order error of the model {:.2} % mean, {:.2} % worst; {:.2} % of \
             allocations at the kernel's page",
            model.order_error_mean_percent,
            model.order_error_worst_percent,
            model.placement.exact_percent()
        ));
        Ok(runs)
    }
}

impl Runs {
    fn add(&mut self, teller: usize, row: &SampleRow<'_>) {
        let at = Nanos(row.at_ns);
        let label = format!("Node {} {}", row.node, row.zone);
        let row = Row { teller, label, free_blocks: row.free_blocks.to_vec() };
        match self.samples.iter_mut().rev().find(|(known, _)| *known == at) {
            Some((_, rows)) => rows.push(row),
            None => self.samples.push((at, vec![row])),
        }
    }

    fn at(&self, at: Nanos) -> Comparison {
        let nearest = self.samples.iter().min_by_key(|(known, _)| known.0.abs_diff(at.0));
        let mut comparison =
            Comparison { tellers: self.tellers.clone(), at, ..Comparison::default() };
        if let Some((at, rows)) = nearest {
            comparison.at = *at;
            comparison.rows = by_order(rows, self.tellers.len());
            comparison.verdicts = verdicts(rows, &self.tellers);
        }
        comparison.verdicts.extend(self.verdicts.iter().cloned());
        type Count = fn(&FallbackCounts) -> u64;
        let counts: [(&str, Count); 3] = [
            ("whole blocks claimed", |counts| counts.whole_claims),
            ("small blocks claimed", |counts| counts.small_claims),
            ("pages stolen", |counts| counts.steals),
        ];
        for (name, count) in counts {
            let mut values: Vec<Option<u64>> =
                self.fallbacks.iter().map(|counts| Some(count(counts))).collect();
            if self.fallbacks.len() < self.tellers.len() {
                // The mirror has none of its own: it follows the kernel's.
                values.insert(1, None);
            }
            let (group, name) = ("fallbacks".into(), format!("{name}, in all").into());
            comparison.rows.push(Compared { group, name, values, weight: 1 });
        }
        comparison
    }
}

/// Free blocks by zone and order.
fn by_order(rows: &[Row], tellers: usize) -> Vec<Compared> {
    let mut compared = Vec::new();
    for row in rows.iter().filter(|row| row.teller == 0) {
        for order in 0..row.free_blocks.len() {
            let value = |teller: usize| {
                let mut rows = rows.iter();
                let row = rows.find(|other| other.teller == teller && other.label == row.label)?;
                row.free_blocks.get(order).copied()
            };
            compared.push(Compared {
                group: "free blocks".into(),
                name: format!("{} order {order}", row.label).into(),
                values: (0..tellers).map(value).collect(),
                weight: 1 << order,
            });
        }
    }
    compared
}

/// How far from the kernel the others are at this sample.
fn verdicts(rows: &[Row], tellers: &[String]) -> Vec<String> {
    let mut verdicts = Vec::new();
    for (teller, name) in tellers.iter().enumerate().skip(1) {
        let (mut wrong, mut free) = (0, 0);
        for kernel in rows.iter().filter(|row| row.teller == 0) {
            free += measure::free_pages(&kernel.free_blocks);
            let mut others = rows.iter();
            let other = others.find(|row| row.teller == teller && row.label == kernel.label);
            wrong += other
                .map_or(0, |other| measure::wrong_pages(&kernel.free_blocks, &other.free_blocks));
        }
        let percent = wrong as f64 * 100.0 / (free as f64).max(1.0);
        verdicts.push(match wrong {
            0 => format!("{name} equals the kernel at every zone and order"),
            _ => {
                format!("{name}: {wrong} pages at another order than the kernel's, {percent:.3} %")
            }
        });
    }
    verdicts
}
