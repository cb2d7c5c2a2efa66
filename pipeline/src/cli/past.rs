//! What earlier runs left of a recipe's stages, for the commands that show it: rows, or why there are none. Records say
//! what became of a stage in the last run that was about it, the memory of the recipe which of its tables is the
//! latest.

use super::load::Loaded;
use super::{FAILED, RecipeArgs, remark};
use crate::command::quote;
use crate::finished::NodeState;
use crate::memory::{Memory, Store};
use crate::record::{self, Record, same};
use crate::run::logs;
use manifests::Digest;

/// Rows that a run left of a stage.
pub struct Left {
    /// Its table.
    pub table: Digest,
    /// Kind, version, parameters and constants.
    pub head: Option<Digest>,
    /// Seconds of work that made it.
    pub worth: f64,
    /// `--param` and `--set` of the run that made it.
    pub overrides: Vec<String>,
    /// A later run was to do the stage and was stopped before it had.
    pub is_earlier: bool,
}

/// Why the last run that was about a stage left no rows of it.
pub struct Lost {
    /// It failed itself, or was skipped.
    pub state: NodeState,
    /// The stages that failed.
    because: Vec<String>,
    /// `--param` and `--set` of that run.
    overrides: Vec<String>,
}

/// What there is of a stage.
pub enum Found {
    /// Rows.
    Rows(Left),
    /// None, because something failed.
    Lost(Lost),
    /// No run was about it.
    Nothing,
}

/// The runs of a recipe as it was asked for, with `--param` and `--set` those that had just these.
pub struct Past<'a> {
    args: &'a RecipeArgs,
    loaded: &'a Loaded,
    asked: Vec<String>,
    /// The workspace's tables.
    pub store: Store,
    /// The recipe's memory.
    pub memory: Memory,
    /// Runs whose records nobody has looked at, the earliest first.
    unread: Vec<String>,
    /// Records of this recipe's runs, the newest first.
    read: Vec<Record>,
}

impl<'a> Past<'a> {
    /// Those of a recipe.
    pub fn new(args: &'a RecipeArgs, loaded: &'a Loaded) -> Past<'a> {
        let root = &args.workspace.workspace;
        let store = Store::new(root);
        let memory = store.load(&loaded.recipe, loaded.plan.spec.profile.as_deref());
        Past { args, loaded, asked: args.overrides(), store, memory, unread: record::names(root), read: Vec::new() }
    }

    /// The record of the last run, or of the one so many before it.
    pub fn run(&mut self, back: usize) -> Option<&Record> {
        while self.read.len() <= back {
            let name = self.unread.pop()?;
            let found = record::read(&self.args.workspace.workspace, &name);
            let (plan, recipe) = (&self.loaded.plan, &self.loaded.recipe);
            self.read.extend(found.filter(|one| one.is_of(plan, recipe, &self.asked)));
        }
        self.read.get(back)
    }

    /// What there is of a stage: the last run that was about it decides. One that somebody stopped before it came to
    /// the stage decides nothing.
    pub fn stage(&mut self, name: &str) -> Found {
        let (mut back, mut is_earlier, mut recorded) = (0, false, None);
        while let Some(run) = self.run(back) {
            back += 1;
            let Some(told) = run.stage(name).filter(|told| !told.left_out) else { continue };
            let lost = |state, because| Found::Lost(Lost { state, because, overrides: run.overrides.clone() });
            match told.state {
                NodeState::Done => {
                    recorded = told.table.map(|table| {
                        // older records say only what ran then
                        let (head, worth) = (told.head, told.worth.max(told.seconds));
                        let overrides = run.overrides.clone();
                        Left { table, head, worth, overrides, is_earlier }
                    });
                    break;
                }
                NodeState::Failed => return lost(NodeState::Failed, vec![name.to_string()]),
                NodeState::Skipped => {}
            }
            let because = run.failed_before(name);
            if !because.is_empty() {
                return lost(NodeState::Skipped, because);
            }
            // older records, which have no path, do not say which stages a run was not about
            if run.outcome == "failed" && !run.path.is_empty() {
                // it needs nothing of what failed, but that ended the run
                let failed = run.stages.iter().filter(|stage| stage.state == NodeState::Failed);
                return lost(NodeState::Skipped, failed.map(|stage| stage.name.clone()).collect());
            }
            is_earlier |= run.outcome == "interrupted" && !run.path.is_empty();
        }
        let asked = &self.asked;
        let remembered =
            self.memory.stages.get(name).filter(|last| asked.is_empty() || same(asked, &last.overrides)).map(|last| {
                let (head, overrides) = (Some(last.head), last.overrides.clone());
                Left { table: last.table, head, worth: last.worth, overrides, is_earlier }
            });
        // a table that lacks what failed is in no memory, because the next run makes it again
        remembered.or(recorded).map_or(Found::Nothing, Found::Rows)
    }

    /// Why there are no rows of a stage, in a sentence.
    pub fn sentence(&self, name: &str, lost: &Lost) -> String {
        let with = match lost.overrides.is_empty() {
            true => String::new(),
            false => format!(" (with {})", lost.overrides.join(" and ")),
        };
        if lost.state == NodeState::Failed {
            return format!("stage `{name}` failed in the last run{with}");
        }
        let because: Vec<String> = lost.because.iter().take(3).map(|stage| format!("`{stage}`")).collect();
        let more = if lost.because.len() > because.len() { " and others" } else { "" };
        format!("stage `{name}` was skipped in the last run{with}, because {}{more} failed", because.join(", "))
    }

    /// The command that shows what a stage that failed has written, if it has.
    pub fn log_of(&self, lost: &Lost) -> Option<String> {
        let root = &self.args.workspace.workspace;
        let logged = lost.because.iter().find(|stage| !logs(root, stage).is_empty())?;
        Some(format!("`effigy log {}{}` shows what it wrote", quote(logged), self.args.workspace.typed()))
    }

    /// Says why there are no rows of a stage; gives the exit code that goes with it. `other`: a variant of it that has
    /// some.
    pub fn tell(&self, name: &str, lost: &Lost, other: Option<&str>) -> u8 {
        let mut hints: Vec<String> = self.log_of(lost).into_iter().collect();
        let again = self.args.typed(None, self.args.profile.as_deref());
        hints.push(format!("`effigy run {again}` does what is missing"));
        hints.extend(other.map(|other| format!("`{other}` has rows")));
        if self.memory.stages.contains_key(name) {
            let workspace = self.args.workspace.typed();
            hints.push(format!("`effigy serve{workspace}` shows the rows that earlier runs left"));
        }
        remark(&format!("error: {}\n  hint: {}", self.sentence(name, lost), hints.join("; ")));
        FAILED
    }
}
