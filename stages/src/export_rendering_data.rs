//! `export_rendering_data`: frames of the tracked mesh as the reference code keeps them, for `effigy export`.
//!
//! reads: mesh, participant, sequence, camera, timestep, intrinsics, world_to_cam, width, height
//! writes: depths, uv, normals, uv_ambient, mask (PNG), and of each its path in the layout, in a column `..._path`
//!
//! The whole image is rasterised at the calibrated size divided by `downscale_factor` (1100 x 1604 px for NeRSemble;
//! specification section 2.4); what the reference pads it by moves nothing. The mesh is drawn as it was tracked: the
//! reference's cut of the throat goes by vertices of FLAME, which this head does not have. `describe_rendering_data`
//! makes the two JSON files beside the pictures. Knows no crops and no images.

use crate::common::media::camera_of;
use crate::common::tracked;
use anyhow::{Context, Result};
use datasets::rendering_data::{self, Frame, GROUPS, Version};
use geometry::Camera;
use geometry::gbuffer::GBuffer;
use glam::{DMat3, DVec3};
use manifests::Type;
use protocol::{Cx, Grain, OutRow, Row, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;

/// Parameters, of `describe_rendering_data` too: both are about one version of the folder.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// Major number of the version.
    #[serde(default = "one")]
    pub major: u32,
    /// Minor number of the version.
    #[serde(default)]
    pub minor: u32,
    /// What the version is called besides, like `ID-18-nphm`.
    #[serde(default)]
    pub name: Option<String>,
    /// The calibrated image size divided by this is the size of the pictures.
    #[serde(default = "two")]
    #[schemars(range(min = 1))]
    pub downscale_factor: u32,
}

fn one() -> u32 {
    1
}
fn two() -> u32 {
    2
}

fn def() -> StageDef {
    let paths = GROUPS.map(|group| format!("{group}_path"));
    StageDef::new("export_rendering_data", 1, Grain::Row)
        .doc("Rasterises whole frames of the tracked mesh as DiffusionAvatars' G-buffer pictures.")
        .reads([("mesh", Type::Blob), ("participant", Type::I64), ("sequence", Type::Str), ("camera", Type::Str)])
        .reads([("timestep", Type::I64), ("intrinsics", Type::Floats(9)), ("world_to_cam", Type::Floats(16))])
        .reads([("width", Type::I64), ("height", Type::I64)])
        .writes(GROUPS.map(|group| (group, Type::Blob)))
        .writes(paths.each_ref().map(|path| (path.as_str(), Type::Str)))
        .batch(4)
}

protocol::register!(Params, def, |params, _: &Cx<'_>| anyhow::Ok(ExportRenderingData { params }));

struct ExportRenderingData {
    params: Params,
}

impl Stage for ExportRenderingData {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.draw(unit, cx)).collect()
    }
}

impl ExportRenderingData {
    fn draw(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let (row, p) = (unit.row(), &self.params);
        let frame = frame_of(&row)?;
        let camera = downscaled(&camera_of(&row, None)?, p.downscale_factor);
        anyhow::ensure!(
            camera.width > 0 && camera.height > 0,
            "nothing is left of the image\nhint: a smaller `downscale_factor`"
        );
        let (mesh, canonical) = tracked::read_mesh(&row.path("mesh")?)?;
        let encoded =
            GBuffer::render(&mesh, &canonical, &camera).encode().context("a G-buffer value is out of range")?;
        let folder = Version { major: p.major, minor: p.minor, name: p.name.clone() }.folder();
        let mut out = OutRow::new();
        for (group, bytes) in GROUPS.into_iter().zip(rendering_data::encode(&encoded)) {
            let path = cx.file(unit, &format!("{group}.png"));
            std::fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
            out = out.file(group, &path).str(&format!("{group}_path"), format!("{folder}/{}", frame.path(group)));
        }
        Ok(vec![out])
    }
}

/// The frame that a row is about.
///
/// # Errors
/// If a column is missing, or a number is negative.
pub fn frame_of(row: &Row<'_>) -> Result<Frame> {
    let number = |column: &str| -> Result<u32> {
        let value = row.i64(column)?;
        u32::try_from(value).with_context(|| format!("column `{column}` holds {value}, expected a number from 0"))
    };
    Ok(Frame {
        participant: number("participant")?,
        sequence: row.str("sequence")?,
        camera: row.str("camera")?,
        timestep: number("timestep")?,
    })
}

/// The camera of the image divided by an integer; what does not fill a pixel is cut off at the right and below.
fn downscaled(camera: &Camera, factor: u32) -> Camera {
    let scale = 1.0 / f64::from(factor);
    Camera {
        intrinsics: DMat3::from_diagonal(DVec3::new(scale, scale, 1.0)) * camera.intrinsics,
        world_to_cam: camera.world_to_cam,
        width: camera.width / factor,
        height: camera.height / factor,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_intrinsics_are_those_of_the_reference() {
        let k = [8200.0, 0.0, 1100.0, 0.0, 8200.0, 1604.0, 0.0, 0.0, 1.0];
        let camera = Camera::from_row_major(&k, &glam::DMat4::IDENTITY.to_cols_array(), 2200, 3208);
        let half = downscaled(&camera, 2);
        assert_eq!((half.width, half.height), (1100, 1604));
        assert_eq!(half.intrinsics_row_major(), [4100.0, 0.0, 550.0, 0.0, 4100.0, 802.0, 0.0, 0.0, 1.0]);
        let third = downscaled(&camera, 3);
        assert_eq!((third.width, third.height, third.intrinsics_row_major()[8]), (733, 1069, 1.0));
    }
}
