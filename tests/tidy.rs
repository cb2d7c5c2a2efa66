//! Invariants of the house, as absences: who may know whom, who may print, what may stand in a file. Read from the Cargo
//! manifests and the sources; runs nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All files of the tree with this extension, relative, with their text; build folders and hidden ones left out.
fn files(ext: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open = vec![root()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).expect("a folder of ours") {
            let path = entry.expect("it can be read").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_string();
            if name.starts_with('.') || name.starts_with("target") || name == "out" {
                continue;
            }
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|found| found == ext) {
                let text = std::fs::read_to_string(&path).expect("text");
                let relative = path.strip_prefix(root()).expect("it lies below").display().to_string();
                found.push((relative, text));
            }
        }
    }
    found.sort();
    found
}

/// A source file without its comments and its tests, which may say and do what they like.
fn code(text: &str) -> String {
    // tests stand at the end of a file
    let lines: Vec<&str> = text.lines().collect();
    let tests = lines
        .windows(2)
        .position(|pair| pair[0] == "#[cfg(test)]" && pair[1].contains("mod ") && pair[1].ends_with('{'));
    let text = lines[..tests.unwrap_or(lines.len())].join("\n");
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Names under `[dependencies]` and `[build-dependencies]` of a crate.
fn dependencies(manifest: &str) -> Vec<String> {
    let text = std::fs::read_to_string(root().join(manifest)).expect("a Cargo manifest");
    let mut names = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        if line.starts_with('[') {
            inside = line == "[dependencies]" || line == "[build-dependencies]";
        } else if inside {
            let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
            if !name.is_empty() && !name.starts_with('#') {
                names.push(name.to_string());
            }
        }
    }
    names
}

const OURS: [&str; 9] =
    ["manifests", "cache", "pipeline", "protocol", "datasets", "geometry", "models", "metrics", "stages"];

#[test]
fn crates_know_only_those_below_them() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("Cargo.toml", &["pipeline"][..]),
        ("pipeline/Cargo.toml", &["cache", "manifests", "protocol"]),
        ("pipeline/protocol/Cargo.toml", &["manifests"]),
        ("cache/Cargo.toml", &["manifests"]),
        ("manifests/Cargo.toml", &[]),
        ("datasets/Cargo.toml", &["manifests", "geometry"]),
        ("stages/Cargo.toml", &["protocol", "manifests", "datasets", "models", "metrics", "geometry"]),
        ("stages/metrics/Cargo.toml", &["models", "geometry"]),
        ("stages/models/Cargo.toml", &[]),
        ("stages/geometry/Cargo.toml", &[]),
    ]);
    let mut seen = 0;
    for (manifest, _) in files("toml") {
        let Some(allowed) = allowed.get(manifest.as_str()) else {
            let known = ["rustfmt.toml", "deny.toml", "clippy.toml", "tests/parity/Cargo.toml"];
            assert!(known.contains(&manifest.as_str()), "{manifest}: say here whom this crate may know");
            continue;
        };
        seen += 1;
        for name in dependencies(&manifest).iter().filter(|name| OURS.contains(&name.as_str())) {
            assert!(allowed.contains(&name.as_str()), "{manifest} must not know `{name}`");
        }
    }
    assert_eq!(seen, allowed.len());
}

#[test]
fn heavy_libraries_stay_where_they_belong() {
    let homes: [(&str, &[&str]); 5] = [
        ("tch", &["stages/", "tests/parity/"]),
        ("opencv", &["stages/"]),
        ("sled", &["cache/"]),
        ("polars", &["pipeline/"]),
        ("clap", &["pipeline/"]),
    ];
    for (manifest, _) in files("toml") {
        if !manifest.ends_with("Cargo.toml") {
            continue;
        }
        for (library, homes) in homes {
            let has = dependencies(&manifest).iter().any(|name| name == library);
            assert!(!has || homes.iter().any(|home| manifest.starts_with(home)), "{manifest} must not link {library}");
        }
    }
    assert!(
        !dependencies("pipeline/Cargo.toml")
            .iter()
            .any(|name| ["tch", "torch-sys", "opencv", "image"].contains(&name.as_str()))
    );
}

#[test]
fn only_the_index_names_sled() {
    for (file, text) in files("rs") {
        if file != "cache/src/index.rs" && file != "tests/tidy.rs" {
            assert!(!code(&text).contains("sled::"), "{file} names sled");
        }
    }
}

#[test]
fn only_the_command_line_prints_and_reads_the_environment() {
    let libraries = [
        "manifests/src/",
        "cache/src/",
        "pipeline/src/",
        "datasets/src/",
        "stages/geometry/src/",
        "stages/models/src/",
    ];
    for (file, text) in files("rs") {
        let is_cli = file == "pipeline/src/cli.rs" || file.starts_with("pipeline/src/cli/");
        let is_program = file.contains("/bin/") || file.contains("/examples/") || file.ends_with("/main.rs");
        if is_cli || is_program || !libraries.iter().any(|library| file.starts_with(library)) {
            continue;
        }
        for word in ["println!", "eprintln!", "print!(", "dbg!(", "env::var", "env::args"] {
            assert!(!code(&text).contains(word), "{file} uses {word}");
        }
    }
}

#[test]
fn models_and_geometry_know_no_rows_and_no_recipes() {
    for (file, text) in files("rs") {
        if file.starts_with("stages/models/src/") || file.starts_with("stages/geometry/src/") {
            for word in ["manifests::", "protocol::", "serde_yaml::", "indicatif::", "anyhow::"] {
                assert!(!code(&text).contains(word), "{file} uses {word}");
            }
        }
    }
}

#[test]
fn files_say_what_they_do_and_stay_short() {
    for (file, text) in files("rs") {
        assert!(text.starts_with("//!"), "{file} does not begin by saying what it does");
        let lines = text.lines().count();
        assert!(lines <= 600, "{file} has {lines} lines");
    }
}

#[test]
fn nothing_names_the_machine_it_was_made_on() {
    // written in pieces, for this file is read as well
    let words = [["/ho", "me/"].concat(), ["/ro", "ot/"].concat(), ["/wo", "rk/"].concat(), ["/tm", "p/"].concat()];
    for ext in ["rs", "toml", "yaml", "md", "html", "sh"] {
        for (file, text) in files(ext).into_iter().filter(|(file, _)| !file.ends_with("tests.rs")) {
            for word in &words {
                let line = text.lines().position(|line| line.contains(word.as_str()));
                assert!(line.is_none(), "{file}:{} names {word}", line.unwrap_or(0) + 1);
            }
        }
    }
}

#[test]
fn recipes_are_named_like_their_files() {
    let folder = Path::new("pipeline/recipes");
    for (file, text) in files("yaml").into_iter().filter(|(file, _)| Path::new(file).starts_with(folder)) {
        let stem = Path::new(&file).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_string();
        let named = text.lines().find_map(|line| line.strip_prefix("recipe: ").map(str::trim));
        assert_eq!(named, Some(stem.as_str()), "{file}");
    }
}

#[path = "support/versions.rs"]
mod versions;

#[test]
fn versions_of_stages_move_with_their_code() {
    let now = versions::current(&root());
    assert!(!now.is_empty());
    let lock = std::fs::read_to_string(root().join("stages/versions.lock")).unwrap_or_default();
    let complaints = versions::complaints(&versions::parse(&lock), &now);
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

/// Not a test: `make bless` runs it to record that changed code gives the same results, or has another version.
#[test]
#[ignore = "it writes stages/versions.lock"]
fn bless() {
    let now = versions::current(&root());
    std::fs::write(root().join("stages/versions.lock"), versions::text(&now)).expect("the lock is writable");
}

#[test]
fn the_version_lock_asks_when_code_moves() {
    let stages = |version, hash: &str| BTreeMap::from([("a".to_string(), (version, hash.to_string()))]);
    let complain = |old, new| versions::complaints(&old, &new).join(" ");
    assert_eq!(complain(stages(1, "x"), stages(1, "x")), "");
    assert!(complain(stages(1, "x"), stages(1, "y")).contains("can its results change?"));
    assert!(complain(stages(1, "x"), stages(2, "y")).contains("records it"));
    assert!(complain(stages(2, "x"), stages(1, "x")).contains("went back"));
    assert_eq!(versions::parse(&versions::text(&stages(3, "z"))), stages(3, "z"));
}
