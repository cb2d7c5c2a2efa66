//! The shipped recipe `avatar.yaml`, made small, with the real stages: kills, changes, bad input, the profile nobody
//! here can run. What is long to make and not under test is made once and copied.

mod ablations;
mod bad_input;
mod base;
mod changes;
#[path = "../support/chrome.rs"]
mod chrome;
mod data;
mod exchange;
mod head_model;
mod kills;
mod landmarks;
mod layouts;
mod looking;
mod moments;
mod paper;
mod published;
mod scans;
mod serve;
#[path = "../support/server.rs"]
mod server;
#[path = "../support/mod.rs"]
mod support;
mod tracking;
mod training;
