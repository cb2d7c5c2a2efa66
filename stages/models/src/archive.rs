//! Archives by entry: zip files, the container of PyTorch's checkpoints and of numpy's `.npz`, and the compressed tar
//! files of packages.
//!
//! Nothing is unpacked that is larger than its reader said beforehand. Knows neither tensors nor arrays.

use std::fs::File;
use std::io::{BufReader, Cursor, Read, Write};
use std::path::Path;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

/// A zip file whose list of entries has been read. Errors are sentences without the file's name.
pub struct Archive {
    zip: ZipArchive<BufReader<File>>,
    /// Bytes of the file.
    pub length: u64,
}

/// Whether a file begins like a zip file.
pub fn is_zip(path: &Path) -> bool {
    let mut magic = [0u8; 4];
    File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == *b"PK\x03\x04"
}

impl Archive {
    /// Opens a file and reads its list of entries.
    ///
    /// # Errors
    /// If it cannot be read or is no whole zip file.
    pub fn open(path: &Path) -> Result<Self, String> {
        let file = File::open(path).map_err(|e| e.to_string())?;
        let length = file.metadata().map_err(|e| e.to_string())?.len();
        let zip = ZipArchive::new(BufReader::new(file))
            .map_err(|e| format!("its {length} bytes are no whole zip file ({e}); is it cut off?"))?;
        Ok(Self { zip, length })
    }

    /// Names of all entries, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.zip.file_names().filter_map(Result::ok).map(String::from).collect();
        names.sort();
        names
    }

    /// An entry of at most `most` bytes. With `plain`, one that is compressed is refused, so that no more comes out
    /// than the file has.
    ///
    /// # Errors
    /// If it is missing, larger, damaged, or compressed where it must not be.
    pub fn read(&mut self, name: &str, most: u64, plain: bool) -> Result<Vec<u8>, String> {
        let length = self.length;
        let entry = self.zip.by_name(name).map_err(|e| format!("its entry {name} cannot be read ({e})"))?;
        if plain && entry.compression() != CompressionMethod::Stored {
            return Err(format!(
                "its entry {name} is compressed ({}), which such files never are",
                entry.compression()
            ));
        }
        let size = entry.size();
        if size > most || plain && size > length {
            let most = if plain { most.min(length) } else { most };
            return Err(format!("its entry {name} claims {size} bytes; at most {most} can be right"));
        }
        let mut bytes = Vec::new();
        // one more than there may be: the checksum is compared at the end of an entry
        entry.take(size + 1).read_to_end(&mut bytes).map_err(|e| format!("its entry {name} is damaged ({e})"))?;
        if bytes.len() as u64 != size {
            return Err(format!("its entry {name} has {} bytes of {size}", bytes.len()));
        }
        Ok(bytes)
    }
}

/// The files of a tar.gz whose paths end so, in that order; none for one that is not there.
///
/// # Errors
/// If it cannot be read or is damaged.
pub fn tar_gz<const N: usize>(path: &Path, ends: [&str; N]) -> std::io::Result<[Option<Vec<u8>>; N]> {
    let mut found = [const { None }; N];
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(BufReader::new(File::open(path)?)));
    for entry in archive.entries()? {
        let mut entry = entry?;
        let Some(which) = ends.iter().position(|end| entry.path().is_ok_and(|path| path.ends_with(end))) else {
            continue;
        };
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        found[which] = Some(bytes);
        if found.iter().all(Option::is_some) {
            break;
        }
    }
    Ok(found)
}

/// The bytes of a zip file of these entries, compressed or not, without dates: equal entries give equal bytes.
pub fn pack(entries: &[(String, Vec<u8>)], compressed: bool) -> Vec<u8> {
    let method = if compressed { CompressionMethod::Deflated } else { CompressionMethod::Stored };
    let options = zip::write::SimpleFileOptions::default().compression_method(method);
    let write = || -> zip::result::ZipResult<Vec<u8>> {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in entries {
            zip.start_file(name.as_str(), options)?;
            zip.write_all(bytes)?;
        }
        Ok(zip.finish()?.into_inner())
    };
    // memory takes everything
    write().expect("a zip file fits into memory")
}
