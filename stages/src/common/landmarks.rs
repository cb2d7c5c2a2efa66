//! Face landmarks as stages pass them on: found in a picture, triangulated, and where the head model has them.
//!
//! No stage, but what `detect_landmarks`, `triangulate_landmarks` and `scan_landmarks` share with the tracker. A
//! landmark is one of the 468 points of the face mesh; one that was not found is NaN in a column of floats. Knows no
//! rows' origin, and no fit.

use crate::common::head_models::HEAD_CENTER;
use crate::common::media::Image;
use anyhow::{Context, Result, ensure};
use geometry::Camera;
use geometry::align::robust_umeyama;
use geometry::triangulate::{Agreement, Point, View, triangulate};
use glam::{DVec2, DVec3, Vec3};
use manifests::Type;
use metrics::quantile::median;
use models::face_mesh::{DETECTOR_SIZE, FaceMesh, MESH_SIZE, POINTS, Square};
use models::nphm::pose::{Pose, UNITS_PER_METRE};
use protocol::{Cx, Row, Table};
use std::path::Path;

/// The column in which `triangulate_landmarks` puts out places, world frame, metres.
pub const TRIANGULATED: (&str, Type) = ("landmarks3d", Type::Floats(3 * POINTS as u32));
/// The column in which `scan_landmarks` puts out places, model units.
pub const PLACES: (&str, Type) = ("landmark_places", Type::Floats(3 * POINTS as u32));

/// A pose is not told from fewer landmarks than this; a third of the face has more.
const MIN_LANDMARKS: usize = 40;
/// A mesh of a lower presence has no points worth a second look.
pub const PRESENT: f64 = 0.5;

/// A face in a picture.
#[derive(Clone, Debug)]
pub struct Face {
    /// Landmarks, px.
    pub points: Vec<[f64; 2]>,
    /// How far each is behind the middle of the face, px; the network's guess.
    pub depths: Vec<f64>,
    /// Probability that a face is there, as the mesh says.
    pub presence: f64,
    /// Score of the detector; none if it found no face.
    pub score: Option<f64>,
}

/// What opens in a face: points of the mesh on either side, and what the truth of synthetic people calls them. Between
/// the lips, between the corners of the mouth, between the lids of the right and of the left eye.
pub const GAPS: [[(usize, &str); 2]; 4] = [
    [(13, "lipUpperInner"), (14, "lipLowerInner")],
    [(61, "mouthCornerRight"), (291, "mouthCornerLeft")],
    [(159, "eyeUpperRight"), (145, "eyeLowerRight")],
    [(386, "eyeUpperLeft"), (374, "eyeLowerLeft")],
];

/// Columns of [`Face::gaps`].
pub const GAP_WIDTHS: Type = Type::Floats(GAPS.len() as u32);

/// How often the mesh looks again where its own points say, unless a recipe says otherwise.
pub fn refine() -> usize {
    1
}

impl Face {
    /// The face, if the mesh is sure that it is one.
    pub fn sure(self) -> Option<Face> {
        (self.presence >= PRESENT).then_some(self)
    }

    /// How wide each of [`GAPS`] is, in shares of the width of the picture.
    pub fn gaps(&self, width: usize) -> [f64; GAPS.len()] {
        GAPS.map(|[(a, _), (b, _)]| {
            let [a, b] = [a, b].map(|i| DVec2::from(self.points[i]));
            a.distance(b) / width as f64
        })
    }

    /// Landmarks with the network's guess of their depth, px.
    pub fn places(&self) -> Vec<DVec3> {
        self.points.iter().zip(&self.depths).map(|([x, y], z)| DVec3::new(*x, *y, *z)).collect()
    }
}

/// The outermost points of the face mesh at the height of the cheekbones: a face's width lies between them.
pub const SIDES: [usize; 2] = [234, 454];

/// A picture and the face in it; none if the mesh is not sure of one: in profile, from behind, blurred.
///
/// # Errors
/// If the picture cannot be read, or the networks are not those that are expected.
pub fn sure_face(networks: &FaceMesh, path: &Path, refine: usize) -> Result<Option<(Image, Face)>> {
    let image = Image::read(path, 3)?;
    let face = find_face(networks, &image, None, refine)?.sure();
    Ok(face.map(|face| (image, face)))
}

/// Finds the face in a picture. The mesh looks where the detector says and then `refine` times where its own points
/// say; if it sees no face there, or the detector none, it looks around the upper part of the matte, or of the whole
/// picture. What it is surest of stays: a face that it is not sure of has a low presence.
///
/// # Errors
/// If the networks are not those that are expected.
pub fn find_face(networks: &FaceMesh, image: &Image, matte: Option<&Image>, refine: usize) -> Result<Face> {
    let (padded, whole) = padded(image);
    let detected = networks.detect(&padded.resized(DETECTOR_SIZE, DETECTOR_SIZE)?.data, &whole)?;
    let mut best: Option<Face> = None;
    for start in detected.map(|(square, _)| square).into_iter().chain(std::iter::once(matte_square(image, matte))) {
        if best.as_ref().is_some_and(|face| face.presence >= PRESENT) {
            break;
        }
        let mut square = start;
        for _ in 0..=refine {
            let mesh = networks.landmarks(&image.turned(&square, MESH_SIZE).data)?;
            let points: Vec<[f64; 2]> = mesh.points.iter().map(|p| square.at(p[0], p[1])).collect();
            let depths = mesh.points.iter().map(|p| p[2] * square.side).collect();
            square = Square::of_landmarks(&points);
            // the last look is the best one, as long as the face is still there
            if best.as_ref().is_none_or(|face| mesh.presence >= face.presence.min(PRESENT)) {
                best = Some(Face { points, depths, presence: mesh.presence, score: detected.map(|(_, score)| score) });
            }
            if mesh.presence < PRESENT {
                break;
            }
        }
    }
    best.ok_or_else(|| anyhow::anyhow!("the mesh looked nowhere"))
}

/// A picture in the middle of a black square, and where that lies in the picture.
fn padded(image: &Image) -> (Image, Square) {
    let side = image.width.max(image.height);
    let [left, top] = [image.width, image.height].map(|n| (side - n) / 2);
    let row = image.width * image.channels;
    let mut data = vec![0; side * side * image.channels];
    for (y, line) in image.data.chunks_exact(row).enumerate() {
        data[((top + y) * side + left) * image.channels..][..row].copy_from_slice(line);
    }
    let center = [left, top].map(|margin| side as f64 / 2.0 - margin as f64);
    (Image::new(side, side, image.channels, data), Square { center, side: side as f64, angle: 0.0 })
}

/// The square at the top of what the matte covers, as wide as that, px of the picture, which a matte may be larger or
/// smaller than; of the picture, if there is none.
fn matte_square(image: &Image, matte: Option<&Image>) -> Square {
    let (mut low, mut high) = ([usize::MAX; 2], [0; 2]);
    if let Some(matte) = matte {
        for (i, _) in matte.data.iter().enumerate().filter(|(_, alpha)| **alpha > 127) {
            for (axis, value) in [i % matte.width, i / matte.width].into_iter().enumerate() {
                low[axis] = low[axis].min(value);
                high[axis] = high[axis].max(value + 1);
            }
        }
    }
    if low[0] >= high[0] {
        let side = image.width.min(image.height) as f64;
        return Square { center: [image.width as f64 / 2.0, image.height as f64 / 2.0], side, angle: 0.0 };
    }
    let (matte_width, matte_height) = matte.map_or((image.width, image.height), |matte| (matte.width, matte.height));
    let [across, down] = [image.width as f64 / matte_width as f64, image.height as f64 / matte_height as f64];
    let side = (high[0] - low[0]) as f64 * across;
    Square { center: [low[0] as f64 * across + side / 2.0, low[1] as f64 * down + side / 2.0], side, angle: 0.0 }
}

/// Size of a face in a picture, px: the longer side of the box around its landmarks.
pub fn face_size(points: &[[f64; 2]]) -> f64 {
    let extent = |axis: usize| {
        let values = points.iter().map(|p| p[axis]);
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        high - low
    };
    extent(0).max(extent(1))
}

/// Triangulates all landmarks of the views given, errors in shares of the face's size; none where too few views agree.
pub fn triangulate_all(seen: &[(Camera, Vec<[f64; 2]>)], agreement: &Agreement) -> Vec<Option<Point>> {
    let views: Vec<View> = seen.iter().map(|(camera, points)| View::new(camera, face_size(points))).collect();
    let sight = |p: &[f64; 2]| Some(DVec2::from(*p)).filter(|p| p.is_finite());
    (0..POINTS)
        .map(|i| triangulate(&views, &seen.iter().map(|(_, points)| sight(&points[i])).collect::<Vec<_>>(), agreement))
        .collect()
}

/// How far views are from agreeing on the landmarks that were found: root mean square, px at a face of 100 px. None if
/// none was found.
pub fn disagreement(points: &[Option<Point>]) -> Option<f64> {
    let errors: Vec<f64> = points.iter().flatten().map(|p| 100.0 * p.error).collect();
    let mean = errors.iter().map(|e| e * e).sum::<f64>() / errors.len() as f64;
    (!errors.is_empty()).then(|| mean.sqrt())
}

/// Landmarks as a column holds them; NaN for those that are not there.
pub fn to_column(points: impl IntoIterator<Item = Option<DVec3>>) -> Vec<f64> {
    points.into_iter().flat_map(|p| p.map_or([f64::NAN; 3], |p| p.to_array())).collect()
}

/// Landmarks of a column.
pub fn of_column(values: &[f64]) -> Vec<Option<DVec3>> {
    values.chunks_exact(3).map(|p| Some(DVec3::from_slice(p)).filter(|p| p.is_finite())).collect()
}

/// Where the head model has its landmarks: the mean over the people of a table that `scan_landmarks` put out, model
/// units.
///
/// # Errors
/// If the table is empty.
pub fn mean_places(table: &Table) -> Result<Vec<Option<DVec3>>> {
    ensure!(
        !table.is_empty(),
        "`landmarks` has no rows\nhint: it is what scan_landmarks puts out, a row for every person"
    );
    let mut sums = vec![(DVec3::ZERO, 0usize); POINTS];
    for row in table.rows() {
        for (sum, place) in sums.iter_mut().zip(of_column(&row.floats(PLACES.0)?)) {
            if let Some(place) = place {
                *sum = (sum.0 + place, sum.1 + 1);
            }
        }
    }
    // what half of the people lack is not a place of the head
    let enough = |n: usize| n > 0 && 2 * n >= table.len();
    Ok(sums.into_iter().map(|(sum, n)| enough(n).then(|| sum / n as f64)).collect())
}

/// The places of the constant `landmarks`, if a stage has it.
///
/// # Errors
/// If it is empty.
pub fn known_places(cx: &Cx<'_>) -> Result<Option<Vec<Option<DVec3>>>> {
    cx.maybe_with("landmarks").map(mean_places).transpose()
}

/// Landmarks are right about a pose within these: a head that is farther from where it was before has moved. Radians,
/// metres.
const TOLD_WITHIN: (f64, f64) = (0.07, 0.008);

/// Where a fit to a moment is to start: where the head was in the frame before, unless the landmarks of this one say
/// that it has moved farther than they err. A fit finds its way over less than ten degrees, and a head can turn farther
/// from one frame to the next.
pub fn nearer(before: Pose, told: Option<Pose>) -> Pose {
    let has_moved = |told: &Pose| {
        let turn = DVec3::from_array(before.turn_to(told)).length();
        let [from, to] = [&before, told].map(|pose| Vec3::from(pose.to_world(HEAD_CENTER, 1.0)));
        turn > TOLD_WITHIN.0 || f64::from(from.distance(to)) > TOLD_WITHIN.1
    };
    told.filter(has_moved).unwrap_or(before)
}

/// The pose that a row's landmarks tell; none if it has no such column, or too few were found.
///
/// # Errors
/// If the row has landmarks and nobody says where the head model has them.
pub fn pose_in(row: &Row<'_>, places: Option<&[Option<DVec3>]>, scale: f64) -> Result<Option<Pose>> {
    if !row.has(TRIANGULATED.0) {
        return Ok(None);
    }
    let places = places.context(
        "rows have `landmarks3d`, and it is not known where the head model has its landmarks\n\
         hint: `with: { landmarks: STAGE }` takes what scan_landmarks puts out; or leave the column out",
    )?;
    Ok(pose_of(places, &of_column(&row.floats(TRIANGULATED.0)?), scale))
}

/// The pose of a head whose landmarks were triangulated (world, metres), for the model's places and a head of size
/// `scale`; most landmarks decide, so that an open mouth does not. None if too few were found.
pub fn pose_of(places: &[Option<DVec3>], found: &[Option<DVec3>], scale: f64) -> Option<Pose> {
    let rigid = aligned(places, found, scale, false)?;
    Some(Pose { rotation: rigid.rotation.to_scaled_axis().to_array(), translation: rigid.translation.to_array() })
}

/// The size of a head beside the model's, as its triangulated landmarks have it in several moments (world, metres): the
/// median. None if in none of them enough were found.
pub fn size_of(places: &[Option<DVec3>], moments: &[Vec<Option<DVec3>>]) -> Option<f64> {
    median(moments.iter().filter_map(|found| Some(aligned(places, found, 1.0, true)?.scale)).collect())
}

/// From the model's places, at the size `scale`, to those that were found.
fn aligned(
    places: &[Option<DVec3>],
    found: &[Option<DVec3>],
    scale: f64,
    with_scale: bool,
) -> Option<geometry::align::Similarity> {
    let pairs =
        places.iter().zip(found).filter_map(|(place, found)| Some(((*place)? * scale / UNITS_PER_METRE, (*found)?)));
    let (source, target): (Vec<DVec3>, Vec<DVec3>) = pairs.unzip();
    if source.len() < MIN_LANDMARKS {
        return None;
    }
    robust_umeyama(&source, &target, with_scale).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matte_of_another_size_shows_the_same_place() {
        let image = Image::new(40, 60, 3, vec![0; 40 * 60 * 3]);
        let matte = |scale: usize| {
            let inside = |i: usize| (10..30).contains(&(i % (40 * scale) / scale)) && i / (40 * scale) / scale >= 20;
            let data = (0..40 * 60 * scale * scale).map(|i| if inside(i) { 255 } else { 0 }).collect();
            Image::new(40 * scale, 60 * scale, 1, data)
        };
        for scale in [1, 2] {
            let square = matte_square(&image, Some(&matte(scale)));
            assert_eq!((square.center, square.side), ([20.0, 30.0], 20.0), "{scale}");
        }
    }

    #[test]
    fn a_fit_starts_where_the_head_is() {
        let before = Pose { rotation: [0.0, 0.2, 0.0], translation: [0.1, 0.0, 0.0] };
        assert_eq!(nearer(before, None), before);
        // a little off is what landmarks are
        let close = Pose { rotation: [0.01, 0.22, 0.0], translation: [0.102, 0.0, 0.001] };
        assert_eq!(nearer(before, Some(close)), before);
        let turned = Pose { rotation: [0.0, -0.1, 0.0], ..before };
        assert_eq!(nearer(before, Some(turned)), turned);
        let gone = Pose { translation: [0.1, 0.015, 0.0], ..before };
        assert_eq!(nearer(before, Some(gone)), gone);
    }

    #[test]
    fn a_turned_head_is_where_its_landmarks_are() {
        let place = |i: usize| {
            DVec3::new((i as f64 * 0.7).sin() * 0.3, (i as f64 * 1.3).cos() * 0.4, (i as f64 * 0.3).sin() * 0.2)
        };
        let places: Vec<_> = (0..POINTS).map(|i| Some(place(i))).collect();
        let pose = Pose { rotation: [0.1, 0.7, -0.05], translation: [0.1, -0.02, 0.04] };
        let world = |i: usize| DVec3::from(pose.to_world(place(i).as_vec3().to_array(), 1.1).map(f64::from));
        // a third was not found, and some are an opened jaw
        let shifted = |i: usize| if i.is_multiple_of(7) { world(i) - DVec3::new(0.0, 0.03, 0.01) } else { world(i) };
        let found: Vec<_> = (0..POINTS).map(|i| (!i.is_multiple_of(3)).then(|| shifted(i))).collect();
        let told = pose_of(&places, &of_column(&to_column(found.clone())), 1.1).unwrap();
        for i in 0..3 {
            assert!((told.rotation[i] - pose.rotation[i]).abs() < 1e-3, "{told:?}");
            assert!((told.translation[i] - pose.translation[i]).abs() < 1e-4, "{told:?}");
        }
        let size = size_of(&places, &[found.clone(), Vec::new(), found.clone()]).unwrap();
        assert!((size - 1.1).abs() < 1e-3, "{size}");
        // of two sizes the mean
        let larger: Vec<_> = found.iter().map(|p| p.map(|p| 1.2 * p)).collect();
        let between = size_of(&places, &[found.clone(), larger]).unwrap();
        assert!((between - 1.1 * size).abs() < 1e-3, "{between}");
        let few: Vec<_> = found.into_iter().enumerate().map(|(i, p)| p.filter(|_| i < 50)).collect();
        assert_eq!(pose_of(&places, &few, 1.1), None);
        assert_eq!(size_of(&places, &[few]), None);
    }
}
