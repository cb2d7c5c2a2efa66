//! `import_rendering_data`: G-buffer pictures of the reference code to the crops that the networks see.
//!
//! reads: depths, uv, normals, uv_ambient, mask, participant, sequence, camera, timestep, intrinsics, world_to_cam,
//! width, height, split?
//! writes: crop, crop_rect (x0, y0, side in px of the calibrated image), gbuffer
//!
//! It takes the place of `raster_gbuffer` where the pictures are somebody else's: the same rows give the same crops
//! (crop 0 is the one for evaluation), so that the targets of `encode_latents` fit either. The crop is cut out of the
//! picture and resampled as the reference does it (specification section 2.4). Knows no meshes and no images.

use crate::common::crops::Params;
use crate::common::faults::hinted;
use crate::common::gbuffers;
use crate::common::media::camera_of;
use anyhow::Result;
use datasets::rendering_data::{self, GROUPS};
use geometry::resample::crop_resized;
use manifests::Type;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use std::path::PathBuf;

fn def() -> StageDef {
    StageDef::new("import_rendering_data", 2, Grain::Row)
        .doc("Cuts evaluation and random crops out of DiffusionAvatars' G-buffer pictures.")
        .reads(GROUPS.map(|group| (group, Type::Blob)))
        .reads([("participant", Type::I64), ("sequence", Type::Str), ("camera", Type::Str), ("timestep", Type::I64)])
        .reads([("intrinsics", Type::Floats(9)), ("world_to_cam", Type::Floats(16))])
        .reads([("width", Type::I64), ("height", Type::I64)])
        .may_read([("split", Type::Str)])
        .writes([("crop", Type::I64), ("crop_rect", Type::Floats(3)), ("gbuffer", Type::Blob)])
        .batch(4)
}

protocol::register!(Params, def, |params, _: &Cx<'_>| anyhow::Ok(ImportRenderingData { params }));

struct ImportRenderingData {
    params: Params,
}

impl Stage for ImportRenderingData {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.import(unit, cx)).collect()
    }
}

impl ImportRenderingData {
    fn import(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let (row, p) = (unit.row(), &self.params);
        let mut paths: [PathBuf; 5] = Default::default();
        for (path, group) in paths.iter_mut().zip(GROUPS) {
            *path = row.path(group)?;
        }
        let buffer = rendering_data::read(&paths).map_err(hinted)?.decode();
        let camera = camera_of(&row, None)?;
        let scale = scale((buffer.width, buffer.height), (camera.width, camera.height))?;
        let cut = |(i, rect): (usize, [f64; 3])| -> Result<OutRow> {
            let [x0, y0, side] = rect.map(|px| px * scale);
            let path = cx.file(unit, &format!("crop{i}.safetensors"));
            gbuffers::write(&path, &crop_resized(&buffer, x0, y0, side, p.size))?;
            Ok(OutRow::new().i64("crop", i).floats("crop_rect", rect).file("gbuffer", &path))
        };
        self.params.crops(&row, &camera)?.into_iter().enumerate().map(cut).collect()
    }
}

/// Pixels of the picture for each pixel of the calibrated image: 1 over an integer.
fn scale(picture: (u32, u32), calibrated: (u32, u32)) -> Result<f64> {
    let factor = calibrated.0 / picture.0.max(1);
    anyhow::ensure!(
        factor > 0 && (calibrated.0 / factor, calibrated.1 / factor) == picture,
        "the pictures: found {} x {} px, expected {} x {} px divided by an integer\nhint: is it the calibration of these \
         pictures? `width` and `height` are the size that the intrinsics hold for",
        picture.0,
        picture.1,
        calibrated.0,
        calibrated.1
    );
    Ok(1.0 / f64::from(factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_the_calibrated_image_divided_by_an_integer() {
        assert_eq!(scale((1100, 1604), (2200, 3208)).unwrap(), 0.5);
        assert_eq!(scale((733, 1069), (2200, 3208)).unwrap(), 1.0 / 3.0);
        assert_eq!(scale((192, 280), (192, 280)).unwrap(), 1.0);
        for wrong in [(1100, 1600), (2201, 3208), (512, 512), (0, 0)] {
            let error = scale(wrong, (2200, 3208)).unwrap_err().to_string();
            assert!(error.contains("expected 2200 x 3208 px divided by an integer"), "{error}");
        }
    }
}
