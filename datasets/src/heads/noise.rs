//! Deterministic value noise in three dimensions and small helpers on numbers.
//!
//! Knows nothing about heads: coordinates in, numbers in [-1, 1] out. The same point and seed give the same bits.

use glam::{IVec3, Vec3};

/// Well-mixed 32-bit hashes of the eight corners of a lattice cell: x alternates first, then y, then z. What corners
/// have in common is mixed once.
#[inline(always)]
fn hashes(p: IVec3, seed: u32) -> [u32; 8] {
    let mix = |h: u32, c: i32| {
        let h = (h ^ c as u32).wrapping_mul(0x85EB_CA6B);
        h ^ (h >> 13)
    };
    let of_x: [u32; 2] = std::array::from_fn(|k| mix(seed ^ 0x9E37_79B9, p.x.wrapping_add(k as i32)));
    let of_xy: [u32; 4] = std::array::from_fn(|k| mix(of_x[k & 1], p.y.wrapping_add(k as i32 >> 1)));
    std::array::from_fn(|k| {
        let h = mix(of_xy[k & 3], p.z.wrapping_add(k as i32 >> 2)).wrapping_mul(0xC2B2_AE35);
        h ^ (h >> 16)
    })
}

/// Smooth noise in [-1, 1] whose features are about one unit wide.
#[inline(always)]
pub fn value_noise(p: Vec3, seed: u32) -> f32 {
    let i = IVec3::new(floor(p.x), floor(p.y), floor(p.z));
    let f = p - i.as_vec3();
    let f = f * f * (3.0 - 2.0 * f);
    let corners = hashes(i, seed).map(|h| h as f32 * (2.0 / u32::MAX as f32) - 1.0);
    let line = |k: usize| lerp(corners[k], corners[k + 1], f.x);
    lerp(lerp(line(0), line(2), f.y), lerp(line(4), line(6), f.y), f.z)
}

/// Round spots: 1 in the middle of a spot, 0 away from it. About `share` of the unit cells hold one, of random size.
#[inline(always)]
pub fn spots(p: Vec3, share: f32, seed: u32) -> f32 {
    let base = IVec3::new(floor(p.x - 0.5), floor(p.y - 0.5), floor(p.z - 0.5));
    let mut most = 0.0f32;
    for (k, h) in (0..8).zip(hashes(base, seed)) {
        let cell = base + IVec3::new(k & 1, k >> 1 & 1, k >> 2 & 1);
        if (h & 0xff) as f32 >= share * 256.0 {
            continue;
        }
        let part = |shift: u32| ((h >> shift) & 0x3f) as f32 / 63.0;
        let centre = cell.as_vec3() + 0.3 + 0.4 * Vec3::new(part(8), part(14), part(20));
        let radius = 0.14 + 0.26 * part(26);
        most = most.max(smoothstep(radius, 0.4 * radius, p.distance(centre)));
    }
    most
}

/// A sum of `octaves` noises, each twice as fine and half as strong; about [-1, 1].
pub fn fractal_noise(p: Vec3, octaves: u32, seed: u32) -> f32 {
    let mut sum = 0.0;
    let mut total = 0.0;
    for octave in 0..octaves {
        let strength = 0.5f32.powi(octave as i32);
        let offset = Vec3::splat(17.31 * octave as f32);
        sum += strength * value_noise(p * (1u32 << octave) as f32 + offset, seed.wrapping_add(octave));
        total += strength;
    }
    sum / total
}

/// The greatest integer not above a number between -2^22 and 2^22. `f32::floor` is a call into libm where the processor
/// may be an old one, and a cast to i32 looks for numbers that do not fit, one by one; this takes several numbers at
/// once.
#[inline(always)]
pub fn floor(x: f32) -> i32 {
    // at this size the last bit of a float is worth 1, so that the sum is rounded to the nearest integer
    const SHIFT: f32 = 12_582_912.0;
    let nearest = (x + SHIFT).to_bits().wrapping_sub(SHIFT.to_bits()) as i32;
    nearest.wrapping_sub(i32::from(nearest as f32 > x))
}

/// Linear interpolation.
pub fn lerp(a: f32, b: f32, t: f32) -> f32 {
    a + (b - a) * t
}

/// 0 below `low`, 1 above `high`, smooth between; `low > high` gives the falling step.
pub fn smoothstep(low: f32, high: f32, x: f32) -> f32 {
    let t = ((x - low) / (high - low)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// A bump: 1 at `centre`, 0.61 one `width` away.
pub fn bump(x: f32, centre: f32, width: f32) -> f32 {
    let t = (x - centre) / width;
    (-0.5 * t * t).exp()
}

/// The value of a piecewise linear curve through `points` (sorted by their first coordinate) at `x`; constant outside.
pub fn curve(points: &[(f32, f32)], x: f32) -> f32 {
    let Some(after) = points.iter().position(|p| p.0 > x) else { return points[points.len() - 1].1 };
    if after == 0 {
        return points[0].1;
    }
    let (a, b) = (points[after - 1], points[after]);
    lerp(a.1, b.1, smoothstep(a.0, b.0, x) * 0.5 + 0.5 * (x - a.0) / (b.0 - a.0))
}

#[cfg(test)]
mod tests {
    use super::floor;

    #[test]
    fn floor_is_that_of_the_library() {
        let neighbours = |x: f32| [x.next_down(), x, x.next_up()];
        let near = (-40..40).flat_map(|n| neighbours(n as f32 / 4.0));
        let far = (0..22).flat_map(|n| [-1.0, 1.0].map(|sign| sign * ((1 << n) as f32 - 0.5))).flat_map(neighbours);
        for x in near.chain(far).chain([0.0, -0.0, f32::MIN_POSITIVE, -f32::MIN_POSITIVE]) {
            assert_eq!(floor(x), x.floor() as i32, "{x:e}");
        }
    }
}
