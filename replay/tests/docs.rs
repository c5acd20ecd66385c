//! `docs/policies.md` lists what the registries hold: this test writes it when `UPDATE_DOCS=1` is
//! set and compares it otherwise.
#![allow(clippy::unwrap_used)] // tests may

use std::fmt::Write;

use kmemlab_replay::policy::{Role, all};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/policies.md");
const MARK: &str = "<!-- generated: policies -->\n";
const END: &str = "<!-- end -->";

#[test]
fn the_list_of_policies_is_current() {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let (before, rest) = page.split_once(MARK).expect("the mark of the generated part");
    let (_, after) = rest.split_once(END).expect("its end");
    let wanted = format!("{before}{MARK}{}{END}{after}", tables());
    if std::env::var_os("UPDATE_DOCS").is_some_and(|value| value == "1") {
        std::fs::write(PAGE, wanted).unwrap();
        return;
    }
    assert!(
        page == wanted,
        "docs/policies.md is stale: run UPDATE_DOCS=1 cargo test -p kmemlab-replay --test docs"
    );
}

fn tables() -> String {
    let mut text = String::new();
    for role in Role::ALL {
        let _ = write!(
            text,
            "\n### `{}`: {}\n\n| policy | what it does | stands for | parameters |\n\
             | --- | --- | --- | --- |\n",
            role.name(),
            role.help()
        );
        for listed in all().iter().filter(|listed| listed.role == *role) {
            let params: Vec<String> = listed
                .params
                .iter()
                .map(|param| format!("`{}` ({}): {}", param.name, param.default, param.help))
                .collect();
            let _ = writeln!(
                text,
                "| `{}` | {} | {} | {} |",
                listed.name,
                listed.help,
                listed.source,
                params.join("; ")
            );
        }
    }
    text.push('\n');
    text
}
