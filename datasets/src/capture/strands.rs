//! Draws strands as thin lines with depth.
//!
//! A strand thinner than a sample covers it by chance, the chance being its width; averaging samples gives the right
//! coverage. The chance is a hash of strand and place along it, so pictures are repeatable, and what is covered moves
//! with the strand.

use std::cell::OnceCell;

use geometry::Camera;
use glam::{Vec2, Vec3};
use multiversion::multiversion;

use super::{Projection, Region, Samples};
use crate::heads::noise::floor;
use crate::heads::{Placed, PosedHead};

/// Strands may lie this much behind a surface and still be drawn, metres.
const BIAS: f32 = 0.0008;

/// Coordinates in the picture, of segments that are drawn, samples.
const FARTHEST: f32 = 1e6;

/// Samples along a strand that are looked at together; segments have about twice as many.
const LANES: usize = 8;

/// Places of a segment that are covered or not on their own.
const PLACES: f32 = 12.0;

/// Side of the squares of which it is known how deep one sees into them, samples.
const TILE: usize = 8;

/// What hides hair: surfaces, as the farthest depth in each square. What a segment would cover lies in a few squares,
/// and about half of a head's hair is behind the head.
struct Occlusion {
    /// Squares in a row.
    across: usize,
    /// Of the picture, samples.
    size: Vec2,
    /// By square; infinite where one sees past the surfaces.
    farthest: Vec<f32>,
}

impl Occlusion {
    #[inline(always)]
    fn new(samples: &Samples) -> Self {
        let (w, h) = (samples.width, samples.height);
        let across = w.div_ceil(TILE);
        let mut farthest = vec![0.0f32; across * h.div_ceil(TILE)];
        for (y, row) in samples.depth.chunks(w.max(1)).enumerate() {
            let tiles = &mut farthest[y / TILE * across..][..across];
            for (tile, part) in tiles.iter_mut().zip(row.chunks(TILE)) {
                let seen = |most: f32, z: &f32| most.max(if *z > 0.0 { *z } else { f32::INFINITY });
                *tile = part.iter().fold(*tile, seen);
            }
        }
        Self { across, size: Vec2::new(w as f32, h as f32), farthest }
    }

    /// Whether nothing from `a` to `b`, so wide, can be seen. May say no where it is yes.
    #[inline(always)]
    fn hides(&self, a: &Point, b: &Point, width: f32) -> bool {
        // a sample more on each side, and a nearer depth, than rounding can make of it
        let around = Vec2::splat(0.5 * width + 1.0);
        let (low, high) = (a.at.min(b.at) - around, a.at.max(b.at) + around);
        if !(low.cmplt(self.size).all() && high.cmpge(Vec2::ZERO).all()) {
            return low.is_finite() && high.is_finite();
        }
        let nearest = a.z.min(b.z) * (1.0 - 1e-6);
        let [low, high] =
            [low.max(Vec2::ZERO), high.min(self.size - 1.0)].map(|p| [p.x as usize / TILE, p.y as usize / TILE]);
        (low[1]..=high[1])
            .all(|row| self.farthest[row * self.across..][low[0]..=high[0]].iter().all(|depth| *depth < nearest))
    }
}

struct Point {
    at: Vec2,
    z: f32,
    /// Which of its strand's points it is.
    index: usize,
    /// Light it sends and how far it moves in the picture, once asked for: most points lie behind others and never are.
    seen: OnceCell<(Vec3, Vec2)>,
    width: f32,
}

/// Draws all strands of a posed head into the samples; `later` is where they go.
#[multiversion(targets("x86_64+avx2"))]
pub fn draw(posed: &PosedHead<'_>, later: Option<&Placed>, camera: &Camera, samples: &mut Samples) {
    let hair = &posed.strands;
    let projection = Projection::new(camera);
    let eye = camera.center().as_vec3();
    let occlusion = Occlusion::new(samples);
    let mut points: Vec<Point> = Vec::new();
    for s in 0..hair.strands.len() {
        let range = hair.strands.starts[s] as usize..hair.strands.starts[s + 1] as usize;
        let strand = &hair.strands.points[range.clone()];
        let last = strand.len() - 1;
        points.clear();
        for (i, p) in strand.iter().enumerate() {
            let (at, z) = projection.apply(*p);
            if z < 0.05 {
                break;
            }
            let share = i as f32 / last as f32;
            let body = if s < hair.scalp { 1.0 - 0.55 * share * share } else { 1.0 - 0.75 * share };
            points.push(Point {
                at,
                z: z - BIAS,
                index: i,
                seen: OnceCell::new(),
                width: hair.strands.width[s] * body * projection.focal() / z,
            });
        }
        let region = if s < hair.scalp { Region::ScalpHair } else { Region::FaceHair };
        let seen = |point: &Point| {
            *point.seen.get_or_init(|| {
                let i = point.index;
                let tangent = strand[(i + 1).min(last)] - strand[i.saturating_sub(1)];
                let colour = shade(posed, s, range.start + i, strand[i], tangent.normalize_or_zero(), eye);
                let then = |later: &Placed| projection.apply(later.strands[range.start + i]).0 - point.at;
                (colour, later.map_or(Vec2::ZERO, then))
            })
        };
        for pair in points.windows(2) {
            if !occlusion.hides(&pair[0], &pair[1], pair[0].width.max(pair[1].width) * 1.42) {
                segment(&pair[0], &pair[1], s as u32, region, &seen, samples);
            }
        }
    }
}

/// Light that a strand sends to the camera: scattered light, a white sheen from its surface and a coloured one from
/// inside (after Kajiya and Kay, with the two shifted highlights of Marschner et al. 2003).
#[inline(always)]
fn shade(posed: &PosedHead<'_>, strand: usize, point: usize, p: Vec3, tangent: Vec3, eye: Vec3) -> Vec3 {
    let hair = &posed.strands;
    let reflectance = hair.strands.colour[strand];
    let (around, keys) = hair.light[point];
    let view = (eye - p).normalize();
    let scalp = if strand < hair.scalp { 1.0 } else { 0.12 };
    let mut sum = reflectance * around * if strand < hair.scalp { 1.9 } else { 0.8 };
    for (key, share) in posed.head.environment().keys.iter().zip(keys) {
        if share <= 0.0 {
            continue;
        }
        let half = (key.direction + view).normalize_or_zero();
        let lobe = |shift: f32, power: f32| {
            let th = (tangent.dot(half) + shift).clamp(-1.0, 1.0);
            (1.0 - th * th).sqrt().powf(power)
        };
        let tl = tangent.dot(key.direction);
        let diffuse = (1.0 - tl * tl).max(0.0).sqrt();
        let light = key.radiance * share;
        sum += light * (reflectance * (0.10 * diffuse + 0.16 * scalp * lobe(0.12, 22.0)));
        sum += light * (0.020 * scalp * lobe(-0.06, 70.0));
    }
    sum
}

/// A hash in [0, 1) of a strand's segment and a place in it, which is a share of its length. It goes with the strand:
/// in a film hair does not sparkle behind a grid that stands still.
#[inline(always)]
fn chance(strand: u32, segment: u32, share: f32) -> f32 {
    let place = (share * PLACES) as u32;
    let mut h = strand.wrapping_mul(0x9E37_79B1) ^ segment.wrapping_mul(0x85EB_CA6B) ^ place.wrapping_mul(0xC2B2_AE35);
    h ^= h >> 15;
    h = h.wrapping_mul(0x2C1B_3C6D);
    h ^= h >> 13;
    (h >> 8) as f32 / (1u32 << 24) as f32
}

#[inline(always)]
fn segment(
    a: &Point,
    b: &Point,
    strand: u32,
    region: Region,
    seen: &impl Fn(&Point) -> (Vec3, Vec2),
    samples: &mut Samples,
) {
    let (w, h) = (samples.width as i32, samples.height as i32);
    let d = b.at - a.at;
    let steep = d.y.abs() > d.x.abs();
    let length = d.x.abs().max(d.y.abs());
    let steps = length.ceil().max(1.0) as i32;
    // what reaches so far does not come from this picture's neighbourhood
    let farthest = a.at.abs().max_element();
    if steps > 4096 || farthest.is_nan() || farthest >= FARTHEST {
        return;
    }
    let mut cover = |pixel: usize, z: f32, t: f32| {
        if samples.depth[pixel] > 0.0 && samples.depth[pixel] < z {
            return;
        }
        samples.depth[pixel] = z;
        let ((from, moved), (to, moves)) = (seen(a), seen(b));
        samples.colour[pixel] = from.lerp(to, t);
        samples.region[pixel] = region;
        if let Some(motion) = samples.motion.get_mut(pixel) {
            *motion = moved.lerp(moves, t);
        }
    };
    // Width along the minor axis.
    let slope = (d.length().max(1e-6) / length.max(1e-6)).min(1.42);
    let widest = a.width.max(b.width) * slope * 1.0001;
    let place = |i: i32| {
        let t = (i as f32 + 0.5) / steps as f32;
        (t, a.at + d * t)
    };
    if widest < 1.0 {
        // most strands are thin and few of their samples covered: which, is found out for several at once, and before
        // the depth, which is far away in memory
        for first in (0..steps).step_by(LANES) {
            let (mut at, mut depth, mut share) = ([0; LANES], [0.0; LANES], [0.0; LANES]);
            let mut covered = 0;
            for k in 0..LANES {
                let i = first + k as i32;
                let (t, place) = place(i);
                let (x, y) = (floor(place.x), floor(place.y));
                let inside = (i < steps) & (x >= 0) & (y >= 0) & (x < w) & (y < h);
                let width = (a.width + (b.width - a.width) * t) * slope;
                (at[k], depth[k], share[k]) = (y.wrapping_mul(w).wrapping_add(x), a.z + (b.z - a.z) * t, t);
                covered |= u32::from(inside & (chance(strand, a.index as u32, t) <= width)) << k;
            }
            while covered != 0 {
                let k = covered.trailing_zeros() as usize;
                covered &= covered - 1;
                cover(at[k] as usize, depth[k], share[k]);
            }
        }
        return;
    }
    for i in 0..steps {
        let (t, at) = place(i);
        let width = (a.width + (b.width - a.width) * t) * slope;
        let minor = if steep { at.x } else { at.y };
        let thin = width < 1.0;
        let half = if thin { 0.0 } else { 0.5 * width };
        for m in floor(minor - half)..=floor(minor + half) {
            let (x, y) = if steep { (m, floor(at.y)) } else { (floor(at.x), m) };
            if x < 0 || y < 0 || x >= w || y >= h || (thin && chance(strand, a.index as u32, t) > width) {
                continue;
            }
            cover((y * w + x) as usize, a.z + (b.z - a.z) * t, t);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(x: f32, y: f32, z: f32) -> Point {
        Point { at: Vec2::new(x, y), z, index: 0, seen: OnceCell::new(), width: 0.5 }
    }

    #[test]
    fn hair_is_hidden_behind_a_surface_and_nowhere_else() {
        // a wall one metre away that leaves the last five columns open, seen in 37 x 21 samples
        let (w, h) = (37, 21);
        let depth: Vec<f32> = (0..w * h).map(|at| if at % w < 32 { 1.0 } else { 0.0 }).collect();
        let samples = Samples {
            width: w,
            height: h,
            colour: vec![Vec3::ONE; w * h],
            depth,
            region: vec![Region::Background; w * h],
            motion: Vec::new(),
        };
        let occlusion = Occlusion::new(&samples);
        let hides = |a: Point, b: Point| occlusion.hides(&a, &b, 0.7);
        assert!(hides(point(3.0, 4.0, 1.1), point(20.0, 18.0, 1.2)));
        assert!(!hides(point(3.0, 4.0, 0.9), point(20.0, 18.0, 1.2)), "one end is before the wall");
        assert!(!hides(point(3.0, 4.0, 1.0), point(20.0, 18.0, 1.0)), "in the wall");
        assert!(!hides(point(28.0, 4.0, 1.1), point(34.0, 4.0, 1.1)), "it comes out beside the wall");
        assert!(!hides(point(30.8, 4.0, 1.1), point(31.2, 4.0, 1.1)), "it is as wide as to look out");
        assert!(hides(point(-9.0, 4.0, 0.5), point(-3.0, 4.0, 0.5)), "beside the picture nothing is seen");
        assert!(hides(point(36.0, 24.0, 0.5), point(36.0, 22.5, 0.5)), "nor below it");
    }
}
