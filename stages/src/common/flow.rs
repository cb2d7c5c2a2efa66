//! Optical flow between two pictures: OpenCV's dense inverse search.
//!
//! No stage, but what `evaluate_flicker` finds motion with where no surface tells it (hair, and whatever else a head
//! model lacks), and `track_skin` motion along a surface. Source: Kroeger et al. 2016, "Fast Optical Flow using Dense
//! Inverse Search". Knows no films and no errors.

use crate::common::media::Image;
use anyhow::Result;
use opencv::core::{self, Mat, Ptr, Scalar, Size, Vec2f};
use opencv::prelude::*;
use opencv::video::{DISOpticalFlow, DISOpticalFlow_PRESET_MEDIUM};
use opencv::{imgproc, video};

/// Smaller pictures are enlarged to this, px: the search compares patches of 8 px, in pictures that it halves several
/// times.
const LEAST: usize = 256;
/// What is around a pixel is weighed by a Gaussian of so many px. Of 1, 1.5, 3 and 6 the middle two found skin best, at
/// 0.75 mm a pixel.
const AROUND: f64 = 2.0;
/// Deviations of grey values that are not much larger than this are noise.
const NOISE: f64 = 3.0;
/// One deviation is so much in the evened picture: three fit on either side of the middle.
const DEVIATION: f64 = 40.0;

/// Where each pixel of `from` is in `to`: px to the right and down, row by row.
///
/// # Errors
/// If OpenCV refuses, for pictures of different sizes.
pub fn flow(from: &Image, to: &Image) -> Result<Vec<[f32; 2]>> {
    flow_of(from, to, Ok)
}

/// The same where light and shadow move otherwise than what they fall on: what is followed is how grey values stand out
/// from those around them.
///
/// # Errors
/// As [`flow`].
pub fn flow_in_any_light(from: &Image, to: &Image) -> Result<Vec<[f32; 2]>> {
    flow_of(from, to, |grey| even(&grey))
}

fn flow_of(from: &Image, to: &Image, seen: impl Fn(Mat) -> Result<Mat>) -> Result<Vec<[f32; 2]>> {
    let (width, height) = (from.width, from.height);
    let larger = LEAST.div_ceil(width.min(height).max(1));
    let grey = |image: &Image| -> Result<Mat> {
        let (mut grey, mut large) = (Mat::default(), Mat::default());
        imgproc::cvt_color_def(&image.to_mat()?, &mut grey, imgproc::COLOR_BGR2GRAY)?;
        let size = Size::new((image.width * larger) as i32, (image.height * larger) as i32);
        imgproc::resize(&seen(grey)?, &mut large, size, 0.0, 0.0, imgproc::INTER_CUBIC)?;
        Ok(large)
    };
    let mut search: Ptr<DISOpticalFlow> = video::DISOpticalFlow::create(DISOpticalFlow_PRESET_MEDIUM)?;
    let mut found = Mat::default();
    search.calc(&grey(from)?, &grey(to)?, &mut found)?;
    let mut small = Mat::default();
    imgproc::resize(&found, &mut small, Size::new(width as i32, height as i32), 0.0, 0.0, imgproc::INTER_AREA)?;
    Ok(small.data_typed::<Vec2f>()?.iter().map(|step| [step[0] / larger as f32, step[1] / larger as f32]).collect())
}

/// Grey values less the mean of those around them, in shares of the deviation there.
fn even(grey: &Mat) -> Result<Mat> {
    let around = |values: &Mat| -> Result<Mat> {
        let mut mean = Mat::default();
        imgproc::gaussian_blur_def(values, &mut mean, Size::default(), AROUND)?;
        Ok(mean)
    };
    let mut values = Mat::default();
    grey.convert_to(&mut values, core::CV_32F, 1.0, 0.0)?;
    let (mut beside, mut squares, mut deviation) = (Mat::default(), Mat::default(), Mat::default());
    core::subtract_def(&values, &around(&values)?, &mut beside)?;
    core::multiply_def(&beside, &beside, &mut squares)?;
    core::sqrt(&around(&squares)?, &mut deviation)?;
    let (mut least, mut scaled, mut out) = (Mat::default(), Mat::default(), Mat::default());
    deviation.convert_to(&mut least, core::CV_32F, 1.0, NOISE)?;
    core::divide2_def(&beside, &least, &mut scaled)?;
    scaled.convert_to(&mut out, core::CV_8U, DEVIATION, 128.0)?;
    Ok(out)
}

/// `onto`, a picture of any size, with the pixels for which a place in `image` is known (px, centres at + 0.5) as they
/// are there.
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
    fn a_pattern_that_moves_is_followed_in_moving_light_too() {
        // waves of several lengths, so that no place looks like another; and a lamp to the left or to the right
        let picture = |shift: [f64; 2], lamp: f64| {
            let at = |i: usize| {
                let (x, y) = (2.5 * ((i % 64) as f64 - shift[0]), 2.5 * ((i / 64) as f64 - shift[1]));
                let value =
                    (0.31 * x).sin() + (0.23 * y).cos() + (0.11 * x - 0.17 * y).sin() + (0.05 * x * y / 8.0).sin();
                (128.0 + lamp * ((i % 64) as f64 - 32.0) + 30.0 * value) as u8
            };
            Image::new(64, 64, 3, (0..64 * 64).flat_map(|i| [at(i); 3]).collect())
        };
        let errors = |found: Vec<[f32; 2]>| {
            let inner = |i: &usize| (8..56).contains(&(i % 64)) && (8..56).contains(&(i / 64));
            let error = |i: usize| (found[i][0] - 1.5).hypot(found[i][1] + 2.0);
            let mut errors: Vec<f32> = (0..64 * 64).filter(inner).map(error).collect();
            errors.sort_by(f32::total_cmp);
            [errors[errors.len() / 2], errors[errors.len() * 9 / 10]]
        };
        let (still, moved) = (picture([0.0, 0.0], 0.0), picture([1.5, -2.0], 0.0));
        let [median, most] = errors(flow(&still, &moved).unwrap());
        assert!(median < 0.1 && most < 0.4, "{median} {most}");
        let lit = [picture([0.0, 0.0], 1.0), picture([1.5, -2.0], -1.0)];
        let [median, most] = errors(flow_in_any_light(&lit[0], &lit[1]).unwrap());
        assert!(median < 0.15 && most < 0.5, "{median} {most}");
        let [light, _] = errors(flow(&lit[0], &lit[1]).unwrap());
        assert!(light > 2.0 * median, "grey values alone follow the light: {light}");
    }
}
