//! Folds a graph that is wider than the page into bands below one another, as text is folded into lines.
//!
//! An edge that leaves a band on the right goes on at the left of the next, at the same height; both ends bear the name
//! of the node it comes from. Knows no drawing.

use super::layers::Placed;

/// Free height between bands, px.
const BETWEEN: f64 = 26.0;
/// Length of the piece of an edge that leaves or enters a band, px.
const STUB: f64 = 22.0;
/// How much one broken edge counts against bands of unequal width.
const BROKEN: f64 = 0.08;

/// A folded graph.
#[derive(Debug)]
pub(super) struct Folded {
    /// Left end and middle height of each node, px.
    pub nodes: Vec<(f64, f64)>,
    /// For each edge its pieces, in order.
    pub edges: Vec<Vec<Piece>>,
    /// Where edges are broken: the node they come from, where its name stands (px), and whether it stands at the right
    /// end.
    pub breaks: Vec<(usize, (f64, f64), bool)>,
    /// Width and height, px.
    pub size: (f64, f64),
}

/// An unbroken piece of an edge: the points it passes; two by two they are joined by a bend, then a level line, and so
/// on.
pub(super) type Piece = Vec<(f64, f64)>;

/// Folds a graph so that no band is wider than `limit` px where that can be; `label` is the room a node's name needs at
/// the ends of a band, px.
pub(super) fn fold(
    placed: &Placed,
    widths: &[f64],
    edges: &[(usize, usize)],
    limit: f64,
    label: &dyn Fn(usize) -> f64,
) -> Folded {
    let depth = placed.columns.len();
    let band = bands(placed, edges, limit, label);
    let count = band.last().map_or(0, |last| last + 1);

    // room for names at both ends of each band, and the heights it takes
    let broken = |layer: usize| -> Vec<usize> {
        let mut from: Vec<usize> = crossing(placed, edges, layer);
        from.dedup();
        from
    };
    let room = |layer: usize| broken(layer).into_iter().map(label).fold(0.0, f64::max) + STUB;
    let mut lefts = vec![0.0; count];
    let mut rights = vec![0.0; count];
    let mut tops = vec![f64::INFINITY; count];
    let mut bottoms = vec![f64::NEG_INFINITY; count];
    let mut include = |layer: usize, (top, bottom): (f64, f64)| {
        let b = band[layer];
        tops[b] = tops[b].min(top);
        bottoms[b] = bottoms[b].max(bottom);
    };
    for (v, &(_, y)) in placed.nodes.iter().enumerate() {
        include(placed.rank[v], (y - super::layers::NODE / 2.0, y + super::layers::NODE / 2.0));
    }
    for (route, &(from, _)) in placed.routes.iter().zip(edges) {
        route
            .iter()
            .enumerate()
            .for_each(|(i, station)| include(placed.rank[from] + 1 + i, (station.2 - 8.0, station.2 + 8.0)));
    }
    // an edge enters a band at the height at which it left the one above
    for layer in (1..depth).filter(|&layer| band[layer] != band[layer - 1]) {
        for from in broken(layer) {
            let y = height_at(placed, edges, from, layer - 1);
            include(layer, (y - 8.0, y + 8.0));
        }
        lefts[band[layer]] = room(layer);
        rights[band[layer - 1]] = room(layer);
    }
    let mut shifts = Vec::new();
    let mut at = 0.0;
    let mut size = (0.0f64, 0.0);
    for b in 0..count {
        let first = band.iter().position(|&x| x == b).expect("every band has a layer");
        let last = band.iter().rposition(|&x| x == b).expect("every band has a layer");
        shifts.push((lefts[b] - placed.columns[first].0, at - tops[b]));
        size.0 = size
            .0
            .max(lefts[b] + placed.columns[last].0 + placed.columns[last].1 - placed.columns[first].0 + rights[b]);
        size.1 = at + bottoms[b] - tops[b];
        at = size.1 + BETWEEN;
    }

    let shifted = |layer: usize, (x, y): (f64, f64)| (x + shifts[band[layer]].0, y + shifts[band[layer]].1);
    let mut breaks: Vec<(usize, (f64, f64), bool)> = Vec::new();
    let mut pieces = Vec::new();
    for (&(from, to), route) in edges.iter().zip(&placed.routes) {
        let (x, y) = placed.nodes[from];
        let mut layer = placed.rank[from];
        let mut all = Vec::new();
        let mut piece = vec![shifted(layer, (x + widths[from], y))];
        let end = (placed.nodes[to].0, placed.nodes[to].0, placed.nodes[to].1);
        for &(left, right, height) in route.iter().chain([&end]) {
            let (last, next) = (*piece.last().expect("begun with one"), layer + 1);
            if band[layer] != band[next] {
                let (column, width) = placed.columns[layer];
                let out = shifted(layer, (column + width + STUB, 0.0)).0;
                let level = last.1 - shifts[band[layer]].1 + shifts[band[next]].1;
                let entry = shifted(next, (placed.columns[next].0 - STUB, 0.0)).0;
                piece.extend([(out, last.1), (out, last.1)]);
                all.push(std::mem::replace(&mut piece, vec![(entry, level)]));
                for mark in [(from, (out, last.1), true), (from, (entry, level), false)] {
                    if !breaks.contains(&mark) {
                        breaks.push(mark);
                    }
                }
            }
            layer = next;
            piece.extend([shifted(layer, (left, height)), shifted(layer, (right, height))]);
        }
        all.push(piece);
        pieces.push(all);
    }
    let nodes = placed.nodes.iter().enumerate().map(|(v, &at)| shifted(placed.rank[v], at)).collect();
    Folded { nodes, edges: pieces, breaks, size }
}

/// The nodes whose edges lead from before `layer` into it or past it, sorted.
fn crossing(placed: &Placed, edges: &[(usize, usize)], layer: usize) -> Vec<usize> {
    let rank = &placed.rank;
    let mut from: Vec<usize> =
        edges.iter().filter(|&&(a, b)| rank[a] < layer && rank[b] >= layer).map(|edge| edge.0).collect();
    from.sort_unstable();
    from.dedup();
    from
}

/// The height at which the edges of a node pass a layer at or behind it.
fn height_at(placed: &Placed, edges: &[(usize, usize)], from: usize, layer: usize) -> f64 {
    let steps = layer - placed.rank[from];
    let longer = edges.iter().zip(&placed.routes).filter(|(edge, route)| edge.0 == from && route.len() >= steps);
    let passing = longer.map(|(_, route)| route).next().filter(|_| steps > 0);
    passing.map_or(placed.nodes[from].1, |route| route[steps - 1].2)
}

/// The band of each layer: bands of about equal width, broken where few edges pass.
fn bands(placed: &Placed, edges: &[(usize, usize)], limit: f64, label: &dyn Fn(usize) -> f64) -> Vec<usize> {
    let depth = placed.columns.len();
    if depth == 0 || placed.size.0 <= limit {
        return vec![0; depth];
    }
    let ends = |layer: usize| {
        let from = if layer == 0 || layer == depth { Vec::new() } else { crossing(placed, edges, layer) };
        let room = if from.is_empty() { 0.0 } else { from.iter().map(|&v| label(v)).fold(0.0, f64::max) + STUB };
        (room, from.len() as f64)
    };
    // best[i]: the least cost of folding the layers before i, and where its last band begins
    let mut best = vec![(0.0, 0)];
    for end in 1..=depth {
        let cost = |start: usize| {
            let (column, width) = placed.columns[end - 1];
            let wide = column + width - placed.columns[start].0 + ends(start).0 + ends(end).0;
            // a band too wide is only taken if a single layer is
            let over = if wide > limit { 1e3 * wide / limit } else { 0.0 };
            best[start].0 + (wide / limit).powi(2) + 1.0 + BROKEN * ends(start).1 + over
        };
        let choices = (0..end).map(|start| (cost(start), start));
        best.push(choices.min_by(|a, b| a.0.total_cmp(&b.0)).expect("there is at least one"));
    }
    let mut starts = Vec::new();
    let mut at = depth;
    while at > 0 {
        at = best[at].1;
        starts.push(at);
    }
    (0..depth).map(|layer| starts.iter().filter(|&&start| start <= layer).count() - 1).collect()
}

#[cfg(test)]
mod tests {
    use super::super::layers::{Graph, place};
    use super::*;

    #[test]
    fn a_long_chain_is_folded_and_its_edges_go_on_below() {
        let mut edges: Vec<(usize, usize)> = (0..14).map(|i| (i, i + 1)).collect();
        edges.push((2, 13));
        let widths = vec![100.0; 15];
        let placed = place(&Graph { widths: widths.clone(), edges: edges.clone() });
        let folded = fold(&placed, &widths, &edges, 1000.0, &|_| 40.0);
        assert!(folded.size.0 <= 1000.0, "{:?}", folded.size);
        for (i, a) in folded.nodes.iter().enumerate() {
            assert!(a.0 >= 0.0 && a.0 + 100.0 <= folded.size.0 && a.1 <= folded.size.1);
            let apart = |b: &(f64, f64)| (a.0 - b.0).abs() >= 100.0 || (a.1 - b.1).abs() >= 40.0;
            assert!(folded.nodes[i + 1..].iter().all(apart));
        }
        // each edge begins at its node's right side and ends at the other's left, however often it is broken
        for (&(from, to), pieces) in edges.iter().zip(&folded.edges) {
            let (start, end) = (pieces[0][0], *pieces.last().unwrap().last().unwrap());
            assert_eq!((start.0, start.1), (folded.nodes[from].0 + 100.0, folded.nodes[from].1));
            assert_eq!(end, folded.nodes[to]);
        }
        let broken: usize = folded.edges.iter().map(|pieces| pieces.len() - 1).sum();
        assert_eq!(folded.breaks.len(), 2 * broken, "no two edges share a name here: {:?}", folded.breaks);
        assert!(broken >= 2);
    }

    #[test]
    fn what_fits_stays_as_it_is() {
        let edges = [(0, 1)];
        let widths = [100.0; 2];
        let placed = place(&Graph { widths: widths.to_vec(), edges: edges.to_vec() });
        let folded = fold(&placed, &widths, &edges, 1000.0, &|_| 40.0);
        assert!(folded.breaks.is_empty() && folded.edges[0].len() == 1);
        assert_eq!(folded.nodes[1].0, placed.nodes[1].0);
    }
}
