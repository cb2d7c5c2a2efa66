//! `draw_conditions`: what the networks were given, as pictures for `make_video`, beside what they made of it.
//!
//! reads: gbuffer, render?, participant?; with avatar?, backbone?
//! writes: channel, render (RGB PNG)
//!
//! Each row becomes several, one a channel: `render` if there is one, then depth, canonical coordinates, normals,
//! ambient coordinates and mask, and with an avatar what its feature maps say of the surface (`features`): the first
//! three principal components over the film as red, green and blue, each of mean 0.5 and deviation 0.2. The picture is
//! in the column `render`. A group is a film: its depths share one scale, so that grey stands for one distance in all
//! of it. Knows no cameras and no truth.

use crate::common::avatar_description::{Description, TRAINED, trained};
use crate::common::backbone;
use crate::common::gbuffers::{self, CHANNELS};
use crate::common::media::Image;
use anyhow::{Context, Result};
use geometry::gbuffer::GBuffer;
use manifests::Type;
use models::avatar::Avatar;
use protocol::{Cx, Grain, OutRow, Row, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;
use std::slice::from_ref;
use tch::{Device, Kind, Tensor};

/// Parameters: none.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {}

fn def() -> StageDef {
    StageDef::new("draw_conditions", 2, Grain::Group)
        .doc("Draws each channel of the G-buffers of a film, with one scale of depth for all of it, and an avatar's features.")
        .reads([("gbuffer", Type::Blob)])
        .may_read([("render", Type::Blob), ("participant", Type::I64)])
        .may_take("avatar", TRAINED)
        .may_take("backbone", backbone::COLUMNS)
        .writes([("channel", Type::Str), ("render", Type::Blob)])
}

protocol::register!(Params, def, |_: Params, cx: &Cx<'_>| {
    let learned = match cx.maybe_with("avatar") {
        None => None,
        Some(avatar) => {
            let backbone = cx.maybe_with("backbone").context("`avatar` comes with its `backbone`")?;
            Some(trained(avatar, backbone)?)
        }
    };
    anyhow::Ok(DrawConditions { learned })
});

struct DrawConditions {
    learned: Option<(Description, Avatar)>,
}

impl Stage for DrawConditions {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.draw(unit, cx)).collect()
    }
}

impl DrawConditions {
    fn draw(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let rows = unit.rows();
        let (span, colors) = self.scales(&rows)?;
        let mut out = Rows::new();
        for (i, row) in rows.iter().enumerate() {
            let gbuffer = gbuffers::read(&row.path("gbuffer")?)?;
            let file = |channel: &str| cx.file(unit, &format!("{i:05}-{channel}.png"));
            if let Some(render) = row.maybe_path("render")? {
                // a file that a unit puts out lies in its own folder
                let path = file("render");
                std::fs::copy(&render, &path)?;
                out.push(OutRow::of(i).str("channel", "render").file("render", &path));
            }
            let mut pictures: Vec<(&str, Image)> =
                CHANNELS.into_iter().zip(gbuffers::pictures(&gbuffer, span)).collect();
            if let Some((features, colors)) = self.features(row, &gbuffer)?.zip(colors.as_ref()) {
                pictures.push(("features", colors.paint(&features, &gbuffer)));
            }
            for (channel, picture) in pictures {
                let path = file(channel);
                picture.write_png(&path)?;
                out.push(OutRow::of(i).str("channel", channel).file("render", &path));
            }
        }
        Ok(out)
    }

    /// What the avatar has learned of each place that is seen, `[places, C]`; none without an avatar, or one without
    /// maps.
    fn features(&self, row: &Row<'_>, gbuffer: &GBuffer) -> Result<Option<Tensor>> {
        let Some((description, avatar)) = &self.learned else { return Ok(None) };
        let mut tensors = gbuffers::to_tensors(from_ref(gbuffer))?;
        tensors.whose = description.whose(from_ref(row))?;
        let seen = Tensor::from_slice(&gbuffer.mask).nonzero().squeeze_dim(1);
        let all = tch::no_grad(|| avatar.features(&tensors)).map(|features| features.to_device(Device::Cpu));
        Ok(all.map(|all| all.squeeze_dim(0).flatten(1, 2).index_select(1, &seen).transpose(0, 1)))
    }

    /// The depths of a film, and how its features are painted; none if there are none. All pictures are read again to
    /// be drawn: those of a long film at 512 px do not fit into memory together.
    fn scales(&self, rows: &[Row<'_>]) -> Result<([f32; 2], Option<Colors>)> {
        let (mut span, mut sums) = (None, None);
        for row in rows {
            let gbuffer = gbuffers::read(&row.path("gbuffer")?)?;
            span = [span, gbuffers::depth_span(&gbuffer)].into_iter().flatten().reduce(gbuffers::both_spans);
            if let Some(features) = self.features(row, &gbuffer)? {
                sums.get_or_insert_with(|| Sums::new(features.size()[1])).add(&features);
            }
        }
        Ok((span.unwrap_or_default(), sums.filter(|sums: &Sums| sums.count > 0.0).map(|sums| sums.colors())))
    }
}

/// Sums over places, in f64.
struct Sums {
    count: f64,
    /// `[C]`.
    sum: Tensor,
    /// `[C, C]`.
    products: Tensor,
}

impl Sums {
    fn new(channels: i64) -> Sums {
        let zeros = |shape: &[i64]| Tensor::zeros(shape, (Kind::Double, Device::Cpu));
        Sums { count: 0.0, sum: zeros(&[channels]), products: zeros(&[channels, channels]) }
    }

    fn add(&mut self, features: &Tensor) {
        let features = features.to_kind(Kind::Double);
        self.count += features.size()[0] as f64;
        self.sum += features.sum_dim_intlist(0, false, Kind::Double);
        self.products += features.transpose(0, 1).matmul(&features);
    }

    fn colors(&self) -> Colors {
        let mean = &self.sum / self.count;
        let covariance = &self.products / self.count - mean.outer(&mean);
        let (variances, axes) = covariance.linalg_eigh("L");
        // ascending; one or two channels give one or two colours
        let shown = variances.size()[0].min(3);
        let pick = Tensor::arange_start_step(
            variances.size()[0] - 1,
            variances.size()[0] - 1 - shown,
            -1,
            (Kind::Int64, Device::Cpu),
        );
        let (variances, axes) = (variances.index_select(0, &pick), axes.index_select(1, &pick));
        // an axis has no direction of its own: its largest share counts as positive
        let largest = axes.gather(0, &axes.abs().argmax(0, true), false);
        let scale = largest.sign() * 0.2 / variances.clamp_min(1e-12).sqrt();
        Colors { mean, axes: axes * scale }
    }
}

/// Features to colours.
struct Colors {
    /// `[C]`.
    mean: Tensor,
    /// `[C, up to 3]`.
    axes: Tensor,
}

impl Colors {
    /// A picture, white where nothing is seen; `features` `[places, C]` in the order of the mask.
    fn paint(&self, features: &Tensor, gbuffer: &GBuffer) -> Image {
        let colors = ((features.to_kind(Kind::Double) - &self.mean).matmul(&self.axes) + 0.5).clamp(0.0, 1.0) * 255.0;
        let shown = colors.size()[1] as usize;
        let colors: Vec<f64> = Vec::try_from(colors.round().contiguous().view(-1)).expect("a flat f64 tensor");
        let mut colors = colors.chunks_exact(shown);
        let pixel = |inside: &bool| match inside {
            true => {
                let color = colors.next().expect("a colour for each place that is seen");
                [0, 1, 2].map(|k| color.get(k).map_or(128, |value| *value as u8))
            }
            false => [255; 3],
        };
        let data = gbuffer.mask.iter().map(pixel).collect::<Vec<_>>().concat();
        Image::new(gbuffer.width as usize, gbuffer.height as usize, 3, data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_varies_most_is_red_and_the_mean_is_grey() {
        // three channels: the second varies most, the first a little, the third not at all
        let features: Vec<f32> = (0..200).flat_map(|i| [(i % 2) as f32, 5.0 * (i % 4 / 2) as f32, 7.0]).collect();
        let features = Tensor::from_slice(&features).view([200, 3]);
        let mut sums = Sums::new(3);
        // in two parts, as of two pictures
        [0, 100].iter().for_each(|from| sums.add(&features.narrow(0, *from, 100)));
        let colors = sums.colors();
        let mut gbuffer = GBuffer { width: 5, height: 1, depth: vec![0.0; 5], ..GBuffer::default() };
        gbuffer.mask = vec![true, true, false, true, true];
        let picture = colors.paint(&features.narrow(0, 0, 4), &gbuffer);
        let pixel = |x: usize| &picture.data[3 * x..3 * x + 3];
        let (low, high) = (77, 179); // 0.5 -+ 0.2, of 255
        let near = |x: usize, want: [i32; 2]| {
            let got = pixel(x);
            (0..2).all(|k| (i32::from(got[k]) - want[k]).abs() <= 1)
        };
        assert!(
            near(0, [low, low]) && near(1, [low, high]) && near(3, [high, low]) && near(4, [high, high]),
            "{:?}",
            picture.data
        );
        assert_eq!(pixel(2), [255; 3]);
        assert_eq!(pixel(0)[2], 128, "what does not vary");
    }
}
