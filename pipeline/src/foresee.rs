//! What a run would do, without doing it: which units are known, which have to run, and which nobody can tell before
//! others have run. If there is a remote, it is asked for what is not known here. Runs nothing, fetches no file and
//! writes nothing but the fingerprints of files it had to read.

use crate::axes;
use crate::builtin::Table;
use crate::memory::{Memory, Store};
use crate::plan::{Node, Plan, Work};
use crate::run::{Active, Prepared, node_key, prepare, prior, stage_head, table_key};
use crate::selection::{Part, Selection, frozen, refer};
use crate::stage::UnitStage;
use anyhow::{Context, Result};
use cache::Cache;
use manifests::{Digest, Manifest};
use protocol::Grain;
use std::collections::HashMap;

/// What is known of a stage's table.
pub enum Foreseen {
    /// All of it.
    Whole(Manifest),
    /// These rows, and so many units' rows not.
    Part(Manifest, usize),
    /// Nothing but about how many rows it will have.
    Nothing(usize),
}

impl Foreseen {
    /// The table, if all of it is known.
    pub fn whole(&self) -> Option<&Manifest> {
        match self {
            Foreseen::Whole(table) => Some(table),
            _ => None,
        }
    }

    fn expected(&self) -> usize {
        match self {
            Foreseen::Whole(table) => table.len(),
            Foreseen::Part(table, missing) => table.len() + missing,
            Foreseen::Nothing(rows) => *rows,
        }
    }
}

/// What a run would do for a stage.
pub struct Forecast {
    /// Units that are known, here or in the remote.
    pub hits: usize,
    /// Those of them that only the remote has.
    pub far: usize,
    /// Units that have to run.
    pub misses: usize,
    /// Units that are not known either, but equal to one that has to run, of this stage or one before it: that is run
    /// once.
    pub equal: usize,
    /// Units of which nobody can tell.
    pub unknown: usize,
    /// The stage that has to run before more can be told.
    pub until: Option<usize>,
    /// Its table.
    pub table: Foreseen,
    /// Its units with their keys, and whether each is known; as far as they are foreseen.
    pub units: Option<(Prepared, Vec<bool>)>,
    /// Why the engine cannot have its table: a pattern that no file matches, tables that do not fit together. Then
    /// nothing is known of it.
    pub failed: Option<anyhow::Error>,
}

impl Forecast {
    fn of_table(table: Foreseen, until: Option<usize>) -> Forecast {
        Forecast { hits: 0, far: 0, misses: 0, equal: 0, unknown: 0, until, table, units: None, failed: None }
    }
}

/// Foresees a run up to the stage `last`, or of the whole plan. With `detail`, units are looked up also where the
/// memory of the last run would do.
///
/// # Errors
/// If a file that a stage reads cannot be read, or tables do not fit together.
pub fn foresee(
    plan: &Plan,
    cache: &mut Cache,
    recipe: &std::path::Path,
    (last, selection): (Option<usize>, &Selection),
    detail: bool,
) -> Result<Vec<Forecast>> {
    let mut forecasts = foresee_despite(plan, cache, recipe, (last, selection), detail)?;
    match forecasts.iter_mut().find_map(|one| one.failed.take()) {
        Some(error) => Err(error),
        None => Ok(forecasts),
    }
}

/// The same, but tables of the engine's own that it cannot have are told in their forecasts, and the others are
/// foreseen as far as they can be.
///
/// # Errors
/// If a file that a stage with units reads cannot be read.
pub fn foresee_despite(
    plan: &Plan,
    cache: &mut Cache,
    recipe: &std::path::Path,
    (last, selection): (Option<usize>, &Selection),
    detail: bool,
) -> Result<Vec<Forecast>> {
    let store = Store::new(cache.root());
    let memory = store.load(recipe, plan.spec.profile.as_deref());
    for (path, fingerprint, digest) in &memory.files {
        cache.remember(path.clone(), *fingerprint, *digest);
    }
    let mut forecasts: Vec<Forecast> = Vec::new();
    // by key, the stage for which a unit runs: those of equal key run once, be they of one stage or of several: the
    // others are known by then
    let mut to_run: HashMap<Digest, usize> = HashMap::new();
    let parts = selection.parts(plan);
    let forced = |i: usize| selection.force.contains(&i);
    let count = last.map_or(plan.nodes.len(), |last| last + 1);
    for (i, node) in plan.nodes[..count].iter().enumerate() {
        // one that was not asked for in detail need not be looked at unit by unit
        let detail = detail && last.is_none_or(|last| last == i);
        let forecast = match &node.work {
            _ if parts[i] == Part::Left => Forecast::of_table(Foreseen::Nothing(0), None),
            _ if parts[i] == Part::Frozen => {
                let left = frozen(plan, i, &store, &memory)?;
                let table = manifests::read_ipc(&store.table_path(&left.table))?;
                refer(&table, cache, &memory)?;
                Forecast::of_table(Foreseen::Whole(table), None)
            }
            Work::Table(table) => {
                let foreseen = of_table(node, table, &forecasts, cache, (&store, &memory));
                foreseen.with_context(|| format!("stage `{}`", node.name)).unwrap_or_else(|error| Forecast {
                    failed: Some(error),
                    ..Forecast::of_table(Foreseen::Nothing(0), None)
                })
            }
            Work::Units(stage) => {
                let how = (detail, forced(i));
                of_units((i, node), stage, &forecasts, cache, (&store, &memory), how, &mut to_run)?
            }
        };
        forecasts.push(forecast);
    }
    Ok(forecasts)
}

fn remembered(node: &Node, key: Digest, (store, memory): (&Store, &Memory)) -> Option<(usize, Manifest)> {
    let remembered = memory.stages.get(&node.name).filter(|remembered| remembered.key == key)?;
    Some((remembered.units, store.table(&remembered.table)?))
}

fn of_table(
    node: &Node,
    table: &Table,
    forecasts: &[Forecast],
    cache: &mut Cache,
    memory: (&Store, &Memory),
) -> Result<Forecast> {
    let inputs: Vec<&Forecast> = node.from.iter().map(|&from| &forecasts[from]).collect();
    let until = inputs.iter().zip(&node.from).find_map(|(input, &from)| match input.table {
        Foreseen::Whole(_) => None,
        _ => Some(input.until.unwrap_or(from)),
    });
    let tables: Option<Vec<&Manifest>> = inputs.iter().map(|input| input.table.whole()).collect();
    if let Some(tables) = tables {
        let key = table_key(node, table, &tables.iter().map(|table| table.digest()).collect::<Vec<_>>());
        if let (false, Some((_, table))) = (matches!(table, Table::Files(_)), remembered(node, key, memory)) {
            return Ok(Forecast::of_table(Foreseen::Whole(table), None));
        }
        return Ok(Forecast::of_table(
            Foreseen::Whole(axes::label(&node.axes, table.evaluate(&tables, cache, &mut Vec::new())?)?),
            None,
        ));
    }
    let expected = inputs.iter().map(|input| input.table.expected()).sum();
    let row_wise = match table {
        Table::Select(select) => select.is_row_wise(),
        Table::Concat(_) => true,
        Table::Join(_) => inputs[1].table.whole().is_some(),
        Table::Files(_) | Table::Rows(_) => true,
    };
    let parts: Option<Vec<(&Manifest, usize)>> = inputs
        .iter()
        .map(|input| match &input.table {
            Foreseen::Whole(table) => Some((table, 0)),
            Foreseen::Part(table, missing) => Some((table, *missing)),
            Foreseen::Nothing(_) => None,
        })
        .collect();
    let foreseen = match parts.filter(|_| row_wise) {
        Some(parts) => {
            let tables: Vec<&Manifest> = parts.iter().map(|(table, _)| *table).collect();
            Foreseen::Part(
                axes::label(&node.axes, table.evaluate(&tables, cache, &mut Vec::new())?)?,
                parts.iter().map(|(_, missing)| missing).sum(),
            )
        }
        None => Foreseen::Nothing(expected),
    };
    Ok(Forecast::of_table(foreseen, until))
}

fn of_units(
    (i, node): (usize, &Node),
    stage: &UnitStage,
    forecasts: &[Forecast],
    cache: &mut Cache,
    memory: (&Store, &Memory),
    (detail, forced): (bool, bool),
    to_run: &mut HashMap<Digest, usize>,
) -> Result<Forecast> {
    let from = node.from.first().map(|&from| &forecasts[from]);
    let unsure = |need: &usize| forecasts[*need].table.whole().is_none();
    let until = node.needs().find(unsure).map(|need| forecasts[need].until.unwrap_or(need));
    let in_part = matches!(from.map(|from| &from.table), Some(Foreseen::Part(..))) && stage.def.grain == Grain::Row;
    let constants_known = !node.with.iter().any(|(_, need)| unsure(need));
    let input_known = from.is_none_or(|from| from.table.whole().is_some());
    if !constants_known || !(input_known || in_part) {
        let rows = from.map_or(1, |from| from.table.expected());
        let unknown = if stage.def.is_row_wise() { rows } else { 1 };
        let table = Foreseen::Nothing(rows);
        return Ok(Forecast { unknown, ..Forecast::of_table(table, until) });
    }
    let table = |need: usize| Ok(forecasts[need].table.whole().expect("constants were seen to be known"));
    let head = stage_head(node, stage, cache, &table)?;
    let (input, missing) = match from.map(|from| &from.table) {
        Some(Foreseen::Whole(table)) => (Some(table.clone()), 0),
        Some(Foreseen::Part(table, missing)) => (Some(table.clone()), *missing),
        _ => (None, 0),
    };
    let key = node_key(node, stage, &head.facts.digest, input.as_ref().map(Manifest::digest));
    if let (0, false, Some((units, table))) = (missing, detail || forced, remembered(node, key, memory)) {
        let blobs = stage.def.writes.iter().filter(|column| column.ty == manifests::Type::Blob);
        let mut whole = true;
        for column in blobs {
            whole &= cache.has_all(&table, &column.name)?;
        }
        if whole {
            let table = Foreseen::Whole(table);
            return Ok(Forecast { hits: units, ..Forecast::of_table(table, None) });
        }
    }
    let mut active = Active::new(prepare(stage, head, input)?, key);
    let mut far = 0;
    if !forced {
        active.look_up(stage, prior(&node.name, stage, memory), cache)?;
        let here = active.cached();
        let there = cache.look(&active.missing());
        active.take(&mut |key| Ok(there.get(key).cloned()))?;
        far = active.cached() - here;
    }
    let (mut misses, mut waits) = (0, None);
    for key in active.missing() {
        let runs_for = *to_run.entry(key).or_insert_with(|| {
            misses += 1;
            i
        });
        waits = Some(waits.map_or(runs_for, |first: usize| first.min(runs_for)));
    }
    let hits = active.cached();
    let equal = active.prepared.units.count() - hits - misses;
    let table = axes::label(&node.axes, active.table(stage)?)?;
    let table = match misses + equal + missing {
        0 => Foreseen::Whole(table),
        // a unit of several rows may give any number of them
        _ if stage.def.is_row_wise() => Foreseen::Part(table, misses + equal + missing),
        _ => Foreseen::Nothing(active.prepared.projected.len().max(1)),
    };
    let until = until.or(waits);
    let known = active.known();
    let units = Some((active.prepared, known));
    Ok(Forecast { hits, far, misses, equal, unknown: missing, until, table, units, failed: None })
}
