//! How G-buffer values are stored as integers: affine quantisers with an optional bin for "no surface here".
//!
//! Source: DiffusionAvatars' rendering data (specification section 1.2). The integers are a contract with files on
//! other people's disks, so they are computed as there: in f32, rounding half to even. This file knows neither PNG nor
//! rasterisation.

/// Why a value cannot be stored.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum QuantizeError {
    /// The value lies above the quantiser's range.
    #[error("value {value} at entry {entry}, channel {channel} is above {max}, the largest one; rescale it first")]
    AboveMax {
        /// Index of the pixel or vertex.
        entry: usize,
        /// Channel within it.
        channel: usize,
        /// The offending value.
        value: f32,
        /// Upper end of the range.
        max: f64,
    },
    /// The value is NaN or infinite.
    #[error("value {value} at entry {entry}, channel {channel} is not a finite number")]
    NotFinite {
        /// Index of the pixel or vertex.
        entry: usize,
        /// Channel within it.
        channel: usize,
        /// The offending value.
        value: f32,
    },
}

/// An affine quantiser of `N` channels: `q = round(max(0, v - min) * scale + m)`, `m` being 1 if bin 0 is reserved.
///
/// With `mask_bin`, an entry whose channels are all 0 means "nothing here" and is stored as 0 in all channels; a 0 next
/// to a non-zero channel is a value like any other. Values below `min` are stored as `min`.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantizer<const N: usize> {
    /// Lower end of each channel's range.
    pub min: [f64; N],
    /// Upper end of each channel's range.
    pub max: [f64; N],
    /// Bits per channel, at most 16.
    pub bits: u32,
    /// Whether bin 0 is reserved for masked entries.
    pub mask_bin: bool,
}

use std::f64::consts::{FRAC_PI_3, PI};

/// Clip-space depth, 16 bits. Use [`encode_depth`], which handles depth beyond the range.
pub const DEPTH: Quantizer<1> = Quantizer { min: [0.0], max: [2.0], bits: 16, mask_bin: true };
/// Normalised canonical coordinates, 16 bits.
pub const UV: Quantizer<3> = Quantizer { min: [0.0; 3], max: [1.0; 3], bits: 16, mask_bin: true };
/// Normalised ambient coordinates, 8 bits; stored with a third channel of 0.
pub const AMBIENT: Quantizer<2> = Quantizer { min: [0.0; 2], max: [1.0; 2], bits: 8, mask_bin: true };
/// Normals as (r, theta, phi), 8 bits, as in all rendered data. Use [`encode_normals`].
pub const NORMALS: Quantizer<3> = Quantizer { min: [0.0, 0.0, -PI], max: [1.0, PI, PI], bits: 8, mask_bin: true };
/// Normals, the variant for views from the front only (theta from 60 degrees); the renderer does not use it.
pub const NORMALS_GENERIC: Quantizer<3> =
    Quantizer { min: [0.0, FRAC_PI_3, -PI], max: [1.0, PI, PI], bits: 8, mask_bin: true };
/// Canonical (3) and ambient (2) coordinates of a vertex in NPHM units, 16 bits, no masked entries.
pub const VERTEX_CANONICAL: Quantizer<5> =
    Quantizer { min: [-1.0, -1.0, -1.5, -0.2, -0.2], max: [1.0, 1.0, 0.5, 0.2, 0.2], bits: 16, mask_bin: false };

/// Canonical and ambient coordinates with the ambient ones kept in the range of [`VERTEX_CANONICAL`]: a mouth wider
/// open than any that the range was made for is drawn as at its end, as one below it is anyhow. A position beyond its
/// range is left as it is, since it is a mistake that [`Quantizer::encode`] names.
pub fn with_ambient_in_range(mut canonical: [f32; 5]) -> [f32; 5] {
    for i in 3..5 {
        canonical[i] = canonical[i].clamp(VERTEX_CANONICAL.min[i] as f32, VERTEX_CANONICAL.max[i] as f32);
    }
    canonical
}

impl<const N: usize> Quantizer<N> {
    fn offset(&self) -> f64 {
        f64::from(u8::from(self.mask_bin))
    }

    fn largest(&self) -> f64 {
        f64::from((1u32 << self.bits) - 1)
    }

    fn scale(&self, channel: usize) -> f64 {
        (self.largest() - self.offset()) / (self.max[channel] - self.min[channel])
    }

    /// Quantises entries.
    ///
    /// # Errors
    /// If a value is not finite or would need a bin beyond the last one (above `max` by half a bin or more).
    pub fn encode(&self, values: &[[f32; N]]) -> Result<Vec<[u16; N]>, QuantizeError> {
        let scale: [f32; N] = std::array::from_fn(|c| self.scale(c) as f32);
        let one = |(entry, v): (usize, &[f32; N])| {
            let mut q = [0u16; N];
            if let Some(channel) = v.iter().position(|x| !x.is_finite()) {
                return Err(QuantizeError::NotFinite { entry, channel, value: v[channel] });
            }
            if self.mask_bin && v.iter().all(|x| *x == 0.0) {
                return Ok(q);
            }
            for c in 0..N {
                let bin = ((v[c] - self.min[c] as f32).max(0.0) * scale[c] + self.offset() as f32).round_ties_even();
                if f64::from(bin) > self.largest() {
                    return Err(QuantizeError::AboveMax { entry, channel: c, value: v[c], max: self.max[c] });
                }
                q[c] = bin as u16;
            }
            Ok(q)
        };
        values.iter().enumerate().map(one).collect()
    }

    /// The value in the middle of each bin; masked entries become 0.
    pub fn decode(&self, bins: &[[u16; N]]) -> Vec<[f32; N]> {
        let one = |q: &[u16; N]| {
            if self.mask_bin && q.iter().all(|b| *b == 0) {
                return [0.0; N];
            }
            std::array::from_fn(|c| {
                (f64::from(q[c]) / self.scale(c) - (self.offset() / self.scale(c) - self.min[c])) as f32
            })
        };
        bins.iter().map(one).collect()
    }

    /// `(v - min) / (max - min)`: the range becomes [0, 1]. Of [`VERTEX_CANONICAL`] this is what is rasterised.
    pub fn normalize(&self, v: [f32; N]) -> [f32; N] {
        std::array::from_fn(|c| ((f64::from(v[c]) - self.min[c]) / (self.max[c] - self.min[c])) as f32)
    }
}

/// Quantises clip-space depth; depth beyond 2 (the far plane) becomes "no depth".
///
/// # Errors
/// If a value is not finite.
pub fn encode_depth(z_clip: &[f32]) -> Result<Vec<u16>, QuantizeError> {
    let near_enough: Vec<[f32; 1]> = z_clip.iter().map(|z| [if *z > DEPTH.max[0] as f32 { 0.0 } else { *z }]).collect();
    Ok(DEPTH.encode(&near_enough)?.into_iter().map(|[q]| q).collect())
}

/// Clip-space depth from bins.
pub fn decode_depth(bins: &[u16]) -> Vec<f32> {
    let bins: Vec<[u16; 1]> = bins.iter().map(|q| [*q]).collect();
    DEPTH.decode(&bins).into_iter().map(|[z]| z).collect()
}

/// (r, theta, phi) of a vector: `theta = atan2(hypot(x, y), z)`, `phi = atan2(y, x)`, radians.
///
/// The zero vector gives zeros whatever the signs of its zeros (`atan2` alone would make pi of some).
pub fn to_spherical(n: [f32; 3]) -> [f32; 3] {
    if n == [0.0; 3] {
        return [0.0; 3];
    }
    let [x, y, z] = n.map(f64::from);
    let across = x.hypot(y);
    [across.hypot(z) as f32, across.atan2(z) as f32, y.atan2(x) as f32]
}

/// The vector with these spherical coordinates.
pub fn from_spherical(s: [f32; 3]) -> [f32; 3] {
    let [r, theta, phi] = s.map(f64::from);
    [r * theta.sin() * phi.cos(), r * theta.sin() * phi.sin(), r * theta.cos()].map(|v| v as f32)
}

/// Quantises unit normals (zero = none) with [`NORMALS`] or [`NORMALS_GENERIC`]; lengths just above 1 count as 1.
///
/// # Errors
/// If a component is not finite.
pub fn encode_normals(quantizer: &Quantizer<3>, normals: &[[f32; 3]]) -> Result<Vec<[u16; 3]>, QuantizeError> {
    // The f32 nearest to pi lies above pi, so the angles' ends are cut, too.
    let spherical = |n: &[f32; 3]| {
        let s = to_spherical(*n);
        [s[0].min(1.0), s[1], s[2]]
    };
    quantizer.encode(&normals.iter().map(spherical).collect::<Vec<_>>())
}

/// Normals from bins; not renormalised (r is stored, too).
pub fn decode_normals(quantizer: &Quantizer<3>, bins: &[[u16; 3]]) -> Vec<[f32; 3]> {
    quantizer.decode(bins).into_iter().map(from_spherical).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_round_trip<const N: usize>(quantizer: &Quantizer<N>) {
        let least = u32::from(quantizer.mask_bin);
        let bins: Vec<[u16; N]> = (least..1 << quantizer.bits).map(|q| [q as u16; N]).collect();
        let values = quantizer.decode(&bins);
        for c in 0..N {
            assert!((f64::from(values[0][c]) - quantizer.min[c]).abs() < 1e-6);
            assert!((f64::from(values[values.len() - 1][c]) - quantizer.max[c]).abs() < 1e-6);
        }
        assert_eq!(quantizer.encode(&values).unwrap()[1..], bins[1..]);
    }

    #[test]
    fn every_bin_survives_a_round_trip() {
        check_round_trip(&DEPTH);
        check_round_trip(&UV);
        check_round_trip(&AMBIENT);
        check_round_trip(&NORMALS);
        check_round_trip(&NORMALS_GENERIC);
        check_round_trip(&VERTEX_CANONICAL);
    }

    #[test]
    fn zero_is_masked_only_when_alone() {
        assert_eq!(UV.encode(&[[0.0; 3], [-0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]).unwrap(), [[0; 3], [0; 3], [1, 65535, 1]]);
        assert_eq!(UV.decode(&[[0; 3]]), [[0.0; 3]]);
        assert_eq!(encode_depth(&[0.0, -0.1, 2.0, 2.1]).unwrap(), [0, 1, 65535, 0]);
    }

    #[test]
    fn out_of_range_is_an_error_with_its_place() {
        let error = AMBIENT.encode(&[[0.5, 0.5], [0.5, 1.01]]).unwrap_err();
        assert!(matches!(error, QuantizeError::AboveMax { entry: 1, channel: 1, .. }), "{error}");
        assert!(UV.encode(&[[f32::NAN, 0.0, 0.0]]).is_err());
    }

    /// Each figure is worked out by hand: `(v - min) (2^bits - 1 - m) / (max - min) + m`, half to even.
    #[test]
    fn bins_are_those_of_the_specification() {
        // 32767 bins for each unit; 0.5 gives 16384.5 and 1.5 gives 49151.5
        assert_eq!(encode_depth(&[1.0, 0.5, 1.5, 2.0]).unwrap(), [32768, 16384, 49152, 65535]);
        assert_eq!(encode_depth(&[0.0, -0.0, -3.0, 2.0001, 9.0]).unwrap(), [0, 0, 1, 0, 0]);
        // 65534 bins; a quarter gives 16384.5
        assert_eq!(UV.encode(&[[0.25, 0.5, 1.0]]).unwrap(), [[16384, 32768, 65535]]);
        assert_eq!(UV.encode(&[[-1.0, 0.0, 0.0], [0.0; 3]]).unwrap(), [[1, 1, 1], [0, 0, 0]]);
        // 254 bins; a quarter gives 64.5, three of them 191.5
        assert_eq!(AMBIENT.encode(&[[0.25, 0.75], [0.5, -0.1]]).unwrap(), [[64, 192], [128, 1]]);
        // theta has 254 bins for pi, phi for 2 pi
        let half = 0.5f32.sqrt();
        let normals = [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [half, half, 0.0]];
        let bins = [[255, 1, 128], [255, 128, 128], [255, 128, 255], [255, 255, 128], [255, 128, 160]];
        assert_eq!(encode_normals(&NORMALS, &normals).unwrap(), bins);
        // no bin is reserved: 32767.5 bins for each unit of the first three, 163837.5 of the last two
        let vertices = [[-1.0, -1.0, -1.5, -0.2, -0.2], [1.0, 1.0, 0.5, 0.2, 0.2], [0.0, -2.0, -0.5, 0.1, 0.0]];
        let bins = [[0; 5], [65535; 5], [32768, 0, 32768, 49151, 32768]];
        assert_eq!(VERTEX_CANONICAL.encode(&vertices).unwrap(), bins);
        assert!(VERTEX_CANONICAL.encode(&[[0.0, 0.0, 0.6, 0.0, 0.0]]).unwrap_err().to_string().contains("above 0.5"));
    }

    #[test]
    fn background_normals_are_zero_whatever_the_signs_of_their_zeros() {
        let zeros = [[0.0, 0.0, 0.0], [-0.0, 0.0, -0.0], [-0.0, -0.0, 0.0], [0.0, -0.0, -0.0]];
        assert_eq!(encode_normals(&NORMALS, &zeros).unwrap(), [[0; 3]; 4]);
        assert_eq!(decode_normals(&NORMALS, &[[0; 3]]), [[0.0; 3]]);
    }

    #[test]
    fn normals_come_back_within_a_bin() {
        let mut worst = 0.0f32;
        let normals: Vec<[f32; 3]> = (0..1000)
            .map(|i| {
                let (z, a) = (1.0 - (i as f32 + 0.5) / 500.0, i as f32 * 2.399_963);
                let r = (1.0 - z * z).sqrt();
                [r * a.cos(), r * a.sin(), z]
            })
            .collect();
        let back = decode_normals(&NORMALS, &encode_normals(&NORMALS, &normals).unwrap());
        for (n, b) in normals.iter().zip(back) {
            worst = worst.max(glam::Vec3::from(*n).angle_between(glam::Vec3::from(b)).to_degrees());
        }
        assert!(worst < 0.8, "{worst} degrees");
    }
}
