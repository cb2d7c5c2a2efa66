//! Hair as thin polylines: what grows where, and how it moves with the head.
//!
//! Scalp hair is grown once for each person in the neutral pose ([`styles`]) and moves rigidly with the head. Brows,
//! beard and lashes are bound to the skin and follow every expression. Light inside the hair is in [`shade`]. Knows no
//! cameras.

use glam::{Mat3, Mat4, Vec3};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::identity::{HairStyle, Identity};
use super::light::{Environment, Lighting, ShadowMap};
use super::noise::lerp;
use super::pose::Head;
use super::{HeadAssets, Part, lids, regions};

pub mod shade;
pub mod shell;
pub mod styles;

use shade::HairShade;

/// Polylines of varying length.
#[derive(Clone, Debug, Default)]
pub struct Strands {
    /// All points, metres.
    pub points: Vec<Vec3>,
    /// Strand `i` owns `points[starts[i]..starts[i + 1]]`.
    pub starts: Vec<u32>,
    /// Reflectance of each strand, linear RGB.
    pub colour: Vec<Vec3>,
    /// Width at the root, metres.
    pub width: Vec<f32>,
}

impl Strands {
    /// No strands.
    pub fn new() -> Self {
        Self { starts: vec![0], ..Self::default() }
    }

    /// Number of strands.
    pub fn len(&self) -> usize {
        self.colour.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.colour.is_empty()
    }

    /// Appends a strand.
    pub fn push(&mut self, points: impl IntoIterator<Item = Vec3>, colour: Vec3, width: f32) {
        self.points.extend(points);
        self.starts.push(self.points.len() as u32);
        self.colour.push(colour);
        self.width.push(width);
    }
}

/// A short hair on moving skin.
struct SkinHair {
    /// Fine vertices of the triangle it stands on.
    triangle: [u32; 3],
    bary: [f32; 3],
    /// Points after the root, metres, in the frame (first edge, normal x edge, normal) of the triangle.
    points: [Vec3; 3],
    colour: Vec3,
    width: f32,
}

/// All hair of a person.
pub struct Groom {
    /// Hair on the scalp, neutral pose, world metres.
    pub scalp: Strands,
    skin: Vec<SkinHair>,
    density: shade::Density,
}

/// All strands as drawn, with the light on them.
pub struct PosedStrands {
    /// World metres.
    pub strands: Strands,
    /// Number of leading strands that are scalp hair.
    pub scalp: usize,
    /// Per point: light from all around, and the share of each soft box that gets through.
    pub light: Vec<(Vec3, [f32; 4])>,
    /// How much light the scalp hair lets through.
    pub shade: HairShade,
    /// For each strand after the scalp hair, the drawn vertex whose light it shares.
    rooted_at: Vec<u32>,
}

/// A random point on the body, and what is needed to grow a hair there.
pub(crate) struct Root {
    pub(crate) triangle: [u32; 3],
    pub(crate) bary: [f32; 3],
    /// Neutral position, world metres.
    pub(crate) position: Vec3,
    /// Neutral outward normal.
    pub(crate) normal: Vec3,
    /// Template position, asset units.
    pub(crate) template: Vec3,
    /// Density of growth there.
    pub(crate) density: f32,
}

/// Draws points on the body with the given density over fine vertices; at most `count`, fewer where density is low.
fn scatter_roots(
    assets: &HeadAssets,
    neutral: &[Vec3],
    normals: &[Vec3],
    density: &dyn Fn(usize) -> f32,
    per_square_metre: f32,
    rng: &mut ChaCha8Rng,
) -> Vec<Root> {
    let mut roots = Vec::new();
    let mut owed = 0.0;
    for triangle in &assets.triangles[assets.triangles_of(Part::Body)] {
        let v = triangle.map(|v| v as usize);
        let d = v.map(density);
        let most = d[0].max(d[1]).max(d[2]);
        if most <= 0.0 {
            continue;
        }
        let area = 0.5 * (neutral[v[1]] - neutral[v[0]]).cross(neutral[v[2]] - neutral[v[0]]).length();
        owed += area * per_square_metre * most;
        while owed >= 1.0 {
            owed -= 1.0;
            let (mut a, mut b): (f32, f32) = (rng.random(), rng.random());
            if a + b > 1.0 {
                (a, b) = (1.0 - a, 1.0 - b);
            }
            let bary = [1.0 - a - b, a, b];
            let mix = |values: &[Vec3]| values[v[0]] * bary[0] + values[v[1]] * bary[1] + values[v[2]] * bary[2];
            let here = d[0] * bary[0] + d[1] * bary[1] + d[2] * bary[2];
            if rng.random::<f32>() * most > here {
                continue;
            }
            roots.push(Root {
                triangle: *triangle,
                bary,
                position: mix(neutral),
                normal: mix(normals).normalize_or_zero(),
                template: mix(&assets.template),
                density: here,
            });
        }
    }
    roots
}

/// Axes of a triangle: first edge, the one across it, and the normal.
fn frame(corner: [Vec3; 3]) -> Mat3 {
    let along = (corner[1] - corner[0]).normalize_or_zero();
    let normal = along.cross(corner[2] - corner[0]).normalize_or_zero();
    Mat3::from_cols(along, normal.cross(along), normal)
}

/// The colour of one strand.
pub(crate) fn strand_colour(id: &Identity, rng: &mut ChaCha8Rng) -> Vec3 {
    let vary = 0.72 + 0.56 * rng.random::<f32>();
    if rng.random::<f32>() < id.grey {
        return id.hair_colour.lerp(Vec3::new(0.40, 0.39, 0.38), 0.55 + 0.35 * id.grey) * vary;
    }
    let warm = 0.12 * (rng.random::<f32>() - 0.5);
    id.hair_colour * vary * Vec3::new(1.0 + warm, 1.0, 1.0 - warm)
}

impl Groom {
    /// Grows all hair of a person. `scalp` and `beard` are densities at the fine vertices.
    pub fn grow(assets: &HeadAssets, id: &Identity, neutral: &[Vec3], scalp: &[f32], beard: &[f32]) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(id.seed ^ 0x4a17);
        let body = &assets.triangles[assets.triangles_of(Part::Body)];
        let mesh = geometry::Mesh { positions: neutral.to_vec(), faces: body.to_vec() };
        let normals = mesh.vertex_normals();
        // Long hair covers the ears, short hair passes behind them.
        let over_ears = matches!(id.hair, HairStyle::Bob | HairStyle::Wavy);
        let skull: Vec<[u32; 3]> = body
            .iter()
            .copied()
            .filter(|tri| {
                tri.iter()
                    .all(|v| neutral[*v as usize].y > -0.125 && (over_ears || assets.regions.ears[*v as usize] < 0.4))
            })
            .collect();
        let shell = shell::Shell::new(neutral, &skull);
        let roots = scatter_roots(assets, neutral, &normals, &|v| scalp[v], styles::roots_per_area(id), &mut rng);
        let scalp = styles::grow(id, &shell, &roots, &mut rng);
        let density = shade::Density::new(&scalp);
        let mut groom = Self { scalp, skin: Vec::new(), density };
        groom.grow_brows(assets, id, neutral, &normals, &mut rng);
        groom.grow_beard(assets, id, neutral, &normals, beard, &mut rng);
        groom.plant_lashes(assets, id, neutral, &mut rng);
        groom
    }

    /// Adds a hair that leaves the skin in direction `way` and bends by `bend`.
    fn add_skin_hair(
        &mut self,
        neutral: &[Vec3],
        root: &Root,
        way: Vec3,
        bend: Vec3,
        length: f32,
        colour: Vec3,
        width: f32,
    ) {
        let axes = frame(root.triangle.map(|v| neutral[v as usize])).transpose();
        let (mut point, mut direction) = (Vec3::ZERO, way.normalize_or_zero());
        let points = std::array::from_fn(|_| {
            point += direction * (length / 3.0);
            direction = (direction + bend).normalize_or_zero();
            axes * point
        });
        self.skin.push(SkinHair { triangle: root.triangle, bary: root.bary, points, colour, width });
    }

    fn grow_brows(
        &mut self,
        assets: &HeadAssets,
        id: &Identity,
        neutral: &[Vec3],
        normals: &[Vec3],
        rng: &mut ChaCha8Rng,
    ) {
        let density = |v: usize| regions::brow(assets.template[v], id.brow).0;
        let dark = id.hair_colour * (0.75_f32).min(0.13 / id.hair_colour.max_element());
        for root in scatter_roots(assets, neutral, normals, &density, 2.0e6, rng) {
            let (_, way) = regions::brow(root.template, id.brow);
            let lean = Vec3::new(rng.random::<f32>() - 0.5, rng.random::<f32>() - 0.5, rng.random::<f32>() - 0.5) * 0.5;
            let n = root.normal;
            let way = (way + lean - n * way.dot(n)).normalize_or_zero() + n * 0.28;
            let length = 0.0048 + 0.0026 * rng.random::<f32>();
            let colour =
                dark.lerp(Vec3::splat(0.3), 0.6 * id.grey * rng.random::<f32>()) * (0.7 + 0.6 * rng.random::<f32>());
            self.add_skin_hair(neutral, &root, way, -n * 0.16, length, colour, 0.00016);
        }
    }

    fn grow_beard(
        &mut self,
        assets: &HeadAssets,
        id: &Identity,
        neutral: &[Vec3],
        normals: &[Vec3],
        beard: &[f32],
        rng: &mut ChaCha8Rng,
    ) {
        if id.beard <= 0.0 {
            return;
        }
        let per_area = 1.1e6 * id.beard;
        for root in scatter_roots(assets, neutral, normals, &|v| beard[v], per_area, rng) {
            let n = root.normal;
            let lean = Vec3::new(rng.random::<f32>() - 0.5, rng.random::<f32>() - 0.5, rng.random::<f32>() - 0.5) * 0.9;
            let down = Vec3::new(0.35 * root.position.x.signum(), -1.0, 0.15) + lean;
            let way = (down - n * down.dot(n)).normalize_or_zero() + n * 0.55;
            let length = id.beard_length * (0.6 + 0.8 * rng.random::<f32>());
            let colour = strand_colour(id, rng) * 0.9;
            self.add_skin_hair(neutral, &root, way, Vec3::NEG_Y * 0.15 - n * 0.1, length, colour, 0.00024);
        }
    }

    /// Plants lashes along the edges of the lids.
    fn plant_lashes(&mut self, assets: &HeadAssets, id: &Identity, neutral: &[Vec3], rng: &mut ChaCha8Rng) {
        let colour = (id.hair_colour * 0.25).min(Vec3::splat(0.02));
        let long = 0.0075 - 0.0015 * id.sex;
        for edge in lids::edges(assets) {
            let ends = [edge.triangle[0], edge.triangle[1]].map(|v| neutral[v as usize]);
            let (x, is_upper) = (edge.place.x.abs(), edge.is_upper);
            let spacing = if is_upper { 0.00022 } else { 0.0007 };
            let count = (ends[0].distance(ends[1]) / spacing).round() as usize;
            for i in 0..count {
                let at = (i as f32 + rng.random::<f32>()) / count as f32;
                let fan = (x - 0.30) * 3.2 * edge.place.x.signum() + 0.25 * (rng.random::<f32>() - 0.5);
                let rise = if is_upper { -0.18 } else { -0.45 };
                let way = Vec3::new(fan, rise, 1.0);
                let bend = if is_upper { Vec3::Y * 0.55 } else { Vec3::Y * 0.05 };
                let length =
                    if is_upper { long * (0.65 + 0.9 * (x - 0.2)) } else { 0.0042 } * (0.8 + 0.4 * rng.random::<f32>());
                let root = Root {
                    triangle: edge.triangle,
                    bary: [1.0 - at, at, 0.0],
                    position: ends[0].lerp(ends[1], at),
                    normal: Vec3::Z,
                    template: edge.place,
                    density: 1.0,
                };
                self.add_skin_hair(neutral, &root, way, bend, length, colour, 0.00020);
            }
        }
    }

    /// Where the strands' points are: scalp hair moves with the skull, other hair with the skin it grows on.
    pub(crate) fn points(&self, drawn: &[Vec3], head_pose: Mat4) -> Vec<Vec3> {
        let scalp = self.scalp.points.iter().map(|p| head_pose.transform_point3(*p));
        let skin = self.skin.iter().flat_map(|hair| {
            let corner = hair.triangle.map(|v| drawn[v as usize]);
            let root = corner[0] * hair.bary[0] + corner[1] * hair.bary[1] + corner[2] * hair.bary[2];
            let axes = frame(corner);
            let [a, b, c] = hair.points.map(|p| root + axes * p);
            [root, a, b, c]
        });
        scalp.chain(skin).collect()
    }

    /// The strands for a posed head. `drawn` are the posed vertices.
    pub(crate) fn pose(&self, head: &Head<'_>, drawn: &[Vec3], head_pose: Mat4) -> PosedStrands {
        let mut strands = self.scalp.clone();
        let scalp = strands.len();
        let points = self.points(drawn, head_pose);
        let (on_scalp, on_skin) = points.split_at(strands.points.len());
        strands.points.copy_from_slice(on_scalp);
        let mut rooted_at = Vec::with_capacity(self.skin.len());
        for (hair, points) in self.skin.iter().zip(on_skin.as_chunks::<4>().0) {
            strands.push(*points, hair.colour, hair.width);
            rooted_at.push(hair.triangle[0]);
        }
        let shade = HairShade::new(&self.density, head.environment(), head_pose);
        PosedStrands { strands, scalp, light: Vec::new(), shade, rooted_at }
    }
}

impl PosedStrands {
    /// Computes the light on every point: through the hair for scalp hair, that of the skin for the rest.
    pub(crate) fn light(&mut self, environment: &Environment, maps: &[ShadowMap], skin: &Lighting) {
        let cells = self.shade.light_cells(&self.strands, self.scalp, environment, maps);
        self.light = Vec::with_capacity(self.strands.points.len());
        for s in 0..self.strands.len() {
            for i in self.strands.starts[s]..self.strands.starts[s + 1] {
                let light = match s.checked_sub(self.scalp) {
                    None => cells.at(self.strands.points[i as usize], s),
                    Some(rooted) => {
                        let v = self.rooted_at[rooted] as usize;
                        let along = (i - self.strands.starts[s]) as f32 / 3.0;
                        let lift = lerp(0.7, 1.0, along.min(1.0));
                        (skin.irradiance[v] * lift, skin.keys[v])
                    }
                };
                self.light.push(light);
            }
        }
    }
}
