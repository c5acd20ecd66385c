//! Which slab caches are merged: `/sys/kernel/slab` has a folder for what they share and a link to
//! it for each of their names.

use std::collections::BTreeMap;
use std::fs;

use crate::root::Root;

/// Names of merged caches, by the folder that they share; `None` where there is nothing to read.
pub(crate) fn read(root: &Root) -> Option<BTreeMap<String, Vec<String>>> {
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for entry in fs::read_dir(root.join("sys/kernel/slab")).ok()?.flatten() {
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let Some(shared) = target.file_name() else { continue };
        let shared = shared.to_string_lossy().into_owned();
        groups.entry(shared).or_default().push(entry.file_name().to_string_lossy().into_owned());
    }
    groups.retain(|_, names| names.len() > 1);
    groups.values_mut().for_each(|names| names.sort());
    Some(groups)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_to_one_folder_are_the_names_of_one_cache() {
        let path = std::env::temp_dir().join(format!("kmemlab-aliases-{}", std::process::id()));
        let folder = path.join("sys/kernel/slab");
        for name in [":A-0000192", ":0000064", "filp"] {
            fs::create_dir_all(folder.join(name)).unwrap();
        }
        for (name, to) in [("pid", ":A-0000192"), ("cred", ":A-0000192"), ("alone", ":0000064")] {
            symlink(to, folder.join(name)).unwrap();
        }
        let found = read(&Root::new(&path)).unwrap();
        let names = vec!["cred".to_owned(), "pid".to_owned()];
        assert_eq!(found, BTreeMap::from([(":A-0000192".to_owned(), names)]));
        fs::remove_dir_all(&path).unwrap();
        assert_eq!(read(&Root::new(&path)), None);
    }
}
