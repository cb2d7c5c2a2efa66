//! The journal: unit records in append-only segments, one segment for each run that found something out.
//!
//! A segment is a sequence of frames: length (u32), checksum (first 8 bytes of the payload's BLAKE3), payload. A torn tail
//! (the process was killed while writing) ends the segment at its last whole frame. A `Commit` frame says up to where
//! everything, blobs included, has reached the disk; after a power failure (another boot) only that much is believed. Knows neither the index nor where blobs lie.

use crate::codec::{Odd, Reader, put_str, put_u32, put_u64, put_value};
use crate::error::io;
use crate::{Error, Result};
use manifests::{Blob, Digest, Type, Value};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

const VERSION: u32 = 1;
const FRAME: usize = 12;
/// First byte of a unit.
pub(crate) const UNIT: u8 = 2;
/// First byte of a commit mark.
const COMMIT: u8 = 3;
/// Longer frames than this are taken for damage: large things are blobs.
const LONGEST: usize = 1 << 30;

/// An output row of a unit: new columns only.
#[derive(Clone, Debug, PartialEq)]
pub struct OutRow {
    /// The row of the unit that it extends; `None` stands alone.
    pub of: Option<u32>,
    /// One value for each of [`Unit::columns`].
    pub values: Vec<Value>,
}

/// A finished unit.
#[derive(Clone, Debug, PartialEq)]
pub struct Unit {
    /// Its key.
    pub key: Digest,
    /// The [`StageFacts`] it was computed under.
    pub stage: Digest,
    /// Name of the stage in the recipe that asked for it first.
    pub node: String,
    /// What tells it from other units of its stage, for people: `path=in/7.txt`.
    pub name: String,
    /// What it read, for people: column and value; for units of many rows, column and a digest of all its values.
    pub inputs: Vec<(String, String)>,
    /// The columns it put out.
    pub columns: Vec<(String, Type)>,
    /// The rows it put out.
    pub rows: Vec<OutRow>,
    /// When it was finished, milliseconds since 1970.
    pub at: u64,
    /// How long it took, seconds; its share, where several were worked on together.
    pub seconds: f64,
}

impl Unit {
    /// The files among its values.
    pub fn blobs(&self) -> impl Iterator<Item = &Blob> {
        self.rows.iter().flat_map(|row| &row.values).filter_map(|value| match value {
            Value::Blob(blob) => Some(blob),
            _ => None,
        })
    }
}

/// What is the same for all units of a stage: the readable form of the head of their keys.
#[derive(Clone, Debug, PartialEq)]
pub struct StageFacts {
    /// Digest of the facts.
    pub digest: Digest,
    /// The stage's kind.
    pub kind: String,
    /// Name and value of each fact, in the order in which they were hashed.
    pub facts: Vec<(String, String)>,
}

/// One frame of a journal.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// How a segment starts: who wrote it.
    Head {
        /// Which boot of the machine.
        boot: String,
        /// Name of the machine.
        host: String,
        /// Version of the program.
        program: String,
        /// Milliseconds since 1970.
        at: u64,
    },
    /// Facts that units refer to.
    Stage(StageFacts),
    /// A finished unit.
    Unit(Unit),
    /// Everything up to this offset of the segment has reached the disk, and the files it speaks of.
    Commit(u64),
}

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

impl Entry {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        match self {
            Entry::Head { boot, host, program, at } => {
                out.push(0);
                put_u32(&mut out, VERSION);
                [boot, host, program].into_iter().for_each(|text| put_str(&mut out, text));
                put_u64(&mut out, *at);
            }
            Entry::Stage(stage) => {
                out.push(1);
                out.extend(stage.digest.0);
                put_str(&mut out, &stage.kind);
                put_pairs(&mut out, &stage.facts);
            }
            Entry::Unit(unit) => {
                out.push(UNIT);
                out.extend(unit.key.0);
                out.extend(unit.stage.0);
                put_str(&mut out, &unit.node);
                put_str(&mut out, &unit.name);
                put_pairs(&mut out, &unit.inputs);
                put_u32(&mut out, unit.columns.len() as u32);
                for (name, ty) in &unit.columns {
                    put_str(&mut out, name);
                    put_str(&mut out, &ty.to_string());
                }
                put_u32(&mut out, unit.rows.len() as u32);
                for row in &unit.rows {
                    put_u32(&mut out, row.of.unwrap_or(u32::MAX));
                    row.values.iter().for_each(|value| put_value(&mut out, value));
                }
                put_u64(&mut out, unit.at);
                put_u64(&mut out, unit.seconds.to_bits());
            }
            Entry::Commit(upto) => {
                out.push(COMMIT);
                put_u64(&mut out, *upto);
            }
        }
        out
    }

    fn decode(payload: &[u8]) -> Result<Entry, Odd> {
        let mut reader = Reader(payload);
        let entry = match reader.u8()? {
            0 => {
                if reader.u32()? != VERSION {
                    return Err("it was written by another version of the program");
                }
                Entry::Head { boot: reader.str()?, host: reader.str()?, program: reader.str()?, at: reader.u64()? }
            }
            1 => Entry::Stage(StageFacts {
                digest: reader.digest()?,
                kind: reader.str()?,
                facts: read_pairs(&mut reader)?,
            }),
            UNIT => {
                let (key, stage) = (reader.digest()?, reader.digest()?);
                let (node, name) = (reader.str()?, reader.str()?);
                let inputs = read_pairs(&mut reader)?;
                let n = reader.u32()?;
                let columns = (0..n).map(|_| Ok((reader.str()?, reader.ty()?))).collect::<Result<Vec<_>, Odd>>()?;
                let n = reader.u32()?;
                let mut rows = Vec::new();
                for _ in 0..n {
                    let of = Some(reader.u32()?).filter(|&of| of != u32::MAX);
                    let values = columns.iter().map(|_| reader.value()).collect::<Result<_, _>>()?;
                    rows.push(OutRow { of, values });
                }
                let (at, seconds) = (reader.u64()?, reader.f64()?);
                Entry::Unit(Unit { key, stage, node, name, inputs, columns, rows, at, seconds })
            }
            // the first form of the mark had no number: it spoke of all before it
            COMMIT if reader.0.is_empty() => Entry::Commit(u64::MAX),
            COMMIT => Entry::Commit(reader.u64()?),
            _ => return Err("a record of an unknown kind"),
        };
        if reader.0.is_empty() { Ok(entry) } else { Err("it is longer than it should be") }
    }
}

fn put_pairs(out: &mut Vec<u8>, pairs: &[(String, String)]) {
    put_u32(out, pairs.len() as u32);
    for (name, value) in pairs {
        put_str(out, name);
        put_str(out, value);
    }
}

fn read_pairs(reader: &mut Reader<'_>) -> Result<Vec<(String, String)>, Odd> {
    let n = reader.u32()?;
    (0..n).map(|_| Ok((reader.str()?, reader.str()?))).collect()
}

fn checksum(payload: &[u8]) -> [u8; 8] {
    Digest::of_bytes(payload).0[..8].try_into().expect("a digest is longer")
}

/// The journal of a workspace.
pub(crate) struct Journal {
    dir: PathBuf,
    /// The segment of this process, begun with its first record.
    current: Option<(u32, File, u64)>,
    committed: u64,
    /// A commit mark was written that has not reached the disk itself.
    open_mark: bool,
    readers: HashMap<u32, File>,
    program: String,
}

impl Journal {
    pub(crate) fn open(dir: &Path, program: &str) -> Result<Journal> {
        std::fs::create_dir_all(dir).map_err(io("make", dir))?;
        Ok(Journal {
            dir: dir.into(),
            current: None,
            committed: 0,
            open_mark: false,
            readers: HashMap::new(),
            program: program.into(),
        })
    }

    /// Appends a record. It survives the end of this process at once, and a power failure from the next commit on.
    pub(crate) fn append(&mut self, entry: &Entry) -> Result<Place> {
        if self.current.is_none() {
            self.begin()?;
        }
        let (segment, file, offset) = self.current.as_mut().expect("it was just begun");
        let place =
            write_frame(file, *segment, *offset, entry).map_err(io("write", &segment_path(&self.dir, *segment)))?;
        *offset = place.offset + FRAME as u64 + u64::from(place.len);
        Ok(place)
    }

    fn begin(&mut self) -> Result<()> {
        let segment = segments(&self.dir)?.last().map_or(1, |last| last + 1);
        let path = segment_path(&self.dir, segment);
        let file =
            OpenOptions::new().read(true).write(true).create_new(true).open(&path).map_err(io("write", &path))?;
        let head =
            Entry::Head { boot: boot().into(), host: host().into(), program: self.program.clone(), at: millis() };
        let place = write_frame(&file, segment, 0, &head).map_err(io("write", &path))?;
        self.current = Some((segment, file, FRAME as u64 + u64::from(place.len)));
        Ok(())
    }

    /// Ends the present segment; gives back the numbers of all there are. What is appended next begins a new one.
    pub(crate) fn next_segment(&mut self) -> Result<Vec<u32>> {
        self.current = None;
        self.committed = 0;
        self.open_mark = false;
        segments(&self.dir)
    }

    /// Removes segments.
    pub(crate) fn remove(&mut self, old: &[u32]) -> Result<()> {
        for segment in old {
            self.readers.remove(segment);
            let path = segment_path(&self.dir, *segment);
            std::fs::remove_file(&path).map_err(io("remove", &path))?;
        }
        Ok(())
    }

    /// What has to reach the disk for everything that was appended so far to last: the file, and up to where it is written.
    /// `None` if there is nothing new.
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
        // the mark itself need not be marked
        let end = place.offset + FRAME as u64 + u64::from(place.len);
        self.committed = if place.offset == upto { end } else { upto };
        self.open_mark = true;
        Ok(())
    }

    /// Brings the last commit mark to the disk; without it, nobody knows after a power failure that the rest is there.
    pub(crate) fn sync_mark(&mut self) -> Result<()> {
        if let (true, Some((segment, file, _))) = (self.open_mark, &self.current) {
            file.sync_data().map_err(io("write", &segment_path(&self.dir, *segment)))?;
            self.open_mark = false;
        }
        Ok(())
    }

    /// The unit that lies there; `None` if there is no such record (any more), which is a miss.
    pub(crate) fn read(&mut self, place: Place) -> Result<Option<Unit>> {
        let path = segment_path(&self.dir, place.segment);
        let file = match self.readers.entry(place.segment) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => match File::open(&path) {
                Ok(file) => entry.insert(file),
                Err(_) => return Ok(None),
            },
        };
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

    /// Calls `each` for every record of a segment from `from` on that is to be believed; says up to where that is.
    pub(crate) fn scan(&self, segment: u32, from: u64, each: &mut dyn FnMut(Place, Entry)) -> Result<Believed> {
        scan(&segment_path(&self.dir, segment), segment, from, each)
    }

    /// Marks all of a segment that a killed process left as having reached the disk; the caller has seen to it.
    pub(crate) fn seal(&self, segment: u32, end: u64) -> Result<()> {
        let path = segment_path(&self.dir, segment);
        let file = OpenOptions::new().write(true).open(&path).map_err(io("write", &path))?;
        // a torn frame at the end would hide the mark
        file.set_len(end).map_err(io("write", &path))?;
        (&file).seek(SeekFrom::End(0)).map_err(io("write", &path))?;
        write_frame(&file, segment, end, &Entry::Commit(end)).map_err(io("write", &path))?;
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

    /// Whether a record has reached the disk for sure, as far as this process knows.
    pub(crate) fn is_safe(&self, place: Place) -> bool {
        self.current.as_ref().is_none_or(|(segment, ..)| *segment != place.segment || place.offset < self.committed)
    }

    /// Numbers and lengths of all segments, oldest first; of the present one what has reached the disk.
    pub(crate) fn segments(&self) -> Result<Vec<(u32, u64)>> {
        let lengths = segments(&self.dir)?.into_iter().map(|segment| {
            Ok((segment, if self.is_current(segment) { self.committed } else { self.length(segment)? }))
        });
        lengths.collect()
    }
}

/// Calls `each` for every record of a workspace, oldest first. Needs no lock: a record being written is not seen.
///
/// # Errors
/// If a segment cannot be read.
pub fn scan_all(root: &Path, each: &mut dyn FnMut(Place, Entry)) -> Result<()> {
    let dir = root.join("records");
    if !dir.exists() {
        return Ok(());
    }
    for segment in segments(&dir)? {
        scan(&segment_path(&dir, segment), segment, 0, each)?;
    }
    Ok(())
}

fn write_frame(mut file: &File, segment: u32, offset: u64, entry: &Entry) -> std::io::Result<Place> {
    let payload = entry.encode();
    let mut frame = Vec::with_capacity(FRAME + payload.len());
    put_u32(&mut frame, payload.len() as u32);
    frame.extend(checksum(&payload));
    frame.extend(&payload);
    if let Err(error) = file.write_all(&frame) {
        // a half frame would hide all that come after it: take it back, for the disk may have room again later
        let _ = file.set_len(offset);
        let _ = file.seek(SeekFrom::Start(offset));
        return Err(error);
    }
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
pub(crate) struct Believed {
    pub(crate) end: u64,
    pub(crate) sure: u64,
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
    let Some((head, _)) = parse_frame(&bytes) else { return Ok(Believed { end: 0, sure: 0 }) };
    let Entry::Head { boot: written, .. } = Entry::decode(head).map_err(foreign)? else {
        return Err(foreign("it has no head"));
    };
    // first pass: where does what is to be believed end?
    let mut ends = Vec::new();
    let (mut at, mut rest, mut sure) = (0, &bytes[..], 0);
    while let Some((payload, tail)) = parse_frame(rest) {
        ends.push((at as u64, payload));
        at = bytes.len() - tail.len();
        rest = tail;
        if payload.first() == Some(&COMMIT)
            && let Ok(Entry::Commit(upto)) = Entry::decode(payload)
        {
            // a mark that stands right behind what it speaks of needs no mark itself
            let here = ends[ends.len() - 1].0;
            sure = if upto >= here { at as u64 } else { upto };
        }
    }
    let believed = if written == boot() { at as u64 } else { sure.min(at as u64) };
    for (offset, payload) in ends {
        let end = offset + (FRAME + payload.len()) as u64;
        if offset >= from && end <= believed && keep(payload) {
            each(Place { segment, offset, len: payload.len() as u32 }, Entry::decode(payload).map_err(foreign)?);
        }
    }
    Ok(Believed { end: believed, sure })
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
mod tests {
    use super::*;

    fn unit(n: u8) -> Unit {
        let blob = Blob { digest: Digest([n; 32]), len: 7, ext: "png".into() };
        Unit {
            key: Digest([n; 32]),
            stage: Digest([9; 32]),
            node: "a".into(),
            name: "x=1".into(),
            inputs: vec![("x".into(), "1".into())],
            columns: vec![("y".into(), Type::Floats(2)), ("f".into(), Type::Blob)],
            rows: vec![OutRow {
                of: Some(0),
                values: vec![Value::Floats(vec![0.1, f64::NAN.abs()]), Value::Blob(blob)],
            }],
            at: 5,
            seconds: 0.25,
        }
    }

    fn keys(dir: &Path) -> Vec<u8> {
        let mut keys = Vec::new();
        scan_all(dir, &mut |_, entry| {
            if let Entry::Unit(unit) = entry {
                keys.push(unit.key.0[0]);
            }
        })
        .unwrap();
        keys
    }

    #[test]
    fn torn_tails_lose_only_the_torn_record() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("records");
        let mut journal = Journal::open(&dir, "test").unwrap();
        let places: Vec<Place> = (1..=3).map(|n| journal.append(&Entry::Unit(unit(n))).unwrap()).collect();
        let text = |unit: Option<Unit>| format!("{unit:?}");
        assert_eq!(text(journal.read(places[1]).unwrap()), text(Some(unit(2))));
        let path = segment_path(&dir, 1);
        let whole = std::fs::read(&path).unwrap();
        for cut in places[2].offset as usize..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(keys(root.path()), [1, 2], "cut at {cut}");
        }
        // a flipped bit in the middle ends the segment there
        let mut broken = whole.clone();
        broken[places[1].offset as usize + FRAME + 3] ^= 1;
        std::fs::write(&path, &broken).unwrap();
        assert_eq!(keys(root.path()), [1]);
    }

    #[test]
    fn after_a_power_failure_only_committed_records_are_believed() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("records");
        std::fs::create_dir_all(&dir).unwrap();
        let path = segment_path(&dir, 1);
        let file = OpenOptions::new().write(true).create_new(true).open(&path).unwrap();
        let head = Entry::Head { boot: "another".into(), host: "h".into(), program: "p".into(), at: 0 };
        let mut offset = 0;
        for entry in [Some(head), Some(Entry::Unit(unit(1))), None, Some(Entry::Unit(unit(2)))] {
            let entry = entry.unwrap_or(Entry::Commit(offset));
            let place = write_frame(&file, 1, offset, &entry).unwrap();
            offset = place.offset + FRAME as u64 + u64::from(place.len);
        }
        assert_eq!(keys(root.path()), [1]);
    }
}
