//! Whether JPEG files are whole. Decoders make up what is missing at the end of one and go on.
//!
//! Knows the order of segments, and decodes nothing.

use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The markers at the beginning of a JPEG and at its end.
const START: [u8; 2] = [0xff, 0xd8];
const END: [u8; 2] = [0xff, 0xd9];

/// Checks that a file, if it is a JPEG, goes on to its end. Other files are not looked at.
///
/// # Errors
/// If it breaks off; the message names it.
pub fn ensure_whole(path: &Path) -> Result<()> {
    let unreadable = || format!("cannot read {}", path.display());
    let mut file = File::open(path).with_context(unreadable)?;
    let mut bytes = Vec::new();
    Read::by_ref(&mut file).take(2).read_to_end(&mut bytes).with_context(unreadable)?;
    if bytes != START {
        return Ok(());
    }
    file.read_to_end(&mut bytes).with_context(unreadable)?;
    if !is_whole(&bytes) {
        bail!(
            "the JPEG {} breaks off after {} bytes: its end is missing\nhint: copy or download it again",
            path.display(),
            bytes.len()
        );
    }
    Ok(())
}

/// Whether the bytes of a JPEG have its end in them; what some programs append stands behind that. Segments before the
/// picture, which may have a whole thumbnail in them, are passed over by their lengths; within a picture a byte `ff` of
/// the data has `00` behind it, so the marker is nothing else (ITU-T T.81, B.1.1).
fn is_whole(jpeg: &[u8]) -> bool {
    let (mut at, mut in_picture) = (2, false);
    while !in_picture {
        let Some(&[0xff, marker, high, low]) = jpeg.get(at..).and_then(|rest| rest.first_chunk()) else { break };
        if marker == 0xff {
            // markers may have any number of these before them
            at += 1;
            continue;
        }
        at += 2 + usize::from(u16::from_be_bytes([high, low]));
        in_picture = marker == 0xda;
    }
    // from behind, where it is
    jpeg.get(at..).is_some_and(|rest| rest.windows(2).rev().any(|two| two == END))
}

#[cfg(test)]
mod tests {
    use crate::common::media::Image;

    #[test]
    fn a_jpeg_that_is_cut_short_is_named_wherever_it_is_cut() {
        let dir = std::env::temp_dir().join(format!("effigy-jpeg-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("cut.jpg");
        let image = Image::new(64, 48, 3, (0..64 * 48 * 3).map(|i| (i * 7 % 256) as u8).collect());
        image.write_jpeg(&path, 90).unwrap();
        let whole = std::fs::read(&path).unwrap();
        // a thumbnail is a whole JPEG within the first segment
        let length = (whole.len() as u16 + 2).to_be_bytes();
        let with_thumbnail = [&[0xff, 0xd8, 0xff, 0xe1], &length[..], &whole, &whole[2..]].concat();
        for jpeg in [&whole, &with_thumbnail] {
            std::fs::write(&path, jpeg).unwrap();
            let read = Image::read(&path, 3).unwrap();
            for keep in [jpeg.len() - 2, jpeg.len() - 1, jpeg.len() - whole.len() / 2] {
                std::fs::write(&path, &jpeg[..keep]).unwrap();
                let error = Image::read(&path, 3).unwrap_err().to_string();
                assert!(error.contains("cut.jpg breaks off after") && error.contains("hint:"), "{keep}: {error}");
            }
            std::fs::write(&path, [jpeg, &b"appended"[..]].concat()).unwrap();
            assert_eq!(Image::read(&path, 3).unwrap(), read);
        }
        let path = dir.join("cut.png");
        image.write_png(&path).unwrap();
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        let error = Image::read(&path, 3).unwrap_err().to_string();
        assert!(error.contains("cut.png: it is damaged"), "{error}");
    }
}
