//! The G-buffer: what of the tracked head is seen at each pixel, as stored in files and as fed to the networks.
//!
//! Source: DiffusionAvatars, specification sections 1.2 (storage), 2 (channels, projection) and 3.1 (spherical UV).
//! Arrays are row-major, one entry per pixel; background is exactly 0 in all of them. This file knows neither PNG files
//! nor feature textures (those are looked up by the networks, from `uv` and `ambient`).

use glam::{DVec3, DVec4, Vec3};

use crate::camera::Camera;
use crate::mesh::Mesh;
pub use crate::quantize::*;
use crate::raster::rasterize;

/// Near plane of the renderer, metres.
pub const NEAR: f64 = 0.1;
/// Far plane of the renderer, metres.
pub const FAR: f64 = 2.0;
/// Channels of [`GBuffer::network_input`]: depth 1, canonical 3, normal 3, ambient 2.
pub const CHANNELS: usize = 9;

/// Nearest and farthest of a mesh's vertices before a camera, metres; those farther than [`FAR`] and nearer than
/// [`NEAR`] are not drawn.
pub fn reach(mesh: &Mesh, camera: &Camera) -> (f64, f64) {
    let depth = |p: &Vec3| camera.world_to_cam.transform_point3(p.as_dvec3()).z;
    mesh.positions
        .iter()
        .map(depth)
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(near, far), z| (near.min(z), far.max(z)))
}

/// Clip-space z of camera z `d` (metres): `(f + n) / (f - n) d - 2 f n / (f - n)` = 1.10526 d - 0.21053.
///
/// This, not `d`, is the depth that is stored and fed to the networks. At the far plane it is 2.
pub fn clip_depth(d: f64) -> f64 {
    clip_depth_at(d, NEAR, FAR)
}

/// Like [`clip_depth`], of a renderer with its planes at `near` and `far` (metres): -`near` at the one and `far` at the
/// other.
pub fn clip_depth_at(d: f64, near: f64, far: f64) -> f64 {
    ((far + near) * d - 2.0 * far * near) / (far - near)
}

/// Camera z of clip-space z: the inverse of [`clip_depth`].
pub fn camera_depth(z_clip: f64) -> f64 {
    ((FAR - NEAR) * z_clip + 2.0 * FAR * NEAR) / (FAR + NEAR)
}

/// What the network is fed for clip-space depth: `2 (z / 2) - 1`, z beyond 2 counting as none (0), below 0 as 0.
pub fn network_depth(z_clip: f32) -> f32 {
    let stored = if f64::from(z_clip) > DEPTH.max[0] { 0.0 } else { z_clip.max(0.0) };
    2.0 * (stored / 2.0) - 1.0
}

/// The size that the renderer pads an image side to: the next multiple of 8. Padding lies right and below and is cut
/// off after drawing, so it moves nothing.
pub fn padded_size(pixels: u32) -> u32 {
    pixels.div_ceil(8) * 8
}

/// OpenGL clip coordinates (x, y, z, w) of a world point for planes at `near` and `far` (metres); row 0 of the buffer
/// is the top of the image, so y is not flipped. The camera's size counts as the buffer's size.
pub fn clip_coordinates(camera: &Camera, p_world: DVec3, near: f64, far: f64) -> DVec4 {
    let h = camera.intrinsics * camera.world_to_cam.transform_point3(p_world);
    let (width, height) = (f64::from(camera.width), f64::from(camera.height));
    DVec4::new(2.0 * h.x / width - h.z, 2.0 * h.y / height - h.z, clip_depth_at(h.z, near, far), h.z)
}

/// What is seen at each pixel. Without a surface every entry is 0.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GBuffer {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Clip-space depth, see [`clip_depth`].
    pub depth: Vec<f32>,
    /// Canonical coordinates, each axis scaled to [0, 1] by the range of [`VERTEX_CANONICAL`].
    pub uv: Vec<[f32; 3]>,
    /// Unit normals in world space.
    pub normals: Vec<[f32; 3]>,
    /// Ambient coordinates, scaled to [0, 1] likewise.
    pub ambient: Vec<[f32; 2]>,
    /// Where there is a surface.
    pub mask: Vec<bool>,
}

impl GBuffer {
    /// What a pixel takes in memory.
    pub const PIXEL_BYTES: usize = 4 * (1 + 3 + 3 + 2) + 1;

    /// Draws a posed mesh (world, metres). `canonical` holds, per vertex, the canonical position and the two ambient
    /// coordinates in NPHM units. Surfaces nearer than [`NEAR`] or farther than [`FAR`] are not drawn.
    ///
    /// # Panics
    /// If `canonical` has fewer entries than the mesh has vertices.
    pub fn render(mesh: &Mesh, canonical: &[[f32; 5]], camera: &Camera) -> GBuffer {
        let mut raster = rasterize(&mesh.positions, &mesh.faces, camera, NEAR as f32);
        for (id, depth) in raster.tri_id.iter_mut().zip(&mut raster.depth) {
            if f64::from(*depth) > FAR {
                (*id, *depth) = (-1, 0.0);
            }
        }
        let normals: Vec<[f32; 3]> = mesh.vertex_normals().iter().map(|n| n.to_array()).collect();
        let scaled: Vec<[f32; 5]> =
            canonical.iter().map(|c| VERTEX_CANONICAL.normalize(with_ambient_in_range(*c))).collect();
        let coordinates = raster.interpolate(&mesh.faces, &scaled, [0.0; 5]);
        let normals = raster.interpolate(&mesh.faces, &normals, [0.0; 3]);
        let mask = raster.mask();
        let clip = |(d, m): (&f32, &bool)| if *m { clip_depth(f64::from(*d)) as f32 } else { 0.0 };
        GBuffer {
            width: raster.width,
            height: raster.height,
            depth: raster.depth.iter().zip(&mask).map(clip).collect(),
            uv: coordinates.iter().map(|c| [c[0], c[1], c[2]]).collect(),
            normals: normals.into_iter().map(|n| Vec3::from(n).normalize_or_zero().to_array()).collect(),
            ambient: coordinates.iter().map(|c| [c[3], c[4]]).collect(),
            mask,
        }
    }

    /// The integers that are stored in files.
    ///
    /// # Errors
    /// If a value is outside of its quantiser's range or not finite.
    pub fn encode(&self) -> Result<EncodedGBuffer, QuantizeError> {
        let u8s = |q: u16| q as u8;
        let normals = encode_normals(&NORMALS, &self.normals)?;
        let ambient = AMBIENT.encode(&self.ambient)?;
        Ok(EncodedGBuffer {
            width: self.width,
            height: self.height,
            depths: encode_depth(&self.depth)?,
            uv: UV.encode(&self.uv)?,
            normals: normals.into_iter().map(|q| q.map(u8s)).collect(),
            uv_ambient: ambient.into_iter().map(|[a, b]| [u8s(a), u8s(b), 0]).collect(),
            mask: self.mask.iter().map(|m| if *m { 255 } else { 0 }).collect(),
        })
    }

    /// The first [`CHANNELS`] channels of the networks' condition, `[9, H, W]`: depth, canonical, normal, ambient.
    ///
    /// Depth, canonical and ambient are mapped to [-1, 1] (background -1), normals are fed as they are (background 0).
    pub fn network_input(&self) -> Vec<f32> {
        let mut input = Vec::with_capacity(CHANNELS * self.depth.len());
        input.extend(self.depth.iter().map(|z| network_depth(*z)));
        for c in 0..3 {
            input.extend(self.uv.iter().map(|v| 2.0 * v[c] - 1.0));
        }
        for c in 0..3 {
            input.extend(self.normals.iter().map(|v| v[c]));
        }
        for c in 0..2 {
            input.extend(self.ambient.iter().map(|v| 2.0 * v[c] - 1.0));
        }
        input
    }
}

/// A G-buffer as stored: one image per group, colours in the order in which a viewer shows them (RGB).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EncodedGBuffer {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// 16 bits, one channel.
    pub depths: Vec<u16>,
    /// 16 bits, three channels.
    pub uv: Vec<[u16; 3]>,
    /// 8 bits, (r, theta, phi).
    pub normals: Vec<[u8; 3]>,
    /// 8 bits; the third channel is 0.
    pub uv_ambient: Vec<[u8; 3]>,
    /// 0 or 255.
    pub mask: Vec<u8>,
}

impl EncodedGBuffer {
    /// Back to values, each at the middle of its bin.
    pub fn decode(&self) -> GBuffer {
        let normals: Vec<[u16; 3]> = self.normals.iter().map(|q| q.map(u16::from)).collect();
        let ambient: Vec<[u16; 2]> = self.uv_ambient.iter().map(|q| [u16::from(q[0]), u16::from(q[1])]).collect();
        GBuffer {
            width: self.width,
            height: self.height,
            depth: decode_depth(&self.depths),
            uv: UV.decode(&self.uv),
            normals: decode_normals(&NORMALS, &normals),
            ambient: AMBIENT.decode(&ambient),
            mask: self.mask.iter().map(|m| *m > 0).collect(),
        }
    }
}

/// Spherical texture coordinates in [-1, 1] of canonical coordinates in [-1, 1] (the "spherical UV" ablation, section
/// 3.1): the centre is moved by 0.4 along z and the seam lies at the back of the head. Background stays the caller's
/// affair (-1).
pub fn spherical_uv(canonical: [f32; 3]) -> [f32; 2] {
    let [x, y, z] = canonical;
    let [_, theta, phi] = to_spherical([z - 0.4, x, y]);
    let unit = |v: f64| (2.0 * v - 1.0) as f32;
    let pi = std::f64::consts::PI;
    [unit((f64::from(phi) + pi) / (2.0 * pi)), -unit(f64::from(theta) / pi)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quad(z: f32) -> Mesh {
        let positions = [(-0.1, -0.1), (0.1, -0.1), (0.1, 0.1), (-0.1, 0.1)].map(|(x, y)| Vec3::new(x, y, z)).to_vec();
        Mesh { positions, faces: vec![[0, 2, 1], [0, 3, 2]] }
    }

    fn camera() -> Camera {
        let k = [60.0, 0.0, 16.0, 0.0, 60.0, 16.0, 0.0, 0.0, 1.0];
        Camera::from_row_major(&k, &glam::DMat4::IDENTITY.to_cols_array(), 32, 32)
    }

    #[test]
    fn stored_and_fed_values_of_a_plane() {
        let canonical = [
            [-1.0, -1.0, -1.5, -0.2, 0.2],
            [1.0, -1.0, -1.5, -0.2, 0.2],
            [1.0, 1.0, 0.5, -0.2, 0.2],
            [-1.0, 1.0, 0.5, -0.2, 0.2],
        ];
        let buffer = GBuffer::render(&quad(1.0), &canonical, &camera());
        assert!(buffer.mask[16 * 32 + 16] && !buffer.mask[0]);
        let back = buffer.encode().unwrap().decode();
        let n = buffer.mask.len();
        let (exact, stored) = (buffer.network_input(), back.network_input());
        assert_eq!(exact.len(), CHANNELS * n);
        for p in 0..n {
            let at = |c: usize| stored[c * n + p];
            if !buffer.mask[p] {
                assert_eq!([0, 1, 4, 7].map(at), [-1.0, -1.0, 0.0, -1.0]);
                continue;
            }
            assert!((at(0) - (clip_depth(1.0) as f32 - 1.0)).abs() < 4e-5);
            assert!((at(6) - -1.0).abs() < 1e-3 && (at(7) + 1.0).abs() < 1e-6 && (at(8) - 1.0).abs() < 1e-6);
            (1..4).for_each(|c| assert!((at(c) - exact[c * n + p]).abs() < 4e-5));
        }
    }

    #[test]
    fn a_mouth_wider_open_than_the_range_can_be_stored_and_a_stray_position_cannot() {
        let drawn = |vertex: [f32; 5]| GBuffer::render(&quad(1.0), &[vertex; 4], &camera());
        let wide = drawn([0.1, 0.0, 0.0, 0.23, -0.3]);
        assert!(wide.encode().is_ok_and(|encoded| encoded.uv_ambient[16 * 32 + 16] == [255, 1, 0]));
        assert_eq!(wide, drawn([0.1, 0.0, 0.0, 0.2, -0.2]));
        assert!(drawn([1.1, 0.0, 0.0, 0.0, 0.0]).encode().unwrap_err().to_string().contains("channel 0 is above 1"));
    }

    #[test]
    fn nothing_is_drawn_beyond_the_far_plane() {
        let canonical = [[0.0; 5]; 4];
        assert!(GBuffer::render(&quad(1.99), &canonical, &camera()).mask.contains(&true));
        assert!(!GBuffer::render(&quad(2.01), &canonical, &camera()).mask.contains(&true));
        assert!((clip_depth(FAR) - 2.0).abs() < 1e-12 && (camera_depth(clip_depth(0.7)) - 0.7).abs() < 1e-12);
        assert_eq!([1100, 1604, 8].map(padded_size), [1104, 1608, 8]);
    }

    #[test]
    fn clip_depth_is_of_the_planes_it_is_given() {
        for (near, far) in [(NEAR, FAR), (0.25, 5.0), (1e-3, 1.0)] {
            let ends = [clip_depth_at(near, near, far) + near, clip_depth_at(far, near, far) - far];
            assert!(ends.iter().all(|error| error.abs() < 1e-12), "{near} {far}: {ends:?}");
        }
        for d in [0.05, 0.1, 0.7, 1.3, 2.0, 2.4] {
            // what is stored does not change: the same bits as ever
            assert_eq!(clip_depth(d), ((FAR + NEAR) * d - 2.0 * FAR * NEAR) / (FAR - NEAR));
            let point = clip_coordinates(&camera(), DVec3::new(0.1, -0.2, d), 0.25, 5.0);
            assert_eq!((point.z, point.w), (clip_depth_at(d, 0.25, 5.0), d));
        }
    }

    #[test]
    fn spherical_seam_is_at_the_back() {
        assert!(spherical_uv([0.0, 0.0, 1.0])[0].abs() < 1e-6);
        assert!(spherical_uv([1e-6, 0.0, -1.0])[0] > 0.99 && spherical_uv([-1e-6, 0.0, -1.0])[0] < -0.99);
        assert!(spherical_uv([0.0, 1.0, 0.4])[1] > 0.99);
    }
}
