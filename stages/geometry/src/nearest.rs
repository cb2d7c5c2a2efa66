//! Nearest points: a k-d tree over points.
//!
//! Ties are broken by the smaller index, so results do not depend on how the tree was built. Distances are f32, in the
//! points' unit. For distances to surfaces see `distance`.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use glam::Vec3;

pub use crate::distance::{Closest, MeshDistance, SurfaceSample, sample_surface};

/// Nodes with so few points are searched one by one.
const LEAF: usize = 8;

/// A balanced k-d tree. It keeps a copy of the points, sorted so that near points lie near each other in memory.
#[derive(Debug, Clone)]
pub struct KdTree {
    /// Points in tree order: a range's middle element splits it, the axis is in `axes` at the same place.
    points: Vec<Vec3>,
    /// The caller's index of each.
    index: Vec<u32>,
    axes: Vec<u8>,
}

/// A candidate, ordered by distance and then by index.
#[derive(Clone, Copy, PartialEq)]
struct Found {
    squared: f32,
    index: u32,
}

impl Eq for Found {}

impl Ord for Found {
    fn cmp(&self, other: &Self) -> Ordering {
        self.squared.total_cmp(&other.squared).then(self.index.cmp(&other.index))
    }
}

impl PartialOrd for Found {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl KdTree {
    /// Builds the tree. Points must be finite (others are never found).
    pub fn new(points: &[Vec3]) -> Self {
        let mut order: Vec<u32> = (0..points.len() as u32).collect();
        let mut axes = vec![0u8; points.len()];
        build(points, &mut order, &mut axes);
        Self { points: order.iter().map(|i| points[*i as usize]).collect(), index: order, axes }
    }

    /// Number of points.
    pub fn len(&self) -> usize {
        self.points.len()
    }

    /// Whether there are no points.
    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    /// The index of the point nearest to `p`, and its distance; `(usize::MAX, infinity)` of an empty tree.
    pub fn nearest(&self, p: Vec3) -> (usize, f32) {
        let mut best = Found { squared: f32::INFINITY, index: u32::MAX };
        self.visit(p, &mut |found| {
            best = best.min(found);
            best.squared
        });
        if best.index == u32::MAX { (usize::MAX, f32::INFINITY) } else { (best.index as usize, best.squared.sqrt()) }
    }

    /// The `k` points nearest to `p`, nearest first, as (index, distance); fewer if there are fewer points.
    pub fn k_nearest(&self, p: Vec3, k: usize) -> Vec<(usize, f32)> {
        if k == 0 {
            return Vec::new();
        }
        let mut heap: BinaryHeap<Found> = BinaryHeap::with_capacity(k + 1);
        self.visit(p, &mut |found| {
            heap.push(found);
            if heap.len() > k {
                heap.pop();
            }
            if heap.len() < k { f32::INFINITY } else { heap.peek().map_or(f32::INFINITY, |worst| worst.squared) }
        });
        heap.into_sorted_vec().into_iter().map(|f| (f.index as usize, f.squared.sqrt())).collect()
    }

    /// The points at most `radius` from `p`, nearest first, as (index, distance).
    pub fn within(&self, p: Vec3, radius: f32) -> Vec<(usize, f32)> {
        let mut found = Vec::new();
        let limit = radius * radius;
        self.visit(p, &mut |f| {
            if f.squared <= limit {
                found.push(f);
            }
            limit
        });
        found.sort_unstable();
        found.into_iter().map(|f| (f.index as usize, f.squared.sqrt())).collect()
    }

    /// Offers candidates to `offer`, which answers with the squared distance beyond which it has no more interest.
    fn visit(&self, p: Vec3, offer: &mut impl FnMut(Found) -> f32) {
        if !self.points.is_empty() {
            let mut limit = f32::INFINITY;
            self.visit_range(p, 0, self.points.len(), Vec3::ZERO, &mut limit, offer);
        }
    }

    /// `away` is how far `p` lies outside of the range's box, per axis.
    fn visit_range(
        &self,
        p: Vec3,
        start: usize,
        end: usize,
        away: Vec3,
        limit: &mut f32,
        offer: &mut impl FnMut(Found) -> f32,
    ) {
        let consider = |i: usize, limit: &mut f32, offer: &mut dyn FnMut(Found) -> f32| {
            let squared = self.points[i].distance_squared(p);
            if squared <= *limit {
                *limit = offer(Found { squared, index: self.index[i] }).min(*limit);
            }
        };
        if end - start <= LEAF {
            (start..end).for_each(|i| consider(i, limit, offer));
            return;
        }
        let middle = (start + end) / 2;
        let axis = self.axes[middle] as usize;
        let offset = p[axis] - self.points[middle][axis];
        let (near, far) =
            if offset <= 0.0 { ((start, middle), (middle + 1, end)) } else { ((middle + 1, end), (start, middle)) };
        self.visit_range(p, near.0, near.1, away, limit, offer);
        consider(middle, limit, offer);
        let mut beyond = away;
        beyond[axis] = offset.abs();
        // A hair of slack: the box distance is rounded differently from the point distances it bounds.
        if beyond.length_squared() * 0.999_999 <= *limit {
            self.visit_range(p, far.0, far.1, beyond, limit, offer);
        }
    }
}

fn build(points: &[Vec3], order: &mut [u32], axes: &mut [u8]) {
    if order.len() <= LEAF {
        return;
    }
    let at = |i: u32| points[i as usize];
    let first = at(order[0]);
    let (low, high) = order.iter().fold((first, first), |(l, h), i| (l.min(at(*i)), h.max(at(*i))));
    let axis = (high - low).max_position();
    let middle = order.len() / 2;
    order.select_nth_unstable_by(middle, |a, b| at(*a)[axis].total_cmp(&at(*b)[axis]).then(a.cmp(b)));
    axes[middle] = axis as u8;
    let (low, rest) = order.split_at_mut(middle);
    let (low_axes, rest_axes) = axes.split_at_mut(middle);
    rayon::join(|| build(points, low, low_axes), || build(points, &mut rest[1..], &mut rest_axes[1..]));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Points in clumps, with duplicates.
    fn cloud(n: usize, mut state: u64) -> Vec<Vec3> {
        let mut noise = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1u32 << 24) as f32
        };
        let mut points: Vec<Vec3> =
            (0..n).map(|i| Vec3::new(noise(), noise() * noise(), noise() + (i % 5) as f32)).collect();
        (0..n / 10).for_each(|i| points[i] = points[n - 1 - i]);
        points
    }

    #[test]
    fn agrees_with_looking_at_every_point() {
        let points = cloud(3000, 1);
        let tree = KdTree::new(&points);
        for q in cloud(200, 2).into_iter().chain(points[..50].iter().copied()) {
            let mut all: Vec<Found> =
                (0..points.len()).map(|i| Found { squared: points[i].distance_squared(q), index: i as u32 }).collect();
            all.sort_unstable();
            let expected = |n: usize| all[..n].iter().map(|f| (f.index as usize, f.squared.sqrt())).collect::<Vec<_>>();
            assert_eq!(tree.nearest(q), expected(1)[0]);
            assert_eq!(tree.k_nearest(q, 17), expected(17));
            assert_eq!(tree.within(q, 0.1), expected(all.iter().filter(|f| f.squared <= 0.1 * 0.1).count()));
        }
    }

    #[test]
    fn small_trees() {
        assert_eq!(KdTree::new(&[]).nearest(Vec3::ZERO), (usize::MAX, f32::INFINITY));
        assert_eq!(KdTree::new(&[Vec3::X]).k_nearest(Vec3::ZERO, 3), [(0, 1.0)]);
    }
}
