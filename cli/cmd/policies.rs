//! `kmemlab policies`

use std::fmt::Write;

use kmemlab_replay::policy::{self, Role};
use serde_json::json;

use crate::args::PoliciesArgs;
use crate::exit::Answer;

pub(crate) fn run(args: &PoliciesArgs) -> anyhow::Result<Answer> {
    let all = policy::all();
    if args.json {
        let policies: Vec<_> = all
            .iter()
            .map(|listed| {
                let params: Vec<_> = listed
                    .params
                    .iter()
                    .map(|param| {
                        json!({ "name": param.name, "default": param.default, "help": param.help })
                    })
                    .collect();
                json!({
                    "role": listed.role.name(),
                    "name": listed.name,
                    "help": listed.help,
                    "source": listed.source,
                    "params": params,
                })
            })
            .collect();
        crate::json::print(&json!({ "policies": policies }))?;
        return Ok(Answer::Yes);
    }
    let mut text = String::new();
    for role in Role::ALL {
        let _ = writeln!(text, "{}: {}", role.name(), role.help());
        for listed in all.iter().filter(|listed| listed.role == *role) {
            let _ = writeln!(
                text,
                "  {}\n      {}\n      ({})",
                listed.name, listed.help, listed.source
            );
            for param in listed.params {
                let _ = writeln!(text, "      {}={}: {}", param.name, param.default, param.help);
            }
        }
        text.push('\n');
    }
    text += "Use: kmemlab replay NAME.kmt --policy NAME[=KEY=VALUE,...][+NAME...] or --policy FILE.toml\n";
    crate::exit::print(&text)?;
    Ok(Answer::Yes)
}
