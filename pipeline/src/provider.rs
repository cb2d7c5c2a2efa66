//! Programs that provide stages: where they are, what they say of themselves, and remembering it.
//!
//! A description is asked for once and kept in the workspace under the fingerprints of the program's files, so that a
//! run in which nothing changed starts no program; that of the provider that comes with effigy beside the program as
//! well, if that can be written, so that a new workspace starts none either. One whose files nobody knows is asked for
//! each time. Knows nothing of plans.

use crate::error::{Place, Problem};
use crate::executor::{find, output_within};
use cache::Fingerprint;
use protocol::{Description, Finding, PROTOCOL, StageDef};
use serde::{Deserialize, Serialize};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The provider that comes with effigy: its program, and what it calls itself.
pub const SHIPPED: &str = "effigy-stages";

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
    /// Its files, as they were; none if these do not tell whether it would say the same again.
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

#[derive(Clone, Serialize, Deserialize)]
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
    let path = exe.with_file_name(SHIPPED);
    let argv = vec![path.display().to_string()];
    path.is_file().then(|| Candidate { argv, dir: PathBuf::from("/"), place: None })
}

/// A provider that the user named at a place: its words, relative to a folder.
pub fn of_words(text: &str, dir: &Path, place: Place) -> Candidate {
    Candidate { argv: text.split_whitespace().map(str::to_string).collect(), dir: dir.into(), place: Some(place) }
}

/// The file beside a program that remembers what it said, if it is the one that comes with effigy: libraries as large
/// as its own take a third of a second.
fn beside_it(argv: &[String]) -> Option<PathBuf> {
    let [program] = argv else { return None };
    let program = Path::new(program);
    (program.file_name()? == SHIPPED).then(|| program.with_file_name(format!("{SHIPPED}.json")))
}

/// What the candidates say of themselves; from `memory` (a file), or from beside them, where their files have not
/// changed.
///
/// # Errors
/// If one cannot be started, or says something that is not understood.
pub fn ask_all(candidates: &[Candidate], memory: &Path) -> Result<Vec<Provider>, Problem> {
    let mut remembered = remembered(memory);
    let mut providers = Vec::new();
    let mut changed = false;
    for candidate in candidates {
        let (argv, dir) = (candidate.argv.clone(), candidate.dir.clone());
        let own = beside_it(&argv);
        let in_own = || recall(&self::remembered(own.as_deref()?), candidate);
        if let Some(Remembered { prints, description, .. }) = recall(&remembered, candidate).or_else(in_own) {
            providers.push(Provider { argv, dir, description, prints });
            continue;
        }
        // before it is asked: what changes meanwhile is another file than the one that spoke
        let named = prints(candidate, &[]);
        let description = ask(candidate, DESCRIBES_WITHIN)?;
        let mut prints =
            if description.files.is_empty() { named.clone() } else { prints(candidate, &description.files) };
        for (path, print) in named {
            prints.iter_mut().filter(|(known, _)| *known == path).for_each(|(_, later)| *later = print);
        }
        changed |= drop_from(&mut remembered, &argv, &dir);
        if !prints.is_empty() {
            let (argv, dir) = (argv.clone(), dir.clone());
            let known = Remembered { argv, dir, prints: prints.clone(), description: description.clone() };
            if let Some(own) = own {
                remember(std::slice::from_ref(&known), &own);
            }
            remembered.push(known);
            changed = true;
        }
        providers.push(Provider { argv, dir, description, prints });
    }
    if changed {
        remember(&remembered, memory);
    }
    Ok(providers)
}

/// Forgets what a provider said of itself, so that it is asked again: what works under its name did not do as it said.
pub fn forget(provider: &Provider, memory: &Path) {
    for memory in [Some(memory.to_path_buf()), beside_it(&provider.argv)].into_iter().flatten() {
        let mut remembered = remembered(&memory);
        if drop_from(&mut remembered, &provider.argv, &provider.dir) {
            remember(&remembered, &memory);
        }
    }
}

/// Says whether there was something to be dropped.
fn drop_from(remembered: &mut Vec<Remembered>, argv: &[String], dir: &Path) -> bool {
    let before = remembered.len();
    remembered.retain(|known| known.argv != argv || known.dir != dir);
    remembered.len() < before
}

fn remember(all: &[Remembered], memory: &Path) {
    let temporary = memory.with_extension(format!("{}.tmp", std::process::id()));
    let text = serde_json::to_vec(all).expect("descriptions are plain data");
    // not being able to remember costs time, nothing else
    let _ = memory.parent().map(std::fs::create_dir_all);
    let _ = std::fs::write(&temporary, text).and_then(|()| std::fs::rename(&temporary, memory));
}

/// What a candidate says of itself; from `memory` where its files have not changed, and without writing there.
///
/// # Errors
/// If it cannot be started, or says something that is not understood.
pub fn ask_known(candidate: &Candidate, memory: &Path) -> Result<Description, Problem> {
    let in_own = || recall(&remembered(&beside_it(&candidate.argv)?), candidate);
    match recall(&remembered(memory), candidate).or_else(in_own) {
        Some(known) => Ok(known.description),
        None => ask(candidate, DESCRIBES_WITHIN),
    }
}

/// What a file remembers; one that is damaged remembers nothing.
fn remembered(memory: &Path) -> Vec<Remembered> {
    std::fs::read(memory).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

/// What is remembered of a candidate, if its files are as they were.
fn recall(all: &[Remembered], candidate: &Candidate) -> Option<Remembered> {
    let known = all.iter().find(|known| known.argv == candidate.argv && known.dir == candidate.dir)?;
    let now = prints(candidate, &known.description.files);
    (known.prints == now && !now.is_empty()).then(|| known.clone())
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

/// The files that the words of a provider name.
struct Named {
    /// The program, and a script it interprets.
    files: Vec<PathBuf>,
    /// The one that holds the stages, as far as the words tell: `python3 -m words` names an interpreter and no more.
    script: Option<PathBuf>,
}

impl Named {
    fn of(candidate: &Candidate) -> Named {
        let mut files = Vec::new();
        let mut script = None;
        for (i, word) in candidate.argv.iter().enumerate() {
            // what is started is what counts, not a file of that name beside the recipe
            let path = if i == 0 { find(word, &candidate.dir).ok() } else { Some(candidate.dir.join(word)) };
            let found = path.filter(|path| path.is_file());
            // a program that is called without a word more is no interpreter, and neither is a script
            if i > 0 || candidate.argv.len() == 1 || found.as_deref().is_some_and(is_script) {
                script = found.clone().or(script);
            }
            files.extend(found);
        }
        Named { files, script }
    }

    /// The folder that files of a description are relative to.
    fn folder<'a>(&'a self, candidate: &'a Candidate) -> &'a Path {
        self.script.as_deref().and_then(Path::parent).unwrap_or(&candidate.dir)
    }
}

/// The fingerprints of the files that the words name, and of those that the description lists; none if all that is
/// named is an interpreter, which does not change with what it is given to read.
fn prints(candidate: &Candidate, listed: &[String]) -> Vec<(PathBuf, Fingerprint)> {
    let named = Named::of(candidate);
    if named.script.is_none() && listed.is_empty() {
        return Vec::new();
    }
    let listed: Vec<PathBuf> = listed.iter().map(|file| named.folder(candidate).join(file)).collect();
    let files = named.files.into_iter().chain(listed);
    files.filter_map(|path| Fingerprint::of(&path).ok().map(|print| (path, print))).collect()
}

fn is_script(path: &Path) -> bool {
    let mut head = [0; 2];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut head));
    read.is_ok() && head == *b"#!"
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
    let named = Named::of(candidate);
    let folder = named.folder(candidate);
    if let Some(file) = description.files.iter().find(|file| !folder.join(file).is_file()) {
        let message = format!("the provider `{name}` lists the file `{file}`, which is not there");
        let hint =
            format!("looked for {}; paths under `files` are relative to its script", folder.join(file).display());
        return Err(wrong(message).hint(hint));
    }
    Ok(description)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A provider in a folder that prints what is in `said.json` there.
    fn candidate(dir: &Path, words: &[&str]) -> Candidate {
        Candidate { argv: words.iter().map(|word| word.to_string()).collect(), dir: dir.into(), place: None }
    }

    fn says(dir: &Path, version: &str, more: &str) {
        let text = format!(r#"{{"protocol":1,"provider":"p","version":"{version}",{more}"stages":[]}}"#);
        std::fs::write(dir.join("said.json"), text).unwrap();
    }

    fn version(candidate: &Candidate, memory: &Path) -> (String, bool) {
        let providers = ask_all(std::slice::from_ref(candidate), memory).unwrap();
        (providers[0].description.version.clone(), !providers[0].prints.is_empty())
    }

    #[test]
    fn what_nobody_can_see_change_is_not_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let memory = dir.path().join("ws").join(cache::layout::PROVIDERS);
        // as `python3 -m words`: the words name an interpreter, and the stages lie somewhere else
        let hidden = candidate(dir.path(), &["sh", "-c", "cat said.json"]);
        says(dir.path(), "1", "");
        assert_eq!(version(&hidden, &memory), ("1".into(), false), "and its recipe does not rest");
        says(dir.path(), "22", "");
        assert_eq!(version(&hidden, &memory), ("22".into(), false));
        // one that lists its files is remembered until they change
        says(dir.path(), "333", r#""files":["said.json"],"#);
        assert_eq!(version(&hidden, &memory), ("333".into(), true));
        assert!(remembered(&memory).len() == 1 && recall(&remembered(&memory), &hidden).is_some());
        says(dir.path(), "4444", r#""files":["said.json"],"#);
        assert_eq!(version(&hidden, &memory), ("4444".into(), true));
        says(dir.path(), "5", r#""files":["none.py"],"#);
        let error = ask_all(&[hidden], &memory).unwrap_err();
        assert!(error.message.contains("lists the file `none.py`") && error.hint.is_some(), "{error}");
    }

    #[test]
    fn a_script_is_remembered_and_can_be_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let memory = dir.path().join("ws").join(cache::layout::PROVIDERS);
        std::fs::create_dir(dir.path().join("own")).unwrap();
        std::fs::write(dir.path().join("own/script"), "cat said.json\n").unwrap();
        std::fs::write(dir.path().join("own/more"), "").unwrap();
        let script = candidate(dir.path(), &["sh", "own/script"]);
        says(dir.path(), "1", "");
        assert_eq!(version(&script, &memory), ("1".into(), true));
        says(dir.path(), "22", "");
        assert_eq!(version(&script, &memory), ("1".into(), true), "what the script reads nobody has listed");
        let provider = ask_all(std::slice::from_ref(&script), &memory).unwrap().remove(0);
        forget(&provider, &memory);
        assert_eq!(version(&script, &memory), ("22".into(), true));
        // what is listed lies beside the script
        says(dir.path(), "333", r#""files":["more"],"#);
        forget(&provider, &memory);
        assert_eq!(version(&script, &memory), ("333".into(), true));
        says(dir.path(), "4444", r#""files":["more"],"#);
        assert_eq!(version(&script, &memory), ("333".into(), true));
        std::fs::write(dir.path().join("own/more"), "longer").unwrap();
        assert_eq!(version(&script, &memory), ("4444".into(), true));
    }

    #[test]
    fn what_comes_with_effigy_is_remembered_beside_it() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join(SHIPPED);
        let write = |version: &str| {
            let text = format!(r#"{{"protocol":1,"provider":"p","version":"{version}","stages":[]}}"#);
            std::fs::write(&program, format!("#!/bin/sh\necho '{text}'\necho >> {}/asked\n", dir.path().display()))
                .unwrap();
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        };
        let asked = || std::fs::read(dir.path().join("asked")).map_or(0, |lines| lines.len());
        let shipped = candidate(Path::new("/"), &[program.to_str().unwrap()]);
        let memory = |workspace: &str| dir.path().join(workspace).join(cache::layout::PROVIDERS);
        write("1");
        assert_eq!(version(&shipped, &memory("a")), ("1".into(), true));
        assert_eq!(version(&shipped, &memory("b")), ("1".into(), true));
        assert_eq!((ask_known(&shipped, &memory("c")).unwrap().version.as_str(), asked()), ("1", 1));
        // it was built anew
        write("22");
        assert_eq!((version(&shipped, &memory("b")), asked()), (("22".into(), true), 2));
        let provider = ask_all(std::slice::from_ref(&shipped), &memory("b")).unwrap().remove(0);
        forget(&provider, &memory("b"));
        assert_eq!((version(&shipped, &memory("b")), asked()), (("22".into(), true), 3));
        // what lies there is no description
        std::fs::write(dir.path().join("effigy-stages.json"), "half").unwrap();
        assert_eq!((version(&shipped, &memory("d")), asked()), (("22".into(), true), 4));
    }

    #[test]
    fn a_program_alone_is_its_own_script() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("program"), "").unwrap();
        std::fs::write(dir.path().join("script"), "#!/bin/sh\n").unwrap();
        let prints = |words: &[&str]| prints(&candidate(dir.path(), words), &[]).len();
        assert_eq!(prints(&["./program"]), 1);
        assert_eq!(prints(&["sh"]), 1, "one that is installed");
        assert_eq!(prints(&["sh", "./program", "option"]), 2);
        assert_eq!(prints(&["sh", "-m", "words"]), 0);
        assert_eq!((prints(&["./script", "--mode", "x"]), prints(&["./program", "--mode", "x"])), (1, 0));
    }
}
