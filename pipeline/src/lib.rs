//! The engine: recipes in, tables out.
//!
//! A recipe ([`spec`]) becomes a [`plan`]; a [`mod@run`] cuts each stage's rows into units, whose [`key`]s the cache knows or not,
//! and hands the misses to workers as [`task`] directories. Everything that happens is an [`event`]; only [`cli`] prints and
//! reads the environment.
//!
//! Knows no tensor, image or dataset, and links no library that does.

pub mod axes;
pub mod builtin;
pub mod care;
pub mod check;
pub mod cli;
pub mod command;
pub mod compare;
pub mod conformance;
pub mod error;
pub mod event;
pub mod executor;
pub mod extends;
pub mod fields;
pub mod finished;
pub mod foresee;
pub mod graph;
pub mod hints;
pub mod kept;
pub mod key;
pub mod lineage;
pub mod matrix;
pub mod memory;
pub mod params;
pub mod plan;
pub mod provider;
pub mod record;
pub mod report;
pub mod report_items;
pub mod rest;
pub mod rows_where;
pub mod run;
pub mod sections;
pub mod selection;
pub mod shell;
pub mod spec;
pub mod stage;
pub mod task;
pub mod units;
pub mod why;
pub mod yaml;
