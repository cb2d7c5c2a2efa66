//! What several stages need: images through OpenCV, cameras from rows.
//!
//! Knows file formats and column names of cameras, and no stage. Videos are read by `video_reader` and written by
//! `video`.

use crate::common::jpeg;
use anyhow::{Context, Result, bail};
use geometry::camera::same_shape;
use geometry::{Camera, Distortion};
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::metadata::Orientation;
use image::{ExtendedColorType, ImageDecoder, ImageEncoder, ImageReader};
use manifests::Type;
use models::face_mesh::Square;
use opencv::core::{BORDER_CONSTANT, CV_8U, CV_16U, Mat, Scalar, Size, extract_channel};
use opencv::prelude::*;
use opencv::{imgcodecs, imgproc};
use protocol::Row;
use std::fmt::Display;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use turbojpeg::{Compressor, PixelFormat, Subsamp};

/// An 8-bit image: `height x width x channels`, row by row; colour is RGB.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// 1 or 3.
    pub channels: usize,
    /// The samples.
    pub data: Vec<u8>,
}

/// Samples a side that a pixel of a resampled image is the mean of, at most: pictures of 4,096 px to 64 and more have
/// one for each of theirs, and a square that was measured wrongly ends all the same.
const TAPS: f64 = 64.0;

impl Image {
    /// An image of these samples.
    ///
    /// # Panics
    /// If their number is not `width * height * channels`.
    pub fn new(width: usize, height: usize, channels: usize, data: Vec<u8>) -> Image {
        assert_eq!(data.len(), width * height * channels, "samples of a {width} x {height} x {channels} image");
        Image { width, height, channels, data }
    }

    /// Reads an image file as RGB, or as grey if `channels` is 1.
    ///
    /// # Errors
    /// If the file is missing, cut short or no image; the message names it.
    pub fn read(path: &Path, channels: usize) -> Result<Image> {
        let flags = if channels == 1 { imgcodecs::IMREAD_GRAYSCALE } else { imgcodecs::IMREAD_COLOR };
        let mat = imgcodecs::imread(path, flags)?;
        if mat.empty() {
            let reason = if path.exists() { "it is damaged or no image" } else { "there is no such file" };
            bail!(
                "cannot read an image from {}: {reason}\nhint: PNG and JPEG are read, and what else this OpenCV knows",
                path.display()
            );
        }
        // OpenCV makes the rest of a picture that was cut short grey, and says nothing
        jpeg::ensure_whole(path)?;
        Image::from_mat(&mat)
    }

    /// The alpha channel of a TIFF or WebP file, if it has one that is not opaque; of other formats it is for
    /// `datasets`.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn other_alpha(path: &Path) -> Result<Option<Image>> {
        let mut head = [0u8; 12];
        let whole = File::open(path).and_then(|mut file| file.read_exact(&mut head));
        let is_other = head.starts_with(b"II*\0") || head.starts_with(b"MM\0*") || &head[8..] == b"WEBP";
        if whole.is_err() || !is_other {
            return Ok(None);
        }
        let mat = imgcodecs::imread(path, imgcodecs::IMREAD_UNCHANGED)?;
        if mat.channels() != 4 {
            return Ok(None);
        }
        let (mut deep, mut alpha) = (Mat::default(), Mat::default());
        extract_channel(&mat, &mut deep, 3)?;
        let scale = if deep.depth() == CV_16U { 1.0 / 257.0 } else { 1.0 };
        deep.convert_to(&mut alpha, CV_8U, scale, 0.0)?;
        let alpha = Image::from_mat(&alpha)?;
        Ok(alpha.data.iter().any(|value| *value < 255).then_some(alpha))
    }

    /// How the camera was held, if the file of a picture says so (EXIF): [`Image::read`] turns the picture by it, and
    /// whatever else reads the file may not.
    pub fn orientation(path: &Path) -> Orientation {
        let reader = ImageReader::open(path).and_then(ImageReader::with_guessed_format);
        let decoder = reader.ok().and_then(|reader| reader.into_decoder().ok());
        decoder.and_then(|mut decoder| decoder.orientation().ok()).unwrap_or(Orientation::NoTransforms)
    }

    /// Writes a PNG.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_png(&self, path: &Path) -> Result<()> {
        let mut png = Vec::new();
        let colour = if self.channels == 1 { ExtendedColorType::L8 } else { ExtendedColorType::Rgb8 };
        // twice as fast as OpenCV's, at its size
        let encoder = PngEncoder::new_with_quality(&mut png, CompressionType::Fast, FilterType::Adaptive);
        encoder
            .write_image(&self.data, self.width as u32, self.height as u32, colour)
            .with_context(|| format!("cannot encode {} as PNG", path.display()))?;
        std::fs::write(path, png).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Writes a JPEG of this quality, 1 to 100.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_jpeg(&self, path: &Path, quality: u32) -> Result<()> {
        let format = if self.channels == 3 { PixelFormat::RGB } else { PixelFormat::GRAY };
        write_jpeg(path, quality, &self.data, (self.width, self.height), format)
    }

    /// From OpenCV, whose colour is BGR.
    pub fn from_mat(mat: &Mat) -> Result<Image> {
        let (width, height) = (mat.cols() as usize, mat.rows() as usize);
        let channels = mat.channels() as usize;
        if channels != 3 {
            return Ok(Image::new(width, height, channels, mat.data_bytes()?.to_vec()));
        }
        let mut data = vec![0u8; width * height * channels];
        // converted to where it stays: a copy of a large picture costs as much as the conversion
        let mut flat = Mat::from_slice_mut(&mut data)?;
        let mut rgb = flat.reshape_mut(3, height as i32)?;
        imgproc::cvt_color_def(mat, &mut rgb, imgproc::COLOR_BGR2RGB)?;
        Ok(Image::new(width, height, channels, data))
    }

    /// For OpenCV, whose colour is BGR.
    pub fn to_mat(&self) -> Result<Mat> {
        let flat = Mat::from_slice(&self.data)?;
        let image = flat.reshape(self.channels as i32, self.height as i32)?;
        if self.channels != 3 {
            return Ok(image.try_clone()?);
        }
        let mut bgr = Mat::default();
        imgproc::cvt_color_def(&image, &mut bgr, imgproc::COLOR_RGB2BGR)?;
        Ok(bgr)
    }

    /// Resized: by area when smaller (no aliasing), bilinear when larger.
    ///
    /// # Errors
    /// If OpenCV refuses, for a size of 0.
    pub fn resized(&self, width: usize, height: usize) -> Result<Image> {
        if (width, height) == (self.width, self.height) {
            return Ok(self.clone());
        }
        let smaller = width * height < self.width * self.height;
        let filter = if smaller { imgproc::INTER_AREA } else { imgproc::INTER_LINEAR };
        let mut out = Mat::default();
        imgproc::resize(&self.to_mat()?, &mut out, Size::new(width as i32, height as i32), 0.0, 0.0, filter)?;
        Image::from_mat(&out)
    }

    /// A square of side `side` px at (`x0`, `y0`), in px of this image, resampled to `out x out`; what lies outside the
    /// image is `outside`. Every output pixel averages a grid of bilinear samples over its footprint.
    pub fn crop(&self, x0: f64, y0: f64, side: f64, out: usize, outside: u8) -> Image {
        let scale = side / out as f64;
        self.resampled(scale, out, outside, |x, y| [x0 + x * scale, y0 + y * scale])
    }

    /// The same of a square that may be turned; beyond its rim the image goes on as it ends.
    pub fn turned(&self, square: &Square, out: usize) -> Image {
        let last = [self.width as f64 - 0.5, self.height as f64 - 0.5];
        self.resampled(square.side / out as f64, out, 0, |x, y| {
            let place = square.at(x / out as f64, y / out as f64);
            [0, 1].map(|i| place[i].clamp(0.5, last[i]))
        })
    }

    /// `at` says where in this image a place of the result is, both in px; a pixel of the result has a side of `scale`
    /// here.
    fn resampled(&self, scale: f64, out: usize, outside: u8, at: impl Fn(f64, f64) -> [f64; 2]) -> Image {
        let taps = scale.ceil().clamp(1.0, TAPS) as usize;
        let place = |pixel: usize, tap: usize| pixel as f64 + (tap as f64 + 0.5) / taps as f64;
        let mut data = Vec::with_capacity(out * out * self.channels);
        let mut sum = vec![0.0f64; self.channels];
        for y in 0..out {
            for x in 0..out {
                sum.fill(0.0);
                for ty in 0..taps {
                    for tx in 0..taps {
                        let [sx, sy] = at(place(x, tx), place(y, ty));
                        self.sample(sx, sy, outside, &mut sum);
                    }
                }
                let n = (taps * taps) as f64;
                data.extend(sum.iter().map(|value| (value / n).round().clamp(0.0, 255.0) as u8));
            }
        }
        Image::new(out, out, self.channels, data)
    }

    /// Adds the bilinear sample at a continuous pixel position (centres at + 0.5) to `sum`.
    fn sample(&self, x: f64, y: f64, outside: u8, sum: &mut [f64]) {
        let (fx, fy) = (x - 0.5, y - 0.5);
        let (ix, iy) = (fx.floor() as i64, fy.floor() as i64);
        for (dy, wy) in [(0, 1.0 - (fy - fy.floor())), (1, fy - fy.floor())] {
            for (dx, wx) in [(0, 1.0 - (fx - fx.floor())), (1, fx - fx.floor())] {
                let (px, py) = (ix + dx, iy + dy);
                let inside = (0..self.width as i64).contains(&px) && (0..self.height as i64).contains(&py);
                for (c, value) in sum.iter_mut().enumerate() {
                    let sample = if inside {
                        self.data[(py as usize * self.width + px as usize) * self.channels + c]
                    } else {
                        outside
                    };
                    *value += wx * wy * f64::from(sample);
                }
            }
        }
    }

    /// Times a matte of the same size: what is to be resampled without the colours that the matte hides.
    ///
    /// # Errors
    /// If the sizes differ.
    pub fn weighted(&self, matte: &Image) -> Result<Image> {
        self.by(matte, |value, alpha| ((u32::from(value) * u32::from(alpha) + 127) / 255) as u8)
    }

    /// What [`Image::weighted`] was made of; white where the matte shows nothing.
    ///
    /// # Errors
    /// If the sizes differ.
    pub fn unweighted(&self, matte: &Image) -> Result<Image> {
        self.by(matte, |value, alpha| match u32::from(alpha) {
            0 => 255,
            alpha => ((u32::from(value) * 255 + alpha / 2) / alpha).min(255) as u8,
        })
    }

    /// Laid over white by a matte of the same size.
    ///
    /// # Errors
    /// If the sizes differ.
    pub fn over_white(&self, matte: &Image) -> Result<Image> {
        self.by(matte, |value, alpha| {
            let (value, alpha) = (u32::from(value), u32::from(alpha));
            ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8
        })
    }

    /// Each sample, made another one by the matte's value there.
    fn by(&self, matte: &Image, of: impl Fn(u8, u8) -> u8) -> Result<Image> {
        if (self.width, self.height, 1) != (matte.width, matte.height, matte.channels) {
            bail!("a {} x {} matte does not fit a {} x {} image", matte.width, matte.height, self.width, self.height);
        }
        let mut out = self.clone();
        for (pixel, &alpha) in out.data.chunks_exact_mut(self.channels).zip(&matte.data) {
            pixel.iter_mut().for_each(|sample| *sample = of(*sample, alpha));
        }
        Ok(out)
    }
}

/// Writes 8-bit samples as a JPEG of this quality, 1 to 100, with colour at half the resolution, as OpenCV does.
pub(super) fn write_jpeg(
    path: &Path,
    quality: u32,
    pixels: &[u8],
    size: (usize, usize),
    format: PixelFormat,
) -> Result<()> {
    let mut compressor = Compressor::new()?;
    compressor.set_quality(quality as i32)?;
    compressor.set_subsamp(if format == PixelFormat::GRAY { Subsamp::Gray } else { Subsamp::Sub2x2 })?;
    let image = turbojpeg::Image { pixels, width: size.0, pitch: size.0 * format.size(), height: size.1, format };
    let jpeg =
        compressor.compress_to_vec(image).with_context(|| format!("cannot encode a {} x {} JPEG", size.0, size.1))?;
    std::fs::write(path, jpeg).with_context(|| format!("cannot write {}", path.display()))
}

/// The camera of a row, for an image of this size: columns `intrinsics` (row-major, for a `width x height` image, px)
/// and `world_to_cam` (row-major, metres).
///
/// # Errors
/// If a column is missing or has another width, or the image has another shape than the calibrated one.
pub fn camera_of(row: &Row<'_>, image: Option<(usize, usize)>) -> Result<Camera> {
    let size = calibrated(row)?;
    let camera = Camera::from_row_major(&row.array("intrinsics")?, &row.array("world_to_cam")?, size.0, size.1);
    let Some((width, height)) = image else { return Ok(camera) };
    ensure_shape("a picture", (width, height), (size.0 as usize, size.1 as usize), "the calibrated pictures")?;
    Ok(camera.resized(width as u32, height as u32))
}

/// Width and height of the calibrated picture, px.
fn calibrated(row: &Row<'_>) -> Result<(u32, u32)> {
    Ok((px(row, "width")?, px(row, "height")?))
}

/// A side of the calibrated picture, px: a row's `width` or `height`.
///
/// # Errors
/// If it is not there, or no length.
pub fn px(row: &Row<'_>, side: &str) -> Result<u32> {
    let length = row.i64(side)?;
    u32::try_from(length).ok().filter(|length| *length > 0).with_context(|| {
        format!("`{side}` of a calibrated picture is {length} px\nhint: it is that which the intrinsics hold for")
    })
}

/// Checks that a picture, `what`, has the shape of `others`, whose size is `expected`, px; it may be smaller or larger.
///
/// # Errors
/// If it has another ratio of width to height.
pub fn ensure_shape(what: impl Display, found: (usize, usize), expected: (usize, usize), others: &str) -> Result<()> {
    let px = |size: (usize, usize)| (size.0 as u32, size.1 as u32);
    if !same_shape(px(found), px(expected)) {
        bail!(
            "{what}: found {} x {} px, expected the shape of {others}, {} x {} px\n\
             hint: was it turned or cropped, or does it belong to another camera or calibration?",
            found.0,
            found.1,
            expected.0,
            expected.1
        );
    }
    Ok(())
}

/// What a row says of its lens, in one of these columns: k1 k2 p1 p2 k3 k4 k5 k6; k1 to k4; k1 k2 p1 p2 k3 k4 sx1 sy1;
/// omega, radians (see [`Distortion`]).
pub const LENSES: [(&str, Type); 4] = [
    ("distortion", Type::Floats(8)),
    ("distortion_fisheye", Type::Floats(4)),
    ("distortion_thin_prism", Type::Floats(8)),
    ("distortion_fov", Type::F64),
];

/// What takes lens distortion out of the pictures of a row. The maps are made once for each size of picture.
pub struct Undistort {
    distortion: Distortion,
    camera: Camera,
    maps: Option<(Size, Mat, Mat)>,
}

impl Undistort {
    /// That of a row with one of the columns of [`LENSES`], and a camera as [`camera_of`] reads it; none if the row has
    /// none of them.
    ///
    /// # Errors
    /// If it has several, or lacks the camera's intrinsics.
    pub fn of(row: &Row<'_>) -> Result<Option<Undistort>> {
        let given: Vec<&str> = LENSES.iter().map(|(column, _)| *column).filter(|column| row.has(column)).collect();
        let distortion = match given[..] {
            [] => return Ok(None),
            ["distortion"] => Distortion::Rational(row.array("distortion")?),
            ["distortion_fisheye"] => Distortion::Fisheye(row.array("distortion_fisheye")?),
            ["distortion_thin_prism"] => Distortion::ThinPrism(row.array("distortion_thin_prism")?),
            ["distortion_fov"] => Distortion::Fov(row.f64("distortion_fov")?),
            _ => bail!("a row has `{}`\nhint: a lens is one of them", given.join("` and `")),
        };
        let size = calibrated(row)?;
        let pose = [1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0];
        let camera = Camera::from_row_major(&row.array("intrinsics")?, &pose, size.0, size.1);
        Ok((!distortion.is_identity()).then_some(Undistort { distortion, camera, maps: None }))
    }

    /// The picture that a pinhole camera of the same intrinsics would have taken, bilinear; what the lens did not see
    /// is `outside`.
    ///
    /// # Errors
    /// If OpenCV refuses.
    pub fn apply(&mut self, image: &Image, outside: u8) -> Result<Image> {
        let size = Size::new(image.width as i32, image.height as i32);
        if self.maps.as_ref().is_none_or(|(made, ..)| *made != size) {
            let (x, y) = self.distortion.maps(&self.camera.resized(image.width as u32, image.height as u32));
            let mat = |map: &[f32]| Mat::from_slice(map)?.reshape(1, size.height)?.try_clone();
            self.maps = Some((size, mat(&x)?, mat(&y)?));
        }
        let Some((_, x, y)) = &self.maps else { bail!("the maps were just made") };
        let mut out = Mat::default();
        let border = Scalar::all(f64::from(outside));
        imgproc::remap(&image.to_mat()?, &mut out, x, y, imgproc::INTER_LINEAR, BORDER_CONSTANT, border)?;
        Image::from_mat(&out)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use opencv::core::Vector;

    fn scratch(name: &str) -> std::path::PathBuf {
        let dir = std::env::temp_dir().join(format!("effigy-media-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        dir.join(name)
    }

    /// A moving gradient, which a codec cannot reduce to nothing.
    pub fn film(frames: usize) -> Vec<Image> {
        let picture = |t: usize| (0..64 * 48 * 3).map(|i| ((i * 7 + t * 13 + i / 192 * 5) % 256) as u8).collect();
        (0..frames).map(|t| Image::new(64, 48, 3, picture(t))).collect()
    }

    #[test]
    fn how_a_picture_was_held_is_found() {
        let path = scratch("held.jpg");
        film(1)[0].write_jpeg(&path, 95).unwrap();
        assert_eq!(Image::orientation(&path), Orientation::NoTransforms);
        // behind the start of the JPEG, a segment of EXIF with one field, the orientation
        let field = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x03\0\0\0\0\0\0\0";
        let bytes = std::fs::read(&path).unwrap();
        let length = (field.len() as u16 + 2).to_be_bytes();
        std::fs::write(&path, [&bytes[..2], &[0xff, 0xe1], &length, field, &bytes[2..]].concat()).unwrap();
        assert_eq!(Image::orientation(&path), Orientation::Rotate180);
        assert_eq!(Image::orientation(Path::new("no/such.jpg")), Orientation::NoTransforms);
    }

    #[test]
    fn a_crop_of_everything_is_the_image_and_outside_is_filled() {
        let image = Image::new(4, 4, 1, (0..16).map(|i| i * 16).collect());
        assert_eq!(image.crop(0.0, 0.0, 4.0, 4, 255), image);
        assert_eq!(image.crop(10.0, 10.0, 4.0, 2, 255).data, [255; 4]);
        // two by two means
        assert_eq!(image.crop(0.0, 0.0, 4.0, 2, 255).data, [40, 72, 168, 200]);
    }

    #[test]
    fn alpha_of_tiff_is_found() {
        let path = scratch("alpha.tif");
        for (alpha, expected) in [(40, Some(vec![40])), (255, None)] {
            let pixel = [9u8, 9, 9, alpha];
            let flat = Mat::from_slice(&pixel).unwrap();
            assert!(imgcodecs::imwrite(&path, &flat.reshape(4, 1).unwrap(), &Vector::new()).unwrap());
            assert_eq!(Image::other_alpha(&path).unwrap().map(|alpha| alpha.data), expected);
        }
        film(1)[0].write_png(&path).unwrap();
        assert_eq!(Image::other_alpha(&path).unwrap(), None);
    }

    #[test]
    fn a_matte_lays_an_image_over_white() {
        let image = Image::new(2, 1, 3, vec![100; 6]);
        let matte = Image::new(2, 1, 1, vec![255, 0]);
        assert_eq!(image.over_white(&matte).unwrap().data, [100, 100, 100, 255, 255, 255]);
        assert!(image.over_white(&Image::new(1, 1, 1, vec![0])).is_err());
    }

    #[test]
    fn a_picture_is_undistorted_by_its_map() {
        let k = [10.0, 0.0, 2.0, 0.0, 10.0, 1.5, 0.0, 0.0, 1.0];
        let pose = [1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0];
        let camera = Camera::from_row_major(&k, &pose, 4, 3);
        let image = Image::new(4, 3, 1, (0..12).map(|i| i * 20).collect());
        let undistorted = |k1: f64| {
            let distortion = Distortion::Rational([k1, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
            Undistort { distortion, camera: camera.clone(), maps: None }.apply(&image, 255).unwrap()
        };
        assert_eq!(undistorted(0.0), image);
        // pixel (3, 1) is taken from 0.135 px right of it (see `geometry::distortion`): 140 beside 255 outside; OpenCV
        // rounds to 1/32 px
        let expected = 140.0 + 0.135 * (255.0 - 140.0);
        assert!((f64::from(undistorted(4.0).data[7]) - expected).abs() < 2.5, "{:?}", undistorted(4.0).data);
        // the middle between columns 1 and 2 stays where it is
        assert!(undistorted(4.0).data[5].abs_diff(image.data[5]) <= 1);
    }

    /// The reference reads its G-buffers with OpenCV: unchanged, colours reversed.
    #[test]
    fn exported_pictures_are_read_by_opencv_and_its_own_are_read_here() {
        use datasets::rendering_data;
        let n = 7 * 5;
        let word = |i: usize| (i * 40503 + 7) as u16;
        let buffer = geometry::gbuffer::EncodedGBuffer {
            width: 7,
            height: 5,
            depths: (0..n).map(word).collect(),
            uv: (0..n).map(|i| [word(3 * i), word(3 * i + 1), word(3 * i + 2)]).collect(),
            normals: (0..n).map(|i| [255, word(i) as u8, i as u8]).collect(),
            uv_ambient: (0..n).map(|i| [word(i) as u8, i as u8, 0]).collect(),
            mask: (0..n).map(|i| if i % 3 == 0 { 255 } else { 0 }).collect(),
        };
        let bytes = |words: &[u16]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>();
        let expected = [
            bytes(&buffer.depths),
            bytes(buffer.uv.iter().map(|[r, g, b]| [*b, *g, *r]).collect::<Vec<_>>().as_flattened()),
            buffer.normals.iter().flat_map(|[r, g, b]| [*b, *g, *r]).collect(),
            buffer.uv_ambient.iter().flat_map(|[r, g, b]| [*b, *g, *r]).collect(),
            buffer.mask.clone(),
        ];
        let mut theirs: [std::path::PathBuf; 5] = Default::default();
        for (i, file) in rendering_data::encode(&buffer).into_iter().enumerate() {
            let path = scratch(&format!("group{i}.png"));
            std::fs::write(&path, file).unwrap();
            let mat = imgcodecs::imread(&path, imgcodecs::IMREAD_UNCHANGED).unwrap();
            assert_eq!(
                (mat.cols(), mat.rows(), mat.data_bytes().unwrap()),
                (7, 5, expected[i].as_slice()),
                "group {i}"
            );
            theirs[i] = scratch(&format!("opencv{i}.png"));
            assert!(imgcodecs::imwrite(&theirs[i], &mat, &Vector::new()).unwrap());
        }
        assert_eq!(rendering_data::read(&theirs).unwrap(), buffer);
    }
}
