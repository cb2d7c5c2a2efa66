//! Dynamic loss scaling (Micikevicius et al. 2018, "Mixed Precision Training", section 3.2): what half precision needs
//! so that small gradients do not vanish. A loss is multiplied by a factor before it is differentiated and its
//! gradients are divided by it after; the factor falls where a gradient overflows and rises while none does.
//!
//! The numbers are those of PyTorch's `GradScaler`. Knows no network or optimiser.

/// Steps without an overflow after which the factor is tried twice as large.
const PATIENCE: u32 = 2000;

/// A factor of losses, and how long it has served.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct LossScale {
    factor: f64,
    good: u32,
}

impl Default for LossScale {
    fn default() -> Self {
        LossScale { factor: 65536.0, good: 0 }
    }
}

impl LossScale {
    /// What the loss is multiplied by now.
    pub fn factor(&self) -> f64 {
        self.factor
    }

    /// Hears whether the gradients of a step were finite. A step whose gradients were not must not be taken.
    pub fn adapt(&mut self, finite: bool) {
        *self = match (finite, self.good + 1) {
            (false, _) => LossScale { factor: self.factor / 2.0, good: 0 },
            (true, PATIENCE) => LossScale { factor: self.factor * 2.0, good: 0 },
            (true, good) => LossScale { good, ..*self },
        };
    }

    /// Whether it is so small that not the factor is at fault for gradients that are not finite.
    pub fn is_exhausted(&self) -> bool {
        self.factor < 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_falls_at_once_and_rises_slowly() {
        let mut scale = LossScale::default();
        scale.adapt(false);
        scale.adapt(false);
        assert_eq!(scale.factor(), 16384.0);
        (1..PATIENCE).for_each(|_| scale.adapt(true));
        assert_eq!(scale.factor(), 16384.0);
        scale.adapt(true);
        assert_eq!(scale, LossScale { factor: 32768.0, good: 0 });
        scale.adapt(true);
        scale.adapt(false);
        assert_eq!(scale, LossScale { factor: 16384.0, good: 0 }, "an overflow begins the count again");
        (0..15).for_each(|_| scale.adapt(false));
        assert!(scale.is_exhausted());
    }
}
