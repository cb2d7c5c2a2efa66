//! `extract_frames`: every n-th frame of a video, resized, colour-corrected, laid over white by its matte.
//!
//! reads: video, matte_video?, color_transform?, every?, distortion? or distortion_fisheye? with intrinsics, width, height
//! writes: timestep, image (RGB PNG), matte (grey PNG)
//!
//! A row of the input is a video; each of its frames taken is a row of the output. `timestep` is the number of the frame
//! in the video. Knows nothing of people: what is in the picture, and where, is for later stages.

use crate::media::{Image, Undistort, VideoReader};
use anyhow::{Context, Result};
use manifests::Type;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Take every n-th frame, the first included; a column `every` of a row goes before.
    #[serde(default = "every")]
    every: u32,
    /// Width of the images in px, the height in proportion; 0 keeps the video's.
    #[serde(default)]
    width: u32,
}

/// The paper takes every 3rd frame of 73 a second.
fn every() -> u32 {
    3
}

fn def() -> StageDef {
    StageDef::new("extract_frames", 1, Grain::Row)
        .doc("Takes every n-th frame of each video, over white where there is a matte.")
        .reads([("video", Type::Blob)])
        .may_read([("matte_video", Type::Blob), ("color_transform", Type::Floats(12)), ("every", Type::I64)])
        .may_read([("distortion", Type::Floats(8)), ("distortion_fisheye", Type::Floats(4))])
        .may_read([("intrinsics", Type::Floats(9)), ("width", Type::I64), ("height", Type::I64)])
        .writes([("timestep", Type::I64), ("image", Type::Blob), ("matte", Type::Blob)])
}

protocol::register!(Params, def, |params, _: &Cx<'_>| anyhow::Ok(ExtractFrames { params }));

struct ExtractFrames {
    params: Params,
}

impl Stage for ExtractFrames {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.extract(unit, cx)).collect()
    }
}

impl ExtractFrames {
    fn extract(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let row = unit.row();
        let every = if row.has("every") { row.i64("every")? } else { i64::from(self.params.every) };
        let every = usize::try_from(every).ok().filter(|&n| n > 0).context("`every` must be at least 1")?;
        let transform = row.has("color_transform").then(|| row.array::<12>("color_transform")).transpose()?;
        let mut video = VideoReader::open(&row.path("video")?)?;
        let mut matte_video = row.maybe_path("matte_video")?.map(|path| VideoReader::open(&path)).transpose()?;
        let mut undistort = Undistort::of(&row)?;
        let mut rows = Rows::new();
        let mut timestep = 0;
        while let Some(frame) = video.next_frame()? {
            let matte = match &mut matte_video {
                None => None,
                Some(video) => Some(video.next_frame()?.context("the matte video has fewer frames than the video\nhint: copy or download it again")?),
            };
            if timestep % every == 0 {
                let (frame, matte) = undistorted(undistort.as_mut(), frame, matte)?;
                rows.push(self.put(unit, cx, timestep, frame, matte, transform.as_ref())?);
            }
            timestep += 1;
        }
        Ok(rows)
    }

    fn put(
        &self,
        unit: &Unit<'_>,
        cx: &Cx<'_>,
        timestep: usize,
        mut frame: Image,
        matte: Option<Image>,
        transform: Option<&[f64; 12]>,
    ) -> Result<OutRow> {
        if let Some(transform) = transform {
            correct(&mut frame, transform);
        }
        let width = if self.params.width == 0 { frame.width } else { self.params.width as usize };
        let height = (frame.height * width).div_ceil(frame.width);
        let mut image = frame.resized(width, height)?;
        let mut out = OutRow::new().i64("timestep", timestep);
        if let Some(matte) = matte {
            let green = matte.data.chunks_exact(matte.channels).map(|pixel| pixel[matte.channels / 2]).collect();
            let matte = Image::new(matte.width, matte.height, 1, green).resized(width, height)?;
            image = image.over_white(&matte)?;
            let path = cx.file(unit, &format!("matte_{timestep:05}.png"));
            matte.write_png(&path)?;
            out = out.file("matte", &path);
        }
        let path = cx.file(unit, &format!("frame_{timestep:05}.png"));
        image.write_png(&path)?;
        Ok(out.file("image", &path))
    }
}

/// Frame and matte without lens distortion, where a row has one.
fn undistorted(undistort: Option<&mut Undistort>, frame: Image, matte: Option<Image>) -> Result<(Image, Option<Image>)> {
    let Some(undistort) = undistort else { return Ok((frame, matte)) };
    let matte = matte.map(|matte| undistort.apply(&matte, 0)).transpose()?;
    Ok((undistort.apply(&frame, 255)?, matte))
}

/// An affine colour correction in [0, 1]: `rgb @ m[:3, :3] + m[:3, 3]` of a row-major 3 x 4 matrix, clipped
/// (specs of the NeRSemble v1 release, `annotations/color_correction`).
fn correct(image: &mut Image, m: &[f64; 12]) {
    for pixel in image.data.chunks_exact_mut(3) {
        let rgb = [0, 1, 2].map(|c| f64::from(pixel[c]) / 255.0);
        for (c, sample) in pixel.iter_mut().enumerate() {
            let value = rgb[0] * m[c] + rgb[1] * m[4 + c] + rgb[2] * m[8 + c] + m[4 * c + 3];
            *sample = (value * 255.0).round().clamp(0.0, 255.0) as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_correction_is_row_vector_times_matrix_plus_offset() {
        let mut image = Image::new(1, 1, 3, vec![51, 102, 204]);
        // red out = 0.5 green; green out = blue; blue out = red + 0.1
        let m = [0.0, 0.0, 1.0, 0.0, 0.5, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.1];
        correct(&mut image, &m);
        assert_eq!(image.data, [51, 204, 77]);
    }
}
