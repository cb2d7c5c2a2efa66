//! G-buffers on disk: the quantised integers of `geometry::gbuffer` as named arrays in one safetensors file.
//!
//! No stage, but what `raster_gbuffer` puts out and the networks, baselines and scores take in. One file, because a
//! folder of five PNGs for each of many thousand samples costs more in files than in pixels; the reference's folder of
//! PNGs is an export. And how they are shown to people. Knows no cameras and no meshes.

use crate::common::arrays::{Array, Arrays, array, read_arrays, write_arrays};
use crate::common::media::Image;
use anyhow::{Context, Result};
use geometry::gbuffer::{EncodedGBuffer, GBuffer};
use std::path::Path;
use tch::Tensor;

/// Writes a G-buffer.
///
/// # Errors
/// If a value is out of its quantiser's range, or the file cannot be written.
pub fn write(path: &Path, gbuffer: &GBuffer) -> Result<()> {
    let encoded = gbuffer.encode().context("a G-buffer value is out of range")?;
    let (h, w) = (encoded.height as usize, encoded.width as usize);
    let arrays: Arrays = [
        ("depths", Array::of_u16(&[h, w], encoded.depths)),
        ("uv", Array::of_u16(&[h, w, 3], encoded.uv.into_iter().flatten())),
        ("normals", Array::of_u8(&[h, w, 3], encoded.normals.into_iter().flatten())),
        ("uv_ambient", Array::of_u8(&[h, w, 3], encoded.uv_ambient.into_iter().flatten())),
        ("mask", Array::of_u8(&[h, w], encoded.mask)),
    ]
    .map(|(name, array)| (name.to_string(), array))
    .into();
    write_arrays(path, &arrays)
}

/// Reads a G-buffer.
///
/// # Errors
/// If the file is missing, damaged, or lacks an array; the message names it.
pub fn read(path: &Path) -> Result<GBuffer> {
    let parse = || -> Result<GBuffer> {
        let arrays = read_arrays(path)?;
        let depths = array(&arrays, "depths")?;
        let [height, width] = depths.shape[..] else {
            anyhow::bail!("`depths` is {:?}, expected [H, W]", depths.shape)
        };
        let triples =
            |name: &str| -> Result<Vec<[u8; 3]>> { Ok(array(&arrays, name)?.to_u8()?.as_chunks().0.to_vec()) };
        let encoded = EncodedGBuffer {
            width: width as u32,
            height: height as u32,
            depths: depths.to_u16()?,
            uv: array(&arrays, "uv")?.to_u16()?.as_chunks().0.to_vec(),
            normals: triples("normals")?,
            uv_ambient: triples("uv_ambient")?,
            mask: array(&arrays, "mask")?.to_u8()?,
        };
        let lengths = [encoded.uv.len(), encoded.normals.len(), encoded.uv_ambient.len(), encoded.mask.len()];
        anyhow::ensure!(lengths == [width * height; 4], "its arrays are of different sizes");
        Ok(encoded.decode())
    };
    parse().with_context(|| format!("the G-buffer {}", path.display()))
}

/// G-buffers as one batch of tensors, `[B, H, W, ..]`.
///
/// # Errors
/// If they are of different sizes.
pub fn to_tensors(gbuffers: &[GBuffer]) -> Result<models::triplane::GBuffer> {
    let first = gbuffers.first().context("a batch of no G-buffers")?;
    let (h, w) = (i64::from(first.height), i64::from(first.width));
    anyhow::ensure!(
        gbuffers.iter().all(|g| (g.height, g.width) == (first.height, first.width)),
        "G-buffers of different sizes cannot be one batch"
    );
    let stack = |flat: Vec<f32>, shape: &[i64]| Tensor::from_slice(&flat).view(shape);
    let b = gbuffers.len() as i64;
    let all = |f: &dyn Fn(&GBuffer) -> Vec<f32>| gbuffers.iter().flat_map(f).collect::<Vec<f32>>();
    Ok(models::triplane::GBuffer {
        depth: stack(all(&|g| g.depth.clone()), &[b, h, w]),
        canonical: stack(all(&|g| g.uv.as_flattened().to_vec()), &[b, h, w, 3]),
        normals: stack(all(&|g| g.normals.as_flattened().to_vec()), &[b, h, w, 3]),
        ambient: Some(stack(all(&|g| g.ambient.as_flattened().to_vec()), &[b, h, w, 2])),
        mask: stack(all(&|g| g.mask.iter().map(|&inside| f32::from(inside)).collect()), &[b, h, w]),
        whose: Vec::new(),
    })
}

/// What [`pictures`] shows, in its order.
pub const CHANNELS: [&str; 5] = ["depth", "canonical", "normals", "ambient", "mask"];

/// The nearest and the farthest depth of a G-buffer, clip space; none without a surface.
pub fn depth_span(gbuffer: &GBuffer) -> Option<[f32; 2]> {
    let seen = gbuffer.depth.iter().zip(&gbuffer.mask).filter(|(_, inside)| **inside);
    seen.map(|(depth, _)| [*depth; 2]).reduce(both_spans)
}

/// The span of two.
pub fn both_spans([near, far]: [f32; 2], [n, f]: [f32; 2]) -> [f32; 2] {
    [near.min(n), far.max(f)]
}

/// The [`CHANNELS`] of a G-buffer as pictures for people, background white: depth from light to dark over `span`,
/// canonical and ambient coordinates as they are stored, normals from [-1, 1] to [0, 1].
pub fn pictures(gbuffer: &GBuffer, span: [f32; 2]) -> [Image; 5] {
    let picture = |color: &dyn Fn(usize) -> [f32; 3]| {
        let data = (0..gbuffer.mask.len())
            .flat_map(|i| if gbuffer.mask[i] { color(i) } else { [1.0; 3] })
            .map(|value| (value * 255.0).round().clamp(0.0, 255.0) as u8)
            .collect();
        Image::new(gbuffer.width as usize, gbuffer.height as usize, 3, data)
    };
    let [near, far] = span;
    let length = (far - near).max(1e-6);
    [
        picture(&|i| [1.0 - 0.9 * (gbuffer.depth[i] - near) / length; 3]),
        picture(&|i| gbuffer.uv[i]),
        picture(&|i| gbuffer.normals[i].map(|n| 0.5 + 0.5 * n)),
        picture(&|i| [gbuffer.ambient[i][0], gbuffer.ambient[i][1], 0.5]),
        picture(&|_| [0.15; 3]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_round_trip_up_to_quantisation() {
        let gbuffer = GBuffer {
            width: 2,
            height: 1,
            depth: vec![0.9, 0.0],
            uv: vec![[0.25, 0.5, 0.75], [0.0; 3]],
            normals: vec![[0.0, 0.0, 1.0], [0.0; 3]],
            ambient: vec![[0.5, 0.4], [0.0; 2]],
            mask: vec![true, false],
        };
        let path = std::env::temp_dir().join(format!("effigy-gbuffer-{}.safetensors", std::process::id()));
        write(&path, &gbuffer).unwrap();
        let back = read(&path).unwrap();
        assert_eq!(back.mask, gbuffer.mask);
        assert_eq!(back.uv[1], [0.0; 3], "background stays background");
        assert!((back.depth[0] - 0.9).abs() < 1e-4 && (back.ambient[0][1] - 0.4).abs() < 1e-2);
        std::fs::write(&path, b"nonsense").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("effigy-gbuffer"));
        std::fs::remove_file(&path).unwrap();
    }
}
