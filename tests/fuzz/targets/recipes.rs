//! Recipes for cargo-fuzz. Knows the engine as a library.
#![no_main]
#![allow(dead_code)]

#[path = "../bodies.rs"]
mod bodies;

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static PROVIDER: LazyLock<pipeline::provider::Provider> = LazyLock::new(bodies::provider);

fuzz_target!(|bytes: &[u8]| {
    bodies::understand(&PROVIDER, bytes);
});
