//! The engine: recipes in, tables out.
//!
//! A recipe ([`spec`]) becomes a [`plan`]; a `run` cuts each stage's rows into units, whose `key`s the cache knows or
//! not, and hands the misses to workers as `task` directories. Everything that happens is an `event`; only [`cli`]
//! prints and reads the environment.
//!
//! Knows no tensor, image or dataset, and links no library that does.

mod axes;
mod builtin;
mod care;
mod check;
pub mod cli;
mod command;
mod compare;
mod conformance;
mod error;
mod event;
mod executor;
mod extends;
mod fields;
mod finished;
mod foresee;
mod graph;
mod hints;
mod kept;
mod key;
mod lineage;
mod matrix;
mod memory;
mod own_output;
mod params;
pub mod plan;
pub mod provider;
mod record;
mod report;
mod report_items;
mod rest;
mod rows_where;
mod run;
mod sections;
mod selection;
mod shell;
pub mod spec;
mod stage;
mod task;
mod units;
mod why;
mod yaml;
