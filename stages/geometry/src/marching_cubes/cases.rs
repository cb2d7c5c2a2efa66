//! What the surface looks like within a cell, for each set of corners inside: made from rules, written out only where
//! rules leave a choice. Knows a cell's corners and edges, and no grid.
//!
//! Cell corners are numbered x + 2 y + 4 z; edges start at a corner and run along an axis; sides are numbered 2 axis,
//! and one more at the far end of the axis.

use std::sync::LazyLock;

use glam::Vec3;

#[derive(Clone, Copy, PartialEq)]
pub struct Edge {
    pub start: usize,
    pub axis: usize,
}

/// The x, y, z (0 or 1) of a cell corner.
pub const fn corner(n: usize) -> [usize; 3] {
    [n & 1, n >> 1 & 1, n >> 2 & 1]
}

pub const EDGES: [Edge; 12] = {
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

/// In a triangle, instead of an edge: a vertex within the cell.
pub const MIDDLE: u8 = 12;

/// The corners of a side, counter-clockwise seen from outside the cell.
fn ring(side: usize) -> [usize; 4] {
    let axis = side / 2;
    let (u, v) = (1 << ((axis + 1) % 3), 1 << ((axis + 2) % 3));
    let base = (side % 2) << axis;
    if side % 2 == 1 { [base, base + u, base + u + v, base + v] } else { [base + v, base + u + v, base + u, base] }
}

/// The surface within a cell.
#[derive(Clone, Default)]
pub struct Surface {
    /// Triples of edge numbers, and of `MIDDLE` if there is one.
    pub triangles: Vec<[u8; 3]>,
    /// Whether there is a vertex within the cell.
    pub has_middle: bool,
}

/// A set of corners inside.
pub struct Case {
    /// The surface, if the values at the corners do not matter.
    pub plain: Option<Surface>,
    /// Sides on which two corners inside and two outside lie diagonally: those inside come first.
    pub sides: Vec<[usize; 4]>,
    /// By a bit for each of `sides`: whether it is the corners inside that are connected.
    pub decided: Vec<Surface>,
    /// The tube about two corners that are opposite in the cell, if these alone lie on their side of the level.
    pub tube: Option<Surface>,
}

/// By the set of corners inside, bit n for corner n.
pub static CASES: LazyLock<Vec<Case>> = LazyLock::new(|| (0..256).map(case).collect());

fn case(inside: usize) -> Case {
    let is_inside = |c: usize| inside >> c & 1 == 1;
    let alternates = |side: &usize| (0..4).all(|n| is_inside(ring(*side)[n]) != is_inside(ring(*side)[(n + 1) % 4]));
    let sides: Vec<usize> = (0..6).filter(alternates).collect();
    let decide = |joined: usize| {
        let joins = |side| sides.iter().position(|s| *s == side).is_some_and(|n| joined >> n & 1 == 1);
        caps(&outlines(inside, &joins), inside)
    };
    let decided: Vec<Surface> = (0..1 << sides.len()).map(decide).collect();
    let loops = outlines(inside, &|_| false);
    let tube = if sides.is_empty() && loops.len() == 2 { Some(tube(&loops)) } else { None };
    let plain = if sides.is_empty() && tube.is_none() { decided.first().cloned() } else { None };
    let inside_first = |side: &usize| {
        let [a, b, c, d] = ring(*side);
        if is_inside(a) { [a, c, b, d] } else { [b, d, a, c] }
    };
    Case { plain, sides: sides.iter().map(inside_first).collect(), decided, tube }
}

/// The lines in which the surface meets the cell's sides: closed loops of crossed edges.
fn outlines(inside: usize, joins: &dyn Fn(usize) -> bool) -> Vec<Vec<usize>> {
    let is_inside = |c: usize| inside >> c & 1 == 1;
    // next[e]: where the outline leads to from edge e, having crossed one side of the cell.
    let mut next = [usize::MAX; 12];
    for side in 0..6 {
        let ring = ring(side);
        // Walking the ring, the surface is entered on the edge before each run of inside corners and left on the edge
        // after it. Each run is cut off by a line of its own; where runs are joined, each gap between them is.
        for first in 0..4 {
            if !is_inside(ring[first]) || is_inside(ring[(first + 3) % 4]) {
                continue;
            }
            let run = (0..4).take_while(|n| is_inside(ring[(first + n) % 4])).count();
            let last = if joins(side) { (first + 2) % 4 } else { (first + run - 1) % 4 };
            let entered = edge_between(ring[(first + 3) % 4], ring[first]);
            next[entered] = edge_between(ring[last], ring[(last + 1) % 4]);
        }
    }
    let mut loops = Vec::new();
    for start in 0..12 {
        let mut polygon = Vec::new();
        let mut e = start;
        while next[e] != usize::MAX {
            polygon.push(e);
            e = std::mem::replace(&mut next[e], usize::MAX);
        }
        if !polygon.is_empty() {
            loops.push(polygon);
        }
    }
    loops
}

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

/// The direction of a crossed edge, from its inner to its outer end.
fn outwards(edge: usize, inside: usize) -> Vec3 {
    let Edge { start, axis } = EDGES[edge];
    if inside >> start & 1 == 1 { Vec3::AXES[axis] } else { -Vec3::AXES[axis] }
}

/// What it costs to cut a polygon of `sides` sides along the line between two of its vertices; `hub` is one where lines
/// should end.
///
/// A line in a side of the cell could coincide with one of the neighbouring cell, so it is all but forbidden. Of the
/// rest short ones are better. In the pentagon (three corners cut off) the line between the two parallel edges comes
/// first, as in the classic tables: which way pentagons bend is the one choice that shows in a mesh's volume (5e-4 for
/// a torus of 48 points per axis). In the heptagon (an edge and a corner joined on a side) lines from the one to the
/// other come first, as in Lewiner's. Between mirror images the choice is free; it is made as in the classic tables,
/// too.
fn diagonal_cost(a: usize, b: usize, sides: usize, hub: Option<usize>, inside: usize) -> f32 {
    if share_side(a, b) {
        return 100.0;
    }
    let (out_a, out_b) = (outwards(a, inside), outwards(b, inside));
    let line = midpoint(a) - midpoint(b);
    // the ends on the side of the level where there are fewer corners
    let few_are_inside = inside.count_ones() < 4;
    let end = |edge: usize| {
        let Edge { start, axis } = EDGES[edge];
        if (inside >> start & 1 == 1) == few_are_inside { start } else { start + (1 << axis) }
    };
    match sides {
        5 if out_a.dot(out_b) != 0.0 => 0.5,
        6 if hub == Some(a) || hub == Some(b) => line.length_squared() - 0.5,
        7 if end(a) ^ end(b) == 7 => 0.5 * line.length_squared(),
        _ => line.length_squared() + 0.1 * line.dot(out_a.cross(out_b)),
    }
}

/// In the hexagon about two corners that are joined on a side, the edge where lines should end. Of the two that do not
/// lie in the side one is as good as the other: this is Lewiner's choice.
fn hub(polygon: &[usize]) -> Option<usize> {
    let lies_in = |edge: usize, side: usize| {
        let Edge { start, axis } = EDGES[edge];
        axis != side / 2 && corner(start)[side / 2] == side % 2
    };
    let joined = (0..6).find(|side| polygon.iter().filter(|edge| lies_in(**edge, *side)).count() == 4)?;
    let preferred = [(1, 1), (2, 0), (2, 0), (0, 1), (1, 1), (0, 1)][joined];
    let is_preferred =
        |edge: &&usize| EDGES[**edge].axis == joined / 2 && corner(EDGES[**edge].start)[preferred.0] == preferred.1;
    polygon.iter().find(is_preferred).copied()
}

/// With as many corners inside as outside, none of them diagonal on a side, a polygon can be cut in ways of which one
/// is as good as the other: these are the lines of the classic tables, by the smaller number of the set of corners
/// inside and that outside. They show in a mesh's area and volume (5e-4 for a torus of 20 points per axis).
const HALVES: [(usize, &[[usize; 2]]); 19] = [
    (15, &[[4, 6]]),
    (51, &[[1, 10]]),
    (85, &[[0, 11]]),
    (23, &[[4, 5], [5, 8], [6, 8]]),
    (43, &[[1, 7], [2, 7], [2, 10]]),
    (77, &[[0, 9], [3, 9], [3, 11]]),
    (113, &[[1, 4], [1, 10], [6, 10]]),
    (27, &[[1, 7], [1, 8], [7, 8]]),
    (29, &[[0, 7], [0, 9], [7, 9]]),
    (39, &[[3, 6], [3, 8], [6, 8]]),
    (46, &[[0, 6], [0, 10], [6, 10]]),
    (53, &[[0, 6], [0, 10], [6, 10]]),
    (58, &[[2, 5], [2, 10], [5, 10]]),
    (71, &[[4, 5], [4, 9], [5, 9]]),
    (78, &[[0, 7], [0, 9], [7, 9]]),
    (83, &[[3, 6], [3, 8], [6, 8]]),
    (92, &[[2, 3], [2, 11], [3, 11]]),
    (114, &[[0, 6], [0, 10], [6, 10]]),
    (116, &[[2, 5], [2, 10], [5, 10]]),
];

/// The lines along which the polygon of such a set is cut.
fn halved(inside: usize) -> Option<&'static [[usize; 2]]> {
    HALVES.iter().find(|(set, _)| *set == inside || *set == 255 - inside).map(|(_, lines)| *lines)
}

/// From so many edges on, a polygon gets a vertex in its middle, as in Lewiner's tables: not all of these can be cut
/// along diagonals that do not lie in a side of the cell. There is one at most, as a cell has twelve edges.
const LARGE: usize = 8;

/// Every outline closed by a surface of its own.
fn caps(loops: &[Vec<usize>], inside: usize) -> Surface {
    let mut surface = Surface::default();
    for polygon in loops {
        if polygon.len() < LARGE {
            cut_polygon(polygon, inside, &mut surface.triangles);
            continue;
        }
        let following = polygon.iter().cycle().skip(1);
        surface.triangles.extend(polygon.iter().zip(following).map(|(a, b)| [*a as u8, *b as u8, MIDDLE]));
        surface.has_middle = true;
    }
    surface
}

/// The surface between two outlines of three edges each, about opposite corners: on each side of one outline stands a
/// triangle whose tip is the other's edge along the third axis. No line lies in a side.
fn tube(loops: &[Vec<usize>]) -> Surface {
    let mut surface = Surface::default();
    for (near, far) in [(&loops[0], &loops[1]), (&loops[1], &loops[0])] {
        for (a, b) in near.iter().zip(near.iter().cycle().skip(1)) {
            let third = 3 - EDGES[*a].axis - EDGES[*b].axis;
            let tip = far.iter().find(|e| EDGES[**e].axis == third).expect("an edge along each axis");
            surface.triangles.push([*a, *b, *tip].map(|e| e as u8));
        }
    }
    surface
}

/// Cuts a polygon of cell edges into triangles along the cheapest diagonals.
fn cut_polygon(polygon: &[usize], inside: usize, triangles: &mut Vec<[u8; 3]>) {
    let n = polygon.len();
    let hub = if n == 6 { hub(polygon) } else { None };
    let halved = halved(inside);
    let diagonal = |a: usize, b: usize| {
        let neighbours = b == a + 1 || (a == 0 && b == n - 1);
        let line = [polygon[a].min(polygon[b]), polygon[a].max(polygon[b])];
        match halved {
            _ if neighbours => 0.0,
            Some(lines) => {
                if lines.contains(&line) {
                    0.0
                } else {
                    1.0
                }
            }
            None => diagonal_cost(polygon[a], polygon[b], n, hub, inside),
        }
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

    /// How many triangles meet at each line between two vertices of a surface; outlines are met once.
    fn lines(surface: &Surface) -> Vec<([u8; 2], usize)> {
        let around = |t: &[u8; 3]| [[t[0], t[1]], [t[1], t[2]], [t[2], t[0]]];
        let mut all: Vec<[u8; 2]> = surface.triangles.iter().flat_map(around).collect();
        all.sort_unstable();
        assert!(all.windows(2).all(|two| two[0] != two[1]), "two triangles run along a line in the same direction");
        all.iter_mut().for_each(|line| line.sort_unstable());
        all.sort_unstable();
        all.chunk_by(|a, b| a == b).map(|same| (same[0], same.len())).collect()
    }

    #[test]
    fn within_a_cell_only_outlines_lie_in_its_sides() {
        let mut tubes = 0;
        for (inside, case) in CASES.iter().enumerate() {
            tubes += usize::from(case.tube.is_some());
            for surface in case.decided.iter().chain(&case.tube) {
                for (line, faces) in lines(surface) {
                    let in_a_side = line[1] < MIDDLE && share_side(usize::from(line[0]), usize::from(line[1]));
                    assert_eq!(faces, if in_a_side { 1 } else { 2 }, "{inside:08b} {line:?}");
                }
            }
        }
        // four pairs of opposite corners, inside and outside
        assert_eq!(tubes, 8);
    }

    #[test]
    fn joined_corners_share_a_surface() {
        let case = &CASES[0b1001];
        assert!(case.plain.is_none() && case.sides.len() == 1);
        assert_eq!(case.sides[0].map(|c| 0b1001 >> c & 1), [1, 1, 0, 0]);
        // two corners cut off, or a hexagon's worth of surface around both
        assert_eq!(case.decided.iter().map(|s| s.triangles.len()).collect::<Vec<_>>(), [2, 4]);
        // opposite corners, inside and outside: caps of a triangle each, or a tube of six
        for inside in [0b1000_0001, 0b1101_1011] {
            let case = &CASES[inside];
            assert!(case.plain.is_none() && case.sides.is_empty());
            assert_eq!((case.decided[0].triangles.len(), case.tube.as_ref().unwrap().triangles.len()), (2, 6));
        }
    }

    #[test]
    fn lines_about_joined_corners_are_those_of_the_classic_tables() {
        let inner = |surface: &Surface| -> Vec<[usize; 2]> {
            lines(surface).into_iter().filter(|(_, faces)| *faces == 2).map(|(line, _)| line.map(usize::from)).collect()
        };
        // hexagons: all three lines end at one edge
        for (inside, hub) in [(0b0110, (2, 6)), (0b1001, (3, 7)), (0b0110_0000, (1, 5)), (0b1001_0000, (3, 7))] {
            let hub = edge_between(hub.0, hub.1);
            for (inside, joined) in [(inside, 1), (255 - inside, 0)] {
                let lines = inner(&CASES[inside].decided[joined]);
                assert!(lines.len() == 3 && lines.iter().all(|line| line.contains(&hub)), "{inside:08b} {lines:?}");
            }
        }
        // a heptagon about corner 3 and the edge from 0 to 4: lines lead from the one to the other
        let edge = |a, b| edge_between(a, b);
        let mut expected =
            [[edge(2, 3), edge(4, 6)], [edge(3, 7), edge(4, 6)], [edge(3, 7), edge(4, 5)], [edge(1, 3), edge(4, 5)]];
        expected.iter_mut().for_each(|line| line.sort_unstable());
        expected.sort_unstable();
        for (inside, joined) in [(0b0001_1001, 1), (0b1110_0110, 0)] {
            assert_eq!(inner(&CASES[inside].decided[joined]), expected, "{inside:08b}");
        }
    }
}
