//! `export_annotations`: face boxes and colour corrections as DiffusionAvatars' data has them (layout D of NeRSemble),
//! for `effigy export`.
//!
//! reads: participant, sequence, camera, timestep, landmarks, landmark_confidence, width, height
//! writes: boxes (npy `[T, 5]`), boxes_path, color_correction (npy `[3, 4]`), color_correction_path
//!
//! A group is what a camera saw of a sequence (`by: [participant, sequence, camera]`), as `detect_landmarks` found it.
//! Row t of the boxes is the t-th of its timesteps in order, as the reference counts them: left, top, width and height
//! of what the face's landmarks take up, as shares of the picture, and the landmarks' confidence. The colour correction
//! changes nothing, since frames of `extract_frames` are corrected already. Reads no pictures.

use crate::common::faults::hinted;
use anyhow::{Context, Result, ensure};
use datasets::nersemble;
use manifests::Type;
use models::face_mesh::POINTS;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;

/// Parameters: none.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {}

/// What leaves colours as they are, rows first.
const UNCHANGED: [f64; 12] = [1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0];

fn def() -> StageDef {
    StageDef::new("export_annotations", 1, Grain::Group)
        .doc("Writes face boxes and colour corrections of a camera in the layout of DiffusionAvatars' NeRSemble data.")
        .reads([("participant", Type::I64), ("sequence", Type::Str), ("camera", Type::Str), ("timestep", Type::I64)])
        .reads([("landmarks", Type::Floats(2 * POINTS as u32)), ("landmark_confidence", Type::F64)])
        .reads([("width", Type::I64), ("height", Type::I64)])
        .writes([("boxes", Type::Blob), ("boxes_path", Type::Str)])
        .writes([("color_correction", Type::Blob), ("color_correction_path", Type::Str)])
}

protocol::register!(Params, def, |_: Params, _: &Cx<'_>| anyhow::Ok(ExportAnnotations));

struct ExportAnnotations;

impl Stage for ExportAnnotations {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| export(unit, cx)).collect()
    }
}

fn export(unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
    let rows = unit.rows();
    let first = rows.first().context("a group has rows")?;
    let of_one = |row: &protocol::Row<'_>| -> Result<_> {
        Ok((row.i64("participant")?, row.str("sequence")?, row.str("camera")?))
    };
    let (participant, sequence, camera) = of_one(first)?;
    let mut boxes = Vec::new();
    for row in &rows {
        ensure!(
            of_one(row)? == (participant, sequence.clone(), camera.clone()),
            "the group has rows of several cameras or sequences\nhint: `by: [participant, sequence, camera]`"
        );
        let size = [row.i64("width")? as f64, row.i64("height")? as f64];
        let [x, y, w, h] = around(&row.floats("landmarks")?, size);
        boxes.push((row.i64("timestep")?, [x, y, w, h, row.f64("landmark_confidence")?]));
    }
    boxes.sort_by_key(|(timestep, _)| *timestep);
    ensure!(
        boxes.windows(2).all(|pair| pair[0].0 != pair[1].0),
        "a timestep of camera {camera} stands there twice\nhint: whole frames are needed, not crops of them"
    );
    let names = ["boxes.npy", "color_correction.npy"].map(|name| cx.file(unit, name));
    let values: Vec<[f64; 5]> = boxes.into_iter().map(|(_, values)| values).collect();
    nersemble::write_boxes(&names[0], &values).map_err(hinted)?;
    nersemble::write_affine(&names[1], &UNCHANGED).map_err(hinted)?;
    let place = |kind: &str| format!("{participant:03}/sequences/{sequence}/annotations/{kind}/{camera}.npy");
    Ok(vec![
        OutRow::new()
            .file("boxes", &names[0])
            .str("boxes_path", place("bbox"))
            .file("color_correction", &names[1])
            .str("color_correction_path", place("color_correction")),
    ])
}

/// Left, top, width and height of what points take up, as shares of a picture of this size.
fn around(points: &[f64], size: [f64; 2]) -> [f64; 4] {
    let range = |axis: usize| {
        let values = || points.iter().skip(axis).step_by(2).map(move |value| value / size[axis]);
        let low = values().fold(f64::INFINITY, f64::min);
        (low, values().fold(f64::NEG_INFINITY, f64::max) - low)
    };
    let ((x, w), (y, h)) = (range(0), range(1));
    [x, y, w, h]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_is_around_its_points() {
        let found = around(&[20.0, 30.0, 60.0, 10.0, 40.0, 50.0], [200.0, 100.0]);
        assert!(found.iter().zip([0.1, 0.1, 0.2, 0.4]).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?}");
    }

    #[test]
    fn colours_stay_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("1.npy");
        nersemble::write_affine(&path, &UNCHANGED).unwrap();
        let mut pixels = vec![3u8, 200, 77, 255, 0, 128];
        nersemble::read_colour(&path, "1").unwrap().apply(&mut pixels);
        assert_eq!(pixels, [3, 200, 77, 255, 0, 128]);
        nersemble::write_boxes(&path, &[[0.1, 0.2, 0.3, 0.4, 0.9]; 3]).unwrap();
        let error = nersemble::read_colour(&path, "1").unwrap_err().to_string();
        assert!(error.contains("shape [3, 5]"), "{error}");
    }
}
