//! Flicker: how much a picture differs from the one before, where both show the same place of a surface.
//!
//! The usual temporal warping error ([`flow_error`]) takes the motion from optical flow, which at small sizes is off by
//! as much as there is to see, and, found in what it judges, follows the very flicker that it is to measure; but it
//! sees all of a picture. Of an avatar the motion is known ([`warping_error`]): every pixel of its G-buffer says which
//! place of the canonical head it shows. Knows no files, and not how flow is found.

use geometry::Mesh;
use geometry::distance::MeshDistance;
use geometry::gbuffer::GBuffer;
use glam::Vec3;
use rayon::prelude::*;

/// Neighbouring pixels whose canonical places are farther apart than this many median steps show different parts of the
/// head.
const TORN: f32 = 6.0;
/// A place that is farther from everything seen before than this many median steps was not seen.
const UNSEEN: f32 = 0.5;

/// Flow there and back may miss its beginning by this part of the squared ways, and by this much, squared px (Sundaram
/// et al. 2010).
const ROUND_TRIP: (f32, f32) = (0.01, 0.5);

/// How two pictures of a film differ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Flicker {
    /// Mean absolute difference over colours and compared pixels, in levels of 255.
    pub error: f64,
    /// Share of what the later picture shows that was seen before, and so was compared.
    pub share: f64,
}

/// The difference of two RGB pictures (8 bits, row by row) where `surface` of the one shows what `before` of the other
/// does. Each pixel of the later picture is compared with the earlier one at the point, between pixels, that shows the
/// same canonical place.
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

/// The difference of two RGB pictures of the same size, `width` px wide, along optical flow: `there` leads from each
/// pixel of `now` to its place in `before`, `back` from each pixel of `before` to its place in `now`, px. Of the pixels
/// that are `shown`, those are compared for which there and back leads to where it began. As the warping error of Lai
/// et al. 2018, "Learning Blind Video Temporal Consistency", with the mean absolute difference in place of the squared
/// one.
///
/// None if no flow leads back.
///
/// # Panics
/// If the sizes differ.
pub fn flow_error(
    (before, now): (&[u8], &[u8]),
    width: usize,
    shown: &[bool],
    (there, back): (&[[f32; 2]], &[[f32; 2]]),
) -> Option<Flicker> {
    let count = shown.len();
    assert!(
        before.len() == 3 * count && now.len() == 3 * count && there.len() == count && back.len() == count,
        "sizes differ"
    );
    let height = count / width.max(1);
    // the four pixels around a place, and their weights
    let around = |x: f32, y: f32| -> Option<[(usize, f32); 4]> {
        let (left, top) = (x.floor(), y.floor());
        let inside = left >= 0.0 && top >= 0.0 && x <= width as f32 - 1.0 && y <= height as f32 - 1.0;
        let (fx, fy) = (x - left, y - top);
        inside.then(|| {
            let at = |dx: usize, dy: usize| {
                (top as usize + dy).min(height - 1) * width + (left as usize + dx).min(width - 1)
            };
            [
                (at(0, 0), (1.0 - fx) * (1.0 - fy)),
                (at(1, 0), fx * (1.0 - fy)),
                (at(0, 1), (1.0 - fx) * fy),
                (at(1, 1), fx * fy),
            ]
        })
    };
    let difference = |i: usize| -> Option<f64> {
        let go = there[i];
        let place = around((i % width) as f32 + go[0], (i / width) as f32 + go[1])?;
        let mixed = |of: &dyn Fn(usize) -> f32| place.iter().map(|(at, weight)| weight * of(*at)).sum::<f32>();
        let come: [f32; 2] = std::array::from_fn(|k| mixed(&|at| back[at][k]));
        let squared = |step: [f32; 2]| step[0] * step[0] + step[1] * step[1];
        let missed = squared([go[0] + come[0], go[1] + come[1]]);
        if missed > ROUND_TRIP.0 * (squared(go) + squared(come)) + ROUND_TRIP.1 {
            return None;
        }
        let channel =
            |c: usize| f64::from((mixed(&|at| f32::from(before[3 * at + c])) - f32::from(now[3 * i + c])).abs());
        Some((0..3).map(channel).sum::<f64>() / 3.0)
    };
    let seen: Vec<usize> = (0..count).filter(|i| shown[*i]).collect();
    let differences: Vec<f64> = seen.iter().filter_map(|i| difference(*i)).collect();
    let compared = differences.len() as f64;
    let error = differences.iter().sum::<f64>() / compared;
    (compared > 0.0).then(|| Flicker { error, share: compared / seen.len() as f64 })
}

/// The surface that a G-buffer shows, in canonical space, with a vertex for each pixel and without faces over its
/// tears; and the median step between neighbours. None if it shows none.
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
    fn flow_that_leads_back_is_compared_along_and_what_it_does_not_find_is_left_out() {
        let n = SIZE * SIZE;
        let ramp = |shift: f32, brighter: f32| -> Vec<u8> {
            (0..n).flat_map(|i| [(5.0 * ((i % SIZE) as f32 - shift) + 60.0 + brighter) as u8; 3]).collect()
        };
        let (before, now) = (ramp(0.0, 0.0), ramp(2.0, 0.0));
        let (there, mut back) = (vec![[-2.0f32, 0.0]; n], vec![[2.0f32, 0.0]; n]);
        let all = vec![true; n];
        let found = flow_error((&before, &now), SIZE, &all, (&there, &back)).unwrap();
        // the first two columns come from beside the picture
        assert!(found.error == 0.0 && (found.share - 22.0 / 24.0).abs() < 1e-9, "{found:?}");
        let still = flow_error((&before, &now), SIZE, &all, (&vec![[0.0; 2]; n], &vec![[0.0; 2]; n])).unwrap();
        assert_eq!((still.error, still.share), (10.0, 1.0));
        let brighter = flow_error((&before, &ramp(2.0, 7.0)), SIZE, &all, (&there, &back)).unwrap();
        assert_eq!(brighter.error, 7.0);
        // half way, between pixels
        let half = flow_error((&before, &before), SIZE, &all, (&vec![[0.5, 0.0]; n], &vec![[-0.5, 0.0]; n])).unwrap();
        assert_eq!(half.error, 2.5);
        // the lower half comes back to elsewhere, and of the right part nothing is shown
        back[n / 2..].fill([0.0, 3.0]);
        let shown: Vec<bool> = (0..n).map(|i| i % SIZE < 12).collect();
        let found = flow_error((&before, &now), SIZE, &shown, (&there, &back)).unwrap();
        assert!((found.share - 10.0 / 24.0).abs() < 1e-9, "{found:?}");
        assert_eq!(flow_error((&before, &now), SIZE, &all, (&there, &vec![[9.0, 9.0]; n])), None);
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
