//! The loss weights of `train_head_model` as its parameters.
//!
//! No stage. What each term is of stands in `models::nphm::train`; here it is told to who writes a recipe. Knows no
//! networks.

use anyhow::Result;
use models::nphm::train::LossWeights;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! weights {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// Weights of the terms that are summed up to the loss of a head model; those that a recipe leaves out have
        /// their default. Distances are in model units (25 cm), F is the field, positive outside. MonoNPHM's own
        /// weights stand in brackets.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(default, deny_unknown_fields)]
        pub struct HeadLosses {
            $($(#[doc = $doc])+ #[schemars(range(min = 0))] pub $name: f64,)+
        }

        impl Default for HeadLosses {
            fn default() -> Self {
                let LossWeights { $($name),+ } = LossWeights::default();
                Self { $($name),+ }
            }
        }

        impl HeadLosses {
            /// The weights as the training takes them.
            ///
            /// # Errors
            /// If all are 0.
            pub fn weights(&self) -> Result<LossWeights> {
                let all = [$(self.$name),+];
                anyhow::ensure!(all.iter().any(|weight| *weight > 0.0), "all `loss_weights` are 0: there is nothing to learn");
                let Self { $($name),+ } = *self;
                Ok(LossWeights { $($name),+ })
            }
        }
    };
}

weights! {
    /// Mean |F| on the surface (1).
    surface,
    /// Mean |grad F - n| on the surface, n its outward normal (0.3).
    normals,
    /// Mean ||grad F| - 1| on the surface: F is a distance (0.15).
    eikonal,
    /// The same near the surface and far from it (0.15 too); as dear as all other terms together.
    eikonal_around,
    /// Mean |F - d| near the surface, d the signed distance (not in MonoNPHM).
    near,
    /// Mean relu(0.5 |d| - sign(d) F) anywhere: no surface where there is none (not in MonoNPHM, which has `space`).
    far,
    /// Mean exp(-10 |F|) anywhere: likewise, for scans of which nobody knows what is inside (0.01).
    space,
    /// Mean squared distance of deformed points from where they lie in the neutral scan (1000).
    correspondence,
    /// Mean squared distance of predicted from true anchors (7.5).
    anchors,
    /// Mean |omega|, the ambient coordinates (0.05).
    hyper,
    /// The same on neutral scans, on top (0.5).
    hyper_neutral,
    /// Mean squared deformation on neutral scans (0.001).
    neutral_zero,
    /// Mean squared deformation at far points (0.0025).
    zero_deformation,
    /// Mean squared length of identity codes (0.01).
    z_id,
    /// Mean squared length of expression codes (0.05).
    z_ex,
    /// Mean difference of the local codes of paired anchors (0.01).
    symmetry,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_says_what_it_wants_otherwise() {
        let some: HeadLosses = serde_json::from_str(r#"{"far": 0.25, "z_ex": 0}"#).unwrap();
        let expected = LossWeights { far: 0.25, z_ex: 0.0, ..LossWeights::default() };
        assert_eq!(some.weights().unwrap(), expected);
        let unknown = serde_json::from_str::<HeadLosses>(r#"{"fat": 1}"#).unwrap_err().to_string();
        assert!(unknown.contains("fat") && unknown.contains("hyper_neutral"), "{unknown}");
        let schema = serde_json::to_value(schemars::schema_for!(HeadLosses)).unwrap();
        for (name, property) in schema["properties"].as_object().unwrap() {
            assert_eq!(property["minimum"], 0, "{name} must not be negative");
        }
    }
}
