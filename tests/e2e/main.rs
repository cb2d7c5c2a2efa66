//! The real program in temporary folders. One executable, so that it links once.

mod care;
mod commands;
mod crash;
mod errors;
mod probes;
mod programs;
mod providers;
mod reuse;
#[path = "../support/mod.rs"]
mod support;
