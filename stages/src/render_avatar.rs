//! `render_avatar`: what the avatar looks like for a G-buffer and an expression code.
//!
//! reads: gbuffer, expression, eyes?, lids?, participant? (of an avatar of several people: whom to show); with avatar
//! (config, checkpoint), backbone
//! writes: render (RGB PNG)
//!
//! Ancestral DDPM sampling with trailing spacing, as in the paper, or one of the samplers of fewer steps; all frames
//! share one initial noise and the same noise at every step, which keeps neighbouring frames alike without any temporal
//! network (DiffusionAvatars, section 5.2). So a row is a unit: a frame's picture does not depend on the others.

use crate::common::avatar_description::{Description, TRAINED, trained};
use crate::common::avatar_parameters::EYE_COLUMNS;
use crate::common::backbone;
use crate::common::gbuffers;
use crate::common::latents::to_image;
use anyhow::Result;
use manifests::Type;
use models::avatar::Avatar;
use models::schedule;
use models::vae::Vae;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::nn::VarStore;

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// How the noise is taken away.
    #[serde(default)]
    sampler: Sampler,
    /// Sampling steps; the paper takes 20.
    #[serde(default = "steps")]
    #[schemars(range(min = 1))]
    steps: usize,
    /// Seed of the noise that all frames share; the paper's is 181998.
    #[serde(default = "seed")]
    seed: u64,
}

/// How the noise is taken away.
#[derive(Clone, Copy, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Sampler {
    /// Ancestral, with noise in every step (the paper).
    #[default]
    Ddpm,
    /// Without noise, first order.
    Ddim,
    /// Without noise, second order: for few steps.
    #[serde(rename = "unipc")]
    UniPc,
}

fn steps() -> usize {
    20
}
fn seed() -> u64 {
    181_998
}

fn def() -> StageDef {
    StageDef::new("render_avatar", 5, Grain::Row)
        .doc("Samples the avatar's image for each G-buffer and expression code.")
        .reads([("gbuffer", Type::Blob), ("expression", Type::Floats(0))])
        .may_read(EYE_COLUMNS)
        .may_read([("participant", Type::I64)])
        .with("avatar", TRAINED)
        .with("backbone", backbone::COLUMNS)
        .writes([("render", Type::Blob)])
        .batch(4)
        .memory_mb(1000)
}

protocol::register!(Params, def, |params, cx: &Cx<'_>| {
    let backbone = cx.with("backbone")?;
    let (description, avatar) = trained(cx.with("avatar")?, backbone)?;
    let (vs, vae) = backbone::load_vae(backbone)?;
    anyhow::Ok(RenderAvatar { params, description, avatar, vae, _vs: vs })
});

struct RenderAvatar {
    params: Params,
    description: Description,
    avatar: Avatar,
    vae: Vae,
    _vs: VarStore,
}

impl Stage for RenderAvatar {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        let rows: Vec<_> = units.iter().map(Unit::row).collect();
        let gbuffers = rows.iter().map(|row| gbuffers::read(&row.path("gbuffer")?)).collect::<Result<Vec<_>>>()?;
        let codes = self.description.codes(&rows)?;
        let mut gbuffers = gbuffers::to_tensors(&gbuffers)?;
        gbuffers.whose = self.description.whose(&rows)?;
        let sampler = match self.params.sampler {
            Sampler::Ddpm => schedule::Sampler::Ddpm,
            Sampler::Ddim => schedule::Sampler::Ddim { eta: 0.0 },
            Sampler::UniPc => schedule::Sampler::UniPc,
        };
        let latents = self
            .avatar
            .sample(&gbuffers, &codes, sampler, self.params.steps, self.params.seed)
            .map_err(anyhow::Error::msg)?;
        units
            .iter()
            .enumerate()
            .map(|(i, unit)| {
                // one at a time: a frame's bits must not depend on its neighbours
                let latent = self.vae.unscale(&latents.narrow(0, i as i64, 1));
                let image = tch::no_grad(|| self.vae.decode(&latent)).squeeze_dim(0);
                let path = cx.file(unit, "render.png");
                to_image(&image)?.write_png(&path)?;
                Ok(vec![OutRow::new().file("render", &path)])
            })
            .collect()
    }
}
