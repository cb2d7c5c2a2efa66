//! `effigy work`: what a job of a cluster executes. Nobody types it.

use super::{DONE, host};
use crate::executor;
use anyhow::Result;
use std::path::PathBuf;

/// Work on the tasks of a job: started by the jobs of `effigy run --executor slurm`
#[derive(clap::Args)]
#[command(hide = true)]
pub struct Work {
    /// The folder of its array
    folder: PathBuf,
    /// Its index in the array
    index: usize,
    /// The job's own number
    job: String,
}

impl Work {
    /// Works.
    pub fn run(self) -> Result<u8> {
        executor::work(&self.folder, self.index, &self.job, &host::name())?;
        Ok(DONE)
    }
}
