//! Programs that provide stages: where they are, what they say of themselves, and remembering it.
//!
//! A description is asked for once and kept in the workspace under the fingerprints of the program's files, so that a run in
//! which nothing changed starts no program. Knows nothing of plans.

use crate::error::{Place, Problem};
use crate::executor::output_within;
use cache::Fingerprint;
use protocol::{Description, Finding, PROTOCOL, StageDef};
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a provider may take to describe itself: heavy libraries on a slow disk take their time.
pub const DESCRIBES_WITHIN: Duration = Duration::from_secs(120);

/// How long it may take to look at files: gigabytes of weights on a slow disk.
pub const CHECKS_WITHIN: Duration = Duration::from_secs(1800);

/// A provider and what it said.
#[derive(Clone, Debug)]
pub struct Provider {
    /// The words that start it, before the verb.
    pub argv: Vec<String>,
    /// Folder it is started in.
    pub dir: PathBuf,
    /// What it said of itself.
    pub description: Description,
    /// Its files, as they were.
    pub prints: Vec<(PathBuf, Fingerprint)>,
}

/// A provider that is to be asked.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The words that start it.
    pub argv: Vec<String>,
    /// Folder it is started in.
    pub dir: PathBuf,
    /// Where the user named it.
    pub place: Option<Place>,
}

#[derive(Serialize, Deserialize)]
struct Remembered {
    argv: Vec<String>,
    dir: PathBuf,
    prints: Vec<(PathBuf, Fingerprint)>,
    description: Description,
}

impl Provider {
    /// The definition of a stage.
    pub fn stage(&self, kind: &str) -> Option<&StageDef> {
        self.description.stages.iter().find(|def| def.kind == kind)
    }
}

/// The program beside `exe` that is asked by default.
pub fn beside(exe: &Path) -> Option<Candidate> {
    let path = exe.with_file_name("effigy-stages");
    let argv = vec![path.display().to_string()];
    path.is_file().then(|| Candidate { argv, dir: PathBuf::from("/"), place: None })
}

/// A provider that the user named at a place: its words, relative to a folder.
pub fn of_words(text: &str, dir: &Path, place: Place) -> Candidate {
    Candidate { argv: text.split_whitespace().map(str::to_string).collect(), dir: dir.into(), place: Some(place) }
}

/// What the candidates say of themselves; from `memory` (a file) where their files have not changed.
///
/// # Errors
/// If one cannot be started, or says something that is not understood.
pub fn ask_all(candidates: &[Candidate], memory: &Path) -> Result<Vec<Provider>, Problem> {
    let mut remembered = remembered(memory);
    let mut providers = Vec::new();
    let mut changed = false;
    for candidate in candidates {
        let prints = prints(candidate);
        let description = match recall(&remembered, candidate, &prints) {
            Some(description) => description,
            None => {
                let description = ask(candidate, DESCRIBES_WITHIN)?;
                remembered.retain(|known| known.argv != candidate.argv || known.dir != candidate.dir);
                remembered.push(Remembered {
                    argv: candidate.argv.clone(),
                    dir: candidate.dir.clone(),
                    prints: prints.clone(),
                    description: description.clone(),
                });
                changed = true;
                description
            }
        };
        providers.push(Provider { argv: candidate.argv.clone(), dir: candidate.dir.clone(), description, prints });
    }
    if changed {
        let temporary = memory.with_extension(format!("{}.tmp", std::process::id()));
        let text = serde_json::to_vec(&remembered).expect("descriptions are plain data");
        // not being able to remember costs time, nothing else
        let _ = memory.parent().map(std::fs::create_dir_all);
        let _ = std::fs::write(&temporary, text).and_then(|()| std::fs::rename(&temporary, memory));
    }
    Ok(providers)
}

/// What a candidate says of itself; from `memory` where its files have not changed, and without writing there.
///
/// # Errors
/// If it cannot be started, or says something that is not understood.
pub fn ask_known(candidate: &Candidate, memory: &Path) -> Result<Description, Problem> {
    let known = recall(&remembered(memory), candidate, &prints(candidate));
    known.map_or_else(|| ask(candidate, DESCRIBES_WITHIN), Ok)
}

/// What a file remembers; one that is damaged remembers nothing.
fn remembered(memory: &Path) -> Vec<Remembered> {
    std::fs::read(memory).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

fn recall(all: &[Remembered], candidate: &Candidate, prints: &[(PathBuf, Fingerprint)]) -> Option<Description> {
    let same = |known: &&Remembered| {
        known.argv == candidate.argv && known.dir == candidate.dir && known.prints == prints && !prints.is_empty()
    };
    all.iter().find(same).map(|known| known.description.clone())
}

/// What a provider finds of the files that a stage's parameters name.
///
/// # Errors
/// If it cannot be started, does not answer in time, or says something that is not understood.
pub fn check(
    provider: &Provider,
    kind: &str,
    params: serde_json::Map<String, serde_json::Value>,
    limit: Duration,
) -> Result<Vec<Finding>, Problem> {
    let name = provider.argv.join(" ");
    let wrong = |message: String| Problem::new(message).hint(format!("try `{name} check {kind} '{{...}}'`"));
    let mut argv = provider.argv.clone();
    argv.extend(["check".to_string(), kind.to_string()]);
    let params = serde_json::Value::Object(params).to_string();
    let output = output_within(&argv, &params, &provider.dir, limit)
        .map_err(|error| wrong(format!("the provider `{name}` cannot be started: {error}")))?;
    let Some(output) = output else {
        return Err(wrong(format!("`{name} check` did not end within {} s and was stopped", limit.as_secs_f64())));
    };
    if !output.status.success() {
        let tail = crate::executor::tail(&String::from_utf8_lossy(&output.stderr), 8);
        return Err(wrong(format!("`{name} check` failed ({}): {tail}", output.status)));
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|error| wrong(format!("what `{name} check` says is not understood: {error}")))
}

/// The fingerprints of the files that the words name: the program, and a script it interprets.
fn prints(candidate: &Candidate) -> Vec<(PathBuf, Fingerprint)> {
    let mut files = Vec::new();
    for (i, word) in candidate.argv.iter().enumerate() {
        let path = candidate.dir.join(word);
        if path.is_file() {
            files.push(path);
        } else if i == 0 && !word.contains('/') {
            files.extend(which(word));
        }
    }
    files.into_iter().filter_map(|path| Fingerprint::of(&path).ok().map(|print| (path, print))).collect()
}

fn which(name: &str) -> Option<PathBuf> {
    crate::cli::path_dirs().into_iter().map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// Asks a provider to describe itself, and waits for it so long.
///
/// # Errors
/// If it cannot be started, does not answer, or says something that is not understood.
pub fn ask(candidate: &Candidate, limit: Duration) -> Result<Description, Problem> {
    let name = candidate.argv.join(" ");
    let wrong = |message: String| Problem { place: candidate.place.clone(), ..Problem::new(message) };
    let Some(program) = candidate.argv.first() else {
        return Err(wrong("a provider needs a program".into()).hint("`providers: [\"python3 my_stages.py\"]`"));
    };
    let local = candidate.dir.join(program);
    let output = output_within(&candidate.argv, "describe", &candidate.dir, limit).map_err(|error| {
        let path = local.display();
        let hint = match error.kind() {
            _ if !program.contains('/') => {
                format!("is `{program}` installed? it lies in no folder of PATH; or give its path")
            }
            ErrorKind::PermissionDenied => format!("make it executable: chmod +x {path}"),
            _ if local.is_file() => format!("is the interpreter in the first line of {path} installed?"),
            _ => format!("looked for {path}; in a recipe, paths are relative to its folder"),
        };
        wrong(format!("the provider `{name}` cannot be started: {error}")).hint(hint)
    })?;
    let Some(output) = output else {
        let message =
            format!("the provider `{name}` did not describe itself within {} s and was stopped", limit.as_secs_f64());
        return Err(
            wrong(message).hint(format!("`{name} describe` must print its stages and end, without reading anything"))
        );
    };
    if !output.status.success() {
        let tail = crate::executor::tail(&String::from_utf8_lossy(&output.stderr), 8);
        let said = if tail.is_empty() { "; it wrote nothing".into() } else { format!(":\n{tail}") };
        return Err(wrong(format!("the provider `{name}` does not describe itself ({}){said}", output.status))
            .hint(format!("run `{name} describe` to see why")));
    }
    let description: Description = serde_json::from_slice(&output.stdout).map_err(|error| {
        wrong(format!("what the provider `{name}` says of itself is not understood: {error}"))
            .hint(format!("see `{name} describe`: it must print one JSON object on standard output, and nothing else"))
    })?;
    if description.protocol != PROTOCOL {
        let found = description.protocol;
        let message = format!("the provider `{name}` speaks version {found} of the protocol, not {PROTOCOL}");
        let older = if found < PROTOCOL { "the provider" } else { "effigy" };
        return Err(wrong(message).hint(format!("{older} is the older of the two: build or install it anew")));
    }
    for (i, def) in description.stages.iter().enumerate() {
        if description.stages[..i].iter().any(|other| other.kind == def.kind) {
            let message = format!("the provider `{name}` describes its stage `{}` twice", def.kind);
            return Err(wrong(message).hint("give one of the two another kind in the provider"));
        }
    }
    Ok(description)
}
