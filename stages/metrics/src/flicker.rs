//! Flicker: how much a picture differs from the one before, where both show the same place of a surface.
//!
//! The usual temporal warping error takes the motion from optical flow, which at small sizes is off by as much as there is to see, and follows the very
//! flicker that it is to measure. Of an avatar the motion is known: every pixel of its G-buffer says which place of the canonical head
//! it shows. Knows no files.

use geometry::Mesh;
use geometry::distance::MeshDistance;
use geometry::gbuffer::GBuffer;
use glam::Vec3;
use rayon::prelude::*;

/// Neighbouring pixels whose canonical places are farther apart than this many median steps show different parts of the head.
const TORN: f32 = 6.0;
/// A place that is farther from everything seen before than this many median steps was not seen.
const UNSEEN: f32 = 0.5;

/// How two pictures of a film differ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Flicker {
    /// Mean absolute difference over colours and compared pixels, in levels of 255.
    pub error: f64,
    /// Share of the later picture's surface that was seen before, and so was compared.
    pub share: f64,
}

/// The difference of two RGB pictures (8 bits, row by row) where `surface` of the one shows what `before` of the other does. Each pixel of
/// the later picture is compared with the earlier one at the point, between pixels, that shows the same canonical place.
///
/// None if they have no place in common.
///
/// # Panics
/// If a picture is not of the size of its G-buffer.
pub fn warping_error(before: (&[u8], &GBuffer), now: (&[u8], &GBuffer)) -> Option<Flicker> {
    for (rgb, surface) in [before, now] {
        assert_eq!(rgb.len(), 3 * surface.mask.len(), "a picture is as large as its G-buffer");
    }
    let (mesh, step) = canonical_mesh(before.1)?;
    let seen = MeshDistance::new(&mesh);
    let difference = |i: usize| {
        let found = seen.closest(Vec3::from(now.1.uv[i])).filter(|found| found.distance <= UNSEEN * step)?;
        let corners = mesh.faces[found.face as usize];
        let channel = |c: usize| {
            let mixed = (0..3).map(|k| found.bary[k] * f32::from(before.0[3 * corners[k] as usize + c])).sum::<f32>();
            f64::from((mixed - f32::from(now.0[3 * i + c])).abs())
        };
        Some((0..3).map(channel).sum::<f64>() / 3.0)
    };
    let inside: Vec<usize> = (0..now.1.mask.len()).filter(|&i| now.1.mask[i]).collect();
    let differences: Vec<f64> = inside.par_iter().with_min_len(256).filter_map(|&i| difference(i)).collect();
    let count = differences.len() as f64;
    let error = differences.iter().sum::<f64>() / count;
    (count > 0.0).then(|| Flicker { error, share: count / inside.len() as f64 })
}

/// The surface that a G-buffer shows, in canonical space, with a vertex for each pixel and without faces over its tears; and the median step
/// between neighbours. None if it shows none.
fn canonical_mesh(seen: &GBuffer) -> Option<(Mesh, f32)> {
    let (width, height) = (seen.width as usize, seen.height as usize);
    let positions: Vec<Vec3> = seen.uv.iter().map(|p| Vec3::from(*p)).collect();
    let mut steps = Vec::new();
    let mut cells = Vec::new();
    for y in 0..height.saturating_sub(1) {
        for x in 0..width.saturating_sub(1) {
            let [a, b, c, d] = [(0, 0), (1, 0), (0, 1), (1, 1)].map(|(dx, dy)| (y + dy) * width + x + dx);
            cells.extend([[a, c, b], [b, c, d]]);
            steps.extend([[a, b], [a, c]].into_iter().filter(|ends| ends.iter().all(|&i| seen.mask[i])));
        }
    }
    let length = |a: usize, b: usize| positions[a].distance(positions[b]);
    let mut lengths: Vec<f32> = steps.into_iter().map(|[a, b]| length(a, b)).collect();
    lengths.sort_unstable_by(f32::total_cmp);
    let step = *lengths.get(lengths.len() / 2)?;
    let whole =
        |t: &[usize; 3]| t.iter().all(|&i| seen.mask[i]) && (0..3).all(|k| length(t[k], t[(k + 1) % 3]) <= TORN * step);
    let faces: Vec<[u32; 3]> = cells.into_iter().filter(whole).map(|t| t.map(|i| i as u32)).collect();
    (!faces.is_empty()).then_some((Mesh { positions, faces }, step))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 24;

    /// A wall of canonical places, `shift` px to the right in the picture; nothing on its left 4 columns.
    fn wall(shift: f32) -> GBuffer {
        let n = SIZE * SIZE;
        let place = |i: usize| [((i % SIZE) as f32 - shift) * 0.01 + 0.3, (i / SIZE) as f32 * 0.01 + 0.2, 0.5];
        GBuffer {
            width: SIZE as u32,
            height: SIZE as u32,
            depth: vec![0.9; n],
            uv: (0..n).map(place).collect(),
            normals: vec![[0.0, 0.0, 1.0]; n],
            ambient: vec![[0.0; 2]; n],
            mask: (0..n).map(|i| i % SIZE >= 4).collect(),
        }
    }

    /// Paint that sticks to the wall, linear in places so that it is the same between pixels.
    fn painted(wall: &GBuffer, brighter: f32) -> Vec<u8> {
        let paint = |p: &[f32; 3]| [p[0] * 300.0, p[1] * 400.0, 50.0].map(|v| (v + brighter).round() as u8);
        wall.uv.iter().flat_map(paint).collect()
    }

    #[test]
    fn what_moves_with_the_surface_does_not_flicker() {
        let (before, now) = (wall(0.0), wall(2.5));
        let found = warping_error((&painted(&before, 0.0), &before), (&painted(&now, 0.0), &now)).unwrap();
        // half a level of rounding, twice
        assert!(found.error < 0.7, "{found:?}");
        // the picture's columns 4 and 5 show what was left of column 4
        assert!((0.8..0.95).contains(&found.share), "{found:?}");
        // the same pictures without moving the surface along differ by 2.5 columns of 3 levels
        let still = warping_error((&painted(&before, 0.0), &before), (&painted(&now, 0.0), &before)).unwrap();
        assert!((still.error - 2.5).abs() < 0.3 && (still.share - 1.0).abs() < 1e-9, "{still:?}");
    }

    #[test]
    fn light_that_changes_is_flicker_of_its_size() {
        let (before, now) = (wall(0.0), wall(1.0));
        let found = warping_error((&painted(&before, 0.0), &before), (&painted(&now, 10.0), &now)).unwrap();
        assert!((found.error - 10.0).abs() < 0.5, "{found:?}");
        let same = warping_error((&painted(&now, 0.0), &now), (&painted(&now, 0.0), &now)).unwrap();
        assert!(same.error < 0.01 && same.share > 0.999, "{same:?}");
    }

    #[test]
    fn pictures_without_a_place_in_common_are_not_compared() {
        let (before, now) = (wall(0.0), wall(500.0));
        let picture = vec![9; 3 * SIZE * SIZE];
        assert_eq!(warping_error((&picture, &before), (&picture, &now)), None);
        let nothing = GBuffer { mask: vec![false; SIZE * SIZE], ..wall(0.0) };
        assert_eq!(warping_error((&picture, &nothing), (&picture, &now)), None);
    }
}
