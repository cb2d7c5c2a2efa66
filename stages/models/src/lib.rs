//! Networks, noise schedules, the optimiser and weight files, all on libtorch through `tch`.
//!
//! Every network is a `Config` (its `Default` holds published values), `new(path, config)` and `forward`; variable
//! names spell the public state-dict keys, so published weights load without a mapping. Freshly built networks hold
//! zeros and ones: give them values with [`weights::load`] or [`init::seed`]. Losses and single training steps live
//! here, training loops do not. This crate knows no rows, keys, YAML, progress bars or environment variables.

pub mod adamw;
mod archive;
pub mod attention;
pub mod avatar;
pub mod blocks;
pub mod checkpoint;
pub mod config;
pub mod controlnet;
pub mod embeddings;
pub mod face_descriptor;
pub mod face_mesh;
pub mod init;
pub mod layers;
pub mod ldm;
pub mod linear;
pub mod loss_scale;
pub mod lpips;
pub mod nphm;
mod numbers;
pub mod numpy;
pub mod pca;
pub mod pickle;
pub mod runtime;
pub mod schedule;
pub mod tape;
pub mod team;
pub mod text;
pub mod tflite;
pub mod tokenizer;
pub mod triplane;
pub mod unet;
mod unipc;
pub mod vae;
pub mod weights;
mod winograd;
