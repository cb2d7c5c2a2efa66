//! `source_nersemble_clouds`: the points that come with a NeRSemble capture, in place of stereo.
//!
//! no rows in   writes: participant, sequence, timestep, cloud (PLY: metres, normals, colours), points
//!
//! The benchmark's captures have a cloud for each frame (`pointclouds/frame_*.pcd`), those of the paper's release depth maps for
//! each picture, whose pixels are places in the world by the calibration: those of all cameras are one cloud, without
//! what a matte calls background. A sequence that has clouds is not searched for depth maps. Clouds without normals get them from
//! their neighbours, turned away from the head's inside, or towards the camera that saw them. Knows no colours of pictures.

use crate::common::media::Image;
use crate::source_nersemble::{hinted, number, participant_of};
use anyhow::{Context, Result, anyhow, ensure};
use datasets::nersemble::{self, Calibrations, Part, Recording, Survey, read_depth, survey};
use geometry::camera::same_shape;
use geometry::cloud::PointCloud;
use geometry::{pcd, ply};
use glam::Vec3;
use manifests::Type;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
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
    /// Width and height of the pictures that the calibration is for, px; if absent, what the layout says. Only depth maps need it.
    #[serde(default)]
    calibrated_size: Option<(u32, u32)>,
    /// Take every n-th frame, the first included.
    #[serde(default = "every")]
    #[schemars(range(min = 1))]
    every: u32,
    /// Points are thinned to one in cubes of this side, metres; 0 keeps all.
    #[serde(default = "cell")]
    #[schemars(range(min = 0))]
    cell: f32,
    /// What is further from the origin of the world is left out, metres.
    #[serde(default = "radius")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    radius: f32,
}

fn every() -> u32 {
    1
}
fn cell() -> f32 {
    0.002
}
fn radius() -> f32 {
    0.25
}

fn def() -> StageDef {
    StageDef::new("source_nersemble_clouds", 4, Grain::Whole)
        .doc("Lists the point clouds that come with a NeRSemble capture, or makes them of its depth maps.")
        .source()
        .file_param("path")
        .writes([("participant", Type::I64), ("sequence", Type::Str), ("timestep", Type::I64)])
        .writes([("cloud", Type::Blob), ("points", Type::I64)])
}

protocol::register!(Params, def, |params, _: &Cx<'_>| anyhow::Ok(SourceNersembleClouds { params }));

struct SourceNersembleClouds {
    params: Params,
}

impl Stage for SourceNersembleClouds {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.list(unit, cx)).collect()
    }
}

impl SourceNersembleClouds {
    fn list(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let mut rows = Rows::new();
        let one = participant_of(&self.params.path, self.params.participant)?;
        for person in survey(&self.params.path).map_err(hinted)? {
            let participant = one.map_or_else(|| number(&person.participant), Ok)?;
            for sequence in &person.sequences {
                let folder = person.folder.join("sequences").join(&sequence.name).join("pointclouds");
                let taken = |timestep: &u32| timestep.is_multiple_of(self.params.every);
                let mut clouds: Vec<(u32, Source)> = frames(&folder)?
                    .into_iter()
                    .filter(|(t, _)| taken(t))
                    .map(|(t, path)| (t, Source::File(path)))
                    .collect();
                if clouds.is_empty() && sequence.parts.contains_key(&Part::Depths) {
                    let maps = depth_maps(&person, &sequence.name)?;
                    clouds =
                        maps.into_iter().filter(|(t, _)| taken(t)).map(|(t, maps)| (t, Source::Depths(maps))).collect();
                }
                for (timestep, source) in clouds {
                    let cloud = match source {
                        Source::File(path) => self.read(&path)?,
                        Source::Depths(maps) => self.unproject(&person, &maps)?,
                    };
                    let name = format!("{}_{}_{timestep:05}.ply", person.participant, sequence.name);
                    let to = cx.file(unit, &name);
                    ply::write_cloud(&to, &cloud)?;
                    let row = OutRow::new()
                        .i64("participant", participant)
                        .str("sequence", &sequence.name)
                        .i64("timestep", timestep)
                        .file("cloud", &to)
                        .i64("points", cloud.len());
                    rows.push(row);
                    cx.progress(rows.len(), rows.len(), &name);
                }
            }
        }
        ensure!(
            !rows.is_empty(),
            "there are no points in {}: found neither pointclouds/frame_*.pcd nor depth_maps_compressed/cam_*.png of a frame that is taken\n\
             hint: only the benchmark's captures and the paper's release come with them; `reconstruct_points` makes them from the frames",
            self.params.path.display()
        );
        Ok(rows)
    }

    /// One cloud of the depth maps of a moment.
    fn unproject(&self, person: &Survey, maps: &[Recording]) -> Result<PointCloud> {
        let calibrations = nersemble::read_calibration(&person.calibration).map_err(hinted)?;
        let mut cloud = PointCloud::default();
        let mut eyes = Vec::new();
        for recording in maps {
            let (seen, eye) = self.seen(recording, &calibrations)?;
            eyes.extend(std::iter::repeat_n(eye, seen.len()));
            cloud.positions.extend(seen.positions);
        }
        ensure!(
            !cloud.is_empty(),
            "{} and the {} depth maps beside it: none of their points is within {} m of the origin, where the head should be\n\
             hint: are the maps of this calibration? `radius` may be larger",
            maps.first()
                .and_then(|first| first.depth.as_ref())
                .map_or(String::new(), |path| path.display().to_string()),
            maps.len().saturating_sub(1),
            self.params.radius
        );
        cloud.estimate_normals(16);
        cloud.orient_normals(|i| eyes[i]);
        Ok(if self.params.cell > 0.0 { cloud.voxel_subsample(self.params.cell) } else { cloud })
    }

    /// What one depth map shows of the head, thinned, and where it was seen from.
    fn seen(&self, recording: &Recording, calibrations: &Calibrations) -> Result<(PointCloud, Vec3)> {
        let path = recording.depth.as_ref().context("a recording without a depth map was taken for one that has it")?;
        let mut map = read_depth(path).map_err(|error| anyhow!("{error}\nhint: {}", error.hint()))?;
        let calibration = calibrations.cameras.get(&recording.camera).with_context(|| {
            format!(
                "{} has no camera {}, which has a depth map\nhint: is it the calibration of this participant?",
                recording.calibration.display(),
                recording.camera
            )
        })?;
        if let Some(matte) = &recording.matte {
            let matte = Image::read(matte, 1)?.resized(map.width as usize, map.height as usize)?;
            map.metres.iter_mut().zip(&matte.data).filter(|(_, alpha)| **alpha < 128).for_each(|(z, _)| *z = 0.0);
        }
        let (width, height) = self.params.calibrated_size.or(calibrations.size).unwrap_or((map.width, map.height));
        // the map may be of another size than the pictures that were calibrated, but not of another shape
        ensure!(
            same_shape((map.width, map.height), (width, height)),
            "{}: found {} x {} px, expected the shape of the calibrated pictures, {width} x {height} px\n\
             hint: `calibrated_size` says what pictures the calibration is for",
            path.display(),
            map.width,
            map.height
        );
        let camera = calibration.camera(width, height).resized(map.width, map.height);
        let near = f64::from(self.params.radius).powi(2);
        let places = camera.unproject(&map.metres).into_iter().filter(|place| place.length_squared() < near);
        let cloud = PointCloud { positions: places.map(|place| place.as_vec3()).collect(), ..Default::default() };
        let cloud = if self.params.cell > 0.0 { cloud.voxel_subsample(self.params.cell) } else { cloud };
        Ok((cloud, camera.center().as_vec3()))
    }

    fn read(&self, path: &Path) -> Result<PointCloud> {
        let cloud = if path.extension().is_some_and(|ext| ext == "ply") {
            ply::read_cloud(path)?
        } else {
            pcd::read_cloud(path).map_err(|error| {
                anyhow!(
                    "{error}\nhint: is it a whole file of the Point Cloud Library (.pcd)? copy or download it again"
                )
            })?
        };
        let near = self.params.radius * self.params.radius;
        let mut cloud = cloud.retain(|i| cloud.positions[i].length_squared() < near);
        ensure!(
            !cloud.is_empty(),
            "{}: none of its points is within {} m of the origin, where the head should be\n\
             hint: positions are metres in the world of the calibration; `radius` may be larger",
            path.display(),
            self.params.radius
        );
        if self.params.cell > 0.0 {
            cloud = cloud.voxel_subsample(self.params.cell);
        }
        if cloud.normals.is_empty() {
            cloud.estimate_normals(16);
            // from outside: of points on a head, the way from its middle
            let middle = cloud.positions.iter().sum::<Vec3>() / cloud.len() as f32;
            let positions = cloud.positions.clone();
            cloud.orient_normals(|i| positions[i] * 2.0 - middle);
        }
        Ok(cloud)
    }
}

/// What a cloud is made of.
enum Source {
    File(PathBuf),
    /// Pictures of one moment that have depth maps.
    Depths(Vec<Recording>),
}

/// The pictures of a sequence that have depth maps, by the number of their frame.
fn depth_maps(person: &Survey, sequence: &str) -> Result<BTreeMap<u32, Vec<Recording>>> {
    let mut found: BTreeMap<u32, Vec<Recording>> = BTreeMap::new();
    for recording in nersemble::list(&person.folder).map_err(hinted)? {
        if let (true, Some(timestep), true) =
            (recording.sequence == sequence, recording.timestep, recording.depth.is_some())
        {
            found.entry(timestep).or_default().push(recording);
        }
    }
    Ok(found)
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
    use datasets::nersemble::{DepthMap, write_depth};

    #[test]
    fn pixels_of_depth_maps_are_where_a_hand_puts_them() {
        let root = std::env::temp_dir().join(format!("effigy-depths-{}", std::process::id()));
        let frame = root.join("030/sequences/FREE/frame_00003");
        for folder in ["images-2x-73fps", "alpha_map-73fps", "colmap-73fps/depth_maps_compressed"] {
            std::fs::create_dir_all(frame.join(folder)).unwrap();
        }
        // one metre before the head, looking at it; intrinsics for pictures of twice the size of the map
        let calibration = r#"{"world_2_cam": {"1": [[1,0,0,0],[0,-1,0,0],[0,0,-1,1],[0,0,0,1]]},
            "intrinsics": [[200,0,4],[0,200,6],[0,0,1]]}"#;
        std::fs::write(root.join("030/camera_params.json"), calibration).unwrap();
        Image::new(8, 12, 3, vec![0; 8 * 12 * 3]).write_png(&frame.join("images-2x-73fps/cam_1.png")).unwrap();
        let mut matte = vec![255; 24];
        matte[0] = 0;
        Image::new(4, 6, 1, matte).write_png(&frame.join("alpha_map-73fps/cam_1.png")).unwrap();
        let mut metres = vec![0.9; 24];
        // unknown, and a wall behind the head
        (metres[1], metres[2]) = (0.0, 1.9);
        let map = DepthMap { width: 4, height: 6, metres };
        write_depth(&frame.join("colmap-73fps/depth_maps_compressed/cam_1.png"), &map).unwrap();

        let params = |size| Params {
            path: root.clone(),
            participant: None,
            calibrated_size: size,
            every: 3,
            cell: 0.0,
            radius: 0.25,
        };
        let person = &survey(&root).unwrap()[0];
        let maps = depth_maps(person, "FREE").unwrap();
        assert_eq!(maps.keys().collect::<Vec<_>>(), [&3]);
        let cloud = SourceNersembleClouds { params: params(Some((8, 12))) }.unproject(person, &maps[&3]).unwrap();
        assert_eq!(cloud.len(), 24 - 3, "neither the matte's background, nor the unknown, nor the wall");
        // pixel (3, 1), centre (3.5, 1.5), of a camera of focal length 100 and centre (2, 3): (1.5, -1.5) / 100 * 0.9 in its
        // axes, of which y and z point the other way in the world
        let expected = Vec3::new(0.0135, 0.0135, 0.1);
        let nearest = cloud.positions.iter().map(|p| (*p - expected).length()).fold(f32::MAX, f32::min);
        assert!(nearest < 2e-5, "{:?}", cloud.positions);
        assert!(cloud.normals.iter().all(|n| n.z > 0.999), "towards the camera");

        let told = crate::import::answer(&["nersemble".to_string(), root.display().to_string()]).unwrap();
        assert!(told.contains("FREE  1 cameras, 1 frames, mattes, depth maps\n"), "{told}");
        assert!(
            told.contains("points: { stage: source_nersemble_clouds") && !told.contains("missing: point clouds"),
            "{told}"
        );

        let turned = SourceNersembleClouds { params: params(Some((12, 8))) };
        let error = turned.unproject(person, &maps[&3]).unwrap_err().to_string();
        assert!(
            error.contains("found 4 x 6 px, expected the shape of the calibrated pictures, 12 x 8 px")
                && error.contains("hint:"),
            "{error}"
        );
        let cloud = root.join("030/frame_00000.pcd");
        std::fs::write(&cloud, "VERSION 0.7\nFIELDS x y z\n").unwrap();
        let error = turned.read(&cloud).unwrap_err().to_string();
        assert!(error.contains("frame_00000.pcd") && error.contains("hint: is it a whole file"), "{error}");
        std::fs::write(frame.join("colmap-73fps/depth_maps_compressed/cam_1.png"), b"\x89PNG").unwrap();
        let error = turned.unproject(person, &maps[&3]).unwrap_err().to_string();
        assert!(error.contains("cam_1.png") && error.contains("hint:"), "{error}");
        std::fs::remove_dir_all(&root).unwrap();
    }
}
