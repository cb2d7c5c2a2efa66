//! Reads videos frame by frame through OpenCV, turned as they are to be shown, in the colours that the file names.
//!
//! What the container says of both is read by `display`. Knows no stage and no camera; videos are written by `video`.

use crate::common::container::{self, Length};
use crate::common::display::{self, Display};
use crate::common::media::{Image, write_jpeg};
use anyhow::{Result, bail};
use opencv::core::{Mat, ROTATE_90_CLOCKWISE, ROTATE_90_COUNTERCLOCKWISE, ROTATE_180, flip, rotate, transform};
use opencv::prelude::*;
use opencv::videoio;
use std::path::Path;
use turbojpeg::PixelFormat;

/// A frame as the decoder gave it. Most of the cost of a large picture is in copies, and what is only written needs
/// none.
pub struct Frame<'a>(&'a Mat);

impl Frame<'_> {
    /// Its pixels, RGB.
    pub fn image(&self) -> Result<Image> {
        Image::from_mat(self.0)
    }

    /// Width and height, px.
    pub fn size(&self) -> (usize, usize) {
        (self.0.cols() as usize, self.0.rows() as usize)
    }

    /// Writes a JPEG of this quality, 1 to 100: the same bytes as by way of [`Frame::image`].
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_jpeg(&self, path: &Path, quality: u32) -> Result<()> {
        write_jpeg(path, quality, self.0.data_bytes()?, self.size(), PixelFormat::BGR)
    }
}

/// Reads frames of a video one after the other.
pub struct VideoReader {
    capture: videoio::VideoCapture,
    /// The last frame as it is stored, mirrored, turned, and in its own colours, as far as these are asked for; their
    /// memory is that of the next.
    stored: Mat,
    mirrored: Mat,
    turned: Mat,
    coloured: Mat,
    display: Display,
    /// Of colours, B'G'R', that OpenCV took for those of BT.601.
    colours: Option<Mat>,
    path: String,
    length: Length,
    read: usize,
}

impl VideoReader {
    /// Opens a video.
    ///
    /// # Errors
    /// If the file is missing or no decoder takes it; the message names it.
    pub fn open(path: &Path) -> Result<VideoReader> {
        if !path.exists() {
            bail!("there is no video {}\nhint: was it moved, or the download cut short?", path.display());
        }
        let text = path.display().to_string();
        let length = container::length(path)?;
        if length == Length::Cut {
            bail!(
                "the video {text} breaks off: parts of it go on beyond the end of the file\nhint: copy or download it again"
            );
        }
        let mut capture = videoio::VideoCapture::from_file(path, videoio::CAP_FFMPEG)?;
        if !capture.is_opened()? {
            bail!(
                "cannot decode the video {text}: it is damaged, truncated or in no format that ffmpeg knows\n\
                 hint: copy or download it again; does a video player show it?"
            );
        }
        let display = match display::of(path)? {
            // turned here: OpenCV's versions disagree on where to
            Some(display) => {
                capture.set(videoio::CAP_PROP_ORIENTATION_AUTO, 0.0)?;
                display
            }
            None => Display::default(),
        };
        let [stored, mirrored, turned, coloured] = [(); 4].map(|()| Mat::default());
        let colours = colours(&display)?;
        Ok(VideoReader { capture, stored, mirrored, turned, coloured, display, colours, path: text, length, read: 0 })
    }

    /// Width and height of its frames, px, as they are shown.
    pub fn size(&self) -> Result<(u32, u32)> {
        let side = |property: i32| -> Result<u32> { Ok(self.capture.get(property)?.max(0.0) as u32) };
        let (width, height) = (side(videoio::CAP_PROP_FRAME_WIDTH)?, side(videoio::CAP_PROP_FRAME_HEIGHT)?);
        Ok(match self.display.quarters {
            1 | 3 => (height, width),
            _ => (width, height),
        })
    }

    /// Frames a second, by the container; 0 if it does not say.
    pub fn rate(&self) -> Result<f64> {
        Ok(self.capture.get(videoio::CAP_PROP_FPS)?.max(0.0))
    }

    /// The number of frames that the container promises; 0 if it does not count them.
    pub fn promised(&self) -> Result<usize> {
        match self.length {
            Length::Counted => Ok(self.capture.get(videoio::CAP_PROP_FRAME_COUNT)?.max(0.0) as usize),
            Length::Whole | Length::Cut => Ok(0),
        }
    }

    /// The next frame, RGB; none at the end.
    ///
    /// # Errors
    /// If the video ends before the number of frames its container promises.
    pub fn next_frame(&mut self) -> Result<Option<Image>> {
        self.next_raw()?.map(|frame| frame.image()).transpose()
    }

    /// The next frame as it was decoded; none at the end.
    ///
    /// # Errors
    /// As [`VideoReader::next_frame`].
    pub fn next_raw(&mut self) -> Result<Option<Frame<'_>>> {
        let found = self.capture.read(&mut self.stored)? && !self.stored.empty();
        if !self.counted(found)? {
            return Ok(None);
        }
        let mut last = &self.stored;
        if self.display.mirrored {
            flip(last, &mut self.mirrored, 1)?;
            last = &self.mirrored;
        }
        if let Some(code) = rotation(self.display.quarters) {
            rotate(last, &mut self.turned, code)?;
            last = &self.turned;
        }
        if let Some(colours) = &self.colours {
            transform(last, &mut self.coloured, colours)?;
            last = &self.coloured;
        }
        Ok(Some(Frame(last)))
    }

    /// What is to be said of its colours, if they cannot be those that were filmed.
    ///
    /// # Errors
    /// If OpenCV refuses.
    pub fn remark(&self) -> Result<Option<String>> {
        let Some(colours) = &self.display.colours else { return Ok(None) };
        if colours.is_hdr() {
            return Ok(Some(format!(
                "{} is a film in HDR (HLG or PQ), whose tones are not brought to those of pictures: it comes out pale; \
                 `ffmpeg -i in.mov -vf zscale=t=linear:npl=100,format=gbrpf32le,zscale=p=bt709,tonemap=hable,zscale=t=bt709:m=bt709:r=tv,format=yuv420p out.mp4` \
                 makes it one of ordinary range, or switch HDR off in the camera",
                self.path
            )));
        }
        // ffmpeg's formats of more than 8 bits end their code with the number of bits, and OpenCV takes the limited
        // range for granted
        let format = self.capture.get(videoio::CAP_PROP_CODEC_PIXEL_FORMAT)?.max(0.0) as u32;
        let is_deep = (9..=16).contains(&(format >> 24));
        Ok((colours.full_range && is_deep).then(|| {
            format!(
                "{} has more than 8 bits in the full range and is read as of the limited range, so that what is nearly black or nearly white is lost; \
                 `ffmpeg -i in.mp4 -vf scale=out_range=tv -color_range tv -pix_fmt yuv420p -crf 10 out.mp4` brings it there",
                self.path
            )
        }))
    }

    /// Passes over the next frame, which spares its conversion; false at the end.
    ///
    /// # Errors
    /// As [`VideoReader::next_frame`].
    pub fn skip_frame(&mut self) -> Result<bool> {
        let found = self.capture.grab()?;
        self.counted(found)
    }

    fn counted(&mut self, found: bool) -> Result<bool> {
        self.read += usize::from(found);
        let promised = if found { 0 } else { self.promised()? };
        if self.read < promised {
            bail!(
                "the video {} breaks off after {} of {promised} frames\nhint: copy or download it again",
                self.path,
                self.read
            );
        }
        Ok(found)
    }
}

/// OpenCV's name of so many quarters of a turn, clockwise.
fn rotation(quarters: u8) -> Option<i32> {
    match quarters {
        1 => Some(ROTATE_90_CLOCKWISE),
        2 => Some(ROTATE_180),
        3 => Some(ROTATE_90_COUNTERCLOCKWISE),
        _ => None,
    }
}

/// What takes B'G'R' that OpenCV took for colours of BT.601 to what they are.
fn colours(display: &Display) -> Result<Option<Mat>> {
    let Some(rows) = display.colours.and_then(|colours| colours.out_of_bt601()) else { return Ok(None) };
    let mut flat: Vec<f32> = rows.as_flattened().iter().map(|k| *k as f32).collect();
    // both sides the other way round
    flat.reverse();
    Ok(Some(Mat::from_slice(&flat)?.reshape(1, 3)?.try_clone()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::media::tests::film;
    use crate::common::video::write_video;

    fn scratch(name: &str) -> std::path::PathBuf {
        let dir = std::env::temp_dir().join(format!("effigy-reader-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        dir.join(name)
    }

    #[test]
    fn a_phone_that_was_held_upright_gives_upright_pictures() {
        // dark, with a bright corner where it is stored at the upper left
        let bright = |i: usize| i / 3 % 64 < 16 && i / 3 / 64 < 16;
        let picture = (0..64 * 48 * 3).map(|i| if bright(i) { 220 } else { 30 }).collect();
        let path = scratch("phone.mp4");
        write_video(&path, 24.0, &[Image::new(64, 48, 3, picture)]).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let head = bytes.windows(4).position(|name| name == b"tkhd").unwrap() + 4;
        let matrix = head + if bytes[head] == 1 { 52 } else { 40 };
        // the matrix, the size, and whether the corner is right and below
        for (turn, size, right, below) in [
            ([1, 0, 0, 1], (64, 48), false, false),
            ([0, 1, -1, 0], (48, 64), true, false),
            ([-1, 0, 0, -1], (64, 48), true, true),
            ([0, -1, 1, 0], (48, 64), false, true),
            ([-1, 0, 0, 1], (64, 48), true, false),
        ] {
            let mut bytes = bytes.clone();
            for (place, number) in [0, 1, 3, 4].into_iter().zip(turn) {
                let at = matrix + 4 * place;
                bytes[at..at + 4].copy_from_slice(&(number * 65536i32).to_be_bytes());
            }
            std::fs::write(&path, bytes).unwrap();
            let mut video = VideoReader::open(&path).unwrap();
            assert_eq!(video.size().unwrap(), (size.0 as u32, size.1 as u32), "{turn:?}");
            let found = video.next_frame().unwrap().unwrap();
            assert_eq!((found.width, found.height), size, "{turn:?}");
            for (x, y) in [(false, false), (true, false), (false, true), (true, true)] {
                let at = |far: bool, side: usize| if far { side - 6 } else { 5 };
                let value = found.data[(at(y, found.height) * found.width + at(x, found.width)) * 3];
                assert_eq!(value > 128, (x, y) == (right, below), "{turn:?}: {value} at {x}, {y}");
            }
        }
    }

    #[test]
    fn colours_of_a_file_that_says_nothing_stay() {
        assert!(colours(&Display::default()).unwrap().is_none());
        let bt709 = display::Colours { transfer: 1, matrix: 1, full_range: false };
        let display = Display { colours: Some(bt709), ..Display::default() };
        let matrix = colours(&display).unwrap().unwrap();
        let rows = bt709.out_of_bt601().unwrap();
        // blue of red
        assert_eq!(*matrix.at_2d::<f32>(0, 2).unwrap(), rows[2][0] as f32);
    }

    #[test]
    fn frames_passed_over_are_those_between() {
        let (path, whole, straight) = (scratch("every.mp4"), scratch("whole.jpg"), scratch("straight.jpg"));
        write_video(&path, 24.0, &film(7)).unwrap();
        let (mut all, mut some) = (VideoReader::open(&path).unwrap(), VideoReader::open(&path).unwrap());
        for i in 0..7 {
            let expected = all.next_frame().unwrap().unwrap();
            if i % 3 != 0 {
                assert!(some.skip_frame().unwrap());
                continue;
            }
            let found = some.next_raw().unwrap().unwrap();
            assert_eq!((found.image().unwrap(), found.size()), (expected.clone(), (64, 48)), "frame {i}");
            expected.write_jpeg(&whole, 95).unwrap();
            found.write_jpeg(&straight, 95).unwrap();
            assert_eq!(std::fs::read(&whole).unwrap(), std::fs::read(&straight).unwrap(), "frame {i}");
        }
        assert!(!some.skip_frame().unwrap() && all.next_frame().unwrap().is_none());
    }

    #[test]
    fn missing_and_broken_videos_are_named() {
        let error = VideoReader::open(Path::new("no/such.mp4")).err().unwrap().to_string();
        assert!(error.contains("no/such.mp4"), "{error}");

        let path = scratch("cut.mp4");
        write_video(&path, 24.0, &film(30)).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for keep in [0, bytes.len() / 3, bytes.len() / 2] {
            std::fs::write(&path, &bytes[..keep]).unwrap();
            let read = || -> Result<usize> {
                let mut video = VideoReader::open(&path)?;
                let mut count = 0;
                while video.next_frame()?.is_some() {
                    count += 1;
                }
                Ok(count)
            };
            let error = read().expect_err("a cut video is no video").to_string();
            assert!(error.contains("cut.mp4"), "{keep} bytes: {error}");
        }
    }
}
