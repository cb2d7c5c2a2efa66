//! When the frames of videos were taken: evenly, and in the videos of one scene at the same times?
//!
//! A timestep is the number of a frame. Times are read from MP4 and MOV alone (ISO/IEC 14496-12: `mdhd` 8.4.2, `stts`
//! 8.6.1.2, `ctts` 8.6.1.3), which phones write, whose rate varies; films in fragments, and other containers, say
//! nothing of it here. Beginnings are not compared: what started when stands in no table. Decodes nothing.

use crate::common::display::{inside, pictures, tables};
use crate::common::video_reader::VideoReader;
use anyhow::{Result, bail};
use protocol::Cx;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

/// Checks that videos of one scene show the same moments under the same numbers of frames. Other numbers of frames,
/// frames that are not evenly spaced and rates that lead apart are told. One video alone may be as it is.
///
/// # Errors
/// If two have different rates; the message names them.
pub fn ensure_one_rate<'a>(videos: impl Iterator<Item = &'a Path>, cx: &Cx<'_>) -> Result<()> {
    let (mut clocks, mut times) = (Vec::new(), Vec::new());
    for path in videos {
        // one that is broken is told by whoever reads its frames, and keeps nothing else from being read
        let Ok(video) = VideoReader::open(path) else { continue };
        let (rate, frames) = (video.rate()?, video.promised()?);
        clocks.push(Clock { path, rate, frames, uneven: None });
        times.push(of(path));
    }
    // cameras of one trigger leave out the same frames, and are together all the same
    if !agree(&times) {
        clocks.iter_mut().zip(&times).for_each(|(clock, times)| clock.uneven = times.as_deref().and_then(uneven));
    }
    remarks(&clocks)?.iter().for_each(|remark| cx.warn(remark));
    Ok(())
}

/// What a container says of a video's times.
struct Clock<'a> {
    path: &'a Path,
    /// Frames a second, on average; 0 if it does not say.
    rate: f64,
    /// How many there are; 0 if they are not counted.
    frames: usize,
    uneven: Option<Uneven>,
}

/// Where the frames of a video are more than half of the time between two frames from where they should be.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Uneven {
    /// The first such frame.
    frame: usize,
    /// By how much it is too late, seconds; negative if it is too early.
    late: f64,
    /// The time from a frame to the next, for most of them, seconds.
    period: f64,
}

/// What is to be said of videos of one scene, a sentence each.
fn remarks(clocks: &[Clock<'_>]) -> Result<Vec<String>> {
    let (mut others, mut apart, mut uneven) = (Vec::new(), Vec::new(), Vec::new());
    let mut first: Option<&Clock<'_>> = None;
    for clock in clocks {
        let path = clock.path.display();
        if let Some(Uneven { frame, late, period }) = clock.uneven.filter(|_| clocks.len() > 1) {
            let side = if late > 0.0 { "late" } else { "early" };
            let (late, period) = (1e3 * late.abs(), 1e3 * period);
            let head = format!("frame {frame} of {path} comes {late:.1} ms too {side}, where {period:.1} ms are usual");
            uneven.push((clock, head));
        }
        // some containers tell none
        if clock.rate <= 0.0 {
            continue;
        }
        let Some(first) = first else {
            first = Some(clock);
            continue;
        };
        let other = first.path.display();
        if (clock.rate - first.rate).abs() > 0.01 * first.rate {
            bail!(
                "{path} has {:.3} frames a second, and {other} {:.3}; a timestep is the number of a frame, so it would be another moment in each\n\
                 hint: bring the videos to one rate first, `ffmpeg -i in.mp4 -r {:.3} out.mp4`",
                clock.rate,
                first.rate,
                first.rate
            );
        }
        let frames = clock.frames.min(first.frames);
        if clock.frames != first.frames && frames > 0 {
            let head = format!("{path} has {} frames, and {other} {}", clock.frames, first.frames);
            others.push((clock, head));
        }
        let lead = frames as f64 * (first.rate / clock.rate - 1.0).abs();
        // what varies has no rate to speak of, and is told above
        if lead > HALF && clock.uneven.is_none() && first.uneven.is_none() {
            let rates = format!("{:.3} frames a second, and {other} {:.3}", clock.rate, first.rate);
            apart.push((clock, format!("{path} has {rates}: frame {frames} is {lead:.1} frames later in one of them")));
        }
    }
    let kinds = [(others, "have others", ""), (apart, "lead apart", CONVERT), (uneven, "are uneven", CONVERT)];
    let told = kinds.into_iter().filter_map(|(videos, others, cure)| {
        let (clock, head) = videos.first()?;
        let more = match videos.len() - 1 {
            0 => String::new(),
            1 => format!(" (and 1 more video {})", one(others)),
            more => format!(" (and {more} more videos {others})"),
        };
        let rate = clock.uneven.map_or(clock.rate, |uneven| 1.0 / uneven.period);
        let cure = cure.replace("RATE", &near_whole(rate));
        Some(format!("{head}{more}; frames of the same number are taken for one moment{cure}"))
    });
    Ok(told.collect())
}

/// What is said of several videos, as it is said of one.
fn one(others: &str) -> String {
    others.replace("have ", "has ").replace("lead ", "leads ").replace("are ", "is ")
}

/// What is to be done about times that differ.
const CONVERT: &str = ", and those of several cameras show different ones; `ffmpeg -i in.mp4 -vf fps=RATE out.mp4`, for \
                       each of the videos, makes them even";

/// Of the time between two frames: from here on, a frame of another number is nearer.
const HALF: f64 = 0.5;

/// A rate as who converts videos would write it.
fn near_whole(rate: f64) -> String {
    if (rate - rate.round()).abs() < 0.01 * rate { format!("{rate:.0}") } else { format!("{rate:.3}") }
}

/// Whether frames of the same number were taken less than half of the time between two frames apart in all videos, by
/// the time since each began; no if one does not tell.
fn agree(videos: &[Option<Vec<f64>>]) -> bool {
    let Some(Some(first)) = videos.first() else { return false };
    let near = |times: &[f64]| {
        let since = |times: &[f64], at: usize| times[at] - times[0];
        let gap = |at: usize| (first[at.max(1)] - first[at.max(1) - 1]).abs();
        let frames = first.len().min(times.len());
        (1..frames).all(|at| (since(first, at) - since(times, at)).abs() < HALF * gap(at))
    };
    videos.iter().all(|times| times.as_deref().is_some_and(near))
}

/// The first frame that is not where an even rate has it, by the frame before, or by the first and the last.
fn uneven(times: &[f64]) -> Option<Uneven> {
    let gaps: Vec<f64> = times.windows(2).map(|two| two[1] - two[0]).collect();
    let mut sorted = gaps.clone();
    sorted.sort_by(f64::total_cmp);
    let period = *sorted.get(sorted.len() / 2).filter(|period| **period > 0.0)?;
    if let Some(at) = gaps.iter().position(|gap| (gap - period).abs() > HALF * period) {
        return Some(Uneven { frame: at + 1, late: gaps[at] - period, period });
    }
    // rates that change slowly, as that of phones in the dusk
    let mean = (times.last()? - times.first()?) / gaps.len() as f64;
    let late = |frame: usize| times[frame] - times[0] - frame as f64 * mean;
    let frame = (0..times.len()).find(|frame| late(*frame).abs() > HALF * mean)?;
    Some(Uneven { frame, late: late(frame), period })
}

/// Hours of film have so many frames; tables that tell of more are damaged.
const MOST: usize = 1 << 24;

/// The times of a video's frames, seconds, in the order in which they are shown; none if its file does not tell.
fn of(path: &Path) -> Option<Vec<f64>> {
    let tables = tables(&mut BufReader::new(File::open(path).ok()?)).ok()??;
    let track = pictures(&tables)?;
    let head = inside(track, &[b"mdia", b"mdhd"])?;
    let ticks = number(head, if *head.first()? == 1 { 20 } else { 12 })?;
    let table = |name| inside(track, &[b"mdia", b"minf", b"stbl", name]);
    let steps = runs(table(b"stts")?)?;
    let mut times = Vec::with_capacity(steps.len());
    let mut now = 0i64;
    for step in steps {
        times.push(now);
        now += i64::from(step.cast_unsigned());
    }
    // frames that are predicted from later ones are stored behind these
    let delays = table(b"ctts").map_or(Some(Vec::new()), runs)?;
    times.iter_mut().zip(delays).for_each(|(time, delay)| *time += i64::from(delay));
    times.sort_unstable();
    (ticks > 0).then(|| times.into_iter().map(|time| time as f64 / f64::from(ticks)).collect())
}

/// A table of how often a number comes, and the number, written out.
fn runs(table: &[u8]) -> Option<Vec<i32>> {
    let entries = table.get(8..)?.chunks_exact(8).take(number(table, 4)? as usize);
    let mut all = Vec::new();
    for entry in entries {
        let (count, value) = (number(entry, 0)? as usize, number(entry, 4)?.cast_signed());
        if count > MOST - all.len() {
            return None;
        }
        all.resize(all.len() + count, value);
    }
    Some(all)
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(name: &[u8; 4], inside: &[u8]) -> Vec<u8> {
        [&(inside.len() as u32 + 8).to_be_bytes()[..], name, inside].concat()
    }

    /// A table of runs.
    fn table(name: &[u8; 4], runs: &[(u32, i32)]) -> Vec<u8> {
        let entries: Vec<u8> =
            runs.iter().flat_map(|(count, value)| [count.to_be_bytes(), value.to_be_bytes()].concat()).collect();
        part(name, &[&[0; 4][..], &(runs.len() as u32).to_be_bytes(), &entries].concat())
    }

    /// A film of 600 ticks a second, its head in either version.
    fn film(version: u8, tables: &[Vec<u8>]) -> Vec<u8> {
        let before = if version == 1 { 19 } else { 11 };
        let head = part(b"mdhd", &[&[version][..], &vec![0; before], &600u32.to_be_bytes(), &[0; 12]].concat());
        let handler = part(b"hdlr", b"\0\0\0\0\0\0\0\0vide\0\0\0\0");
        let media = part(b"minf", &part(b"stbl", &tables.concat()));
        let track = part(b"trak", &part(b"mdia", &[head, handler, media].concat()));
        [part(b"ftyp", b"isom"), part(b"mdat", &[7; 30]), part(b"moov", &track)].concat()
    }

    fn read(name: &str, bytes: &[u8]) -> Option<Vec<f64>> {
        let path = std::env::temp_dir().join(format!("effigy-times-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        let found = of(&path);
        std::fs::remove_file(&path).unwrap();
        found
    }

    #[test]
    fn times_are_those_of_the_tables() {
        let steps = table(b"stts", &[(2, 20), (1, 40), (2, 20)]);
        let ticks = |times: &[u32]| times.iter().map(|tick| f64::from(*tick) / 600.0).collect::<Vec<f64>>();
        for version in [0, 1] {
            let found = read("steps.mp4", &film(version, std::slice::from_ref(&steps))).unwrap();
            assert_eq!(found, ticks(&[0, 20, 40, 80, 100]));
        }
        // stored as 0, 2, 1, 4, 3, and shown 20 ticks later
        let steps = table(b"stts", &[(5, 20)]);
        let delays = table(b"ctts", &[(1, 20), (1, 40), (1, 0), (1, 40), (1, 0)]);
        assert_eq!(read("delays.mp4", &film(0, &[steps, delays])).unwrap(), ticks(&[20, 40, 60, 80, 100]));
    }

    #[test]
    fn files_that_tell_no_times_have_none() {
        assert_eq!(read("a.mkv", &[0x1a, 0x45, 0xdf, 0xa3, 1, 2, 3, 4, 5, 6, 7, 8]), None);
        assert_eq!(read("fragments.mp4", &film(0, &[table(b"stts", &[])])), Some(Vec::new()));
        assert_eq!(read("hostile.mp4", &film(0, &[table(b"stts", &[(5, 20), (u32::MAX, 20)])])), None);
        let film = film(0, &[table(b"stts", &[(2, 20), (1, 40)]), table(b"ctts", &[(3, 20)])]);
        for length in 0..film.len() {
            read("cut.mp4", &film[..length]);
        }
    }

    #[test]
    fn what_is_half_a_frame_off_is_uneven() {
        let of = |gaps: &[f64]| {
            let mut times = vec![0.0];
            gaps.iter().for_each(|gap| times.push(times[times.len() - 1] + gap));
            uneven(&times)
        };
        assert_eq!((uneven(&[]), uneven(&[0.0]), of(&[0.1; 50])), (None, None, None));
        // what clocks of 600 ticks make of 29.97 frames a second, for minutes
        let rounded: Vec<f64> = (0..9000).map(|at| if at % 50 == 0 { 21.0 / 600.0 } else { 20.0 / 600.0 }).collect();
        assert_eq!(of(&rounded), None);
        let mut dropped = [0.1; 50];
        dropped[30] = 0.2;
        let Uneven { frame, late, period } = of(&dropped).unwrap();
        assert!(frame == 31 && (late - 0.1).abs() < 1e-9 && (period - 0.1).abs() < 1e-9, "{frame}: {late}, {period}");
        (dropped[30], dropped[31]) = (0.04, 0.16);
        assert!(of(&dropped).unwrap().late < -0.05);
        // slowly from 30 to 24 a second: no gap is far from the others
        let dusk: Vec<f64> = (0..300).map(|at| 1.0 / (30.0 - 0.02 * f64::from(at))).collect();
        assert!(of(&dusk).unwrap().late < 0.0);
    }

    #[test]
    fn cameras_of_one_trigger_are_together_however_uneven() {
        let dropped =
            |late: f64| Some((0..50).map(|at| 0.1 * f64::from(at) + if at > 30 { late } else { 0.0 }).collect());
        assert!(agree(&[dropped(0.1), dropped(0.1), dropped(0.11)]));
        assert!(!agree(&[dropped(0.1), dropped(0.0)]) && !agree(&[dropped(0.0), None]) && !agree(&[]));
        assert_eq!(uneven(&[0.0, 0.0, 0.0, 1.0]), None, "a table without steps tells nothing");
    }

    #[test]
    fn videos_of_one_scene_are_compared() {
        let paths = ["a.mp4", "b.mp4", "c.mp4"].map(Path::new);
        let odd = Uneven { frame: 12, late: 0.033, period: 0.0333 };
        let told = |videos: &[(f64, usize, Option<Uneven>)]| {
            let clock = |(path, (rate, frames, uneven)): (&&'static Path, &(f64, usize, Option<Uneven>))| Clock {
                path,
                rate: *rate,
                frames: *frames,
                uneven: *uneven,
            };
            remarks(&paths.iter().zip(videos).map(clock).collect::<Vec<_>>())
        };
        let none = Vec::<String>::new();
        assert_eq!(told(&[(30.0, 100, Some(odd))]).unwrap(), none, "one camera has nothing to be compared with");
        assert_eq!(told(&[(30.0, 100, None), (30.001, 100, None), (0.0, 0, None)]).unwrap(), none);
        let found = told(&[(30.0, 100, None), (29.97, 100, Some(odd)), (29.97, 90, Some(odd))]).unwrap();
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[0], "c.mp4 has 90 frames, and a.mp4 100; frames of the same number are taken for one moment");
        let expected = "frame 12 of b.mp4 comes 33.0 ms too late, where 33.3 ms are usual (and 1 more video is uneven)";
        assert!(found[1].starts_with(expected) && found[1].contains("fps=30 out.mp4"), "{}", found[1]);
        // a thousandth of 3000 frames are three
        let found = told(&[(30.0, 3000, None), (29.97, 3000, None)]).unwrap();
        let expected = "b.mp4 has 29.970 frames a second, and a.mp4 30.000: frame 3000 is 3.0 frames later";
        assert!(found.len() == 1 && found[0].starts_with(expected), "{found:?}");
        let error = told(&[(30.0, 100, None), (25.0, 100, None)]).unwrap_err().to_string();
        assert!(error.starts_with("b.mp4 has 25.000 frames a second, and a.mp4 30.000; a timestep is"), "{error}");
    }
}
