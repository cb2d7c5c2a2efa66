//! A task that is begun once more while nobody can tell whether whoever had it before has ended: a node that is cut off
//! from the controller may work on, and a file system that comes back lets it write. So each beginning has a folder of
//! its own, and only that of the last one is read. Knows neither jobs nor Slurm.

use crate::executor::{By, Task};
use anyhow::{Context, Result};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The same task in a new folder beside its own, with what it was given and nothing that was made of it.
///
/// # Errors
/// If the folder cannot be read, or the new one not written.
pub fn afresh(task: &Task) -> Result<Task> {
    let dir = beside(&task.dir)?;
    copy(&task.dir, &dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let by = match &task.by {
        By::Program { argv, dir: at } => {
            let (old, new) = (task.dir.display().to_string(), dir.display().to_string());
            By::Program { argv: argv.iter().map(|word| word.replace(&old, &new)).collect(), dir: at.clone() }
        }
        worker @ By::Worker { .. } => worker.clone(),
    };
    Ok(Task { dir, by, ..task.clone() })
}

/// Makes the first folder `DIR.N` that nobody has.
fn beside(dir: &Path) -> Result<PathBuf> {
    let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let first = name.split('.').next().unwrap_or_default();
    for n in 1.. {
        let new = dir.with_file_name(format!("{first}.{n}"));
        match std::fs::create_dir(&new) {
            Ok(()) => return Ok(new),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| format!("cannot make {}", new.display())),
        }
    }
    unreachable!("there are more numbers than folders")
}

/// What a task is given is never written again, so a second name for it does; links lead where they did.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir(to.join("out"))?;
    let mut open = vec![PathBuf::new()];
    while let Some(below) = open.pop() {
        for entry in std::fs::read_dir(from.join(&below))? {
            let entry = entry?;
            let name = below.join(entry.file_name());
            let (kind, new) = (entry.file_type()?, to.join(&name));
            if below.as_os_str().is_empty() && is_made(&entry.file_name().to_string_lossy()) {
                continue;
            } else if kind.is_dir() {
                std::fs::create_dir(&new)?;
                open.push(name);
            } else {
                match std::fs::hard_link(entry.path(), &new) {
                    Ok(()) => {}
                    // a shared file system may know no second names
                    Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::PermissionDenied) => {
                        std::fs::copy(entry.path(), &new)?;
                    }
                    // a part that is collected just now
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }
    Ok(())
}

/// Whether a name in a task's folder is of what a worker writes.
fn is_made(name: &str) -> bool {
    let given = ["in.arrow", "params.json", "with", "blobs"];
    !given.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::Needs;

    #[test]
    fn what_was_given_is_there_again_and_what_was_made_is_not() {
        let space = tempfile::tempdir().unwrap();
        let dir = space.path().join("000012");
        for folder in ["out", "with", "blobs"] {
            std::fs::create_dir_all(dir.join(folder)).unwrap();
        }
        for file in ["in.arrow", "params.json", "with/model.arrow", "out/half", "out.00000.arrow", "log.txt", "stop"] {
            std::fs::write(dir.join(file), file).unwrap();
        }
        std::os::unix::fs::symlink("../../b", dir.join("blobs/a.png")).unwrap();
        let argv = vec!["cat".into(), format!("{}/in.arrow", dir.display()), format!("--to={}/out", dir.display())];
        let by = By::Program { argv, dir: space.path().into() };
        let task = Task {
            id: 12,
            keys: Vec::new(),
            dir: dir.clone(),
            by,
            timeout: None,
            needs: Needs::default(),
            limit_mb: None,
        };
        let (one, two) = (afresh(&task).unwrap(), afresh(&afresh(&task).unwrap()).unwrap());
        assert_eq!(one.dir, space.path().join("000012.1"));
        assert_eq!(two.dir, space.path().join("000012.3"));
        let mut there: Vec<String> = Vec::new();
        for folder in ["", "out", "with", "blobs"] {
            let entries = std::fs::read_dir(two.dir.join(folder)).unwrap().flatten();
            there.extend(entries.map(|entry| Path::new(folder).join(entry.file_name()).display().to_string()));
        }
        there.sort();
        assert_eq!(there, ["blobs", "blobs/a.png", "in.arrow", "out", "params.json", "with", "with/model.arrow"]);
        assert_eq!(std::fs::read_link(two.dir.join("blobs/a.png")).unwrap(), Path::new("../../b"));
        let By::Program { argv, .. } = &two.by else { panic!("it is a program still") };
        assert_eq!(argv[2], format!("--to={}/out", two.dir.display()));
    }
}
