//! PNG files of 8 and 16 bits a sample, as they are and without any conversion.
//!
//! Knows nothing of what the samples mean. A file of another bit depth or number of channels is an error, for whoever
//! converts it silently reads other integers than were written.

use crate::fault::Fault;
use image::codecs::png::{CompressionType, FilterType, PngDecoder, PngEncoder};
use image::{ColorType, ExtendedColorType, ImageDecoder, ImageEncoder};
use std::io::Cursor;
use std::path::Path;

/// How samples are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Bits of a sample, 8 or 16.
    pub bits: u16,
    /// Channels, 1 or 3.
    pub channels: u8,
}

impl Kind {
    fn text(self) -> String {
        format!("{} bits, {} channel{}", self.bits, self.channels, if self.channels == 1 { "" } else { "s" })
    }
}

/// The samples of a picture, row by row.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// How they are stored.
    pub kind: Kind,
    /// The samples, those of a pixel beside each other in the order red, green, blue.
    pub samples: Vec<u16>,
}

impl Picture {
    /// A picture of 8 bits a sample.
    pub fn of_u8(width: u32, height: u32, channels: u8, data: Vec<u8>) -> Picture {
        let samples = data.into_iter().map(u16::from).collect();
        Picture { width, height, kind: Kind { bits: 8, channels }, samples }
    }

    /// A picture of 16 bits a sample.
    pub fn of_u16(width: u32, height: u32, channels: u8, samples: Vec<u16>) -> Picture {
        Picture { width, height, kind: Kind { bits: 16, channels }, samples }
    }

    /// The PNG file.
    ///
    /// # Panics
    /// If the number of samples does not fit the size.
    pub fn encode(&self) -> Vec<u8> {
        let color = match (self.kind.bits, self.kind.channels) {
            (16, 1) => ExtendedColorType::L16,
            (16, _) => ExtendedColorType::Rgb16,
            (_, 1) => ExtendedColorType::L8,
            _ => ExtendedColorType::Rgb8,
        };
        let bytes: Vec<u8> = match self.kind.bits {
            16 => self.samples.iter().flat_map(|sample| sample.to_ne_bytes()).collect(),
            _ => self.samples.iter().map(|sample| *sample as u8).collect(),
        };
        let mut file = Vec::new();
        let encoder = PngEncoder::new_with_quality(&mut file, CompressionType::Default, FilterType::Adaptive);
        // memory takes everything, and the sizes are ours
        encoder.write_image(&bytes, self.width, self.height, color).expect("the samples fit the size");
        file
    }

    /// Reads a PNG file of this kind.
    ///
    /// # Errors
    /// If it is missing, truncated, no PNG, or of another kind.
    pub fn read(path: &Path, kind: Kind) -> Result<Picture, Fault> {
        let file = std::fs::read(path).map_err(|e| Fault::unreadable(path, e))?;
        let wrong = |field: &str, found: String, expected: String| {
            Fault::field(
                path,
                field,
                found,
                expected,
                "make or copy the file again; a program that edits pictures may have converted it",
            )
        };
        let broken = |e: image::ImageError| {
            wrong("(file)", format!("{} bytes that cannot be decoded ({e})", file.len()), "a whole PNG".into())
        };
        let decoder = PngDecoder::new(Cursor::new(&file)).map_err(broken)?;
        let found = match decoder.original_color_type() {
            ExtendedColorType::L8 => Some(Kind { bits: 8, channels: 1 }),
            ExtendedColorType::L16 => Some(Kind { bits: 16, channels: 1 }),
            ExtendedColorType::Rgb8 => Some(Kind { bits: 8, channels: 3 }),
            ExtendedColorType::Rgb16 => Some(Kind { bits: 16, channels: 3 }),
            _ => None,
        };
        let same = [ColorType::L8, ColorType::L16, ColorType::Rgb8, ColorType::Rgb16].contains(&decoder.color_type());
        if found != Some(kind) || !same {
            let found = found.map_or_else(|| format!("{:?}", decoder.original_color_type()), Kind::text);
            return Err(wrong("bit depth, colour type", found, kind.text()));
        }
        let (width, height) = decoder.dimensions();
        let too_large =
            || wrong("width, height", format!("{width} x {height}"), "a picture that fits into memory".into());
        let length = usize::try_from(decoder.total_bytes()).ok().filter(|n| *n < 1 << 31).ok_or_else(too_large)?;
        let mut bytes = vec![0; length];
        decoder.read_image(&mut bytes).map_err(broken)?;
        let samples = match kind.bits {
            16 => bytes.as_chunks().0.iter().map(|pair| u16::from_ne_bytes(*pair)).collect(),
            _ => bytes.into_iter().map(u16::from).collect(),
        };
        Ok(Picture { width, height, kind, samples })
    }
}
