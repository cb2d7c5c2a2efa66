//! Invariants of the house, as absences: who may know whom, who may print, what may stand in a file. Read from the
//! Cargo manifests and the sources; runs nothing.

use std::collections::{BTreeMap, BTreeSet};
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

/// A source file, without its comments.
struct Source {
    file: String,
    /// With every text literal left empty.
    code: String,
    /// The text literals.
    texts: Vec<String>,
}

impl Source {
    fn new(file: String, text: &str) -> Source {
        let (mut code, mut texts) = (String::new(), Vec::new());
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let hashes = rest.bytes().skip(1).take_while(|byte| *byte == b'#').count();
            let is_raw = first == 'r' && rest[1 + hashes..].starts_with('"') && !code.ends_with(is_word);
            let length = if rest.starts_with("//") {
                rest.find('\n').unwrap_or(rest.len())
            } else if first == '"' || is_raw {
                let (start, close) =
                    if is_raw { (2 + hashes, ["\"", &"#".repeat(hashes)].concat()) } else { (1, "\"".into()) };
                let inner = &rest[start..];
                let mut ends = inner.match_indices(&close).map(|(at, _)| at);
                // behind an odd number of backslashes a quote is one of the text's own
                let escaped = |at: usize| inner[..at].bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1;
                let end = ends.find(|at| is_raw || !escaped(*at)).expect("a text ends");
                code.push_str("\"\"");
                texts.push(inner[..end].to_string());
                start + end + close.len()
            } else if let Some(quote) = ["'\"'", "'\\\"'"].iter().find(|quote| rest.starts_with(**quote)) {
                // as a character, it begins no text
                quote.len()
            } else {
                code.push(first);
                first.len_utf8()
            };
            rest = &rest[length..];
        }
        Source { file, code, texts }
    }

    /// Whether the code has this word: a crate, a module, a type.
    fn names(&self, word: &str) -> bool {
        self.code.split(|c| !is_word(c)).any(|found| found == word)
    }

    /// The modules and items that are named right behind `name::`, one or several in braces.
    fn taken_from(&self, name: &str) -> Vec<&str> {
        let start = [name, "::"].concat();
        let paths = self.code.match_indices(&start).map(|(at, _)| (at, &self.code[at + start.len()..]));
        let whole = paths.filter(|(at, _)| !self.code[..*at].ends_with(is_word));
        let taken = whole.map(|(_, rest)| match rest.strip_prefix('{') {
            Some(list) => list.split(';').next().unwrap_or(list),
            None => rest.split(|c| !is_word(c)).next().unwrap_or(rest),
        });
        taken.flat_map(|list| list.split(|c| !is_word(c))).collect()
    }

    fn lies_in(&self, places: &[&str]) -> bool {
        places.iter().any(|place| self.file == *place || place.ends_with('/') && self.file.starts_with(place))
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// What programs and libraries are made of: all sources without tests, examples and build scripts, which may say and do
/// what they like.
fn sources() -> Vec<Source> {
    let free = |file: &str| {
        let inner = format!("/{file}");
        ["/tests/", "/tests.rs", "/examples/", "/build.rs"].iter().any(|place| inner.contains(place))
            && !file.starts_with("tests/parity/src/")
    };
    files("rs")
        .into_iter()
        .filter(|(file, _)| !free(file))
        .map(|(file, text)| Source::new(file, tested(&text)))
        .collect()
}

/// What stands above a file's tests.
fn tested(text: &str) -> &str {
    let tests = text.match_indices("\n#[cfg(test)]\n").find(|(at, head)| {
        let next = text[at + head.len()..].lines().next().unwrap_or_default();
        next.contains("mod ") && next.ends_with('{')
    });
    tests.map_or(text, |(at, _)| &text[..at + 1])
}

#[test]
fn sources_are_read_as_the_compiler_reads_them() {
    let text = "let a = \"tch \\\" // no\"; // sled\nlet b = r#\"x\"y\"#; '\"'; fn f<'a>() { polars::f('\\\"') }\n";
    let source = Source::new("a.rs".into(), &[text, "#[cfg(test)]\nmod tests;\nopencv\n"].concat());
    assert_eq!(source.texts, ["tch \\\" // no", "x\"y"]);
    assert!(source.names("polars") && source.names("opencv") && !source.names("tch") && !source.names("sled"));
    let source =
        Source::new("a.rs".into(), "use datasets::{heads::Head, split}; old_datasets::no(datasets::truth::read())");
    assert_eq!(source.taken_from("datasets"), ["heads", "", "Head", "", "split", "", "truth"]);
    assert_eq!(tested("a\n#[cfg(test)]\npub(crate) mod b {\n}\n"), "a\n");
    assert_eq!(tested("a\n#[cfg(test)]\nmod b;\n"), "a\n#[cfg(test)]\nmod b;\n");
}

/// A crate's Cargo manifest.
struct Crate {
    /// Where it lies, with a slash at the end; empty for the root.
    folder: String,
    name: String,
    /// What it is built on.
    dependencies: Vec<String>,
    /// What its tests need beside.
    for_tests: Vec<String>,
}

impl Crate {
    fn new(folder: String, text: &str) -> Crate {
        // a dependency named in any other way would not be seen here
        for line in text.lines().filter(|line| line.starts_with('[') && line.contains("dependencies")) {
            let known = ["[workspace.dependencies]", "[dependencies]", "[build-dependencies]", "[dev-dependencies]"];
            assert!(known.contains(&line), "{folder}Cargo.toml: write `{line}` in one of {known:?}");
        }
        let name = text.lines().find_map(|line| line.strip_prefix("name = \"")).expect("a crate has a name");
        let list = |header: &str| section(text, header).into_iter().map(str::to_string).collect::<Vec<_>>();
        Crate {
            folder,
            name: name.trim_end_matches('"').into(),
            dependencies: [list("[dependencies]"), list("[build-dependencies]")].concat(),
            for_tests: list("[dev-dependencies]"),
        }
    }
}

fn crates() -> Vec<Crate> {
    // the targets of cargo-fuzz are a workspace of their own, which no command of ours builds
    let ours = |file: &str| file.ends_with("Cargo.toml") && file != "tests/fuzz/Cargo.toml";
    let manifests = files("toml").into_iter().filter(|(file, _)| ours(file));
    manifests.map(|(file, text)| Crate::new(file.trim_end_matches("Cargo.toml").into(), &text)).collect()
}

/// The names that stand at the beginning of the lines of one section.
fn section<'a>(text: &'a str, header: &str) -> Vec<&'a str> {
    let inside = text.lines().skip_while(|line| *line != header).skip(1).take_while(|line| !line.starts_with('['));
    let names = inside.map(|line| line.split(['.', '=', ' ']).next().unwrap_or_default());
    names.filter(|name| !name.is_empty() && !name.starts_with('#')).collect()
}

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).expect("a file of ours")
}

#[test]
fn crates_know_whom_the_drawing_says() {
    let page = read("ARCHITECTURE.md");
    let words = |list: &str| list.split(',').map(|name| name.trim().to_string()).collect::<BTreeSet<_>>();
    let arrows = page.lines().filter_map(|line| line.split_once("──> "));
    let drawing: BTreeMap<&str, BTreeSet<String>> =
        arrows.map(|(name, list)| (name.split(' ').next().unwrap_or_default(), words(list))).collect();
    let crates = crates();
    let ours: BTreeSet<&str> = crates.iter().map(|krate| krate.name.as_str()).collect();
    for name in drawing.keys() {
        assert!(ours.contains(name), "ARCHITECTURE.md draws `{name}`, which is no crate");
    }
    for Crate { folder, name, dependencies, for_tests } in &crates {
        let is_ours = |name: &&String| ours.contains(name.as_str());
        let known: BTreeSet<String> = dependencies.iter().filter(is_ours).cloned().collect();
        let drawn = drawing.get(name.as_str()).cloned().unwrap_or_default();
        assert_eq!(known, drawn, "left {folder}Cargo.toml, right the drawing in ARCHITECTURE.md");
        // the root's tests drive the binary from outside, with tables and a provider of their own
        for name in for_tests.iter().filter(is_ours).filter(|_| !folder.is_empty()) {
            assert!(drawn.contains(name), "{folder}Cargo.toml: tests must not know `{name}`");
        }
    }
}

#[test]
fn effigy_is_linked_with_no_tensors_and_no_video() {
    let lock = read("Cargo.lock");
    let mut needs: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in lock.split("[[package]]").skip(1) {
        let name = package.lines().find_map(|line| line.strip_prefix("name = \"")).expect("a package has a name");
        // several versions of a package count as one
        let list = package.lines().filter_map(|line| line.strip_prefix(" \"")?.split(['"', ' ']).next());
        needs.entry(name.trim_end_matches('"')).or_default().extend(list);
    }
    let (mut reached, mut open) = (BTreeSet::new(), vec!["effigy"]);
    while let Some(name) = open.pop() {
        if reached.insert(name) {
            open.extend(needs[name].iter().copied());
        }
    }
    assert!(reached.contains("polars-io"), "the lock file is not understood");
    for heavy in ["tch", "torch-sys", "opencv", "image"] {
        assert!(needs.contains_key(heavy) && !reached.contains(heavy), "effigy reaches {heavy}");
    }
}

#[test]
fn what_the_cargo_manifests_list_is_used() {
    let crates = crates();
    let sources: Vec<Source> = files("rs").into_iter().map(|(file, text)| Source::new(file, &text)).collect();
    for Crate { folder, dependencies, for_tests, .. } in &crates {
        let places = match folder.as_str() {
            "" => ["pipeline/main.rs", "tests/e2e/", "tests/avatar/", "tests/support/"].map(String::from),
            _ => ["src/", "tests/", "examples/", "build.rs"].map(|place| format!("{folder}{place}")),
        };
        let inside = || sources.iter().filter(|source| source.lies_in(&places.each_ref().map(String::as_str)));
        for name in dependencies.iter().chain(for_tests) {
            let path = name.replace('-', "_");
            let used = match name.as_str() {
                // Cargo tells a build script where libtorch lies only if its crate depends on this one directly
                "torch-sys" => inside().any(|source| source.texts.iter().any(|text| text == "DEP_TCH_LIBTORCH_LIB")),
                _ => inside().any(|source| !source.taken_from(&path).is_empty()),
            };
            assert!(used, "{folder}Cargo.toml: nothing uses `{name}`");
        }
    }
    let (root, lock) = (read("Cargo.toml"), read("Cargo.lock"));
    for name in section(&root, "[workspace.dependencies]") {
        let used =
            crates.iter().any(|krate| krate.dependencies.iter().chain(&krate.for_tests).any(|found| found == name));
        assert!(used, "Cargo.toml: no crate uses `{name}`");
    }
    for name in root.lines().filter_map(|line| line.strip_prefix("[profile.dev.package.")?.strip_suffix(']')) {
        let is_there = name == "\"*\"" || lock.contains(&format!("\nname = \"{name}\"\n"));
        assert!(is_there, "Cargo.toml: there is no package `{name}` to have a profile");
    }
}

#[test]
fn foreign_libraries_are_named_by_leaf_files() {
    let homes: [(&[&str], &[&str]); 14] = [
        (&["sled"], &["cache/src/index.rs"]),
        (&["object_store", "tokio", "reqwest", "futures"], &["cache/remotes/src/store.rs"]),
        (&["serde_yaml", "serde_saphyr", "saphyr", "granit_parser"], &["pipeline/src/yaml.rs"]),
        (&["polars", "polars_io"], &["pipeline/src/report/groups.rs", "pipeline/src/cli/show.rs"]),
        (&["indicatif"], &["pipeline/src/cli/progress.rs"]),
        (&["clap"], &["pipeline/src/cli.rs", "pipeline/src/cli/"]),
        (
            &["npyz"],
            &["datasets/src/nphm_tracking/npz.rs", "datasets/src/nersemble/numpy.rs", "stages/models/src/numpy.rs"],
        ),
        (
            &["zip"],
            &[
                "datasets/src/nphm_tracking/npz.rs",
                "datasets/src/nersemble/numpy.rs",
                "datasets/src/heads/wheel.rs",
                "stages/models/src/archive.rs",
            ],
        ),
        (&["gltf"], &["stages/geometry/src/exchange.rs"]),
        (&["lzma_rs"], &["datasets/src/nphm_tracking/ctm.rs"]),
        // pictures and videos as files; mattes; text and colours of figures; the heading of a sheet; optical flow; its
        // version and its threads
        (
            &["opencv"],
            &[
                "stages/src/common/media.rs",
                "stages/src/common/video_reader.rs",
                "stages/src/common/matting.rs",
                "stages/src/common/drawing.rs",
                "stages/src/common/flow.rs",
                "stages/src/main.rs",
            ],
        ),
        (&["openh264", "shiguredo_mp4"], &["stages/src/common/video.rs"]),
        (&["tokenizers"], &["stages/models/src/tokenizer.rs"]),
        (&["tch", "torch_sys"], &["stages/models/src/", "stages/src/", "tests/parity/src/"]),
    ];
    let sources = sources();
    for (names, homes) in homes {
        // what iterators do has the same name as the crate, which is known by its paths
        let uses = |source: &Source, name: &str| match name {
            "zip" => !source.taken_from(name).is_empty(),
            _ => source.names(name),
        };
        let named: Vec<&Source> = sources.iter().filter(|source| names.iter().any(|name| uses(source, name))).collect();
        for source in &named {
            assert!(source.lies_in(homes), "{} names {}", source.file, names[0]);
        }
        for home in homes {
            assert!(named.iter().any(|source| source.lies_in(&[home])), "{home} names {} no longer", names[0]);
        }
    }
}

#[test]
fn only_the_command_line_prints_and_reads_the_environment() {
    let programs = [
        "pipeline/main.rs",
        // its lines are for Cargo
        "pipeline/link.rs",
        "pipeline/src/cli.rs",
        "pipeline/src/cli/",
        "stages/src/main.rs",
        "tests/parity/src/main.rs",
        // the lines of `parity`'s report, as the cases go by
        "tests/parity/src/check.rs",
        // the `main` of every provider: its verb is an argument, its events are lines on standard output
        "pipeline/protocol/src/worker.rs",
    ];
    let printing = ["println!", "print!", "eprintln!", "eprint!", "dbg!", "stdout()", "stderr()"];
    let asking = ["env::", "env!(", "option_env!"];
    for source in sources().iter().filter(|source| !source.lies_in(&programs)) {
        // a stage's remarks: standard error of a worker is the log of its task
        let may_log = source.file == "pipeline/protocol/src/stage.rs";
        for word in printing.iter().chain(&asking).filter(|word| !(may_log && **word == "stderr()")) {
            let is_there = source.code.match_indices(word).any(|(at, _)| !source.code[..at].ends_with(is_word));
            assert!(!is_there, "{} uses {word}", source.file);
        }
    }
}

#[test]
fn the_engine_asks_the_command_line_for_nothing_but_the_folders_of_programs() {
    for source in sources() {
        let engine =
            source.file.starts_with("pipeline/src/") && !source.lies_in(&["pipeline/src/cli.rs", "pipeline/src/cli/"]);
        // a program of the user is looked up where it is started, as a shell would do it
        let starts_programs = source.lies_in(&["pipeline/src/executor/process.rs"]);
        let code = match starts_programs {
            true => source.code.replace("crate::cli::path_dirs()", ""),
            false => source.code.replace("pub mod cli;", ""),
        };
        let rest = Source { code, ..source };
        assert!(!engine || !rest.names("cli"), "{} must not know the command line", rest.file);
    }
}

#[test]
fn no_stage_after_the_capture_sees_how_a_person_was_made() {
    let films = [
        "capture_synthetic",
        "capture_truth",
        "capture_truth_views",
        "scan_synthetic",
        "scan_landmarks",
        "portraits_synthetic",
    ];
    let with = |more: &[&'static str]| [&films[..], more].concat();
    let judges = [
        "capture_truth",
        "evaluate_expression",
        "evaluate_eyes",
        "evaluate_landmarks",
        "evaluate_skin",
        "evaluate_tracking",
    ];
    let rules: [(&[&str], &[&str], Vec<&str>); 8] = [
        (&["truth"], &[], [&judges[..], &["expression_actions", "probe_expression"]].concat()),
        (&[], &["truth"], judges.to_vec()),
        (&[], &["head_pose"], vec!["capture_truth", "evaluate_poses"]),
        (&[], &["arkit", "action_mm"], vec!["capture_truth", "expression_actions", "probe_expression"]),
        (&[], &["gaze"], vec!["capture_truth", "evaluate_eyes"]),
        (&[], &["regions", "flow"], vec!["capture_truth_views"]),
        (&["heads", "sequences", "scans"], &[], with(&["common/film"])),
        // a scan has a number for the person, which head models train on and are judged by
        (
            &[],
            &["identity"],
            with(&[
                "draw_identities",
                "train_head_model",
                "train_pca_head",
                "evaluate_head_model",
                "image_grid",
                "scan_meshes",
            ]),
        ),
    ];
    for source in sources().iter().filter(|source| source.file.starts_with("stages/src/")) {
        let stage = source.file.trim_start_matches("stages/src/").trim_end_matches(".rs");
        assert!(
            films.contains(&stage) || !source.taken_from("common").contains(&"film"),
            "{} knows how people are filmed",
            source.file
        );
        for (modules, columns, allowed) in &rules {
            if allowed.contains(&stage) {
                continue;
            }
            let module = source.taken_from("datasets").into_iter().find(|name| modules.contains(name));
            assert!(module.is_none(), "{} uses datasets::{}", source.file, module.unwrap_or_default());
            // the heading over the pictures of the camera on a sheet is no column
            let heading = |text: &str| ["contact_sheet", "error_sheet"].contains(&stage) && text == "truth";
            let column = source.texts.iter().find(|text| columns.contains(&text.as_str()) && !heading(text));
            assert!(column.is_none(), "{} names the column {column:?}", source.file);
        }
    }
}

#[test]
fn what_stages_share_knows_no_stage_and_nothing_else_lies_between_them() {
    for source in sources().iter().filter(|source| source.file.starts_with("stages/src/")) {
        let registers = source.code.contains("register!");
        match source.file.trim_start_matches("stages/src/") {
            // the program itself, and the command beside the stages
            "main.rs" | "import.rs" => {}
            file if file.starts_with("common/") => {
                assert!(!registers, "{} is a stage: it belongs into stages/src", source.file);
                let mut ours = source.code.split("crate::").skip(1);
                let stage = ours.find(|path| !path.starts_with("common::"));
                assert!(
                    stage.is_none(),
                    "{} names a stage: {}",
                    source.file,
                    stage.unwrap_or_default().lines().next().unwrap_or_default()
                );
            }
            file => {
                assert!(registers, "{} is no stage: it belongs into stages/src/common", source.file);
                // one that goes on with what another put out, or undoes it, may say so; what several share lies in
                // common
                let mut ours = source.code.split("crate::").skip(1).map(|path| path.split(|c| !is_word(c)).next());
                let stage = ours.find_map(|name| name.filter(|name| !["common", "", "_"].contains(name)));
                let pair = stage.map(|other| (file.trim_end_matches(".rs"), other));
                assert!(
                    pair.is_none_or(|pair| GOES_ON.contains(&pair)),
                    "{} takes something of another stage: {}",
                    source.file,
                    stage.unwrap_or_default()
                );
            }
        }
    }
}

/// Stages that take names or rules of the stage whose results they go on with.
const GOES_ON: [(&str, &str); 9] = [
    ("describe_rendering_data", "export_rendering_data"),
    ("evaluate_animation", "evaluate_faces"),
    ("evaluate_sequences", "evaluate"),
    ("expression_actions", "probe_expression"),
    ("plan_trajectory", "turntable"),
    ("scan_landmarks", "triangulate_landmarks"),
    ("scan_synthetic", "portraits_synthetic"),
    ("survey_layouts", "source_folder"),
    ("track_eyes", "fit_eyes"),
];

#[test]
fn models_and_geometry_know_no_rows_and_no_recipes() {
    for source in sources() {
        if source.lies_in(&["stages/models/src/", "stages/geometry/src/"]) {
            for word in ["manifests", "protocol", "serde_yaml", "indicatif", "anyhow"] {
                assert!(source.taken_from(word).is_empty(), "{} uses {word}", source.file);
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
        // rustfmt breaks lines of code and none of these; what is drawn stands in a fence
        let mut is_drawn = false;
        for (at, line) in text.lines().map(str::trim_end).enumerate().filter(|(_, l)| l.trim_start().starts_with("//"))
        {
            is_drawn ^= line.ends_with("```") || line.ends_with("```text");
            assert!(is_drawn || line.chars().count() <= 120, "{file}:{} is a comment of more than 120 columns", at + 1);
        }
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
