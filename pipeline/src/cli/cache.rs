//! `effigy cache`: looking after what is kept.

use super::{DONE, FAILED, WorkspaceArgs, host, print};
use crate::hints::hinted;
use crate::memory::Store;
use anyhow::Result;
use cache::Cache as Open;
use clap::Subcommand;
use serde_json::json;

/// Look after what is kept
#[derive(clap::Args)]
pub struct Cache {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Read every file and record, and name what is damaged
    Verify {
        /// Remove damaged files, so that the units that made them run again
        #[arg(long)]
        discard: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        workspace: WorkspaceArgs,
    },
    /// Say how much is kept
    Stats {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        workspace: WorkspaceArgs,
    },
    /// Make the index anew from the records
    Rebuild {
        #[command(flatten)]
        workspace: WorkspaceArgs,
    },
    /// Show which files no last run of any recipe holds any more; with --delete, remove them
    Gc {
        /// Remove them
        #[arg(long)]
        delete: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        workspace: WorkspaceArgs,
    },
}

impl Cache {
    /// Does it.
    pub fn run(self) -> Result<u8> {
        match self.verb {
            Verb::Verify { discard, json, workspace } => verify(&workspace, discard, json),
            Verb::Stats { json, workspace } => stats(&workspace, json),
            Verb::Rebuild { workspace } => {
                let units = Open::open(&workspace.workspace, host::VERSION)?.rebuild()?;
                print(&format!("the index was made anew: {units} units"));
                Ok(DONE)
            }
            Verb::Gc { delete, json, workspace } => gc(&workspace, delete, json),
        }
    }
}

fn verify(workspace: &WorkspaceArgs, discard: bool, json: bool) -> Result<u8> {
    let mut cache = Open::open(&workspace.workspace, host::VERSION)?;
    Store::new(cache.root()).refer_all(&mut cache);
    let found = cache.verify()?;
    if discard {
        cache.discard(&found.damaged);
    }
    if json {
        let damaged: Vec<_> = found
            .damaged
            .iter()
            .map(|one| json!({"digest": one.digest, "path": one.path, "what": one.what, "stage": one.stage}))
            .collect();
        let whole = damaged.is_empty();
        print(
            &json!({"ok": whole, "blobs": found.blobs, "bytes": found.bytes, "records": found.records, "damaged": damaged})
                .to_string(),
        );
    } else {
        for one in &found.damaged {
            let stage = one.stage.as_ref().map_or(String::new(), |stage| format!(" (made by stage `{stage}`)"));
            print(&format!("damaged: {}{stage}: {}", one.path.display(), one.what));
        }
        let mb = found.bytes >> 20;
        print(&format!(
            "{} files ({mb} MB) and {} records read, {} damaged",
            found.blobs,
            found.records,
            found.damaged.len()
        ));
        match (found.damaged.is_empty(), discard) {
            (false, true) => print("the damaged files were removed: what made them runs again"),
            (false, false) => print(&format!(
                "  hint: `effigy cache verify --discard{}` removes them, and the next run makes them again",
                workspace.typed()
            )),
            _ => {}
        }
    }
    Ok(if found.damaged.is_empty() || discard { DONE } else { FAILED })
}

fn stats(workspace: &WorkspaceArgs, json: bool) -> Result<u8> {
    let cache = Open::open(&workspace.workspace, host::VERSION)?;
    let (blobs, bytes) = cache.blobs().total()?;
    let (mut units, mut seconds) = (0usize, 0.0);
    cache::scan_all(cache.root(), &mut |_, entry| {
        if let cache::Entry::Unit(unit) = entry {
            units += 1;
            seconds += unit.seconds;
        }
    })?;
    if json {
        print(&json!({"blobs": blobs, "bytes": bytes, "records": units, "seconds": seconds}).to_string());
    } else {
        let worth = super::progress::seconds(seconds);
        print(&format!("{blobs} files, {:.1} MB; {units} units, {worth} of work", bytes as f64 / 1e6));
    }
    Ok(DONE)
}

fn gc(workspace: &WorkspaceArgs, delete: bool, json: bool) -> Result<u8> {
    let mut cache = Open::open(&workspace.workspace, host::VERSION)?;
    let store = Store::new(cache.root());
    let Some(held) = store.held() else {
        let message = "a memory of a last run cannot be read, so nothing is known to be unused";
        return Err(hinted(message, "run the recipes of this workspace again first, with all their profiles"));
    };
    let (count, bytes) = cache.blobs().unheld(&held, delete)?;
    if delete {
        // units of which a file is gone are not known any more
        store.refer_all(&mut cache);
        cache.compact()?;
    }
    if json {
        print(&json!({"files": count, "bytes": bytes, "deleted": delete}).to_string());
    } else {
        let verb = if delete { "removed" } else { "could be removed (--delete does it)" };
        print(&format!("{count} files, {:.1} MB {verb}", bytes as f64 / 1e6));
    }
    Ok(DONE)
}
