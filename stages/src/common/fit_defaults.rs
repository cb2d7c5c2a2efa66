//! What fits and trackers of heads take if nobody says otherwise, so that all say the same. Knows no stage.

use crate::common::head_models::UNIT_MM;
use models::nphm::fit::FitConfig;

/// A frame of whose points a fit explains a smaller share has lost the face.
pub const LOST: f64 = 0.7;

/// Points of a moment that are fitted to.
pub fn points() -> usize {
    5000
}

/// Of landmarks in a fit.
pub fn landmark_weight() -> f64 {
    FitConfig::default().landmarks
}

/// Of skin that was found again in a fit.
pub fn skin_weight() -> f64 {
    FitConfig::default().skin
}

/// Of free space in a fit.
pub fn free_weight() -> f64 {
    FitConfig::default().outside
}

/// Of hair in a fit.
pub fn hair_weight() -> f64 {
    FitConfig::default().covering
}

/// Of the grid that a surface is sought on.
pub fn coarse() -> usize {
    25
}

/// How often that is halved.
pub fn levels() -> u32 {
    2
}

/// A distance in model units in millimetres, for a head of size `scale` beside the model's.
pub fn residual_mm(distance: f64, scale: f64) -> f64 {
    distance * UNIT_MM * scale
}
