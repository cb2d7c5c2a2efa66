//! `source_nersemble_clouds`: the points that come with a NeRSemble capture, for `import_points`.
//!
//! no rows in   writes: participant, sequence, timestep, and scan (PCD or PLY), or camera, depth (PNG of 16 bits),
//! matte, intrinsics, world_to_cam,
//!              width, height
//!
//! The benchmark's captures have a cloud for each frame (`pointclouds/frame_*.pcd`), those of the paper's release depth
//! maps for each picture: a row each. A sequence that has clouds is not searched for depth maps. Knows where files lie,
//! not what is in them, but how large depth maps are where nothing says how large the calibrated pictures were.

use crate::common::faults::hinted;
use crate::common::recordings::{number, participant_of, size};
use anyhow::{Context, Result, ensure};
use datasets::nersemble::{self, Calibrations, Part, Recording, Survey, survey};
use manifests::Type;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The folder that holds the participants' folders, or the folder of one participant.
    path: PathBuf,
    /// The participant's number, if `path` is the folder of one.
    #[serde(default)]
    participant: Option<i64>,
    /// Width and height of the pictures that the calibration is for, px; if absent, what the layout says. Only depth
    /// maps need it.
    #[serde(default)]
    calibrated_size: Option<(u32, u32)>,
    /// Take every n-th frame, the first included.
    #[serde(default = "every")]
    #[schemars(range(min = 1))]
    every: u32,
}

fn every() -> u32 {
    1
}

fn def() -> StageDef {
    StageDef::new("source_nersemble_clouds", 5, Grain::Whole)
        .doc("Lists the point clouds, or the depth maps, that come with a NeRSemble capture.")
        .source()
        .file_param("path")
        .writes([("participant", Type::I64), ("sequence", Type::Str), ("timestep", Type::I64)])
        .writes([("scan", Type::Blob), ("camera", Type::Str), ("depth", Type::Blob), ("matte", Type::Blob)])
        .writes([("intrinsics", Type::Floats(9)), ("world_to_cam", Type::Floats(16))])
        .writes([("width", Type::I64), ("height", Type::I64)])
}

protocol::register!(Params, def, |params, _: &Cx<'_>| anyhow::Ok(SourceNersembleClouds { params }));

struct SourceNersembleClouds {
    params: Params,
}

impl Stage for SourceNersembleClouds {
    fn run(&mut self, units: &[Unit<'_>], _: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|_| self.params.list()).collect()
    }
}

impl Params {
    fn list(&self) -> Result<Rows> {
        let mut rows = Rows::new();
        let one = participant_of(&self.path, self.participant)?;
        for person in survey(&self.path).map_err(hinted)? {
            let participant = one.map_or_else(|| number(&person.participant), Ok)?;
            for sequence in &person.sequences {
                let folder = person.folder.join("sequences").join(&sequence.name).join("pointclouds");
                let clouds = frames(&folder)?;
                let found: Vec<OutRow> = if clouds.is_empty() && sequence.parts.contains_key(&Part::Depths) {
                    self.depth_maps(&person, &sequence.name)?
                } else {
                    let taken = clouds.into_iter().filter(|(timestep, _)| timestep.is_multiple_of(self.every));
                    taken.map(|(timestep, path)| OutRow::new().i64("timestep", timestep).file("scan", &path)).collect()
                };
                let named = |row: OutRow| row.i64("participant", participant).str("sequence", &sequence.name);
                rows.extend(found.into_iter().map(named));
            }
        }
        ensure!(
            !rows.is_empty(),
            "there are no points in {}: found neither pointclouds/frame_*.pcd nor depth_maps_compressed/cam_*.png of a frame that is taken\n\
             hint: only the benchmark's captures and the paper's release come with them; `reconstruct_points` makes them from the frames",
            self.path.display()
        );
        Ok(rows)
    }

    /// The depth maps of a sequence, each with its camera.
    fn depth_maps(&self, person: &Survey, sequence: &str) -> Result<Vec<OutRow>> {
        let calibrations = nersemble::read_calibration(&person.calibration).map_err(hinted)?;
        let mut rows = Vec::new();
        for recording in nersemble::list(&person.folder, &|[_, other, _]| other == sequence).map_err(hinted)? {
            let (Some(timestep), Some(depth)) = (recording.timestep, &recording.depth) else { continue };
            if timestep.is_multiple_of(self.every) {
                rows.push(self.depth_map(&recording, depth, &calibrations)?.i64("timestep", timestep));
            }
        }
        Ok(rows)
    }

    fn depth_map(&self, recording: &Recording, depth: &Path, calibrations: &Calibrations) -> Result<OutRow> {
        let camera = calibrations.cameras.get(&recording.camera).with_context(|| {
            format!(
                "{} has no camera {}, which has a depth map\nhint: is it the calibration of this participant?",
                recording.calibration.display(),
                recording.camera
            )
        })?;
        let (width, height) = match self.calibrated_size.or(calibrations.size) {
            Some(size) => size,
            None => size(depth)?,
        };
        let row = OutRow::new().str("camera", &recording.camera).file("depth", depth);
        let row = row.floats("intrinsics", camera.intrinsics).floats("world_to_cam", camera.world_to_cam);
        let row = row.i64("width", width).i64("height", height);
        Ok(match &recording.matte {
            Some(matte) => row.file("matte", matte),
            None => row,
        })
    }
}

/// The clouds of a folder by the number of their frame, sorted; none if there is no such folder.
fn frames(folder: &Path) -> Result<Vec<(u32, PathBuf)>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        let number = path.file_stem().and_then(|name| name.to_str()?.strip_prefix("frame_")?.parse().ok());
        if path.extension().is_some_and(|ext| ext == "pcd" || ext == "ply") {
            found.extend(number.map(|number| (number, path)));
        }
    }
    found.sort_unstable();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::media::Image;
    use datasets::nersemble::{DepthMap, write_depth};
    use manifests::Value;

    #[test]
    fn clouds_go_before_depth_maps_which_bring_their_cameras() {
        let root = tempfile::tempdir().unwrap();
        let frame = root.path().join("030/sequences/FREE/frame_00003");
        for folder in ["images-2x-73fps", "alpha_map-73fps", "colmap-73fps/depth_maps_compressed"] {
            std::fs::create_dir_all(frame.join(folder)).unwrap();
        }
        let calibration = r#"{"world_2_cam": {"1": [[1,0,0,0],[0,-1,0,0],[0,0,-1,1],[0,0,0,1]]},
            "intrinsics": [[200,0,4],[0,200,6],[0,0,1]]}"#;
        std::fs::write(root.path().join("030/camera_params.json"), calibration).unwrap();
        Image::new(8, 12, 3, vec![0; 8 * 12 * 3]).write_png(&frame.join("images-2x-73fps/cam_1.png")).unwrap();
        let matte = frame.join("alpha_map-73fps/cam_1.png");
        Image::new(4, 6, 1, vec![255; 24]).write_png(&matte).unwrap();
        let depth = frame.join("colmap-73fps/depth_maps_compressed/cam_1.png");
        write_depth(&depth, &DepthMap { width: 4, height: 6, metres: vec![0.9; 24] }).unwrap();

        let params = |every, size| Params { path: root.path().into(), participant: None, calibrated_size: size, every };
        let rows = params(3, Some((8, 12))).list().unwrap();
        let [row] = &rows[..] else { panic!("{rows:?}") };
        let text = |path: &Path| Value::Str(path.display().to_string());
        for (column, value) in [
            ("participant", Value::I64(30)),
            ("sequence", Value::Str("FREE".into())),
            ("timestep", Value::I64(3)),
            ("camera", Value::Str("1".into())),
            ("depth", text(&depth)),
            ("matte", text(&matte)),
            ("width", Value::I64(8)),
            ("height", Value::I64(12)),
        ] {
            assert_eq!(row.values[column], value, "{column}");
        }
        let error = params(2, None).list().unwrap_err().to_string();
        assert!(error.contains("no points in") && error.contains("of a frame that is taken"), "{error}");

        let told = crate::import::answer(&["nersemble".to_string(), root.path().display().to_string()]).unwrap();
        assert!(told.contains("FREE  1 cameras, 1 frames, mattes, depth maps\n"), "{told}");
        assert!(
            told.contains("supplied: { stage: source_nersemble_clouds") && !told.contains("missing: point clouds"),
            "{told}"
        );

        let clouds = root.path().join("030/sequences/FREE/pointclouds");
        std::fs::create_dir_all(&clouds).unwrap();
        std::fs::write(clouds.join("frame_00006.pcd"), "").unwrap();
        let rows = params(3, None).list().unwrap();
        let [row] = &rows[..] else { panic!("{rows:?}") };
        assert_eq!((&row.values["timestep"], row.values.contains_key("depth")), (&Value::I64(6), false));
        assert_eq!(row.values["scan"], text(&clouds.join("frame_00006.pcd")));
    }
}
