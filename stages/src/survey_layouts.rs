//! `survey_layouts`: what the source stages read of each layout in which captures lie on disk, a row per layout.
//!
//! reads: sequence, camera, timestep, image, matte, video, matte_video, intrinsics, world_to_cam, width, height, cloud,
//! color_polynomial?
//! writes: layout, frames, intrinsics, colour, mattes, clouds, flame, nphm (text: how many and of what kind; "-":
//! nothing)
//!
//! The rows are pictures of a capture. They are written to disk in each layout (`sample_layouts`) and read back by what
//! the source stages read with; the cells say what came back. So the table is of this program, not of what a layout
//! might hold besides.

use crate::common::faults::hinted;
use crate::common::media::{Image, camera_of};
use crate::common::recordings;
use crate::common::sample_layouts::{FOLDERS, NERSEMBLE, Sample};
use crate::source_folder;
use anyhow::{Context, Result, ensure};
use datasets::colour::Correction;
use datasets::nersemble::{self, Part};
use datasets::{nphm_tracking, transforms};
use geometry::{pcd, ply};
use manifests::Type;
use protocol::{Cx, Grain, OutRow, Row, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::Path;

/// Parameters: none.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {}

const CELLS: [&str; 8] = ["layout", "frames", "intrinsics", "colour", "mattes", "clouds", "flame", "nphm"];

fn def() -> StageDef {
    StageDef::new("survey_layouts", 2, Grain::Whole)
        .doc("Writes pictures of a capture in each layout that is known, and says what the source stages read of it.")
        .reads([("sequence", Type::Str), ("camera", Type::Str), ("timestep", Type::I64)])
        .reads([("image", Type::Blob), ("matte", Type::Blob), ("video", Type::Blob), ("matte_video", Type::Blob)])
        .reads([("intrinsics", Type::Floats(9)), ("world_to_cam", Type::Floats(16))])
        .reads([("width", Type::I64), ("height", Type::I64), ("cloud", Type::Blob)])
        .may_read([("color_polynomial", Type::Floats(0))])
        .writes(CELLS.map(|name| (name, Type::Str)))
}

protocol::register!(Params, def, |_: Params, _: &Cx<'_>| anyhow::Ok(SurveyLayouts));

struct SurveyLayouts;

impl Stage for SurveyLayouts {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| table(unit, cx)).collect()
    }
}

fn table(unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
    let samples = unit.rows().iter().map(sample).collect::<Result<Vec<_>>>()?;
    let first = samples.first().context("there are no pictures to lay out")?;
    let size = (first.seen.width, first.seen.height);
    let root = cx.file(unit, "layouts");
    let mut rows = Rows::new();
    for (name, write) in NERSEMBLE {
        let folder = root.join(name);
        write(&folder, &samples).with_context(|| format!("writing {}", folder.display()))?;
        rows.push(row(nersemble_cells(&folder, size)?));
    }
    for (name, write) in FOLDERS {
        let folder = root.join(name);
        write(&folder, &samples).with_context(|| format!("writing {}", folder.display()))?;
        rows.push(row(folder_cells(&folder)?));
    }
    Ok(rows)
}

fn row(cells: [String; 8]) -> OutRow {
    CELLS.iter().zip(cells).fold(OutRow::new(), |row, (name, cell)| row.str(name, cell))
}

fn sample(row: &Row<'_>) -> Result<Sample> {
    let image = Image::read(&row.path("image")?, 3)?;
    let colours = match row.has("color_polynomial") {
        false => [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        true => row.array("color_polynomial").context("the samples' colour calibration is to have three terms")?,
    };
    Ok(Sample {
        sequence: row.str("sequence")?,
        camera: row.str("camera")?,
        timestep: u32::try_from(row.i64("timestep")?).context("`timestep` must not be negative")?,
        matte: Image::read(&row.path("matte")?, 1)?,
        video: row.path("video")?,
        matte_video: row.path("matte_video")?,
        seen: camera_of(row, Some((image.width, image.height)))?,
        colours,
        cloud: ply::read_cloud(&row.path("cloud")?)?,
        image,
    })
}

/// How many of what; "-" if none.
fn counted(n: usize, what: &str) -> String {
    if n == 0 { "-".into() } else { format!("{n} {what}") }
}

/// "one for all", or "each camera's".
fn shared(intrinsics: impl Iterator<Item = [f64; 9]>, own: bool) -> String {
    let different: BTreeSet<[u64; 9]> = intrinsics.map(|k| k.map(f64::to_bits)).collect();
    if own || different.len() > 1 { "each camera's" } else { "one for all" }.into()
}

/// What is read of a capture in one of NeRSemble's layouts.
fn nersemble_cells(root: &Path, size: (u32, u32)) -> Result<[String; 8]> {
    let surveys = nersemble::survey(root).map_err(hinted)?;
    let [survey] = &surveys[..] else {
        anyhow::bail!("{}: found {} participants, expected one", root.display(), surveys.len())
    };
    // as the stage lists them: a calibration or colours that cannot be read are errors here too
    let listed = recordings::rows(root, Some(size), &|_| true)?;
    let count =
        |of: &dyn Fn(&nersemble::Recording) -> bool| listed.iter().filter(|(recording, _)| of(recording)).count();
    let videos = count(&|r| r.timestep.is_none());
    let what = if videos > 0 { "videos" } else { "pictures" };

    let calibrations = nersemble::read_calibration(&survey.calibration).map_err(hinted)?;
    // a layout that says no size of the pictures has intrinsics for each camera, for the pictures beside them
    let own = calibrations.size.is_none();
    let mut colours = BTreeSet::new();
    for (recording, _) in &listed {
        if let Some(path) = &recording.colour {
            colours.insert(match nersemble::read_colour(path, &recording.camera).map_err(hinted)? {
                Correction::Affine(_) => "affine",
                Correction::Polynomial(_) => "polynomial",
            });
        }
    }
    let (mattes, backgrounds) = (count(&|r| r.matte.is_some()), count(&|r| r.background.is_some()));
    let mattes = if mattes > 0 { counted(mattes, what) } else { counted(backgrounds, "from backgrounds") };

    let (mut clouds, mut flame, mut fits) = (0, 0, 0);
    for sequence in &survey.sequences {
        let folder = survey.folder.join("sequences").join(&sequence.name);
        for path in files(&folder.join("pointclouds"))? {
            clouds += usize::from(!pcd::read_cloud(&path)?.is_empty());
        }
        flame += nersemble::read_flame(&folder).map_err(hinted)?.len();
        fits += sequence.parts.get(&Part::Nphm).copied().unwrap_or(0);
    }
    let mut depths = 0;
    for path in listed.iter().filter_map(|(recording, _)| recording.depth.as_ref()) {
        let map = nersemble::read_depth(path).map_err(hinted)?;
        depths += usize::from(map.metres.iter().any(|z| *z > 0.0));
    }
    let clouds = if clouds > 0 { counted(clouds, "PCD") } else { counted(depths, "depth maps") };
    if fits > 0 {
        let data = root.parent().context("the data lie in a folder")?;
        let read = nphm_tracking::list(data).map_err(hinted)?;
        for frame in &read {
            nphm_tracking::read_expression(&data.join(frame.expression())).map_err(hinted)?;
        }
        ensure!(read.len() == fits, "{} NPHM fits are listed and {} can be read", fits, read.len());
    }
    let colours: Vec<&str> = colours.into_iter().collect();
    Ok([
        survey.layout.name().into(),
        counted(listed.len(), what),
        shared(calibrations.cameras.values().map(|camera| camera.intrinsics), own),
        if colours.is_empty() { "-".into() } else { colours.join(", ") },
        mattes,
        clouds,
        counted(flame, "frames"),
        counted(fits, "codes"),
    ])
}

/// What is read of a capture of one's own.
fn folder_cells(root: &Path) -> Result<[String; 8]> {
    let views = source_folder::views(root)?;
    let videos = views.iter().any(|view| view.is_video());
    let what = if videos { "videos" } else { "pictures" };
    // both formats have intrinsics for each picture or camera, equal or not
    let layout = if transforms::find(root).is_empty() { "COLMAP" } else { "transforms.json" };
    Ok([
        layout.into(),
        counted(views.len(), what),
        shared(views.iter().map(|view| view.intrinsics), true),
        "-".into(),
        counted(views.iter().filter(|view| view.mask.is_some()).count(), "masks"),
        "-".into(),
        "-".into(),
        "-".into(),
    ])
}

/// The files of a folder, sorted; none if there is no such folder.
fn files(folder: &Path) -> Result<Vec<std::path::PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut found = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    found.sort();
    Ok(found)
}
