//! Light: a studio of soft boxes as a set of directions, shadows by depth maps, light that bleeds through skin.
//!
//! World axes, so turning the head moves it through the light. Radiance is linear RGB; 1 is a white surface facing an
//! even white surround. Knows triangles and points, not heads; hair shadows come in as a function.

use glam::{Vec2, Vec3};

/// Directions towards the light with their share of irradiance.
pub struct Environment {
    /// Unit directions towards the light.
    pub directions: Vec<Vec3>,
    /// Irradiance of a surface facing each direction.
    pub power: Vec<Vec3>,
    /// The soft boxes, for highlights: direction, radiance, sharpness.
    pub keys: [Key; 4],
    /// For each key, the index of the closest direction.
    pub key_direction: [usize; 4],
}

/// One soft box.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Unit direction towards it.
    pub direction: Vec3,
    /// Radiance, linear RGB.
    pub radiance: Vec3,
    /// Lobe exponent: larger is smaller and harder.
    pub sharpness: f32,
}

impl Environment {
    /// A portrait studio like a multi-camera dome: soft boxes on both sides in front, one above, one behind, a bright
    /// room around. `directions` of them share the light.
    pub fn studio(directions: usize) -> Self {
        let key = |x: f32, y: f32, z: f32, radiance: [f32; 3], sharpness: f32| Key {
            direction: Vec3::new(x, y, z).normalize(),
            radiance: Vec3::from(radiance),
            sharpness,
        };
        let keys = [
            key(0.62, 0.55, 0.70, [3.6, 3.45, 3.25], 9.0),
            key(-0.80, 0.25, 0.62, [1.35, 1.42, 1.55], 7.0),
            key(0.0, 1.0, 0.25, [1.7, 1.7, 1.7], 4.0),
            key(-0.55, 0.45, -0.75, [1.5, 1.55, 1.7], 8.0),
        ];
        let room = |d: Vec3| {
            let sky = Vec3::new(0.50, 0.51, 0.53) * (0.5 + 0.5 * d.y) + Vec3::new(0.26, 0.24, 0.23) * (0.5 - 0.5 * d.y);
            keys.iter().fold(sky, |sum, k| sum + k.radiance * (k.sharpness * (d.dot(k.direction) - 1.0)).exp())
        };
        let golden = std::f32::consts::PI * (3.0 - 5f32.sqrt());
        let dirs: Vec<Vec3> = (0..directions)
            .map(|i| {
                let y = 1.0 - 2.0 * (i as f32 + 0.5) / directions as f32;
                let r = (1.0 - y * y).sqrt();
                let a = golden * i as f32;
                Vec3::new(r * a.cos(), y, r * a.sin())
            })
            .collect();
        // Irradiance = integral of radiance x cosine / pi over the sphere of 4 pi.
        let power = dirs.iter().map(|d| room(*d) * (4.0 / directions as f32)).collect();
        let closest = |k: &Key| {
            let better = |a: &usize, b: &usize| dirs[*a].dot(k.direction).total_cmp(&dirs[*b].dot(k.direction));
            (0..dirs.len()).max_by(better).unwrap_or(0)
        };
        let key_direction = [0, 1, 2, 3].map(|i| closest(&keys[i]));
        Self { directions: dirs, power, keys, key_direction }
    }

    /// What a mirror sees in direction `d`: the soft boxes with firm edges over the dim room.
    pub fn mirror(&self, d: Vec3) -> Vec3 {
        let room = Vec3::splat(0.10 + 0.12 * d.y.max(0.0));
        self.keys.iter().fold(room, |sum, k| {
            let inside = super::noise::smoothstep(0.90, 0.955, d.dot(k.direction));
            sum + k.radiance * inside * 1.6
        })
    }
}

/// A depth map along one light direction (orthographic, square, centred at the origin).
pub struct ShadowMap {
    right: Vec3,
    up: Vec3,
    direction: Vec3,
    size: usize,
    scale: f32,
    /// Distance along the direction towards the light of the nearest surface to the light.
    height: Vec<f32>,
}

impl ShadowMap {
    /// Draws the triangles as seen from the light in `direction`; `reach` is half the width of the square, metres.
    pub fn new(positions: &[Vec3], triangles: &[[u32; 3]], direction: Vec3, size: usize, reach: f32) -> Self {
        let right = direction.any_orthonormal_vector();
        let up = direction.cross(right);
        let scale = size as f32 / (2.0 * reach);
        let mut map = Self { right, up, direction, size, scale, height: vec![f32::NEG_INFINITY; size * size] };
        let flat: Vec<(Vec2, f32)> = positions.iter().map(|p| map.place(*p)).collect();
        for t in triangles {
            map.draw(t.map(|v| flat[v as usize]));
        }
        map
    }

    fn place(&self, p: Vec3) -> (Vec2, f32) {
        let half = 0.5 * self.size as f32;
        (Vec2::new(p.dot(self.right), p.dot(self.up)) * self.scale + half, p.dot(self.direction))
    }

    fn draw(&mut self, corner: [(Vec2, f32); 3]) {
        let [(a, ha), (b, hb), (c, hc)] = corner;
        let area = (b - a).perp_dot(c - a);
        if area.abs() < 1e-9 {
            return;
        }
        let (low, high) = (a.min(b).min(c), a.max(b).max(c));
        let last = self.size as f32 - 1.0;
        let (x0, x1) = ((low.x - 0.5).ceil().max(0.0) as usize, (high.x - 0.5).floor().min(last));
        let (y0, y1) = ((low.y - 0.5).ceil().max(0.0) as usize, (high.y - 0.5).floor().min(last));
        if x1 < 0.0 || y1 < 0.0 {
            return;
        }
        let inverse = 1.0 / area;
        for y in y0..=y1 as usize {
            for x in x0..=x1 as usize {
                let p = Vec2::new(x as f32 + 0.5, y as f32 + 0.5);
                let u = (c - b).perp_dot(p - b) * inverse;
                let v = (a - c).perp_dot(p - c) * inverse;
                let w = 1.0 - u - v;
                if u >= -1e-4 && v >= -1e-4 && w >= -1e-4 {
                    let h = u * ha + v * hb + w * hc;
                    let cell = &mut self.height[y * self.size + x];
                    *cell = cell.max(h);
                }
            }
        }
    }

    /// How much of the light reaches `p`: 1 all, 0 none, bilinear between texels. `bias` in metres.
    pub fn visible(&self, p: Vec3, bias: f32) -> f32 {
        let (at, h) = self.place(p);
        let at = at - 0.5;
        if !(at.x >= 0.0 && at.y >= 0.0 && at.x < self.size as f32 - 1.0 && at.y < self.size as f32 - 1.0) {
            return 1.0;
        }
        let (x, y) = (at.x as usize, at.y as usize);
        let f = at - Vec2::new(x as f32, y as f32);
        let lit = |dx: usize, dy: usize| {
            let blocker = self.height[(y + dy) * self.size + x + dx] - h - bias;
            1.0 - (blocker * 400.0).clamp(0.0, 1.0)
        };
        let top = lit(0, 0) * (1.0 - f.x) + lit(1, 0) * f.x;
        let bottom = lit(0, 1) * (1.0 - f.x) + lit(1, 1) * f.x;
        top * (1.0 - f.y) + bottom * f.y
    }
}

/// The light that arrives at the vertices of a mesh.
pub struct Lighting {
    /// Irradiance, linear RGB.
    pub irradiance: Vec<Vec3>,
    /// How much of each soft box a vertex sees.
    pub keys: Vec<[f32; 4]>,
    /// Share of the whole surround that is not blocked, cosine weighted.
    pub openness: Vec<f32>,
}

/// One shadow map for each direction of the environment, wide enough for a head.
pub fn shadow_maps(environment: &Environment, positions: &[Vec3], triangles: &[[u32; 3]]) -> Vec<ShadowMap> {
    environment.directions.iter().map(|d| ShadowMap::new(positions, triangles, *d, 176, 0.20)).collect()
}

/// Lights a mesh. `extra(point index, direction index)` multiplies in other shadows, such as hair.
pub fn light_mesh(
    environment: &Environment,
    maps: &[ShadowMap],
    positions: &[Vec3],
    normals: &[Vec3],
    extra: impl Fn(usize, usize) -> f32,
) -> Lighting {
    let count = positions.len();
    let mut lighting =
        Lighting { irradiance: vec![Vec3::ZERO; count], keys: vec![[0.0; 4]; count], openness: vec![0.0; count] };
    let mut full = 0.0;
    for (d, direction) in environment.directions.iter().enumerate() {
        let map = &maps[d];
        let key = (0..4).find(|k| environment.key_direction[*k] == d);
        full += direction.y.max(0.0);
        for v in 0..count {
            let cosine = normals[v].dot(*direction);
            if cosine <= -0.2 {
                continue;
            }
            let mut visible = map.visible(positions[v] + normals[v] * 0.0016, 0.0018);
            if visible > 0.0 {
                visible *= extra(v, d);
            }
            // Skin lets a little light around the terminator.
            let wrapped = ((cosine + 0.12) / 1.12).max(0.0);
            lighting.irradiance[v] += environment.power[d] * (wrapped * visible);
            lighting.openness[v] += cosine.max(0.0) * visible;
            if let Some(k) = key {
                lighting.keys[v][k] = visible;
            }
        }
    }
    lighting.openness.iter_mut().for_each(|o| *o = (*o / full).min(1.0));
    lighting
}

/// Blurs one channel after the other over mesh neighbours, red widest, as light spreads under skin. Vertices where
/// `skin` is false neither give nor take.
pub fn scatter(irradiance: &mut [Vec3], neighbours: &(Vec<u32>, Vec<u32>), skin: &[bool], rounds: [usize; 3]) {
    let (starts, columns) = neighbours;
    let most = rounds.into_iter().max().unwrap_or(0);
    for round in 0..most {
        let before = irradiance.to_vec();
        for v in 0..skin.len() {
            if !skin[v] {
                continue;
            }
            let around = &columns[starts[v] as usize..starts[v + 1] as usize];
            let (mut sum, mut n) = (Vec3::ZERO, 0.0);
            for o in around {
                if skin[*o as usize] {
                    sum += before[*o as usize];
                    n += 1.0;
                }
            }
            if n > 0.0 {
                let mixed = before[v].lerp(sum / n, 0.6);
                for c in 0..3 {
                    if round < rounds[c] {
                        irradiance[v][c] = mixed[c];
                    }
                }
            }
        }
    }
}
