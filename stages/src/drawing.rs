//! Figures: meshes and points as cameras see them, laid over pictures; text, and a colour bar.
//!
//! No stage, but what figures are made with. A layer is drawn at several samples a pixel and averaged, so that edges are smooth; where it has no
//! coverage, the picture below stays as it is, to the last bit. Knows no rows and no files.

use crate::media::Image;
use anyhow::Result;
use geometry::raster::rasterize;
use geometry::{Camera, Mesh};
use glam::Vec3;
use opencv::core::{Mat, Point, Scalar, Vec3b};
use opencv::imgproc;
use opencv::prelude::*;

/// Samples a pixel has on a side.
const SAMPLES: u32 = 3;
/// What is nearer than this to a camera is not drawn, metres.
const NEAR: f32 = 0.05;
/// Width of an outline, px.
const OUTLINE: f64 = 1.4;
/// Text and lines.
pub const INK: [u8; 3] = [40, 40, 40];

/// What lies over a picture: for each pixel red, green and blue in 0 to 255, times how much of it is covered, and that coverage.
pub struct Layer {
    width: usize,
    height: usize,
    pixels: Vec<[f32; 4]>,
}

impl Layer {
    /// How much of each pixel is covered, 0 to 1, row by row.
    #[cfg(test)]
    pub fn coverage(&self) -> Vec<f32> {
        self.pixels.iter().map(|p| p[3]).collect()
    }

    /// A picture with this over it.
    ///
    /// # Panics
    /// If it is of another size.
    pub fn over(&self, below: &Image) -> Image {
        assert_eq!((self.width, self.height, 3), (below.width, below.height, below.channels), "a layer fits its picture");
        let mut out = below.clone();
        for (sample, layer) in out.data.chunks_exact_mut(3).zip(&self.pixels).filter(|(_, layer)| layer[3] > 0.0) {
            for (value, part) in sample.iter_mut().zip(layer) {
                *value = (f32::from(*value) * (1.0 - layer[3]) + part).round().clamp(0.0, 255.0) as u8;
            }
        }
        out
    }

    /// From samples: colour and opacity of each.
    fn averaged(camera: &Camera, samples: &[([f32; 3], f32)]) -> Layer {
        let (width, height, n) = (camera.width as usize, camera.height as usize, SAMPLES as usize);
        let pixel = |i: usize| {
            let (x, y) = (i % width * n, i / width * n);
            let mut sum = [0.0; 4];
            for (color, opacity) in (0..n * n).map(|k| samples[(y + k / n) * width * n + x + k % n]) {
                (0..3).for_each(|c| sum[c] += color[c] * opacity);
                sum[3] += opacity;
            }
            sum.map(|value| value / (n * n) as f32)
        };
        Layer { width, height, pixels: (0..width * height).map(pixel).collect() }
    }
}

/// How a mesh is drawn.
pub struct Look<'a> {
    /// One colour for all, or one for each vertex; in 0 to 255.
    pub colors: &'a [[f32; 3]],
    /// 0 to 1.
    pub opacity: f32,
    /// The colour of the line around it, if there is one.
    pub outline: Option<[f32; 3]>,
}

/// A mesh in the world as a camera sees it, lit from above its left shoulder. The outline lies inside: nothing is drawn where there is no mesh.
pub fn mesh_layer(mesh: &Mesh, look: &Look<'_>, camera: &Camera) -> Layer {
    let fine = camera.resized(camera.width * SAMPLES, camera.height * SAMPLES);
    let image = rasterize(&mesh.positions, &mesh.faces, &fine, NEAR);
    let turned = |n: &Vec3| camera.world_to_cam.transform_vector3(n.as_dvec3()).as_vec3().to_array();
    let normals: Vec<[f32; 3]> = mesh.vertex_normals().iter().map(turned).collect();
    let normals = image.interpolate(&mesh.faces, &normals, [0.0; 3]);
    let colors = match look.colors {
        [one] => vec![*one; normals.len()],
        many => image.interpolate(&mesh.faces, many, [0.0; 3]),
    };
    let mask = image.mask();
    let line = look.outline.map(|color| (color, rim(&mask, fine.width as usize, OUTLINE * f64::from(SAMPLES))));
    let light = Vec3::new(-0.4, -0.5, -1.0).normalize();
    let sample = |i: usize| match &line {
        _ if !mask[i] => ([0.0; 3], 0.0),
        Some((color, rim)) if rim[i] => (*color, 1.0),
        _ => {
            // an inner side, seen through an opening, stays dark
            let shade = 0.3 + 0.7 * Vec3::from(normals[i]).normalize_or_zero().dot(light).max(0.0);
            (colors[i].map(|value| value * shade), look.opacity)
        }
    };
    let samples: Vec<_> = (0..mask.len()).map(sample).collect();
    Layer::averaged(camera, &samples)
}

/// What of a mask is nearer than `width` to its outside. The border of the picture is no outside.
fn rim(mask: &[bool], columns: usize, width: f64) -> Vec<bool> {
    let reach = width.ceil() as i64;
    let square = (-reach..=reach).flat_map(|dy| (-reach..=reach).map(move |dx| (dx, dy)));
    let disk: Vec<(i64, i64)> = square.filter(|(dx, dy)| ((dx * dx + dy * dy) as f64) <= width * width).collect();
    let (columns, rows) = (columns as i64, (mask.len() / columns) as i64);
    let outside = |x: i64, y: i64| {
        (0..columns).contains(&x) && (0..rows).contains(&y) && !mask[(y * columns + x) as usize]
    };
    let near = |i: usize| {
        let (x, y) = (i as i64 % columns, i as i64 / columns);
        mask[i] && disk.iter().any(|(dx, dy)| outside(x + dx, y + dy))
    };
    (0..mask.len()).map(near).collect()
}

/// Points in the world as a camera sees them: disks of `radius` (metres), each of its colour; the nearest hides what is behind it. Where there are
/// normals, points that face away are not drawn.
pub fn points_layer(points: &[Vec3], normals: &[Vec3], colors: &[[u8; 3]], radius: f64, camera: &Camera) -> Layer {
    let fine = camera.resized(camera.width * SAMPLES, camera.height * SAMPLES);
    let (width, height) = (i64::from(fine.width), i64::from(fine.height));
    let mut depth = vec![f64::INFINITY; (width * height) as usize];
    let mut samples = vec![([0.0; 3], 0.0); depth.len()];
    let eye = camera.center();
    for (i, point) in points.iter().map(|p| p.as_dvec3()).enumerate() {
        let away = normals.get(i).is_some_and(|n| n.as_dvec3().dot(eye - point) <= 0.0);
        let (px, z) = fine.project(point);
        if away || z <= f64::from(NEAR) {
            continue;
        }
        // no smaller than a pixel of the picture, or it would hardly be seen
        let reach = (radius * fine.intrinsics.x_axis.x / z).max(0.5 * f64::from(SAMPLES));
        let span = |middle: f64, end: i64| {
            let clamp = |value: f64| value.clamp(0.0, end as f64) as i64;
            clamp((middle - reach).floor())..clamp((middle + reach).ceil())
        };
        for y in span(px.y, height) {
            for x in span(px.x, width) {
                let away = (x as f64 + 0.5 - px.x).powi(2) + (y as f64 + 0.5 - px.y).powi(2);
                let at = (y * width + x) as usize;
                if away <= reach * reach && z < depth[at] {
                    depth[at] = z;
                    samples[at] = (colors[i].map(f32::from), 1.0);
                }
            }
        }
    }
    Layer::averaged(camera, &samples)
}

/// The colours of values from 0 to 1 in viridis, which is perceptually uniform and readable for the colour-blind; beyond that those of the ends.
///
/// # Errors
/// If OpenCV refuses.
pub fn viridis(values: &[f32]) -> Result<Vec<[u8; 3]>> {
    let levels: Vec<u8> = (0..=255).collect();
    let mut table = Mat::default();
    imgproc::apply_color_map(&Mat::from_slice(&levels)?, &mut table, imgproc::COLORMAP_VIRIDIS)?;
    let table: Vec<[u8; 3]> = table.data_typed::<Vec3b>()?.iter().map(|bgr| [bgr[2], bgr[1], bgr[0]]).collect();
    Ok(values.iter().map(|value| table[(value.clamp(0.0, 1.0) * 255.0).round() as usize]).collect())
}

/// A picture of one colour.
pub fn plain(width: usize, height: usize, color: [u8; 3]) -> Image {
    Image::new(width, height, 3, color.repeat(width * height))
}

/// Lays a picture into another, its upper left corner at (`x`, `y`); what reaches beyond is cut off.
pub fn place(image: &mut Image, part: &Image, x: usize, y: usize) {
    let columns = part.width.min(image.width.saturating_sub(x)) * 3;
    for row in 0..part.height.min(image.height.saturating_sub(y)) {
        let (to, from) = (((y + row) * image.width + x) * 3, row * part.width * 3);
        image.data[to..to + columns].copy_from_slice(&part.data[from..from + columns]);
    }
}

/// The point of a text that is put at a place.
#[derive(Clone, Copy)]
pub enum Anchor {
    /// Its left end.
    Left,
    /// Its middle.
    Middle,
    /// Its right end.
    Right,
}

/// Writes a line of text: capitals `size` px high, the anchor at `x`, the baseline at `y`. ASCII only.
///
/// # Errors
/// If OpenCV refuses.
pub fn text(image: &mut Image, text: &str, (x, y): (usize, usize), size: f64, anchor: Anchor) -> Result<()> {
    /// The font is one of strokes: drawn large with broad lines and then shrunk, it looks like print.
    const LARGE: i32 = 6;
    let font = imgproc::FONT_HERSHEY_SIMPLEX;
    let scale = imgproc::get_font_scale_from_height(font, (size * f64::from(LARGE)).round() as i32, 1)?;
    let stroke = (size * f64::from(LARGE) / 8.0).round().max(1.0) as i32;
    let mut below = 0;
    let extent = imgproc::get_text_size(text, font, scale, stroke, &mut below)?;
    let margin = 2 * LARGE;
    // whole pixels of the small picture, with the baseline between two of them
    let whole = |length: i32| (length + margin).div_euclid(LARGE) + 1;
    let (ascent, descent, columns) = (whole(extent.height), whole(below + stroke), whole(extent.width + margin));
    let (rows, columns) = ((ascent + descent) * LARGE, columns * LARGE);
    let mut mat = Mat::new_rows_cols_with_default(rows, columns, opencv::core::CV_8UC1, Scalar::all(0.0))?;
    let at = Point::new(margin, ascent * LARGE);
    imgproc::put_text(&mut mat, text, at, font, scale, Scalar::all(255.0), stroke, imgproc::LINE_AA, false)?;
    let ink = Image::from_mat(&mat)?.resized((columns / LARGE) as usize, (rows / LARGE) as usize)?;
    let before = 2 + match anchor {
        Anchor::Left => 0,
        Anchor::Middle => (extent.width / LARGE / 2) as usize,
        Anchor::Right => (extent.width / LARGE) as usize,
    };
    let left = x.saturating_sub(before);
    for (i, alpha) in ink.data.iter().enumerate().filter(|(_, alpha)| **alpha > 0) {
        let (px, py) = (left + i % ink.width, (y + i / ink.width).wrapping_sub(ascent as usize));
        if px < image.width && py < image.height {
            let at = (py * image.width + px) * 3;
            for (value, ink) in image.data[at..at + 3].iter_mut().zip(INK) {
                let mixed = f32::from(*value) + (f32::from(ink) - f32::from(*value)) * f32::from(*alpha) / 255.0;
                *value = mixed.round() as u8;
            }
        }
    }
    Ok(())
}

/// A horizontal bar of [`viridis`] from 0 to `full` with its ticks and, below, what it measures; 62 px high. The last tick says that its colour stands for
/// more, too.
///
/// # Errors
/// If OpenCV refuses.
pub fn color_bar(width: usize, full: f64, title: &str) -> Result<Image> {
    const MARGIN: usize = 30;
    const TOP: usize = 6;
    const HEIGHT: usize = 14;
    let mut image = plain(width, 62, [255; 3]);
    let length = width.saturating_sub(2 * MARGIN).max(2);
    let values: Vec<f32> = (0..length).map(|x| x as f32 / (length - 1) as f32).collect();
    let strip: Vec<u8> = viridis(&values)?.into_iter().flatten().collect();
    place(&mut image, &Image::new(length, HEIGHT, 3, strip.repeat(HEIGHT)), MARGIN, TOP);
    let step = tick_step(full);
    let count = (full / step).round() as usize;
    for tick in 0..=count {
        let x = MARGIN + ((length - 1) as f64 * tick as f64 / count as f64).round() as usize;
        place(&mut image, &plain(1, 5, INK), x, TOP + HEIGHT);
        let number = format!("{}", (tick as f64 * step * 1000.0).round() / 1000.0);
        let number = if tick == count { format!(">= {number}") } else { number };
        text(&mut image, &number, (x, TOP + HEIGHT + 17), 9.0, Anchor::Middle)?;
    }
    text(&mut image, title, (width / 2, 56), 9.0, Anchor::Middle)?;
    Ok(image)
}

/// The smallest of 1, 2, 3, 5 and 8 times a power of ten that is no smaller than a positive value.
pub fn round_up(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    let found = [1.0, 2.0, 3.0, 5.0, 8.0].into_iter().find(|m| m * power >= value * (1.0 - 1e-9));
    found.unwrap_or(10.0) * power
}

/// How far ticks are from each other: four or five steps to the end, or three of 3.
fn tick_step(full: f64) -> f64 {
    let power = 10f64.powf((full * (1.0 + 1e-9)).log10().floor());
    match (full / power).round() as i64 {
        1 => full / 5.0,
        2 => full / 4.0,
        8 => full / 4.0,
        n => full / n as f64,
    }
}
