//! How a head model in training does on people it does not learn from: codes are fitted to their scans under the
//! networks as they are, and the loss is taken at other points of the same scans (NPHM's validation identities, whose
//! codes are optimised while the decoders rest). Codes start from 0 every time, so that the numbers depend on the
//! weights alone. Knows no loop, files or schedules of the training.

use super::Direction;
use super::codes::CodeTable;
use super::sample::{Counts, Scan, draw};
use super::train::{Losses, Trainer, forward, halving, training_step};

/// How codes are fitted.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// Updates.
    pub steps: u64,
    /// Scans in an update.
    pub batch: usize,
    /// Learning rate of all codes; halved at one half and three quarters.
    pub rate: f64,
    /// Points of each scan in an update.
    pub fitted: Counts,
    /// Points of each scan at which the loss is taken.
    pub judged: Counts,
    /// Decides which points are drawn. Training should have another.
    pub seed: u64,
}

impl Default for Trial {
    fn default() -> Self {
        Self {
            steps: 60,
            batch: 8,
            rate: 1e-2,
            fitted: Counts { surface: 48, near: 96, far: 48, correspondences: 96 },
            judged: Counts { surface: 256, near: 256, far: 128, correspondences: 256 },
            seed: 0,
        }
    }
}

/// The loss on scans of other people, each scan once, under codes that were fitted to them. Identities and expressions
/// of the scans are numbered from 0. Neither weights nor codes nor optimiser of the training change.
///
/// # Panics
/// If there are no scans.
pub fn validate(trainer: &mut Trainer, scans: &[Scan], trial: &Trial) -> Losses {
    assert!(!scans.is_empty(), "a trial has scans");
    let count = |of: &dyn Fn(&Scan) -> i64| 1 + scans.iter().map(of).max().unwrap_or(0);
    let config = &trainer.model.config;
    let mut z_id = CodeTable::new(count(&|s| s.identity), config.identity.d_id(), 0.0, trainer.z_id.max_norm, 0);
    let mut z_ex = CodeTable::new(count(&|s| s.expression), config.deformation.d_ex, 0.0, trainer.z_ex.max_norm, 0);
    // nothing but the codes gets a gradient
    trainer.model.vs.freeze();
    let (model, weights, clip) = (&trainer.model, &trainer.weights, trainer.rates.clip);
    // of a forward model neutral scans tell the field, and as many others expressions, as in training
    let is_forward = config.deformation.direction == Direction::Forward;
    let neutral: Vec<Scan> = scans.iter().filter(|scan| is_forward && scan.neutral).cloned().collect();
    let seen = if neutral.is_empty() { scans } else { &neutral };
    for step in 0..trial.steps {
        let rate = trial.rate * halving(step, trial.steps);
        let batch = draw(seen, trial.batch, &trial.fitted, trial.seed, step);
        let (id, ex) = (z_id.pick(&batch.identities), z_ex.pick(&batch.expressions));
        training_step(model, &id.codes, &ex.codes, &batch, weights).total.backward();
        z_id.update(&id, rate, clip);
        z_ex.update(&ex, rate, clip);
        if is_forward {
            let more = draw(scans, trial.batch, &trial.fitted, !trial.seed, step);
            let (id, ex) = (z_id.pick(&more.identities), z_ex.pick(&more.expressions));
            forward::expressions(model, &id.codes, &ex.codes, &more, weights).total.backward();
            z_ex.update(&ex, rate, clip);
        }
    }
    let batch = draw(scans, scans.len(), &trial.judged, trial.seed ^ 0x7A11D, 0);
    let (id, ex) = (z_id.pick(&batch.identities), z_ex.pick(&batch.expressions));
    let losses = training_step(model, &id.codes.detach(), &ex.codes.detach(), &batch, weights);
    trainer.model.vs.unfreeze();
    Losses { total: losses.total.detach(), terms: losses.terms }
}
