//! A set of policies, one a role.

use std::sync::Arc;

use super::{
    BadPolicy, BlockPolicy, Entry, FallbackPolicy, Params, PerCpuPolicy, PlacementPolicy, Role,
    SlabLayer, VmapLayer, WatermarkPolicy, all, block, fallback, percpu, placement, slab, vmap,
    watermark,
};
use crate::rules::Rules;

/// A policy that was chosen, as it is written down beside the result.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chosen {
    /// The role.
    pub role: Role,
    /// The policy's name.
    pub name: String,
    /// The parameters given.
    pub params: Params,
}

/// Who decides what.
#[derive(Clone, Debug)]
pub struct PolicySet {
    /// What the set is called in results.
    pub name: String,
    /// What differs from the recorded kernel.
    pub chosen: Vec<Chosen>,
    /// Zones.
    pub placement: Arc<dyn PlacementPolicy>,
    /// Blocks.
    pub block: Arc<dyn BlockPolicy>,
    /// Other types' lists.
    pub fallback: Arc<dyn FallbackPolicy>,
    /// Per-CPU lists.
    pub percpu: Arc<dyn PerCpuPolicy>,
    /// Memory kept back.
    pub watermark: Arc<dyn WatermarkPolicy>,
    /// Slabs.
    pub slab: Arc<dyn SlabLayer>,
    /// The vmalloc space.
    pub vmap: Arc<dyn VmapLayer>,
}

impl PolicySet {
    /// The recorded kernel's own policies.
    #[must_use]
    pub fn baseline(rules: &Rules) -> Self {
        Self {
            name: "baseline".to_owned(),
            chosen: Vec::new(),
            placement: placement::baseline(),
            block: block::baseline(),
            fallback: fallback::baseline(rules),
            percpu: percpu::baseline(rules),
            watermark: watermark::baseline(),
            slab: slab::baseline(),
            vmap: vmap::baseline(),
        }
    }

    /// The baseline with what `text` changes: `NAME[=key=value,...]`, several joined by `+`.
    pub fn parse(text: &str, rules: &Rules) -> Result<Self, BadPolicy> {
        let mut set = Self::baseline(rules);
        for part in text.split('+') {
            let part = part.trim();
            let (name, params) = match part.split_once('=') {
                // The sysctls are policies by their own names.
                Some((name, _)) if name.starts_with("vm.") => {
                    ("sysctl", Params::parse(part.trim_start_matches("vm."))?)
                }
                Some((name, params)) => (name.trim(), Params::parse(params)?),
                None => (part, Params::default()),
            };
            set.choose(name, params, rules)?;
        }
        set.name = text.to_owned();
        Ok(set)
    }

    /// The policies that act above the pages only.
    #[must_use]
    pub fn above_pages(&self) -> Option<&Chosen> {
        self.chosen.iter().find(|chosen| chosen.role.is_above_pages())
    }

    /// Puts a policy in its role. Of each role one can be chosen.
    pub fn choose(&mut self, name: &str, params: Params, rules: &Rules) -> Result<(), BadPolicy> {
        let Some(listed) = all().into_iter().find(|listed| listed.name == name) else {
            let names: Vec<&str> = all().iter().map(|listed| listed.name).collect();
            let close = names.iter().min_by_key(|known| distance(known, name));
            return Err(BadPolicy(format!(
                "there is no policy {name}; did you mean {}? `kmemlab policies` lists all",
                close.unwrap_or(&"never-mix")
            )));
        };
        if let Some(other) = self.chosen.iter().find(|chosen| chosen.role == listed.role) {
            return Err(BadPolicy(format!(
                "{} and {name} both decide {}; choose one",
                other.name,
                listed.role.help()
            )));
        }
        params.check(name, listed.params)?;
        match listed.role {
            Role::Placement => self.placement = make(placement::ALL, name, &params, rules)?,
            Role::Block => self.block = make(block::ALL, name, &params, rules)?,
            Role::Fallback => self.fallback = make(fallback::ALL, name, &params, rules)?,
            Role::PerCpu => self.percpu = make(percpu::ALL, name, &params, rules)?,
            Role::Watermark => self.watermark = make(watermark::ALL, name, &params, rules)?,
            Role::Slab => self.slab = make(slab::ALL, name, &params, rules)?,
            Role::Vmap => self.vmap = make(vmap::ALL, name, &params, rules)?,
        }
        self.chosen.push(Chosen { role: listed.role, name: name.to_owned(), params });
        Ok(())
    }
}

fn make<P: ?Sized>(
    entries: &'static [Entry<P>],
    name: &str,
    params: &Params,
    rules: &Rules,
) -> Result<Arc<P>, BadPolicy> {
    let entry = entries.iter().find(|entry| entry.name == name);
    let entry = entry.ok_or_else(|| BadPolicy(format!("there is no policy {name}")))?;
    (entry.make)(params, rules).map_err(|error| BadPolicy(format!("policy {name}: {}", error.0)))
}

/// How many letters differ (Levenshtein), for "did you mean".
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().enumerate() {
        let mut before = row[0];
        row[0] = i + 1;
        for (j, other) in b.iter().enumerate() {
            let kept = row[j + 1];
            row[j + 1] = (before + usize::from(letter != *other)).min(row[j] + 1).min(kept + 1);
            before = kept;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_read_joined_and_refused_in_one_sentence() {
        let rules = Rules::of("6.18");
        let set = PolicySet::parse("never-mix+percpu-fixed=batch=31,high=400", &rules).unwrap();
        assert_eq!(set.chosen.len(), 2);
        assert_eq!(set.chosen[1].params.given()[1], ("high".to_owned(), "400".to_owned()));
        let set = PolicySet::parse("vm.min_free_kbytes=4096", &rules).unwrap();
        assert_eq!(set.chosen[0].name, "sysctl");
        for (text, part) in [
            ("nevermix", "did you mean never-mix?"),
            ("percpu-off+percpu-auto", "both decide"),
            ("percpu-off=batch=3", "has no parameters"),
            ("percpu-fixed=batch=none", "batch=none"),
            ("vm.swappiness=3", "does not know swappiness"),
        ] {
            let error = PolicySet::parse(text, &rules).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
