//! Where we are: the machine, the program, the commit. Recorded with every run, never part of a key.

use crate::error::{Place, Problem};
use crate::executor::{GPU_VARIABLE, Gpus};
use crate::finished::HostInfo;
use crate::provider::Provider;
use std::path::Path;

/// Version of the program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Threads that tasks may use.
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The GPUs that tasks may use, so many of them if that is said.
///
/// # Errors
/// If so many are not ours.
pub fn gpus(count: Option<usize>) -> Result<Gpus, Problem> {
    let names = match std::env::var(GPU_VARIABLE) {
        Ok(names) => {
            let names = names.split(',').map(str::trim).filter(|name| !name.is_empty() && *name != "-1");
            names.map(String::from).collect()
        }
        Err(_) => (0..count.unwrap_or(1)).map(|n| n.to_string()).collect::<Vec<_>>(),
    };
    match count {
        Some(count) if count > names.len() => {
            let message = format!("`--gpus {count}` asks for more than {GPU_VARIABLE} names, which is {}", names.len());
            Err(Problem::at(&Place::command_line(), message).hint("lower it, or unset the variable"))
        }
        Some(count) => Ok(Gpus::These(names[..count].to_vec())),
        None => Ok(Gpus::These(names)),
    }
}

/// The machine's name.
pub fn name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_string()
}

/// What jobs on a cluster find in their environment: where programs and libraries lie, the language, and what else is
/// named.
pub fn handed_on(more: &[String]) -> Vec<(String, String)> {
    let usual = ["PATH", "HOME", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "SLURM_CONF"].map(String::from);
    let value = |name: &String| Some((name.clone(), std::env::var(name).ok()?));
    usual.iter().chain(more).filter_map(value).collect()
}

/// Everything about the place of a run.
pub fn info(dir: &Path, providers: &[Provider]) -> HostInfo {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo")
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name.trim().to_string()));
    let mut software: Vec<(String, String)> = Vec::new();
    for provider in providers {
        software.push((provider.description.provider.clone(), provider.description.version.clone()));
        for (name, version) in &provider.description.software {
            software.push((name.clone(), version.as_str().map_or(version.to_string(), str::to_string)));
        }
    }
    HostInfo {
        name: name(),
        cpu: cpu.unwrap_or_else(|| "unknown".into()),
        threads: threads(),
        version: VERSION.into(),
        software,
        commit: commit(dir),
    }
}

/// The commit that is checked out in the git repository around a folder, read from its files.
fn commit(dir: &Path) -> Option<String> {
    let dir = dir.canonicalize().ok()?;
    let mark = dir.ancestors().map(|dir| dir.join(".git")).find(|git| git.exists())?;
    let read = |path: &Path| std::fs::read_to_string(path).map(|text| text.trim().to_string()).ok();
    // a further worktree has a file there that names its own folder, and that one names the repository's
    let git = match read(&mark).as_deref().and_then(|text| text.strip_prefix("gitdir: ")) {
        Some(named) => mark.parent()?.join(named),
        None => mark,
    };
    let common = read(&git.join("commondir")).map_or(git.clone(), |named| git.join(named));
    let head = read(&git.join("HEAD"))?;
    let Some(name) = head.strip_prefix("ref: ") else { return Some(head) };
    if let Some(commit) = read(&git.join(name)).or_else(|| read(&common.join(name))) {
        return Some(commit);
    }
    let packed = read(&common.join("packed-refs"))?;
    packed.lines().find_map(|line| line.strip_suffix(name).map(|commit| commit.trim().to_string()))
}

/// Room on the disk of a folder that we may use, MB.
pub fn free_mb(folder: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(folder).ok()?;
    Some((stat.f_bavail * stat.f_frsize) >> 20)
}

/// Memory that we may use, MB: that of the machine, or what the control groups that we are in (a container, a job)
/// leave us of it; without limit if neither says.
pub fn memory_mb() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok());
    let total = total.map_or(u64::MAX, |kb: u64| kb >> 10);
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    total.min(group_limit(&groups, Path::new("/sys/fs/cgroup")).map_or(u64::MAX, |bytes| bytes >> 20))
}

/// The least of the limits of memory, bytes, that control groups have: ours, as `/proc/self/cgroup` names them, and
/// those above, whose files lie below `mount`. Of what a container does not see its own mount is the highest.
fn group_limit(groups: &str, mount: &Path) -> Option<u64> {
    let limits = groups.lines().flat_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, group) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let (root, file) = match controllers {
            "" => (mount.to_path_buf(), "memory.max"),
            list if list.split(',').any(|one| one == "memory") => (mount.join("memory"), "memory.limit_in_bytes"),
            _ => return Vec::new(),
        };
        let own = root.join(group.trim_start_matches('/'));
        let above = own.ancestors().take_while(|folder| folder.starts_with(&root)).map(|folder| folder.join(file));
        // `max` is no number; version 1 has one that is larger than any machine
        let read = |path: std::path::PathBuf| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
        above.filter_map(read).collect()
    });
    limits.min()
}

/// A time as `2026-11-22 21:55:12`, UTC.
pub fn utc(millis: u64) -> String {
    let time = i64::try_from(millis).ok().and_then(chrono::DateTime::from_timestamp_millis);
    time.unwrap_or_default().format("%F %T").to_string()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_least_limit_of_the_groups_above_counts() {
        let mount = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = mount.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let limit = |groups: &str| super::group_limit(groups, mount.path());
        assert_eq!(limit("0::/a/b\n"), None);
        write("a/b/memory.max", "max\n");
        assert_eq!(limit("0::/a/b\n"), None);
        write("a/memory.max", "4294967296\n");
        assert_eq!((limit("0::/a/b\n"), limit("0::/\n"), limit("")), (Some(4 << 30), None, None));
        // a container that is told of its group from outside and sees only its own
        write("memory.max", "2147483648\n");
        assert_eq!(limit("0::/system.slice/job\n"), Some(2 << 30));
        write("memory/job/memory.limit_in_bytes", "1073741824\n");
        assert_eq!(limit("3:cpu,memory:/job\n2:cpu:/x\n"), Some(1 << 30));
        assert!(super::memory_mb() > 0);
    }

    #[test]
    fn times_are_written_as_dates() {
        assert_eq!(super::utc(0), "1970-01-01 00:00:00");
        assert_eq!(super::utc(1_709_210_096_000), "2024-02-29 12:34:56");
    }
}
