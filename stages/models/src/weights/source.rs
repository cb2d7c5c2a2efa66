//! Where named tensors are read from: a safetensors file, a checkpoint of PyTorch, or the index of a model in several
//! such files. Knows no network and no folder layout.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde_json::Value;
use tch::{Kind, Tensor};

use super::{Tensors, WeightsError, first_line, read_json};
use crate::checkpoint;

/// Tensors on disk.
pub enum Source {
    /// One safetensors file.
    File(WeightFile),
    /// A checkpoint, in memory.
    Checkpoint(PathBuf, Tensors),
    /// Several of these, and which of them has a name.
    Shards(Vec<Source>, BTreeMap<String, usize>),
}

impl Source {
    /// Opens a file: safetensors and checkpoints are told apart by content, an index by its name's `.index.` before
    /// `json`. An index names files of its own folder, all of whose tensors it lists.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.contains(".index.") && name.ends_with(".json") {
            Self::shards(path)
        } else if checkpoint::is_one(path) {
            Ok(Self::Checkpoint(path.into(), checkpoint::read(path)?))
        } else {
            WeightFile::open(path).map(Self::File)
        }
    }

    fn shards(index: &Path) -> Result<Self, WeightsError> {
        let bad = |reason: String| WeightsError::Config {
            place: index.display().to_string(),
            reason,
            hint: "download the index and the files that it names again, all of one release".into(),
        };
        let value = read_json(index)?;
        let map = value.get("weight_map").and_then(Value::as_object).filter(|map| !map.is_empty());
        let map = map.ok_or_else(|| bad("it has no `weight_map` of names to files".into()))?;
        let mut files: Vec<&str> = Vec::new();
        let mut places = BTreeMap::new();
        for (name, file) in map {
            let plain = |file: &&str| Path::new(file).file_name().is_some_and(|last| last == *file);
            let file = file.as_str().filter(plain);
            let file = file.ok_or_else(|| bad(format!("the place of {name} is not the name of a file beside it")))?;
            let at = files.iter().position(|known| *known == file).unwrap_or_else(|| {
                files.push(file);
                files.len() - 1
            });
            places.insert(name.clone(), at);
        }
        let folder = index.parent().unwrap_or(Path::new("."));
        let mut sources = Vec::new();
        for (at, file) in files.iter().enumerate() {
            let path = folder.join(file);
            if !path.is_file() {
                return Err(bad(format!("it names {file}, which is not there")));
            }
            let source = Self::open(&path)?;
            let found = source.names();
            if let Some(extra) = found.iter().find(|name| places.get(*name) != Some(&at)) {
                return Err(bad(format!("{file} holds {extra}, which the index does not place there")));
            }
            let lacks = places.iter().find(|(name, place)| **place == at && found.binary_search(name).is_err());
            if let Some((name, _)) = lacks {
                return Err(bad(format!("{file} does not hold {name}, which the index places there")));
            }
            sources.push(source);
        }
        Ok(Self::Shards(sources, places))
    }

    /// All names, sorted.
    pub fn names(&self) -> Vec<String> {
        match self {
            Self::File(file) => file.names(),
            Self::Checkpoint(_, tensors) => tensors.keys().cloned().collect(),
            Self::Shards(_, places) => places.keys().cloned().collect(),
        }
    }

    /// Shape of one tensor, if it is there.
    pub fn shape(&self, name: &str) -> Option<Vec<i64>> {
        match self {
            Self::File(file) => file.shape(name),
            Self::Checkpoint(_, tensors) => tensors.get(name).map(Tensor::size),
            Self::Shards(sources, places) => sources[*places.get(name)?].shape(name),
        }
    }

    /// Reads one tensor in the number type it is stored in.
    pub fn tensor(&self, name: &str) -> Result<Tensor, WeightsError> {
        let none = |path: &Path| WeightsError::Format { path: path.into(), reason: format!("it has no tensor {name}") };
        match self {
            Self::File(file) => file.tensor(name),
            Self::Checkpoint(path, tensors) => tensors.get(name).map(Tensor::shallow_clone).ok_or_else(|| none(path)),
            Self::Shards(sources, places) => match places.get(name) {
                Some(&at) => sources[at].tensor(name),
                None => Err(none(Path::new("the set of files"))),
            },
        }
    }
}

/// A safetensors file whose header has been read; tensors are read when asked for.
pub struct WeightFile {
    path: PathBuf,
    file: File,
    data_start: u64,
    header: Metadata,
}

impl WeightFile {
    /// Opens a file and checks its header against its length.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        let io = |source| WeightsError::Io { verb: "read", path: path.into(), source };
        let bad = |reason: String| WeightsError::Format { path: path.into(), reason };
        let mut file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let mut size = [0u8; 8];
        file.read_exact(&mut size).map_err(|_| bad("it is shorter than its header".into()))?;
        if &size == b"version " {
            return Err(bad("it is a pointer of Git LFS and not the file itself, which `git lfs pull` fetches".into()));
        }
        let header_len = u64::from_le_bytes(size);
        if header_len > length.saturating_sub(8) {
            return Err(bad(format!("its header claims {header_len} bytes, the file has {length}")));
        }
        let mut buffer = vec![0; header_len as usize];
        file.read_exact(&mut buffer).map_err(io)?;
        let header: Metadata = serde_json::from_slice(&buffer).map_err(|e| bad(e.to_string()))?;
        let data_start = 8 + header_len;
        let wanted = data_start + header.data_len() as u64;
        if wanted != length {
            return Err(bad(format!("its tensors need {wanted} bytes, the file has {length} (is it cut off?)")));
        }
        Ok(Self { path: path.into(), file, data_start, header })
    }

    /// All names, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names = self.header.offset_keys();
        names.sort();
        names
    }

    /// Shape of one tensor, if it is there.
    pub fn shape(&self, name: &str) -> Option<Vec<i64>> {
        self.header.info(name).map(|info| info.shape.iter().map(|&n| n as i64).collect())
    }

    /// The free-form text entries of the header.
    pub fn metadata(&self) -> BTreeMap<String, String> {
        self.header.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    /// Reads one tensor in the number type it is stored in.
    pub fn tensor(&self, name: &str) -> Result<Tensor, WeightsError> {
        let bad = |reason: String| WeightsError::Format { path: self.path.clone(), reason };
        let io = |source| WeightsError::Io { verb: "read", path: self.path.clone(), source };
        let info = self.header.info(name).ok_or_else(|| bad(format!("it has no tensor {name}")))?;
        let kind = match info.dtype {
            Dtype::F64 => Kind::Double,
            Dtype::F32 => Kind::Float,
            Dtype::F16 => Kind::Half,
            Dtype::BF16 => Kind::BFloat16,
            Dtype::I64 => Kind::Int64,
            Dtype::I32 => Kind::Int,
            Dtype::I16 => Kind::Int16,
            Dtype::I8 => Kind::Int8,
            Dtype::U8 => Kind::Uint8,
            Dtype::BOOL => Kind::Bool,
            other => return Err(bad(format!("tensor {name} has the unsupported number type {other:?}"))),
        };
        let shape: Vec<i64> = info.shape.iter().map(|&n| n as i64).collect();
        let (begin, end) = info.data_offsets;
        let mut bytes = vec![0u8; end - begin];
        let mut file = &self.file;
        file.seek(SeekFrom::Start(self.data_start + begin as u64)).map_err(io)?;
        file.read_exact(&mut bytes).map_err(io)?;
        Tensor::f_from_data_size(&bytes, &shape, kind).map_err(|e| bad(format!("tensor {name}: {}", first_line(&e))))
    }
}
