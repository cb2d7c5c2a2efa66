//! How far the reference is from itself: what its own f32 differs from its f64, tensor by tensor, in
//! `noise_floor.json`.
//!
//! Tolerances are made for one set's networks. Deeper ones round more often, the reference's as ours, so that a
//! tolerance never is below [`ABOVE`] times what the reference says of its own. Knows no network.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::check::json;

/// Tolerances of the first set lie 3 to 10 times above the noise that it states.
pub const ABOVE: f64 = 6.0;

/// What a folder says of its noise.
pub struct NoiseFloor(Value);

impl NoiseFloor {
    /// Reads it; a folder without says nothing.
    ///
    /// # Errors
    /// If it is there and cannot be read, or is no table.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join("noise_floor.json");
        let floor = if path.is_file() { json(&path)? } else { Value::Object(serde_json::Map::new()) };
        floor.as_object().context("noise_floor.json is no table")?;
        Ok(Self(floor))
    }

    /// `tolerance`, or more where tensors whose names begin like this are noisier.
    pub fn above(&self, prefix: &str, tolerance: f64) -> f64 {
        let tensors = self.0.as_object().into_iter().flatten().filter(|(name, _)| name.starts_with(prefix));
        let noise = tensors.filter_map(|(_, about)| about.get("max_abs_f32_vs_f64")?.as_f64());
        noise.filter(|noise| noise.is_finite()).fold(tolerance, |most, noise| most.max(ABOVE * noise))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerances_rise_with_the_noise_of_their_kind_alone() {
        let dir = std::env::temp_dir().join(format!("effigy-parity-noise-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        assert_eq!(NoiseFloor::read(&dir).unwrap().above("unet.cn_", 5e-5), 5e-5, "nothing is said");
        let text = r#"{"unet.cn_down.0": {"max_abs_f32_vs_f64": 1e-6}, "unet.cn_down.1": {"max_abs_f32_vs_f64": 2e-5}, "unet.out_plain": {"max_abs_f32_vs_f64": 1e-6, "rms": 1}}"#;
        std::fs::write(dir.join("noise_floor.json"), text).unwrap();
        let floor = NoiseFloor::read(&dir).unwrap();
        assert_eq!((floor.above("unet.cn_", 5e-5), floor.above("unet.out_", 1.5e-5)), (ABOVE * 2e-5, 1.5e-5));
        std::fs::write(dir.join("noise_floor.json"), "[]").unwrap();
        assert!(NoiseFloor::read(&dir).is_err());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
