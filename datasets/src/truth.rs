//! Exact ground truth for a posed head: what a tracker or a reconstruction should find.
//!
//! The surface is skin and eyes, with the shirt below the collar, without hair, teeth, tongue and lashes. Stored as
//! safetensors. Knows no pictures.

use std::path::Path;

use glam::{Mat4, Vec3};
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize_to_file};

pub use crate::heads::ARKIT_NAMES;
use crate::heads::pose::vertices_of;
use crate::heads::{Expression, Head, HeadAssets, Part, PosedHead};

/// What can go wrong with a truth file.
#[derive(Debug, thiserror::Error)]
#[error("truth file {path}: {reason}")]
pub struct TruthError {
    /// The file.
    pub path: std::path::PathBuf,
    /// What is wrong.
    pub reason: String,
}

/// Landmarks: name and place on the template's left half (asset units); names ending in `Left` exist on both sides.
const PLACES: [(&str, [f32; 3]); 22] = [
    ("browInnerLeft", [0.14, 7.46, 1.50]),
    ("browMiddleLeft", [0.34, 7.53, 1.44]),
    ("browOuterLeft", [0.55, 7.48, 1.27]),
    ("eyeInnerLeft", [0.165, 7.250, 1.36]),
    ("eyeOuterLeft", [0.465, 7.285, 1.27]),
    ("eyeUpperLeft", [0.315, 7.355, 1.41]),
    ("eyeLowerLeft", [0.315, 7.205, 1.38]),
    ("noseBridge", [0.0, 7.29, 1.51]),
    ("noseTip", [0.0, 6.94, 1.68]),
    ("noseWingLeft", [0.17, 6.89, 1.47]),
    ("noseBase", [0.0, 6.81, 1.57]),
    ("lipUpper", [0.0, 6.70, 1.60]),
    ("lipUpperInner", [0.0, 6.61, 1.55]),
    ("lipLowerInner", [0.0, 6.59, 1.55]),
    ("lipLower", [0.0, 6.49, 1.56]),
    ("mouthCornerLeft", [0.245, 6.60, 1.40]),
    ("chin", [0.0, 6.27, 1.48]),
    ("jawLeft", [0.60, 6.50, 0.80]),
    ("cheekLeft", [0.55, 6.95, 1.20]),
    ("earLeft", [0.77, 7.05, 0.55]),
    ("top", [0.0, 8.49, 0.50]),
    ("back", [0.0, 7.44, -0.39]),
];

/// Names of all landmarks, in their order.
fn names() -> impl Iterator<Item = (String, Vec3)> {
    PLACES.into_iter().flat_map(|(name, place)| {
        let place = Vec3::from(place);
        let other = name.strip_suffix("Left").map(|stem| (format!("{stem}Right"), place * Vec3::new(-1.0, 1.0, 1.0)));
        std::iter::once((name.to_owned(), place)).chain(other)
    })
}

/// The index of a landmark among [`Truth::landmarks`].
pub fn landmark(name: &str) -> Option<usize> {
    names().position(|(known, _)| known == name)
}

/// Fixed surface points with names.
#[derive(Clone, Debug, PartialEq)]
pub struct Landmarks {
    /// Names, like `eyeOuterLeft`.
    pub names: Vec<String>,
    /// The fine vertex of each.
    pub vertices: Vec<u32>,
}

impl Landmarks {
    /// Finds the landmarks on the template: the body vertex nearest to each place.
    pub fn new(assets: &HeadAssets) -> Self {
        let body = vertices_of(assets, Part::Body);
        let nearest = |p: Vec3| {
            let distance = |v: &usize| assets.template[*v].distance_squared(p);
            body.iter().copied().min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap_or(0) as u32
        };
        let mut landmarks = Self { names: Vec::new(), vertices: Vec::new() };
        for (name, place) in names() {
            landmarks.names.push(name);
            landmarks.vertices.push(nearest(place));
        }
        landmarks
    }

    /// The vertex of a landmark.
    pub fn vertex(&self, name: &str) -> Option<u32> {
        self.names.iter().position(|n| n == name).map(|i| self.vertices[i])
    }
}

/// Ground truth of one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Truth {
    /// Surface vertices, world metres.
    pub positions: Vec<Vec3>,
    /// The same vertices of the person's neutral pose, world metres: canonical coordinates.
    pub canonical: Vec<Vec3>,
    /// Triangles: skin, then eyes.
    pub faces: Vec<[u32; 3]>,
    /// ARKit weights.
    pub arkit: [f32; 52],
    /// Rigid motion of the head from neutral, world to world, columns first as in glam.
    pub head_pose: Mat4,
    /// World positions of [`Landmarks`], in their order.
    pub landmarks: Vec<Vec3>,
    /// Centres of the left and right eyeball, world metres.
    pub eyes: [Vec3; 2],
}

/// How far each ARKit action moves the skin at full weight, alone, on a neutral face (metres): root mean square over
/// the region that it moves, which is every vertex of the skin that moves at least a tenth as far as the one that moves
/// farthest. What turns eyes or tongue and no skin is 0.
pub fn action_motion(head: &Head<'_>) -> [f32; 52] {
    let skin = vertices_of(head.assets, Part::Body);
    let (rest, _) = head.geometry(&Expression::default());
    std::array::from_fn(|action| {
        let mut expression = Expression::default();
        expression.arkit[action] = 1.0;
        let (moved, _) = head.geometry(&expression);
        let squares: Vec<f32> = skin.iter().map(|&v| moved[v].distance_squared(rest[v])).collect();
        let farthest = squares.iter().copied().fold(0.0, f32::max);
        // coordinates are rounded at about a tenth of a micrometre
        if farthest < 1e-12 {
            return 0.0;
        }
        let region: Vec<f32> = squares.into_iter().filter(|square| *square >= 0.01 * farthest).collect();
        (region.iter().sum::<f32>() / region.len() as f32).sqrt()
    })
}

/// Triangles of skin and eyes over fine vertices.
pub fn surface(assets: &HeadAssets) -> Vec<[u32; 3]> {
    [Part::Body, Part::EyeLeft, Part::EyeRight]
        .iter()
        .flat_map(|p| assets.triangles[assets.triangles_of(*p)].to_vec())
        .collect()
}

/// The truth about a posed head. Vertices keep the numbering of the fine mesh; those of teeth bands, tongue and lashes
/// are there but no face uses them.
pub fn truth(posed: &PosedHead<'_>, landmarks: &Landmarks) -> Truth {
    Truth {
        positions: posed.vertices.clone(),
        canonical: posed.head.neutral.clone(),
        faces: surface(posed.head.assets),
        arkit: posed.expression.arkit,
        head_pose: posed.head_pose,
        landmarks: landmarks.vertices.iter().map(|v| posed.vertices[*v as usize]).collect(),
        eyes: posed.eye_centres,
    }
}

fn bytes_of(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_le_bytes).collect()
}

fn points(values: &[Vec3]) -> Vec<u8> {
    bytes_of(values.iter().flat_map(Vec3::to_array))
}

impl Truth {
    /// Writes a safetensors file: `positions`, `canonical` [V, 3] f32, `faces` [F, 3] u32, `arkit` \[52\], `head_pose`
    /// [4, 4] rows first, `landmarks` [L, 3], `eyes` [2, 3].
    pub fn write(&self, path: &Path) -> Result<(), TruthError> {
        let failed = |reason: String| TruthError { path: path.to_owned(), reason };
        let faces: Vec<u8> = self.faces.iter().flatten().flat_map(|v| v.to_le_bytes()).collect();
        let data = [
            ("positions", Dtype::F32, vec![self.positions.len(), 3], points(&self.positions)),
            ("canonical", Dtype::F32, vec![self.canonical.len(), 3], points(&self.canonical)),
            ("faces", Dtype::U32, vec![self.faces.len(), 3], faces),
            ("arkit", Dtype::F32, vec![52], bytes_of(self.arkit)),
            ("head_pose", Dtype::F32, vec![4, 4], bytes_of(self.head_pose.transpose().to_cols_array())),
            ("landmarks", Dtype::F32, vec![self.landmarks.len(), 3], points(&self.landmarks)),
            ("eyes", Dtype::F32, vec![2, 3], points(&self.eyes)),
        ];
        let views: Result<Vec<_>, _> =
            data.iter().map(|(n, t, s, d)| TensorView::new(*t, s.clone(), d).map(|v| (*n, v))).collect();
        serialize_to_file(views.map_err(|e| failed(e.to_string()))?, None, path).map_err(|e| failed(e.to_string()))
    }

    /// Reads what [`Truth::write`] wrote.
    pub fn read(path: &Path) -> Result<Self, TruthError> {
        let failed = |reason: String| TruthError { path: path.to_owned(), reason };
        let bytes = std::fs::read(path).map_err(|e| failed(e.to_string()))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|e| failed(e.to_string()))?;
        let words = |name: &str, dtype: Dtype, inner: &[usize]| -> Result<Vec<[u8; 4]>, TruthError> {
            let tensor = file.tensor(name).map_err(|e| failed(e.to_string()))?;
            if tensor.dtype() != dtype || !tensor.shape().ends_with(inner) {
                let found = format!("{:?} {:?}", tensor.dtype(), tensor.shape());
                return Err(failed(format!("tensor `{name}`: found {found}, expected {dtype:?} [.., {inner:?}]")));
            }
            Ok(tensor.data().chunks_exact(4).map(|c| [c[0], c[1], c[2], c[3]]).collect())
        };
        let floats = |name: &str, inner: &[usize]| -> Result<Vec<f32>, TruthError> {
            Ok(words(name, Dtype::F32, inner)?.into_iter().map(f32::from_le_bytes).collect())
        };
        let vectors = |name: &str| -> Result<Vec<Vec3>, TruthError> {
            Ok(floats(name, &[3])?.chunks_exact(3).map(Vec3::from_slice).collect())
        };
        let sized = |name: &str| failed(format!("tensor `{name}` has the wrong length"));
        let faces = words("faces", Dtype::U32, &[3])?;
        Ok(Self {
            positions: vectors("positions")?,
            canonical: vectors("canonical")?,
            faces: faces.chunks_exact(3).map(|c| [0, 1, 2].map(|k| u32::from_le_bytes(c[k]))).collect(),
            arkit: floats("arkit", &[52])?.try_into().map_err(|_| sized("arkit"))?,
            head_pose: Mat4::from_cols_slice(&floats("head_pose", &[4, 4])?).transpose(),
            landmarks: vectors("landmarks")?,
            eyes: vectors("eyes")?.try_into().map_err(|_| sized("eyes"))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heads::Identity;
    use crate::heads::expression::unit;
    use crate::heads::testing::assets;

    #[test]
    fn truth_round_trips_and_a_foreign_file_is_refused() {
        let a = assets();
        let head = Head::new(a, &Identity::random(a, 8)).unwrap();
        let mut e = Expression { head: Vec3::new(0.0, 0.2, 0.0), ..Expression::default() };
        e.add("mouthSmile", 0.7).unwrap();
        let landmarks = Landmarks::new(a);
        let truth = truth(&head.pose(&e), &landmarks);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("truth.safetensors");
        truth.write(&path).unwrap();
        assert_eq!(Truth::read(&path).unwrap(), truth);
        std::fs::write(&path, b"no tensors").unwrap();
        assert!(Truth::read(&path).unwrap_err().to_string().contains("truth.safetensors"));
        // The left eye's outer corner lies on the left, and pairs are mirrored.
        let at = |name: &str| a.template[landmarks.vertex(name).unwrap() as usize];
        assert!(at("eyeOuterLeft").x > 0.4 && (at("eyeOuterLeft").x + at("eyeOuterRight").x).abs() < 0.01);
    }
    #[test]
    fn an_open_jaw_moves_far_and_a_tongue_moves_no_skin() {
        let a = assets();
        let motion = action_motion(&Head::new(a, &Identity::random(a, 8)).unwrap());
        let of = |name: &str| motion[unit(name).unwrap()];
        assert!(of("jawOpen") > 5e-3 && of("jawOpen") < 5e-2, "{motion:?}");
        assert!(of("tongueOut") < 5e-4, "{motion:?}");
        // pairs mirror each other on a face that nearly does
        assert!((of("mouthSmileLeft") / of("mouthSmileRight") - 1.0).abs() < 0.2, "{motion:?}");
        assert!(motion.iter().filter(|m| **m > 1e-3).count() > 30, "{motion:?}");
    }
}
