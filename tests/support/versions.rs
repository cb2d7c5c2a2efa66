//! The version lock: for each stage its version and a hash of the code that it reaches. When the hash moves and the
//! version does not, somebody has to say whether results can change.
//!
//! Code that is reached: the stage's own file, and what its `use` lines and paths name in `stages`, `models`,
//! `geometry`, `metrics` and `datasets`, and what that names in turn; without comments, blank lines and tests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Where the sources of a crate lie.
const CRATES: [(&str, &str); 5] = [
    ("stages", "stages/src"),
    ("models", "stages/models/src"),
    ("geometry", "stages/geometry/src"),
    ("metrics", "stages/metrics/src"),
    ("datasets", "datasets/src"),
];

/// Kind, version and hash of every stage, sorted by kind.
pub fn current(root: &Path) -> BTreeMap<String, (u32, String)> {
    let mut found = BTreeMap::new();
    let folder = root.join("stages/src");
    for entry in std::fs::read_dir(&folder).expect("the stages' folder") {
        let path = entry.expect("it can be read").path();
        if path.extension().is_none_or(|ext| ext != "rs") {
            continue;
        }
        let code = code(&path);
        if !code.contains("register!") {
            continue;
        }
        let hash = hash(root, &path);
        for part in code.split("StageDef::new(").skip(1) {
            let mut words = part.split([',', ')']);
            let kind = words.next().unwrap_or_default().trim().trim_matches('"').to_string();
            let version = words.next().unwrap_or_default().trim().parse();
            let version = version.unwrap_or_else(|_| panic!("{}: the version must be a literal", path.display()));
            found.insert(kind, (version, hash.clone()));
        }
    }
    found
}

/// The lock file's content.
pub fn text(stages: &BTreeMap<String, (u32, String)>) -> String {
    let mut text = String::from("# kind, version, hash of the code it reaches; written by `make bless`\n");
    for (kind, (version, hash)) in stages {
        text.push_str(&format!("{kind} {version} {hash}\n"));
    }
    text
}

/// Reads a lock file.
pub fn parse(text: &str) -> BTreeMap<String, (u32, String)> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let [kind, version, hash] = words[..] else { panic!("`{line}` is no line of a version lock") };
            (kind.to_string(), (version.parse().expect("a version"), hash.to_string()))
        })
        .collect()
}

/// What is wrong between a lock and the code, a sentence for each stage.
pub fn complaints(lock: &BTreeMap<String, (u32, String)>, now: &BTreeMap<String, (u32, String)>) -> Vec<String> {
    let mut complaints = Vec::new();
    for (kind, (version, hash)) in now {
        match lock.get(kind) {
            None => complaints.push(format!("stage `{kind}` is new: `make bless` records it")),
            Some((locked, old)) if locked == version && old != hash => complaints.push(format!(
                "the code that stage `{kind}` reaches has changed, its version {version} has not: can its results change? \
                 then raise the version; in any case `make bless` records it"
            )),
            Some((locked, _)) if locked > version => {
                complaints.push(format!("stage `{kind}` went back from version {locked} to {version}: keys would be reused"));
            }
            Some((locked, _)) if locked < version => {
                complaints.push(format!("stage `{kind}` has version {version} now: `make bless` records it"));
            }
            Some(_) => {}
        }
    }
    let gone = lock.keys().filter(|kind| !now.contains_key(*kind));
    complaints.extend(gone.map(|kind| format!("stage `{kind}` is gone: `make bless` takes note")));
    complaints
}

/// The code of a file: no comments, no blank lines, no tests.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let lines = text.lines().map(|line| line.split(" // ").next().unwrap_or_default().trim());
    lines.filter(|line| !line.is_empty() && !line.starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn hash(root: &Path, file: &Path) -> String {
    let mut reached: BTreeSet<PathBuf> = BTreeSet::new();
    let mut open = vec![file.to_path_buf()];
    while let Some(path) = open.pop() {
        if !reached.insert(path.clone()) {
            continue;
        }
        // a module's own folder is part of it
        if let Ok(entries) = std::fs::read_dir(path.with_extension("")) {
            let inside = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
            let is_code =
                |path: &PathBuf| path.extension().is_some_and(|ext| ext == "rs") && !path.ends_with("tests.rs");
            open.extend(inside.filter(is_code));
        }
        open.extend(named(root, &path));
    }
    let mut hasher = manifests::Hasher::new("code/1");
    for path in reached {
        let relative = path.strip_prefix(root).expect("it lies below");
        hasher.bytes(relative.as_os_str().as_encoded_bytes());
        hasher.bytes(code(&path).as_bytes());
    }
    hasher.finish().short()
}

/// The files of ours that a file names.
fn named(root: &Path, file: &Path) -> Vec<PathBuf> {
    let text = code(file);
    let home = CRATES.iter().map(|(_, folder)| root.join(folder)).filter(|folder| file.starts_with(folder));
    // the longest, for crates lie within each other
    let home = home.max_by_key(|folder| folder.components().count()).expect("only files of these crates are read");
    let mut files = Vec::new();
    // a list would hide from the lines below what is named of it
    let listed =
        text.split("crate::{").skip(1).any(|list| list.split(';').next().unwrap_or_default().contains("common::"));
    assert!(!listed, "{}: what lies in common is named by a path of its own, crate::common::…", file.display());
    let common = ("crate::common", root.join("stages/src/common"));
    let crates = CRATES.iter().map(|(name, folder)| (*name, root.join(folder)));
    for (name, folder) in crates.chain([("crate", home), common]) {
        // of what stages share, what is named and no more
        for segment in segments(&text, name).into_iter().filter(|segment| segment != "common") {
            files.extend(resolve(&folder, &segment));
        }
    }
    files
}

/// The words that follow `name::` in a text; all of a list in braces.
fn segments(text: &str, name: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let marker = format!("{name}::");
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    for (at, _) in text.match_indices(&marker) {
        let before = text[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let rest = &text[at + marker.len()..];
        match rest.strip_prefix('{') {
            None => {
                found.insert(word(rest));
            }
            Some(list) => {
                let mut depth = 0;
                let mut item = String::new();
                for c in list.chars() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => {
                            found.insert(word(item.trim()));
                            item.clear();
                        }
                        _ => item.push(c),
                    }
                }
                found.insert(word(item.trim()));
            }
        }
    }
    found.remove("");
    found
}

/// The file of a module, or that of an item that the crate's root re-exports; the whole crate if neither is found.
fn resolve(folder: &Path, segment: &str) -> Vec<PathBuf> {
    if let Some(files) = module(folder, segment) {
        return files;
    }
    let root = folder.join("lib.rs");
    if !root.is_file() {
        return Vec::new();
    }
    let text = code(&root);
    for line in text.split(';').filter(|line| line.contains("pub use ")) {
        let path = line.split("pub use ").nth(1).unwrap_or_default();
        let mentions = path.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == segment);
        let files = module(folder, path.split("::").next().unwrap_or_default().trim());
        if let (true, Some(files)) = (mentions, files) {
            return files;
        }
    }
    let all =
        std::fs::read_dir(folder).expect("a crate's folder").filter_map(|entry| entry.ok().map(|entry| entry.path()));
    all.filter(|path| path.extension().is_some_and(|ext| ext == "rs")).collect()
}

/// The files of a module: one file, or a folder with a `mod.rs`, all of it.
fn module(folder: &Path, name: &str) -> Option<Vec<PathBuf>> {
    let file = folder.join(format!("{name}.rs"));
    if file.is_file() {
        return Some(vec![file]);
    }
    let folder = folder.join(name);
    folder.join("mod.rs").is_file().then(|| {
        let entries = std::fs::read_dir(&folder).expect("a module's folder");
        let paths = entries.map(|entry| entry.expect("it can be read").path());
        paths.filter(|path| path.extension().is_some_and(|ext| ext == "rs")).collect()
    })
}
