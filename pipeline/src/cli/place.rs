//! Where the tasks of a run are worked on, as the command line says it.

use super::host;
use crate::executor::{Cluster, Place};
use anyhow::Result;
use std::path::{Path, PathBuf};

/// The cluster's file that is taken if it lies beside the recipe.
const BESIDE: &str = "cluster.yaml";

/// Where tasks are worked on.
#[derive(clap::Args, Clone, Debug)]
pub struct PlaceArgs {
    /// Where stages are worked on whose stanza does not say `executor:`
    #[arg(long, value_name = "local|slurm", default_value = "local", value_parser = place)]
    executor: Place,
    /// A file that describes the cluster: partition, account, how many jobs [default: cluster.yaml beside the recipe,
    /// if it is there]
    #[arg(long, value_name = "FILE")]
    cluster: Option<PathBuf>,
    /// On Ctrl-C, leave the jobs on the cluster running; `effigy attach` goes on
    #[arg(long)]
    detach: bool,
}

fn place(text: &str) -> Result<Place, String> {
    text.parse().map_err(|()| format!("one of {}", Place::NAMES.join(", ")))
}

impl PlaceArgs {
    /// Where tasks go that say nothing of it, and the cluster.
    ///
    /// # Errors
    /// If the cluster's file is not there, or something in it is wrong.
    pub fn read(&self, recipe: &Path, run: &str) -> Result<(Place, Cluster)> {
        let beside = recipe.with_file_name(BESIDE);
        let file = self.cluster.clone().or_else(|| beside.exists().then_some(beside));
        let cluster = file.map(|file| Cluster::read(&file)).transpose()?.unwrap_or_default();
        let env = host::handed_on(&cluster.env_names);
        // two runs that begin at the same moment are two
        let run = format!("{run}.{}", std::process::id());
        // they are read by people, and by `attach`, which reads text
        let words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
        let call = (std::env::current_dir()?, words.collect());
        Ok((
            self.executor,
            Cluster { run, program: std::env::current_exe()?, env, call, detach: self.detach, ..cluster },
        ))
    }
}
