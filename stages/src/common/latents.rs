//! Pictures and latents between files and tensors: what `encode_latents` wrote, and pictures in [-1, 1].
//!
//! No stage. Knows no network.

use crate::common::arrays::{array, read_arrays};
use crate::common::media::Image;
use anyhow::{Context, Result};
use models::vae::Posterior;
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// The moments in a file that `encode_latents` wrote, `[C, h, w]` each.
///
/// # Errors
/// If the file is missing, damaged, or lacks an array; the message names it.
pub fn read_posterior(path: &Path) -> Result<Posterior> {
    let read = || -> Result<Posterior> {
        let arrays = read_arrays(path)?;
        let moments = |name: &str| -> Result<Tensor> {
            let moments = array(&arrays, name)?;
            let values: Vec<f32> = moments.to_f16()?.into_iter().map(f32::from).collect();
            let shape: Vec<i64> = moments.shape.iter().map(|&n| n as i64).collect();
            Ok(Tensor::from_slice(&values).view(&shape[..]))
        };
        Ok(Posterior { mean: moments("mean")?, logvar: moments("logvar")? })
    };
    read().with_context(|| format!("the latent {}", path.display()))
}

/// An image as a tensor `[1, 3, H, W]` in [-1, 1].
pub fn to_tensor(image: &Image) -> Tensor {
    let (height, width) = (image.height as i64, image.width as i64);
    let bytes = Tensor::from_slice(&image.data).view([1, height, width, 3]).permute([0, 3, 1, 2]);
    (bytes.to_kind(Kind::Float) / 127.5 - 1.0).contiguous()
}

/// A tensor `[3, H, W]` in [-1, 1] as an image, rounded to 8 bits.
///
/// # Errors
/// If it is of another shape.
pub fn to_image(tensor: &Tensor) -> Result<Image> {
    let (channels, height, width) = tensor.size3()?;
    let bytes = ((tensor + 1.0) * 127.5).round().clamp(0.0, 255.0).to_kind(Kind::Uint8).to_device(Device::Cpu);
    let data: Vec<u8> = Vec::try_from(bytes.permute([1, 2, 0]).contiguous().flatten(0, -1))?;
    Ok(Image::new(width as usize, height as usize, channels as usize, data))
}
