//! The real program in temporary folders. One executable, so that it links once.

mod check;
mod commands;
mod crash;
mod errors;
mod flags;
mod probes;
mod programs;
mod providers;
mod reuse;
#[path = "../support/mod.rs"]
mod support;
mod variants;
