//! placeholder
#[test] fn none() {}
