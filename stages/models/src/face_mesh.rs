//! Faces in pictures: MediaPipe's short-range detector, its mesh of 468 landmarks, and its network for one eye, from
//! the Python package that holds them.
//!
//! The detector looks at the whole picture, 128 px in [-1, 1], and says boxes with six points; the mesh looks at a
//! square around the face, turned so that the eyes are level, 192 px in [0, 1], and says 468 points and whether a face
//! is there; the network of the eye looks at a square around a left eye, or at the mirror image of a right one, 64 px
//! in [0, 1]. How boxes are read and squares are made follows the published graphs (Apache-2.0): anchors at strides 8
//! and 16, overlapping boxes averaged by score, squares one and a half times as large as what they hold. Does not know
//! image files or lenses; px are continuous, the centre of pixel i at i + 0.5.

use std::path::{Path, PathBuf};

use tch::{Kind, Tensor};

use crate::archive::Archive;
use crate::tflite::{Network, TfliteError};

/// Landmarks of the mesh.
pub const POINTS: usize = 468;
/// Outer corners of the right and the left eye, as landmarks.
pub const EYES: [usize; 2] = [33, 263];
/// Corners of the left and the right eye, outer and inner, as landmarks.
const EYE_CORNERS: [[usize; 2]; 2] = [[263, 362], [33, 133]];
/// Width and height of what the network of the eye sees, px.
pub const EYE_SIZE: usize = 64;
/// Numbers that the network of the eye says: 71 points around the eye and on the brow, and 5 of the iris, its centre
/// first.
const EYE_OUTPUTS: [usize; 2] = [3 * 71, 3 * 5];
/// The middle of the upper and of the lower lid among the 71.
const LIDS: [usize; 2] = [12, 4];
/// The square of an eye is larger than the distance of its corners by this factor.
const EYE_MARGIN: f64 = 2.3;
/// Width and height of what the detector sees, px.
pub const DETECTOR_SIZE: usize = 128;
/// Width and height of what the mesh sees, px.
pub const MESH_SIZE: usize = 192;

/// Numbers that the detector says of a box: centre, size, and six points.
const CODE: usize = 16;
/// Grid points on a side and boxes at each, in the detector's order.
const ANCHORS: [(usize, usize); 2] = [(16, 2), (8, 6)];
/// Boxes of a lower score are no faces.
const MIN_SCORE: f64 = 0.5;
/// Boxes that overlap more than this (intersection over union) are one face.
const OVERLAP: f64 = 0.3;
/// A square is larger than what it holds by this factor.
const MARGIN: f64 = 1.5;

/// Why there are no networks.
#[derive(Debug, thiserror::Error)]
pub enum FaceMeshError {
    /// The package cannot be read.
    #[error("cannot read {}: {reason}\nhint: `make setup` downloads the wheel mediapipe 0.10.14, which holds the face networks", path.display())]
    Unreadable {
        /// The package.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// It holds something else.
    #[error("{} has no entry {entry}\nhint: it should be the wheel mediapipe 0.10.14 from PyPI; later ones lack it", path.display())]
    Missing {
        /// The package.
        path: PathBuf,
        /// The entry.
        entry: &'static str,
    },
    /// A network is not as it should be.
    #[error(transparent)]
    Network(#[from] TfliteError),
}

/// A square in a picture, px, that may be turned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Square {
    /// Its centre.
    pub center: [f64; 2],
    /// Its side.
    pub side: f64,
    /// From the picture's x axis to its own, radians; y goes down, so a positive one turns clockwise.
    pub angle: f64,
}

impl Square {
    /// The square in which the mesh finds a face again, of its landmarks.
    pub fn of_landmarks(points: &[[f64; 2]]) -> Square {
        let range = |axis: usize| {
            let values = points.iter().map(|p| p[axis]);
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)))
        };
        let (x, y) = (range(0), range(1));
        Square::holding(x, y, points[EYES[0]], points[EYES[1]])
    }

    /// The squares of the left and the right eye, of a face's landmarks; turned like the face.
    pub fn of_eyes(points: &[[f64; 2]]) -> [Square; 2] {
        let face = Square::of_landmarks(points);
        EYE_CORNERS.map(|[outer, inner]| {
            let (a, b) = (points[outer], points[inner]);
            Square {
                center: [0, 1].map(|i| f64::midpoint(a[i], b[i])),
                side: EYE_MARGIN * (a[0] - b[0]).hypot(a[1] - b[1]),
                angle: face.angle,
            }
        })
    }

    fn holding(x: (f64, f64), y: (f64, f64), right_eye: [f64; 2], left_eye: [f64; 2]) -> Square {
        Square {
            center: [(x.0 + x.1) / 2.0, (y.0 + y.1) / 2.0],
            side: (x.1 - x.0).max(y.1 - y.0) * MARGIN,
            angle: (left_eye[1] - right_eye[1]).atan2(left_eye[0] - right_eye[0]),
        }
    }

    /// Where in the picture a place of the square is; places are shares of its side, (0, 0) its upper left corner.
    pub fn at(&self, x: f64, y: f64) -> [f64; 2] {
        let (dx, dy) = ((x - 0.5) * self.side, (y - 0.5) * self.side);
        let (sin, cos) = self.angle.sin_cos();
        [self.center[0] + cos * dx - sin * dy, self.center[1] + sin * dx + cos * dy]
    }
}

/// What the mesh says of a square.
#[derive(Clone, Debug)]
pub struct Mesh {
    /// Landmarks: shares of the square's side, and depth in the same unit, smaller towards the camera.
    pub points: Vec<[f64; 3]>,
    /// Probability that a face is there.
    pub presence: f64,
}

/// What is seen of an eye; places are shares of the square's side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Eye {
    /// Centre of the iris; guessed where the lids are closed.
    pub iris: [f64; 2],
    /// Middle of the upper lid's rim.
    pub upper: [f64; 2],
    /// Middle of the lower lid's rim.
    pub lower: [f64; 2],
}

impl Eye {
    /// The same eye in a mirror.
    fn mirrored(self) -> Eye {
        let [iris, upper, lower] = [self.iris, self.upper, self.lower].map(|[x, y]| [1.0 - x, y]);
        Eye { iris, upper, lower }
    }
}

/// Bytes of a network, at most; the largest has 2.6 MB.
const LARGEST: u64 = 16 << 20;

/// The networks.
pub struct FaceMesh {
    detector: Network,
    mesh: Network,
    eye: Network,
}

impl FaceMesh {
    /// The networks of the wheel mediapipe 0.10.14 at `wheel`.
    ///
    /// # Errors
    /// If the file is missing or holds no such networks; the message says how to get it.
    pub fn load(wheel: &Path) -> Result<FaceMesh, FaceMeshError> {
        let unreadable = |reason: String| FaceMeshError::Unreadable { path: wheel.into(), reason };
        let mut archive = Archive::open(wheel).map_err(unreadable)?;
        let names = archive.names();
        let mut read = |entry: &'static str| -> Result<Network, FaceMeshError> {
            if !names.iter().any(|name| name == entry) {
                return Err(FaceMeshError::Missing { path: wheel.into(), entry });
            }
            let bytes = archive.read(entry, LARGEST, false).map_err(unreadable)?;
            Ok(Network::parse(&bytes, entry)?)
        };
        Ok(FaceMesh {
            detector: read("mediapipe/modules/face_detection/face_detection_short_range.tflite")?,
            mesh: read("mediapipe/modules/face_landmark/face_landmark.tflite")?,
            eye: read("mediapipe/modules/iris_landmark/iris_landmark.tflite")?,
        })
    }

    /// The face in a picture, if there is one, and its score. `rgb` is a square that holds the whole picture, black
    /// where the picture ends, [`DETECTOR_SIZE`] px; `whole` says where it lies.
    ///
    /// # Errors
    /// If the network is not of the kind that is expected.
    pub fn detect(&self, rgb: &[u8], whole: &Square) -> Result<Option<(Square, f64)>, FaceMeshError> {
        let [codes, scores] = self.raw_boxes(rgb)?;
        let Some((code, score)) = best_box(&codes, &scores) else { return Ok(None) };
        let point = |i: usize| whole.at(code[4 + 2 * i], code[5 + 2 * i]);
        let ([x0, y0], [x1, y1]) = (
            whole.at(code[0] - code[2] / 2.0, code[1] - code[3] / 2.0),
            whole.at(code[0] + code[2] / 2.0, code[1] + code[3] / 2.0),
        );
        Ok(Some((Square::holding((x0, x1), (y0, y1), point(0), point(1)), score)))
    }

    /// What the detector puts out: codes `[896 x 16]`, and scores before the sigmoid `[896]`.
    ///
    /// # Errors
    /// If the network is not of the kind that is expected.
    pub fn raw_boxes(&self, rgb: &[u8]) -> Result<[Vec<f64>; 2], FaceMeshError> {
        let input = image(rgb, DETECTOR_SIZE) / 127.5 - 1.0;
        let boxes: usize = ANCHORS.iter().map(|(side, each)| side * side * each).sum();
        outputs(&self.detector, &input, [boxes * CODE, boxes])
    }

    /// The landmarks of the face in a square of a picture, [`MESH_SIZE`] px.
    ///
    /// # Errors
    /// If the network is not of the kind that is expected.
    pub fn landmarks(&self, rgb: &[u8]) -> Result<Mesh, FaceMeshError> {
        let [points, flag] = outputs(&self.mesh, &(image(rgb, MESH_SIZE) / 255.0), [3 * POINTS, 1])?;
        let share = |p: &[f64]| [0, 1, 2].map(|i| p[i] / MESH_SIZE as f64);
        Ok(Mesh { points: points.chunks_exact(3).map(share).collect(), presence: sigmoid(flag[0]) })
    }

    /// The left eye (`side` 0) or the right one (1) in a square of a picture, [`EYE_SIZE`] px.
    ///
    /// # Errors
    /// If the network is not of the kind that is expected.
    pub fn eye(&self, rgb: &[u8], side: usize) -> Result<Eye, FaceMeshError> {
        let seen = image(rgb, EYE_SIZE) / 255.0;
        let [around, iris] = self.raw_eye(&if side == 1 { seen.flip([2]) } else { seen })?;
        let share = |p: &[f64]| [0, 1].map(|i| p[i] / EYE_SIZE as f64);
        let [upper, lower] = LIDS.map(|i| share(&around[3 * i..]));
        let eye = Eye { iris: share(&iris), upper, lower };
        Ok(if side == 1 { eye.mirrored() } else { eye })
    }

    /// What the network of the eye puts out for `[1, 64, 64, 3]` in [0, 1]: points around the eye `[71 x 3]` and of the
    /// iris `[5 x 3]`, px.
    fn raw_eye(&self, seen: &Tensor) -> Result<[Vec<f64>; 2], FaceMeshError> {
        outputs(&self.eye, seen, EYE_OUTPUTS)
    }
}

/// `[1, size, size, 3]`, 0 to 255.
fn image(rgb: &[u8], size: usize) -> Tensor {
    assert_eq!(rgb.len(), 3 * size * size, "samples of a {size} px square");
    Tensor::from_slice(rgb).reshape([1, size as i64, size as i64, 3]).to_kind(Kind::Float)
}

/// The two outputs of a network, flat, of these lengths.
fn outputs(network: &Network, input: &Tensor, lengths: [usize; 2]) -> Result<[Vec<f64>; 2], FaceMeshError> {
    let values = network.run(input)?;
    let flat = |t: &Tensor| Vec::<f64>::try_from(t.reshape([-1]).to_kind(Kind::Double)).unwrap_or_default();
    let found: Vec<Vec<f64>> = values.iter().map(flat).collect();
    let sizes: Vec<usize> = found.iter().map(Vec::len).collect();
    <[Vec<f64>; 2]>::try_from(found).ok().filter(|_| sizes == lengths).ok_or_else(|| {
        let what = format!("a face network that puts out {sizes:?} numbers, not {lengths:?},");
        FaceMeshError::Network(TfliteError::Unsupported { name: "the package".into(), what })
    })
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// The face of the highest score: centre, size and points as shares of the square, averaged by score over the boxes
/// that overlap it.
fn best_box(codes: &[f64], scores: &[f64]) -> Option<([f64; CODE], f64)> {
    let mut boxes: Vec<([f64; CODE], f64)> = Vec::new();
    let mut anchors = ANCHORS.iter().flat_map(|&(side, each)| {
        (0..side * side * each).map(move |i| {
            let cell = i / each;
            [cell % side, cell / side].map(|c| (c as f64 + 0.5) / side as f64)
        })
    });
    for (code, &score) in codes.chunks_exact(CODE).zip(scores) {
        let anchor = anchors.next()?;
        let score = sigmoid(score.clamp(-100.0, 100.0));
        if score < MIN_SCORE {
            continue;
        }
        let mut read: [f64; CODE] = std::array::from_fn(|i| code[i] / DETECTOR_SIZE as f64);
        for i in (0..2).chain(4..CODE) {
            read[i] += anchor[i % 2];
        }
        boxes.push((read, score));
    }
    let best = *boxes.iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
    let same: Vec<_> = boxes.iter().filter(|b| overlap(&b.0, &best.0) > OVERLAP).collect();
    let total: f64 = same.iter().map(|b| b.1).sum();
    let mean = std::array::from_fn(|i| same.iter().map(|b| b.0[i] * b.1).sum::<f64>() / total);
    Some((if total > 0.0 { mean } else { best.0 }, best.1))
}

/// Intersection over union of two boxes.
fn overlap(a: &[f64; CODE], b: &[f64; CODE]) -> f64 {
    let shared = |i: usize| {
        let high = (a[i] + a[i + 2] / 2.0).min(b[i] + b[i + 2] / 2.0);
        let low = (a[i] - a[i + 2] / 2.0).max(b[i] - b[i + 2] / 2.0);
        (high - low).max(0.0)
    };
    let both = shared(0) * shared(1);
    both / (a[2] * a[3] + b[2] * b[3] - both)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_square_holds_its_landmarks_with_the_eyes_level() {
        let mut points = vec![[50.0, 60.0]; POINTS];
        (points[33], points[263]) = ([40.0, 50.0], [60.0, 70.0]);
        let square = Square::of_landmarks(&points);
        assert_eq!((square.center, square.side), ([50.0, 60.0], 30.0));
        // half a side along its own x axis is down to the right
        let right = square.at(1.0, 0.5);
        let step = 15.0 / 2f64.sqrt();
        assert!((right[0] - 50.0 - step).abs() < 1e-9 && (right[1] - 60.0 - step).abs() < 1e-9, "{right:?}");
        assert_eq!(square.at(0.5, 0.5), square.center);
    }

    #[test]
    fn boxes_are_read_at_their_anchors_and_averaged_where_they_overlap() {
        let mut codes = vec![0.0; 896 * CODE];
        let mut scores = vec![-20.0; 896];
        let mut put = |i: usize, dx: f64, score: f64| {
            codes[i * CODE..][..4].copy_from_slice(&[dx, 0.0, 32.0, 32.0]);
            scores[i] = score;
        };
        assert_eq!(best_box(&vec![0.0; 896 * CODE], &vec![-20.0; 896]), None);
        // the second grid: cell (3, 2) of 8, and its neighbour on the right, which says the same place
        put(512 + (2 * 8 + 3) * 6, 0.0, 5.0);
        put(512 + (2 * 8 + 4) * 6 + 1, -16.0, 5.0);
        // far away, and a little less sure
        put(0, 0.0, 1.0);
        let (code, score) = best_box(&codes, &scores).unwrap();
        assert!((code[0] - 3.5 / 8.0).abs() < 1e-12 && (code[1] - 2.5 / 8.0).abs() < 1e-12, "{code:?}");
        assert!((code[2] - 0.25).abs() < 1e-12 && (score - sigmoid(5.0)).abs() < 1e-12);
    }

    /// The wheel named by `EFFIGY_MEDIAPIPE_WHEEL`, or the one that `make setup` leaves in the cache folder of the
    /// user.
    fn wheel() -> PathBuf {
        let folder = |name: &str, below: &str| std::env::var_os(name).map(|folder| PathBuf::from(folder).join(below));
        let cache = folder("XDG_CACHE_HOME", "").or_else(|| folder("HOME", ".cache")).unwrap_or_default();
        let name = "mediapipe-0.10.14-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl";
        folder("EFFIGY_MEDIAPIPE_WHEEL", "").unwrap_or_else(|| cache.join("effigy/downloads").join(name))
    }

    #[test]
    fn the_networks_say_what_the_reference_runtime_says() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/face_mesh/face_mesh.safetensors");
        let golden = crate::weights::read(&golden).unwrap();
        let bytes = |name: &str| Vec::<u8>::try_from(golden[name].reshape([-1])).unwrap();
        let floats = |name: &str| Vec::<f64>::try_from(golden[name].reshape([-1]).to_kind(Kind::Double)).unwrap();
        let worst = |a: &[f64], b: &[f64]| {
            assert_eq!(a.len(), b.len());
            a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
        };
        let networks = FaceMesh::load(&wheel()).unwrap();
        let [codes, scores] = networks.raw_boxes(&bytes("whole")).unwrap();
        assert!(worst(&codes, &floats("codes")) < 2e-3, "codes: {}", worst(&codes, &floats("codes")));
        assert!(worst(&scores, &floats("scores")) < 1e-3, "scores: {}", worst(&scores, &floats("scores")));
        let mesh = networks.landmarks(&bytes("face")).unwrap();
        let points: Vec<f64> = mesh.points.iter().flatten().map(|v| v * MESH_SIZE as f64).collect();
        assert!(worst(&points, &floats("points")) < 2e-3, "points: {}", worst(&points, &floats("points")));
        assert!((mesh.presence - sigmoid(floats("flag")[0])).abs() < 1e-4, "{}", mesh.presence);
        let seen = image(&bytes("eye"), EYE_SIZE) / 255.0;
        let [around, iris] = networks.raw_eye(&seen).unwrap();
        assert!(worst(&around, &floats("eye_around")) < 2e-3, "eye: {}", worst(&around, &floats("eye_around")));
        assert!(worst(&iris, &floats("eye_iris")) < 2e-3, "iris: {}", worst(&iris, &floats("eye_iris")));
        // a mirrored left eye is a right eye
        let left = networks.eye(&bytes("eye"), 0).unwrap();
        let mirrored: Vec<u8> = bytes("eye")
            .chunks(3 * EYE_SIZE)
            .flat_map(|line| line.chunks(3).rev().flatten().copied().collect::<Vec<_>>())
            .collect();
        let right = networks.eye(&mirrored, 1).unwrap();
        assert!((left.iris[0] + right.iris[0] - 1.0).abs() < 1e-6 && (left.upper[1] - right.upper[1]).abs() < 1e-6);
        assert!(left.upper[1] < left.iris[1] && left.iris[1] < left.lower[1], "{left:?}");
        // and the detector's face is where the mesh has it: `face` is the picture from (0, 66) on
        let whole = Square { center: [96.0, 140.0], side: 280.0, angle: 0.0 };
        let (square, score) = networks.detect(&bytes("whole"), &whole).unwrap().unwrap();
        let picture: Vec<[f64; 2]> = points.chunks_exact(3).map(|p| [p[0], p[1] + 66.0]).collect();
        let held = Square::of_landmarks(&picture);
        assert!(score > 0.8 && (square.center[0] - held.center[0]).abs() < 12.0, "{square:?} {held:?}");
        assert!(
            (square.center[1] - held.center[1]).abs() < 20.0 && (square.angle - held.angle).abs() < 0.1,
            "{square:?} {held:?}"
        );
    }

    #[test]
    fn a_package_that_is_not_there_or_another_says_how_to_get_it() {
        let error = FaceMesh::load(Path::new("nowhere.whl")).err().unwrap().to_string();
        assert!(error.contains("nowhere.whl") && error.contains("make setup"), "{error}");
    }
}
