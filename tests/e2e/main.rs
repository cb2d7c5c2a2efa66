//! The real program in temporary folders. One executable, so that it links once.

#[path = "../support/accounting.rs"]
mod accounting;
mod care;
mod check;
#[path = "../support/chrome.rs"]
mod chrome;
#[path = "../support/cluster.rs"]
mod cluster;
mod commands;
mod conformance;
mod crash;
mod errors;
mod examples;
mod export;
mod extends;
mod flags;
mod gpus;
mod habits;
mod hands;
mod looking;
#[path = "../support/network.rs"]
mod network;
mod pages;
mod probes;
mod programs;
mod providers;
mod reasons;
mod remote;
mod remote_s3;
#[path = "../support/remotes.rs"]
mod remotes;
mod rest;
mod reuse;
mod reuse_files;
mod reuse_units;
mod serve;
#[path = "../support/server.rs"]
mod server;
mod slurm;
#[path = "../support/mod.rs"]
mod support;
mod two_machines;
mod variants;
