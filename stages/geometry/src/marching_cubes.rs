//! Marching cubes: the surface where a sampled field crosses a level.
//!
//! Every grid edge whose ends lie on different sides gets exactly one vertex (found by linear interpolation), which all
//! triangles around it share, so the mesh is closed wherever the surface does not leave the grid. The table of
//! triangles is made at first use from two rules rather than written out: on each side of a cell, corners below the
//! level that touch only diagonally stay separate (both cells at that side decide alike, so no holes); and the polygons
//! that result are cut into triangles along short diagonals that do not lie in a side of the cell.
//!
//! This file does not evaluate fields (see `band`) and knows no units: vertices come in grid-index coordinates.

use std::sync::LazyLock;

use glam::Vec3;
use rayon::prelude::*;

use crate::mesh::Mesh;

/// Extracts the surface `value == level` of a grid of `dims` points, in grid-index coordinates.
///
/// `values` are x-major: point (i, j, k) is entry `(i * ny + j) * nz + k`. Points below `level` are inside (as in a
/// signed distance field that is negative inside); triangles are counter-clockwise seen from outside. A value equal to
/// the level counts as outside. NaN means "not known": cells with such a corner are left out. Vertices are ordered by
/// the grid edges they lie on, faces by cell, whatever the number of threads.
///
/// # Panics
/// If `values` does not have `dims[0] * dims[1] * dims[2]` entries, or a slice of the grid has 2^30 points or more.
pub fn marching_cubes(values: &[f32], dims: [usize; 3], level: f32) -> Mesh {
    assert_eq!(values.len(), dims.iter().product::<usize>(), "{dims:?} does not fit the number of values");
    if dims.iter().any(|n| *n < 2) {
        return Mesh::default();
    }
    let grid = Grid { values, dims, level };
    assert!(grid.slice() < 1 << 30, "a slice of {} x {} points is too large", dims[1], dims[2]);

    let signs = Signs::new(&grid);
    let slices: Vec<Slice> = (0..dims[0]).into_par_iter().map(|i| grid.slice_vertices(i, &signs)).collect();
    let mut first_vertex = vec![0u32];
    for slice in &slices {
        first_vertex.push(first_vertex[first_vertex.len() - 1] + slice.positions.len() as u32);
    }
    let scratch = || [vec![0u32; 3 * grid.slice()], vec![0u32; 3 * grid.slice()]];
    let (layers, incomplete): (Vec<Vec<[u32; 3]>>, Vec<bool>) = (0..dims[0] - 1)
        .into_par_iter()
        .map_init(scratch, |lookup, i| {
            for (side, table) in lookup.iter_mut().enumerate() {
                for (n, key) in slices[i + side].keys.iter().enumerate() {
                    table[*key as usize] = first_vertex[i + side] + n as u32;
                }
            }
            grid.layer_faces(i, &signs, lookup)
        })
        .unzip();
    let mesh =
        Mesh { positions: slices.iter().flat_map(|s| s.positions.iter().copied()).collect(), faces: layers.concat() };
    // Only next to unknown values can an edge have a vertex but no cell.
    if incomplete.contains(&true) { mesh.select_faces(|_| true).0 } else { mesh }
}

struct Grid<'a> {
    values: &'a [f32],
    dims: [usize; 3],
    level: f32,
}

/// The vertices on the edges that start in one slice of constant x.
struct Slice {
    /// `3 * (j * nz + k) + axis` of the edge, ascending.
    keys: Vec<u32>,
    positions: Vec<Vec3>,
}

impl Grid<'_> {
    /// Points in a slice of constant x.
    fn slice(&self) -> usize {
        self.dims[1] * self.dims[2]
    }

    fn slice_vertices(&self, i: usize, signs: &Signs) -> Slice {
        let [nx, ny, nz] = self.dims;
        let (step_x, step_y) = (self.slice(), nz);
        let mut slice = Slice { keys: Vec::new(), positions: Vec::new() };
        for j in 0..ny {
            let start = i * step_x + j * step_y;
            // Without a neighbour the row itself: nothing is crossed on the way to it.
            let (next_i, next_j) = ((i + 1).min(nx - 1), (j + 1).min(ny - 1));
            let (row, row_x, row_y) = (signs.row(i, j), signs.row(next_i, j), signs.row(i, next_j));
            for word in 0..signs.words {
                let here = row[word];
                let crossed = [here ^ row_x[word], here ^ row_y[word], here ^ signs.following(row, word)];
                let mut left = (crossed[0] | crossed[1] | crossed[2]) & first(nz - 64 * word);
                while left != 0 {
                    let bit = left.trailing_zeros();
                    left &= left - 1;
                    let k = 64 * word + bit as usize;
                    let value = self.values[start + k];
                    for (axis, step) in [step_x, step_y, 1].into_iter().enumerate() {
                        if crossed[axis] >> bit & 1 == 0 {
                            continue;
                        }
                        let next = self.values[start + k + step];
                        if value.is_nan() || next.is_nan() {
                            continue;
                        }
                        let mut position = Vec3::new(i as f32, j as f32, k as f32);
                        position[axis] += crossing(value, next, self.level);
                        slice.keys.push((3 * (j * nz + k) + axis) as u32);
                        slice.positions.push(position);
                    }
                }
            }
        }
        slice
    }

    /// The faces of the cells between slices `i` and `i + 1`, given the vertex of each edge that starts in them; and
    /// whether a cell had to be left out because a corner is unknown.
    fn layer_faces(&self, i: usize, signs: &Signs, lookup: &[Vec<u32>; 2]) -> (Vec<[u32; 3]>, bool) {
        let [_, ny, nz] = self.dims;
        let table = &*TABLE;
        let mut faces = Vec::new();
        let mut incomplete = false;
        for j in 0..ny - 1 {
            let corners = [(0, 0), (1, 0), (0, 1), (1, 1)];
            let rows = corners.map(|(x, y)| signs.row(i + x, j + y));
            for word in 0..signs.words {
                let near = rows.map(|row| row[word]);
                let far = rows.map(|row| signs.following(row, word));
                let any = near.iter().chain(&far).fold(0, |bits, n| bits | n);
                let all = near.iter().chain(&far).fold(u64::MAX, |bits, n| bits & n);
                // the last point of a row begins no cell
                let mut left = any & !all & first(nz - 1 - 64 * word);
                while left != 0 {
                    let bit = left.trailing_zeros();
                    left &= left - 1;
                    let k = 64 * word + bit as usize;
                    let case = (0..4).fold(0, |case, n| {
                        case | ((near[n] >> bit & 1) as usize) << n | ((far[n] >> bit & 1) as usize) << (n + 4)
                    });
                    let unknown = |(x, y): &(usize, usize)| {
                        let from = (i + x) * self.slice() + (j + y) * nz + k;
                        self.values[from].is_nan() || self.values[from + 1].is_nan()
                    };
                    if corners.iter().any(unknown) {
                        incomplete = true;
                        continue;
                    }
                    let vertex = |edge: u8| {
                        let Edge { start, axis } = EDGES[edge as usize];
                        let [x, y, z] = corner(start);
                        lookup[x][3 * ((j + y) * nz + k + z) + axis]
                    };
                    faces.extend(table[case].iter().map(|t| t.map(vertex)));
                }
            }
        }
        (faces, incomplete)
    }
}

/// Which points lie inside, a bit for each: 64 points are compared with their neighbours at once, and few words differ.
struct Signs {
    /// By slice and row; rows begin at a word, and beyond their end bits repeat the last point.
    bits: Vec<u64>,
    /// Words of a row.
    words: usize,
    rows: usize,
}

impl Signs {
    fn new(grid: &Grid<'_>) -> Self {
        let [_, rows, nz] = grid.dims;
        let words = nz.div_ceil(64);
        let mut bits = vec![0u64; grid.dims[0] * rows * words];
        let slices = bits.par_chunks_mut(rows * words).zip(grid.values.par_chunks(grid.slice()));
        slices.for_each(|(bits, values)| {
            for (bits, row) in bits.chunks_exact_mut(words).zip(values.chunks_exact(nz)) {
                let last = u8::from(row[nz - 1] < grid.level);
                for (word, part) in bits.iter_mut().zip(row.chunks(64)) {
                    // as bytes first: comparing and narrowing are vector instructions
                    let mut inside = [last; 64];
                    part.iter().zip(&mut inside).for_each(|(v, byte)| *byte = u8::from(*v < grid.level));
                    // the product gathers the lowest bits of eight bytes in its highest byte
                    let eight = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes).wrapping_mul(0x0102_0408_1020_4080) >> 56;
                    *word = inside.as_chunks().0.iter().rev().fold(0, |word, bytes| word << 8 | eight(bytes));
                }
            }
        });
        Self { bits, words, rows }
    }

    fn row(&self, i: usize, j: usize) -> &[u64] {
        &self.bits[(i * self.rows + j) * self.words..][..self.words]
    }

    /// The next points along z of those in a word; the last one's is itself.
    fn following(&self, row: &[u64], word: usize) -> u64 {
        let last = if word + 1 < self.words { row[word + 1] << 63 } else { row[word] & 1 << 63 };
        row[word] >> 1 | last
    }
}

/// A word whose first bits are set, so many as there are points left.
fn first(points: usize) -> u64 {
    if points < 64 { (1 << points) - 1 } else { u64::MAX }
}

/// Where, in [0, 1], the line from `a` to `b` meets `level`; in f64, so that the result does not depend on the order.
fn crossing(a: f32, b: f32, level: f32) -> f32 {
    let (a, b, level) = (f64::from(a), f64::from(b), f64::from(level));
    if a.is_infinite() || b.is_infinite() {
        return 0.5;
    }
    ((level - a) / (b - a)) as f32
}

// The table of cases. Cell corners are numbered x + 2 y + 4 z; edges start at a corner and run along an axis.

#[derive(Clone, Copy, PartialEq)]
struct Edge {
    start: usize,
    axis: usize,
}

/// The x, y, z (0 or 1) of a cell corner.
const fn corner(n: usize) -> [usize; 3] {
    [n & 1, n >> 1 & 1, n >> 2 & 1]
}

const EDGES: [Edge; 12] = {
    let mut edges = [Edge { start: 0, axis: 0 }; 12];
    let mut n = 0;
    let mut start = 0;
    while start < 8 {
        let mut axis = 0;
        while axis < 3 {
            if corner(start)[axis] == 0 {
                edges[n] = Edge { start, axis };
                n += 1;
            }
            axis += 1;
        }
        start += 1;
    }
    edges
};

/// For each set of corners inside (bit n for corner n), the triangles as triples of edge numbers.
static TABLE: LazyLock<Vec<Vec<[u8; 3]>>> = LazyLock::new(|| (0..256).map(case_triangles).collect());

fn edge_between(a: usize, b: usize) -> usize {
    let wanted = Edge { start: a.min(b), axis: (a ^ b).trailing_zeros() as usize };
    EDGES.iter().position(|e| *e == wanted).expect("the corners differ in one coordinate")
}

fn midpoint(edge: usize) -> Vec3 {
    let Edge { start, axis } = EDGES[edge];
    let mut p = Vec3::from_array(corner(start).map(|c| c as f32));
    p[axis] = 0.5;
    p
}

/// Whether two edges have a side of the cell in common.
fn share_side(a: usize, b: usize) -> bool {
    (midpoint(a) - midpoint(b)).abs().to_array().iter().zip(midpoint(a).to_array()).any(|(d, p)| *d == 0.0 && p != 0.5)
}

fn case_triangles(inside: usize) -> Vec<[u8; 3]> {
    let is_inside = |c: usize| inside >> c & 1 == 1;
    // next[e]: where the surface's outline leads to from edge e, having crossed one side of the cell.
    let mut next = [usize::MAX; 12];
    for axis in 0..3 {
        for far in [false, true] {
            let (u, v) = (1 << ((axis + 1) % 3), 1 << ((axis + 2) % 3));
            let base = if far { 1 << axis } else { 0 };
            // The corners of this side, counter-clockwise seen from outside the cell.
            let mut ring = [base, base + u, base + u + v, base + v];
            if !far {
                ring.reverse();
            }
            // Walking the ring, the surface is entered on the edge before each run of inside corners and left on the
            // edge after it; each run is cut off by a line of its own, which keeps diagonal corners separate.
            for first in 0..4 {
                if !is_inside(ring[first]) || is_inside(ring[(first + 3) % 4]) {
                    continue;
                }
                let run = (0..4).take_while(|n| is_inside(ring[(first + n) % 4])).count();
                let last = (first + run - 1) % 4;
                let entered = edge_between(ring[(first + 3) % 4], ring[first]);
                let left = edge_between(ring[last], ring[(last + 1) % 4]);
                next[entered] = left;
            }
        }
    }
    let mut triangles = Vec::new();
    for start in 0..12 {
        let mut polygon = Vec::new();
        let mut e = start;
        while next[e] != usize::MAX {
            polygon.push(e);
            e = std::mem::replace(&mut next[e], usize::MAX);
        }
        if !polygon.is_empty() {
            cut_polygon(&polygon, inside, &mut triangles);
        }
    }
    triangles
}

/// The direction of a crossed edge, from its inner to its outer end.
fn outwards(edge: usize, inside: usize) -> Vec3 {
    let Edge { start, axis } = EDGES[edge];
    if inside >> start & 1 == 1 { Vec3::AXES[axis] } else { -Vec3::AXES[axis] }
}

/// What it costs to cut a polygon of `sides` sides along the line between two of its vertices.
///
/// A line in a side of the cell could coincide with one of the neighbouring cell, so it is all but forbidden. Of the
/// rest short ones are better. In the pentagon (three corners cut off) the line between the two parallel edges comes
/// first, as in the classic tables: which way pentagons bend is the one choice that shows in a mesh's volume (5e-4 for
/// a torus of 48 points per axis). Between mirror images the choice is free; it is made as in the classic tables, too.
fn diagonal_cost(a: usize, b: usize, sides: usize, inside: usize) -> f32 {
    if share_side(a, b) {
        return 100.0;
    }
    let (out_a, out_b) = (outwards(a, inside), outwards(b, inside));
    let line = midpoint(a) - midpoint(b);
    if sides == 5 && out_a.dot(out_b) != 0.0 { 0.5 } else { line.length_squared() + 0.1 * line.dot(out_a.cross(out_b)) }
}

/// Cuts a polygon of cell edges into triangles along the cheapest diagonals.
fn cut_polygon(polygon: &[usize], inside: usize, triangles: &mut Vec<[u8; 3]>) {
    let n = polygon.len();
    let diagonal = |a: usize, b: usize| {
        let neighbours = b == a + 1 || (a == 0 && b == n - 1);
        if neighbours { 0.0 } else { diagonal_cost(polygon[a], polygon[b], n, inside) }
    };
    // cost[a][b] of cutting up the part of the polygon from a to b, and the corner that makes the triangle with a, b.
    let mut cost = vec![vec![0.0f32; n]; n];
    let mut apex = vec![vec![0; n]; n];
    for span in 2..n {
        for a in 0..n - span {
            let b = a + span;
            let of = |m: usize| cost[a][m] + cost[m][b];
            let best = (a + 1..b).min_by(|l, r| of(*l).total_cmp(&of(*r))).expect("there is a corner between");
            apex[a][b] = best;
            cost[a][b] = of(best) + diagonal(a, b);
        }
    }
    let mut open = vec![(0, n - 1)];
    while let Some((a, b)) = open.pop() {
        if b - a < 2 {
            continue;
        }
        let m = apex[a][b];
        triangles.push([a, m, b].map(|c| polygon[c] as u8));
        open.extend([(a, m), (m, b)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(n: usize, mut f: impl FnMut(Vec3) -> f32) -> Vec<f32> {
        let at = |i: usize| i as f32 / (n - 1) as f32 * 2.0 - 1.0;
        (0..n * n * n).map(|p| f(Vec3::new(at(p / n / n), at(p / n % n), at(p % n)))).collect()
    }

    #[test]
    fn sphere_is_closed_round_and_faces_outwards() {
        let n = 33;
        let values = sample(n, |p| (p - Vec3::new(0.013, -0.021, 0.007)).length() - 0.7);
        let mut mesh = marching_cubes(&values, [n; 3], 0.0);
        assert!(mesh.is_watertight());
        assert_eq!(mesh.euler_number(), 2);
        mesh.positions.iter_mut().for_each(|p| *p = *p * (2.0 / (n - 1) as f32) - Vec3::ONE);
        let sphere = 4.0 / 3.0 * std::f64::consts::PI * 0.7f64.powi(3);
        assert!((mesh.volume() / sphere - 1.0).abs() < 0.01, "{}", mesh.volume());
    }

    /// On noise every case and every ambiguous side occurs; a closed surface must still come out.
    #[test]
    fn noise_gives_closed_manifolds() {
        let n = 20;
        for seed in 0..4u64 {
            let mut state = seed;
            let mut values = sample(n, |_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 40) as f32 / (1u32 << 24) as f32 - 0.5
            });
            for p in 0..n * n * n {
                if [p / n / n, p / n % n, p % n].iter().any(|c| *c == 0 || *c == n - 1) {
                    values[p] = 1.0;
                }
            }
            let mesh = marching_cubes(&values, [n; 3], 0.0);
            assert!(mesh.faces.len() > 10_000);
            assert!(mesh.is_watertight());
            let mut directed: Vec<_> =
                mesh.faces.iter().flat_map(|f| [(f[0], f[1]), (f[1], f[2]), (f[2], f[0])]).collect();
            directed.sort_unstable();
            assert!(directed.windows(2).all(|w| w[0] != w[1]), "two faces run along an edge in the same direction");
        }
    }

    #[test]
    fn one_vertex_per_crossed_edge() {
        // rows shorter than a word of signs, as long as one, longer, and as long as two
        [24, 63, 64, 65, 128].into_iter().for_each(count_vertices);
    }

    fn count_vertices(n: usize) {
        let values = sample(n, |p| (p.x * 5.0).sin() + (p.y * 4.0).cos() * (p.z * 3.0 + 0.4).sin());
        let step = [n * n, n, 1];
        let mut crossed = 0;
        for p in 0..values.len() {
            for axis in 0..3 {
                if p / step[axis] % n + 1 < n && (values[p] < 0.1) != (values[p + step[axis]] < 0.1) {
                    crossed += 1;
                }
            }
        }
        assert_eq!(marching_cubes(&values, [n; 3], 0.1).positions.len(), crossed);
    }

    #[test]
    fn unknown_values_leave_a_hole_without_stray_vertices() {
        let n = 17;
        let mut values = sample(n, |p| p.length() - 0.6);
        let whole = marching_cubes(&values, [n; 3], 0.0);
        (0..n * n * 6).for_each(|p| values[p] = f32::NAN);
        let part = marching_cubes(&values, [n; 3], 0.0);
        assert!(part.faces.len() < whole.faces.len() && !part.faces.is_empty());
        assert!(part.positions.iter().all(|p| p.is_finite() && p.x >= 6.0));
        let mut used: Vec<u32> = part.faces.iter().flatten().copied().collect();
        used.sort_unstable();
        used.dedup();
        assert_eq!(used.len(), part.positions.len());
    }
}
