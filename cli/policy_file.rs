//! Sets of policies from the command line or a TOML file.

use std::path::Path;

use anyhow::Context;
use kmemlab_replay::policy::{BadPolicy, Params, PolicySet, Role};
use kmemlab_replay::rules::Rules;

/// The set that an argument of `--policy` names.
pub(crate) fn set_of(argument: &str, rules: &Rules) -> anyhow::Result<PolicySet> {
    if !argument.ends_with(".toml") {
        return Ok(PolicySet::parse(argument, rules)?);
    }
    let text = std::fs::read_to_string(argument)
        .with_context(|| format!("{argument} cannot be read; give a policy file or a name"))?;
    let stem = Path::new(argument).file_stem().and_then(|stem| stem.to_str()).unwrap_or("policy");
    from_toml(&text, stem, rules).map_err(|error| anyhow::anyhow!("{argument}: {error}"))
}

/// A table for each role: `policy` is the name, every other key a parameter.
fn from_toml(text: &str, stem: &str, rules: &Rules) -> Result<PolicySet, BadPolicy> {
    let file: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map_or(1, |span| text[..span.start].lines().count().max(1));
        BadPolicy(format!("line {line} is not TOML: {}", error.message()))
    })?;
    let mut set = PolicySet::baseline(rules);
    set.name = stem.to_owned();
    for (key, value) in &file {
        match value {
            toml::Value::String(name) if key == "name" => set.name.clone_from(name),
            toml::Value::Table(table) if Role::ALL.iter().any(|role| role.name() == key) => {
                choose(&mut set, key, table, rules)?;
            }
            _ => {
                let roles: Vec<&str> = Role::ALL.iter().map(|role| role.name()).collect();
                return Err(BadPolicy(format!(
                    "{key} is neither name nor a role; the roles are {}, each a [table]",
                    roles.join(", ")
                )));
            }
        }
    }
    if set.chosen.is_empty() {
        return Err(BadPolicy("it chooses no policy; add a [role] with policy = NAME".to_owned()));
    }
    Ok(set)
}

fn choose(
    set: &mut PolicySet,
    role: &str,
    table: &toml::Table,
    rules: &Rules,
) -> Result<(), BadPolicy> {
    let Some(name) = table.get("policy").and_then(toml::Value::as_str) else {
        return Err(BadPolicy(format!("[{role}] lacks policy = NAME")));
    };
    let mut params = Params::default();
    for (key, value) in table.iter().filter(|(key, _)| *key != "policy") {
        let text = match value {
            toml::Value::String(text) => text.clone(),
            toml::Value::Array(list) => {
                list.iter().map(ToString::to_string).collect::<Vec<_>>().join("/")
            }
            other => other.to_string(),
        };
        params.set(key, &text)?;
    }
    set.choose(name, params, rules)?;
    match set.chosen.last().map(|chosen| chosen.role) {
        Some(found) if found.name() == role => Ok(()),
        Some(found) => Err(BadPolicy(format!("{name} is a policy of [{}]", found.name()))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_file_chooses_a_policy_for_each_role() {
        let rules = Rules::of("6.18");
        let text = "name = \"tight\"\n[fallback]\npolicy = \"never-mix\"\nlast-resort = true\n\
                    [watermark]\npolicy = \"sysctl\"\nlowmem_reserve_ratio = [256, 256, 32]\n";
        let set = from_toml(text, "file", &rules).unwrap();
        assert_eq!(set.name, "tight");
        assert_eq!(set.chosen.len(), 2);
        for (text, part) in [
            ("[fallback]\nlast = 1", "lacks policy"),
            ("[percpu]\npolicy = \"never-mix\"", "is a policy of [fallback]"),
            ("[roof]\npolicy = \"never-mix\"", "roof is neither"),
            ("fallback = 3\nx", "line 2 is not TOML"),
            ("", "chooses no policy"),
        ] {
            let error = from_toml(text, "file", &rules).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
