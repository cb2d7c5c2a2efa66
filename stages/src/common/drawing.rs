//! Figures: meshes and points as cameras see them, laid over pictures; pictures beside and below each other; text, and
//! a colour bar.
//!
//! No stage, but what figures are made with. A layer is drawn at several samples a pixel and averaged, so that edges
//! are smooth; where it has no coverage, the picture below stays as it is, to the last bit. Knows no rows and no files.

use crate::common::media::Image;
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
/// Paper.
pub const WHITE: [u8; 3] = [255; 3];

/// What lies over a picture: for each pixel red, green and blue in 0 to 255, times how much of it is covered, and that
/// coverage.
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
        assert_eq!(
            (self.width, self.height, 3),
            (below.width, below.height, below.channels),
            "a layer fits its picture"
        );
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

/// A mesh in the world as a camera sees it, lit from above its left shoulder. The outline lies inside: nothing is drawn
/// where there is no mesh.
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
    let outside =
        |x: i64, y: i64| (0..columns).contains(&x) && (0..rows).contains(&y) && !mask[(y * columns + x) as usize];
    let near = |i: usize| {
        let (x, y) = (i as i64 % columns, i as i64 / columns);
        mask[i] && disk.iter().any(|(dx, dy)| outside(x + dx, y + dy))
    };
    (0..mask.len()).map(near).collect()
}

/// Points in the world as a camera sees them: disks of `radius` (metres), each of its colour; the nearest hides what is
/// behind it. Where there are normals, points that face away are not drawn.
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

/// What makes colours of values from 0 to 1.
pub type Colors = fn(&[f32]) -> Result<Vec<[u8; 3]>>;

/// The colours of values from 0 to 1 in viridis, which is perceptually uniform and readable for the colour-blind;
/// beyond that those of the ends.
///
/// # Errors
/// If OpenCV refuses.
pub fn viridis(values: &[f32]) -> Result<Vec<[u8; 3]>> {
    mapped(values, imgproc::COLORMAP_VIRIDIS)
}

/// The same in turbo, in which papers show errors.
///
/// # Errors
/// If OpenCV refuses.
pub fn turbo(values: &[f32]) -> Result<Vec<[u8; 3]>> {
    mapped(values, imgproc::COLORMAP_TURBO)
}

fn mapped(values: &[f32], map: i32) -> Result<Vec<[u8; 3]>> {
    let levels: Vec<u8> = (0..=255).collect();
    let mut table = Mat::default();
    imgproc::apply_color_map(&Mat::from_slice(&levels)?, &mut table, map)?;
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

/// Text is drawn so many times too large, with broad lines, and then shrunk: the font is one of strokes, and looks like
/// print then.
const LARGE: i32 = 6;
const FONT: i32 = imgproc::FONT_HERSHEY_SIMPLEX;

/// How a line of text is drawn before it is shrunk: OpenCV's scale, the width of its strokes, its width and height, and
/// how far it reaches below the baseline.
fn drawn(text: &str, size: f64) -> Result<(f64, i32, opencv::core::Size, i32)> {
    let scale = imgproc::get_font_scale_from_height(FONT, (size * f64::from(LARGE)).round() as i32, 1)?;
    let stroke = (size * f64::from(LARGE) / 8.0).round().max(1.0) as i32;
    let mut below = 0;
    let extent = imgproc::get_text_size(text, FONT, scale, stroke, &mut below)?;
    Ok((scale, stroke, extent, below))
}

/// Width of a line of text as [`text`] writes it, px.
///
/// # Errors
/// If OpenCV refuses.
pub fn text_width(text: &str, size: f64) -> Result<usize> {
    Ok((drawn(text, size)?.2.width / LARGE) as usize)
}

/// Writes a line of text: capitals `size` px high, the anchor at `x`, the baseline at `y`. ASCII only.
///
/// # Errors
/// If OpenCV refuses.
pub fn text(image: &mut Image, text: &str, (x, y): (usize, usize), size: f64, anchor: Anchor) -> Result<()> {
    let (scale, stroke, extent, below) = drawn(text, size)?;
    let margin = 2 * LARGE;
    // whole pixels of the small picture, with the baseline between two of them
    let whole = |length: i32| (length + margin).div_euclid(LARGE) + 1;
    let (ascent, descent, columns) = (whole(extent.height), whole(below + stroke), whole(extent.width + margin));
    let (rows, columns) = ((ascent + descent) * LARGE, columns * LARGE);
    let mut mat = Mat::new_rows_cols_with_default(rows, columns, opencv::core::CV_8UC1, Scalar::all(0.0))?;
    let at = Point::new(margin, ascent * LARGE);
    imgproc::put_text(&mut mat, text, at, FONT, scale, Scalar::all(255.0), stroke, imgproc::LINE_AA, false)?;
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

/// A horizontal bar of `colors`, like [`viridis`], from 0 to `full` with its ticks and, below, what it measures; 68 px
/// high. The last tick says that its colour stands for more, too.
///
/// # Errors
/// If OpenCV refuses.
pub fn color_bar(width: usize, full: f64, title: &str, colors: Colors) -> Result<Image> {
    const MARGIN: usize = 30;
    const TOP: usize = 6;
    const HEIGHT: usize = 14;
    let mut image = plain(width, 68, [255; 3]);
    let length = width.saturating_sub(2 * MARGIN).max(2);
    let values: Vec<f32> = (0..length).map(|x| x as f32 / (length - 1) as f32).collect();
    let strip: Vec<u8> = colors(&values)?.into_iter().flatten().collect();
    place(&mut image, &Image::new(length, HEIGHT, 3, strip.repeat(HEIGHT)), MARGIN, TOP);
    let step = tick_step(full);
    let count = (full / step).round() as usize;
    for tick in 0..=count {
        let x = MARGIN + ((length - 1) as f64 * tick as f64 / count as f64).round() as usize;
        place(&mut image, &plain(1, 5, INK), x, TOP + HEIGHT);
        let number = format!("{}", (tick as f64 * step * 1000.0).round() / 1000.0);
        let number = if tick == count { format!(">= {number}") } else { number };
        text(&mut image, &number, (x, TOP + HEIGHT + 19), 10.0, Anchor::Middle)?;
    }
    text(&mut image, title, (width / 2, 60), 10.0, Anchor::Middle)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_end_at_round_numbers_that_hold_the_values() {
        let found = [0.012, 1.0, 1.7, 2.01, 3.3, 6.0, 9.0, 15.05].map(round_up);
        assert_eq!(
            found.map(|v| (v * 1000.0).round()),
            [20.0, 1000.0, 2000.0, 3000.0, 5000.0, 8000.0, 10000.0, 20000.0]
        );
        for full in found {
            let steps = full / tick_step(full);
            assert!((steps - steps.round()).abs() < 1e-9 && (3.0..=5.0).contains(&steps.round()), "{full}: {steps}");
        }
    }

    #[test]
    fn the_colour_map_grows_lighter_from_violet_to_yellow() {
        let colors = viridis(&[-1.0, 0.0, 0.25, 0.5, 0.75, 1.0, 7.0]).unwrap();
        let light = |c: &[u8; 3]| 0.21 * f32::from(c[0]) + 0.72 * f32::from(c[1]) + 0.07 * f32::from(c[2]);
        assert!(colors[1..6].windows(2).all(|pair| light(&pair[1]) > light(&pair[0]) + 20.0), "{colors:?}");
        assert_eq!((colors[0], colors[6]), (colors[1], colors[5]));
        let near = |a: [u8; 3], b: [u8; 3]| a.iter().zip(b).all(|(a, b)| a.abs_diff(b) <= 3);
        assert!(near(colors[1], [68, 1, 84]) && near(colors[5], [253, 231, 37]), "{colors:?}");
    }

    #[test]
    fn the_nearest_point_is_seen_and_none_from_behind() {
        let k = [40.0, 0.0, 10.0, 0.0, 40.0, 10.0, 0.0, 0.0, 1.0];
        let camera = Camera::from_row_major(&k, &glam::DMat4::IDENTITY.to_cols_array(), 20, 20);
        let points =
            [Vec3::new(0.0, 0.0, 1.0), Vec3::new(0.0, 0.0, 2.0), Vec3::new(0.2, 0.0, 1.0), Vec3::new(0.0, 0.0, -1.0)];
        let normals = [-Vec3::Z, -Vec3::Z, Vec3::Z, Vec3::Z];
        let colors = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]];
        let shown = points_layer(&points, &normals, &colors, 0.05, &camera).over(&plain(20, 20, [255; 3]));
        let at = |x: usize, y: usize| &shown.data[(y * 20 + x) * 3..][..3];
        assert_eq!((at(10, 10), at(18, 10), at(2, 2)), (&[255, 0, 0][..], &[255; 3][..], &[255; 3][..]));
        let unturned = points_layer(&points, &[], &colors, 0.05, &camera).over(&plain(20, 20, [255; 3]));
        assert_eq!(&unturned.data[(10 * 20 + 18) * 3..][..3], [0, 0, 255]);
    }

    #[test]
    fn text_stands_at_its_anchor_and_is_never_cut() {
        let inked = |anchor| {
            let mut image = plain(400, 30, [255; 3]);
            text(&mut image, "Mesh, gy 95 %", (200, 20), 10.0, anchor).unwrap();
            let dark: Vec<(usize, usize)> =
                (0..400 * 30).filter(|i| image.data[3 * i] < 150).map(|i| (i % 400, i / 400)).collect();
            let span = |values: Vec<usize>| (*values.iter().min().unwrap(), *values.iter().max().unwrap());
            (span(dark.iter().map(|d| d.0).collect()), span(dark.iter().map(|d| d.1).collect()))
        };
        let [left, middle, right] = [Anchor::Left, Anchor::Middle, Anchor::Right].map(inked);
        assert!(left.0.0.abs_diff(200) <= 2 && right.0.1.abs_diff(200) <= 2, "{left:?} {right:?}");
        assert!((middle.0.0 + middle.0.1).abs_diff(400) <= 4, "{middle:?}");
        // capitals above the baseline, tails below
        assert!(left.1.0.abs_diff(10) <= 2 && (22..=25).contains(&left.1.1), "{left:?}");
    }
}
