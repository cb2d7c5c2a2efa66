//! Semi-global aggregation: sums of the cheapest smooth labellings along eight directions (Hirschmueller 2008).
//!
//! Knows only a cost volume; what a label means is the caller's business.

use multiversion::multiversion;

/// Penalties for a label change of one, and of more, between neighbouring pixels.
#[derive(Clone, Copy)]
pub(super) struct Penalties {
    pub one: f32,
    pub more: f32,
}

/// Larger than any path cost.
const FAR: f32 = 1e9;

/// Aggregates `costs` (`[pixel][label]`, `count` labels) over the pixels that are `active`; the others interrupt paths.
pub(super) fn aggregate(costs: &[f32], active: &[bool], width: usize, count: usize, penalties: Penalties) -> Vec<f32> {
    let mut total = vec![0.0; costs.len()];
    for backward in [false, true] {
        pass(costs, active, width, count, penalties, backward, &mut total);
    }
    total
}

/// Four of the eight directions: from the pixel before, and from the three pixels of the row before.
#[multiversion(targets("x86_64+avx2"))]
fn pass(
    costs: &[f32],
    active: &[bool],
    width: usize,
    count: usize,
    penalties: Penalties,
    backward: bool,
    total: &mut [f32],
) {
    let height = active.len() / width;
    // A path state is the minimum, then the costs between two guards.
    let state = count + 3;
    let blank = || vec![0.0f32; (width + 2) * state];
    let mut before: [Vec<f32>; 3] = std::array::from_fn(|_| blank());
    let mut current: [Vec<f32>; 3] = std::array::from_fn(|_| blank());
    let mut along = vec![0.0f32; state];
    let mut next = vec![0.0f32; state];
    for row in 0..height {
        let y = if backward { height - 1 - row } else { row };
        along.fill(0.0);
        for column in 0..width {
            let x = if backward { width - 1 - column } else { column };
            let pixel = y * width + x;
            let slot = (x + 1) * state;
            if !active[pixel] {
                along.fill(0.0);
                current.iter_mut().for_each(|states| states[slot..slot + state].fill(0.0));
                continue;
            }
            let cost = &costs[pixel * count..(pixel + 1) * count];
            let sum = &mut total[pixel * count..(pixel + 1) * count];
            extend(&along, cost, penalties, &mut next, sum);
            std::mem::swap(&mut along, &mut next);
            for (direction, (from, to)) in before.iter().zip(&mut current).enumerate() {
                let previous = (x + direction) * state;
                extend(&from[previous..previous + state], cost, penalties, &mut to[slot..slot + state], sum);
            }
        }
        std::mem::swap(&mut before, &mut current);
    }
}

/// One step of a path: writes the new state and adds its costs to `sum`. An all-zero state starts a new path.
#[inline(always)]
fn extend(from: &[f32], cost: &[f32], penalties: Penalties, to: &mut [f32], sum: &mut [f32]) {
    let count = cost.len();
    let least = from[0];
    let jump = least + penalties.more;
    let (down, stay, up) = (&from[1..1 + count], &from[2..2 + count], &from[3..3 + count]);
    let out = &mut to[2..2 + count];
    let mut minimum = FAR;
    for k in 0..count {
        let step = down[k].min(up[k]) + penalties.one;
        let path = cost[k] + stay[k].min(step).min(jump) - least;
        out[k] = path;
        minimum = minimum.min(path);
    }
    for (sum, path) in sum.iter_mut().zip(out.iter()) {
        *sum += path;
    }
    to[0] = minimum;
    to[1] = FAR;
    to[2 + count] = FAR;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The middle pixel prefers a wrong label slightly: its neighbours must win it over.
    #[test]
    fn neighbours_outvote_a_weak_outlier() {
        let (width, height, count) = (5, 5, 4);
        let cost = |pixel: usize, label: usize| match (pixel, label) {
            (12, 0) => 0.2,
            (12, 2) => 0.3,
            (_, 2) => 0.2,
            _ => 1.0,
        };
        let costs: Vec<f32> = (0..width * height * count).map(|i| cost(i / count, i % count)).collect();
        let total = aggregate(&costs, &[true; 25], width, count, Penalties { one: 0.05, more: 0.3 });
        for labels in total.chunks_exact(count) {
            let winner = (0..count).min_by(|a, b| labels[*a].total_cmp(&labels[*b]));
            assert_eq!(winner, Some(2));
        }
    }

    /// Where the labelling really jumps, and the data is clear, aggregation must not smear it.
    #[test]
    fn clear_steps_survive() {
        let (width, count) = (8, 6);
        let truth = |pixel: usize| if pixel % width < 4 { 0 } else { 5 };
        let costs: Vec<f32> =
            (0..width * width * count).map(|i| if i % count == truth(i / count) { 0.0 } else { 1.0 }).collect();
        let total = aggregate(&costs, &[true; 64], width, count, Penalties { one: 0.02, more: 0.4 });
        for (pixel, labels) in total.chunks_exact(count).enumerate() {
            let winner = (0..count).min_by(|a, b| labels[*a].total_cmp(&labels[*b]));
            assert_eq!(winner, Some(truth(pixel)));
        }
    }
}
