//! `free_space`: places near the surface seen at one moment through which some camera sees, so that no head can be
//! there.
//!
//! reads: cloud, matte, intrinsics, world_to_cam, width, height
//! writes: free_space (PLY: metres), free_places
//!
//! A group is what was filmed at one moment, a row per camera, each with the cloud of that moment (`join` it on; a
//! reconstructed or a supplied one). The tracker takes the places as outside of the head: the silhouette and the
//! free-space term of a fit. Knows no head model.

use crate::common::head_models::FREE_SPACE;
use crate::common::media::{Image, camera_of};
use anyhow::{Context, Result};
use geometry::cloud::PointCloud;
use geometry::free_space::{FreeSpaceConfig, Silhouette, free_space};
use manifests::Type;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Places that are tried.
    #[serde(default = "candidates")]
    candidates: usize,
    /// How far from the surface they are: standard deviation on each axis, metres.
    #[serde(default = "reach")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    reach: f64,
    /// What is less than this in front of the surface is not free for certain, metres.
    #[serde(default = "margin")]
    #[schemars(range(min = 0))]
    margin: f64,
}

fn candidates() -> usize {
    FreeSpaceConfig::default().candidates
}
fn reach() -> f64 {
    FreeSpaceConfig::default().reach
}
fn margin() -> f64 {
    FreeSpaceConfig::default().margin
}

fn def() -> StageDef {
    StageDef::new("free_space", 1, Grain::Group)
        .doc("Finds places near the surface that cameras see through.")
        .reads([("cloud", Type::Blob), ("matte", Type::Blob)])
        .reads([("intrinsics", Type::Floats(9)), ("world_to_cam", Type::Floats(16))])
        .reads([("width", Type::I64), ("height", Type::I64)])
        .writes([FREE_SPACE, ("free_places", Type::I64)])
}

protocol::register!(Params, def, |params, _: &Cx<'_>| anyhow::Ok(FreeSpace { params }));

struct FreeSpace {
    params: Params,
}

impl Stage for FreeSpace {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.places(unit, cx)).collect()
    }
}

impl FreeSpace {
    fn places(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let p = &self.params;
        let rows = unit.rows();
        let cloud = geometry::ply::read_cloud(&rows[0].path("cloud")?)?;
        let mut seen = Vec::new();
        for row in &rows {
            let matte = row.path("matte").context("free space is told by mattes")?;
            let matte = Image::read(&matte, 1)?;
            seen.push((camera_of(row, Some((matte.width, matte.height)))?, matte));
        }
        let views: Vec<Silhouette<'_>> =
            seen.iter().map(|(camera, matte)| Silhouette { camera, matte: &matte.data }).collect();
        let config = FreeSpaceConfig { candidates: p.candidates, reach: p.reach, margin: p.margin, seed: 0 };
        let free = free_space(&cloud, &views, &config);
        let path = cx.file(unit, "free_space.ply");
        let row = OutRow::new().file(FREE_SPACE.0, &path).i64("free_places", free.len());
        geometry::ply::write_cloud(&path, &PointCloud { positions: free, ..PointCloud::default() })?;
        Ok(vec![row])
    }
}
