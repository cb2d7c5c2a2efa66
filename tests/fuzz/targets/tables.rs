//! Arrow files for cargo-fuzz. Knows the reader of manifests.
#![no_main]
#![allow(dead_code)]

#[path = "../bodies.rs"]
mod bodies;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    bodies::look(bytes);
});
