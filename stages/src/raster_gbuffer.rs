//! `raster_gbuffer`: the tracked mesh as the networks see it: depth, canonical coordinates, normals, ambient, mask.
//!
//! reads: mesh, participant, sequence, camera, timestep, intrinsics, world_to_cam, width, height, split?
//! writes: crop, crop_rect (x0, y0, side in px of the calibrated image), gbuffer
//!
//! Each row gives one deterministic evaluation crop (crop 0), and rows of the training split `crops` random ones after
//! the paper's rule (DiffusionAvatars, section 2.4 of the specification): a side drawn from [min_crop, 1] of the
//! image's shorter side, anywhere in a window of 1.2 of these around the head (upright, the image's whole width). The
//! mesh is rasterised at the crop with cropped intrinsics: the same projection as rasterising the whole image and
//! resampling it, without blending foreground and background along silhouettes. Where a crop lies depends on names, not
//! on the mesh, so tracking anew leaves targets and latents as they were. Knows no images.

use crate::common::crops::Params;
use crate::common::gbuffers;
use crate::common::media::camera_of;
use crate::common::tracked;
use anyhow::{Result, ensure};
use geometry::gbuffer::{self, GBuffer};
use manifests::Type;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};

fn def() -> StageDef {
    StageDef::new("raster_gbuffer", 2, Grain::Row)
        .doc("Rasterises the tracked mesh at evaluation and random crops of each frame.")
        .reads([("mesh", Type::Blob), ("participant", Type::I64), ("sequence", Type::Str), ("camera", Type::Str)])
        .reads([("timestep", Type::I64), ("intrinsics", Type::Floats(9)), ("world_to_cam", Type::Floats(16))])
        .reads([("width", Type::I64), ("height", Type::I64)])
        .may_read([("split", Type::Str)])
        .writes([("crop", Type::I64), ("crop_rect", Type::Floats(3)), ("gbuffer", Type::Blob)])
        .batch(4)
}

protocol::register!(Params, def, |params, _: &Cx<'_>| anyhow::Ok(RasterGBuffer { params }));

struct RasterGBuffer {
    params: Params,
}

impl Stage for RasterGBuffer {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.raster(unit, cx)).collect()
    }
}

impl RasterGBuffer {
    fn raster(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let row = unit.row();
        let camera = camera_of(&row, None)?;
        let (mesh, canonical) = tracked::read_mesh(&row.path("mesh")?)?;
        let (near, far) = gbuffer::reach(&mesh, &camera);
        ensure!(
            mesh.positions.is_empty() || (near >= gbuffer::NEAR && far <= gbuffer::FAR),
            "the head lies {near:.2} to {far:.2} m before this camera, and G-buffers are drawn from {} to {} m, as they are published\n\
             hint: is the unit of the calibration right? Cameras that are farther away have to be left out",
            gbuffer::NEAR,
            gbuffer::FAR
        );
        let crops = self.params.crops(&row, &camera)?;
        let draw = |(i, rect): (usize, [f64; 3])| -> Result<OutRow> {
            let [x0, y0, side] = rect;
            let gbuffer = GBuffer::render(&mesh, &canonical, &camera.crop_resized(x0, y0, side, self.params.size));
            let path = cx.file(unit, &format!("crop{i}.safetensors"));
            gbuffers::write(&path, &gbuffer)?;
            Ok(OutRow::new().i64("crop", i).floats("crop_rect", rect).file("gbuffer", &path))
        };
        crops.into_iter().enumerate().map(draw).collect()
    }
}
