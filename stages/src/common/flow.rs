//! Optical flow between two pictures: OpenCV's dense inverse search.
//!
//! No stage, but what `evaluate_flicker` finds motion with where no surface tells it (hair, and whatever else a head model lacks), and `track_skin` motion
//! along a surface. Source: Kroeger et al. 2016,
//! "Fast Optical Flow using Dense Inverse Search". Knows no films and no errors.

use crate::common::media::Image;
use anyhow::Result;
use opencv::core::{self, Mat, Ptr, Scalar, Size, Vec2f};
use opencv::prelude::*;
use opencv::video::{DISOpticalFlow, DISOpticalFlow_PRESET_MEDIUM};
use opencv::{imgproc, video};

/// Smaller pictures are enlarged to this, px: the search compares patches of 8 px, in pictures that it halves several times.
const LEAST: usize = 256;

/// Where each pixel of `from` is in `to`: px to the right and down, row by row.
///
/// # Errors
/// If OpenCV refuses, for pictures of different sizes.
pub fn flow(from: &Image, to: &Image) -> Result<Vec<[f32; 2]>> {
    flow_enlarged(from, to, 1)
}

/// The same, sought in pictures that are at least so many times as large.
///
/// # Errors
/// As [`flow`].
pub fn flow_enlarged(from: &Image, to: &Image, larger: usize) -> Result<Vec<[f32; 2]>> {
    let (width, height) = (from.width, from.height);
    let larger = larger.max(LEAST.div_ceil(width.min(height).max(1)));
    let grey = |image: &Image| -> Result<Mat> {
        let (mut grey, mut large) = (Mat::default(), Mat::default());
        imgproc::cvt_color_def(&image.to_mat()?, &mut grey, imgproc::COLOR_BGR2GRAY)?;
        let size = Size::new((image.width * larger) as i32, (image.height * larger) as i32);
        imgproc::resize(&grey, &mut large, size, 0.0, 0.0, imgproc::INTER_CUBIC)?;
        Ok(large)
    };
    let mut search: Ptr<DISOpticalFlow> = video::DISOpticalFlow::create(DISOpticalFlow_PRESET_MEDIUM)?;
    let mut found = Mat::default();
    search.calc(&grey(from)?, &grey(to)?, &mut found)?;
    let mut small = Mat::default();
    imgproc::resize(&found, &mut small, Size::new(width as i32, height as i32), 0.0, 0.0, imgproc::INTER_AREA)?;
    Ok(small.data_typed::<Vec2f>()?.iter().map(|step| [step[0] / larger as f32, step[1] / larger as f32]).collect())
}

/// `onto`, a picture of any size, with the pixels for which a place in `image` is known (px, centres at + 0.5) as they are there.
///
/// # Errors
/// If OpenCV refuses, for pictures of different channels.
///
/// # Panics
/// If there is not one entry for each pixel.
pub fn laid(image: &Image, onto: &Image, places: &[Option<[f32; 2]>]) -> Result<Image> {
    assert_eq!(places.len(), onto.width * onto.height, "a place for each pixel");
    // what lies outside the picture is left as it is
    let places: Vec<Vec2f> = places.iter().map(|px| px.map_or([-2.0; 2], |px| px.map(|v| v - 0.5)).into()).collect();
    let map = Mat::new_rows_cols_with_data(onto.height as i32, onto.width as i32, &places)?;
    let (mut out, maps) = (onto.to_mat()?, Mat::default());
    let (linear, border) = (imgproc::INTER_LINEAR, core::BORDER_TRANSPARENT);
    imgproc::remap(&image.to_mat()?, &mut out, &map, &maps, linear, border, Scalar::default())?;
    Image::from_mat(&out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_that_moves_is_followed() {
        // waves of several lengths, so that no place looks like another
        let picture = |shift: [f64; 2]| {
            let at = |i: usize| {
                let (x, y) = ((i % 64) as f64 - shift[0], (i / 64) as f64 - shift[1]);
                let value =
                    (0.31 * x).sin() + (0.23 * y).cos() + (0.11 * x - 0.17 * y).sin() + (0.05 * x * y / 8.0).sin();
                (128.0 + 30.0 * value) as u8
            };
            Image::new(64, 64, 3, (0..64 * 64).flat_map(|i| [at(i); 3]).collect())
        };
        let found = flow(&picture([0.0, 0.0]), &picture([1.5, -2.0])).unwrap();
        let mut errors: Vec<f32> = (0..64 * 64)
            .filter(|i| (8..56).contains(&(i % 64)) && (8..56).contains(&(i / 64)))
            .map(|i| (found[i][0] - 1.5).hypot(found[i][1] + 2.0))
            .collect();
        errors.sort_by(f32::total_cmp);
        assert!(
            errors[errors.len() / 2] < 0.1 && errors[errors.len() * 9 / 10] < 0.4,
            "{:?}",
            errors[errors.len() / 2]
        );
    }
}
