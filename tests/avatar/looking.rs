//! Tracking to look at: the sheet shows frames, the mesh over them and a scale that fits; the turntable has all its
//! pictures and shows a head; meshes go out as PLY, OBJ and GLB.

use crate::base::{Trial, base};
use crate::chrome::{self, Chrome};
use crate::support::Space;
use serde_json::{Value, json};
use std::path::Path;

fn number(row: &Value, column: &str) -> f64 {
    row[column].as_f64().unwrap_or_else(|| panic!("{column} of {row}"))
}

/// The rows of a stage of the shared run, files as paths.
fn shown(trial: &Trial, stage: &str) -> Vec<Value> {
    let output = trial.command("show", &[stage, "--json", "--paths"]).output().expect("it starts");
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().map(|line| serde_json::from_str(line).expect("a row a line")).collect()
}

fn path<'a>(row: &'a Value, column: &str) -> &'a Path {
    Path::new(row[column].as_str().unwrap_or_else(|| panic!("{column} of {row}")))
}

/// An RGB picture.
struct Picture {
    width: usize,
    height: usize,
    data: Vec<u8>,
}

impl Picture {
    fn read(path: &Path) -> Picture {
        let file = std::io::BufReader::new(std::fs::File::open(path).expect("it is there"));
        let mut reader = png::Decoder::new(file).read_info().expect("a PNG");
        let mut data = vec![0; reader.output_buffer_size().expect("a size")];
        let info = reader.next_frame(&mut data).expect("a whole PNG");
        assert_eq!((info.color_type, info.bit_depth), (png::ColorType::Rgb, png::BitDepth::Eight));
        Picture { width: info.width as usize, height: info.height as usize, data }
    }

    fn at(&self, x: usize, y: usize) -> [u8; 3] {
        let i = (y * self.width + x) * 3;
        [self.data[i], self.data[i + 1], self.data[i + 2]]
    }
}

// how a sheet is laid out, px: pictures, between them, around them, lines of text
const SIZE: usize = 240;
const GAP: usize = 4;
const MARGIN: usize = 14;
const STRIP: usize = 26;

#[test]
fn the_sheet_shows_the_mesh_on_the_head_and_distances_on_a_scale_that_fits() {
    let trial = Trial::finished();
    let rows = shown(&trial, "tracking_sheet");
    let [row] = &rows[..] else { panic!("{rows:?}") };
    let (median, p90, legend) = (number(row, "median_mm"), number(row, "p90_mm"), number(row, "legend_mm"));
    assert!(0.0 < median && median < p90, "{row}");
    assert!((4.0 * median..=8.0 * median).contains(&legend), "{row}");
    let sheet = Picture::read(path(row, "sheet"));
    let block = 3 * SIZE + 2 * GAP;
    assert_eq!(sheet.width, MARGIN + 2 * (block + MARGIN), "two cameras");
    let line = STRIP + SIZE + GAP;
    assert!(sheet.height > 2 * STRIP + 3 * line, "three moments");
    for (camera, moment) in (0..2).flat_map(|camera| (0..3).map(move |moment| (camera, moment))) {
        let corner = (MARGIN + camera * (block + MARGIN), 2 * STRIP + moment * line + STRIP);
        let at = |k: usize, x: usize, y: usize| sheet.at(corner.0 + k * (SIZE + GAP) + x, corner.1 + y);
        let all = || (0..SIZE).flat_map(|y| (0..SIZE).map(move |x| (x, y)));
        let covered = all().filter(|(x, y)| at(0, *x, *y) != at(1, *x, *y)).count() as f64 / (SIZE * SIZE) as f64;
        assert!(
            (0.2..0.8).contains(&covered),
            "camera {camera}, moment {moment}: the mesh changes {covered} of the frame"
        );
        assert_eq!(at(0, SIZE / 2, 0), at(1, SIZE / 2, 0), "above the head nothing is drawn");
        // somebody is in the frame
        assert!(all().filter(|(x, y)| at(0, *x, *y) != [255; 3]).count() > SIZE * SIZE / 5);
        // viridis is the only colour in the third picture; white and grey are the rest
        let coloured =
            all().filter(|(x, y)| at(2, *x, *y).iter().max().unwrap() - at(2, *x, *y).iter().min().unwrap() > 40);
        let coloured = coloured.count() as f64 / (SIZE * SIZE) as f64;
        assert!((0.05..0.8).contains(&coloured), "camera {camera}, moment {moment}: points cover {coloured}");
    }
}

const DECODE: &str = "
recipe: r
stages:
  found: { files: turn.mp4 }
  videos: { select: found, rename: { video: file }, set: { participant: 18, sequence: turn, camera: '0', every: 1 } }
  frames: { stage: extract_frames, from: videos }
";

#[test]
fn the_turntable_has_all_its_pictures_and_a_head_in_each() {
    let trial = Trial::finished();
    let pictures = shown(&trial, "turning");
    let movies = shown(&trial, "turntables");
    assert_eq!((pictures.len(), movies.len()), (72, 1));
    let space = Space::new();
    std::fs::copy(path(&movies[0], "movie"), space.path("turn.mp4")).expect("a copy");
    space.write("r.yaml", DECODE);
    space.settle();
    space.run();
    let said = space.effigy(&["show", "r.yaml", "frames", "--json", "--paths"]);
    let frames: Vec<Value> = said.out.lines().map(|line| serde_json::from_str(line).expect("a row a line")).collect();
    assert_eq!(frames.len(), 72);
    let first = Picture::read(path(&frames[0], "image"));
    for (frame, picture) in frames.iter().zip(&pictures).step_by(9) {
        let (frame, picture) = (Picture::read(path(frame, "image")), Picture::read(path(picture, "render")));
        assert_eq!((frame.width, frame.height), (picture.width, picture.height));
        // lossy, but the same
        let apart = frame.data.iter().zip(&picture.data).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>();
        assert!(apart / (frame.data.len() as f64) < 6.0, "{}", apart / frame.data.len() as f64);
        let white = frame.data.chunks_exact(3).filter(|p| p.iter().all(|v| *v > 245)).count();
        let share = 1.0 - white as f64 / (frame.data.len() / 3) as f64;
        assert!((0.15..0.8).contains(&share), "the head fills {share} of the picture");
    }
    let half = Picture::read(path(&frames[36], "image"));
    assert_ne!(first.data, half.data, "it turns");
}

#[test]
fn meshes_go_out_in_three_formats() {
    let trial = Trial::finished();
    for (format, magic) in [("glb", &b"glTF\x02\0\0\0"[..]), ("obj", b"# metres"), ("ply", b"ply\nform")] {
        let set = format!("meshes.format={format}");
        trial.run(&["--set", &set, "--only", "meshes"]);
        let to = trial.space.path(format);
        let words = ["meshes", "--to", to.to_str().expect("text"), "--set", &set];
        let output = trial.command("export", &words).output().expect("it starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        for row in base().tables["meshes"].iter() {
            let place =
                format!("018/EMO-1-shout+laugh/mesh_{:05}.{format}", row["timestep"].as_i64().expect("a number"));
            let bytes = std::fs::read(to.join(&place)).unwrap_or_else(|error| panic!("{place}: {error}"));
            assert!(bytes.starts_with(magic) && bytes.len() > 1000, "{place}");
        }
    }
}

#[test]
fn the_report_of_an_avatar_works_in_a_browser() {
    let Some(program) = chrome::program() else { return };
    let trial = Trial::finished();
    let out = trial.command("report", &["--out", "out"]).output().expect("it starts");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let mut chrome = Chrome::start(&program, 1200, 900);
    chrome.open(&trial.space.path("out/report.html"));
    let count = |chrome: &mut Chrome, what: &str| chrome.value(&format!("document.querySelectorAll('{what}').length"));
    for (what, least) in [("img", 4), ("video", 4), ("table", 8), ("svg", 4)] {
        assert!(count(&mut chrome, what).as_u64() >= Some(least), "{what}");
    }
    assert_eq!(
        chrome.value("[...document.images].filter((image) => !image.naturalWidth).map((image) => image.alt)"),
        json!([])
    );
    // those far down the page are loaded when they are needed
    chrome
        .value("[...document.querySelectorAll('video')].forEach((video) => { video.preload = 'auto'; video.load() })");
    chrome.until("[...document.querySelectorAll('video')].every((video) => video.error || video.videoWidth)");
    assert_eq!(
        chrome.value("[...document.querySelectorAll('video')].map((video) => video.error?.message).filter(Boolean)"),
        json!([])
    );
    // every table sorts by its last column: numbers grow, and what is none comes last
    chrome.value("document.querySelectorAll('table').forEach((table) => table.querySelector('thead tr').lastElementChild.querySelector('[role=button]')?.click())");
    let sorted = "[...document.querySelectorAll('table')].filter((table) => table.querySelector('[aria-sort]')) \
        .map((table) => [...table.tBodies[0].rows].map((row) => row.lastElementChild.textContent.trim().split(' ')[0])) \
        .filter((words) => words.every((word) => word === 'n/a' || !isNaN(word)))";
    let columns: Vec<Vec<String>> = serde_json::from_value(chrome.value(sorted)).expect("columns of words");
    // behind the last number only what is none
    let columns: Vec<Vec<f64>> =
        columns.iter().map(|words| words.iter().map(|word| word.parse().unwrap_or(f64::INFINITY)).collect()).collect();
    assert!(columns.iter().filter(|column| column.len() > 1).count() > 2, "{columns:?}");
    assert!(columns.iter().all(|column| column.is_sorted()), "{columns:?}");
    assert_eq!(chrome.value("document.documentElement.scrollWidth > innerWidth"), false, "something stands out");
    assert!(chrome.complaints().is_empty(), "{:?}", chrome.complaints());
}
