//! Files by their digests: those of the workspace, and the user's own that runs have read, as long as they are
//! unchanged. A digest is all that a request can name, so there is no path to go astray.

use super::asked::{Answer, Answered, Asked, Body, missing};
use crate::memory::{Memory, Places, Store};
use cache::Blobs;
use cache::layout;
use manifests::Digest;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

/// What browsers show by themselves, by the ending of the name. All else is handed out as a download: a page that a
/// stage made must not run as part of ours.
const MEDIA: [(&str, &str); 18] = [
    ("png", "image/png"),
    ("jpg", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("webp", "image/webp"),
    ("gif", "image/gif"),
    ("bmp", "image/bmp"),
    ("avif", "image/avif"),
    ("svg", "image/svg+xml"),
    ("mp4", "video/mp4"),
    ("webm", "video/webm"),
    ("txt", "text/plain; charset=utf-8"),
    ("log", "text/plain; charset=utf-8"),
    ("csv", "text/plain; charset=utf-8"),
    ("tsv", "text/plain; charset=utf-8"),
    ("json", "text/plain; charset=utf-8"),
    ("yaml", "text/plain; charset=utf-8"),
    ("md", "text/plain; charset=utf-8"),
    ("py", "text/plain; charset=utf-8"),
];

/// A file opened by itself may do nothing at all.
const SHUT: &str = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:; media-src 'self'";

/// The files of a workspace.
pub struct Files {
    root: PathBuf,
    elsewhere: Mutex<Elsewhere>,
}

/// The user's own files that runs have read, as the memories of a moment told.
#[derive(Default)]
struct Elsewhere {
    of: Vec<(PathBuf, Option<SystemTime>)>,
    places: Option<Arc<Places>>,
}

impl Files {
    /// Those of a workspace.
    pub fn new(root: &Path) -> Files {
        Files { root: root.into(), elsewhere: Mutex::default() }
    }

    /// Where the file of a digest can be read.
    pub fn path(&self, digest: &Digest) -> Option<PathBuf> {
        let own = self.root.join(layout::BLOBS).join(Blobs::name(digest));
        if own.is_file() {
            return Some(own);
        }
        let mut elsewhere = self.elsewhere.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let entries =
            std::fs::read_dir(self.root.join(layout::RUNS).join(layout::LAST)).into_iter().flatten().flatten();
        let stamp = |path: PathBuf| (std::fs::metadata(&path).and_then(|meta| meta.modified()).ok(), path);
        let mut now: Vec<_> = entries.map(|entry| stamp(entry.path())).map(|(time, path)| (path, time)).collect();
        now.sort();
        if elsewhere.of != now {
            let memories = Store::new(&self.root).all().unwrap_or_default();
            let files = memories.into_iter().flat_map(|(memory, _)| memory.files).collect();
            elsewhere.places = Places::new(&self.root, Memory { files, ..Memory::default() }).ok().map(Arc::new);
            elsewhere.of = now;
        }
        let places = elsewhere.places.clone()?;
        // a file that was touched is read whole, and meanwhile others are asked for
        drop(elsewhere);
        places.own(digest)
    }

    /// Answers for `/blob/DIGEST.EXT`; what stands behind the digest says how it is to be shown.
    ///
    /// # Errors
    /// If there is no such file.
    pub fn answer(&self, name: &str, asked: &Asked) -> Answered {
        let (digest, ext) = name.split_once('.').unwrap_or((name, ""));
        let digest: Digest = digest.parse().map_err(|_| missing("that is no digest of a file"))?;
        let path = self.path(&digest).ok_or_else(|| missing("this file is not kept any more"))?;
        let unreadable = |error: std::io::Error| missing(format!("this file cannot be read: {error}"));
        let mut file = File::open(path).map_err(unreadable)?;
        let length = file.metadata().map_err(unreadable)?.len();
        let known = MEDIA.iter().find(|(known, _)| known.eq_ignore_ascii_case(ext)).map(|(_, media)| *media);
        let mut headers = vec![
            // what bears a digest never changes
            ("Cache-Control", "private, max-age=86400, immutable".to_string()),
            ("Content-Security-Policy", SHUT.into()),
            ("Accept-Ranges", "bytes".into()),
        ];
        if known.is_none() {
            headers.push(("Content-Disposition", "attachment".into()));
        }
        let (status, length) = match asked.header("range").map(|text| range(text, length)) {
            None => (200, length),
            Some(None) => {
                headers.push(("Content-Range", format!("bytes */{length}")));
                return Ok(Answer { status: 416, media: "text/plain", body: Body::Bytes(Vec::new()), headers });
            }
            Some(Some((first, last))) => {
                file.seek(SeekFrom::Start(first)).map_err(unreadable)?;
                headers.push(("Content-Range", format!("bytes {first}-{last}/{length}")));
                (206, last - first + 1)
            }
        };
        let media = known.unwrap_or("application/octet-stream");
        Ok(Answer { status, media, body: Body::Part(file, length), headers })
    }
}

/// First and last byte that a range asks for, of so many; only one range is understood, which is what players send.
fn range(text: &str, length: u64) -> Option<(u64, u64)> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let end = length.checked_sub(1)?;
    let (first, last) = match (first, last) {
        ("", last) => (length.saturating_sub(last.parse().ok().filter(|count| *count > 0)?), end),
        (first, "") => (first.parse().ok()?, end),
        (first, last) => (first.parse().ok()?, last.parse::<u64>().ok()?.min(end)),
    };
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_players() {
        assert_eq!(range("bytes=0-", 10), Some((0, 9)));
        assert_eq!(range("bytes=2-5", 10), Some((2, 5)));
        assert_eq!(range("bytes=2-50", 10), Some((2, 9)));
        assert_eq!(range("bytes=-3", 10), Some((7, 9)));
        for text in ["bytes=10-", "bytes=5-2", "bytes=-0", "bytes=a-b", "lines=0-", "bytes=0-1,4-5", "bytes=-"] {
            assert_eq!(range(text, 10), None, "{text}");
        }
        assert_eq!(range("bytes=0-", 0), None);
    }
}
