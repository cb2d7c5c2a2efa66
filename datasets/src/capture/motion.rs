//! Motion blur: what moves while the shutter is open is spread along its way.
//!
//! The reconstruction filter of McGuire et al., "A Reconstruction Filter for Plausible Motion Blur" (I3D 2012), over
//! samples: each gathers colour along the strongest motion near it, from those whose own motion reaches it and from
//! those that the moving thing uncovers. Coverage is treated as colour is. Knows no heads.

use glam::{Vec2, Vec3};

use super::Samples;

/// Motion shorter than this is not to be seen, samples.
const LEAST: f32 = 0.5;
/// Longer motion is drawn as long as this, samples.
const MOST: f32 = 64.0;
/// Surfaces nearer to each other than this are one, metres.
const SAME_DEPTH: f32 = 0.01;
/// How far away the background is, metres.
const FAR: f32 = 100.0;

/// Colour and coverage of the samples, blurred if their motion is known. Coverage is 1 where there is something.
pub fn blur(samples: &Samples) -> (Vec<Vec3>, Vec<f32>) {
    let covered = |at: usize| if samples.depth[at] > 0.0 { 1.0 } else { 0.0 };
    let mut colour = samples.colour.clone();
    let mut coverage: Vec<f32> = (0..colour.len()).map(covered).collect();
    // half of the way, to each side of where it was drawn
    let half: Vec<Vec2> = samples.motion.iter().map(|m| (0.5 * *m).clamp_length_max(0.5 * MOST)).collect();
    let longest = half.iter().map(|v| v.length_squared()).fold(0.0, f32::max).sqrt();
    if 2.0 * longest < LEAST {
        return (colour, coverage);
    }
    let (w, h) = (samples.width, samples.height);
    let tile = (longest.ceil() as usize).max(4);
    let strongest = strongest(&half, w, h, tile);
    let depth = |at: usize| if samples.depth[at] > 0.0 { samples.depth[at] } else { FAR };
    for y in 0..h {
        for x in 0..w {
            let here = y * w + x;
            let way = strongest[(y / tile) * w.div_ceil(tile) + x / tile];
            let reach = way.length();
            if 2.0 * reach < LEAST {
                continue;
            }
            let own = half[here].length();
            let mut weight = 1.0 / (2.0 * own).max(LEAST);
            let mut sum = samples.colour[here] * weight;
            let mut part = covered(here) * weight;
            let steps = reach.ceil() as i32;
            for i in -steps..=steps {
                let offset = way * (i as f32 / steps as f32);
                let at = (Vec2::new(x as f32 + 0.5, y as f32 + 0.5) + offset).floor();
                if at.x < 0.0 || at.y < 0.0 || at.x >= w as f32 || at.y >= h as f32 {
                    continue;
                }
                let there = at.y as usize * w + at.x as usize;
                if there == here {
                    continue;
                }
                let (distance, reaches) = (offset.length(), half[there].length());
                let in_front = |a: usize, b: usize| (1.0 - (depth(a) - depth(b)) / SAME_DEPTH).clamp(0.0, 1.0);
                let share = in_front(there, here) * cone(distance, reaches)
                    + in_front(here, there) * cone(distance, own)
                    + 2.0 * within(distance, reaches) * within(distance, own);
                weight += share;
                sum += samples.colour[there] * share;
                part += covered(there) * share;
            }
            colour[here] = sum / weight;
            coverage[here] = part / weight;
        }
    }
    (colour, coverage)
}

/// The longest motion in and around each tile.
fn strongest(motion: &[Vec2], w: usize, h: usize, tile: usize) -> Vec<Vec2> {
    let (across, down) = (w.div_ceil(tile), h.div_ceil(tile));
    let longer = |a: Vec2, b: Vec2| if b.length_squared() > a.length_squared() { b } else { a };
    let mut own = vec![Vec2::ZERO; across * down];
    for (at, m) in motion.iter().enumerate() {
        let t = (at / w / tile) * across + at % w / tile;
        own[t] = longer(own[t], *m);
    }
    let around = |t: usize| {
        let (x, y) = (t % across, t / across);
        let rows = y.saturating_sub(1)..(y + 2).min(down);
        let near = rows.flat_map(|r| (x.saturating_sub(1)..(x + 2).min(across)).map(move |c| r * across + c));
        near.map(|t| own[t]).fold(Vec2::ZERO, longer)
    };
    (0..own.len()).map(around).collect()
}

/// 1 at no distance, 0 from `reach` on.
fn cone(distance: f32, reach: f32) -> f32 {
    if reach > 0.0 { (1.0 - distance / reach).max(0.0) } else { 0.0 }
}

/// 1 within `reach`, 0 beyond, with a short ramp.
fn within(distance: f32, reach: f32) -> f32 {
    if reach > 0.0 { (0.5 + 10.0 * (1.0 - distance / reach)).clamp(0.0, 1.0) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::Region;

    /// A black bar of 8 samples on white, moving right by `way`.
    fn bar(way: f32) -> Samples {
        let (w, h) = (64, 4);
        let inside = |at: usize| (28..36).contains(&(at % w));
        let pick = |a: f32, b: f32| (0..w * h).map(|at| if inside(at) { a } else { b }).collect::<Vec<f32>>();
        Samples {
            width: w,
            height: h,
            colour: pick(0.0, 1.0).into_iter().map(Vec3::splat).collect(),
            depth: pick(1.0, 0.0),
            region: vec![Region::Skin; w * h],
            motion: pick(way, 0.0).into_iter().map(|x| Vec2::new(x, 0.0)).collect(),
        }
    }

    #[test]
    fn a_moving_bar_is_spread_and_a_still_one_is_not() {
        let (colour, coverage) = blur(&bar(0.3));
        assert_eq!((colour, coverage), (bar(0.3).colour, blur(&bar(0.0)).1));
        let (colour, coverage) = blur(&bar(8.0));
        let row: Vec<f32> = (0..64).map(|x| coverage[64 + x]).collect();
        // rising from nothing, four samples before where the edge was, to full; falling as it rose
        assert!(row[23] == 0.0 && row[31] == 1.0 && row[40] == 0.0, "{row:?}");
        assert!(row[24..32].is_sorted() && row[27] > 0.25 && row[28] < 0.9, "{row:?}");
        for k in 0..16 {
            assert!((row[31 - k] - row[32 + k]).abs() < 1e-4, "{row:?}");
        }
        assert!((row.iter().sum::<f32>() - 8.0).abs() < 1.5, "{row:?}");
        for (c, a) in colour.iter().zip(&coverage) {
            assert!((1.0 - c.x - a).abs() < 1e-5, "black over white: {c} at coverage {a}");
        }
    }
}
