//! Gradient checkpointing of the whole network: the same bits, for every kind of prior.

use super::tests::{avatar, batch, train};
use super::{AvatarConfig, Prior};
use crate::team::Member;
use crate::weights::Tensors;

#[test]
fn checkpointing_changes_no_bit_of_any_gradient() {
    let small = AvatarConfig::small(6);
    let none = AvatarConfig { prior: Prior::None, ..small.clone() };
    for config in [
        small.clone(),
        AvatarConfig { prior: Prior::Tuned, ..small.clone() },
        AvatarConfig { expression: None, ..small },
        none,
    ] {
        let gradients = |gradient_checkpointing: bool| {
            let (avatar, ..) = avatar(AvatarConfig { gradient_checkpointing, ..config.clone() });
            // after some steps nothing is zero any more
            train(&avatar, &mut avatar.optimiser(), 0, 3);
            avatar.optimiser().zero_grad();
            let terms = avatar.backward(&batch(&avatar, 3), 0.5);
            // a second part adds to the first
            assert_ne!(avatar.backward(&batch(&avatar, 4), 0.5), terms);
            avatar.learned().into_iter().map(|(name, t)| (name, t.grad())).collect::<Tensors>()
        };
        let (plain, cut) = (gradients(false), gradients(true));
        for (name, gradient) in plain {
            assert!(gradient.abs().max().double_value(&[]) > 0.0, "{name}");
            assert_eq!(cut[&name], gradient, "{name}, {:?}", config.prior);
        }
    }
}
