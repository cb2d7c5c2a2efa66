//! A model's folder as diffusers and transformers lay it out: a configuration and weights, under one of many names.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{WeightsError, read_json};

/// A model folder: `config.json` beside `diffusion_pytorch_model.safetensors` or one of its kin, see
/// [`ModelFolder::open`].
pub struct ModelFolder {
    /// The parsed `config.json`.
    pub config: Value,
    /// Its path, for error messages.
    pub config_path: PathBuf,
    /// The weights, as [`super::Source::open`] takes them: one file, or the index of several.
    pub weights: PathBuf,
}

impl ModelFolder {
    /// Opens the folder of a network of diffusers. Safetensors (`diffusion_pytorch_model.safetensors`) go before
    /// checkpoints (`.bin`), full precision before the variants `fp16` and `bf16`, one file before several with an
    /// index.
    pub fn open(dir: &Path) -> Result<Self, WeightsError> {
        Self::with_names(dir, "diffusion_pytorch_model", "diffusion_pytorch_model")
    }

    /// Opens the folder of a network of transformers: the same, named `model.safetensors` and `pytorch_model.bin`.
    pub fn open_transformers(dir: &Path) -> Result<Self, WeightsError> {
        Self::with_names(dir, "model", "pytorch_model")
    }

    fn with_names(dir: &Path, safe: &str, checkpoint: &str) -> Result<Self, WeightsError> {
        let config_path = dir.join("config.json");
        if !config_path.exists() {
            let folder = dir.is_dir();
            return Err(WeightsError::Config {
                place: dir.display().to_string(),
                reason: if folder { "there is no config.json in this folder" } else { "there is no such folder" }
                    .into(),
                hint:
                    "name the folder of a model in the diffusers layout, with `unet/`, `vae/` and `scheduler/` in it; \
                       in the cache of a download that is the one below `snapshots/`"
                        .into(),
            });
        }
        let config = read_json(&config_path)?;
        let mut candidates = Vec::new();
        for (stem, extension) in [(safe, "safetensors"), (checkpoint, "bin")] {
            candidates.extend([format!("{stem}.{extension}"), format!("{stem}.{extension}.index.json")]);
            for variant in ["fp16", "bf16"] {
                candidates.extend([
                    format!("{stem}.{variant}.{extension}"),
                    format!("{stem}.{extension}.index.{variant}.json"),
                    format!("{stem}.{variant}.{extension}.index.json"),
                ]);
            }
        }
        match candidates.iter().map(|name| dir.join(name)).find(|path| path.is_file()) {
            Some(weights) => Ok(Self { config, config_path, weights }),
            None => Err(WeightsError::Config {
                place: dir.display().to_string(),
                reason: format!("there is no {} in this folder", candidates[0]),
                hint: "is it a folder of a model in the diffusers layout, with its weights? \
                       An index, the variants fp16 and bf16, and .bin will do as well"
                    .into(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_folder_lacks_is_named_and_where_it_may_be() {
        let dir = tempfile::tempdir().unwrap();
        let error = |dir: &Path| ModelFolder::open(dir).err().expect("it is not whole").to_string();
        let said = error(&dir.path().join("unet"));
        assert!(said.contains("unet: there is no such folder") && said.contains("`snapshots/`"), "{said}");
        assert!(error(dir.path()).contains("there is no config.json in this folder"));
        std::fs::write(dir.path().join("config.json"), "{}").unwrap();
        assert!(error(dir.path()).contains("there is no diffusion_pytorch_model.safetensors in this folder"));
        std::fs::write(dir.path().join("config.json"), "{").unwrap();
        assert!(error(dir.path()).contains("config.json: it is not JSON"));
    }
}
