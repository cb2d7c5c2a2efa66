//! How much memory process groups take, as the system tells it. Knows no tasks.

use std::collections::HashMap;

/// MB that the processes of each group have in memory, by the group's number. What several of them share counts for
/// each.
pub fn of_groups() -> HashMap<u32, u64> {
    // SAFETY: it only asks.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) }.max(1) as u64;
    let mut bytes: HashMap<u32, u64> = HashMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let is_process = entry.file_name().to_str().is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
        // one may be gone meanwhile
        let Some(stat) = is_process.then(|| std::fs::read_to_string(entry.path().join("stat")).ok()).flatten() else {
            continue;
        };
        // the name, in parentheses, may hold anything
        let Some((_, rest)) = stat.rsplit_once(") ") else { continue };
        let fields: Vec<&str> = rest.split(' ').collect();
        let number = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok());
        if let (Some(group), Some(pages)) = (number(2), number(21)) {
            *bytes.entry(group as u32).or_default() += pages * page;
        }
    }
    bytes.into_iter().map(|(group, bytes)| (group, bytes >> 20)).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn we_have_some_weight() {
        // SAFETY: it only asks.
        let group = unsafe { libc::getpgrp() } as u32;
        assert!(super::of_groups()[&group] >= 1);
    }
}
