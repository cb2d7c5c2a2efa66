//! Depth maps that come with the pictures of the paper's release: COLMAP's, one for each picture, as 16-bit grey PNGs.
//!
//! A value of 0 is "nothing known", any other q is a depth of (q - 1) / 32767 m along the camera's axis, up to 2 m: the
//! quantiser that DiffusionAvatars took over for its G-buffers (`geometry::quantize::DEPTH`). A map is of the size of
//! the pictures in half resolution, whose intrinsics are the calibration's, scaled. Source: the reader published with
//! the release. Knows no cameras.

use crate::fault::Fault;
use crate::rendering_data::png::{Kind, Picture};
use geometry::quantize::{decode_depth, encode_depth};
use std::path::Path;

/// Depths of a picture's pixels.
#[derive(Clone, Debug, PartialEq)]
pub struct DepthMap {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Camera z of each pixel, metres, row by row; 0 where nothing is known.
    pub metres: Vec<f32>,
}

/// Reads a depth map.
///
/// # Errors
/// If the file is missing, truncated, or no grey PNG of 16 bits.
pub fn read_depth(path: &Path) -> Result<DepthMap, Fault> {
    let picture = Picture::read(path, Kind { bits: 16, channels: 1 })?;
    Ok(DepthMap { width: picture.width, height: picture.height, metres: decode_depth(&picture.samples) })
}

/// Writes a depth map; what is further than 2 m is written as unknown, as the release does.
///
/// # Errors
/// If the file cannot be written, or a depth is no finite number.
pub fn write_depth(path: &Path, map: &DepthMap) -> Result<(), Fault> {
    let samples = encode_depth(&map.metres).map_err(|error| {
        Fault::field(
            path,
            "(depth)",
            error.to_string(),
            "depths in metres, 0 where there is none",
            "the map was made wrongly; nothing was written",
        )
    })?;
    let bytes = Picture::of_u16(map.width, map.height, 1, samples).encode();
    std::fs::write(path, bytes).map_err(|e| Fault::unwritable(path, e))
}
