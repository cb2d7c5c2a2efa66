//! `effigy cache`: looking after what is kept.

use super::progress::room;
use super::remote::{Direction, RemoteArgs};
use super::{DONE, FAILED, WorkspaceArgs, host, print};
use crate::care::{self, Wanted};
use crate::hints::hinted;
use crate::memory::Store;
use anyhow::Result;
use cache::Cache as Open;
use cache::layout;
use clap::Subcommand;
use serde_json::json;
use std::time::Duration;

/// Look after what is kept
#[derive(clap::Args)]
pub struct Cache {
    #[command(subcommand)]
    verb: Verb,
}

/// What moves all units.
#[derive(clap::Args)]
struct MoveArgs {
    /// Print events as JSON lines
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: RemoteArgs,
    #[command(flatten)]
    workspace: WorkspaceArgs,
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
    /// Send every finished unit that the remote has not
    Push(MoveArgs),
    /// Fetch every unit that the remote has, whatever its recipe
    Pull(MoveArgs),
    /// Show what kept runs do not reach: files, records and tables; with --delete, remove it
    Gc {
        /// Remove it
        #[arg(long)]
        delete: bool,
        /// Keep what the last N runs of each recipe and profile reach
        #[arg(long, value_name = "N", default_value_t = 1)]
        keep_last: usize,
        /// Let files take up so much room at most, like 500M or 20G: what was reached longest ago goes first
        #[arg(long, value_name = "SIZE", value_parser = size)]
        max_size: Option<u64>,
        /// Let checkpoints of unfinished units go that nobody has worked on for so many days
        #[arg(long, value_name = "DAYS")]
        checkpoints: Option<u64>,
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
                workspace.must_be_there()?;
                let units = Open::open(&workspace.workspace, host::VERSION)?.rebuild()?;
                print(&format!("the index was made anew: {units} units"));
                Ok(DONE)
            }
            Verb::Push(all) => all.remote.move_all(&all.workspace, Direction::Push, all.json),
            Verb::Pull(all) => all.remote.move_all(&all.workspace, Direction::Pull, all.json),
            Verb::Gc { delete, keep_last, max_size, checkpoints, json, workspace } => {
                let checkpoints = checkpoints.map(|days| Duration::from_secs(days.saturating_mul(24 * 60 * 60)));
                gc(&workspace, Wanted { keep_last, max_bytes: max_size, checkpoints }, delete, json)
            }
        }
    }
}

/// A size as people write it; a letter stands for a power of 1000.
fn size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len()));
    let power = match unit.to_ascii_uppercase().trim_end_matches('B') {
        "" => 0,
        "K" => 1,
        "M" => 2,
        "G" => 3,
        "T" => 4,
        _ => return Err(format!("`{unit}` is no unit of size: it is a number and K, M, G or T, like 500M or 20G")),
    };
    let number: f64 =
        number.trim().parse().map_err(|_| "a size is a number and a unit, like 500M or 20G".to_string())?;
    if !number.is_finite() || number < 0.0 {
        return Err("a size is not negative, and has an end".into());
    }
    Ok((number * 1000f64.powi(power)) as u64)
}

fn verify(workspace: &WorkspaceArgs, discard: bool, json: bool) -> Result<u8> {
    workspace.must_be_there()?;
    let mut cache = Open::open(&workspace.workspace, host::VERSION)?;
    let store = Store::new(cache.root());
    store.refer_all(&mut cache);
    let found = cache.verify()?;
    let tables = care::damaged_tables(&store, cache.root());
    if discard {
        cache.discard(&found.damaged)?;
    }
    let whole = found.damaged.is_empty();
    if json {
        let damaged: Vec<_> = found
            .damaged
            .iter()
            .map(|one| {
                json!({"digest": one.digest, "path": one.path, "what": one.what, "stage": one.stage, "unit": one.unit})
            })
            .collect();
        let tables: Vec<_> = tables.iter().map(|(path, stage)| json!({"path": path, "stage": stage})).collect();
        let (blobs, bytes, records) = (found.blobs, found.bytes, found.records);
        print(
            &json!({"ok": whole, "blobs": blobs, "bytes": bytes, "records": records, "damaged": damaged, "tables": tables})
                .to_string(),
        );
        return Ok(if whole || discard { DONE } else { FAILED });
    }
    for one in &found.damaged {
        let unit = one.unit.as_ref().filter(|unit| !unit.is_empty()).map_or(String::new(), |unit| format!(", {unit}"));
        let made = one.stage.as_ref().map_or(String::new(), |stage| format!(" (made by stage `{stage}`{unit})"));
        print(&format!("damaged: {}{made}: {}", one.path.display(), one.what));
    }
    for (path, stage) in &tables {
        let of = stage.as_ref().map_or(String::new(), |stage| format!(" (of stage `{stage}`)"));
        print(&format!("removed: {}{of}: a table that was damaged; the next run makes it again", path.display()));
    }
    print(&format!(
        "{} files ({}) and {} records read, {} damaged",
        found.blobs,
        room(found.bytes),
        found.records,
        found.damaged.len()
    ));
    match (whole, discard) {
        (false, true) => print("what was damaged was removed: what made it runs again"),
        (false, false) => print(&format!(
            "  hint: `effigy cache verify --discard{}` removes it, and the next run makes it again",
            workspace.typed()
        )),
        _ => {}
    }
    Ok(if whole || discard { DONE } else { FAILED })
}

fn stats(workspace: &WorkspaceArgs, json: bool) -> Result<u8> {
    workspace.must_be_there()?;
    let cache = Open::open(&workspace.workspace, host::VERSION)?;
    let (stages, nobodys) = care::kept(&cache)?;
    let sum = |get: fn(&care::Kept) -> u64| stages.values().map(get).sum::<u64>() + get(&nobodys);
    let (files, bytes, units) = (sum(|kept| kept.files as u64), sum(|kept| kept.bytes), sum(|kept| kept.units as u64));
    // a sum of nothing is -0.0
    let seconds = stages.values().map(|kept| kept.seconds).sum::<f64>() + 0.0;
    let folder = |name: &str| care::room(&cache.root().join(name));
    let beside = [
        ("records", folder(layout::RECORDS)),
        ("tables", folder(layout::TABLES)),
        ("runs", folder(layout::RUNS)),
        ("index", folder(layout::INDEX) + folder(layout::INDEX_ASIDE)),
        ("checkpoints", folder(layout::SCRATCH)),
        ("uploads", folder(layout::UPLOADS)),
        ("logs", folder(layout::FAILED) + folder(layout::LOGS)),
    ];
    if json {
        let stages: Vec<_> = stages
            .iter()
            .map(|(name, kept)| {
                let (units, files, bytes, seconds) = (kept.units, kept.files, kept.bytes, kept.seconds);
                json!({"stage": name, "units": units, "files": files, "bytes": bytes, "seconds": seconds})
            })
            .collect();
        let beside: serde_json::Map<_, _> =
            beside.iter().map(|(name, bytes)| (name.to_string(), json!(bytes))).collect();
        let all = json!({"blobs": files, "bytes": bytes, "records": units, "seconds": seconds, "stages": stages,
            "beside": beside});
        print(&all.to_string());
        return Ok(DONE);
    }
    let mut largest: Vec<_> = stages.iter().collect();
    largest.sort_by_key(|(name, kept)| (std::cmp::Reverse(kept.bytes), *name));
    for (name, kept) in largest {
        let worth = super::progress::seconds(kept.seconds);
        let (units, files) = (kept.units, kept.files);
        print(&format!("{name:20} {units:8} units {files:8} files {:>10}  {worth} of work", room(kept.bytes)));
    }
    if nobodys.files > 0 {
        print(&format!("{:20} {:14} {:8} files {:>10}", "(of no record)", "", nobodys.files, room(nobodys.bytes)));
    }
    let beside: Vec<String> =
        beside.iter().filter(|(_, bytes)| *bytes > 0).map(|(name, bytes)| format!("{name} {}", room(*bytes))).collect();
    if !beside.is_empty() {
        print(&format!("beside them: {}", beside.join(", ")));
    }
    let worth = super::progress::seconds(seconds);
    print(&format!("{files} files, {}; {units} units, {worth} of work", room(bytes)));
    Ok(DONE)
}

fn gc(workspace: &WorkspaceArgs, wanted: Wanted, delete: bool, json: bool) -> Result<u8> {
    workspace.must_be_there()?;
    let mut cache = Open::open(&workspace.workspace, host::VERSION)?;
    let store = Store::new(cache.root());
    let Some(loose) = care::look(&mut cache, &store, wanted)? else {
        let message = "a memory of a last run cannot be read, so nothing is known to be unused";
        return Err(hinted(message, "run the recipes of this workspace again first, with all their profiles"));
    };
    if delete {
        care::clean(&mut cache, &loose)?;
    }
    let (files, records, tables) = (loose.files.len(), loose.records, loose.tables.len());
    if json {
        let all = json!({"files": files, "bytes": loose.bytes, "reached": loose.reached, "records": records,
            "tables": tables, "table_bytes": loose.table_bytes, "checkpoints": loose.checkpoints.len(),
            "checkpoint_bytes": loose.checkpoint_bytes, "deleted": delete});
        print(&all.to_string());
        return Ok(DONE);
    }
    let verb = if delete { "removed" } else { "could be removed (--delete does it)" };
    let (bytes, of) = (room(loose.bytes), loose.of_records);
    let tables = format!("{tables} files of old tables ({})", room(loose.table_bytes));
    let checkpoints = match loose.checkpoints.len() {
        0 => String::new(),
        n => format!(", checkpoints of {n} units ({})", room(loose.checkpoint_bytes)),
    };
    print(&format!("{files} files ({bytes}){checkpoints}, {records} of {of} records and {tables} {verb}"));
    if loose.of_unfinished > 0 {
        let n = loose.of_unfinished;
        print(&format!(
            "  checkpoints that stay, of unfinished units that a run may go on from: {n}; --checkpoints DAYS lets older ones go"
        ));
    }
    if loose.reached > 0 {
        let verb = if delete { "were" } else { "are" };
        print(&format!(
            "  {} of the files {verb} of kept runs, those reached longest ago; the next run that needs one makes it again",
            loose.reached
        ));
    }
    Ok(DONE)
}
