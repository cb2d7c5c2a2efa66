//! A matte from a picture and a picture of the same view without the person.
//!
//! No stage, but what `extract_frames` does where a capture comes with pictures of the background instead of mattes.
//! What differs from the background for certain, and what for certain does not, teaches a colour model of both sides
//! (GrabCut, Rother et al. 2004, as in OpenCV), which decides on the rest; the largest piece is the person, without its
//! holes. It is a cut with a soft edge, no matte of single hairs: the published captures' mattes come from a trained
//! network (BackgroundMattingV2). Knows no cameras.

use crate::common::media::Image;
use anyhow::{Result, ensure};
use opencv::core::{self, Mat, Point, Rect, Size};
use opencv::imgproc;
use opencv::prelude::*;

/// Width at which the person is cut out, px: the colour model costs time with the number of pixels.
const WIDTH: usize = 480;
/// A sample of 0 to 255 that differs by so much shows something else than the background, and by so little the same.
const DIFFERENT: u8 = 48;
const SAME: u8 = 14;
/// Rounds of the colour model.
const ROUNDS: i32 = 3;

/// The matte of a picture, of its size: 255 is the person.
///
/// # Errors
/// If nothing, or everything, differs from the background, or the pictures do not fit each other.
pub fn matte(image: &Image, background: &Image) -> Result<Image> {
    let aspect = |i: &Image| i.height as f64 / i.width as f64;
    ensure!(
        (aspect(image) / aspect(background) - 1.0).abs() < 0.01,
        "a {} x {} picture has a {} x {} background\nhint: is it of this camera?",
        image.width,
        image.height,
        background.width,
        background.height
    );
    let width = image.width.min(WIDTH);
    let height = (image.height * width).div_ceil(image.width);
    let small = image.resized(width, height)?;
    let behind = background.resized(width, height)?;
    let mut blurred = [Mat::default(), Mat::default()];
    for (out, picture) in blurred.iter_mut().zip([&small, &behind]) {
        imgproc::gaussian_blur_def(&picture.to_mat()?, out, Size::new(5, 5), 0.0)?;
    }
    let mut difference = Mat::default();
    core::absdiff(&blurred[0], &blurred[1], &mut difference)?;
    let largest: Vec<u8> = difference.data_bytes()?.chunks_exact(3).map(|p| p[0].max(p[1]).max(p[2])).collect();
    let plane = |test: &dyn Fn(u8) -> bool| -> Result<Mat> {
        let bytes: Vec<u8> = largest.iter().map(|d| if test(*d) { 255 } else { 0 }).collect();
        Ok(Mat::from_slice(&bytes)?.reshape(1, height as i32)?.try_clone()?)
    };
    let different = shrunk(&plane(&|d| d >= DIFFERENT)?, 3)?;
    // far from all that may differ
    let same = plane(&|d| d >= SAME)?;
    let near = grown(&shrunk(&same, 1)?, width as i32 / 40)?;
    let (sure, maybe, near) = (different.data_bytes()?, same.data_bytes()?, near.data_bytes()?);
    let labels: Vec<u8> = (0..largest.len())
        .map(|i| {
            let label = match (sure[i] > 0, maybe[i] > 0, near[i] > 0) {
                (true, ..) => imgproc::GC_FGD,
                (_, true, true) => imgproc::GC_PR_FGD,
                (_, _, true) => imgproc::GC_PR_BGD,
                _ => imgproc::GC_BGD,
            };
            label as u8
        })
        .collect();
    let has = |label: i32| labels.contains(&(label as u8));
    ensure!(
        has(imgproc::GC_FGD) && has(imgproc::GC_BGD),
        "the picture cannot be cut out against its background: {} of it differs\nhint: is the background of this camera, and of this recording?",
        if has(imgproc::GC_FGD) { "all" } else { "nothing" }
    );
    let mut mask = Mat::from_slice(&labels)?.reshape(1, height as i32)?.try_clone()?;
    let (mut outside, mut inside) = (Mat::default(), Mat::default());
    // the colour model begins with random draws
    core::set_rng_seed(0)?;
    let none = Rect::new(0, 0, 0, 0);
    imgproc::grab_cut(
        &small.to_mat()?,
        &mut mask,
        none,
        &mut outside,
        &mut inside,
        ROUNDS,
        imgproc::GC_INIT_WITH_MASK,
    )?;
    let bytes: Vec<u8> = mask.data_bytes()?.iter().map(|label| if label & 1 == 1 { 255 } else { 0 }).collect();
    let person = filled(&largest_piece(&bytes, height)?, width, height)?;
    let mut soft = Mat::default();
    let cut = Mat::from_slice(&person)?.reshape(1, height as i32)?.try_clone()?;
    imgproc::gaussian_blur_def(&cut, &mut soft, Size::new(3, 3), 0.0)?;
    Image::from_mat(&soft)?.resized(image.width, image.height)
}

fn shrunk(mask: &Mat, by: i32) -> Result<Mat> {
    morphed(mask, by, imgproc::MORPH_ERODE)
}

fn grown(mask: &Mat, by: i32) -> Result<Mat> {
    morphed(mask, by, imgproc::MORPH_DILATE)
}

fn morphed(mask: &Mat, by: i32, how: i32) -> Result<Mat> {
    let side = 2 * by.max(1) + 1;
    let disc = imgproc::get_structuring_element(imgproc::MORPH_ELLIPSE, Size::new(side, side), Point::new(-1, -1))?;
    let mut out = Mat::default();
    let border = imgproc::morphology_default_border_value()?;
    imgproc::morphology_ex(mask, &mut out, how, &disc, Point::new(-1, -1), 1, core::BORDER_REPLICATE, border)?;
    Ok(out)
}

/// The piece with the most pixels.
fn largest_piece(mask: &[u8], height: usize) -> Result<Vec<u8>> {
    let (labels, sizes) = pieces(mask, height)?;
    let largest = (1..sizes.len()).max_by_key(|label| (sizes[*label], std::cmp::Reverse(*label))).unwrap_or(0);
    Ok(labels.into_iter().map(|label| if largest > 0 && label == largest as i32 { 255 } else { 0 }).collect())
}

/// Without holes: all but the pieces of the outside that reach the border of the picture.
fn filled(mask: &[u8], width: usize, height: usize) -> Result<Vec<u8>> {
    let outside: Vec<u8> = mask.iter().map(|m| 255 - m).collect();
    let (labels, sizes) = pieces(&outside, height)?;
    let mut reaches = vec![false; sizes.len()];
    for y in 0..height {
        for x in [0, width - 1] {
            reaches[labels[y * width + x] as usize] = true;
        }
    }
    // a hole that is cut by the lower border is a gap below an arm or a lock of hair, and stays open
    for x in 0..width {
        for y in [0, height - 1] {
            reaches[labels[y * width + x] as usize] = true;
        }
    }
    reaches[0] = false;
    Ok(labels.into_iter().map(|label| if reaches[label as usize] { 0 } else { 255 }).collect())
}

/// Label of each pixel, 0 where the mask is empty, and the number of pixels of each label.
fn pieces(mask: &[u8], height: usize) -> Result<(Vec<i32>, Vec<usize>)> {
    let mask = Mat::from_slice(mask)?.reshape(1, height as i32)?.try_clone()?;
    let mut labels = Mat::default();
    let count = imgproc::connected_components(&mask, &mut labels, 4, core::CV_32S)?;
    let labels = labels.data_typed::<i32>()?.to_vec();
    let mut sizes = vec![0; count as usize];
    labels.iter().for_each(|label| sizes[*label as usize] += 1);
    Ok((labels, sizes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: (usize, usize) = (240, 320);

    /// A wall with a pattern, and a head and shoulders of other colours before it, with noise of the camera.
    fn scene(person: bool) -> (Image, Vec<bool>) {
        let (mut data, mut truth) = (Vec::new(), Vec::new());
        for y in 0..SIZE.1 {
            for x in 0..SIZE.0 {
                let (dx, dy) = ((x as f64 - 120.0) / 60.0, (y as f64 - 130.0) / 80.0);
                let shoulders = (x as f64 - 120.0).abs() < 100.0 && y > 200;
                let inside = dx * dx + dy * dy < 1.0 || shoulders;
                let wall = [150 + (x / 16 % 2) * 20, 160, 140 + (y / 24 % 2) * 16];
                // a patch of the person is as bright as the wall
                let skin = if shoulders { [60, 70, 120] } else { [190, 150 - (y / 40 % 2) * 20, 130] };
                let noise = (x * 7 + y * 13 + (x * y) % 11) % 7;
                let colour = if person && inside { skin } else { wall };
                data.extend(colour.map(|c: usize| (c + noise) as u8));
                truth.push(inside);
            }
        }
        (Image::new(SIZE.0, SIZE.1, 3, data), truth)
    }

    #[test]
    fn a_person_is_cut_out_and_twice_the_same() {
        let ((image, truth), (background, _)) = (scene(true), scene(false));
        let found = matte(&image, &background).unwrap();
        assert_eq!((found.width, found.height, found.channels), (SIZE.0, SIZE.1, 1));
        assert_eq!(found, matte(&image, &background).unwrap());
        let is = |i: usize| found.data[i] > 127;
        let both = (0..truth.len()).filter(|&i| truth[i] && is(i)).count();
        let either = (0..truth.len()).filter(|&i| truth[i] || is(i)).count();
        assert!(both as f64 / either as f64 > 0.97, "intersection over union {}", both as f64 / either as f64);
    }

    #[test]
    fn what_cannot_be_cut_out_is_said() {
        let (background, _) = scene(false);
        let error = matte(&background, &background).unwrap_err().to_string();
        assert!(error.contains("nothing of it differs"), "{error}");
        let black = Image::new(SIZE.0, SIZE.1, 3, vec![0; SIZE.0 * SIZE.1 * 3]);
        assert!(matte(&black, &background).unwrap_err().to_string().contains("all of it differs"));
        let wide = Image::new(20, 10, 3, vec![0; 600]);
        assert!(matte(&background, &wide).unwrap_err().to_string().contains("20 x 10 background"));
    }
}
