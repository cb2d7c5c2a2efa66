//! What the container of a video says of its length: whether frames are counted in it, and whether its end is there.
//!
//! OpenCV gives a number of frames for every video. Of MP4, MOV and AVI it stands in the file; of all others it is the
//! file's length in time times a frame rate, both rounded, and a sound track may be longer than the pictures. Knows no
//! codec.

use anyhow::{Context, Result};
use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;

/// The length of a video by its container.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Length {
    /// The number of its frames stands in it.
    Counted,
    /// It does not, and all parts are there whose size the file tells.
    Whole,
    /// It does not, and a part goes on beyond the end of the file.
    Cut,
}

/// Reads the heads of a container's outermost parts.
///
/// # Errors
/// If the file cannot be read.
pub fn length(path: &Path) -> Result<Length> {
    let unreadable = || format!("cannot read {}", path.display());
    let mut file = BufReader::new(File::open(path).with_context(unreadable)?);
    let end = file.get_ref().metadata().with_context(unreadable)?.len();
    let mut head = [0u8; 12];
    let known = match file.read_exact(&mut head) {
        Ok(()) if &head[..4] == b"RIFF" && &head[8..] == b"AVI " => Ok(Length::Counted),
        Ok(()) if head[..4] == EBML => file.rewind().and_then(|()| of_matroska(&mut file, end)),
        Ok(())
            if [*b"ftyp", *b"moov", *b"mdat", *b"wide", *b"free", *b"skip"]
                .contains(&[head[4], head[5], head[6], head[7]]) =>
        {
            file.rewind().and_then(|()| of_boxes(&mut file, end))
        }
        Ok(()) => Ok(Length::Whole),
        Err(error) => Err(error),
    };
    match known {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(Length::Cut),
        known => known.with_context(unreadable),
    }
}

/// ISO media (ISO/IEC 14496-12, 4.2): boxes of a size and a name. One in fragments counts frames in none of them, and
/// of one that was trimmed by an edit list the frames before the first that is shown are counted as well.
fn of_boxes(file: &mut (impl Read + Seek), end: u64) -> std::io::Result<Length> {
    let (mut at, mut is_counted) = (0u64, true);
    while at < end {
        file.seek(SeekFrom::Start(at))?;
        let mut head = [0u8; 8];
        file.read_exact(&mut head)?;
        let short = u64::from(u32::from_be_bytes([head[0], head[1], head[2], head[3]]));
        is_counted &= &head[4..] != b"moof";
        let size = match short {
            0 => end - at,
            1 => {
                let mut long = [0u8; 8];
                file.read_exact(&mut long)?;
                u64::from_be_bytes(long)
            }
            size => size,
        };
        if &head[4..] == b"moov" && size <= LARGEST_TABLE {
            let mut table = Vec::new();
            file.take(size).read_to_end(&mut table)?;
            is_counted &= !is_trimmed(&table);
        }
        // a size that no box can have: what follows is not for us to tell
        if size < 8 {
            break;
        }
        at = at.saturating_add(size);
    }
    Ok(match is_counted {
        _ if at > end => Length::Cut,
        true => Length::Counted,
        false => Length::Whole,
    })
}

/// What tables of a video are never larger than, bytes: hours of film have a hundredth of it.
const LARGEST_TABLE: u64 = 1 << 28;

/// Whether an edit list (`elst`, 8.6.6) lets a track begin behind its first frame.
fn is_trimmed(tables: &[u8]) -> bool {
    let lists = tables.windows(4).enumerate().filter(|(_, name)| name == b"elst").map(|(at, _)| &tables[at + 4..]);
    lists.into_iter().any(|list| {
        let Some((&[version, _, _, _, a, b, c, d], entries)) = list.split_first_chunk() else { return false };
        let (width, start, size) = if version == 1 { (20, 8, 8) } else { (12, 4, 4) };
        let count = u32::from_be_bytes([a, b, c, d]) as usize;
        // -1 is an empty stretch; any other start is positive
        let begins_later = |entry: &[u8]| {
            let time = &entry[start..start + size];
            time[0] < 0x80 && time.iter().any(|byte| *byte != 0)
        };
        entries.chunks_exact(width).take(count).any(begins_later)
    })
}

/// The element that every Matroska and WebM file begins with.
const EBML: [u8; 4] = [0x1a, 0x45, 0xdf, 0xa3];

/// Matroska (RFC 8794, 4 and 9): a head, and a segment that has all else in it. One that was recorded as it came may
/// not tell its size.
fn of_matroska(file: &mut (impl Read + Seek), end: u64) -> std::io::Result<Length> {
    file.seek(SeekFrom::Start(4))?;
    let head = size(file)?.unwrap_or(0);
    // behind the head, the four bytes of a segment's name
    let segment = file.stream_position()?.saturating_add(head).saturating_add(4);
    file.seek(SeekFrom::Start(segment))?;
    let size = size(file)?;
    let begin = file.stream_position()?;
    Ok(match size {
        Some(size) if begin.saturating_add(size) > end => Length::Cut,
        _ => Length::Whole,
    })
}

/// A size of one to eight bytes; the first bit that is set tells how many. None if it is not known, which all ones say.
fn size(file: &mut impl Read) -> std::io::Result<Option<u64>> {
    let mut first = [0u8];
    file.read_exact(&mut first)?;
    let more = first[0].leading_zeros() as usize;
    if more > 7 {
        return Err(std::io::Error::new(ErrorKind::InvalidData, "a Matroska size of more than eight bytes"));
    }
    let mut bytes = [0u8; 8];
    bytes[7 - more] = (u16::from(first[0]) & (0x7f >> more)) as u8;
    file.read_exact(&mut bytes[8 - more..])?;
    let value = u64::from_be_bytes(bytes);
    Ok((value != (1 << (7 * (more + 1))) - 1).then_some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, bytes: &[u8]) -> Length {
        let path = std::env::temp_dir().join(format!("effigy-container-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        let found = length(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        found
    }

    #[test]
    fn a_matroska_file_is_cut_where_its_segment_goes_on() {
        // a head of three bytes, and a segment of 300
        let mut file = [&EBML[..], &[0x83, 1, 2, 3], &[0x18, 0x53, 0x80, 0x67], &[0x41, 0x2c], &[7; 300]].concat();
        assert_eq!(of("whole.mkv", &file), Length::Whole);
        file.pop();
        assert_eq!(of("cut.mkv", &file), Length::Cut);
        assert_eq!(of("head.mkv", &file[..13]), Length::Cut, "within the segment's size");
        let unknown = [&EBML[..], &[0x83, 1, 2, 3], &[0x18, 0x53, 0x80, 0x67], &[0xff], &[7; 300]].concat();
        assert_eq!(of("unknown.mkv", &unknown), Length::Whole, "nobody can tell");
    }

    #[test]
    fn frames_are_counted_in_mp4_but_not_in_fragments() {
        let part = |name: &[u8; 4], size: usize| [&(size as u32 + 8).to_be_bytes()[..], name, &vec![0; size]].concat();
        let plain = [part(b"ftyp", 8), part(b"mdat", 20), part(b"moov", 10)].concat();
        assert_eq!(of("plain.mp4", &plain), Length::Counted);
        assert_eq!(of("cut.mp4", &plain[..40]), Length::Cut);
        let fragments = [part(b"ftyp", 8), part(b"moov", 10), part(b"moof", 9), part(b"mdat", 20)].concat();
        assert_eq!(of("fragments.mp4", &fragments), Length::Whole);
        assert_eq!(of("cut fragments.mp4", &fragments[..fragments.len() - 1]), Length::Cut);
        let trimmed = |start: [u8; 4]| {
            let list = [&[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 9, 9][..], &start, &[0, 1, 0, 0]].concat();
            let list = [&(list.len() as u32 + 8).to_be_bytes()[..], b"elst", &list].concat();
            let moov = [&(list.len() as u32 + 8).to_be_bytes()[..], b"moov", &list].concat();
            [part(b"ftyp", 8), moov, part(b"mdat", 20)].concat()
        };
        assert_eq!(of("trimmed.mp4", &trimmed([0, 0, 4, 0])), Length::Whole);
        assert_eq!(of("untrimmed.mp4", &trimmed([0; 4])), Length::Counted);
        assert_eq!(of("delayed.mp4", &trimmed([0xff; 4])), Length::Counted);
        let long = [&1u32.to_be_bytes()[..], b"mdat", &24u64.to_be_bytes(), &[0; 8], &part(b"moof", 4)].concat();
        assert_eq!(of("long.mp4", &long), Length::Whole);
    }

    #[test]
    fn other_files_tell_nothing() {
        assert_eq!(of("a.avi", b"RIFF\x10\0\0\0AVI LIST"), Length::Counted);
        assert_eq!(of("a.ts", b"G@\0\x10\0\0\xb0\r\0\x01\xc1\0\0"), Length::Whole);
        assert_eq!(of("short.mp4", b"abc"), Length::Cut);
    }
}
