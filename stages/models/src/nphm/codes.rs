//! Tables of latent codes, one row per identity or expression: bounded length, and an optimiser that touches only the
//! rows it is given.

use crate::init;
use crate::pca::principal;
use crate::weights::{self, Tensors, WeightsError};
use tch::{Kind, Tensor};

/// Codes `[N, d]` that say the same as offsets `[N, D]` in few numbers: principal coordinates, the most important
/// first, the longest code of length 0.9. A good start for the codes of scans whose vertices correspond: the network
/// then learns one smooth map, where it would otherwise have to sort the scans first, which small models in short
/// training do not finish.
///
/// A coordinate is as long as the root of its direction's standard deviation: between equal, which gives noise the rank
/// of a jaw, and true to scale, which hides a lip behind a jaw. Directions beyond those that the offsets have are 0.
pub fn principal_codes(offsets: &Tensor, d: i64) -> Tensor {
    let basis = principal(offsets, d as usize);
    let lengths = basis.directions.square().sum_dim_intlist(0, false, None::<Kind>);
    let coordinates =
        offsets.to_kind(Kind::Double).matmul(&basis.directions) / &lengths * lengths.pow_tensor_scalar(0.25);
    let longest = coordinates.square().sum_dim_intlist(1, false, None::<Kind>).sqrt().max().clamp_min(1e-12);
    let found = coordinates.size()[1];
    (coordinates / longest * 0.9).to_kind(Kind::Float).constant_pad_nd([0, d - found])
}

/// A table of codes with its Adam state. As PyTorch's `Embedding(max_norm)` with `SparseAdam`.
pub struct CodeTable {
    /// `[n, d]` codes.
    pub weight: Tensor,
    /// Rows longer than this are shortened to it on access.
    pub max_norm: f64,
    first: Tensor,
    second: Tensor,
    step: i64,
}

/// Rows taken from a table for one step; a leaf that collects their gradient.
pub struct Picked {
    /// `[B]` row numbers; a row may occur more than once.
    pub rows: Tensor,
    /// `[U, d]` the distinct rows, requiring gradients.
    pub leaf: Tensor,
    /// `[B, d]` codes to compute with.
    pub codes: Tensor,
    unique: Tensor,
}

impl CodeTable {
    /// `n` codes of length `d`, drawn from N(0, std^2) (0 for MonoNPHM, 0.1/sqrt(d) for NPHM's identities, 0.01 for its
    /// expressions).
    pub fn new(n: i64, d: i64, std: f64, max_norm: f64, seed: u64) -> Self {
        let weight = init::normal(seed, init::name_stream("codes"), &[n, d]) * std;
        let (first, second) = (weight.zeros_like(), weight.zeros_like());
        Self { weight, max_norm, first, second, step: 0 }
    }

    /// Takes rows, after shortening those that are too long (in the table itself).
    pub fn pick(&mut self, rows: &[i64]) -> Picked {
        let rows = Tensor::from_slice(rows).to_device(self.weight.device());
        let (unique, inverse, _) = rows.unique_dim(0, true, true, false);
        let _guard = tch::no_grad_guard();
        let current = self.weight.index_select(0, &unique);
        let norm = current.square().sum_dim_intlist(1, true, None::<Kind>).sqrt();
        let scale = (norm.clamp_min(1e-7).reciprocal() * self.max_norm).clamp_max(1.0);
        let bounded = current * scale;
        let _ = self.weight.index_copy_(0, &unique, &bounded);
        let leaf = bounded.set_requires_grad(true);
        let codes = tch::with_grad(|| leaf.index_select(0, &inverse));
        Picked { rows, leaf, codes, unique }
    }

    /// One Adam step (betas 0.9, 0.999, eps 1e-8) on the picked rows; the others and their moments stay as they are.
    /// The gradient is shortened to `clip` first.
    pub fn update(&mut self, picked: &Picked, lr: f64, clip: f64) {
        let grad = picked.leaf.grad();
        if !grad.defined() {
            return;
        }
        let _guard = tch::no_grad_guard();
        let norm = grad.square().sum(None::<Kind>).sqrt().double_value(&[]);
        let grad = if norm > clip { grad * (clip / norm) } else { grad };
        self.step += 1;
        let rows = &picked.unique;
        let first = self.first.index_select(0, rows) * 0.9 + &grad * 0.1;
        let second = self.second.index_select(0, rows) * 0.999 + grad.square() * 0.001;
        let (c1, c2) = (1.0 - 0.9f64.powi(self.step as i32), 1.0 - 0.999f64.powi(self.step as i32));
        let change = &first / ((second.sqrt() / c2.sqrt()) + 1e-8) * (lr / c1);
        let value = self.weight.index_select(0, rows) - change;
        let _ = self.first.index_copy_(0, rows, &first);
        let _ = self.second.index_copy_(0, rows, &second);
        let _ = self.weight.index_copy_(0, rows, &value);
    }

    /// Everything that a checkpoint must hold: codes, moments and step count.
    pub fn state(&self) -> Tensors {
        [
            ("weight", self.weight.copy()),
            ("first", self.first.copy()),
            ("second", self.second.copy()),
            ("step", Tensor::from_slice(&[self.step])),
        ]
        .map(|(name, tensor)| (name.to_owned(), tensor))
        .into()
    }

    /// Takes back what [`CodeTable::state`] gave, for a table of the same size. `source` names it in an error.
    pub fn restore(&mut self, state: &Tensors, source: &str) -> Result<(), WeightsError> {
        let own = self.state();
        weights::copy_into(&own, state, source)?;
        self.weight = own["weight"].shallow_clone();
        self.first = own["first"].shallow_clone();
        self.second = own["second"].shallow_clone();
        self.step = own["step"].int64_value(&[0]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn principal_codes_are_short_and_tell_offsets_apart() {
        let (mix, directions) = (init::normal(1, 1, &[20, 3]), init::normal(1, 2, &[3, 50]));
        let scale = Tensor::from_slice(&[10f32, 1.0, 0.1]);
        let offsets = (&mix * &scale).matmul(&directions);
        let codes = principal_codes(&offsets, 5);
        assert_eq!(codes.size(), [20, 5]);
        let norm = codes.square().sum_dim_intlist(1, false, None::<Kind>).sqrt().max().double_value(&[]);
        assert!((norm - 0.9).abs() < 1e-5, "{norm}");
        // the offsets follow from them
        let (solution, ..) = codes.narrow(1, 0, 3).linalg_lstsq(&offsets, None, "gelsy");
        let error = (codes.narrow(1, 0, 3).matmul(&solution) - &offsets).abs().max().double_value(&[]);
        assert!(error < 1e-3, "{error}");
        assert_eq!(codes.narrow(1, 3, 2).abs().max().double_value(&[]), 0.0);
        // and the smallest of the three kinds is not lost in them: a hundredth of the largest, it has a tenth of its
        // length
        let spread = |i: i64| codes.select(1, i).std(true).double_value(&[]);
        assert!(spread(2) > 0.05 * spread(0), "{} {}", spread(2), spread(0));
    }

    #[test]
    fn rows_that_are_too_long_are_shortened_and_only_picked_rows_move() {
        let mut table = CodeTable::new(4, 3, 0.0, 1.0, 0);
        table.weight =
            Tensor::from_slice(&[2f32, 0.0, 0.0, 0.0, 0.5, 0.0, 0.0, 0.0, 2.0, 0.1, 0.1, 0.1]).reshape([4, 3]);
        let before = table.weight.copy();
        let picked = table.pick(&[2, 0, 2]);
        assert_eq!(
            Vec::<f32>::try_from(picked.codes.reshape([-1])).unwrap(),
            [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0]
        );
        // row 2 was used twice, so its gradient counts twice
        (&picked.codes * Tensor::from_slice(&[1f32, 0.0, 0.0])).sum(Kind::Float).backward();
        assert_eq!(picked.leaf.grad().double_value(&[0, 0]), 1.0);
        assert_eq!(picked.leaf.grad().double_value(&[1, 0]), 2.0);
        table.update(&picked, 0.1, 100.0);
        // Adam's first step is the learning rate times the gradient's sign
        assert!((table.weight.double_value(&[0, 0]) - 0.9).abs() < 1e-6);
        assert!((table.weight.double_value(&[2, 0]) + 0.1).abs() < 1e-6);
        for row in [1, 3] {
            assert_eq!(table.weight.get(row), before.get(row));
        }
    }
}
