//! Which stages of a plan a command is about: those asked for with all they need (`--only`), those from one on
//! (`--from`), and those whose units run although they are known (`--force`). Knows what the last run left, not how
//! stages are run.

use crate::error::{Place, Problem};
use crate::memory::{Memory, Remembered, Store};
use crate::plan::{Plan, Work};
use anyhow::Result as Outcome;
use cache::{Cache, Fingerprint};
use manifests::{Digest, Manifest, Type, Value};
use std::collections::HashMap;
use std::path::PathBuf;

/// What a command line says of the stages. By default it is about all of them.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Only these and what they need; all if empty.
    pub only: Vec<usize>,
    /// Only these and what follows them; all if empty.
    pub from: Vec<usize>,
    /// Their units run whether they are known or not.
    pub force: Vec<usize>,
}

/// What becomes of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// It is done as ever.
    Taken,
    /// It is needed, but stands before those asked for: its table is that of the last run, whatever has changed since.
    Frozen,
    /// Nobody needs it.
    Left,
}

impl Selection {
    /// Reads the names on the command line.
    ///
    /// # Errors
    /// If there is no stage of a name, or one that is to be forced is not among the others or has no units.
    pub fn new(plan: &Plan, only: &[String], from: &[String], force: &[String]) -> Result<Selection, Problem> {
        let find = |names: &[String]| -> Result<Vec<usize>, Problem> {
            let all = names.iter().map(|name| plan.stages(name)).collect::<Result<Vec<_>, _>>()?;
            Ok(all.into_iter().flatten().collect())
        };
        let selection = Selection { only: find(only)?, from: find(from)?, force: find(force)? };
        let parts = selection.parts(plan);
        for &i in &selection.force {
            let name = &plan.nodes[i].name;
            let problem = |message: String| Problem::at(&Place::command_line(), message);
            if matches!(plan.nodes[i].work, Work::Table(_)) {
                let problem = problem(format!("stage `{name}` has no units that `--force` could run"));
                return Err(problem.hint("the engine evaluates it itself whenever something it reads has changed"));
            }
            if parts[i] != Part::Taken {
                let problem = problem(format!("`--force {name}`: the stage is not among those that this run is about"));
                return Err(problem.hint("name it under `--only` or `--from` too, or leave these out"));
            }
        }
        Ok(selection)
    }

    /// Whether it is about all stages, as ever.
    pub fn is_all(&self) -> bool {
        self.only.is_empty() && self.from.is_empty() && self.force.is_empty()
    }

    /// What becomes of each stage.
    pub fn parts(&self, plan: &Plan) -> Vec<Part> {
        let count = plan.nodes.len();
        let mut taken = vec![self.only.is_empty(); count];
        self.only.iter().for_each(|&i| taken[i] = true);
        // whatever a chosen stage needs is chosen; each comes after those it needs
        for i in (0..count).rev() {
            if taken[i] {
                plan.nodes[i].needs().for_each(|need| taken[need] = true);
            }
        }
        if !self.from.is_empty() {
            let mut follows = vec![false; count];
            self.from.iter().for_each(|&i| follows[i] = true);
            for i in 0..count {
                follows[i] |= plan.nodes[i].needs().any(|need| follows[need]);
            }
            taken.iter_mut().zip(follows).for_each(|(taken, follows)| *taken &= follows);
        }
        let mut parts: Vec<Part> = taken.iter().map(|taken| if *taken { Part::Taken } else { Part::Left }).collect();
        for i in (0..count).filter(|&i| taken[i]) {
            for need in plan.nodes[i].needs().filter(|&need| !taken[need]) {
                parts[need] = Part::Frozen;
            }
        }
        parts
    }
}

/// Tells a cache where the user's files are that the table of such a stage names: nobody looks for them anew. Gives
/// back where those were that are gone, or have changed since.
///
/// # Errors
/// If one cannot be looked at.
pub fn refer(table: &Manifest, cache: &mut Cache, memory: &Memory) -> Outcome<HashMap<Digest, PathBuf>> {
    let mut wanted = HashMap::new();
    for column in table.schema().columns().iter().filter(|column| column.ty == Type::Blob) {
        for value in table.column(&column.name)? {
            if let Value::Blob(blob) = value
                && !cache.has(&blob)
            {
                wanted.insert(blob.digest, cache.blobs().path(&blob.digest));
            }
        }
    }
    for (path, seen, digest) in &memory.files {
        if !wanted.contains_key(digest) {
            continue;
        }
        let is_still = Fingerprint::of(path).is_ok_and(|now| now == *seen)
            || Digest::of_file(path).is_ok_and(|(now, _)| now == *digest);
        if is_still {
            cache.refer(std::slice::from_ref(path))?;
            wanted.remove(digest);
        } else {
            wanted.insert(*digest, path.clone());
        }
    }
    Ok(wanted)
}

/// What the last run left of a stage that is not run this time.
///
/// # Errors
/// If it left nothing.
pub fn frozen<'m>(plan: &Plan, i: usize, store: &Store, memory: &'m Memory) -> Result<&'m Remembered, Problem> {
    let name = &plan.nodes[i].name;
    let remembered = memory.stages.get(name).filter(|remembered| store.table_path(&remembered.table).exists());
    remembered.ok_or_else(|| {
        let message = format!("stage `{name}` is needed and stands before `--from`, but no run has finished all of it");
        Problem::at(&Place::command_line(), message).hint(format!(
            "run it first, by `--only {name}`, or leave `--from` out, as one has to if something of it fails"
        ))
    })
}
