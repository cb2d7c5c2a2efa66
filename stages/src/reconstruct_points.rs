//! `reconstruct_points`: calibrated multi-view stereo of one timestep: images of several cameras to one point cloud.
//!
//! reads: image, matte, intrinsics, world_to_cam, width, height
//! writes: cloud (PLY: metres, normals, colours), points, too_few
//!
//! A group is what was filmed at one moment (`by: [participant, sequence, timestep]`). The search volume is a sphere in
//! the world frame, where the rig is calibrated to have the head. A moment of which fewer than `min_points` were found,
//! or that fewer than two cameras saw, is marked `too_few` and is no error: somebody walked out of the picture, a light
//! went off, or cameras dropped a frame. Its cloud has what was found, nothing perhaps; identities are fitted without
//! it, and `track_head` marks it `lost`. If all moments are like that, the error comes from there. Knows no head model:
//! any object would do.

use crate::common::media::{Image, camera_of, ensure_shape};
use anyhow::{Context, Result};
use geometry::cloud::PointCloud;
use geometry::stereo::{StereoConfig, View, reconstruct};
use glam::Vec3;
use manifests::Type;
use protocol::{Cx, Grain, OutRow, Row, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Centre of the sphere in which the head moves, world frame, metres.
    #[serde(default)]
    center: [f32; 3],
    /// Its radius, metres.
    #[serde(default = "radius")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    radius: f32,
    /// Of a moment with fewer points than this the views do not see the same thing: it is marked.
    #[serde(default = "min_points")]
    min_points: usize,
}

fn radius() -> f32 {
    0.25
}

fn min_points() -> usize {
    200
}

fn def() -> StageDef {
    let camera = [
        ("intrinsics", Type::Floats(9)),
        ("world_to_cam", Type::Floats(16)),
        ("width", Type::I64),
        ("height", Type::I64),
    ];
    StageDef::new("reconstruct_points", 3, Grain::Group)
        .doc("Multi-view stereo: the images of one timestep to a point cloud with normals.")
        .reads([("image", Type::Blob), ("matte", Type::Blob)])
        .reads(camera)
        .writes([("cloud", Type::Blob), ("points", Type::I64), ("too_few", Type::Bool)])
        .memory_mb(1000)
}

protocol::register!(Params, def, |params, _: &Cx<'_>| anyhow::Ok(ReconstructPoints { params }));

struct ReconstructPoints {
    params: Params,
}

impl Stage for ReconstructPoints {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.cloud(unit, cx)).collect()
    }
}

impl ReconstructPoints {
    fn cloud(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let mut seen = Vec::new();
        for row in unit.rows() {
            let image = Image::read(&row.path("image")?, 3)?;
            let path = row.maybe_path("matte")?.with_context(|| missing(&unit.rows()))?;
            let matte = Image::read(&path, 1)?;
            let size = (image.width, image.height);
            ensure_shape(path.display(), (matte.width, matte.height), size, "its picture")?;
            let matte = matte.resized(size.0, size.1)?;
            seen.push((camera_of(&row, Some((image.width, image.height)))?, image, matte));
        }
        // others may have dropped this frame, and that is no reason to have none of the rest
        if seen.len() < 2 {
            cx.warn(&format!(
                "stereo needs at least two cameras, and this moment has {}: it is marked. If all are like that: were too many cameras held out? \
                 Stills of a rig that `source_folder` took for one moving camera: give it `views: cameras`",
                seen.len()
            ));
            return written(unit, cx, &PointCloud::default(), true);
        }
        let views: Vec<View<'_>> =
            seen.iter().map(|(camera, image, matte)| View { camera, rgb: &image.data, mask: &matte.data }).collect();
        let mut config = StereoConfig::around(Vec3::from(self.params.center), self.params.radius);
        if seen.len() <= config.min_agreeing {
            cx.warn("two cameras: no third one confirms what both see, so expect outliers");
            config.min_agreeing = seen.len() - 1;
        }
        let cloud = reconstruct(&views, &config);
        let found = cloud.len();
        let too_few = found < self.params.min_points;
        if too_few {
            cx.warn(&format!(
                "only {found} points were reconstructed, fewer than min_points: {}; the moment is marked",
                self.params.min_points
            ));
        }
        written(unit, cx, &cloud, too_few)
    }
}

/// The row of a moment.
fn written(unit: &Unit<'_>, cx: &Cx<'_>, cloud: &PointCloud, too_few: bool) -> Result<Rows> {
    let path = cx.file(unit, "cloud.ply");
    geometry::ply::write_cloud(&path, cloud)?;
    Ok(vec![OutRow::new().file("cloud", &path).i64("points", cloud.len()).bool("too_few", too_few)])
}

/// Which cameras of a moment have no matte, by where they are: their names are none of this stage's columns.
fn missing(rows: &[Row<'_>]) -> String {
    let without: Vec<&Row<'_>> = rows.iter().filter(|row| !row.has("matte")).collect();
    let place = |row: &&Row<'_>| {
        let at = camera_of(row, None).ok()?.center();
        Some(format!("({:.3}, {:.3}, {:.3})", at.x, at.y, at.z))
    };
    let places: Vec<String> = without.iter().filter_map(place).collect();
    format!(
        "{} of {} cameras of this moment have no matte, by which stereo tells the head from the background: those at {} m\n\
         hint: give all pictures masks, or hold these cameras out",
        without.len(),
        rows.len(),
        places.join(", ")
    )
}
