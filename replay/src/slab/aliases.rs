//! Whose a merged cache's objects are: the kernel prints the first creator's name for all, and the
//! function that asks tells which of the names it is.

/// Functions of the kernel and the caches that they allocate from (5.10 to 6.18), for names that do
/// not tell. A function stands for a merged cache's name only where exactly one of these is among
/// its names.
const CALLERS: [(&str, &[&str]); 46] = [
    ("__anon_vma_prepare", &["anon_vma_chain"]),
    ("__alloc_skb", &["skbuff_fclone_cache", "skbuff_head_cache"]),
    ("__d_alloc", &["dentry"]),
    ("__inet_hash_connect", &["tcp_bind_bucket"]),
    ("__kernfs_iattrs", &["kernfs_iattrs_cache"]),
    ("__kernfs_new_node", &["kernfs_node_cache"]),
    ("__send_signal_locked", &["sigqueue"]),
    ("__sigqueue_alloc", &["sigqueue"]),
    ("acpi_ns_create_node", &["Acpi-Namespace"]),
    ("acpi_ut_allocate_object_desc_dbg", &["Acpi-Operand"]),
    ("acpi_ut_create_generic_state", &["Acpi-State"]),
    ("alloc_mnt_ns", &["mnt_namespace"]),
    ("alloc_vfsmnt", &["mnt_cache"]),
    ("alloc_vmap_area", &["vmap_area"]),
    ("anon_vma_clone", &["anon_vma_chain"]),
    ("anon_vma_fork", &["anon_vma_chain"]),
    ("audit_log_start", &["audit_buffer"]),
    ("bvec_alloc", &["biovec-16", "biovec-64", "biovec-128", "biovec-max"]),
    ("copy_fs_struct", &["fs_cache"]),
    ("copy_process", &["signal_cache"]),
    ("cred_alloc_blank", &["cred"]),
    ("damon_new_region", &["damon_region"]),
    ("damon_split_region_at", &["damon_region"]),
    ("do_timer_create", &["posix_timers_cache"]),
    ("ep_insert", &["eventpoll_epi"]),
    ("ep_ptable_queue_proc", &["eventpoll_pwq"]),
    ("ext4_free_blocks", &["ext4_free_data"]),
    ("ext4_mb_new_blocks", &["ext4_allocation_context", "ext4_prealloc_space"]),
    ("fib_insert_alias", &["ip_fib_alias"]),
    ("flock_lock_inode", &["file_lock_cache"]),
    ("inet_bind2_bucket_create", &["tcp_bind2_bucket"]),
    ("inet_bind_bucket_create", &["tcp_bind_bucket"]),
    ("inet_csk_get_port", &["tcp_bind_bucket"]),
    ("jbd2__journal_start", &["jbd2_journal_handle"]),
    ("jbd2_alloc_handle", &["jbd2_journal_handle"]),
    ("locks_get_lock_context", &["file_lock_ctx"]),
    ("posix_lock_inode", &["file_lock_cache"]),
    ("prepare_creds", &["cred"]),
    ("prepare_kernel_cred", &["cred"]),
    ("security_file_alloc", &["lsm_file_cache"]),
    ("security_inode_alloc", &["lsm_inode_cache"]),
    ("lsm_file_alloc", &["lsm_file_cache"]),
    ("lsm_inode_alloc", &["lsm_inode_cache"]),
    ("trace_create_new_event", &["trace_event_file"]),
    ("create_event_toplevel_files", &["trace_event_file"]),
    ("__trace_define_field", &["ftrace_event_field"]),
];

/// Files of the kernel whose functions begin alike and allocate from one cache.
const FILES: [(&str, &str); 3] =
    [("mas_", "maple_node"), ("mt_", "maple_node"), ("__mt_", "maple_node")];

/// Functions that take objects from whichever cache they are handed.
const ANYBODYS: [&str; 4] = ["mempool_alloc", "mempool_init", "sk_prot_alloc", "dst_alloc"];

/// Words of a cache's name that say nothing.
const EMPTY_WORDS: [&str; 4] = ["cache", "struct", "node", "s"];

/// The name among `names` that the function's objects belong to, if it can be told: by the table,
/// or because the function's name holds all words of exactly one of them.
#[must_use]
pub fn alias_of<'a>(function: &str, names: &'a [String]) -> Option<&'a str> {
    // What the compiler made of a function carries its name up to a point: `f.isra.0`.
    let function = function.split('.').next().unwrap_or(function);
    if ANYBODYS.iter().any(|any| function.starts_with(any)) {
        return None;
    }
    let told = CALLERS.iter().find(|(caller, _)| *caller == function);
    if let Some((_, caches)) = told {
        return only(names.iter().filter(|name| caches.contains(&name.as_str())));
    }
    let file = FILES.iter().find(|(start, _)| function.starts_with(start));
    if let Some((_, cache)) = file {
        return only(names.iter().filter(|name| name == cache));
    }
    let words: Vec<&str> = function.split('_').filter(|word| !word.is_empty()).collect();
    only(names.iter().filter(|name| {
        let mut wanted = name
            .split(['_', '-'])
            .filter(|word| !word.is_empty() && !EMPTY_WORDS.contains(word))
            .peekable();
        wanted.peek().is_some() && wanted.all(|word| words.contains(&word))
    }))
}

fn only<'a>(mut found: impl Iterator<Item = &'a String>) -> Option<&'a str> {
    let first = found.next()?;
    found.next().is_none().then_some(first.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_tells_the_cache_by_the_table_or_by_its_words() {
        let names = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let creds = names(&["cred", "pid"]);
        assert_eq!(alias_of("alloc_pid", &creds), Some("pid"));
        assert_eq!(alias_of("prepare_creds", &creds), Some("cred"));
        assert_eq!(alias_of("do_something", &creds), None);
        let maple = names(&["maple_node", "pool_workqueue"]);
        assert_eq!(alias_of("mas_dup_alloc.isra.0", &maple), Some("maple_node"));
        let inodes = names(&["ext4_io_end_vec", "lsm_inode_cache"]);
        assert_eq!(alias_of("ext4_alloc_io_end_vec", &inodes), Some("ext4_io_end_vec"));
        assert_eq!(alias_of("security_inode_alloc", &inodes), Some("lsm_inode_cache"));
        assert_eq!(alias_of("security_inode_alloc", &creds), None, "none of these names");
        let pools = names(&["biovec-16", "key_jar", "sgpool-8"]);
        assert_eq!(alias_of("mempool_alloc_noprof", &pools), None, "anybody's");
        let marks = names(&["fanotify_mark", "inotify_inode_mark", "mark"]);
        assert_eq!(alias_of("fanotify_mark_alloc.part.0", &marks), None, "two names fit");
    }
}
