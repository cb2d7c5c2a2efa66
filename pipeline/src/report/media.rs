//! Pictures and videos from blob columns: which rows, what a file is, how large it is shown.
//!
//! Goes by the files' first bytes, not by their names. Decodes nothing.

use super::document::{Block, Media};
use super::numbers::{bytes, counted, value};
use super::table::absent;
use crate::compare::Naming;
use crate::finished::FinishedRun;
use anyhow::Context;
use manifests::{Manifest, Type, Value};
use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Pictures shown if the recipe sets no limit.
const PICTURES: usize = 24;
/// Videos shown at most.
const VIDEOS: usize = 12;
/// Larger files are not written into the page: browsers choke on them.
const EMBEDDED: u64 = 48 << 20;
/// The page's width for one large picture, px.
const PAGE: u32 = 1040;
/// How high small pictures are made at most, px.
const TALL: u32 = 1200;
/// How long the shorter side of small pictures is made at least, if the page is wide enough, px.
const LEGIBLE: u32 = 176;
/// The same of videos, which need room for their buttons, px.
const LEGIBLE_VIDEO: u32 = 288;

/// Whether pictures or videos are wanted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    /// Still images.
    Picture,
    /// Moving ones.
    Video,
}

/// What a recipe's `images:` or `videos:` asks for.
pub(super) struct Asked<'a> {
    /// Which.
    pub kind: Kind,
    /// The blob column.
    pub column: &'a str,
    /// Columns for the caption, or texts.
    pub caption: &'a [String],
    /// Columns in which rows are equal that are shown together or not at all.
    pub groups: &'a [String],
    /// At most so many.
    pub limit: Option<usize>,
    /// How the files' names begin.
    pub prefix: &'a str,
}

/// The pictures or videos of a column, and notices about those that cannot be shown.
///
/// # Errors
/// If a file that is there cannot be read.
pub(super) fn media(run: &FinishedRun, manifest: &Manifest, asked: &Asked<'_>) -> anyhow::Result<Vec<Block>> {
    let notice = |text: String| Ok(vec![Block::Notice(text)]);
    match manifest.schema().ty(asked.column) {
        None => return notice(absent(manifest, asked.column)),
        Some(Type::Blob) => {}
        Some(ty) => return notice(format!("not available: column `{}` is {ty}, not blob", asked.column)),
    }
    let values = manifest.column(asked.column)?;
    let present: Vec<usize> = (0..values.len()).filter(|&row| values[row] != Value::Null).collect();
    if present.is_empty() {
        return notice(format!("not available: no row has a `{}`", asked.column));
    }
    let most = asked.limit.unwrap_or(if asked.kind == Kind::Picture { PICTURES } else { VIDEOS });
    if let Some(missing) = asked.groups.iter().find(|name| manifest.schema().position(name).is_none()) {
        return notice(absent(manifest, missing));
    }
    let chosen = match asked.groups {
        [] => spread(&present, most),
        groups => whole_groups(manifest, &present, groups, most),
    };
    let captions = captions(manifest, &chosen, asked.caption);
    let mut shown = Vec::new();
    let mut blocks = Vec::new();
    for (&row, caption) in chosen.iter().zip(captions) {
        let Value::Blob(blob) = &values[row] else { continue };
        let Some(source) = (run.blob_path)(blob) else {
            let what =
                format!("not available: the file of row {row}, {}, is no longer in the cache", blob.digest.short());
            blocks.push(Block::Notice(what));
            continue;
        };
        let probe = probe(&source).with_context(|| format!("reading {} for the report", source.display()))?;
        let name = format!("{}-{:03}.{}", asked.prefix, shown.len() + 1, probe.extension.unwrap_or(&blob.ext));
        let (mime, expected) = match asked.kind {
            Kind::Picture => (probe.mime.filter(|mime| mime.starts_with("image/")), "a PNG, JPEG, WebP or GIF picture"),
            Kind::Video => (probe.mime.filter(|mime| mime.starts_with("video/")), "an MP4 or WebM video"),
        };
        let Some(mime) = mime else {
            blocks.push(Block::Notice(format!("not available: the file of row {row} is not {expected}")));
            continue;
        };
        let only_named = match probe.unplayable {
            Some(codec) => Some(format!("browsers do not play {codec}")),
            None if blob.len > EMBEDDED => Some(format!("{} are too much for one page", bytes(blob.len))),
            None => None,
        };
        shown.push(Media { source, name, mime, size: probe.size, zoom: 1, caption, only_named });
    }
    let alone = shown.len() == 1;
    let legible = if asked.kind == Kind::Picture { LEGIBLE } else { LEGIBLE_VIDEO };
    for media in &mut shown {
        media.zoom = media.size.map_or(1, |size| zoom(size, legible, alone));
    }
    let of = if asked.groups.is_empty() {
        String::new()
    } else {
        format!(", those of one {} together", asked.groups.join(", "))
    };
    let count = format!("{} of {}, evenly spread{of}", shown.len(), counted(present.len(), "row"));
    let some_only = (present.len() > chosen.len()).then_some(count);
    if !shown.is_empty() {
        let block = match asked.kind {
            Kind::Picture => Block::Pictures(shown, some_only),
            Kind::Video => Block::Videos(shown, some_only),
        };
        blocks.insert(0, block);
    }
    Ok(blocks)
}

/// At most `most` of the rows, evenly spread, the first and the last among them.
fn spread(rows: &[usize], most: usize) -> Vec<usize> {
    if rows.len() <= most {
        return rows.to_vec();
    }
    (0..most)
        .map(|i| rows[(i * (rows.len() - 1) + most.saturating_sub(1) / 2) / most.saturating_sub(1).max(1)])
        .collect()
}

/// As many groups of rows as have together at most `most` rows, but one at least; evenly spread likewise.
fn whole_groups(manifest: &Manifest, rows: &[usize], columns: &[String], most: usize) -> Vec<usize> {
    let mut places: HashMap<Vec<String>, usize> = HashMap::new();
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for &row in rows {
        let values =
            columns.iter().map(|name| manifest.value(row, name).map_or(String::new(), |value| value.to_json_text()));
        let place = *places.entry(values.collect()).or_insert(groups.len());
        if place == groups.len() {
            groups.push(Vec::new());
        }
        groups[place].push(row);
    }
    let all: Vec<usize> = (0..groups.len()).collect();
    let of = |count: usize| spread(&all, count).into_iter().flat_map(|i| groups[i].iter().copied()).collect::<Vec<_>>();
    (2..=groups.len().min(most)).rev().map(of).find(|chosen| chosen.len() <= most).unwrap_or_else(|| of(1))
}

/// The captions of rows. Those that would read alike begin with what tells them apart, such as the person.
fn captions(manifest: &Manifest, rows: &[usize], parts: &[String]) -> Vec<String> {
    let mut all: Vec<String> = rows.iter().map(|&row| caption(manifest, row, parts)).collect();
    let mut alike: HashMap<&str, Vec<usize>> = HashMap::new();
    all.iter().enumerate().for_each(|(i, text)| alike.entry(text).or_default().push(i));
    let alike: Vec<Vec<usize>> = alike.into_values().filter(|places| places.len() > 1).collect();
    if parts.is_empty() || alike.is_empty() {
        return all;
    }
    let naming = Naming::of(manifest);
    for places in alike {
        let value = |i: usize, name: &String| manifest.value(rows[i], name).ok();
        let tells =
            |name: &&String| !parts.contains(name) && places.iter().any(|&i| value(i, name) != value(places[0], name));
        let telling: Vec<String> = naming.columns().iter().filter(tells).cloned().collect();
        for i in places.iter().copied().filter(|_| !telling.is_empty()) {
            all[i] = format!("{} · {}", caption(manifest, rows[i], &telling), all[i]);
        }
    }
    all
}

fn caption(manifest: &Manifest, row: usize, parts: &[String]) -> String {
    let part = |name: &String| match manifest.value(row, name) {
        Err(_) => name.clone(),
        Ok(Value::Str(text)) => text,
        Ok(other) => format!("{name} {}", value(&other)),
    };
    parts.iter().map(part).collect::<Vec<_>>().join(" · ")
}

/// Small pictures are enlarged by a whole number, so that each pixel stays a square.
fn zoom((width, height): (u32, u32), legible: u32, alone: bool) -> u32 {
    let most = (PAGE / width.max(1)).min(TALL / height.max(1)).max(1);
    if alone { most.min(4) } else { legible.div_ceil(width.min(height).max(1)).min(most) }
}

/// What the first bytes of a file tell.
#[derive(Debug, Default, PartialEq)]
struct Probe {
    mime: Option<&'static str>,
    extension: Option<&'static str>,
    size: Option<(u32, u32)>,
    unplayable: Option<&'static str>,
}

fn probe(path: &Path) -> std::io::Result<Probe> {
    let mut file = File::open(path)?;
    let mut start = Vec::new();
    file.by_ref().take(256 << 10).read_to_end(&mut start)?;
    let known = |mime, extension| Probe { mime: Some(mime), extension: Some(extension), ..Probe::default() };
    Ok(if start.starts_with(b"\x89PNG\r\n\x1a\n") {
        let at = |i: usize| start.get(i..i + 4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
        Probe { size: at(16).zip(at(20)), ..known("image/png", "png") }
    } else if start.starts_with(b"\xff\xd8\xff") {
        Probe { size: jpeg_size(&start), ..known("image/jpeg", "jpg") }
    } else if start.starts_with(b"GIF8") {
        known("image/gif", "gif")
    } else if start.starts_with(b"RIFF") && start.get(8..12) == Some(b"WEBP") {
        known("image/webp", "webp")
    } else if start.get(4..8) == Some(b"ftyp") {
        let moov = moov(&mut file)?;
        let holds = |codec: &[u8; 4]| moov.windows(4).any(|window| window == codec);
        let unplayable = holds(b"mp4v").then_some("MPEG-4 part 2 (mp4v)");
        Probe { unplayable, size: track_size(&moov), ..known("video/mp4", "mp4") }
    } else if start.starts_with(b"\x1a\x45\xdf\xa3") {
        known("video/webm", "webm")
    } else {
        Probe::default()
    })
}

/// Width and height from the frame header of a JPEG.
fn jpeg_size(bytes: &[u8]) -> Option<(u32, u32)> {
    let mut at = 2;
    loop {
        let head = bytes.get(at..at + 9)?;
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        // markers C0 to CF hold a frame's size, save for the three that hold tables
        if head[0] == 0xff && matches!(head[1], 0xc0..=0xcf) && !matches!(head[1], 0xc4 | 0xc8 | 0xcc) {
            let number = |i: usize| u32::from(u16::from_be_bytes([head[i], head[i + 1]]));
            return Some((number(7), number(5)));
        }
        at += 2 + length;
    }
}

/// The box of an MP4 file that tells of its tracks; empty if there is none.
fn moov(file: &mut File) -> std::io::Result<Vec<u8>> {
    let end = file.seek(SeekFrom::End(0))?;
    let mut at = 0;
    let mut moov = Vec::new();
    while at + 8 <= end {
        file.seek(SeekFrom::Start(at))?;
        let mut head = [0; 16];
        let got = file.by_ref().take(16).read(&mut head)?;
        let mut length = u64::from(u32::from_be_bytes([head[0], head[1], head[2], head[3]]));
        if length == 1 && got == 16 {
            length = u64::from_be_bytes(head[8..].try_into().expect("eight bytes"));
        }
        // a box of length 0 reaches to the end of the file
        if length < 8 {
            length = end - at;
        }
        if &head[4..8] == b"moov" {
            file.seek(SeekFrom::Start(at))?;
            file.by_ref().take(length.min(16 << 20)).read_to_end(&mut moov)?;
            break;
        }
        // one that leads beyond the end, as damage may, is the last
        let Some(next) = at.checked_add(length) else { break };
        at = next;
    }
    Ok(moov)
}

/// Width and height of the first track that has any (ISO 14496-12, track header box).
fn track_size(moov: &[u8]) -> Option<(u32, u32)> {
    let heads = moov.windows(4).enumerate().filter(|(_, window)| window == b"tkhd").map(|(at, _)| at + 4);
    heads
        .filter_map(|body| {
            // times are twice as long in version 1; sizes are fixed point, 16 bits before the point
            let at = body + if *moov.get(body)? == 1 { 88 } else { 76 };
            let whole = |at: usize| moov.get(at..at + 2).map(|b| u32::from(u16::from_be_bytes([b[0], b[1]])));
            whole(at).zip(whole(at + 4)).filter(|&(width, height)| width > 0 && height > 0)
        })
        .next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_spread_evenly() {
        let rows: Vec<usize> = (10..110).collect();
        assert_eq!(spread(&rows, 4), [10, 43, 76, 109]);
        assert_eq!(spread(&rows, 1), [10]);
        assert!(spread(&rows, 0).is_empty());
        assert_eq!(spread(&rows[..3], 4), [10, 11, 12]);
    }

    #[test]
    fn groups_stay_whole_and_captions_that_read_alike_say_more() {
        use manifests::{Manifest, Schema};
        let columns = [("participant", Type::I64), ("film", Type::Str), ("channel", Type::Str)];
        let text = |text: &str| Value::Str(text.into());
        let row = |person: i64, film: &str, channel: &str| vec![Value::I64(person), text(film), text(channel)];
        let films = [(18, "orbit"), (18, "driven"), (37, "orbit"), (37, "driven")];
        let rows: Vec<_> = films.iter().flat_map(|(p, f)| ["truth", "render"].map(|c| row(*p, f, c))).collect();
        let manifest = Manifest::from_rows(Schema::new(columns).unwrap(), &rows).unwrap();
        let all: Vec<usize> = (0..8).collect();
        let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        let groups = names(&["participant", "film"]);
        assert_eq!(whole_groups(&manifest, &all, &groups, 5), [0, 1, 6, 7]);
        assert_eq!(whole_groups(&manifest, &all, &groups, 8), all);
        // a limit smaller than any group shows one of them
        assert_eq!(whole_groups(&manifest, &all, &groups, 1), [0, 1]);
        let parts = names(&["film", "channel"]);
        assert_eq!(
            captions(&manifest, &[0, 4], &parts),
            ["participant 18 · orbit · truth", "participant 37 · orbit · truth"]
        );
        assert_eq!(captions(&manifest, &[0, 6], &parts), ["orbit · truth", "driven · truth"]);
    }

    #[test]
    fn small_pictures_grow_by_whole_numbers() {
        let sizes = [(64, 64), (512, 512), (512, 64), (2000, 20), (1, 0)];
        assert_eq!(sizes.map(|size| zoom(size, LEGIBLE, false)), [3, 1, 2, 1, 176]);
        assert_eq!(sizes.map(|size| zoom(size, LEGIBLE, true)), [4, 2, 2, 1, 4]);
        assert_eq!(
            [zoom((120, 900), LEGIBLE, true), zoom((120, 400), LEGIBLE, true)],
            [1, 3],
            "none is higher than a screen"
        );
    }

    #[test]
    fn files_are_known_by_their_content() {
        let dir = tempfile::tempdir().unwrap();
        let of = |bytes: &[u8]| {
            let path = dir.path().join("file");
            std::fs::write(&path, bytes).unwrap();
            probe(&path).unwrap()
        };
        let jpeg = b"\xff\xd8\xff\xe0\x00\x04ab\xff\xc0\x00\x0b\x08\x00\x20\x00\x40\x01\x01\x11\x00";
        assert_eq!(of(jpeg).size, Some((64, 32)));
        assert_eq!(of(b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR\x00\x00\x00\x03\x00\x00\x00\x02").size, Some((3, 2)));
        let mp4 = |codec: &[u8]| [b"\x00\x00\x00\x08ftyp\x00\x00\x00\x10moov", codec, b"...."].concat();
        assert_eq!(of(&mp4(b"mp4v")).unplayable, Some("MPEG-4 part 2 (mp4v)"));
        let track = [&b"\x00\x00\x00\x64moov....tkhd"[..], &[0; 76], &[0, 96, 0, 0, 0, 64, 0, 0]].concat();
        assert_eq!(of(&[b"\x00\x00\x00\x08ftyp", &track[..]].concat()).size, Some((96, 64)));
        assert_eq!((of(&mp4(b"avc1")).unplayable, of(&mp4(b"avc1")).mime), (None, Some("video/mp4")));
        // a box whose length leads around to where it began
        let endless = [&b"\x00\x00\x00\x08ftyp\x00\x00\x00\x01free"[..], &(u64::MAX - 7).to_be_bytes()].concat();
        assert_eq!((of(&endless).mime, of(&endless).size), (Some("video/mp4"), None));
        assert_eq!(of(b"<svg onload=alert(1)>"), Probe::default());
        assert_eq!(of(b""), Probe::default());
    }
}
