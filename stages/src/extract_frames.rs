//! `extract_frames`: frames of videos, and pictures, resized, colour-corrected, without distortion, laid over white by
//! a matte.
//!
//! reads: video or image with timestep and moment?, matte_video? or matte? or background?, color_transform? or
//! color_polynomial?, every?, distortion? or distortion_fisheye? or distortion_thin_prism? or distortion_fov? with
//! intrinsics, width, height
//! writes: timestep, image (RGB, PNG or JPEG), matte (grey PNG); colours, lens and background that it was corrected by,
//! as null, since it is done. The matte stays: who extracts from what was extracted says `over_white: false`
//!
//! A picture has the shape of those that its camera's calibration is for, and a matte that of its picture; sizes may
//! differ. A row of the input is a video, and each of its frames taken is a row of the output; or it is a picture, and
//! is taken if its number is that of a frame that would be: its `moment`, which counts those that are there, or else
//! its `timestep`. `timestep` is the number of the frame in the video. A video of mattes has as many frames as that of
//! the pictures: with more or fewer it is of another recording, or one of both was cut. Without a matte, the alpha
//! channel of a picture is one, of TIFF and WebP too, or it is cut out against the picture of the background, if there
//! is one. Knows nothing of people: what is in the picture, and where, is for later stages.

use crate::common::faults::hinted;
use crate::common::matting;
use crate::common::media::{Image, LENSES, Undistort, ensure_shape};
use crate::common::video_reader::{Frame, VideoReader};
use anyhow::{Context, Result, bail, ensure};
use datasets::colour::Correction;
use image::metadata::Orientation;
use manifests::Type;
use protocol::{Cx, Grain, OutRow, Row, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Take every n-th frame of a video, the first included, and of pictures those whose `moment`, or else their
    /// timestep, is a multiple of n; a column `every` of a row goes before. The paper takes every 3rd of 73 frames a
    /// second.
    #[serde(default = "every")]
    #[schemars(range(min = 1))]
    every: u32,
    /// Width of the images in px, the height in proportion; 0 keeps the video's.
    #[serde(default)]
    #[schemars(range(max = 16384))]
    width: u32,
    /// Whether a picture is laid over white by its matte. Who lays it over something later wants it as it is: twice
    /// leaves a rim.
    #[serde(default = "yes")]
    over_white: bool,
    /// How images are written; mattes are always PNG.
    #[serde(default)]
    format: Format,
    /// Quality of JPEG images, 1 to 100.
    #[serde(default = "quality")]
    #[schemars(range(min = 1, max = 100))]
    quality: u32,
}

/// A format of image files.
#[derive(Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Format {
    /// Without loss.
    #[default]
    Png,
    /// Smaller and faster, as the published captures are passed on.
    Jpeg,
}

fn yes() -> bool {
    true
}
fn quality() -> u32 {
    95
}

fn every() -> u32 {
    1
}

/// Videos that a process reads side by side. More processes would load their libraries, as long as some videos take,
/// for each; with more videos in one, more would be read again if one of them is broken.
const TOGETHER: usize = 2;

fn def() -> StageDef {
    StageDef::new("extract_frames", 8, Grain::Row)
        .doc("Takes every n-th frame of each video, over white where there is a matte.")
        .may_read([("video", Type::Blob), ("image", Type::Blob), ("timestep", Type::I64), ("every", Type::I64)])
        .may_read([("moment", Type::I64)])
        .may_read([("matte_video", Type::Blob), ("matte", Type::Blob), ("background", Type::Blob)])
        .may_read([("color_transform", Type::Floats(12)), ("color_polynomial", Type::Floats(0))])
        .may_read(LENSES)
        .may_read([("intrinsics", Type::Floats(9)), ("width", Type::I64), ("height", Type::I64)])
        .writes([("timestep", Type::I64), ("image", Type::Blob), ("matte", Type::Blob)])
        // nobody is to correct the same a second time
        .writes([
            ("background", Type::Blob),
            ("color_transform", Type::Floats(12)),
            ("color_polynomial", Type::Floats(0)),
        ])
        .writes(LENSES)
        .threads(TOGETHER)
        .batch(TOGETHER)
}

protocol::register!(Params, def, |params, _: &Cx<'_>| anyhow::Ok(ExtractFrames { params }));

struct ExtractFrames {
    params: Params,
}

impl Stage for ExtractFrames {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        let stage = &*self;
        let side_by_side = |units: &[Unit<'_>]| -> Vec<Result<Rows>> {
            std::thread::scope(|scope| {
                let threads: Vec<_> = units.iter().map(|unit| scope.spawn(|| stage.extract(unit, cx))).collect();
                threads.into_iter().map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
            })
        };
        units.chunks(cx.threads.max(1)).flat_map(side_by_side).collect()
    }
}

/// What a matte has the shape of.
const PICTURE: &str = "the picture that this is the matte of";

/// What is done to each frame of a recording.
struct Treatment {
    /// Size of the pictures that the calibration is for, px.
    calibrated: Option<(usize, usize)>,
    undistort: Option<Undistort>,
    colour: Option<Correction>,
    background: Option<Image>,
    width: usize,
    over_white: bool,
}

impl Treatment {
    fn of(row: &Row<'_>, params: &Params) -> Result<Treatment> {
        let colour = match (row.has("color_transform"), row.has("color_polynomial")) {
            (false, false) => None,
            (true, false) => Some(Correction::Affine(row.array("color_transform")?)),
            (false, true) => Some(Correction::Polynomial(row.floats("color_polynomial")?)),
            (true, true) => {
                bail!("a row has both `color_transform` and `color_polynomial`\nhint: a camera has one of them")
            }
        };
        let background = row.maybe_path("background")?.map(|path| Image::read(&path, 3)).transpose()?;
        let calibrated = match row.has("intrinsics") && row.has("width") && row.has("height") {
            false => None,
            true => Some((row.i64("width")? as usize, row.i64("height")? as usize)),
        };
        let (width, over_white) = (params.width as usize, params.over_white);
        Ok(Treatment { calibrated, undistort: Undistort::of(row)?, colour, background, width, over_white })
    }

    /// Checks the shape of a frame of this file.
    fn fits(&self, path: &Path, size: (usize, usize)) -> Result<()> {
        self.calibrated
            .map_or(Ok(()), |expected| ensure_shape(path.display(), size, expected, "the calibrated pictures"))
    }

    /// A picture that is no frame of a video, finished, and its matte.
    fn picture(&mut self, path: &Path, row: &Row<'_>, cx: &Cx<'_>) -> Result<(Image, Option<Image>)> {
        // looked for only where it matters: it takes the file's contents once more
        let orientation = self.calibrated.map_or(Orientation::NoTransforms, |_| Image::orientation(path));
        ensure!(
            orientation == Orientation::NoTransforms,
            "{}: found a picture that is to be turned when it is shown (EXIF orientation {}), expected one that is stored upright\n\
             hint: calibrations are of pictures as they are stored or of turned ones, and nothing tells; `mogrify -auto-orient` turns the files, \
             which are to be calibrated then",
            path.display(),
            orientation.to_exif()
        );
        let image = Image::read(path, 3)?;
        let size = (image.width, image.height);
        self.fits(path, size)?;
        let matte = |path: PathBuf| -> Result<Image> {
            let (matte, remark) = matte_of(&path)?;
            ensure_shape(path.display(), (matte.width, matte.height), size, PICTURE)?;
            remark.iter().for_each(|remark| cx.warn(remark));
            Ok(matte)
        };
        match row.maybe_path("matte")? {
            Some(path) => self.apply(image, Some(matte(path)?)),
            None => self.cut_out(image, alpha(path)?),
        }
    }

    /// The finished picture, and the matte that it brought along: what is hidden by that has colours that nobody meant,
    /// black mostly, and has no part in what is resampled.
    fn cut_out(&mut self, image: Image, alpha: Option<Image>) -> Result<(Image, Option<Image>)> {
        match alpha {
            Some(alpha) if self.resamples(image.width) => self.finish(image.weighted(&alpha)?, Some(alpha), true),
            alpha => self.apply(image, alpha),
        }
    }

    /// Whether pixels of a picture of this width are mixed.
    fn resamples(&self, width: usize) -> bool {
        self.undistort.is_some() || (self.width != 0 && self.width != width)
    }

    /// Whether a frame without a matte is finished as it came.
    fn leaves(&self, frame: &Frame<'_>) -> bool {
        let same = self.width == 0 || self.width == frame.size().0;
        same && self.undistort.is_none() && self.colour.is_none() && self.background.is_none()
    }

    /// The finished frame, and its matte.
    fn apply(&mut self, frame: Image, matte: Option<Image>) -> Result<(Image, Option<Image>)> {
        // a matte is cut out of what the camera saw: the background has its distortion and its colours too
        let matte = match (matte, &self.background) {
            (None, Some(background)) => Some(matting::matte(&frame, background)?),
            (matte, _) => matte,
        };
        self.finish(frame, matte, false)
    }

    /// The frame without distortion, in its size and colours, and its matte. One that is weighted by its matte is so no
    /// more.
    fn finish(&mut self, frame: Image, matte: Option<Image>, weighted: bool) -> Result<(Image, Option<Image>)> {
        let (frame, matte) = match &mut self.undistort {
            None => (frame, matte),
            Some(undistort) => {
                let matte = matte.map(|matte| undistort.apply(&matte, 0)).transpose()?;
                (undistort.apply(&frame, if weighted { 0 } else { 255 })?, matte)
            }
        };
        let width = if self.width == 0 { frame.width } else { self.width };
        let height = (frame.height * width).div_ceil(frame.width);
        let mut image =
            if (width, height) == (frame.width, frame.height) { frame } else { frame.resized(width, height)? };
        let matte = matte.map(|matte| {
            let green = matte.data.chunks_exact(matte.channels).map(|pixel| pixel[matte.channels / 2]).collect();
            Image::new(matte.width, matte.height, 1, green).resized(width, height)
        });
        let matte = matte.transpose()?;
        if let Some(matte) = matte.as_ref().filter(|_| weighted) {
            image = image.unweighted(matte)?;
        }
        // on the smaller picture, as the published readers do
        if let Some(colour) = &self.colour {
            colour.apply(&mut image.data);
        }
        let Some(matte) = matte else { return Ok((image, None)) };
        let image = if self.over_white { image.over_white(&matte)? } else { image };
        Ok((image, Some(matte)))
    }
}

/// A matte that is a file of its own, and what is to be said of it.
fn matte_of(path: &Path) -> Result<(Image, Option<&'static str>)> {
    let mut matte = Image::read(path, 1)?;
    // written as truth values, which nerfstudio takes as they are meant; a few ones are the noise of a mask in which
    // nobody is, and JPEG has none but noise
    let ones = matte.data.iter().filter(|value| **value == 1).count();
    let is_lossy =
        path.extension().is_some_and(|ext| ext.eq_ignore_ascii_case("jpg") || ext.eq_ignore_ascii_case("jpeg"));
    if matte.data.iter().max() == Some(&1) && 200 * ones >= matte.data.len() && !is_lossy {
        matte.data.iter_mut().for_each(|value| *value *= 255);
    }
    let Some(alpha) = alpha(path)? else { return Ok((matte, None)) };
    // the same of all: thousands of sentences would hide others
    Ok((matte.weighted(&alpha)?, Some("masks have an alpha channel: what is transparent in them is outside, too")))
}

/// The matte that a picture carries as its alpha channel.
fn alpha(picture: &Path) -> Result<Option<Image>> {
    let found = datasets::views::alpha(picture).map_err(hinted)?;
    match found {
        Some(alpha) => Ok(Some(Image::new(alpha.width() as usize, alpha.height() as usize, 1, alpha.into_raw()))),
        None => Image::other_alpha(picture),
    }
}

/// A video of mattes beside a video of pictures, frame by frame.
struct Mattes {
    path: PathBuf,
    video: VideoReader,
    /// The video of the pictures.
    pictures: PathBuf,
    /// Frames that were taken or passed over.
    frames: usize,
}

impl Mattes {
    fn open(path: PathBuf, pictures: &Path) -> Result<Mattes> {
        Ok(Mattes { video: VideoReader::open(&path)?, path, pictures: pictures.to_owned(), frames: 0 })
    }

    /// Passes over the next.
    fn skip(&mut self) -> Result<()> {
        let is_there = self.video.skip_frame()?;
        self.count(is_there)
    }

    /// The next, of a picture of this size.
    fn take(&mut self, size: (usize, usize)) -> Result<Image> {
        let matte = self.video.next_frame()?;
        self.count(matte.is_some())?;
        let matte = matte.context("a matte that was counted")?;
        ensure_shape(self.path.display(), (matte.width, matte.height), size, PICTURE)?;
        Ok(matte)
    }

    fn count(&mut self, is_there: bool) -> Result<()> {
        ensure!(is_there, self.other_than(self.frames, &format!("more than {}", self.frames)));
        self.frames += 1;
        Ok(())
    }

    /// Checks that there is none left, now that the pictures are at their end.
    fn end(mut self) -> Result<()> {
        let pictures = self.frames;
        while self.video.skip_frame()? {
            self.frames += 1;
        }
        ensure!(self.frames == pictures, self.other_than(self.frames, &pictures.to_string()));
        Ok(())
    }

    fn other_than(&self, mattes: usize, pictures: &str) -> String {
        format!(
            "the matte video {} has {mattes} frames, and the video {} has {pictures}\nhint: are they of one recording? copy or download both again",
            self.path.display(),
            self.pictures.display()
        )
    }
}

impl ExtractFrames {
    fn extract(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let row = unit.row();
        let every = if row.has("every") { row.i64("every")? } else { i64::from(self.params.every) };
        let taken = usize::try_from(every).ok().filter(|&n| n > 0);
        let every = taken.with_context(|| format!("column `every` holds {every}, expected 1 or more"))?;
        let mut treatment = Treatment::of(&row, &self.params)?;
        let mut rows = Rows::new();
        if let Some(path) = row.maybe_path("image")? {
            let timestep = usize::try_from(row.i64("timestep")?).context("`timestep` must not be negative")?;
            // timesteps may begin at 1, or be those of every third frame already
            let moment = if row.has("moment") { row.i64("moment")? } else { row.i64("timestep")? };
            if usize::try_from(moment).context("`moment` must not be negative")? % every == 0 {
                // the file is one of thousands, and lies where its contents name it
                let done = treatment.picture(&path, &row, cx).with_context(|| format!("timestep {timestep}"))?;
                rows.push(self.put(unit, cx, timestep, done)?);
            }
            return Ok(rows);
        }
        let path = row.maybe_path("video")?.context("a row has neither `video` nor `image`")?;
        let mut video = VideoReader::open(&path)?;
        if let Some(remark) = video.remark()? {
            cx.warn(&remark);
        }
        let mattes = row.maybe_path("matte_video")?;
        let mut mattes = mattes.map(|mattes| Mattes::open(mattes, &path)).transpose()?;
        for timestep in 0.. {
            if timestep % every != 0 {
                if !video.skip_frame()? {
                    break;
                }
                if let Some(mattes) = &mut mattes {
                    mattes.skip()?;
                }
                continue;
            }
            let Some(frame) = video.next_raw()? else { break };
            treatment.fits(&path, frame.size())?;
            rows.push(match &mut mattes {
                None if self.params.format == Format::Jpeg && treatment.leaves(&frame) => {
                    let path = self.path(unit, cx, timestep);
                    frame.write_jpeg(&path, self.params.quality)?;
                    OutRow::new().i64("timestep", timestep).file("image", &path)
                }
                None => self.put(unit, cx, timestep, treatment.apply(frame.image()?, None)?)?,
                Some(mattes) => {
                    let matte = mattes.take(frame.size())?;
                    self.put(unit, cx, timestep, treatment.apply(frame.image()?, Some(matte))?)?
                }
            });
        }
        mattes.map_or(Ok(()), Mattes::end)?;
        Ok(rows)
    }

    /// Where the image of a moment is written.
    fn path(&self, unit: &Unit<'_>, cx: &Cx<'_>, timestep: usize) -> PathBuf {
        let ending = if self.params.format == Format::Jpeg { "jpg" } else { "png" };
        cx.file(unit, &format!("frame_{timestep:05}.{ending}"))
    }

    /// Writes a finished frame and its matte; gives back their row.
    fn put(&self, unit: &Unit<'_>, cx: &Cx<'_>, timestep: usize, done: (Image, Option<Image>)) -> Result<OutRow> {
        let (image, matte) = done;
        let mut out = OutRow::new().i64("timestep", timestep);
        if let Some(matte) = matte {
            let path = cx.file(unit, &format!("matte_{timestep:05}.png"));
            matte.write_png(&path)?;
            out = out.file("matte", &path);
        }
        let path = self.path(unit, cx, timestep);
        match self.params.format {
            Format::Jpeg => image.write_jpeg(&path, self.params.quality)?,
            Format::Png => image.write_png(&path)?,
        }
        Ok(out.file("image", &path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::video::write_video;

    #[test]
    fn masks_of_truth_values_and_of_alpha_are_mattes() {
        let root = std::env::temp_dir().join(format!("effigy-masks-{}", std::process::id()));
        std::fs::create_dir_all(&root).unwrap();
        let path = root.join("mask.png");
        let read = |values: [u8; 3]| {
            Image::new(3, 1, 1, values.to_vec()).write_png(&path).unwrap();
            matte_of(&path).unwrap()
        };
        assert_eq!(read([0, 1, 1]).0.data, [0, 255, 255]);
        assert_eq!((read([0, 1, 2]).0.data, read([0, 0, 0]).0.data), (vec![0, 1, 2], vec![0; 3]));
        assert_eq!(read([0, 100, 255]), (Image::new(3, 1, 1, vec![0, 100, 255]), None));
        // white all over, and cut out
        let pixel = |x: u32| image::Rgba([255, 255, 255, [0, 100, 255][x as usize]]);
        image::RgbaImage::from_fn(3, 1, |x, _| pixel(x)).save(&path).unwrap();
        let (matte, remark) = matte_of(&path).unwrap();
        assert_eq!(matte.data, [0, 100, 255]);
        assert!(remark.unwrap().contains("have an alpha channel"));
        std::fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn what_alpha_hides_leaves_no_rim() {
        // a grey square over black that is not there
        let shows = |i: usize| i % 9 < 5;
        let image = || Image::new(9, 9, 3, (0..81).flat_map(|i| [if shows(i) { 100 } else { 0 }; 3]).collect());
        let alpha = || Some(Image::new(9, 9, 1, (0..81).map(|i| if shows(i) { 255 } else { 0 }).collect()));
        let done = |width: usize, over_white: bool| {
            let mut treatment =
                Treatment { calibrated: None, undistort: None, colour: None, background: None, width, over_white };
            treatment.cut_out(image(), alpha()).unwrap()
        };
        let (found, matte) = done(3, true);
        // two thirds of the middle column are shown
        assert_eq!(matte.unwrap().data[1], 170);
        let expected = 100.0 * 170.0 / 255.0 + 255.0 * 85.0 / 255.0;
        assert!((f64::from(found.data[3]) - expected).abs() <= 2.0, "{} is not {expected}", found.data[3]);
        assert!(done(3, false).0.data[3].abs_diff(100) <= 1);
        // as it was, where no pixels are mixed
        assert_eq!(done(0, false).0, image());
        assert_eq!(done(9, true).0, image().over_white(&alpha().unwrap()).unwrap());
    }

    #[test]
    fn mattes_are_as_many_as_pictures() {
        let root = std::env::temp_dir().join(format!("effigy-mattes-{}", std::process::id()));
        std::fs::create_dir_all(&root).unwrap();
        let (path, pictures) = (root.join("alpha.mp4"), root.join("cam.mp4"));
        let frame = Image::new(32, 32, 3, vec![200; 32 * 32 * 3]);
        write_video(&path, 24.0, &[frame.clone(), frame.clone(), frame]).unwrap();
        // as many pictures as these, every second of which is taken
        let beside = |count: usize| -> Result<()> {
            let mut mattes = Mattes::open(path.clone(), &pictures)?;
            for at in 0..count {
                if at % 2 == 0 { mattes.take((32, 32)).map(|_| ())? } else { mattes.skip()? }
            }
            mattes.end()
        };
        assert!(beside(3).is_ok());
        let error = |count| beside(count).unwrap_err().to_string();
        for (pictures, expected) in [(4, "has more than 3"), (2, "has 2\n"), (0, "has 0\n")] {
            let error = error(pictures);
            assert!(error.contains("alpha.mp4 has 3 frames, and the video"), "{error}");
            assert!(error.contains(&format!("cam.mp4 {expected}")) && error.contains("hint:"), "{error}");
        }
        let error = Mattes::open(path.clone(), &pictures).unwrap().take((32, 48)).unwrap_err().to_string();
        assert!(error.contains("alpha.mp4: found 32 x 32 px"), "{error}");
        std::fs::remove_dir_all(&root).unwrap();
    }
}
