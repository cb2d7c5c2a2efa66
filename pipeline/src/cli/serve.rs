//! `effigy serve`: a page over a workspace, for a browser on the same machine.
//!
//! It reads what runs leave: their records, tables, files, and the small file in which a run that is on says how far it
//! is. It takes no lock, never opens the index, and writes nothing into the workspace, so it works beside a run. What
//! the avatar viewer computes lies in a temporary folder that goes with the server.

mod api;
mod asked;
mod avatar;
mod camera;
mod cast;
mod compared;
mod failures;
mod files;
mod guard;
mod http;
mod records;
mod rows;
mod site;
mod stages;
mod workers;

use super::{DONE, WorkspaceArgs, print};
use crate::error::{Problem, Problems};
use anyhow::{Context, Result};
use cache::layout;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

/// What only a workspace has; any of these is enough.
const MARKS: [&str; 5] = [layout::RUNS, layout::RECORDS, layout::INDEX, layout::BLOBS, layout::PROVIDERS];

/// Show a workspace in a browser on this machine: runs, graphs, tables with pictures, the avatar
///
/// The page listens on 127.0.0.1 alone and changes nothing. It works while a run is on, and needs no network. Ctrl-C
/// ends it.
#[derive(clap::Args)]
pub struct Serve {
    /// The port on 127.0.0.1; 0 takes one that is free
    #[arg(long, default_value_t = 7979)]
    port: u16,
    #[command(flatten)]
    workspace: WorkspaceArgs,
}

impl Serve {
    /// Serves until it is interrupted.
    pub fn run(self) -> Result<u8> {
        let named = &self.workspace.workspace;
        let root: PathBuf = named.canonicalize().map_err(|error| {
            let message = format!("there is no workspace {}: {error}", named.display());
            Problems::from(Problem::new(message).hint("`effigy run RECIPE` makes one; `--workspace DIR` names another"))
        })?;
        if !MARKS.iter().any(|mark| root.join(mark).exists()) {
            let message = format!("{} is no workspace: no run has left anything there", named.display());
            let problem = Problem::new(message).hint("`effigy run RECIPE` makes one; `--workspace DIR` names another");
            return Err(Problems::from(problem).into());
        }
        let server = http::Listener::bind(self.port)?;
        let provider = super::load::default_provider();
        // what is computed for the avatar viewer lies here, and goes when the server does
        // heads of people are nobody else's business
        let own = std::fs::Permissions::from_mode(0o700);
        let folder = tempfile::Builder::new().prefix("effigy-serve-").permissions(own).tempdir();
        let folder = folder.context("cannot make a temporary folder")?;
        let site = site::Site::new(root, provider, folder.path());
        let answers: Arc<http::Answers> = Arc::new(move |asked| site.answer(asked));
        let stop = server.stopper();
        // whoever cannot install a handler is stopped at once, as ever; what lies in the temporary folder stays then
        let _ = ctrlc::set_handler(stop);
        print(&format!("http://127.0.0.1:{}/", server.port()));
        server.serve(&answers)?;
        Ok(DONE)
    }
}
