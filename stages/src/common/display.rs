//! How the pictures of a video are to be shown, by its container: turned by how the camera was held, and in which
//! colours.
//!
//! Read from MP4 and MOV alone (ISO/IEC 14496-12: `mvhd`, `tkhd`, `colr`), which phones and cameras write. Not left to
//! OpenCV: 4.6, which Debian has, turns 90 and 270 degrees the wrong way, and 4.11 not at all (opencv/opencv#22088 and
//! #26876); and whatever a file says, it takes colours for those of BT.601. What the stream says of colours goes before
//! what the container says, as with ffmpeg, and is read by `stream_colours`. Knows no codec and decodes nothing.

use crate::common::stream_colours::{self, Told};
use anyhow::{Context, Result};
use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;

/// How the pictures of a video are to be shown.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Display {
    /// Left and right are to be exchanged first.
    pub mirrored: bool,
    /// Then the picture is to be turned clockwise: quarters of a turn, 0 to 3.
    pub quarters: u8,
    /// What its numbers mean, if it says so.
    pub colours: Option<Colours>,
}

/// Colours by the numbers of ITU-T H.273.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Colours {
    /// The transfer characteristics: 16 and 18 are those of HDR.
    pub transfer: u16,
    /// The matrix coefficients: 1 is BT.709, 5 and 6 BT.601, 9 BT.2020, 2 not told.
    pub matrix: u16,
    /// Black is at 0 and white at the largest number.
    pub full_range: bool,
}

/// Reads how a video is to be shown: none if it is neither MP4 nor MOV, or has no track of pictures.
///
/// # Errors
/// If the file cannot be read.
pub fn of(path: &Path) -> Result<Option<Display>> {
    let open = || tables(&mut BufReader::new(File::open(path)?));
    let tables = match open() {
        // one that breaks off is told by `container`
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => None,
        tables => tables.with_context(|| format!("cannot read {}", path.display()))?,
    };
    Ok(tables.as_deref().and_then(of_tables))
}

/// What tables of a video are never larger than, bytes.
const LARGEST: u64 = 1 << 28;

/// What is in the box `moov` of a file that begins as MP4 and MOV do.
///
/// # Errors
/// If the file cannot be read, or ends before this box.
pub(super) fn tables(file: &mut (impl Read + Seek)) -> std::io::Result<Option<Vec<u8>>> {
    let mut at = 0u64;
    loop {
        file.seek(SeekFrom::Start(at))?;
        let mut head = [0u8; 8];
        file.read_exact(&mut head)?;
        let [a, b, c, d, name @ ..] = head;
        if at == 0 && ![*b"ftyp", *b"moov", *b"mdat", *b"wide", *b"free", *b"skip"].contains(&name) {
            return Ok(None);
        }
        let (size, begin) = match u64::from(u32::from_be_bytes([a, b, c, d])) {
            1 => {
                let mut long = [0u8; 8];
                file.read_exact(&mut long)?;
                (u64::from_be_bytes(long), 16)
            }
            size => (size, 8),
        };
        if &name == b"moov" {
            let mut found = Vec::new();
            let inside = if size == 0 { LARGEST } else { size.saturating_sub(begin).min(LARGEST) };
            file.take(inside).read_to_end(&mut found)?;
            return Ok(Some(found));
        }
        // one that has the rest of the file, or a size that no box can have
        if size < begin {
            return Ok(None);
        }
        at = at.saturating_add(size);
    }
}

/// The boxes that lie one after the other in `bytes`: names and what is in them.
fn boxes(mut bytes: &[u8]) -> Vec<([u8; 4], &[u8])> {
    let mut found = Vec::new();
    while let Some((&[a, b, c, d, e, f, g, h], rest)) = bytes.split_first_chunk() {
        let size = match u32::from_be_bytes([a, b, c, d]) as usize {
            0 => rest.len(),
            size if size >= 8 && size - 8 <= rest.len() => size - 8,
            _ => break,
        };
        found.push(([e, f, g, h], &rest[..size]));
        bytes = &rest[size..];
    }
    found
}

/// What is in the first box that is called so.
pub(super) fn inside<'a>(bytes: &'a [u8], path: &[&[u8; 4]]) -> Option<&'a [u8]> {
    path.iter().try_fold(bytes, |bytes, wanted| {
        boxes(bytes).into_iter().find(|(name, _)| name == *wanted).map(|(_, inside)| inside)
    })
}

/// The track of pictures among tables of a video: the first, as ffmpeg takes it.
pub(super) fn pictures(tables: &[u8]) -> Option<&[u8]> {
    let is_pictures = |track: &[u8]| {
        inside(track, &[b"mdia", b"hdlr"]).and_then(|handler| handler.get(8..12)).is_some_and(|kind| kind == b"vide")
    };
    let tracks = boxes(tables).into_iter().filter(|(name, _)| name == b"trak").map(|(_, track)| track);
    tracks.into_iter().find(|track| is_pictures(track))
}

fn of_tables(tables: &[u8]) -> Option<Display> {
    let track = pictures(tables)?;
    let whole = inside(tables, &[b"mvhd"]).and_then(|head| matrix(head, [36, 48])).unwrap_or(UPRIGHT);
    let own = inside(track, &[b"tkhd"]).and_then(|head| matrix(head, [40, 52])).unwrap_or(UPRIGHT);
    let (mirrored, quarters) = turned(times(own, whole)).unwrap_or_default();
    let entries = inside(track, &[b"mdia", b"minf", b"stbl", b"stsd"]).and_then(|entries| entries.get(8..));
    // behind the fixed part of an entry for pictures
    let entry = entries.and_then(|entries| boxes(entries).into_iter().next()).filter(|(codec, _)| !RGB.contains(codec));
    let entry = entry.and_then(|(_, entry)| entry.get(78..));
    Some(Display { mirrored, quarters, colours: entry.and_then(colours) })
}

/// Codecs of QuickTime that keep R'G'B': of these nothing is converted, whatever matrix they name.
const RGB: [[u8; 4]; 6] = [*b"rle ", *b"raw ", *b"png ", *b"MPNG", *b"tga ", *b"8BPS"];

/// What the parts of an entry say, the stream's own head first; none if neither says anything.
fn colours(parts: &[u8]) -> Option<Colours> {
    let h264 = inside(parts, &[b"avcC"]).and_then(stream_colours::of_h264);
    let stream = h264.or_else(|| inside(parts, &[b"hvcC"]).and_then(stream_colours::of_hevc));
    let container = of_container(parts);
    let known = |number: fn(&Told) -> u16| {
        let all = [&stream, &container].into_iter().flatten().map(number);
        all.into_iter().find(|number| *number != UNTOLD).unwrap_or(UNTOLD)
    };
    let full_range = [&stream, &container].into_iter().flatten().any(|told| told.full_range);
    let found = Colours { transfer: known(|told| told.transfer), matrix: known(|told| told.matrix), full_range };
    (stream.is_some() || container.is_some()).then_some(found)
}

/// What is not told.
const UNTOLD: u16 = 2;

const UPRIGHT: [f64; 4] = [1.0, 0.0, 0.0, 1.0];

/// The upper left of a matrix, `[a b; c d]`: a place `(x, y)`, y down, is shown at `(a x + c y, b x + d y)`. Versions 0
/// and 1 of a head have it at these bytes.
fn matrix(head: &[u8], at: [usize; 2]) -> Option<[f64; 4]> {
    let start = *at.get(usize::from(*head.first()?))?;
    let number = |place: usize| -> Option<f64> {
        let bytes = head.get(start + 4 * place..start + 4 * place + 4)?;
        Some(f64::from(i32::from_be_bytes(bytes.try_into().ok()?)) / 65536.0)
    };
    Some([number(0)?, number(1)?, number(3)?, number(4)?])
}

/// What first `one` does and then `other`.
fn times(one: [f64; 4], other: [f64; 4]) -> [f64; 4] {
    let ([a, b, c, d], [e, f, g, h]) = (one, other);
    [a * e + b * g, a * f + b * h, c * e + d * g, c * f + d * h]
}

/// Whether it mirrors, and by how many quarters it turns then, clockwise; none if it is neither.
fn turned([a, b, c, d]: [f64; 4]) -> Option<(bool, u8)> {
    let mirrored = a * d - b * c < 0.0;
    let [a, b] = if mirrored { [-a, -b] } else { [a, b] };
    let long = a.hypot(b);
    // where the picture's right side goes: to the right, down, left, up
    let side = |x: f64| if x.abs() < 0.01 * long { 0.0 } else { x.signum() };
    let quarters = match (side(a), side(b)) {
        (1.0, 0.0) => 0,
        (0.0, 1.0) => 1,
        (-1.0, 0.0) => 2,
        (0.0, -1.0) => 3,
        _ => return None,
    };
    Some((mirrored, quarters))
}

/// The box `colr`, of MP4 (`nclx`) or of QuickTime (`nclc`, which tells no range: it is the limited one then); others
/// have an ICC profile.
fn of_container(parts: &[u8]) -> Option<Told> {
    let all = boxes(parts).into_iter().filter(|(name, _)| name == b"colr");
    all.into_iter().find_map(|(_, colours)| {
        let (kind, numbers) = colours.split_first_chunk::<4>()?;
        let (&[_, _, a, b, c, d], range) = numbers.split_first_chunk()?;
        let full_range = match kind {
            b"nclx" => range.first().is_some_and(|byte| byte & 0x80 != 0),
            b"nclc" => false,
            _ => return None,
        };
        Some(Told { transfer: u16::from_be_bytes([a, b]), matrix: u16::from_be_bytes([c, d]), full_range })
    })
}

impl Colours {
    /// What takes colours that were read as those of BT.601, R'G'B', to what they are, rows first: none if they are
    /// those, or of no matrix that is known here. Both ranges have the same: it is a matrix of luma and colour
    /// differences. Greys stay.
    pub fn out_of_bt601(&self) -> Option<[[f64; 3]; 3]> {
        // shares of red and blue in luma
        let (red, blue) = match self.matrix {
            1 => (0.2126, 0.0722),
            9 | 10 => (0.2627, 0.0593),
            _ => return None,
        };
        let of = |[r, g, b]: [f64; 3]| {
            let luma = 0.299 * r + 0.587 * g + 0.114 * b;
            let (of_blue, of_red) = ((b - luma) / 1.772, (r - luma) / 1.402);
            let (r, b) = (luma + 2.0 * (1.0 - red) * of_red, luma + 2.0 * (1.0 - blue) * of_blue);
            [r, (luma - red * r - blue * b) / (1.0 - red - blue), b]
        };
        let columns = [of([1.0, 0.0, 0.0]), of([0.0, 1.0, 0.0]), of([0.0, 0.0, 1.0])];
        Some([0, 1, 2].map(|row| [0, 1, 2].map(|column| columns[column][row])))
    }

    /// Whether bright places are kept as HDR has them (PQ, HLG), and not as a screen shows them.
    pub fn is_hdr(&self) -> bool {
        [16, 18].contains(&self.transfer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(name: &[u8; 4], inside: &[u8]) -> Vec<u8> {
        [&(inside.len() as u32 + 8).to_be_bytes()[..], name, inside].concat()
    }

    /// The head of a track with this matrix, in either version.
    fn head(version: u8, matrix: [i32; 4]) -> Vec<u8> {
        let [a, b, c, d] = matrix.map(|x| (x * 65536).to_be_bytes());
        let before = if version == 1 { 51 } else { 39 };
        part(b"tkhd", &[&[version][..], &vec![0; before], &a, &b, &[0; 4], &c, &d, &[0; 20]].concat())
    }

    fn film(head: &[u8], more: &[u8]) -> Vec<u8> {
        let sound = part(b"trak", &part(b"mdia", &part(b"hdlr", b"\0\0\0\0\0\0\0\0soun\0\0\0\0")));
        let entry = part(b"avc1", &[&[0; 78][..], &part(b"avcC", &[1, 2, 3]), more].concat());
        let entries = part(b"stsd", &[&[0, 0, 0, 0, 0, 0, 0, 1][..], &entry].concat());
        let media = part(b"minf", &part(b"stbl", &entries));
        let handler = part(b"hdlr", b"\0\0\0\0\0\0\0\0vide\0\0\0\0");
        let track = part(b"trak", &[head, &part(b"mdia", &[handler, media].concat())].concat());
        [part(b"ftyp", b"isom"), part(b"mdat", &[7; 30]), part(b"moov", &[sound, track].concat())].concat()
    }

    fn read(name: &str, bytes: &[u8]) -> Option<Display> {
        let path = std::env::temp_dir().join(format!("effigy-display-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        let found = of(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        found
    }

    #[test]
    fn a_matrix_turns_and_mirrors() {
        let found = |matrix: [i32; 4]| {
            let both = [0, 1].map(|version| read("turned.mp4", &film(&head(version, matrix), &[])).unwrap());
            assert_eq!(both[0], both[1], "{matrix:?}");
            (both[0].mirrored, both[0].quarters)
        };
        assert_eq!(found([1, 0, 0, 1]), (false, 0));
        // as phones write that are held upright: the stored picture's right side is shown below
        assert_eq!(found([0, 1, -1, 0]), (false, 1));
        assert_eq!(found([-1, 0, 0, -1]), (false, 2));
        assert_eq!(found([0, -1, 1, 0]), (false, 3));
        assert_eq!(found([-1, 0, 0, 1]), (true, 0));
        assert_eq!(found([1, 0, 0, -1]), (true, 2), "upside down is mirrored and half a turn");
        assert_eq!((found([1, 1, -1, 1]), found([0; 4])), ((false, 0), (false, 0)), "nothing that can be done");
    }

    #[test]
    fn files_that_say_nothing_of_it_have_none() {
        assert_eq!(read("a.mkv", &[0x1a, 0x45, 0xdf, 0xa3, 1, 2, 3, 4, 5, 6, 7, 8]), None);
        let film = film(&head(0, [0, 1, -1, 0]), &[]);
        for length in 0..film.len() {
            // a film that breaks off is no film, and no panic either
            read("cut.mp4", &film[..length]);
        }
    }

    #[test]
    fn what_is_kept_as_red_green_and_blue_has_no_matrix() {
        let colours = |codec: &[u8; 4]| {
            let mut film = film(&head(0, [1, 0, 0, 1]), &part(b"colr", b"nclc\0\x01\0\x01\0\x01"));
            let at = film.windows(4).position(|name| name == b"avc1").unwrap();
            film[at..at + 4].copy_from_slice(codec);
            read("codec.mov", &film).unwrap().colours
        };
        assert!(colours(b"apcn").is_some() && RGB.iter().all(|codec| colours(codec).is_none()));
    }

    #[test]
    fn colours_are_told_by_mp4_and_quicktime() {
        let colours = |kind: &[u8]| {
            let found = read("colours.mp4", &film(&head(0, [1, 0, 0, 1]), &part(b"colr", kind))).unwrap();
            found.colours.map(|colours| (colours.transfer, colours.matrix, colours.full_range))
        };
        assert_eq!(colours(b"nclx\0\x01\0\x01\0\x01\x80"), Some((1, 1, true)));
        assert_eq!(colours(b"nclx\0\x09\0\x12\0\x09\0"), Some((18, 9, false)));
        assert_eq!(colours(b"nclc\0\x06\0\x01\0\x06"), Some((1, 6, false)));
        assert_eq!(colours(b"profICC"), None);
    }

    #[test]
    fn colours_read_as_bt601_become_what_they_were() {
        let colours = |matrix: u16| Colours { transfer: 1, matrix, full_range: false };
        assert_eq!([2, 5, 6].map(|matrix| colours(matrix).out_of_bt601()), [None; 3]);
        let rows = colours(1).out_of_bt601().unwrap();
        // BT.709, 3: E'Y = 0.2126 R + 0.7152 G + 0.0722 B, and differences over 1.8556 and 1.5748
        let [r, g, b] = [0.8f64, 0.5, 0.4];
        let luma = 0.2126 * r + 0.7152 * g + 0.0722 * b;
        let (of_blue, of_red) = ((b - luma) / 1.8556, (r - luma) / 1.5748);
        // BT.601, 2.5.3, the other way
        let read = [luma + 1.402 * of_red, luma - 0.344_136 * of_blue - 0.714_136 * of_red, luma + 1.772 * of_blue];
        assert!((read[0] - r).abs() > 0.02, "the two differ: {read:?}");
        for (row, expected) in rows.iter().zip([r, g, b]) {
            let found: f64 = row.iter().zip(read).map(|(k, x)| k * x).sum();
            assert!((found - expected).abs() < 1e-5, "{found} is not {expected}");
            assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-12, "grey stays");
        }
    }
}
