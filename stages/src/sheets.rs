//! What sheets of pictures are put together with: pictures beside and below each other, and text in them.
//!
//! Knows no rows and nothing of what the pictures show.

use crate::media::Image;
use anyhow::{Context, Result};
use opencv::core::{Mat, Point, Scalar};
use opencv::imgproc;
use opencv::prelude::*;

const FONT: i32 = imgproc::FONT_HERSHEY_SIMPLEX;

/// White.
pub fn blank(width: usize, height: usize) -> Image {
    Image::new(width, height, 3, vec![255; width * height * 3])
}

/// Width of a line of text as [`write`] draws it, px.
///
/// # Errors
/// If OpenCV refuses.
pub fn text_width(text: &str, scale: f64) -> Result<usize> {
    let mut baseline = 0;
    Ok(imgproc::get_text_size(text, FONT, scale, 1, &mut baseline)?.width as usize)
}

/// Pictures of equal height side by side.
pub fn beside(pictures: &[Image]) -> Image {
    let (width, height) = (pictures.iter().map(|p| p.width).sum(), pictures[0].height);
    let mut data = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for p in pictures {
            data.extend_from_slice(&p.data[y * p.width * 3..(y + 1) * p.width * 3]);
        }
    }
    Image::new(width, height, 3, data)
}

/// Pictures of equal width below each other.
pub fn below(pictures: &[Image]) -> Image {
    let height = pictures.iter().map(|p| p.height).sum();
    Image::new(pictures[0].width, height, 3, pictures.iter().flat_map(|p| p.data.iter().copied()).collect())
}

/// Writes a line of text into a picture, its left end and baseline at a pixel.
///
/// # Errors
/// If OpenCV refuses.
pub fn write(image: &mut Image, text: &str, at: (i32, i32), scale: f64) -> Result<()> {
    let flat = Mat::from_slice(&image.data)?;
    let mut mat = flat.reshape(3, image.height as i32)?.try_clone()?;
    let at = Point::new(at.0, at.1);
    imgproc::put_text(&mut mat, text, at, FONT, scale, Scalar::new(40.0, 40.0, 40.0, 0.0), 1, imgproc::LINE_AA, false)?;
    image.data = mat.data_bytes().context("the drawn picture")?.to_vec();
    Ok(())
}
