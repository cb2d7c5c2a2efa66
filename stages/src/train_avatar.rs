//! `train_avatar`: ControlNet, feature maps and expression attentions of one person, on a frozen latent diffusion
//! prior.
//!
//! reads: gbuffer, latent, expression, eyes?, lids?, participant?, mouth_mask?, eyes_mask?, target?; with backbone,
//! validation?
//! writes: config (JSON), checkpoint, losses (CSV), events (TensorBoard), events_path, validation (CSV),
//! validation_sheet (PNG)
//!
//! The objective is the paper's: mean squared error on v in latent space, times uniform over the whole schedule,
//! posterior samples as targets (DiffusionAvatars, sections 4.4 and 5.1 of the specification). The loop stands here
//! from top to bottom; network and loss lie in `models::avatar`. A killed training continues from its last checkpoint
//! and ends with the same bits, and one that diverges stops with it. Rows of several participants train one avatar of
//! them all, with feature maps for each. Every so many steps it is tried on the rows of `validation`, from which it
//! learns nothing. Switches give the paper's ablations, terms that the reference has and leaves off, and three stated
//! departures for small priors (`prior: tuned`, cosine, standardised codes).

use crate::common::avatar_description::Description;
use crate::common::avatar_parameters::{EYE_COLUMNS, Params, Precision};
use crate::common::avatar_samples::Samples;
use crate::common::avatar_validation::Validation;
use crate::common::backbone;
use crate::common::event_file::EventFile;
use crate::common::trainer::{Checkpoints, LossCurve, batch, helpers};
use anyhow::{Context, Result};
use manifests::{Type, Value};
use models::adamw::{AdamW, Ema};
use models::avatar::Avatar;
use models::loss_scale::LossScale;
use models::team::{Team, cut};
use models::vae::Vae;
use models::{runtime, weights};
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Kind, Tensor};

fn def() -> StageDef {
    let tried =
        [("gbuffer", Type::Blob), ("latent", Type::Blob), ("expression", Type::Floats(0)), ("target", Type::Blob)];
    StageDef::new("train_avatar", 8, Grain::Whole)
        .doc("Trains a person's avatar: ControlNet, TriPlane features and expression attentions on a diffusion prior.")
        .reads([("gbuffer", Type::Blob), ("latent", Type::Blob), ("expression", Type::Floats(0))])
        .may_read(EYE_COLUMNS)
        .may_read([
            ("participant", Type::I64),
            ("mouth_mask", Type::Blob),
            ("eyes_mask", Type::Blob),
            ("target", Type::Blob),
        ])
        .with("backbone", backbone::COLUMNS)
        .may_take("validation", tried)
        .with_may_read("validation", EYE_COLUMNS)
        .with_may_read("validation", [("participant", Type::I64)])
        .writes([("config", Type::Blob), ("checkpoint", Type::Blob), ("losses", Type::Blob)])
        .writes([("events", Type::Blob), ("events_path", Type::Str)])
        .writes([("validation", Type::Blob), ("validation_sheet", Type::Blob)])
        .threads(2)
        .memory_mb(4000)
}

protocol::register!(Params, def, |params: Params, _: &Cx<'_>| {
    params.check()?;
    anyhow::Ok(TrainAvatar { params })
});

struct TrainAvatar {
    params: Params,
}

impl Stage for TrainAvatar {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.train(unit, cx)).collect()
    }
}

/// All that changes in the course of a training.
struct State<'a> {
    avatar: &'a Avatar,
    optimiser: AdamW,
    /// What losses are multiplied by, in half precision.
    scale: Option<LossScale>,
    /// The moving average, if one is wanted.
    average: Option<Ema>,
    curve: LossCurve,
    validation: Option<Validation>,
    events: EventFile,
}

impl TrainAvatar {
    fn train(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let p = &self.params;
        let rows = unit.rows();
        anyhow::ensure!(!rows.is_empty(), "there are no rows to train on");
        let description = Description::of(p, &rows)?;
        let backbone = cx.with("backbone")?;
        let (_vae_vs, vae): (_, Vae) = backbone::load_vae(backbone)?;
        let samples = Samples::load(&rows, &description, &p.terms(), &vae)?;
        let avatar = description.build(backbone)?;
        let replica = || description.build(backbone);
        let mut team = match p.precision {
            Precision::F32 => {
                let replicas =
                    (0..helpers(runtime::device(), p.parts, cx.threads)).map(|_| replica()).collect::<Result<_>>()?;
                Team::new(&avatar, replicas)
            }
            Precision::Bf16 => Team::apprentice(&avatar, replica()?.computing_in(Kind::BFloat16)),
            Precision::F16 => Team::apprentice(&avatar, replica()?.computing_in(Kind::Half)),
        };
        let names = p.terms().names();
        let scratch = cx.scratch()?;
        let checkpoints = Checkpoints::new(scratch);
        // its name is what TensorBoard goes by
        let live = scratch.join("events.out.tfevents");
        let begin = |events: EventFile| -> Result<State<'_>> {
            let trial = (p.validation_images, p.validation_steps, p.seed);
            let validation =
                cx.maybe_with("validation").map(|table| Validation::new(table, &description, (&vae, &avatar), trial));
            Ok(State {
                avatar: &avatar,
                optimiser: avatar.optimiser(),
                scale: (p.precision == Precision::F16).then(LossScale::default),
                average: (p.ema > 0.0).then(|| Ema::new(&avatar.learned(), p.ema)),
                curve: LossCurve::new(&names, p.steps, 100),
                validation: validation.transpose()?,
                events,
            })
        };
        let mut state = begin(EventFile::reopen(&live)?)?;
        let damaged = Cell::new(false);
        let told = |text: &str| {
            damaged.set(true);
            cx.log(text);
        };
        let start = checkpoints.resume(|dir| state.load(dir), told)?;
        if start == 0 {
            if damaged.get() {
                // half of a damaged checkpoint may have been taken
                avatar.restore(&description.build(backbone)?.learned(), "the beginning")?;
            }
            state = begin(EventFile::create(&live)?)?;
        }

        let size = p.batch * p.accumulate;
        for step in start..p.steps {
            let at = batch(p.seed, step, size, samples.len());
            let drawn = samples.batch(&at, &vae, &avatar.schedule, (p.seed, step))?;
            state.optimiser.zero_grad();
            if let Some(scale) = &state.scale {
                team.scale_losses(scale.factor());
            }
            let mut loss = vec![0.0; names.len()];
            for (from, n, round) in cut(size, p.accumulate) {
                let part = |(first, n, share)| (share * round, drawn.narrow(from + first, n));
                let terms = team.backward(&avatar, cut(n as usize, p.parts).into_iter().map(part).collect());
                loss.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
            }
            if !loss[0].is_finite() {
                return Err(checkpoints.diverged(&format!("the loss is {}", loss[0]), step + 1));
            }
            let norms = state.optimiser.norms();
            match norms.iter().find(|norm| !norm.is_finite()) {
                None => state.optimiser.update(p.lr_factor(step), &norms),
                // the scale was too high, and will be lower in the next step
                Some(_) if state.scale.is_some_and(|scale| !scale.is_exhausted()) => {}
                Some(norm) => return Err(checkpoints.diverged(&format!("the norm of a gradient is {norm}"), step + 1)),
            }
            if let Some(scale) = &mut state.scale {
                scale.adapt(norms.iter().all(|norm| norm.is_finite()));
            }
            if let Some(average) = &mut state.average {
                average.update(&avatar.learned());
            }
            let done = step + 1;
            if let Some(means) = state.curve.push(done, &loss) {
                for (name, mean) in names.iter().zip(means) {
                    state.events.scalar(done, &format!("train/{name}"), mean)?;
                }
            }
            if done.is_multiple_of(10) || done == p.steps {
                cx.progress(done as usize, p.steps as usize, format!("loss {:.4}", state.curve.last()));
            }
            if done.is_multiple_of(p.validate_every) || done == p.steps {
                state.validate(done, &vae, scratch)?;
            }
            checkpoints.after(cx, done, (p.checkpoint_every, p.steps), |dir| state.save(dir))?;
        }
        state.put_out(unit, cx, &description, &live)
    }
}

impl State<'_> {
    /// The weights that are put out: the average's, if there is one.
    fn result(&self) -> weights::Tensors {
        let plain = |(name, tensor): (&String, &Tensor)| (name.clone(), tensor.shallow_clone());
        self.average
            .as_ref()
            .map_or_else(|| self.avatar.learned(), |average| average.tensors().iter().map(plain).collect())
    }

    fn validate(&mut self, step: u64, vae: &Vae, scratch: &Path) -> Result<()> {
        let Some(validation) = &mut self.validation else { return Ok(()) };
        let own: Option<weights::Tensors> = self
            .average
            .as_ref()
            .map(|average| {
                let own =
                    self.avatar.learned().into_iter().map(|(name, tensor)| (name, tensor.detach().copy())).collect();
                self.avatar.restore(average.tensors(), "the moving average").map(|()| own)
            })
            .transpose()?;
        validation.run(step, (vae, self.avatar), &mut self.events, scratch)?;
        own.map_or(Ok(()), |own| Ok(self.avatar.restore(&own, "the weights in training")?))
    }

    fn put_out(&self, unit: &Unit<'_>, cx: &Cx<'_>, description: &Description, live: &Path) -> Result<Rows> {
        let [config, checkpoint, losses, events, validation, sheet] = [
            "avatar.json",
            "avatar.safetensors",
            "losses.csv",
            "events.out.tfevents",
            "validation.csv",
            "validation.png",
        ]
        .map(|name| cx.file(unit, name));
        std::fs::write(&config, serde_json::to_string_pretty(description)?)
            .with_context(|| format!("cannot write {}", config.display()))?;
        weights::write(&checkpoint, &self.result(), &BTreeMap::new(), weights::Precision::Keep)?;
        self.curve.write(&losses)?;
        std::fs::copy(live, &events).with_context(|| format!("cannot write {}", events.display()))?;
        let row = OutRow::new().file("config", &config).file("checkpoint", &checkpoint).file("losses", &losses);
        // several trainings side by side have a folder each
        let row = row.file("events", &events).str("events_path", format!("{}/events.out.tfevents", &unit.key[..12]));
        Ok(vec![match &self.validation {
            Some(tried) => {
                tried.save(&validation, &sheet)?;
                row.file("validation", &validation).file("validation_sheet", &sheet)
            }
            None => row.set("validation", Value::Null).set("validation_sheet", Value::Null),
        }])
    }

    fn save(&self, dir: &Path) -> Result<()> {
        let keep = weights::Precision::Keep;
        weights::write(&dir.join("weights.safetensors"), &self.avatar.learned(), &BTreeMap::new(), keep)?;
        if let Some(average) = &self.average {
            weights::write(&dir.join("average.safetensors"), average.tensors(), &BTreeMap::new(), keep)?;
        }
        if let Some(validation) = &self.validation {
            validation.save(&dir.join("validation.csv"), &dir.join("validation.png"))?;
        }
        self.optimiser.save(&dir.join("optimiser.safetensors"))?;
        std::fs::write(dir.join("scale.json"), serde_json::to_string(&self.scale)?)?;
        std::fs::write(dir.join("events"), self.events.length().to_string())?;
        self.curve.save(&dir.join("losses.csv"))
    }

    fn load(&mut self, dir: &Path) -> Result<()> {
        let events = std::fs::read_to_string(dir.join("events")).context("the length of the event file")?;
        let scale = std::fs::read(dir.join("scale.json")).context("the scale of losses")?;
        self.scale = serde_json::from_slice(&scale).context("the scale of losses")?;
        let path = dir.join("weights.safetensors");
        self.avatar.restore(&weights::read(&path)?, &path.display().to_string())?;
        if let Some(average) = &mut self.average {
            let path = dir.join("average.safetensors");
            average.restore(&weights::read(&path)?, &path.display().to_string())?;
        }
        if let Some(validation) = &mut self.validation {
            validation.restore(&dir.join("validation.csv"), &dir.join("validation.png"))?;
        }
        self.optimiser.load(&dir.join("optimiser.safetensors"))?;
        self.curve.restore(&dir.join("losses.csv"))?;
        self.events.cut(events.parse().context("the length of the event file")?)
    }
}
