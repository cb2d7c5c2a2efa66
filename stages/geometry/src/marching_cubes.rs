//! Marching cubes: the surface where a sampled field crosses a level.
//!
//! Every grid edge whose ends lie on different sides gets exactly one vertex (found by linear interpolation), which all
//! triangles around it share, so the mesh is closed wherever the surface does not leave the grid. Where the corners'
//! sides of the level do not tell what is connected in a cell, the trilinear field of its corners does:
//!
//! * On a side of a cell with two corners below the level and two above it, each pair diagonal, that pair is connected
//!   on whose side of the level the saddle of the side's bilinear field lies (the "asymptotic decider"); at the level
//!   itself it is the pair above. Both cells at the side compute the same, so there are no holes.
//! * Two opposite corners of a cell that alone are above the level are connected by a tube if they are in a slice of
//!   constant x. One slice shows it, that where the saddle is furthest on their side. Two that alone are below it are
//!   connected as scikit-image connects them, which is more often: whenever both their edges along x are still below
//!   the level in that slice, and when the cell has no such slice. At this resolution either is a guess; the same guess
//!   makes meshes comparable.
//!
//! Other tubes, which the trilinear field can have as well, would need lines in a side of the cell: there surfaces stay
//! apart.
//!
//! The polygons that result are cut into triangles along short diagonals that do not lie in a side of the cell. Those
//! of eight edges and more, which occur where sides are joined, get a vertex more, in their middle.
//!
//! This file does not evaluate fields (see `band`) and knows no units: vertices come in grid-index coordinates. How the
//! surface runs for each set of corners stands in `cases`.

mod cases;

use glam::{DVec3, Vec3};
use rayon::prelude::*;

use crate::mesh::Mesh;
use cases::{CASES, Case, EDGES, Edge, MIDDLE, Surface, corner};

/// Extracts the surface `value == level` of a grid of `dims` points, in grid-index coordinates.
///
/// `values` are x-major: point (i, j, k) is entry `(i * ny + j) * nz + k`. Points below `level` are inside (as in a
/// signed distance field that is negative inside); triangles are counter-clockwise seen from outside. A value equal to
/// the level counts as outside. NaN means "not known": cells with such a corner are left out. Vertices are ordered by
/// the grid edges they lie on, those within cells come last; faces are ordered by cell, whatever the number of threads.
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
    let on_edges = first_vertex[dims[0]];
    let layers: Vec<Layer> = (0..dims[0] - 1)
        .into_par_iter()
        .map_init(scratch, |lookup, i| {
            for (side, table) in lookup.iter_mut().enumerate() {
                for (n, key) in slices[i + side].keys.iter().enumerate() {
                    table[*key as usize] = first_vertex[i + side] + n as u32;
                }
            }
            grid.layer_faces(i, &signs, lookup, on_edges)
        })
        .collect();
    let mut mesh =
        Mesh { positions: slices.iter().flat_map(|s| s.positions.iter().copied()).collect(), faces: Vec::new() };
    mesh.faces.reserve(layers.iter().map(|layer| layer.faces.len()).sum());
    for layer in &layers {
        let (first_face, earlier) = (mesh.faces.len(), mesh.positions.len() as u32 - on_edges);
        mesh.faces.extend(&layer.faces);
        if !layer.middles.is_empty() {
            let vertices = mesh.faces[first_face..].iter_mut().flatten();
            vertices.filter(|v| **v >= on_edges).for_each(|v| *v += earlier);
        }
        mesh.positions.extend(&layer.middles);
    }
    // Only next to unknown values can an edge have a vertex but no cell.
    if layers.iter().any(|layer| layer.is_incomplete) { mesh.select_faces(|_| true).0 } else { mesh }
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

/// The surface between two slices of constant x.
#[derive(Default)]
struct Layer {
    faces: Vec<[u32; 3]>,
    /// Vertices within cells. In the faces the n-th of them is n more than the number of vertices on edges.
    middles: Vec<Vec3>,
    /// Whether a cell had to be left out because a corner is unknown.
    is_incomplete: bool,
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

    /// The surface in the cells between slices `i` and `i + 1`, given the vertex of each edge that starts in them, of
    /// which there are `on_edges` in the whole grid.
    fn layer_faces(&self, i: usize, signs: &Signs, lookup: &[Vec<u32>; 2], on_edges: u32) -> Layer {
        let [_, ny, nz] = self.dims;
        let cases = &*CASES;
        let mut layer = Layer::default();
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
                        layer.is_incomplete = true;
                        continue;
                    }
                    let surface = match &cases[case].plain {
                        Some(surface) => surface,
                        None => self.decide(&cases[case], [i, j, k]),
                    };
                    let middle = on_edges + layer.middles.len() as u32;
                    if surface.has_middle {
                        layer.middles.push(self.middle([i, j, k]));
                    }
                    let vertex = |edge: u8| {
                        if edge == MIDDLE {
                            return middle;
                        }
                        let Edge { start, axis } = EDGES[edge as usize];
                        let [x, y, z] = corner(start);
                        lookup[x][3 * ((j + y) * nz + k + z) + axis]
                    };
                    layer.faces.extend(surface.triangles.iter().map(|t| t.map(vertex)));
                }
            }
        }
        layer
    }

    /// How far above the level the corners of a cell lie.
    fn above(&self, [i, j, k]: [usize; 3]) -> [f64; 8] {
        std::array::from_fn(|n| {
            let [x, y, z] = corner(n);
            let value = self.values[(i + x) * self.slice() + (j + y) * self.dims[2] + k + z];
            f64::from(value) - f64::from(self.level)
        })
    }

    /// The vertex within a cell: the mean of its corners, of which those close to the level count more, as Lewiner has
    /// it.
    #[cold]
    fn middle(&self, cell: [usize; 3]) -> Vec3 {
        let weights = self.above(cell).map(|v| 1.0 / v.abs().clamp(1e-30, 1e30));
        let place = |n: usize| DVec3::from_array(std::array::from_fn(|axis| (cell[axis] + corner(n)[axis]) as f64));
        let sum: DVec3 = (0..8).map(|n| place(n) * weights[n]).sum();
        (sum / weights.iter().sum::<f64>()).as_vec3()
    }

    /// The surface in a cell where it depends on more than the corners' sides of the level.
    #[cold]
    fn decide<'a>(&self, case: &'a Case, cell: [usize; 3]) -> &'a Surface {
        let above = self.above(cell);
        // a product does not depend on the order of its factors: both cells at a side come to the same
        let joined = |[a, b, c, d]: &[usize; 4]| above[*a] * above[*b] > above[*c] * above[*d];
        let bits = case.sides.iter().rev().fold(0, |bits, side| bits << 1 | usize::from(joined(side)));
        let apart = &case.decided[bits];
        case.tube.as_ref().filter(|_| are_connected_through(&above)).unwrap_or(apart)
    }
}

/// Whether two opposite corners of a cell that are alone on their side of the level are connected through it.
fn are_connected_through(above: &[f64; 8]) -> bool {
    // A slice's corners are on the cell's edges along x. The saddle of the slice lies on the side of the first and the
    // last where the product of these exceeds that of the others: a polynomial of degree 2 along x.
    let start: [f64; 4] = std::array::from_fn(|n| above[2 * n]);
    let slope: [f64; 4] = std::array::from_fn(|n| above[2 * n + 1] - start[n]);
    let square = slope[0] * slope[3] - slope[1] * slope[2];
    let linear = start[0] * slope[3] + start[3] * slope[0] - start[1] * slope[2] - start[2] * slope[1];
    let height = -linear / (2.0 * square);
    let are_below = above.iter().filter(|v| **v < 0.0).count() == 2;
    if !(0.0..=1.0).contains(&height) {
        return are_below;
    }
    let at: [f64; 4] = std::array::from_fn(|n| start[n] + slope[n] * height);
    let is_lone = |n: usize| (at[n] < 0.0) == are_below;
    let pairs = if is_lone(0) { ([0, 3], [1, 2]) } else { ([1, 2], [0, 3]) };
    let product = |[a, b]: [usize; 2]| at[a] * at[b];
    let is_diagonal = pairs.0.into_iter().all(is_lone) && !pairs.1.into_iter().any(is_lone);
    is_diagonal && (are_below || product(pairs.0) > product(pairs.1))
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
            let mut random = noise(seed);
            let mut values = sample(n, |_| random());
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

    /// Vertices, faces and components of the surface in a cell with these values at its corners.
    fn cell(values: [f32; 8]) -> [usize; 3] {
        // corners are numbered with x first
        let mesh = marching_cubes(&[0, 4, 2, 6, 1, 5, 3, 7].map(|n: usize| values[n]), [2; 3], 0.0);
        let components = mesh.face_components().into_iter().max().map_or(0, |last| last + 1);
        [mesh.positions.len(), mesh.faces.len(), components as usize]
    }

    #[test]
    fn the_saddle_decides_what_is_connected_on_a_side() {
        let diagonal = |inside: f32, outside: f32| cell([inside, outside, outside, inside, 1.0, 1.0, 1.0, 1.0]);
        assert_eq!(diagonal(-0.5, 0.6), [6, 2, 2]);
        assert_eq!(diagonal(-0.6, 0.5), [6, 4, 1]);
        // at the level itself those above are connected
        assert_eq!(diagonal(-0.5, 0.5), [6, 2, 2]);
        // joined on one side of two: one surface with a vertex more
        assert_eq!(cell([-2.0, -1.0, 1.0, 2.0, 1.0, 2.0, -2.0, -1.0]), [9, 8, 1]);
        assert_eq!(cell([-1.0, -1.0, 2.0, 2.0, 2.0, 2.0, -1.0, -1.0]), [8, 4, 2]);
    }

    #[test]
    fn opposite_corners_are_connected_through_the_cell() {
        let with = |lone: f32, others: f32| cell(std::array::from_fn(|n| if n == 2 || n == 5 { lone } else { others }));
        // above the level, it is whether the middle of the cell is above it: 2 - 6 * 0.3 and 2 - 6 * 0.4 eighths
        assert_eq!(with(1.0, -0.3), [6, 6, 1]);
        assert_eq!(with(1.0, -0.4), [6, 2, 2]);
        // below it, whether the middles of their edges are
        assert_eq!(with(-1.0, 0.9), [6, 6, 1]);
        assert_eq!(with(-1.0, 1.1), [6, 2, 2]);
        // the slice to look at is outside the cell
        let outside = [2.0, -1.0, -2.0, -2.0, -0.25, -2.0, -0.25, 0.25];
        assert!(!are_connected_through(&outside));
        assert!(are_connected_through(&outside.map(|v| -v)));
    }

    /// What is looked for in one slice along x, looked for in many along each axis.
    #[test]
    fn one_slice_tells_whether_opposite_corners_above_are_connected() {
        let mut random = noise(7);
        let mut connected = 0;
        for _ in 0..4000 {
            let above: [f64; 8] = std::array::from_fn(|n| {
                let size = f64::from(random().abs()) + 1e-3;
                if n == 0 || n == 7 { 2.0 * size } else { -size }
            });
            let in_some_slice = |axis: usize| {
                let (u, v, w) = (1 << axis, 1 << ((axis + 1) % 3), 1 << ((axis + 2) % 3));
                (0..=4000).map(|step| f64::from(step) / 4000.0).any(|t| {
                    let at = |corner: usize| above[corner] * (1.0 - t) + above[corner + u] * t;
                    at(0) > 0.0 && at(v + w) > 0.0 && at(0) * at(v + w) > at(v) * at(w)
                })
            };
            let found = are_connected_through(&above);
            connected += usize::from(found);
            for axis in 0..3 {
                assert_eq!(in_some_slice(axis), found, "axis {axis}, {above:?}");
            }
        }
        assert!((500..3500).contains(&connected), "{connected}");
    }

    /// Numbers from -0.5 to 0.5.
    fn noise(seed: u64) -> impl FnMut() -> f32 {
        let mut state = seed;
        move || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1u32 << 24) as f32 - 0.5
        }
    }

    #[test]
    fn a_field_turned_inside_out_has_the_same_vertices() {
        let n = 16;
        let mut random = noise(3);
        let values = sample(n, |_| random());
        let turned: Vec<f32> = values.iter().map(|v| -v).collect();
        let [one, other] = [values, turned].map(|values| marching_cubes(&values, [n; 3], 0.0));
        assert_eq!(one.positions, other.positions);
        // those within cells come after those on edges
        let on_edge = |p: &Vec3| p.to_array().iter().filter(|c| c.fract() == 0.0).count() >= 2;
        let first = one.positions.iter().position(|p| !on_edge(p)).unwrap();
        assert!(one.positions[first..].iter().all(|p| !on_edge(p)) && one.positions.len() - first > 50);
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
    fn next_to_unknown_values_the_surface_is_that_of_the_whole() {
        let n = 16;
        let mut random = noise(11);
        let mut values = sample(n, |_| random());
        let whole = marching_cubes(&values, [n; 3], 0.0);
        (0..n * n * 6).for_each(|p| values[p] = f32::NAN);
        let is_beyond = |f: usize| whole.faces[f].iter().all(|v| whole.positions[*v as usize].x >= 6.0);
        assert_eq!(marching_cubes(&values, [n; 3], 0.0), whole.select_faces(is_beyond).0);
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
