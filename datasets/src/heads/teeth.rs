//! Rounded teeth along the bands of the assets.
//!
//! The asset mesh has only a ribbon of 16 x 3 quads for each arch: front gum line, front middle, cutting edge, back.
//! Here fourteen teeth of human proportions are set along it. Each tooth vertex is a fixed combination of ribbon
//! vertices plus an offset along the ribbon's outward normal, so teeth follow every identity and every jaw movement.

use glam::Vec3;

use super::wheel::HeadError;
use super::{HeadAssets, Part};

const COLUMNS: usize = 17;
/// Crown widths from the midline outwards, millimetres: incisors, canine, premolars, molars.
const UPPER_WIDTHS: [f32; 7] = [8.6, 6.8, 7.6, 7.0, 6.8, 9.5, 9.0];
const LOWER_WIDTHS: [f32; 7] = [5.5, 6.0, 7.0, 7.1, 7.3, 10.0, 9.6];
/// Crown heights, millimetres.
const UPPER_HEIGHTS: [f32; 7] = [10.2, 9.2, 10.2, 8.4, 7.8, 7.2, 6.8];
const LOWER_HEIGHTS: [f32; 7] = [8.6, 8.8, 9.6, 8.2, 7.6, 7.0, 6.6];
/// Across a tooth: position in [-1, 1] and how far that column is set back, in millimetres.
const ACROSS: [(f32, f32); 7] =
    [(-1.0, -1.6), (-0.93, -0.35), (-0.6, 0.25), (0.0, 0.45), (0.6, 0.25), (0.93, -0.35), (1.0, -1.6)];
/// Down a tooth: fraction of the crown height from gum to edge, and the set-back; the last rows turn over the edge.
const DOWN: [(f32, f32); 7] =
    [(-0.15, -1.3), (0.0, -0.1), (0.3, 0.45), (0.65, 0.25), (0.93, -0.35), (1.0, -1.0), (0.8, -3.2)];

/// The ribbon of one arch as a grid of cage vertices.
struct Ribbon {
    /// `[column][row]`, columns from the subject's right to left; rows: gum, middle, edge, back.
    grid: [[u32; 4]; COLUMNS],
}

/// How one tooth vertex follows the ribbon.
#[derive(Clone, Debug)]
struct Bond {
    arch: usize,
    columns: [usize; 4],
    weight: [f32; 4],
    slope: [f32; 4],
    /// Millimetres up (towards the gum) from the cutting edge.
    height: f32,
    /// Millimetres outwards.
    offset: f32,
}

/// The teeth of both arches, bound to the cage.
pub struct Teeth {
    ribbons: [Ribbon; 2],
    bonds: Vec<Bond>,
    /// Triangles over the tooth vertices.
    pub triangles: Vec<[u32; 3]>,
    /// For each vertex, 0 at the gum to 1 at the cutting edge.
    pub along: Vec<f32>,
    /// For each vertex, how far back in the mouth its tooth stands: 0 middle incisors to 1 last molars.
    pub depth: Vec<f32>,
}

impl Teeth {
    /// Finds the ribbons in the assets and binds teeth to them. Spacing is that of the base mesh.
    pub fn new(assets: &HeadAssets) -> Result<Self, HeadError> {
        let ribbons = [ribbon(assets, Part::TeethUpper)?, ribbon(assets, Part::TeethLower)?];
        let mut teeth =
            Self { ribbons, bonds: Vec::new(), triangles: Vec::new(), along: Vec::new(), depth: Vec::new() };
        for arch in 0..2 {
            let (widths, heights) = [(UPPER_WIDTHS, UPPER_HEIGHTS), (LOWER_WIDTHS, LOWER_HEIGHTS)][arch];
            let line: Vec<Vec3> = teeth.ribbons[arch].grid.iter().map(|c| assets.cage[c[2] as usize]).collect();
            // Arc length, in millimetres, from the midline to both ends.
            let mut arc = [0.0f32; COLUMNS];
            for c in 1..COLUMNS {
                arc[c] = arc[c - 1] + 100.0 * line[c].distance(line[c - 1]);
            }
            let middle = arc[COLUMNS / 2];
            let room = (middle.min(arc[COLUMNS - 1] - middle)) / widths.iter().sum::<f32>();
            for side in [-1.0, 1.0] {
                let mut at = 0.0;
                for tooth in 0..7 {
                    let width = widths[tooth] * room.min(1.06);
                    teeth.add_tooth(arch, &arc, middle + side * (at + 0.5 * width), width, heights[tooth], tooth);
                    at += width;
                }
            }
        }
        Ok(teeth)
    }

    fn add_tooth(&mut self, arch: usize, arc: &[f32; COLUMNS], centre: f32, width: f32, height: f32, tooth: usize) {
        let first = self.bonds.len() as u32;
        let flip = arch == 0;
        for (a, set_back) in ACROSS {
            let x = centre + 0.485 * width * a;
            let column = arc.iter().rposition(|s| *s <= x).unwrap_or(0).min(COLUMNS - 2);
            let t = (x - arc[column]) / (arc[column + 1] - arc[column]);
            let (weight, slope) = catmull_rom(t);
            let columns = [column.saturating_sub(1), column, column + 1, (column + 2).min(COLUMNS - 1)];
            for (down, back) in DOWN {
                // Round the corners of the edge, and narrow the crown towards the gum by a higher gum line at its
                // sides.
                let round =
                    0.10 * a.powi(4) * down.clamp(0.0, 1.0).powi(3) + if tooth == 2 { 0.12 * a * a } else { 0.0 };
                let arched = 0.12 * a * a * (1.0 - down.clamp(0.0, 1.0));
                self.bonds.push(Bond {
                    arch,
                    columns,
                    weight,
                    slope,
                    height: height * (1.0 - (down + arched - round)),
                    offset: set_back + back + if tooth > 3 { 0.4 } else { 0.0 },
                });
                self.along.push(down.clamp(0.0, 1.0));
                self.depth.push(tooth as f32 / 6.0);
            }
        }
        let rows = DOWN.len() as u32;
        for c in 0..ACROSS.len() as u32 - 1 {
            for r in 0..rows - 1 {
                let v = first + c * rows + r;
                let quad = [v, v + 1, v + rows + 1, v + rows];
                let quad = if flip { quad } else { [quad[3], quad[2], quad[1], quad[0]] };
                self.triangles.push([quad[0], quad[1], quad[2]]);
                self.triangles.push([quad[0], quad[2], quad[3]]);
            }
        }
    }

    /// Number of tooth vertices.
    pub fn len(&self) -> usize {
        self.bonds.len()
    }

    /// Whether there are no teeth.
    pub fn is_empty(&self) -> bool {
        self.bonds.is_empty()
    }

    /// Tooth vertices, asset units, for a cage in any shape.
    pub fn positions(&self, cage: &[Vec3]) -> Vec<Vec3> {
        self.bonds
            .iter()
            .map(|bond| {
                let grid = &self.ribbons[bond.arch].grid;
                let mix = |row: usize, w: &[f32; 4]| {
                    (0..4).fold(Vec3::ZERO, |sum, k| sum + cage[grid[bond.columns[k]][row] as usize] * w[k])
                };
                let (gum, edge) = (mix(0, &bond.weight), mix(2, &bond.weight));
                let tangent = mix(2, &bond.slope).normalize_or_zero();
                let up = (gum - edge).normalize_or_zero();
                let mut outwards = tangent.cross(up).normalize_or_zero();
                if bond.arch == 1 {
                    outwards = -outwards;
                }
                edge + up * (0.01 * bond.height) + outwards * (0.01 * bond.offset)
            })
            .collect()
    }

    /// Draws the ribbons in behind the crowns, so that only gums remain of them.
    pub fn recede_ribbons(&self, cage: &mut [Vec3]) {
        for ribbon in &self.ribbons {
            for column in &ribbon.grid {
                let [gum, middle, edge, back] = column.map(|v| cage[v as usize]);
                let inwards = (back - middle) * 0.25;
                cage[column[2] as usize] = middle.lerp(edge, 0.15) + inwards;
                cage[column[1] as usize] = gum.lerp(middle, 0.75) + inwards * 0.35;
                cage[column[3] as usize] = back.lerp(gum, 0.3);
            }
        }
    }
}

/// Weights of four neighbouring columns and their derivative at `t` between the middle two.
fn catmull_rom(t: f32) -> ([f32; 4], [f32; 4]) {
    let (t2, t3) = (t * t, t * t * t);
    let weight = [
        0.5 * (-t3 + 2.0 * t2 - t),
        0.5 * (3.0 * t3 - 5.0 * t2 + 2.0),
        0.5 * (-3.0 * t3 + 4.0 * t2 + t),
        0.5 * (t3 - t2),
    ];
    let slope = [
        0.5 * (-3.0 * t2 + 4.0 * t - 1.0),
        0.5 * (9.0 * t2 - 10.0 * t),
        0.5 * (-9.0 * t2 + 8.0 * t + 1.0),
        0.5 * (3.0 * t2 - 2.0 * t),
    ];
    (weight, slope)
}

/// Orders the vertices of one band: walks across it from a corner.
fn ribbon(assets: &HeadAssets, part: Part) -> Result<Ribbon, HeadError> {
    let broken = |found: String| HeadError::Broken {
        entry: "base.obj".to_owned(),
        line: 0,
        found,
        expected: "a teeth band of 16 x 3 quads in a grid",
    };
    let quads: Vec<[u32; 4]> =
        assets.quads.iter().zip(&assets.parts).filter(|(_, p)| **p == part).map(|(q, _)| *q).collect();
    let uses = |v: u32| quads.iter().filter(|q| q.contains(&v)).count();
    // The lines across the band: from a front corner's neighbours, quad by quad along the band.
    let corner = quads
        .iter()
        .flatten()
        .copied()
        .filter(|v| uses(*v) == 1)
        .filter(|v| assets.cage[*v as usize].x < 0.0)
        .max_by(|a, b| assets.cage[*a as usize].x.abs().total_cmp(&assets.cage[*b as usize].x.abs()))
        .ok_or_else(|| broken(format!("{} quads without a corner in {part:?}", quads.len())))?;
    let edge_mates = |a: u32, b: u32| quads.iter().filter(move |q| q.contains(&a) && q.contains(&b));
    // First line: corner, then the rim vertices that share an edge and stay within 4.
    let next_to = |v: u32| -> Vec<u32> {
        let mut all: Vec<u32> = quads
            .iter()
            .filter(|q| q.contains(&v))
            .flat_map(|q| {
                let k = q.iter().position(|c| *c == v).expect("the quad contains it");
                [q[(k + 1) % 4], q[(k + 3) % 4]]
            })
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    };
    // Of the two ways out of the corner, the one that meets another corner after three edges runs across the band.
    let mut across = None;
    for start in next_to(corner) {
        let mut line = vec![corner, start];
        while line.len() < 4 {
            let (before, at) = (line[line.len() - 2], line[line.len() - 1]);
            let Some(next) = next_to(at).into_iter().find(|n| *n != before && edge_mates(at, *n).count() == 1) else {
                break;
            };
            line.push(next);
        }
        if line.len() == 4 && uses(line[3]) == 1 {
            across = Some([line[0], line[1], line[2], line[3]]);
        }
    }
    let mut grid = [across.ok_or_else(|| broken(format!("{} quads", quads.len())))?; COLUMNS];
    for c in 1..COLUMNS {
        let last = grid[c - 1];
        for row in 0..3 {
            let (a, b) = (last[row], last[row + 1]);
            let seen = |q: &[u32; 4]| c >= 2 && q.contains(&grid[c - 2][row]) && q.contains(&grid[c - 2][row + 1]);
            let quad = edge_mates(a, b).find(|q| !seen(q)).ok_or_else(|| broken(format!("{c} columns")))?;
            let k = quad.iter().position(|v| *v == a).expect("the quad contains it");
            let (next_a, next_b) = if quad[(k + 1) % 4] == b {
                (quad[(k + 3) % 4], quad[(k + 2) % 4])
            } else {
                (quad[(k + 1) % 4], quad[(k + 2) % 4])
            };
            grid[c][row] = next_a;
            grid[c][row + 1] = next_b;
        }
    }
    Ok(Ribbon { grid })
}
