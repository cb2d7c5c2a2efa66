//! What a camera makes of the light that reaches it: a colour response of its own, and noise.
//!
//! The rig's cameras differ a little, as real ones do; a colour calibration goes with the capture that undoes the
//! response, and not the noise. All of it follows from serial, moment and place in the picture, so a picture can be
//! taken again. Knows no heads and no files.

use glam::{DMat3, DVec3};

use super::Frame;
use super::shade::encode;

/// A camera's sensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Sensor {
    /// Linear light to what is recorded.
    response: DMat3,
    seed: u64,
}

/// Noise of a white sample, in parts of it, and what is left of it in the dark (linear light).
const SHOT: f32 = 0.010;
const READ: f32 = 0.0006;

impl Sensor {
    /// The sensor of the camera with this serial: it takes 0 to 10 % of each channel, and mixes channels by up to 2 %.
    /// No channel is amplified, so nothing is cut off that the calibration could not bring back.
    pub fn new(serial: &str) -> Self {
        let seed =
            serial.bytes().fold(0xCBF2_9CE4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01B3));
        let part = |i: u64| (mix(seed ^ i) >> 11) as f64 / (1u64 << 53) as f64;
        let mut rows = [[0.0f64; 3]; 3];
        for (r, row) in rows.iter_mut().enumerate() {
            let gain = 1.0 - 0.10 * part(r as u64);
            let cross = [0.02 * part(10 + r as u64), 0.02 * part(20 + r as u64)];
            row[(r + 1) % 3] = gain * cross[0];
            row[(r + 2) % 3] = gain * cross[1];
            row[r] = gain * (1.0 - cross[0] - cross[1]);
        }
        let [a, b, c] = rows.map(DVec3::from);
        Self { response: DMat3::from_cols(a, b, c).transpose(), seed }
    }

    /// Rows first: takes recorded linear light back to the light that there was.
    pub fn correction(&self) -> [f64; 9] {
        self.response.inverse().transpose().to_cols_array()
    }

    /// Records a picture: response and noise. `moment` tells pictures of the same camera apart.
    pub fn record(&self, frame: &mut Frame, moment: u64) {
        let linear: [f32; 256] = std::array::from_fn(|i| {
            let x = i as f32 / 255.0;
            if x <= 0.040_45 { x / 12.92 } else { ((x + 0.055) / 1.055).powf(2.4) }
        });
        let response = self.response.as_mat3();
        let seed = mix(self.seed ^ moment.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        for (i, pixel) in frame.rgb.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            let light = response * glam::Vec3::from(pixel.map(|c| linear[c as usize]));
            let draws = mix(seed ^ i as u64);
            for (c, sample) in pixel.iter_mut().enumerate() {
                let value = light[c];
                let sigma = SHOT * value.max(0.0).sqrt() + READ;
                *sample = encode(value + sigma * normal(draws >> (16 * c)));
            }
        }
    }
}

/// SplitMix64's last steps: a well-mixed number.
fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// About a standard normal from 16 random bits: the sum of four, its mean taken off.
fn normal(bits: u64) -> f32 {
    let sum: u64 = (0..4).map(|k| (bits >> (4 * k)) & 15).sum();
    (sum as f32 - 30.0) / 9.22
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::SERIALS;
    use crate::colour::Correction;

    fn grey(level: u8) -> Frame {
        Frame { width: 64, height: 64, rgb: [level, level / 2, 200].repeat(4096), alpha: vec![255; 4096] }
    }

    fn means(frame: &Frame) -> [f64; 3] {
        [0, 1, 2].map(|c| frame.rgb.iter().skip(c).step_by(3).map(|x| f64::from(*x)).sum::<f64>() / 4096.0)
    }

    #[test]
    fn cameras_differ_and_their_calibration_undoes_it() {
        let mut responses = Vec::new();
        for serial in SERIALS {
            let sensor = Sensor::new(serial);
            let mut frame = grey(180);
            sensor.record(&mut frame, 0);
            responses.push(means(&frame));
            // the correction is of three terms, and cut to bytes: half a level is lost
            Correction::Polynomial(sensor.correction().to_vec()).apply(&mut frame.rgb);
            for (found, expected) in means(&frame).into_iter().zip([180.0, 90.0, 200.0]) {
                assert!((found + 0.5 - expected).abs() < 1.0, "{serial}: {found} for {expected}");
            }
        }
        let spread = |c: usize| {
            let of: Vec<f64> = responses.iter().map(|r| r[c]).collect();
            of.iter().copied().fold(0.0, f64::max) - of.iter().copied().fold(255.0, f64::min)
        };
        assert!((0..3).all(|c| spread(c) > 3.0), "{responses:?}");
    }

    #[test]
    fn noise_is_slight_and_the_same_again() {
        let sensor = Sensor::new(SERIALS[3]);
        let take = |moment| {
            let mut frame = grey(128);
            sensor.record(&mut frame, moment);
            frame
        };
        assert_eq!(take(1), take(1));
        assert_ne!(take(1), take(2));
        let mean = means(&take(1))[0];
        let variance = take(1).rgb.iter().step_by(3).map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / 4096.0;
        assert!((0.7..2.5).contains(&variance.sqrt()), "{} levels", variance.sqrt());
    }
}
