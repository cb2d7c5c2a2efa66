//! Writes H.264 videos: OpenH264 encodes, an MP4 file holds what it says.
//!
//! Not through OpenCV: the encoder behind it, x264, estimates by its macroblock tree from memory that nobody has
//! written, so that the same frames give other bytes in another process. OpenH264 is built from source with one thread
//! and without assembler, so that neither the host's codecs nor its processor have a say. Knows no stage; videos are
//! read by `video_reader`.

use crate::common::media::Image;
use anyhow::{Context, Result, anyhow, bail, ensure};
use openh264::OpenH264API;
use openh264::encoder::{Encoder, EncoderConfig, FrameType, IntraFramePeriod, Profile, QpRange, RateControlMode};
use openh264::formats::YUVBuffer;
use shiguredo_mp4::TrackKind;
use shiguredo_mp4::bitstream::h264::{
    H264NalUnitType, H264SampleEntryConfig, LengthSize, build_avc1_box_from_annexb, parse_annexb_nal_units,
};
use shiguredo_mp4::boxes::SampleEntry;
use shiguredo_mp4::mux::{Mp4FileMuxer, Mp4FileMuxerOptions, Sample, estimate_maximum_moov_box_size};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

/// Ticks a second of the times in a file: MPEG's own clock, which common frame rates divide.
const CLOCK: NonZeroU32 = NonZeroU32::new(90_000).expect("not zero");
/// Of every frame; 6 more double the steps. Recordings for reconstruction are kept finer than films to look at: with
/// 26, fewer of a face's landmarks are found at 100 px.
const QUANTISER: u8 = 20;
/// Frames from one that stands alone to the next.
const PERIOD: u32 = 250;
/// The smallest side that the encoder takes, px.
const SMALLEST: usize = 16;
/// The longer and the shorter side of the largest frames that it takes, px.
const LARGEST: [usize; 2] = [3840, 2160];

/// Writes a video of all of these frames, as [`VideoWriter`] does.
///
/// # Errors
/// If there is no frame, and those of [`VideoWriter`].
#[cfg(test)]
pub fn write_video(path: &Path, fps: f64, frames: &[Image]) -> Result<()> {
    ensure!(!frames.is_empty(), "{}: a video needs at least one frame", path.display());
    let mut video = VideoWriter::new(path, fps, frames.len())?;
    frames.iter().try_for_each(|frame| video.push(frame))?;
    video.finish()
}

/// A video of RGB or grey frames, all of one size, that comes into being frame by frame: what it holds is what they
/// were encoded to. The same frames give the same bytes. Of an odd width or height, the last column or row is left out:
/// colour is kept for 2 x 2 px.
pub struct VideoWriter {
    path: PathBuf,
    fps: f64,
    encoder: Encoder,
    muxer: Mp4FileMuxer,
    file: Vec<u8>,
    /// Width, height and channels of the first frame.
    shape: Option<(usize, usize, usize)>,
    /// Frames so far.
    frames: usize,
}

impl VideoWriter {
    /// Begins a video of about so many frames, `fps` of them a second.
    ///
    /// # Errors
    /// If `fps` is not in 0.01 to 1000.
    pub fn new(path: &Path, fps: f64, frames: usize) -> Result<VideoWriter> {
        ensure!(
            (0.01..=1000.0).contains(&fps),
            "{}: found {fps} frames a second, expected 0.01 to 1000",
            path.display()
        );
        // a range of one quantiser leaves the rate control nothing to decide; without any, the encoder takes 26
        let config = EncoderConfig::new()
            .rate_control_mode(RateControlMode::Bufferbased)
            .qp(QpRange::new(QUANTISER, QUANTISER))
            .profile(Profile::High)
            .intra_frame_period(IntraFramePeriod::from_num_frames(PERIOD))
            .adaptive_quantization(false)
            .background_detection(false)
            .scene_change_detect(false)
            .skip_frames(false)
            .num_threads(1);
        let encoder = Encoder::with_api_config(OpenH264API::from_source(), config)
            .map_err(|error| anyhow!("{}: there is no H.264 encoder: {error}", path.display()))?;
        let options = Mp4FileMuxerOptions {
            reserved_moov_box_size: estimate_maximum_moov_box_size(&[frames]),
            ..Default::default()
        };
        let muxer = Mp4FileMuxer::with_options(options)?;
        let file = muxer.initial_boxes_bytes().to_vec();
        Ok(VideoWriter { path: path.to_owned(), fps, encoder, muxer, file, shape: None, frames: 0 })
    }

    /// Adds a frame.
    ///
    /// # Errors
    /// If it has another size than the first, or one that the encoder does not take (16 px a side to 3840 x 2160 px,
    /// upright or not).
    pub fn push(&mut self, frame: &Image) -> Result<()> {
        let (text, i) = (self.path.display(), self.frames);
        let first = *self.shape.get_or_insert(shape(frame));
        if shape(frame) != first {
            let [a, b] =
                [first, shape(frame)].map(|(width, height, channels)| format!("{width} x {height} x {channels}"));
            bail!("{text}: frame {i} is {b}, expected {a} as frame 0\nhint: the frames of a video have one size");
        }
        check_size(frame.width, frame.height).with_context(|| format!("{text} cannot be written"))?;
        let (width, height) = (frame.width & !1, frame.height & !1);
        let stream = self
            .encoder
            .encode(&planes(frame, width, height))
            .map_err(|error| anyhow!("{text}: the H.264 encoder refuses {width} x {height} px: {error}"))?;
        let keyframe = stream.frame_type() == FrameType::IDR;
        let units = stream.to_vec();
        let data_offset = self.file.len() as u64;
        for unit in parse_annexb_nal_units(&units)? {
            // those are said once, in the head of the file
            if ![H264NalUnitType::Sps, H264NalUnitType::Pps].contains(&unit.nal_unit_type) {
                self.file.extend(u32::try_from(unit.data.len())?.to_be_bytes());
                self.file.extend(unit.data);
            }
        }
        let data_size = self.file.len() - data_offset as usize;
        ensure!(data_size > 0, "{text}: the H.264 encoder left out frame {i}");
        let head = || build_avc1_box_from_annexb(&units, &H264SampleEntryConfig { length_size: LengthSize::FourBytes });
        let tick = |frame: usize| (frame as f64 * f64::from(CLOCK.get()) / self.fps).round() as u64;
        self.muxer.append_sample(&Sample {
            track_kind: TrackKind::Video,
            sample_entry: if i == 0 { Some(SampleEntry::Avc1(head()?)) } else { None },
            keyframe,
            timescale: CLOCK,
            duration: u32::try_from(tick(i + 1) - tick(i))?,
            composition_time_offset: None,
            data_offset,
            data_size,
        })?;
        self.frames += 1;
        Ok(())
    }

    /// Writes the file.
    ///
    /// # Errors
    /// If there was no frame, or the file cannot be written.
    pub fn finish(self) -> Result<()> {
        let VideoWriter { path, mut muxer, mut file, frames, .. } = self;
        ensure!(frames > 0, "{}: a video needs at least one frame", path.display());
        for (offset, bytes) in muxer.finalize()?.offset_and_bytes_pairs() {
            let (start, end) = (offset as usize, offset as usize + bytes.len());
            file.resize(file.len().max(end), 0);
            file[start..end].copy_from_slice(bytes);
        }
        std::fs::write(&path, file)
            .with_context(|| format!("cannot write {}\nhint: is there room on the disk?", path.display()))
    }
}

/// Whether a video can be made of frames of this size, px.
///
/// # Errors
/// If the encoder would not take them: it wants 16 px a side at least and 3840 x 2160 px at most, upright or not.
pub fn check_size(width: usize, height: usize) -> Result<()> {
    let (long, short) = (width.max(height) & !1, width.min(height) & !1);
    ensure!(
        short >= SMALLEST && long <= LARGEST[0] && short <= LARGEST[1],
        "found frames of {width} x {height} px, expected {SMALLEST} px a side to {} x {} px, upright or not\n\
         hint: the H.264 encoder takes no others; choose another size",
        LARGEST[0],
        LARGEST[1]
    );
    Ok(())
}

fn shape(frame: &Image) -> (usize, usize, usize) {
    (frame.width, frame.height, frame.channels)
}

/// A frame in luma and two colour differences: BT.601 in the limited range, as readers take a video that says nothing
/// of it. In whole numbers, 65536ths, rounded: the encoder library's own conversion cuts off, which darkens.
fn planes(frame: &Image, width: usize, height: usize) -> YUVBuffer {
    let at = |x: usize, y: usize| {
        let start = (y * frame.width + x) * frame.channels;
        [0, 1, 2].map(|channel| i32::from(frame.data[start + channel % frame.channels]))
    };
    let mut data = Vec::with_capacity(width * height * 3 / 2);
    for y in 0..height {
        data.extend((0..width).map(|x| {
            let [r, g, b] = at(x, y);
            ((16_829 * r + 33_039 * g + 6_416 * b + (16 << 16) + (1 << 15)) >> 16) as u8
        }));
    }
    for [of_r, of_g, of_b] in [[-9_714, -19_070, 28_784], [28_784, -24_103, -4_681]] {
        for y in (0..height).step_by(2) {
            data.extend((0..width).step_by(2).map(|x| {
                let four = [at(x, y), at(x + 1, y), at(x, y + 1), at(x + 1, y + 1)];
                let [r, g, b] = [0, 1, 2].map(|channel| four.iter().map(|pixel| pixel[channel]).sum::<i32>());
                // a sum of four
                ((of_r * r + of_g * g + of_b * b + (128 << 18) + (1 << 17)) >> 18) as u8
            }));
        }
    }
    YUVBuffer::from_vec(data, width, height)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::video_reader::VideoReader;
    use std::path::PathBuf;
    use std::process::Command;

    const TARGET: &str = "EFFIGY_TEST_FILMS";

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("effigy-video-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        dir.join(name)
    }

    /// A disc with a pattern and noise that moves before a wall: what x264 predicts from earlier and later frames.
    fn film(width: usize, height: usize, frames: usize) -> Vec<Image> {
        let mut seed = 1u32;
        let mut picture = |t: usize| {
            let centre = [
                width as f64 / 2.0 + width as f64 / 8.0 * (t as f64 * 0.4).sin(),
                height as f64 / 2.0 + height as f64 / 10.0 * (t as f64 * 0.3).cos(),
            ];
            let mut data = Vec::new();
            for i in 0..width * height * 3 {
                let (x, y, channel) = ((i / 3 % width) as f64, (i / 3 / width) as f64, (i % 3) as f64);
                let away = ((x - centre[0]) / (width as f64 * 0.35)).hypot((y - centre[1]) / (height as f64 * 0.4));
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let noise = f64::from(seed >> 24) % 7.0 - 3.0;
                let face = 60.0 + 120.0 * (1.0 - away) + 20.0 * (x * 0.3 + channel + t as f64 * 0.2).sin();
                data.push((noise + if away < 1.0 { face } else { 200.0 + channel * 5.0 }) as u8);
            }
            Image::new(width, height, 3, data)
        };
        (0..frames).map(&mut picture).collect()
    }

    /// Not for itself: the test below starts it in processes whose fresh memory holds something else.
    #[test]
    #[ignore = "a part of another test"]
    fn films_for_another_process() {
        let Some(target) = std::env::var_os(TARGET).map(PathBuf::from) else { return };
        let frames = film(192, 280, 16);
        // side by side: encoders that share anything would show it
        std::thread::scope(|scope| {
            for i in 0..4 {
                let (path, frames) = (target.join(format!("{i}.mp4")), &frames);
                scope.spawn(move || write_video(&path, 16.0 / 3.7, frames).unwrap());
            }
        });
    }

    #[test]
    fn same_frames_give_same_bytes() {
        let mut films: Vec<(String, Vec<u8>)> = Vec::new();
        // five processes at a time on fewer cores, twenty films in all, each process with other bytes in fresh memory
        let started: Vec<_> = [0u8, 1, 85, 170, 255]
            .into_iter()
            .map(|fill| {
                let folder = scratch(&format!("fill{fill}"));
                std::fs::create_dir_all(&folder).unwrap();
                let child = Command::new(std::env::current_exe().unwrap())
                    .args(["--ignored", "--exact", "common::video::tests::films_for_another_process"])
                    .env(TARGET, &folder)
                    .env("MALLOC_PERTURB_", fill.to_string())
                    .stdout(std::process::Stdio::null())
                    .spawn()
                    .unwrap();
                (child, folder)
            })
            .collect();
        for (mut child, folder) in started {
            assert!(child.wait().unwrap().success());
            for i in 0..4 {
                let path = folder.join(format!("{i}.mp4"));
                films.push((path.display().to_string(), std::fs::read(path).unwrap()));
            }
        }
        assert_eq!(films.len(), 20);
        let other: Vec<&str> =
            films.iter().filter(|(_, film)| *film != films[0].1).map(|(path, _)| path.as_str()).collect();
        assert!(other.is_empty(), "{} of 20 films differ from the first: {other:?}", other.len());
    }

    #[test]
    fn a_video_comes_back_as_it_was() {
        for (width, height) in [(192, 280), (101, 67), (16, 16), (640, 360)] {
            let path = scratch(&format!("{width}.mp4"));
            let frames = film(width, height, 7);
            write_video(&path, 24.0, &frames).unwrap();
            let mut video = VideoReader::open(&path).unwrap();
            assert_eq!(video.promised().unwrap(), 7);
            for frame in &frames {
                let found = video.next_frame().unwrap().unwrap();
                assert_eq!((found.width, found.height), (width & !1, height & !1));
                let (mut square, mut bias) = (0.0, 0.0);
                for (i, value) in found.data.iter().enumerate() {
                    let (x, y) = (i / 3 % found.width, i / 3 / found.width);
                    let difference = f64::from(*value) - f64::from(frame.data[(y * width + x) * 3 + i % 3]);
                    square += difference * difference;
                    bias += difference;
                }
                let n = found.data.len() as f64;
                let psnr = 10.0 * (255.0 * 255.0 * n / square).log10();
                // 38 at full size; in 16 px little is left of a pattern whose colour is kept for 2 x 2 px
                assert!(psnr > if width > 100 { 36.0 } else { 31.0 }, "{width} x {height}: {psnr:.1} dB");
                // the reader's conversion cuts off
                assert!((bias / n).abs() < 2.0, "{width} x {height}: {:.2} brighter", bias / n);
            }
            assert!(video.next_frame().unwrap().is_none());
        }
    }

    /// BT.601: 16 + 219 Y' and 128 + 224 (B' - Y') / 1.772, 128 + 224 (R' - Y') / 1.402, of values from 0 to 1.
    #[test]
    fn colours_are_those_of_the_standard() {
        use openh264::formats::YUVSource;
        for rgb in [[0u8, 0, 0], [255; 3], [17; 3], [255, 0, 0], [0, 255, 0], [0, 0, 255], [200, 90, 31]] {
            let [r, g, b] = rgb.map(|value| f64::from(value) / 255.0);
            let luma = 0.299 * r + 0.587 * g + 0.114 * b;
            let expected =
                [16.0 + 219.0 * luma, 128.0 + 224.0 * (b - luma) / 1.772, 128.0 + 224.0 * (r - luma) / 1.402];
            let found = planes(&Image::new(2, 2, 3, rgb.repeat(4)), 2, 2);
            assert!(found.y().iter().all(|value| *value == expected[0].round() as u8), "{rgb:?}: {:?}", found.y());
            assert_eq!([found.u()[0], found.v()[0]], [expected[1].round() as u8, expected[2].round() as u8], "{rgb:?}");
        }
        let grey = planes(&Image::new(2, 2, 1, vec![17, 18, 19, 20]), 2, 2);
        let coloured = planes(&Image::new(2, 2, 3, vec![17, 17, 17, 18, 18, 18, 19, 19, 19, 20, 20, 20]), 2, 2);
        assert_eq!((grey.y(), grey.u(), grey.v()), (coloured.y(), coloured.u(), coloured.v()));
    }

    #[test]
    fn what_no_video_can_be_made_of_is_named() {
        let path = scratch("none.mp4");
        let picture = |side: usize| Image::new(side, side, 3, vec![7; side * side * 3]);
        let error = |fps: f64, frames: &[Image]| format!("{:#}", write_video(&path, fps, frames).unwrap_err());
        assert!(error(24.0, &[]).contains("at least one frame"));
        assert!(error(24.0, &[picture(8)]).contains("found frames of 8 x 8 px, expected 16 px a side"));
        assert!(error(24.0, &[Image::new(2162, 2164, 1, vec![7; 2162 * 2164])]).contains("to 3840 x 2160 px"));
        assert!(error(24.0, &[picture(32), picture(34)]).contains("frame 1 is 34 x 34 x 3, expected 32 x 32 x 3"));
        assert!(error(0.0, &[picture(32)]).contains("found 0 frames a second"));
        assert!(error(f64::NAN, &[picture(32)]).contains("found NaN frames a second"));
        assert!(!path.exists());
    }
}
