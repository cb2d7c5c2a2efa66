//! What an avatar is trained to make small: the mean squared error of the paper, and the terms that the reference has
//! and leaves off. Knows no optimiser.

use tch::{Kind, Tensor};

use super::{Avatar, Batch, Objective, Prepared};
use crate::schedule::{Prediction, Schedule, time_tensor};
use crate::tape::Tape;
use crate::unet::times;

/// Terms beside the mean squared error over all elements of the latents. The default is the paper's: none. Sources:
/// section 4.4 of the specification for `mouth` and `colors`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LossTerms {
    /// Times the squared error inside the mouth, summed there and divided by all elements.
    pub mouth: f64,
    /// The same around the eyes; not the reference's. For lids, which are a handful of elements of many and closed in
    /// few pictures.
    pub eyes: f64,
    /// Times the squared difference of the planes' last three channels from the picture, averaged over the head: these
    /// channels become a texture.
    pub colors: f64,
    /// Largest signal-to-noise ratio that counts in the weight of a sample's error (Hang et al. 2023, min-SNR); none:
    /// all times count alike. Not for the direct objective.
    pub min_snr: Option<f64>,
}

impl LossTerms {
    /// The names of the reported values: `loss`, which is what is differentiated, and, if it has several terms, each of
    /// them without its weight.
    pub fn names(&self) -> Vec<&'static str> {
        let mut names = vec!["loss"];
        let terms = [("mouth", self.mouth), ("eyes", self.eyes), ("colors", self.colors)];
        for (name, _) in terms.into_iter().filter(|(_, weight)| *weight > 0.0) {
            if names.len() == 1 {
                names.push("error");
            }
            names.push(name);
        }
        names
    }
}

/// A batch's loss.
pub struct Loss {
    /// To be differentiated.
    pub sum: Tensor,
    /// The values of [`LossTerms::names`].
    pub terms: Vec<f64>,
}

/// Weight of a sample's error at time `t` for a largest signal-to-noise ratio of `limit`: min(SNR, limit) over what the
/// prediction's error is worth in terms of the clean sample's.
fn min_snr_weight(schedule: &Schedule, t: i64, limit: f64) -> f64 {
    let signal = schedule.alphas_cumprod[t as usize];
    let ratio = signal / (1.0 - signal);
    let counted = ratio.min(limit);
    match schedule.config.prediction {
        Prediction::Velocity => counted / (ratio + 1.0),
        Prediction::Sample => counted,
        // min(SNR, limit) / SNR, also where both are 0
        Prediction::Epsilon if ratio <= limit => 1.0,
        Prediction::Epsilon => limit / ratio,
    }
}

impl Avatar {
    /// The loss of a batch.
    ///
    /// # Panics
    /// If a term is asked for and the batch lacks what it needs.
    pub fn training_loss(&self, batch: &Batch) -> Loss {
        self.training_loss_on(None, batch)
    }

    /// The mean squared error of a batch alone, whatever terms it is trained with; without a graph.
    pub fn error(&self, batch: &Batch) -> f64 {
        tch::no_grad(|| self.squared(None, batch, None).0.mean(Kind::Float).double_value(&[]))
    }

    /// Squared errors `[B, C, h, w]`, weighted if there is a largest signal-to-noise ratio, and what was seen.
    fn squared<'n>(&'n self, tape: Option<&Tape<'n>>, batch: &Batch, min_snr: Option<f64>) -> (Tensor, Prepared) {
        let prepared = self.condition(&batch.gbuffer, &batch.codes);
        let (latents, draw) = (&batch.latents.to_device(self.device), &batch.draw);
        let (out, target) = match self.config.objective {
            Objective::Diffusion => {
                let noise = draw.noise.to_device(self.device);
                let noisy = self.schedule.add_noise(latents, &noise, &draw.t);
                let target = self.schedule.target(latents, &noise, &draw.t);
                (self.predict_on(tape, &noisy, &time_tensor(&draw.t, latents), &prepared), target)
            }
            Objective::Direct => {
                let t = times(0, latents.size()[0], self.device);
                (self.predict_on(tape, &latents.zeros_like(), &t, &prepared), latents.shallow_clone())
            }
        };
        let mut squared = (out - target).square();
        if let (Some(limit), Objective::Diffusion) = (min_snr, self.config.objective) {
            let weights = draw.t.iter().map(|&t| min_snr_weight(&self.schedule, t, limit) as f32).collect::<Vec<_>>();
            squared *= Tensor::from_slice(&weights).view([-1, 1, 1, 1]).to_device(self.device);
        }
        (squared, prepared)
    }

    pub(super) fn training_loss_on<'n>(&'n self, tape: Option<&Tape<'n>>, batch: &Batch) -> Loss {
        let terms = &self.config.terms;
        let (squared, prepared) = self.squared(tape, batch, terms.min_snr);
        let error = squared.mean(Kind::Float);
        let mut sum = error.shallow_clone();
        let mut values = vec![error.double_value(&[])];
        let mut add = |weight: f64, term: Tensor| {
            values.push(term.double_value(&[]));
            sum = &sum + term * weight;
        };
        for (weight, region) in [(terms.mouth, &batch.mouth), (terms.eyes, &batch.eyes)] {
            if weight > 0.0 {
                let region =
                    region.as_ref().expect("the term needs to know where its region is").to_device(self.device);
                add(weight, (&squared * region.unsqueeze(1)).mean(Kind::Float));
            }
        }
        if terms.colors > 0.0 {
            let colors = batch.colors.as_ref().expect("the term needs the pictures").to_device(self.device);
            let mask = batch.gbuffer.inside().to_device(self.device).unsqueeze(1);
            let learned = prepared.colors.as_ref().expect("planes have three channels or more");
            let count = (mask.sum(Kind::Float) * 3.0).clamp_min(1.0);
            add(terms.colors, ((learned - colors) * mask).square().sum(Kind::Float) / count);
        }
        if values.len() > 1 {
            values.insert(0, sum.double_value(&[]));
        }
        Loss { sum, terms: values }
    }
}
