//! Event files as TensorBoard reads them: scalars and pictures by step, written while training runs.
//!
//! No stage. The format is that of TensorFlow's summaries: records of a length, its checksum, a message and its
//! checksum, where messages are protobuf's `Event` (tensorflow/core/util/event.proto and framework/summary.proto). Two
//! facts differ from what other writers do, so that a training which was killed and continued ends with the same bytes:
//! an event's wall time is its step in seconds, and a file is cut to where the checkpoint left it before it goes on.

use anyhow::{Context, Result};
use crc::{CRC_32_ISCSI, Crc};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// CRC-32C.
const CHECKSUM: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// An event file that grows.
pub struct EventFile {
    path: PathBuf,
    file: File,
    length: u64,
}

impl EventFile {
    /// A new file, in place of what was there. TensorBoard knows it by `tfevents` in its name.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn create(path: &Path) -> Result<EventFile> {
        let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        let mut events = EventFile { path: path.to_path_buf(), file, length: 0 };
        events.write(&[field_double(1, 0.0), field_bytes(3, b"brain.Event:2")].concat())?;
        Ok(events)
    }

    /// Bytes so far: what [`EventFile::cut`] wants to know.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Goes back to where the file was that long.
    ///
    /// # Errors
    /// If it is shorter.
    pub fn cut(&mut self, length: u64) -> Result<()> {
        let (path, found) = (self.path.display(), self.file.metadata()?.len());
        anyhow::ensure!(found >= length, "{path} has {found} bytes, the checkpoint knows of {length}");
        self.file.set_len(length)?;
        self.length = length;
        Ok(())
    }

    /// Opens the file that a killed training left, or a new one if it left none; [`EventFile::cut`] says where it goes
    /// on.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn reopen(path: &Path) -> Result<EventFile> {
        if !path.exists() {
            return EventFile::create(path);
        }
        let file =
            File::options().append(true).open(path).with_context(|| format!("cannot write {}", path.display()))?;
        let length = file.metadata()?.len();
        Ok(EventFile { path: path.to_path_buf(), file, length })
    }

    /// A number of a step.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn scalar(&mut self, step: u64, tag: &str, value: f64) -> Result<()> {
        self.value(step, tag, &field_float(2, value as f32))
    }

    /// A picture of a step, as the bytes of a PNG file in RGB.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn picture(&mut self, step: u64, tag: &str, (width, height): (usize, usize), png: &[u8]) -> Result<()> {
        // 3 is RGB
        let numbers = [field_int(1, height as u64), field_int(2, width as u64), field_int(3, 3)].concat();
        self.value(step, tag, &field_bytes(4, &[numbers, field_bytes(4, png)].concat()))
    }

    fn value(&mut self, step: u64, tag: &str, what: &[u8]) -> Result<()> {
        let value = [field_bytes(1, tag.as_bytes()), what.to_vec()].concat();
        let summary = field_bytes(1, &value);
        self.write(&[field_double(1, step as f64), field_int(2, step), field_bytes(5, &summary)].concat())
    }

    fn write(&mut self, event: &[u8]) -> Result<()> {
        let length = (event.len() as u64).to_le_bytes();
        let record = [&length[..], &masked(&length), event, &masked(event)].concat();
        self.file.write_all(&record).with_context(|| format!("cannot write {}", self.path.display()))?;
        self.length += record.len() as u64;
        Ok(())
    }
}

/// TensorFlow's checksum: turned and moved, so that a checksum of data that holds checksums says something.
fn masked(bytes: &[u8]) -> [u8; 4] {
    CHECKSUM.checksum(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// Fields of a protobuf message: their number and type, and then the value.
fn field_int(number: u64, value: u64) -> Vec<u8> {
    [varint(number << 3), varint(value)].concat()
}
fn field_double(number: u64, value: f64) -> Vec<u8> {
    [varint(number << 3 | 1), value.to_le_bytes().to_vec()].concat()
}
fn field_bytes(number: u64, value: &[u8]) -> Vec<u8> {
    [varint(number << 3 | 2), varint(value.len() as u64), value.to_vec()].concat()
}
fn field_float(number: u64, value: f32) -> Vec<u8> {
    [varint(number << 3 | 5), value.to_le_bytes().to_vec()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The message written out by hand after event.proto.
    #[test]
    fn records_are_tensorflows() {
        assert_eq!(CHECKSUM.checksum(b"123456789"), 0xe306_9283, "the check value of CRC-32C");
        let path = std::env::temp_dir().join(format!("effigy-tfevents-{}", std::process::id()));
        let mut events = EventFile::create(&path).unwrap();
        let start = events.length();
        events.scalar(300, "loss", 0.5).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len() as u64, events.length());
        let record = &bytes[start as usize..];
        let message = [
            &[0x09][..],
            &300f64.to_le_bytes(),
            &[0x10, 0xac, 0x02],
            &[0x2a, 13, 0x0a, 11, 0x0a, 4],
            b"loss",
            &[0x15],
            &0.5f32.to_le_bytes(),
        ]
        .concat();
        assert_eq!(record[..8], (message.len() as u64).to_le_bytes());
        assert_eq!(record[12..12 + message.len()], message);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_file_that_was_cut_goes_on_to_the_same_bytes() {
        let folder = std::env::temp_dir().join(format!("effigy-events-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (whole, killed) = (folder.join("a.tfevents"), folder.join("b.tfevents"));
        let write = |events: &mut EventFile, steps: std::ops::Range<u64>| {
            steps.for_each(|step| events.scalar(step, "loss", 1.0 / (step + 1) as f64).unwrap());
        };
        write(&mut EventFile::create(&whole).unwrap(), 0..20);
        let mut first = EventFile::create(&killed).unwrap();
        write(&mut first, 0..10);
        let kept = first.length();
        write(&mut first, 10..13);
        let mut second = EventFile::reopen(&killed).unwrap();
        assert!(second.cut(1 << 20).is_err());
        second.cut(kept).unwrap();
        write(&mut second, 10..20);
        assert_eq!(std::fs::read(&killed).unwrap(), std::fs::read(&whole).unwrap());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
