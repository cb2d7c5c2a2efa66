//! The journal: unit records in append-only segments, one segment for each run that found something out.
//!
//! A segment is a sequence of frames: length (u32), checksum (first 8 bytes of the payload's BLAKE3), payload. A torn
//! tail (the process was killed while writing) ends the segment at its last whole frame; a damaged frame before others
//! is stepped over. A `Commit` frame says up to where everything, blobs included, has reached the disk; after a power
//! failure (another boot, or a damaged head that does not tell which) only that much is believed. Knows neither the
//! index nor where blobs lie.

use crate::codec::{Odd, Reader, put_u32};
use crate::entry::{COMMIT, Entry, Unit};
use crate::error::io;
use crate::layout;
use crate::{Error, Result};
use manifests::Digest;
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

const FRAME: usize = 12;
/// Longer frames than this are not written, and taken for damage: large things are blobs.
const LONGEST: usize = 1 << 30;
/// Behind a damaged frame the next whole one is sought, at the cost of reading so many bytes again at most.
const SEEK_BUDGET: usize = 64 << 20;
/// So many segments are kept open to be read.
const READERS: usize = 16;

/// Where a frame lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number of the segment.
    pub segment: u32,
    /// Offset of the frame, bytes.
    pub offset: u64,
    /// Length of the payload, bytes.
    pub len: u32,
}

impl Place {
    /// Where the next frame begins.
    fn end(self) -> u64 {
        self.offset + FRAME as u64 + u64::from(self.len)
    }

    pub(crate) fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&self.segment.to_le_bytes());
        bytes[4..12].copy_from_slice(&self.offset.to_le_bytes());
        bytes[12..].copy_from_slice(&self.len.to_le_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Place> {
        let mut reader = Reader(bytes);
        let place = Place { segment: reader.u32().ok()?, offset: reader.u64().ok()?, len: reader.u32().ok()? };
        reader.0.is_empty().then_some(place)
    }
}

fn checksum(payload: &[u8]) -> [u8; 8] {
    Digest::of_bytes(payload).0[..8].try_into().expect("a digest is longer")
}

/// The journal of a workspace.
pub(crate) struct Journal {
    dir: PathBuf,
    /// The segment of this process, begun with its first record.
    current: Option<(u32, File, u64)>,
    /// Up to where nothing is left to be made safe: everything before has reached the disk, and a mark says so.
    committed: u64,
    /// Up to where the marks that have reached the disk themselves speak. The last mark may be on its way.
    sure: u64,
    /// A half frame could not be taken back: nothing can be written behind it.
    torn: bool,
    /// Those that were read last, the latest behind.
    readers: VecDeque<(u32, File)>,
    /// Longest payload that is written, bytes.
    longest: usize,
    program: String,
}

impl Journal {
    pub(crate) fn open(dir: &Path, program: &str) -> Result<Journal> {
        std::fs::create_dir_all(dir).map_err(io("make", dir))?;
        Ok(Journal {
            dir: dir.into(),
            current: None,
            committed: 0,
            sure: 0,
            torn: false,
            readers: VecDeque::new(),
            longest: LONGEST,
            program: program.into(),
        })
    }

    /// Appends a record. It survives the end of this process at once, and a power failure from the next commit on.
    pub(crate) fn append(&mut self, entry: &Entry) -> Result<Place> {
        let payload = entry.encode();
        if payload.len() > self.longest {
            return Err(Error::TooLong { what: entry.whose(), bytes: payload.len(), most: self.longest });
        }
        if self.current.is_none() {
            self.begin()?;
        }
        let (segment, file, offset) = self.current.as_mut().expect("it was just begun");
        let path = segment_path(&self.dir, *segment);
        if self.torn {
            return Err(io("write", &path)(std::io::Error::other("an earlier record could not be written")));
        }
        match write_frame(file, *segment, *offset, &payload) {
            Ok(place) => {
                *offset = place.end();
                Ok(place)
            }
            Err(error) => {
                // a half frame would hide all that come after it: take it back, for the disk may have room again later
                let back = file.set_len(*offset).and_then(|()| (&*file).seek(SeekFrom::Start(*offset)));
                self.torn = back.is_err();
                Err(io("write", &path)(error))
            }
        }
    }

    fn begin(&mut self) -> Result<()> {
        let segment = segments(&self.dir)?.last().map_or(1, |last| last + 1);
        let path = segment_path(&self.dir, segment);
        let file =
            OpenOptions::new().read(true).write(true).create_new(true).open(&path).map_err(io("write", &path))?;
        let head =
            Entry::Head { boot: boot().into(), host: host().into(), program: self.program.clone(), at: millis() };
        match write_frame(&file, segment, 0, &head.encode()) {
            Ok(place) => {
                self.current = Some((segment, file, place.end()));
                Ok(())
            }
            Err(error) => {
                // the next attempt begins another; one without a head would say nothing
                let _ = std::fs::remove_file(&path);
                Err(io("write", &path)(error))
            }
        }
    }

    /// Ends the present segment; gives back the numbers of all there are. What is appended next begins a new one.
    pub(crate) fn next_segment(&mut self) -> Result<Vec<u32>> {
        self.current = None;
        (self.committed, self.sure, self.torn) = (0, 0, false);
        segments(&self.dir)
    }

    /// Removes segments.
    pub(crate) fn remove(&mut self, old: &[u32]) -> Result<()> {
        for segment in old {
            self.readers.retain(|(open, _)| open != segment);
            let path = segment_path(&self.dir, *segment);
            std::fs::remove_file(&path).map_err(io("remove", &path))?;
        }
        Ok(())
    }

    /// What has to reach the disk for everything that was appended so far to last: the file, and up to where it is
    /// written. `None` if there is nothing new.
    pub(crate) fn unsynced(&self) -> Option<(&File, u64)> {
        let (_, file, offset) = self.current.as_ref()?;
        (*offset > self.committed).then_some((file, *offset))
    }

    /// Says that everything up to `upto` has reached the disk; the caller has seen to it.
    pub(crate) fn committed(&mut self, upto: u64) -> Result<()> {
        if self.committed == 0 {
            File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(io("write", &self.dir))?;
        }
        let place = self.append(&Entry::Commit(upto))?;
        // what brought the records to the disk has brought the mark before them there too
        self.sure = self.committed;
        // the mark itself need not be marked
        self.committed = if place.offset == upto { place.end() } else { upto };
        Ok(())
    }

    /// Brings the last commit mark to the disk; without it, nobody knows after a power failure that the rest is there.
    pub(crate) fn sync_mark(&mut self) -> Result<()> {
        if let (true, Some((segment, file, _))) = (self.sure < self.committed, &self.current) {
            file.sync_data().map_err(io("sync", &segment_path(&self.dir, *segment)))?;
            self.sure = self.committed;
        }
        Ok(())
    }

    /// The unit that lies there; `None` if there is no such record (any more), which is a miss.
    pub(crate) fn read(&mut self, place: Place) -> Result<Option<Unit>> {
        let Some(file) = self.reader(place.segment)? else { return Ok(None) };
        let mut frame = vec![0; FRAME + place.len as usize];
        if file.read_exact_at(&mut frame, place.offset).is_err() {
            return Ok(None);
        }
        Ok(match parse_frame(&frame) {
            Some((payload, _)) => match Entry::decode(payload) {
                Ok(Entry::Unit(unit)) => Some(unit),
                _ => None,
            },
            None => None,
        })
    }

    /// A segment to be read; `None` if it is not there.
    fn reader(&mut self, segment: u32) -> Result<Option<&File>> {
        // most often it is the one before
        if self.readers.back().is_none_or(|(open, _)| *open != segment) {
            let place = self.readers.iter().position(|(open, _)| *open == segment);
            let reader = match place.and_then(|place| self.readers.remove(place)) {
                Some(reader) => reader,
                None => {
                    let path = segment_path(&self.dir, segment);
                    match File::open(&path) {
                        Ok(file) => (segment, file),
                        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                        Err(error) => return Err(io("read", &path)(error)),
                    }
                }
            };
            if self.readers.len() == READERS {
                self.readers.pop_front();
            }
            self.readers.push_back(reader);
        }
        Ok(self.readers.back().map(|(_, file)| file))
    }

    /// Calls `each` for every record of a segment from `from` on that is to be believed; says up to where that is.
    pub(crate) fn scan(&self, segment: u32, from: u64, each: &mut dyn FnMut(Place, Entry)) -> Result<Believed> {
        scan(&segment_path(&self.dir, segment), segment, from, each)
    }

    /// Marks all of a segment that a killed process left as having reached the disk; the caller has seen to it for the
    /// files.
    pub(crate) fn seal(&self, segment: u32, believed: &Believed) -> Result<()> {
        let (path, end) = (segment_path(&self.dir, segment), believed.end);
        let file = OpenOptions::new().write(true).open(&path).map_err(io("write", &path))?;
        // where more may stand behind the end than was read nothing is cut off, and a mark would not be found
        if !believed.is_unread {
            // a torn frame at the end would hide the mark
            file.set_len(end).map_err(io("write", &path))?;
            (&file).seek(SeekFrom::End(0)).map_err(io("write", &path))?;
            write_frame(&file, segment, end, &Entry::Commit(end).encode()).map_err(io("write", &path))?;
        }
        file.sync_data().map_err(io("write", &path))
    }

    /// Whether this process writes that segment.
    pub(crate) fn is_current(&self, segment: u32) -> bool {
        self.current.as_ref().is_some_and(|(current, ..)| *current == segment)
    }

    /// A segment's length, bytes.
    pub(crate) fn length(&self, segment: u32) -> Result<u64> {
        let path = segment_path(&self.dir, segment);
        Ok(std::fs::metadata(&path).map_err(io("read", &path))?.len())
    }

    /// Whether a record has reached the disk for sure, and the mark that says so, as far as this process knows.
    pub(crate) fn is_safe(&self, place: Place) -> bool {
        self.current.as_ref().is_none_or(|(segment, ..)| *segment != place.segment || place.offset < self.sure)
    }

    /// Numbers and lengths of all segments, oldest first; of the present one what has reached the disk.
    pub(crate) fn segments(&self) -> Result<Vec<(u32, u64)>> {
        let lengths = segments(&self.dir)?
            .into_iter()
            .map(|segment| Ok((segment, if self.is_current(segment) { self.sure } else { self.length(segment)? })));
        lengths.collect()
    }
}

/// Calls `each` for every record of a workspace, oldest first. Needs no lock: a record being written is not seen.
///
/// # Errors
/// If a segment cannot be read.
pub fn scan_all(root: &Path, each: &mut dyn FnMut(Place, Entry)) -> Result<()> {
    gaps(root, each).map(|_| ())
}

/// The same; gives back where records are damaged in the middle: file, offset and bytes.
pub(crate) fn gaps(root: &Path, each: &mut dyn FnMut(Place, Entry)) -> Result<Vec<(PathBuf, u64, u64)>> {
    let dir = root.join(layout::RECORDS);
    if !dir.exists() {
        return Ok(Vec::new());
    }
    let mut gaps = Vec::new();
    for segment in segments(&dir)? {
        let path = segment_path(&dir, segment);
        let believed = scan(&path, segment, 0, each)?;
        gaps.extend(believed.gaps.into_iter().map(|(offset, bytes)| (path.clone(), offset, bytes)));
    }
    Ok(gaps)
}

/// Writes a frame; its payload is no longer than [`LONGEST`].
fn write_frame(mut file: &File, segment: u32, offset: u64, payload: &[u8]) -> std::io::Result<Place> {
    let mut frame = Vec::with_capacity(FRAME + payload.len());
    put_u32(&mut frame, payload.len() as u32);
    frame.extend(checksum(payload));
    frame.extend(payload);
    file.write_all(&frame)?;
    Ok(Place { segment, offset, len: payload.len() as u32 })
}

/// The payload of the frame that `bytes` starts with, and what comes after it.
fn parse_frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, rest) = bytes.split_at_checked(FRAME)?;
    let len = u32::from_le_bytes(head[..4].try_into().ok()?) as usize;
    if len > LONGEST {
        return None;
    }
    let (payload, rest) = rest.split_at_checked(len)?;
    (checksum(payload) == head[4..]).then_some((payload, rest))
}

/// Up to where a segment is believed, and up to where it has reached the disk for sure.
#[derive(Default)]
pub(crate) struct Believed {
    pub(crate) end: u64,
    pub(crate) sure: u64,
    /// Offset and bytes of what is damaged in the middle.
    pub(crate) gaps: Vec<(u64, u64)>,
    /// The search for whole frames behind the last one was given up: there may be more.
    pub(crate) is_unread: bool,
}

fn scan(path: &Path, segment: u32, from: u64, each: &mut dyn FnMut(Place, Entry)) -> Result<Believed> {
    scan_if(path, segment, from, &|_| true, each)
}

/// As `scan`, but frames whose payload is not to `keep` are not even decoded.
pub(crate) fn scan_if(
    path: &Path,
    segment: u32,
    from: u64,
    keep: &dyn Fn(&[u8]) -> bool,
    each: &mut dyn FnMut(Place, Entry),
) -> Result<Believed> {
    let mut bytes = Vec::new();
    File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)).map_err(io("read", path))?;
    let foreign = |reason: Odd| Error::Foreign { path: path.into(), reason: reason.into() };
    // a head that is damaged does not say which boot it was, and hides nothing that stands behind it
    let written = match parse_frame(&bytes) {
        Some((head, _)) => match Entry::decode(head).map_err(foreign)? {
            Entry::Head { boot: written, .. } => Some(written),
            _ => return Err(foreign("it has no head")),
        },
        None => None,
    };
    // first pass: where does what is to be believed end?
    let mut ends = Vec::new();
    let (mut at, mut sure, mut gaps, mut is_unread) = (0, 0, Vec::new(), false);
    let mut budget = Budget { left: SEEK_BUDGET, is_short: false };
    while at < bytes.len() {
        let Some((payload, tail)) = parse_frame(&bytes[at..]) else {
            // a torn tail, or damage: what stands behind it is as good as ever
            let Some(next) = seek(&bytes, at + 1, &mut budget) else {
                is_unread = budget.is_short;
                break;
            };
            gaps.push((at as u64, (next - at) as u64));
            at = next;
            continue;
        };
        let here = at as u64;
        ends.push((here, payload));
        at = bytes.len() - tail.len();
        if payload.first() == Some(&COMMIT)
            && let Ok(Entry::Commit(upto)) = Entry::decode(payload)
        {
            // a mark that stands right behind what it speaks of needs no mark itself
            sure = if upto >= here { at as u64 } else { upto };
        }
    }
    // what is torn off is not part of the segment
    let at = ends.last().map_or(0, |(offset, payload)| offset + (FRAME + payload.len()) as u64);
    let believed = if written.as_deref() == Some(boot()) { at } else { sure.min(at) };
    for (offset, payload) in ends {
        let end = offset + (FRAME + payload.len()) as u64;
        if offset >= from && end <= believed && keep(payload) {
            each(Place { segment, offset, len: payload.len() as u32 }, Entry::decode(payload).map_err(foreign)?);
        }
    }
    Ok(Believed { end: believed, sure, gaps, is_unread })
}

/// How much is still read to find whole frames.
struct Budget {
    left: usize,
    /// Whether the last search passed over what may have been one, for want of it.
    is_short: bool,
}

/// Where the next whole frame begins, from `start` on.
fn seek(bytes: &[u8], start: usize, budget: &mut Budget) -> Option<usize> {
    budget.is_short = false;
    (start..bytes.len().saturating_sub(FRAME)).find(|&at| {
        let len = u32::from_le_bytes(bytes[at..at + 4].try_into().expect("there are as many")) as usize;
        // most lengths that damage spells lead beyond the end and cost nothing; no payload is empty
        let is_inside = len > 0 && len <= bytes.len() - at - FRAME;
        let fits = is_inside && len <= budget.left;
        budget.is_short |= is_inside && !fits;
        budget.left -= if fits { len } else { 0 };
        fits && parse_frame(&bytes[at..]).is_some()
    })
}

pub(crate) fn segment_path(dir: &Path, segment: u32) -> PathBuf {
    dir.join(format!("{segment:08}.journal"))
}

pub(crate) fn segments(dir: &Path) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io("read", dir))? {
        let name = entry.map_err(io("read", dir))?.file_name();
        let number: Option<u32> =
            name.to_str().and_then(|name| name.strip_suffix(".journal")).and_then(|name| name.parse().ok());
        found.extend(number);
    }
    found.sort_unstable();
    Ok(found)
}

/// Which boot of the machine this is; memory that was not written out does not outlive it.
fn boot() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    BOOT.get_or_init(|| {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        id.trim().to_string()
    })
}

/// Name of this machine.
pub(crate) fn host() -> &'static str {
    static HOST: OnceLock<String> = OnceLock::new();
    HOST.get_or_init(|| {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        if name.trim().is_empty() { "unknown".into() } else { name.trim().to_string() }
    })
}

pub(crate) fn millis() -> u64 {
    (crate::Fingerprint::now() / 1_000_000) as u64
}

#[cfg(test)]
mod tests;
