//! `effigy import nersemble FOLDER`: what a capture on disk has, what is missing, and what that prevents.
//!
//! No stage but a command: it computes nothing and writes nothing, unless it is asked for the calibration in the form
//! that DiffusionAvatars reads. Knows layouts (`datasets::nersemble`) and what the stages want, no recipe.

use crate::common::faults::hinted;
use anyhow::{Context, Result, bail, ensure};
use datasets::capture::{FRONTAL, SERIALS};
use datasets::nersemble::{self, Layout, Part, Survey, SurveyedSequence};
use datasets::split;
use datasets::views;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// How the command is called.
pub const USAGE: &str = "\
List what a capture on disk has, what is missing, and what that prevents

Usage: effigy import nersemble FOLDER [--json] [--calibration-to DIR]

Arguments:
  FOLDER  holds the participants' folders, or is one participant's

Options:
  --json                answer as one JSON object
  --calibration-to DIR  write each participant's calibration as DiffusionAvatars reads it, to
                        DIR/{participant}/calibration/config.json and calibration_result.json";

/// What is asked.
struct Question {
    folder: PathBuf,
    json: bool,
    calibration_to: Option<PathBuf>,
}

/// Answers the command; the arguments are those after `import`.
///
/// # Errors
/// If the arguments make no sense, the folder cannot be read or has no recordings, or a calibration is wrong where it
/// is to be written.
pub fn answer(arguments: &[String]) -> Result<String> {
    if arguments.iter().any(|word| word == "--help" || word == "-h") {
        return Ok(USAGE.to_string());
    }
    let question = question(arguments)?;
    let surveys = nersemble::survey(&question.folder).map_err(hinted)?;
    let published = nersemble::published(&question.folder);
    if surveys.iter().all(|survey| survey.sequences.is_empty()) {
        // says what it looked for
        nersemble::list(&question.folder, &|_| true).map_err(hinted)?;
    }
    let mut written = Vec::new();
    if let Some(to) = &question.calibration_to {
        for survey in &surveys {
            written.extend(convert(&question.folder, survey, &to.join(&survey.participant))?);
        }
    }
    if question.json {
        let people: Vec<Value> = surveys.iter().map(|survey| as_json(survey, &published)).collect();
        return Ok(json!({ "participants": people, "written": written }).to_string());
    }
    let mut text = String::new();
    for survey in &surveys {
        tell(survey, &published, &mut text)?;
    }
    for path in written {
        writeln!(text, "wrote {}", path.display())?;
    }
    let one =
        question.folder.join("sequences").is_dir().then(|| surveys.first().map(|s| s.participant.as_str())).flatten();
    let points = surveys.iter().flat_map(|survey| &survey.sequences);
    let points =
        points.flat_map(|sequence| sequence.parts.keys()).any(|kind| [Part::Clouds, Part::Depths].contains(kind));
    write!(text, "{}", stanza(&question.folder, one, points))?;
    Ok(text)
}

/// Writes a participant's calibration below a folder as DiffusionAvatars reads it; the files. All cameras of the rig
/// have to be there: that reader finds them by their place among 16 constants.
fn convert(root: &Path, survey: &Survey, folder: &Path) -> Result<[PathBuf; 2]> {
    let same = |a: &Path, b: &Path| a.canonicalize().is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b));
    ensure!(
        !same(folder, &survey.folder),
        "{} is in the capture itself, whose layout another calibration would change\nhint: --calibration-to a folder beside it",
        folder.join("calibration").display()
    );
    let calibrations = nersemble::read_calibration(&survey.calibration).map_err(hinted)?;
    let absent: Vec<&str> =
        SERIALS.iter().copied().filter(|serial| !calibrations.cameras.contains_key(*serial)).collect();
    ensure!(
        absent.is_empty(),
        "{}: found {} of the rig's {} cameras, expected all, and DiffusionAvatars would take those behind a missing one for others; missing: {}\n\
         hint: it finds a camera by its place among the 16; here the capture is read as it is, without --calibration-to",
        survey.calibration.display(),
        SERIALS.len() - absent.len(),
        SERIALS.len(),
        absent.join(", ")
    );
    let size = match calibrations.size {
        Some(size) => size,
        None => picture_size(root, survey)?,
    };
    nersemble::write_diffusion_avatars_calibration(folder, &calibrations, size).map_err(hinted)
}

/// Width and height, px, of all pictures of a participant: what its calibration is for, where that says no size.
fn picture_size(root: &Path, survey: &Survey) -> Result<(u32, u32)> {
    let mut first: BTreeMap<String, PathBuf> = BTreeMap::new();
    let recordings = nersemble::list(root, &|_| true).map_err(hinted)?;
    for recording in recordings.into_iter().filter(|recording| recording.calibration == survey.calibration) {
        first.entry(recording.camera).or_insert(recording.pixels);
    }
    let mut found: Option<((u32, u32), PathBuf)> = None;
    for path in first.into_values() {
        let size = crate::common::recordings::size(&path)?;
        match &found {
            None => found = Some((size, path)),
            Some((other, _)) if *other == size => {}
            Some((other, before)) => bail!(
                "{} is {} x {} px and {} is {} x {} px, and the calibration of DiffusionAvatars is for pictures of one size\n\
                 hint: {} is for the pictures beside it; bring them to one size, and it with them",
                before.display(),
                other.0,
                other.1,
                path.display(),
                size.0,
                size.1,
                survey.calibration.display()
            ),
        }
    }
    let (size, _) = found.with_context(|| {
        format!(
            "{} is for the pictures beside it, and there are none to tell their size\n\
             hint: one video or picture of each camera is enough",
            survey.calibration.display()
        )
    })?;
    Ok(size)
}

fn question(arguments: &[String]) -> Result<Question> {
    let mut words = arguments.iter();
    match words.next().map(String::as_str) {
        Some("nersemble") => {}
        Some(other) => bail!(
            "`{other}` is no layout that can be listed\nhint: effigy import nersemble FOLDER; for other captures see the stage source_folder"
        ),
        None => bail!("what is to be listed?\nhint: effigy import nersemble FOLDER"),
    }
    let (mut folder, mut json, mut calibration_to) = (None, false, None);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--json" => json = true,
            "--calibration-to" => {
                calibration_to = Some(words.next().context("--calibration-to names no folder")?.into());
            }
            word if word.starts_with('-') => bail!("there is no option `{word}`\nhint: effigy import --help"),
            path if folder.is_none() => folder = Some(PathBuf::from(path)),
            path => bail!("`{path}` is one folder too many\nhint: effigy import nersemble FOLDER"),
        }
    }
    Ok(Question {
        folder: folder.context("which folder?\nhint: effigy import nersemble FOLDER")?,
        json,
        calibration_to,
    })
}

/// A part of a capture, and what does without it.
fn part(part: Part) -> (&'static str, &'static str) {
    match part {
        Part::Mattes => ("mattes", "the person is cut out against the pictures of the background"),
        Part::Backgrounds => {
            ("backgrounds", "nothing can be cut out where there is no matte: stereo and tracking want one")
        }
        Part::Colours => ("colour calibration", "cameras differ in colour, and an avatar averages over them"),
        Part::Clouds => ("point clouds", "reconstruct_points makes them from the frames"),
        Part::Depths => ("depth maps", "reconstruct_points makes points from the frames"),
        Part::Flame => {
            ("FLAME tracking", "no eye poses of theirs; track_head and track_eyes find ours from the pictures")
        }
        Part::Nphm => ("NPHM fits", "fit_identity and track_head make them"),
        Part::Boxes => ("face boxes", "not needed: crops are centred on the origin of the world"),
    }
}

const PARTS: [Part; 8] =
    [Part::Mattes, Part::Backgrounds, Part::Colours, Part::Clouds, Part::Depths, Part::Flame, Part::Nphm, Part::Boxes];

/// How many of the pictures that are not there are named.
const NAMED: usize = 3;

/// What is wrong with the calibration, or the serials of its cameras.
fn calibration(survey: &Survey) -> Result<Vec<String>, String> {
    if !survey.calibration.is_file() {
        return Err(format!("{} is missing", survey.calibration.display()));
    }
    let read = nersemble::read_calibration(&survey.calibration).map_err(|error| error.to_string())?;
    // of pictures of a size that it does not say, `source_nersemble` will tell, which opens them
    let middle = |size| read.cameras.values().map(move |camera| ([camera.intrinsics[2], camera.intrinsics[5]], size));
    let another = read.size.and_then(|size| views::of_another_size(&middle(size).collect::<Vec<_>>()));
    if let (Some((width, height)), Some([other_width, other_height])) = (read.size, another) {
        return Err(format!(
            "{}: its principal points are the middle of pictures of about {other_width} x {other_height} px, and those of this layout are for {width} x {height}; \
             `calibrated_size` of source_nersemble says otherwise",
            survey.calibration.display()
        ));
    }
    Ok(read.cameras.into_keys().collect())
}

fn tell(survey: &Survey, published: &Published, out: &mut String) -> Result<()> {
    writeln!(out, "participant {}: layout {}", survey.participant, survey.layout.name())?;
    match calibration(survey) {
        Ok(cameras) => writeln!(out, "  calibration   {} cameras", cameras.len())?,
        Err(problem) => writeln!(out, "  calibration   {problem}\n                so its recordings cannot be used")?,
    }
    let width = survey.sequences.iter().map(|s| s.name.len()).max().unwrap_or(0);
    for sequence in &survey.sequences {
        let pictures = match sequence.frames {
            Some(frames) => format!("{} cameras, {frames} frames", sequence.cameras.len()),
            None if sequence.recordings == 0 => "no recordings".to_string(),
            None => format!("{} cameras, video", sequence.cameras.len()),
        };
        let parts: Vec<String> = sequence.parts.iter().map(|(kind, n)| told(sequence, *kind, *n)).collect();
        let parts = if parts.is_empty() { String::new() } else { format!(", {}", parts.join(", ")) };
        writeln!(out, "  {:width$}  {pictures}{parts}", sequence.name)?;
        if let Some(problem) = &sequence.problem {
            let below = " ".repeat(width + 4);
            writeln!(out, "{below}{problem}\n{below}so the capture cannot be read as it is")?;
        }
    }
    for (what, prevents) in missing(survey, published) {
        writeln!(out, "  missing: {what}: {prevents}")?;
    }
    for (what, files) in &survey.unused {
        let files = if *files == 1 { "1 file".to_string() } else { format!("{files} files") };
        writeln!(out, "  not used here: {what}, {files}")?;
    }
    if let Some([one, other]) = tested(survey) {
        writeln!(
            out,
            "  the paper tests on {one} and {other} (`paper_sequences` of assign_split, `hold_out_sequences` of a recipe)"
        )?;
    }
    Ok(())
}

/// The sequences that the paper holds out of this participant.
fn tested(survey: &Survey) -> Option<[&'static str; 2]> {
    survey.participant.parse().ok().and_then(split::paper_sequences)
}

/// A part with its number, where that is not the number of all recordings.
fn told(sequence: &SurveyedSequence, kind: Part, count: usize) -> String {
    let name = part(kind).0;
    match kind {
        Part::Mattes | Part::Backgrounds | Part::Colours | Part::Depths if count == sequence.recordings => {
            name.to_string()
        }
        Part::Mattes | Part::Backgrounds | Part::Colours | Part::Depths => {
            format!("{name} for {count} of {}", sequence.recordings)
        }
        Part::Flame => name.to_string(),
        _ => format!("{count} {name}"),
    }
}

/// The sequences that were published, by participant.
type Published = BTreeMap<u32, Vec<String>>;

/// The sequences that were published of a participant and are not here; and those of the paper's that are not.
fn elsewhere(survey: &Survey, published: &Published) -> Vec<(String, String)> {
    let is_here = |name: &str| survey.sequences.iter().any(|sequence| sequence.name == name && sequence.recordings > 0);
    let mut list = Vec::new();
    let all = survey.participant.parse().ok().and_then(|number: u32| published.get(&number));
    let rest: Vec<&str> = all.into_iter().flatten().map(String::as_str).filter(|name| !is_here(name)).collect();
    if !rest.is_empty() {
        let prevents = "metadata_sequences.csv says that they were published; an avatar learns from what is here";
        list.push((format!("sequences {}", rest.join(", ")), prevents.to_string()));
    }
    let untested: Vec<&str> = tested(survey).into_iter().flatten().filter(|name| !is_here(name)).collect();
    if !untested.is_empty() {
        let one = untested.len() == 1;
        let [noun, them, rest] = if one { ["sequence", "it", "the other one"] } else { ["sequences", "them", "none"] };
        let scored = format!("self-reenactment is scored on {rest} then, or on what `hold_out_sequences` names");
        list.push((format!("{noun} {}", untested.join(", ")), format!("the paper tests on {them}; {scored}")));
    }
    list
}

/// What is missing, and what that prevents.
fn missing(survey: &Survey, published: &Published) -> Vec<(String, String)> {
    let mut list = Vec::new();
    let has = |sequence: &SurveyedSequence, kind: Part| sequence.parts.contains_key(&kind);
    // what there is beside recordings is no matter where there are none
    let (recorded, other): (Vec<&SurveyedSequence>, Vec<_>) = survey.sequences.iter().partition(|s| s.recordings > 0);
    let silent: Vec<&str> = other.iter().filter(|s| s.problem.is_none()).map(|s| s.name.as_str()).collect();
    if !silent.is_empty() {
        let prevents = "their tracking and clouds are read all the same; there is nothing to look at or to train on";
        list.push((format!("recordings of {}", silent.join(", ")), prevents.to_string()));
    }
    for kind in PARTS {
        let without: Vec<&str> = recorded.iter().filter(|s| !has(s, kind)).map(|s| s.name.as_str()).collect();
        // without mattes the backgrounds count, and the other way round they do not
        let needless = match kind {
            Part::Backgrounds => recorded.iter().all(|s| has(s, Part::Mattes)),
            // points come from the one or from the other
            Part::Clouds => survey.layout == Layout::PaperRelease,
            Part::Depths => survey.layout != Layout::PaperRelease,
            Part::Boxes => survey.layout != Layout::DiffusionAvatars,
            _ => false,
        };
        if without.is_empty() || needless {
            continue;
        }
        let (name, prevents) = part(kind);
        let prevents = match kind {
            Part::Mattes if recorded.iter().any(|s| !has(s, kind) && !has(s, Part::Backgrounds)) => {
                "the background stays in the pictures, and stereo and tracking cannot tell it from the person"
            }
            _ => prevents,
        };
        let whose = if without.len() == recorded.len() { String::new() } else { format!(" of {}", without.join(", ")) };
        list.push((format!("{name}{whose}"), prevents.to_string()));
    }
    // what is wrong with all of a calibration is told elsewhere
    let calibrated = calibration(survey).ok();
    let is_unknown = |camera: &&String| calibrated.as_ref().is_some_and(|known| !known.contains(camera));
    let unknown: BTreeSet<&str> =
        recorded.iter().flat_map(|s| &s.cameras).filter(is_unknown).map(String::as_str).collect();
    if !unknown.is_empty() {
        let noun = if unknown.len() == 1 { "camera" } else { "cameras" };
        let serials: Vec<&str> = unknown.into_iter().collect();
        let prevents = "source_nersemble refuses their recordings, unless its `cameras` names the others alone";
        list.push((format!("calibration of {noun} {}", serials.join(", ")), prevents.to_string()));
    }
    for sequence in recorded.iter().filter(|s| !s.absent.is_empty()) {
        let first = sequence.absent.iter().take(NAMED);
        let named: Vec<String> = first.map(|(camera, frame)| format!("camera {camera} in frame {frame}")).collect();
        let more = match sequence.absent.len() - named.len() {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        let prevents = "stereo has fewer views there, and describe_rendering_data wants every camera in every frame";
        list.push((format!("pictures of {}: {}{more}", sequence.name, named.join(", ")), prevents.to_string()));
    }
    let mut absent: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for sequence in &recorded {
        for serial in SERIALS.iter().filter(|serial| !sequence.cameras.iter().any(|camera| camera == *serial)) {
            absent.entry(serial).or_default().push(&sequence.name);
        }
    }
    // cameras that are missing in the same sequences stand together, the frontal one alone
    let mut together: BTreeMap<(bool, String), Vec<&str>> = BTreeMap::new();
    for (serial, sequences) in absent {
        let all = sequences.len() == recorded.len();
        let whose = if all { "all sequences".to_string() } else { sequences.join(", ") };
        together.entry((serial != FRONTAL, whose)).or_default().push(serial);
    }
    for ((is_other, whose), serials) in together {
        let (noun, prevents) = match is_other {
            false => ("camera", "it is the one that the paper holds out: name another under hold_out_cameras"),
            true if serials.len() == 1 => ("camera", "stereo has fewer views"),
            true => ("cameras", "stereo has fewer views"),
        };
        list.push((format!("{noun} {} in {whose}", serials.join(", ")), prevents.to_string()));
    }
    list.extend(elsewhere(survey, published));
    list
}

fn as_json(survey: &Survey, published: &Published) -> Value {
    let sequences: Vec<Value> = survey
        .sequences
        .iter()
        .map(|s| {
            let parts: BTreeMap<&str, usize> = s.parts.iter().map(|(kind, n)| (part(*kind).0, *n)).collect();
            json!({
                "sequence": s.name, "cameras": s.cameras, "recordings": s.recordings, "frames": s.frames, "parts": parts,
                "problem": s.problem,
            })
        })
        .collect();
    let calibration = match calibration(survey) {
        Ok(cameras) => json!({ "cameras": cameras.len() }),
        Err(problem) => json!({ "problem": problem }),
    };
    let missing: Vec<Value> = missing(survey, published)
        .into_iter()
        .map(|(what, prevents)| json!({ "what": what, "prevents": prevents }))
        .collect();
    let unused: Vec<Value> =
        survey.unused.iter().map(|(what, files)| json!({ "what": what, "files": files })).collect();
    json!({
        "participant": survey.participant, "unused": unused, "layout": survey.layout.name(), "calibration": calibration,
        "sequences": sequences, "missing": missing, "paper_test_sequences": tested(survey),
    })
}

/// A path as YAML takes it for a text: quoted, unless it has a folder in it and nothing that means something.
fn quoted(path: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+".contains(c);
    if path.contains('/') && path.chars().all(plain) { path.to_owned() } else { Value::from(path).to_string() }
}

/// What to write into a recipe.
fn stanza(folder: &Path, one: Option<&str>, points: bool) -> String {
    // a recipe wants a number, which a folder's name with zeros in front is not to be read as
    let one = one.and_then(|name| name.parse::<i64>().ok());
    let one = one.map_or(String::new(), |number| format!(", participant: {number}"));
    let folder = quoted(&folder.display().to_string());
    let mut text = format!("in a recipe:\n  capture: {{ stage: source_nersemble, path: {folder}{one} }}");
    if points {
        // what was measured with all cameras at full size goes before stereo; no shipped profile has such a stage
        text += &format!("\n  supplied: {{ stage: source_nersemble_clouds, path: {folder}{one} }}");
        text += "\n  points: { stage: import_points, from: supplied, by: [participant, sequence, timestep] }";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::media::Image;
    use crate::common::video::write_video;
    use datasets::capture::rig;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_string).collect()
    }

    /// Makes a file of one byte.
    fn put(root: &Path, name: &str) {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, b".").unwrap();
    }

    #[test]
    fn a_download_is_listed_with_what_is_missing() {
        let root = std::env::temp_dir().join(format!("effigy-import-{}", std::process::id()));
        let few: Vec<&str> = SERIALS.iter().copied().filter(|serial| *serial != FRONTAL).collect();
        nersemble::write_calibration(&root, 17, &rig(&SERIALS, 2200, 3208)).unwrap();
        for serial in &few {
            put(&root, &format!("017/sequences/FREE/images/cam_{serial}.mp4"));
            put(&root, &format!("017/sequences/BACKGROUND/image_{serial}.jpg"));
        }
        let to = root.join("converted");
        let call = format!("nersemble {} --calibration-to {}", root.display(), to.display());
        let text = answer(&words(&call)).unwrap();
        assert!(text.contains("participant 017: layout A, nersemble-data (version 2)"), "{text}");
        assert!(text.contains("FREE  15 cameras, video, backgrounds"), "{text}");
        assert!(
            text.contains("missing: mattes: the person is cut out against the pictures of the background"),
            "{text}"
        );
        assert!(
            text.contains("missing: camera 222200037 in all sequences: it is the one that the paper holds out"),
            "{text}"
        );
        assert!(!text.contains("missing: backgrounds") && !text.contains("not used here"), "{text}");
        put(&root, "017/flame.ply");
        let text = answer(&words(&format!("nersemble {}", root.display()))).unwrap();
        assert!(text.contains("not used here: flame.ply, 1 file\n"), "{text}");
        // one sequence of which only tracking was published, and one that is not whole, do not keep the others from
        // being told
        put(&root, "017/sequences/EXP-2-eyes/tracking/flame2023_tracking_v2.npz");
        put(&root, "017/sequences/EXP-1-head/images/cam_222200042.mp4");
        put(&root, "017/sequences/EXP-1-head/alpha_maps/cam_1.mp4");
        let text = answer(&words(&format!("nersemble {}", root.display()))).unwrap();
        assert!(text.contains("FREE        15 cameras, video, backgrounds\n"), "{text}");
        assert!(text.contains("EXP-2-eyes  no recordings, FLAME tracking\n"), "{text}");
        assert!(text.contains("missing: recordings of EXP-2-eyes: their tracking"), "{text}");
        assert!(text.contains("cam_1.mp4: found no such file, though its matte"), "{text}");
        assert!(!text.contains("mattes of EXP-2-eyes") && !text.contains("in EXP-1-head, EXP-2-eyes"), "{text}");
        for name in ["EXP-1-head", "EXP-2-eyes"] {
            std::fs::remove_dir_all(root.join("017/sequences").join(name)).unwrap();
        }
        assert!(nersemble::read_calibration(&to.join("017/calibration/calibration_result.json")).is_ok());
        let json: Value =
            serde_json::from_str(&answer(&words(&format!("nersemble {} --json", root.display()))).unwrap()).unwrap();
        assert_eq!(json["participants"][0]["sequences"][0]["parts"]["backgrounds"], 15);
        std::fs::remove_file(nersemble::calibration_path(&root, 17)).unwrap();
        let text = answer(&words(&format!("nersemble {}", root.display()))).unwrap();
        assert!(text.contains("camera_params.json is missing"), "{text}");
        std::fs::remove_dir_all(&root).unwrap();
        let error = answer(&words(&format!("nersemble {}", root.display()))).unwrap_err().to_string();
        assert!(error.contains("No such file") && error.contains("hint:"), "{error}");
    }

    #[test]
    fn sequences_that_were_published_and_are_not_here_are_told() {
        let root = tempfile::tempdir().unwrap();
        nersemble::write_calibration(root.path(), 18, &rig(&SERIALS[..2], 2200, 3208)).unwrap();
        put(root.path(), &format!("018/sequences/EXP-1-head/images/cam_{}.mp4", SERIALS[0]));
        let table = "ID,wears_glasses,BACKGROUND,EXP-1-head,EXP-5-mouth,FREE\r\n018,x,x,x,m,x\r\n019,,x,x,,\r\n";
        std::fs::write(root.path().join("metadata_sequences.csv"), table).unwrap();
        let told = || answer(&["nersemble".to_string(), root.path().join("018").display().to_string()]).unwrap();
        assert!(told().contains("missing: sequences EXP-5-mouth, FREE: metadata_sequences.csv says"), "{}", told());
        assert!(told().contains("missing: sequences EXP-5-mouth, EMO-3-angry+sad: the paper tests on"), "{}", told());
        // a calibration for pictures of another size than the layout's
        nersemble::write_calibration(root.path(), 18, &rig(&SERIALS[..2], 192, 280)).unwrap();
        assert!(told().contains("pictures of about 192 x 280 px, and those of this layout are for 2200"), "{}", told());
    }

    #[test]
    fn pictures_and_cameras_that_are_not_there_are_told() {
        let root = std::env::temp_dir().join(format!("effigy-import-c-{}", std::process::id()));
        nersemble::write_calibration(&root, 17, &rig(&SERIALS[..2], 2200, 3208)).unwrap();
        for serial in &SERIALS[..3] {
            put(&root, &format!("017/sequences/FREE/images/cam_{serial}.mp4"));
        }
        for (frame, cameras) in [(0, 5), (7, 4), (8, 2)] {
            for serial in &SERIALS[..cameras] {
                put(&root, &format!("018/sequences/EMO-1/timesteps/frame_{frame:05}/images-2x/cam_{serial}.jpg"));
            }
        }
        let text = answer(&words(&format!("nersemble {}", root.display()))).unwrap();
        let unknown = format!("missing: calibration of camera {}: source_nersemble refuses", SERIALS[2]);
        assert!(text.contains("calibration   2 cameras") && text.contains(&unknown), "{text}");
        let absent = format!("missing: pictures of EMO-1: camera {} in frame 7, camera ", SERIALS[4]);
        assert!(text.contains(&absent), "{text}");
        assert!(text.contains(" in frame 8 and 1 more: stereo has fewer views there"), "{text}");
        let call = format!("nersemble {} --json", root.display());
        let json: Value = serde_json::from_str(&answer(&words(&call)).unwrap()).unwrap();
        assert_eq!(json["participants"][0]["calibration"]["cameras"], 2);
        let missing = json["participants"][1]["missing"].as_array().unwrap();
        assert!(missing.iter().any(|one| one["what"].as_str().unwrap().starts_with("pictures of EMO-1")), "{json}");
        std::fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn a_calibration_that_is_for_the_pictures_beside_it_is_converted_with_their_size() {
        let root = std::env::temp_dir().join(format!("effigy-import-b-{}", std::process::id()));
        let mut cameras = rig(&SERIALS, 64, 96);
        cameras[1].1.intrinsics.x_axis.x += 1.0;
        nersemble::write_calibration(&root, 17, &cameras).unwrap();
        std::fs::create_dir_all(root.join("017/sequences/FREE/alpha_maps")).unwrap();
        let film = |serial: &str, width: usize, height: usize| {
            let path = nersemble::video_path(&root, 17, "FREE", serial);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let frame = Image::new(width, height, 3, vec![9; width * height * 3]);
            write_video(&path, 24.0, &[frame.clone(), frame]).unwrap();
        };
        let to = root.join("converted");
        let call =
            |to: &Path| answer(&words(&format!("nersemble {} --calibration-to {}", root.display(), to.display())));
        let refused = |to: &Path, parts: [&str; 2]| {
            let error = call(to).unwrap_err().to_string();
            assert!(parts.iter().all(|part| error.contains(part)) && error.contains("hint:"), "{error}");
        };
        film(SERIALS[0], 64, 96);
        film(SERIALS[1], 32, 48);
        refused(&to, ["is 64 x 96 px and", "is 32 x 48 px"]);
        film(SERIALS[1], 64, 96);
        let text = call(&to).unwrap();
        assert!(text.contains("layout B") && text.contains("wrote"), "{text}");
        let read = nersemble::read_calibration(&to.join("017/calibration/calibration_result.json")).unwrap();
        assert_eq!(read.size, Some((64, 96)));
        for (serial, camera) in &cameras {
            let found = &read.cameras[serial].camera(64, 96);
            assert_eq!(found.intrinsics, camera.intrinsics);
        }
        // a gap would be closed by the cameras behind it
        nersemble::write_calibration(&root, 17, &cameras[1..]).unwrap();
        let elsewhere = root.join("elsewhere");
        refused(&elsewhere, ["found 15 of the rig's 16 cameras, expected all", "missing: 222200042"]);
        assert!(!elsewhere.exists());
        nersemble::write_calibration(&root, 17, &cameras).unwrap();
        // not into the capture: nothing is written
        refused(&root, ["017/calibration is in the capture itself", "a folder beside it"]);
        assert!(!root.join("017/calibration/config.json").exists());
        assert_eq!(call(&to).unwrap(), text, "the capture is read as before");
        std::fs::remove_dir_all(root.join("017/sequences/FREE/images")).unwrap();
        film(SERIALS[5], 64, 96);
        assert!(call(&to).is_ok(), "another camera's picture tells the size too");
        std::fs::remove_dir_all(root.join("017/sequences/FREE/images")).unwrap();
        assert!(call(&to).is_err());
    }

    #[test]
    fn odd_calls_say_how_it_goes() {
        for (call, expected) in [
            ("", "is no layout"),
            ("flame x", "`flame` is no layout"),
            ("nersemble", "which folder?"),
            ("nersemble a b", "`b` is one folder too many"),
            ("nersemble a --jsn", "no option `--jsn`"),
            ("nersemble a --calibration-to", "names no folder"),
        ] {
            let error = answer(&words(call)).unwrap_err().to_string();
            assert!(error.contains(expected) && (error.contains("hint") || expected.contains("names")), "{error}");
        }
        assert!(answer(&words("--help")).unwrap().contains("Usage"));
    }
}
