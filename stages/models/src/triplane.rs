//! The spatial features of DiffusionAvatars: three feature planes and an ambient map, looked up where the rasterised
//! head says, and stacked with the G-buffer to the ControlNet's condition. Each participant has a set of their own.
//! Does not know how a G-buffer is made.

use tch::nn::Path;
use tch::{Device, Kind, Tensor};

use crate::init;

/// How points of the surface are laid out on learned maps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Layout {
    /// Three planes, each seen along an axis of the canonical coordinates (the paper).
    #[default]
    TriPlane,
    /// One map around the head (the paper's "spherical UV"); its coordinates stand in the condition in place of the
    /// canonical ones.
    SphericalUv,
}

/// Sizes of the feature maps. The default is published: 512 texels a side, 16 channels each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeatureMapConfig {
    /// Texels on each side.
    pub resolution: i64,
    /// Channels of each plane.
    pub plane_channels: i64,
    /// Channels of the ambient map; 0 for none.
    pub ambient_channels: i64,
    /// How the surface is laid out.
    pub layout: Layout,
}

impl Default for FeatureMapConfig {
    fn default() -> Self {
        Self { resolution: 512, plane_channels: 16, ambient_channels: 16, layout: Layout::TriPlane }
    }
}

impl FeatureMapConfig {
    /// For 64-pixel avatars: 64 texels a side, 8 channels each.
    pub fn small() -> Self {
        Self { resolution: 64, plane_channels: 8, ambient_channels: 8, layout: Layout::TriPlane }
    }

    /// Number of planes.
    pub fn planes(&self) -> i64 {
        match self.layout {
            Layout::TriPlane => 3,
            Layout::SphericalUv => 1,
        }
    }

    /// Channels that the features add to the condition.
    pub fn channels(&self) -> i64 {
        self.planes() * self.plane_channels + self.ambient_channels
    }
}

/// The learned maps of one participant.
#[derive(Debug)]
pub struct FeatureMaps {
    /// How the surface is laid out.
    pub layout: Layout,
    /// `[3, H, W, C]`, looked up at (c0, c1), (c0, c2) and (c1, c2) of the canonical coordinates; or `[1, H, W, C]`,
    /// looked up at [`spherical_uv`].
    pub planes: Tensor,
    /// `[H, W, CA]`, looked up at the two ambient coordinates; none where there are no channels.
    pub ambient: Option<Tensor>,
}

impl FeatureMaps {
    /// Creates the variables `planes` and `ambient`.
    pub fn new(p: &Path, config: &FeatureMapConfig) -> Self {
        let side = config.resolution;
        Self {
            layout: config.layout,
            planes: p.zeros("planes", &[config.planes(), side, side, config.plane_channels]),
            ambient: (config.ambient_channels > 0).then(|| p.zeros("ambient", &[side, side, config.ambient_channels])),
        }
    }

    /// Standard normal values: a function of `seed` and of the variables' names, which begin with `prefix`.
    pub fn seed(&self, seed: u64, prefix: &str) {
        tch::no_grad(|| {
            for (name, map) in [("planes", Some(&self.planes)), ("ambient", self.ambient.as_ref())] {
                if let Some(map) = map {
                    let stream = init::name_stream(&format!("{prefix}{name}"));
                    map.shallow_clone().copy_(&init::normal(seed, stream, &map.size()));
                }
            }
        });
    }

    /// The features of images, zero outside the mask: of the planes `[B, 3C or C, H, W]`, then of the ambient map
    /// `[B, CA, H, W]` where there is one.
    fn look_up(&self, g: &GBuffer) -> Vec<Tensor> {
        let mask = g.inside().unsqueeze(1);
        let surface = match self.layout {
            Layout::TriPlane => lookup_planes(&self.planes, &g.canonical),
            Layout::SphericalUv => {
                let uv = (spherical_uv(&(&g.canonical * 2.0 - 1.0)) + 1.0) * 0.5;
                lookup(&self.planes, &uv.unsqueeze(0)).squeeze_dim(0)
            }
        };
        let mut features = vec![surface * &mask];
        if let (Some(map), Some(uv)) = (&self.ambient, &g.ambient) {
            features.push(lookup(&map.unsqueeze(0), &uv.unsqueeze(0)).squeeze_dim(0) * &mask);
        }
        features
    }

    /// Zero, with a gradient of zeros. Maps of participants whom a part of a batch does not show are differentiated
    /// like those whom it does, as a table of embeddings would be, whatever part a team's member has.
    fn nothing(&self) -> Tensor {
        let texel = |map: &Tensor| map.flatten(0, -1).narrow(0, 0, 1).sum(Kind::Float) * 0.0;
        texel(&self.planes)
            + self.ambient.as_ref().map_or_else(|| Tensor::from(0f32).to_device(self.planes.device()), texel)
    }
}

/// A decoded G-buffer of B images. Where `mask` is 0, every other entry is 0.
#[derive(Debug)]
pub struct GBuffer {
    /// Clip-space depth in [0, 2], `[B, H, W]`.
    pub depth: Tensor,
    /// Canonical coordinates in [0, 1], `[B, H, W, 3]`.
    pub canonical: Tensor,
    /// World-space unit normals, `[B, H, W, 3]`.
    pub normals: Tensor,
    /// Ambient coordinates in [0, 1], `[B, H, W, 2]`; none for head models without them.
    pub ambient: Option<Tensor>,
    /// 0 beside the head, anything else on it, in any numbers: `[B, H, W]`.
    pub mask: Tensor,
    /// Whose maps each image is looked up in, by place among those of the avatar; empty: the first's.
    pub whose: Vec<usize>,
}

impl GBuffer {
    /// Channels of its part of the condition: 9, or 7 without ambient coordinates.
    pub fn channels(ambient: bool) -> i64 {
        if ambient { 9 } else { 7 }
    }

    /// 1 on the head, 0 elsewhere, `[B, H, W]`, f32.
    pub fn inside(&self) -> Tensor {
        self.mask.ne(0.0).to_kind(Kind::Float)
    }

    /// Image `i` alone, batch size 1.
    pub fn select(&self, i: i64) -> Self {
        self.narrow(i, 1)
    }

    /// `count` images from `start` on.
    pub fn narrow(&self, start: i64, count: i64) -> Self {
        let cut = |t: &Tensor| t.narrow(0, start, count);
        Self {
            depth: cut(&self.depth),
            canonical: cut(&self.canonical),
            normals: cut(&self.normals),
            ambient: self.ambient.as_ref().map(cut),
            mask: cut(&self.mask),
            whose: self.whose.iter().skip(start as usize).take(count as usize).copied().collect(),
        }
    }

    /// The images at these places.
    pub fn pick(&self, at: &[i64]) -> Self {
        let index = Tensor::from_slice(at).to_device(self.depth.device());
        let cut = |t: &Tensor| t.index_select(0, &index);
        Self {
            depth: cut(&self.depth),
            canonical: cut(&self.canonical),
            normals: cut(&self.normals),
            ambient: self.ambient.as_ref().map(cut),
            mask: cut(&self.mask),
            whose: at.iter().filter_map(|&i| self.whose.get(i as usize).copied()).collect(),
        }
    }

    /// The same on a device.
    pub fn to_device(&self, device: Device) -> Self {
        let on = |t: &Tensor| t.to_device(device);
        Self {
            depth: on(&self.depth),
            canonical: on(&self.canonical),
            normals: on(&self.normals),
            ambient: self.ambient.as_ref().map(on),
            mask: on(&self.mask),
            whose: self.whose.clone(),
        }
    }

    /// Number of images.
    pub fn len(&self) -> i64 {
        self.depth.size()[0]
    }

    /// True without images.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The network's condition image `[B, 9 + 3C + CA, H, W]`: depth, canonical, normals, ambient coordinates, planes,
/// ambient map. Depth and coordinates are spread to [-1, 1], so their background is -1; normals and features are 0
/// there. With maps laid out by spherical UV it has these two coordinates in place of the three canonical ones, and C
/// channels of the one map. `maps` are those of all participants; none: no features.
pub fn condition(g: &GBuffer, maps: &[FeatureMaps]) -> Tensor {
    let channels_first = |t: &Tensor| t.permute([0, 3, 1, 2]);
    let canonical = &g.canonical * 2.0 - 1.0;
    let place = match maps.first().map(|maps| maps.layout) {
        Some(Layout::SphericalUv) => {
            let inside = g.inside().unsqueeze(-1);
            spherical_uv(&canonical) * &inside + (inside - 1.0)
        }
        _ => canonical,
    };
    let mut parts = vec![g.depth.unsqueeze(1) - 1.0, channels_first(&place), channels_first(&g.normals)];
    parts.extend(g.ambient.as_ref().map(|ambient| channels_first(&(ambient * 2.0 - 1.0))));
    parts.extend(features(g, maps));
    Tensor::cat(&parts, 1)
}

/// What each image's participant has learned of its surface, see [`FeatureMaps::look_up`].
fn features(g: &GBuffer, maps: &[FeatureMaps]) -> Vec<Tensor> {
    match maps {
        [] => Vec::new(),
        [only] => only.look_up(g),
        several => {
            let (mut order, mut by_participant) = (Vec::new(), Vec::new());
            let mut unseen = Vec::new();
            for (place, maps) in several.iter().enumerate() {
                let whose = |i: i64| g.whose.get(i as usize).copied().unwrap_or(0);
                let at: Vec<i64> = (0..g.len()).filter(|&i| whose(i) == place).collect();
                if at.is_empty() {
                    unseen.push(maps.nothing());
                } else {
                    by_participant.push(maps.look_up(&g.pick(&at)));
                    order.extend(at);
                }
            }
            assert_eq!(order.len() as i64, g.len(), "every image shows a participant that has maps");
            let mut back = vec![0i64; order.len()];
            order.iter().enumerate().for_each(|(now, &then)| back[then as usize] = now as i64);
            let back = Tensor::from_slice(&back).to_device(g.depth.device());
            let together = |k: usize| {
                let parts: Vec<&Tensor> = by_participant.iter().map(|features| &features[k]).collect();
                Tensor::cat(&parts, 0).index_select(0, &back)
            };
            let mut all: Vec<Tensor> = (0..by_participant[0].len()).map(together).collect();
            all[0] = unseen.iter().fold(all[0].shallow_clone(), |sum, nothing| sum + nothing);
            all
        }
    }
}

/// Texture coordinates `[.., 2]` in [-1, 1] of canonical coordinates `[.., 3]` in [-1, 1]: angles around a centre moved
/// by 0.4 along z, the seam at the back of the head. Source: the "spherical UV" ablation of DiffusionAvatars, section
/// 3.1 of the specification.
pub fn spherical_uv(canonical: &Tensor) -> Tensor {
    let axis = |k: i64| canonical.select(-1, k);
    let (x, y, z) = (axis(2) - 0.4, axis(0), axis(1));
    let theta = (&x * &x + &y * &y).sqrt().atan2(&z) * (2.0 / std::f64::consts::PI) - 1.0;
    let phi = y.atan2(&x) / std::f64::consts::PI;
    Tensor::stack(&[phi, -theta], -1)
}

/// Looks canonical coordinates `[B, H, W, 3]` up in planes `[3, R, R, C]`: `[B, 3C, H, W]`, one plane after the other.
pub fn lookup_planes(planes: &Tensor, points: &Tensor) -> Tensor {
    let axis = |k: i64| points.select(-1, k);
    let pair = |a: i64, b: i64| Tensor::stack(&[axis(a), axis(b)], -1);
    let features = lookup(planes, &Tensor::stack(&[pair(0, 1), pair(0, 2), pair(1, 2)], 0));
    features.transpose(0, 1).flatten(1, 2)
}

/// Bilinear look-up with wrap-around: textures `[N, R, S, C]` at `uv` `[N, B, H, W, 2]` gives `[N, B, C, H, W]`. The
/// first coordinate runs along the width, 1 is a whole turn, and texel i's centre lies at (i + 0.5) / S.
pub fn lookup(textures: &Tensor, uv: &Tensor) -> Tensor {
    let (n, rows, columns, _) = textures.size4().expect("textures are [N, R, S, C]");
    let size = uv.size();
    let [batch, h, w] = [size[1], size[2], size[3]];
    // One texel of the opposite side around each texture turns wrap-around into plain sampling of the first turn.
    let padded = textures.permute([0, 3, 1, 2]).pad([1, 1, 1, 1], "circular", None);
    let turn = uv - uv.detach().floor();
    // From a share of the turn to the padded texture's [-1, 1], whose ends are the outer edges of its outer texels.
    let inner = Tensor::from_slice(&[columns as f32, rows as f32]).to_kind(uv.kind()).to_device(uv.device());
    let grid = (turn * &inner * 2.0 + 2.0) / (&inner + 2.0) - 1.0;
    let out = padded.grid_sampler_2d(&grid.view([n, batch * h, w, 2]), 0, 0, false);
    out.unflatten(2, [batch, h]).transpose(1, 2)
}

/// What lies outside the planes in [`sample_planes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// Zeros.
    Zeros,
    /// The nearest border value.
    Border,
}

/// The common other convention: planes `[3, C, R, R]` at points `[N, 3]` in [-1, 1]; plane 0 at (x, y), 1 at (x, z), 2
/// at (y, z). Gives `[3, N, C]`, to be summed or multiplied. `align_corners`: -1 and 1 are texel centres, not edges.
pub fn sample_planes(planes: &Tensor, points: &Tensor, padding: Padding, align_corners: bool) -> Tensor {
    let axis = |k: i64| points.select(-1, k);
    let pair = |a: i64, b: i64| Tensor::stack(&[axis(a), axis(b)], -1);
    let grid = Tensor::stack(&[pair(0, 1), pair(0, 2), pair(1, 2)], 0).unsqueeze(1);
    let out = planes.grid_sampler_2d(&grid, 0, padding as i64, align_corners);
    out.squeeze_dim(2).transpose(1, 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    /// One look-up, written out.
    fn naive(texture: &[f32], side: i64, channels: i64, u: f64, v: f64, c: i64) -> f64 {
        let texel = |x: i64, y: i64| {
            let at = (y.rem_euclid(side) * side + x.rem_euclid(side)) * channels + c;
            f64::from(texture[at as usize])
        };
        let (x, y) = (u * side as f64 - 0.5, v * side as f64 - 0.5);
        let (i, j) = (x.floor(), y.floor());
        let (fx, fy, i, j) = (x - i, y - j, i as i64, j as i64);
        let row = |j| texel(i, j) * (1.0 - fx) + texel(i + 1, j) * fx;
        row(j) * (1.0 - fy) + row(j + 1) * fy
    }

    #[test]
    fn look_ups_wrap_around() {
        let (side, channels) = (8, 3);
        let texture = init::normal(0, 0, &[1, side, side, channels]);
        let values: Vec<f32> = Vec::try_from(texture.flatten(0, -1)).unwrap();
        let uv = init::uniform(0, 1, &[1, 1, 6, 5, 2], -1.5, 2.5);
        let out = lookup(&texture, &uv);
        assert_eq!(out.size(), [1, 1, 3, 6, 5]);
        for (i, j, c) in [(0, 0, 0), (3, 4, 1), (5, 2, 2), (1, 1, 1), (4, 0, 0)] {
            let at = |k| uv.double_value(&[0, 0, i, j, k]);
            let want = naive(&values, side, channels, at(0), at(1), c);
            assert!((out.double_value(&[0, 0, c, i, j]) - want).abs() < 1e-5);
        }
    }

    #[test]
    fn the_published_condition_has_73_channels() {
        assert_eq!(GBuffer::channels(true) + FeatureMapConfig::default().channels(), 73);
        let zeros = |tail: &[i64]| Tensor::zeros([&[2, 4, 4], tail].concat(), (Kind::Float, Device::Cpu));
        let g = GBuffer {
            depth: zeros(&[]),
            canonical: zeros(&[3]),
            normals: zeros(&[3]),
            ambient: Some(zeros(&[2])),
            mask: zeros(&[]),
            whose: Vec::new(),
        };
        let (vs, maps) = init::build(Device::Cpu, 0, |p| FeatureMaps::new(p, &FeatureMapConfig::small()));
        maps.seed(1, "");
        assert!((vs.variables()["planes"].std(true).double_value(&[]) - 1.0).abs() < 0.05);
        let background = condition(&g, std::slice::from_ref(&maps));
        assert_eq!(background.size(), [2, 41, 4, 4]);
        let channel: Vec<f32> = Vec::try_from(background.select(0, 1).select(-1, 2).select(-1, 3)).unwrap();
        assert_eq!(channel[..9], [-1., -1., -1., -1., 0., 0., 0., -1., -1.]);
        assert!(channel[9..].iter().all(|&x| x == 0.0));
    }

    fn seen(images: i64, whose: Vec<usize>) -> GBuffer {
        let random = |stream, tail: &[i64]| init::uniform(3, stream, &[&[images, 4, 4], tail].concat(), 0.0, 1.0);
        let mask = random(0, &[]).gt(0.3).to_kind(Kind::Float);
        let on = |t: Tensor| &t * mask.view([images, 4, 4, 1]);
        GBuffer {
            depth: random(1, &[]) * &mask,
            canonical: on(random(2, &[3])),
            normals: on(random(3, &[3])),
            ambient: Some(on(random(4, &[2]))),
            mask: mask.shallow_clone(),
            whose,
        }
    }

    #[test]
    fn spherical_uv_stands_in_place_of_canonical_coordinates() {
        let config = FeatureMapConfig { layout: Layout::SphericalUv, ..FeatureMapConfig::small() };
        let (_vs, maps) = init::build(Device::Cpu, 0, |p| FeatureMaps::new(p, &config));
        maps.seed(1, "");
        let g = seen(2, Vec::new());
        let image = condition(&g, std::slice::from_ref(&maps));
        assert_eq!(image.size(), [2, 1 + 2 + 3 + 2 + 8 + 8, 4, 4]);
        let texture: Vec<f32> = Vec::try_from(maps.planes.flatten(0, -1)).unwrap();
        for (i, j) in [(0, 0), (1, 3), (2, 2), (3, 1)] {
            let at = |c: i64| image.double_value(&[1, c, i, j]);
            if g.mask.double_value(&[1, i, j]) == 0.0 {
                assert_eq!([at(1), at(2), at(8), at(16)], [-1.0, -1.0, 0.0, 0.0]);
                continue;
            }
            let c = |k: i64| 2.0 * g.canonical.double_value(&[1, i, j, k]) - 1.0;
            let (x, y, z) = (c(2) - 0.4, c(0), c(1));
            let uv = [y.atan2(x) / std::f64::consts::PI, 1.0 - 2.0 * x.hypot(y).atan2(z) / std::f64::consts::PI];
            assert!((at(1) - uv[0]).abs() < 1e-5 && (at(2) - uv[1]).abs() < 1e-5);
            let want = naive(&texture, 64, 8, (uv[0] + 1.0) / 2.0, (uv[1] + 1.0) / 2.0, 5);
            assert!((at(8 + 5) - want).abs() < 1e-3);
        }
    }

    #[test]
    fn a_mask_may_be_in_any_numbers() {
        for layout in [Layout::TriPlane, Layout::SphericalUv] {
            let config = FeatureMapConfig { resolution: 8, layout, ..FeatureMapConfig::small() };
            let (_vs, maps) = init::build(Device::Cpu, 0, |p| FeatureMaps::new(p, &config));
            maps.seed(1, "");
            let image = |of: fn(&Tensor) -> Tensor| {
                let g = seen(2, Vec::new());
                condition(&GBuffer { mask: of(&g.mask), ..g }, std::slice::from_ref(&maps))
            };
            let wanted = image(Tensor::shallow_clone);
            assert_eq!(image(|mask| (mask * 255.0).to_kind(Kind::Uint8)), wanted, "{layout:?}: 0 and 255");
            assert_eq!(image(|mask| mask.gt(0.5)), wanted, "{layout:?}: false and true");
        }
    }

    #[test]
    fn each_image_is_looked_up_in_its_participants_maps() {
        let config = FeatureMapConfig { resolution: 8, ..FeatureMapConfig::small() };
        let (vs, maps) =
            init::build(Device::Cpu, 0, |p| (0..3).map(|k| FeatureMaps::new(&(p / k), &config)).collect::<Vec<_>>());
        maps.iter().enumerate().for_each(|(k, maps)| maps.seed(1, &format!("{k}.")));
        let g = seen(4, vec![2, 0, 2, 0]);
        let image = condition(&g, &maps);
        for i in 0..4 {
            let own = &maps[g.whose[i]..=g.whose[i]];
            assert_eq!(image.narrow(0, i as i64, 1), condition(&g.select(i as i64), own), "image {i}");
        }
        image.square().sum(Kind::Float).backward();
        for (name, map) in vs.variables() {
            let largest = map.grad().abs().max().double_value(&[]);
            assert_eq!(largest > 0.0, !name.starts_with('1'), "{name}: whom nobody sees has a gradient, of zeros");
        }
    }
}
