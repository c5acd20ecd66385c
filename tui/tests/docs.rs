//! `docs/screen.md` has the keys that there are.
//!
//! `UPDATE_DOCS=1 cargo test -p kmemlab-tui --test docs` writes the table anew.
#![allow(clippy::unwrap_used)]

use kmemlab_tui::keys;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/screen.md");
const BEGIN: &str = "<!-- generated: keys -->\n";
const END: &str = "<!-- end -->";

#[test]
fn the_table_of_keys_is_current() {
    let page = std::fs::read_to_string(PAGE).unwrap();
    assert_eq!(page.matches(BEGIN).count(), 1, "{BEGIN}");
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let wanted = format!("{before}{BEGIN}\n{}\n{END}{after}", keys::markdown());
    if std::env::var_os("UPDATE_DOCS").is_some_and(|value| value == "1") {
        std::fs::write(PAGE, &wanted).unwrap();
        return;
    }
    assert!(page == wanted, "stale: run UPDATE_DOCS=1 cargo test -p kmemlab-tui --test docs");
}
