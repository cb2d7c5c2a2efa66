//! Weight files: safetensors and the diffusers folder layout, to and from a `VarStore`; PyTorch's checkpoints are read
//! too.
//!
//! Loading is strict: every variable must be in the file, every tensor of the file must be a variable, and shapes must
//! be equal (`VarStore::load` would broadcast a `[1]` into a `[4]`). Tensors are read one at a time, so the peak is the
//! model plus one tensor (checkpoints of PyTorch are read whole). Writing gives the same bytes for the same tensors.
//! Does not know any network; the only names it knows are the two spellings of the auto-encoder's attention and of the
//! text encoder (see [`modern_name`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tch::nn::VarStore;
use tch::{Kind, Tensor};

mod folder;
mod source;

pub use folder::ModelFolder;
pub use source::{Source, WeightFile};

/// Named tensors in name order.
pub type Tensors = BTreeMap<String, Tensor>;

/// What can go wrong with a weight file or a model folder.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The operating system said no.
    #[error("cannot {verb} {}: {source}", path.display())]
    Io {
        /// "read" or "write".
        verb: &'static str,
        /// The file concerned.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The file is not well-formed, or holds a number type that no network here uses.
    #[error("{} is not a usable safetensors file: {reason}", path.display())]
    Format {
        /// The file concerned.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The names or shapes are not those of the network.
    #[error(transparent)]
    Mismatch(Box<Mismatch>),
    /// A configuration asks for something that is not implemented, or does not parse.
    #[error("{place}: {reason}\nhint: {hint}")]
    Config {
        /// The file, or another name of the configuration.
        place: String,
        /// What is wrong with it.
        reason: String,
        /// What to do about it.
        hint: String,
    },
}

/// How a file differs from the network that should take it. Lists are sorted by name.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// Where the tensors came from.
    pub source: String,
    /// Variables that the file lacks.
    pub missing: Vec<String>,
    /// Tensors that the network does not have.
    pub unexpected: Vec<String>,
    /// Tensors of another shape.
    pub wrong_shape: Vec<WrongShape>,
}

/// One tensor whose shape is not the variable's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrongShape {
    /// The tensor's name.
    pub name: String,
    /// Shape in the file.
    pub found: Vec<i64>,
    /// Shape of the variable.
    pub expected: Vec<i64>,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        write!(f, "the weights in {} do not fit the network:", self.source)?;
        let mut list = |what: &str, lines: Vec<String>| -> fmt::Result {
            if lines.is_empty() {
                return Ok(());
            }
            write!(f, "\n  {} {what}: {}", lines.len(), lines[..lines.len().min(SHOWN)].join(", "))?;
            if lines.len() > SHOWN { write!(f, " and {} more", lines.len() - SHOWN) } else { Ok(()) }
        };
        list("missing", self.missing.clone())?;
        list("unexpected", self.unexpected.clone())?;
        let shapes = self.wrong_shape.iter();
        list(
            "of another shape",
            shapes.map(|w| format!("{} is {:?} but must be {:?}", w.name, w.found, w.expected)).collect(),
        )?;
        write!(f, "\nhint: do the file and the configuration (widths, layers, channels) belong together?")
    }
}

impl std::error::Error for Mismatch {}

/// Reads every tensor of a file as [`Source::open`] takes it, in the number types it is stored in.
pub fn read(path: &Path) -> Result<Tensors, WeightsError> {
    let source = Source::open(path)?;
    source.names().into_iter().map(|name| source.tensor(&name).map(|t| (name, t))).collect()
}

/// What a file had for a network that took all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fit {
    /// Number of tensors that went into the network: all of its variables.
    pub tensors: usize,
    /// Number of values in them.
    pub values: usize,
    /// Number types they are stored in, such as `Half`, each once.
    pub kinds: Vec<String>,
    /// Names that the file has and no network needs, see [`is_constant`]; they were passed over.
    pub unused: Vec<String>,
}

impl fmt::Display for Fit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millions = self.values as f64 / 1e6;
        write!(f, "all {} tensors fit ({millions:.1} million values, {})", self.tensors, self.kinds.join(" and "))?;
        if self.unused.is_empty() { Ok(()) } else { write!(f, "; not used: {}", self.unused.join(", ")) }
    }
}

/// Loads a file, as [`Source::open`] takes it, into a network; f16, bf16 and f64 become the variable's type. Nothing is
/// changed when it does not fit.
pub fn load(vs: &VarStore, path: &Path) -> Result<Fit, WeightsError> {
    let source = Source::open(path)?;
    let variables = sorted(vs);
    let (unused, used): (Vec<String>, Vec<String>) = source.names().into_iter().partition(|name| is_constant(name));
    let names: BTreeMap<String, String> = used.into_iter().map(|n| (modern_name(&n), n)).collect();
    let shape = |name: &str| names.get(name).and_then(|name| source.shape(name));
    compare(&variables, &path.display().to_string(), shape, names.keys())?;
    let mut kinds = BTreeSet::new();
    for (name, variable) in &variables {
        let tensor = source.tensor(&names[name])?;
        kinds.insert(format!("{:?}", tensor.kind()));
        assign(variable, &tensor);
    }
    Ok(Fit { tensors: variables.len(), values: count(vs), kinds: kinds.into_iter().collect(), unused })
}

/// Whether a name of a published file is that of a table which follows from the sizes: the text encoder's counted
/// positions, which older releases stored.
pub fn is_constant(name: &str) -> bool {
    name.ends_with("embeddings.position_ids")
}

/// Loads tensors in memory into a network, by the same rules as [`load`]. `source` names them in an error.
pub fn load_tensors(vs: &VarStore, tensors: &Tensors, source: &str) -> Result<(), WeightsError> {
    copy_into(&sorted(vs), tensors, source)
}

/// Copies tensors onto others of the same names and shapes, by the same rules as [`load`].
pub fn copy_into(variables: &Tensors, tensors: &Tensors, source: &str) -> Result<(), WeightsError> {
    let names: BTreeMap<String, &Tensor> = tensors.iter().map(|(n, t)| (modern_name(n), t)).collect();
    compare(variables, source, |n| names.get(n).map(|t| t.size()), names.keys())?;
    for (name, variable) in variables {
        assign(variable, names[name]);
    }
    Ok(())
}

/// Writes a network's variables.
pub fn save(
    vs: &VarStore,
    path: &Path,
    metadata: &BTreeMap<String, String>,
    precision: Precision,
) -> Result<(), WeightsError> {
    write(path, &sorted(vs), metadata, precision)
}

/// Number type that floating-point tensors are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// As they are.
    Keep,
    /// 16-bit floats: half the size, 11 bits of mantissa.
    Half,
}

/// Writes tensors as safetensors: names sorted, header padded to 8 bytes, so equal tensors give equal bytes. The file
/// appears under its name only when it is complete.
pub fn write(
    path: &Path,
    tensors: &Tensors,
    metadata: &BTreeMap<String, String>,
    precision: Precision,
) -> Result<(), WeightsError> {
    let io = |source| WeightsError::Io { verb: "write", path: path.into(), source };
    let kind_of = |t: &Tensor| match t.kind() {
        Kind::Float | Kind::Double if precision == Precision::Half => Kind::Half,
        kind => kind,
    };
    let mut header = serde_json::Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".into(), serde_json::json!(metadata));
    }
    // Widest numbers first: every tensor then starts at a multiple of its own element size.
    let mut order: Vec<(&String, &Tensor)> = tensors.iter().collect();
    order.sort_by_key(|(_, t)| std::cmp::Reverse(kind_of(t).elt_size_in_bytes()));
    let mut offset = 0;
    for (name, tensor) in &order {
        let kind = kind_of(tensor);
        let dtype = match kind {
            Kind::Double => "F64",
            Kind::Float => "F32",
            Kind::Half => "F16",
            Kind::BFloat16 => "BF16",
            Kind::Int64 => "I64",
            Kind::Int => "I32",
            Kind::Int16 => "I16",
            Kind::Int8 => "I8",
            Kind::Uint8 => "U8",
            Kind::Bool => "BOOL",
            other => {
                let reason = format!("tensor {name} has the type {other:?}, which the format lacks");
                return Err(WeightsError::Format { path: path.into(), reason });
            }
        };
        let end = offset + tensor.numel() * kind.elt_size_in_bytes();
        header.insert(
            (*name).clone(),
            serde_json::json!({"dtype": dtype, "shape": tensor.size(), "data_offsets": [offset, end]}),
        );
        offset = end;
    }
    let mut text = serde_json::Value::Object(header).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');

    let partial = path.with_extension("safetensors.partial");
    let mut file = BufWriter::new(File::create(&partial).map_err(io)?);
    file.write_all(&(text.len() as u64).to_le_bytes()).map_err(io)?;
    file.write_all(&text).map_err(io)?;
    for (_, tensor) in &order {
        let tensor = tensor.detach().to_device(tch::Device::Cpu).to_kind(kind_of(tensor)).contiguous();
        let mut bytes = vec![0u8; tensor.numel() * tensor.kind().elt_size_in_bytes()];
        tensor.copy_data_u8(&mut bytes, tensor.numel());
        file.write_all(&bytes).map_err(io)?;
    }
    file.into_inner().map_err(|e| io(e.into_error()))?.sync_all().map_err(io)?;
    std::fs::rename(&partial, path).map_err(io)
}

/// Reads a JSON file.
pub fn read_json(path: &Path) -> Result<serde_json::Value, WeightsError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| WeightsError::Io { verb: "read", path: path.into(), source })?;
    let read = serde_json::from_str(&text).or_else(|error| serde_json::from_str(&quoted(&text)).map_err(|_| error));
    read.map_err(|e| WeightsError::Config {
        place: path.display().to_string(),
        reason: format!("it is not JSON: {e}"),
        hint: "download the file again".into(),
    })
}

/// A text with the numbers that Python writes and JSON does not know (`NaN`, `Infinity`, `-Infinity`) as texts: where a
/// number is needed they are told, elsewhere they are no matter.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut rest, mut inside) = (text, false);
    while let Some(c) = rest.chars().next() {
        let word = ["-Infinity", "Infinity", "NaN"].into_iter().find(|word| !inside && rest.starts_with(word));
        // behind a backslash a quotation mark ends no text
        let taken = match (word, c) {
            (Some(word), _) => word.len(),
            (None, '\\') => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
            (None, c) => c.len_utf8(),
        };
        inside ^= c == '"';
        let mark = if word.is_some() { "\"" } else { "" };
        out.extend([mark, &rest[..taken], mark]);
        rest = &rest[taken..];
    }
    out
}

/// A network's variables, by name.
pub fn sorted(vs: &VarStore) -> Tensors {
    vs.variables().into_iter().collect()
}

/// Number of floating-point values in a network.
pub fn count(vs: &VarStore) -> usize {
    vs.variables().values().map(|t| t.numel()).sum()
}

/// Files of the first latent-diffusion releases call the auto-encoder's attention projections `query`, `key`, `value`
/// and `proj_attn`; this gives today's name (`to_q`, `to_k`, `to_v`, `to_out.0`). Files that transformers 5 wrote leave
/// out the text encoder's `text_model.`; this puts it back. Every other name is left alone.
pub fn modern_name(name: &str) -> String {
    let of_text =
        ["embeddings.token_embedding.", "embeddings.position_embedding.", "encoder.layers.", "final_layer_norm."];
    if of_text.iter().any(|stem| name.starts_with(stem)) {
        return format!("text_model.{name}");
    }
    let renamed = [("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")];
    if let Some((module, parameter)) = name.rsplit_once('.')
        && let Some((head, leaf)) = module.rsplit_once('.')
        && head.ends_with("mid_block.attentions.0")
        && let Some((_, new)) = renamed.iter().find(|(old, _)| *old == leaf)
    {
        return format!("{head}.{new}.{parameter}");
    }
    name.to_owned()
}

/// The first line of a libtorch error; the rest is a stack trace of its C++ side.
pub fn first_line(error: &tch::TchError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

fn assign(variable: &Tensor, value: &Tensor) {
    tch::no_grad(|| variable.shallow_clone().copy_(value));
}

fn compare<'a>(
    variables: &Tensors,
    source: &str,
    shape: impl Fn(&str) -> Option<Vec<i64>>,
    found: impl Iterator<Item = &'a String>,
) -> Result<(), WeightsError> {
    let mut difference = Mismatch { source: source.to_owned(), ..Default::default() };
    for (name, variable) in variables {
        match shape(name) {
            None => difference.missing.push(name.clone()),
            Some(found) if found != variable.size() => {
                difference.wrong_shape.push(WrongShape { name: name.clone(), found, expected: variable.size() });
            }
            Some(_) => {}
        }
    }
    let unexpected: BTreeSet<&String> = found.filter(|n| !variables.contains_key(*n)).collect();
    difference.unexpected = unexpected.into_iter().cloned().collect();
    if difference.missing.is_empty() && difference.unexpected.is_empty() && difference.wrong_shape.is_empty() {
        return Ok(());
    }
    Err(WeightsError::Mismatch(Box::new(difference)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    fn tensors(list: &[(&str, &[i64])]) -> Tensors {
        list.iter()
            .map(|(n, s)| {
                (n.to_string(), Tensor::arange(s.iter().product::<i64>(), (Kind::Float, Device::Cpu)).view(*s))
            })
            .collect()
    }

    #[test]
    fn numbers_that_python_writes_are_no_matter_where_nobody_needs_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read_json(&path)
        };
        let value = read(r#"{"a": -Infinity, "b": [NaN, Infinity, 1], "c": "NaN \" -Infinity é"}"#).unwrap();
        let expected = serde_json::json!({"a": "-Infinity", "b": ["NaN", "Infinity", 1], "c": "NaN \" -Infinity é"});
        assert_eq!(value, expected);
        let error = read("{\"a\": NaN").unwrap_err().to_string();
        assert!(error.contains("it is not JSON"), "{error}");
    }

    fn store(list: &[(&str, &[i64])]) -> VarStore {
        let vs = VarStore::new(Device::Cpu);
        for (name, shape) in list {
            _ = vs.root().zeros(name, shape);
        }
        vs
    }

    #[test]
    fn a_misfit_names_every_tensor_and_changes_nothing() {
        let vs = store(&[("bias", &[4]), ("scale", &[2]), ("weight", &[4, 2])]);
        let given = tensors(&[("bias", &[1]), ("extra", &[3]), ("weight", &[4, 2])]);
        let error = load_tensors(&vs, &given, "given").unwrap_err();
        let WeightsError::Mismatch(m) = &error else { panic!("{error}") };
        assert_eq!(m.missing, ["scale"]);
        assert_eq!(m.unexpected, ["extra"]);
        assert_eq!(m.wrong_shape, [WrongShape { name: "bias".into(), found: vec![1], expected: vec![4] }]);
        assert!(error.to_string().contains("bias is [1] but must be [4]"), "{error}");
        assert_eq!(vs.variables()["weight"].abs().max().double_value(&[]), 0.0);
    }

    #[test]
    fn files_come_back_equal_and_are_the_same_bytes_each_time() {
        let dir = std::env::temp_dir().join(format!("effigy-weights-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let given = tensors(&[("a.weight", &[3, 2]), ("b", &[5]), ("c", &[])]);
        let metadata = BTreeMap::from([("step".to_owned(), "7".to_owned()), ("kind".to_owned(), "test".to_owned())]);
        let (one, two) = (dir.join("one.safetensors"), dir.join("two.safetensors"));
        write(&one, &given, &metadata, Precision::Keep).unwrap();
        write(&two, &given, &metadata, Precision::Keep).unwrap();
        assert_eq!(std::fs::read(&one).unwrap(), std::fs::read(&two).unwrap());
        assert_eq!(WeightFile::open(&one).unwrap().metadata(), metadata);
        for (name, tensor) in read(&one).unwrap() {
            assert_eq!(tensor, given[&name]);
        }
        // f16 on disk, f32 in the network.
        write(&two, &given, &metadata, Precision::Half).unwrap();
        let vs = store(&[("a_weight", &[3, 2])]);
        let half = BTreeMap::from([("a_weight".to_owned(), read(&two).unwrap().remove("a.weight").unwrap())]);
        load_tensors(&vs, &half, "half").unwrap();
        assert_eq!(vs.variables()["a_weight"].kind(), Kind::Float);
        assert_eq!(vs.variables()["a_weight"].detach(), given["a.weight"]);
        // A file cut short is refused, whatever was lost.
        let bytes = std::fs::read(&one).unwrap();
        for cut in [0, 7, 20, bytes.len() - 1] {
            std::fs::write(&two, &bytes[..cut]).unwrap();
            assert!(WeightFile::open(&two).is_err(), "{cut}");
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn old_attention_names_are_understood() {
        let check = |old: &str, new: &str| assert_eq!(modern_name(old), new);
        check("encoder.mid_block.attentions.0.query.weight", "encoder.mid_block.attentions.0.to_q.weight");
        check("decoder.mid_block.attentions.0.proj_attn.bias", "decoder.mid_block.attentions.0.to_out.0.bias");
        check("final_layer_norm.bias", "text_model.final_layer_norm.bias");
        check("text_model.encoder.layers.0.mlp.fc1.bias", "text_model.encoder.layers.0.mlp.fc1.bias");
        check("key.weight", "key.weight");
        check("conv_in.weight", "conv_in.weight");
    }
}
