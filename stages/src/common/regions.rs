//! Where mouth and eyes are, in a picture or on a head: what the lips' and the eyelids' triangulated landmarks
//! surround.
//!
//! No stage, but what scores of regions go by, and what `track_skin` leaves out. Landmarks come from the training
//! cameras' pictures and are projected into the view, so the regions depend neither on a render nor, in a held-out
//! view, on that view's own picture; on synthetic people they do not know the truth either. Source of the indices: the
//! contours of MediaPipe's face mesh. Knows no scores.

use crate::common::landmarks::{TRIANGULATED, of_column};
use crate::common::media::camera_of;
use anyhow::Result;
use geometry::Camera;
use geometry::gbuffer::{GBuffer, camera_depth};
use glam::{DVec2, DVec3};
use manifests::Type;
use protocol::Row;

/// The columns that tell where landmarks are and how the picture was cut out; without `landmarks3d` there are no
/// regions.
pub const MAY_READ: [(&str, Type); 6] = [
    TRIANGULATED,
    ("intrinsics", Type::Floats(9)),
    ("world_to_cam", Type::Floats(16)),
    ("width", Type::I64),
    ("height", Type::I64),
    ("crop_rect", Type::Floats(3)),
];

/// The outer contour of the lips, all the way round.
pub const LIPS: [usize; 20] =
    [61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185];
/// The contours of the right and the left eye.
const EYES: [[usize; 16]; 2] = [
    [33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246],
    [263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466],
];
/// The outer and the inner corner of the right and the left eye.
pub const EYE_CORNERS: [[usize; 2]; 2] = [[33, 133], [263, 362]];
/// How much larger than its contour a region is, about its middle: lids and the skin around the lips move along.
const GROWN: [f64; 2] = [1.3, 1.7];
/// The same where only the lids' rims move along.
const RIMS: f64 = 1.25;
/// A region whose contour has fewer places is not known.
const PLACES: usize = 8;
/// Surfaces farther before or behind the landmarks than this, metres, are something else: a nose before the far eye.
const NEAR: f64 = 0.04;

/// The landmarks of a moment, and how a view sees them.
pub struct Faces {
    places: Vec<Option<DVec3>>,
    camera: Camera,
}

impl Faces {
    /// Of a row and its G-buffer, which says how large the picture is; none if the row has no landmarks or lacks a
    /// column.
    ///
    /// # Errors
    /// If a column has another width.
    pub fn of(row: &Row<'_>, gbuffer: &GBuffer) -> Result<Option<Faces>> {
        if MAY_READ.iter().any(|(name, _)| !row.has(name)) {
            return Ok(None);
        }
        let [x0, y0, side] = row.array("crop_rect")?;
        let camera = camera_of(row, None)?.crop_resized(x0, y0, side, gbuffer.width);
        Ok(Some(Faces { places: of_column(&row.floats(TRIANGULATED.0)?), camera }))
    }

    /// The mouth; none if it is not known or not seen.
    pub fn mouth(&self, gbuffer: &GBuffer) -> Option<Vec<bool>> {
        seen(self.region(&LIPS, GROWN[0], gbuffer)?)
    }

    /// Both eyes, or the one that is seen; none if neither is.
    pub fn eyes(&self, gbuffer: &GBuffer) -> Option<Vec<bool>> {
        let [right, left] = EYES.map(|contour| self.region(&contour, GROWN[1], gbuffer));
        let both = right.iter().chain(&left).fold(vec![false; gbuffer.mask.len()], |mut all, eye| {
            all.iter_mut().zip(eye).for_each(|(pixel, inside)| *pixel |= inside);
            all
        });
        seen(both)
    }

    /// The head's pixels within the grown convex hull of a contour, at the contour's depth.
    fn region(&self, contour: &[usize], grown: f64, gbuffer: &GBuffer) -> Option<Vec<bool>> {
        let places = contour.iter().filter_map(|&i| self.places.get(i).copied().flatten());
        let projected: Vec<(DVec2, f64)> =
            places.map(|place| self.camera.project(place)).filter(|(_, depth)| *depth > 0.0).collect();
        if projected.len() < PLACES {
            return None;
        }
        let depth = projected.iter().map(|(_, depth)| depth).sum::<f64>() / projected.len() as f64;
        let hull = grown_hull(projected.into_iter().map(|(p, _)| p).collect(), grown);
        let width = gbuffer.width as usize;
        let inside = |i: usize| {
            let pixel = DVec2::new((i % width) as f64 + 0.5, (i / width) as f64 + 0.5);
            let there = (camera_depth(f64::from(gbuffer.depth[i])) - depth).abs() < NEAR;
            there && is_inside(&hull, pixel)
        };
        Some((0..gbuffer.mask.len()).map(|i| gbuffer.mask[i] && inside(i)).collect())
    }
}

/// What the eyelids of a head surround, seen from its front.
pub struct OpenEyes(Vec<Vec<DVec2>>);

impl OpenEyes {
    /// Of the landmarks of a moment in the frame of a head that looks along z, in any unit. An eye of which too few
    /// were found is not known.
    pub fn of(places: &[Option<DVec3>]) -> OpenEyes {
        let eye = |contour: [usize; 16]| {
            let places: Vec<DVec2> =
                contour.iter().filter_map(|&i| Some(places.get(i).copied().flatten()?.truncate())).collect();
            (places.len() >= PLACES).then(|| grown_hull(places, RIMS))
        };
        OpenEyes(EYES.into_iter().filter_map(eye).collect())
    }

    /// Whether a place of the face in the same frame is between the lids or on their rims.
    pub fn hold(&self, place: DVec3) -> bool {
        self.0.iter().any(|hull| is_inside(hull, place.truncate()))
    }
}

/// The convex hull of points that were moved away from their middle, that many times as far as they were.
fn grown_hull(points: Vec<DVec2>, grown: f64) -> Vec<DVec2> {
    let middle = points.iter().sum::<DVec2>() / points.len() as f64;
    convex_hull(points.into_iter().map(|p| middle + (p - middle) * grown).collect())
}

/// Whether a point is inside of a hull, or on its edge.
fn is_inside(hull: &[DVec2], point: DVec2) -> bool {
    hull.iter().zip(hull.iter().cycle().skip(1)).all(|(a, b)| (*b - *a).perp_dot(point - *a) >= 0.0)
}

fn seen(mask: Vec<bool>) -> Option<Vec<bool>> {
    mask.contains(&true).then_some(mask)
}

/// The corners of the convex hull, so that the inside lies where `perp_dot` along the edges is positive.
fn convex_hull(mut points: Vec<DVec2>) -> Vec<DVec2> {
    points.sort_by(|a, b| a.x.total_cmp(&b.x).then(a.y.total_cmp(&b.y)));
    let chain = |points: &mut dyn Iterator<Item = &DVec2>| {
        let mut chain: Vec<DVec2> = Vec::new();
        for &point in points {
            while let [.., a, b] = chain[..]
                && (b - a).perp_dot(point - b) <= 0.0
            {
                chain.pop();
            }
            chain.push(point);
        }
        // the last point begins the other chain
        chain.pop();
        chain
    };
    let mut hull = chain(&mut points.iter());
    hull.extend(chain(&mut points.iter().rev()));
    hull
}

#[cfg(test)]
mod tests {
    use super::*;
    use geometry::gbuffer::clip_depth;
    use glam::{DMat3, DMat4};

    #[test]
    fn a_mouth_lies_within_its_contour_and_at_its_depth() {
        let points = |n: usize| (0..n).map(|i| DVec2::from_angle(i as f64 * 2.399) * 3.0 + DVec2::new(9.0, 7.0));
        let hull = convex_hull(points(20).chain([DVec2::new(9.0, 7.0)]).collect());
        assert_eq!(hull.len(), 20);

        // a camera 1 m before a wall, 10 px for 10 cm, and lips on a circle of 2 cm
        let intrinsics = DMat3::from_cols_array(&[100.0, 0.0, 0.0, 0.0, 100.0, 0.0, 10.0, 10.0, 1.0]);
        let camera = Camera { intrinsics, world_to_cam: DMat4::IDENTITY, width: 20, height: 20 };
        let mut places = vec![None; 468];
        for (k, &i) in LIPS.iter().enumerate() {
            let on = DVec2::from_angle(k as f64 * std::f64::consts::TAU / 20.0) * 0.02;
            places[i] = Some(DVec3::new(on.x, on.y, 1.0));
        }
        let faces = Faces { places, camera };
        let mut gbuffer = GBuffer { width: 20, height: 20, mask: vec![true; 400], ..GBuffer::default() };
        gbuffer.depth = vec![clip_depth(1.0) as f32; 400];
        let mouth = faces.mouth(&gbuffer).unwrap();
        // a circle of 2.6 px
        assert_eq!(mouth.iter().filter(|inside| **inside).count(), 24);
        assert!(mouth[10 * 20 + 10] && !mouth[10 * 20 + 13]);
        assert_eq!(faces.eyes(&gbuffer), None, "nobody knows where they are");
        gbuffer.depth = vec![clip_depth(0.9) as f32; 400];
        assert_eq!(faces.mouth(&gbuffer), None, "something is before it");
    }

    #[test]
    fn open_eyes_hold_irises_and_no_brows() {
        // 30 mm wide and 10 mm high, 32 mm beside the nose
        let mut places = vec![None; 468];
        for (contour, x) in EYES.iter().zip([-0.032, 0.032]) {
            for (k, &i) in contour.iter().enumerate() {
                let on = DVec2::from_angle(k as f64 * std::f64::consts::TAU / 16.0) * DVec2::new(0.015, 0.005);
                places[i] = Some(DVec3::new(x + on.x, on.y, 0.1));
            }
        }
        let eyes = OpenEyes::of(&places);
        let hold = |x: f64, y: f64| eyes.hold(DVec3::new(x, y, 0.09));
        assert!(hold(0.032, 0.0) && hold(-0.02, 0.0) && hold(0.049, 0.0) && hold(0.032, -0.006));
        assert!(!hold(0.0, 0.0) && !hold(0.032, 0.009) && !hold(0.055, 0.0));
        places[EYES[0][0]..].fill(None);
        assert!(!OpenEyes::of(&places).hold(DVec3::new(-0.032, 0.0, 0.1)), "an eye nobody found");
    }
}
