//! Places the nodes of a directed graph in layers from left to right: pure numbers, no drawing.
//!
//! The classic four steps (Sugiyama, Tagawa, Toda 1981): layers by longest path, invisible nodes where an edge crosses
//! a layer, an order within layers with few crossings, and coordinates that make edges straight. Edges from one node
//! share their invisible nodes, so that a fan of edges runs as one until it must part. Deterministic.

/// A graph to be placed.
pub(super) struct Graph {
    /// Width of each node, px.
    pub widths: Vec<f64>,
    /// Edges, from and to, by index; the graph has no cycles.
    pub edges: Vec<(usize, usize)>,
}

/// Where things are, px; the origin is the upper left corner.
#[derive(Debug)]
pub(super) struct Placed {
    /// Left end and middle height of each node.
    pub nodes: Vec<(f64, f64)>,
    /// For each edge the stations it passes between its ends: left end, right end and height of each.
    pub routes: Vec<Vec<(f64, f64, f64)>>,
    /// The layer of each node.
    pub rank: Vec<usize>,
    /// Left end and width of each layer.
    pub columns: Vec<(f64, f64)>,
    /// Width and height of it all.
    pub size: (f64, f64),
}

/// Height of a node, px.
pub(super) const NODE: f64 = 40.0;
/// Free height between nodes, px.
const GAP: f64 = 18.0;
/// Free height around an edge that passes a layer, px.
const PASS: f64 = 20.0;
/// Free width between layers, px.
const CHANNEL: f64 = 42.0;
/// Sweeps over all layers; orders and heights settle long before.
const SWEEPS: usize = 24;

/// A node of the layered graph: a real one, or the passage of a node's edges through a layer.
struct Vertex {
    real: Option<usize>,
    left: Vec<usize>,
    right: Vec<usize>,
}

/// Places a graph.
pub(super) fn place(graph: &Graph) -> Placed {
    let n = graph.widths.len();
    let rank = ranks(n, &graph.edges);
    let depth = rank.iter().max().map_or(0, |max| max + 1);
    let mut vertices: Vec<Vertex> =
        (0..n).map(|v| Vertex { real: Some(v), left: Vec::new(), right: Vec::new() }).collect();
    let mut layers: Vec<Vec<usize>> = vec![Vec::new(); depth];
    (0..n).for_each(|v| layers[rank[v]].push(v));

    let mut passages = std::collections::BTreeMap::new();
    let mut paths = Vec::new();
    for &(from, to) in &graph.edges {
        let mut at = from;
        let mut path = Vec::new();
        for layer in rank[from] + 1..rank[to] {
            let next = *passages.entry((from, layer)).or_insert_with(|| {
                vertices.push(Vertex { real: None, left: Vec::new(), right: Vec::new() });
                layers[layer].push(vertices.len() - 1);
                vertices.len() - 1
            });
            link(&mut vertices, at, next);
            path.push(next);
            at = next;
        }
        link(&mut vertices, at, to);
        paths.push(path);
    }

    order(&mut layers, &vertices);
    let y = heights(&layers, &vertices);

    let mut columns = Vec::new();
    let mut x = 0.0;
    for layer in &layers {
        let width = layer.iter().filter_map(|&v| vertices[v].real).map(|v| graph.widths[v]).fold(0.0, f64::max);
        columns.push((x, width));
        x += width + CHANNEL;
    }
    let middle = |v: usize| {
        let (left, width) = columns[rank[v]];
        (left + (width - graph.widths[v]) / 2.0, y[v])
    };
    let nodes = (0..n).map(middle).collect();
    let route = |(&(from, _), path): (&(usize, usize), &Vec<usize>)| {
        let station = |(i, &v): (usize, &usize)| {
            let (left, width) = columns[rank[from] + 1 + i];
            (left, left + width, y[v])
        };
        path.iter().enumerate().map(station).collect()
    };
    let routes = graph.edges.iter().zip(&paths).map(route).collect();
    let height = (0..vertices.len()).map(|v| y[v] + half(&vertices[v])).fold(0.0, f64::max);
    Placed { nodes, routes, size: ((x - CHANNEL).max(0.0), height), rank, columns }
}

fn link(vertices: &mut [Vertex], from: usize, to: usize) {
    if !vertices[from].right.contains(&to) {
        vertices[from].right.push(to);
        vertices[to].left.push(from);
    }
}

fn half(vertex: &Vertex) -> f64 {
    if vertex.real.is_some() { (NODE + GAP) / 2.0 } else { PASS / 2.0 }
}

/// Layers by longest path from the left; what has slack moves right, towards those that use it.
fn ranks(n: usize, edges: &[(usize, usize)]) -> Vec<usize> {
    let mut rank = vec![0; n];
    // as many rounds as the longest path has edges: n is enough
    for _ in 0..n {
        let before = rank.clone();
        edges.iter().for_each(|&(a, b)| rank[b] = rank[b].max(rank[a] + 1));
        if rank == before {
            break;
        }
    }
    let mut by_rank: Vec<usize> = (0..n).collect();
    by_rank.sort_by_key(|&v| std::cmp::Reverse(rank[v]));
    for v in by_rank {
        let out = edges.iter().filter(|edge| edge.0 == v);
        let (outs, ins) = (out.clone().count(), edges.iter().filter(|edge| edge.1 == v).count());
        if let Some(nearest) = out.map(|edge| rank[edge.1]).min().filter(|_| outs >= ins) {
            rank[v] = nearest - 1;
        }
    }
    let least = rank.iter().min().copied().unwrap_or(0);
    rank.iter().map(|r| r - least).collect()
}

/// Orders each layer by the mean place of its neighbours, back and forth; keeps the order with the fewest crossings.
fn order(layers: &mut Vec<Vec<usize>>, vertices: &[Vertex]) {
    let mut best = layers.clone();
    let mut fewest = crossings(&best, vertices);
    for sweep in 0..SWEEPS {
        let rightwards = sweep % 2 == 0;
        let depth = layers.len();
        for step in 1..depth {
            let here = if rightwards { step } else { depth - 1 - step };
            let there = if rightwards { here - 1 } else { here + 1 };
            let place = places(&layers[there], vertices.len());
            let mut keyed: Vec<(f64, usize)> = layers[here]
                .iter()
                .enumerate()
                .map(|(i, &v)| {
                    let near = if rightwards { &vertices[v].left } else { &vertices[v].right };
                    // what has no neighbour there keeps its relative place
                    let alone = i as f64 / layers[here].len() as f64 * layers[there].len() as f64;
                    let sum: f64 = near.iter().map(|&u| place[u] as f64).sum();
                    (if near.is_empty() { alone } else { sum / near.len() as f64 }, v)
                })
                .collect();
            keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
            layers[here] = keyed.into_iter().map(|(_, v)| v).collect();
        }
        swap_neighbours(layers, vertices);
        let now = crossings(layers, vertices);
        if now < fewest {
            fewest = now;
            best.clone_from(layers);
        }
    }
    *layers = best;
}

/// Swaps neighbours in a layer as long as that removes crossings.
fn swap_neighbours(layers: &mut [Vec<usize>], vertices: &[Vertex]) {
    for _ in 0..SWEEPS {
        let mut better = false;
        for l in 0..layers.len() {
            let left = if l > 0 { places(&layers[l - 1], vertices.len()) } else { Vec::new() };
            let right = if l + 1 < layers.len() { places(&layers[l + 1], vertices.len()) } else { Vec::new() };
            let inversions = |a: usize, b: usize| {
                let count = |near: fn(&Vertex) -> &Vec<usize>, place: &[usize]| {
                    let (of_a, of_b) = (near(&vertices[a]), near(&vertices[b]));
                    of_a.iter().map(|&x| of_b.iter().filter(|&&y| place[x] > place[y]).count()).sum::<usize>()
                };
                count(|v| &v.left, &left) + count(|v| &v.right, &right)
            };
            for i in 1..layers[l].len() {
                let (a, b) = (layers[l][i - 1], layers[l][i]);
                if inversions(a, b) > inversions(b, a) {
                    layers[l].swap(i - 1, i);
                    better = true;
                }
            }
        }
        if !better {
            return;
        }
    }
}

fn places(layer: &[usize], vertices: usize) -> Vec<usize> {
    let mut place = vec![0; vertices];
    layer.iter().enumerate().for_each(|(i, &v)| place[v] = i);
    place
}

/// How often edges cross, over all neighbouring layers.
fn crossings(layers: &[Vec<usize>], vertices: &[Vertex]) -> usize {
    let mut count = 0;
    for pair in layers.windows(2) {
        let place = places(&pair[1], vertices.len());
        let ends: Vec<Vec<usize>> =
            pair[0].iter().map(|&v| vertices[v].right.iter().map(|&u| place[u]).collect()).collect();
        for (i, upper) in ends.iter().enumerate() {
            for lower in &ends[i + 1..] {
                count += upper.iter().map(|a| lower.iter().filter(|b| a > b).count()).sum::<usize>();
            }
        }
    }
    count
}

/// Heights: each vertex wants to be level with its neighbours; within a layer the order and the distances hold.
fn heights(layers: &[Vec<usize>], vertices: &[Vertex]) -> Vec<f64> {
    let mut y = vec![0.0; vertices.len()];
    for layer in layers {
        let mut at = 0.0;
        for &v in layer {
            y[v] = at + half(&vertices[v]);
            at += 2.0 * half(&vertices[v]);
        }
    }
    for sweep in 0..2 * SWEEPS {
        let depth = layers.len();
        for step in 0..depth {
            let layer = &layers[if sweep % 2 == 0 { step } else { depth - 1 - step }];
            let wish = |&v: &usize| {
                let vertex = &vertices[v];
                let (mut sum, mut weight) = (0.0, 0.0);
                for &u in vertex.left.iter().chain(&vertex.right) {
                    // long edges are kept straight before all else
                    let w = if vertex.real.is_none() && vertices[u].real.is_none() { 8.0 } else { 1.0 };
                    sum += w * y[u];
                    weight += w;
                }
                if weight > 0.0 { (sum / weight, weight) } else { (y[v], 0.1) }
            };
            let wishes: Vec<(f64, f64)> = layer.iter().map(wish).collect();
            let halves: Vec<f64> = layer.iter().map(|&v| half(&vertices[v])).collect();
            layer.iter().zip(apart(&wishes, &halves)).for_each(|(&v, height)| y[v] = height);
        }
    }
    let top = (0..vertices.len()).map(|v| y[v] - half(&vertices[v])).fold(f64::INFINITY, f64::min);
    y.iter().map(|y| y - top).collect()
}

/// The heights nearest to the wishes (least squares, wish and weight) that keep neighbours apart by their half heights:
/// isotonic regression by pooling adjacent violators, exact.
fn apart(wishes: &[(f64, f64)], halves: &[f64]) -> Vec<f64> {
    let mut offsets = vec![0.0];
    halves.windows(2).for_each(|pair| offsets.push(offsets[offsets.len() - 1] + pair[0] + pair[1]));
    let mut pools: Vec<(f64, f64, usize)> = Vec::new();
    for (&(wish, weight), offset) in wishes.iter().zip(&offsets) {
        let mut pool = (wish - offset, weight, 1);
        while let Some(&above) = pools.last().filter(|above| above.0 > pool.0) {
            let weight = above.1 + pool.1;
            pool = ((above.0 * above.1 + pool.0 * pool.1) / weight, weight, above.2 + pool.2);
            pools.pop();
        }
        pools.push(pool);
    }
    let levels = pools.iter().flat_map(|&(level, _, count)| std::iter::repeat_n(level, count));
    levels.zip(&offsets).map(|(level, offset)| level + offset).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(n: usize, edges: &[(usize, usize)]) -> Placed {
        place(&Graph { widths: vec![100.0; n], edges: edges.to_vec() })
    }

    #[test]
    fn a_chain_is_straight_and_a_diamond_is_even() {
        let chain = placed(4, &[(0, 1), (1, 2), (2, 3), (0, 3)]);
        assert!(chain.nodes.windows(2).all(|pair| pair[0].0 + 100.0 < pair[1].0), "{chain:?}");
        assert_eq!(chain.routes[3].len(), 2, "the long edge passes two layers");
        let diamond = placed(4, &[(0, 1), (0, 2), (1, 3), (2, 3)]);
        assert!((diamond.nodes[0].1 - diamond.nodes[3].1).abs() < 1e-6);
        assert!((diamond.nodes[2].1 - diamond.nodes[1].1).abs() >= NODE);
    }

    #[test]
    fn nothing_overlaps_and_everything_is_inside() {
        // a fixed tangle: each node leads to some of the next seven
        let edges: Vec<(usize, usize)> = (0..40usize)
            .flat_map(|a| (a + 1..(a + 8).min(40)).map(move |b| (a, b)))
            .filter(|(a, b)| (a * 7 + b * 13) % 5 < 2)
            .collect();
        let tangle = placed(40, &edges);
        for (i, a) in tangle.nodes.iter().enumerate() {
            assert!(a.0 >= 0.0 && a.0 + 100.0 <= tangle.size.0 + 1e-6);
            assert!(a.1 >= NODE / 2.0 && a.1 + NODE / 2.0 <= tangle.size.1);
            for b in &tangle.nodes[i + 1..] {
                assert!((a.0 - b.0).abs() >= 100.0 || (a.1 - b.1).abs() >= NODE, "{a:?} {b:?}");
            }
        }
        assert!(edges.iter().all(|&(a, b)| tangle.nodes[a].0 < tangle.nodes[b].0), "edges lead to the right");
    }

    #[test]
    fn crossings_that_need_not_be_are_not() {
        // two chains given crosswise
        let edges = [(0, 3), (1, 2), (3, 4), (2, 5)];
        let two = placed(6, &edges);
        let above = |a: usize, b: usize| two.nodes[a].1 < two.nodes[b].1;
        assert_eq!(above(0, 1), above(3, 2));
        assert_eq!(above(3, 2), above(4, 5));
    }

    #[test]
    fn late_sources_stand_beside_their_use() {
        let rank = ranks(5, &[(0, 1), (1, 2), (2, 3), (4, 3)]);
        assert_eq!(rank, [0, 1, 2, 3, 2]);
        assert_eq!(placed(0, &[]).size, (0.0, 0.0));
    }
}
