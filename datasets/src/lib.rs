//! How datasets lie on disk, and the synthetic people of the embedded default.
//!
//! Two halves. Layouts: where a NeRSemble capture, a `transforms.json` and a model of COLMAP keep videos, masks and
//! calibration, and how DiffusionAvatars keeps tracking and rendered G-buffers. Synthetic captures: morphable heads
//! built from CC0 assets, given skin, eyes, teeth, hair and light, filmed by a rig of cameras, with exact ground truth.
//! This crate reads and writes no video, runs no network and knows no cache or pipeline.

pub mod capture;
pub mod colmap;
pub mod colour;
pub mod fault;
mod files;
pub mod heads;
pub mod names;
pub mod nersemble;
pub mod nphm_tracking;
pub mod rendering_data;
pub mod scans;
pub mod sequences;
pub mod split;
pub mod transforms;
pub mod truth;
pub mod views;
