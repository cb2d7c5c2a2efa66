//! The checks of one stage: good rows, rows in another order and alone, nulls, no rows, rows that cannot be read,
//! another version. Knows what is to hold, not how a worker is talked to.

use super::answer::{Answer, of_units};
use super::made_up::{Made, Tasks};
use super::talk::Worker;
use super::{Fault, Findings, Subject, fault, refuses};
use anyhow::Result;
use cache::Cache;
use manifests::{Manifest, Type, Value};
use protocol::{ColumnDef, Grain, StageDef};
use serde_json::{Map, Value as Json};
use std::path::PathBuf;

const GOOD: &str = "rows that were made up are answered, each unit by rows of its columns or by a failure";
const SAME: &str = "a unit's rows do not depend on its neighbours, its place, the number of threads, or the time";
const NULLS: &str = "rows of nulls are answered, and do not end the worker";
const EMPTY: &str = "a task without rows is answered";
const LEAST: &str = "rows without the optional columns are answered";
const UNREADABLE: &str = "a unit whose file is not there fails, and does not end the worker";
const AFTER: &str = "after all that, good rows are answered as before";
const VERSION: &str = "another version than its own is refused";

/// A stage under examination.
struct Bench<'a> {
    subject: &'a Subject,
    def: &'a StageDef,
    params: Map<String, Json>,
    inputs: Vec<PathBuf>,
    worker: Worker,
    tasks: &'a mut Tasks,
    cache: &'a mut Cache,
}

/// Checks a stage.
pub(super) fn check(
    subject: &Subject,
    def: &StageDef,
    tasks: &mut Tasks,
    cache: &mut Cache,
    findings: &mut Findings,
) -> Result<()> {
    let kind = def.kind.as_str();
    let none = Map::new();
    let params = match tasks.params(def, subject.params.get(kind).unwrap_or(&none)) {
        Ok(params) => params,
        Err(reason) => {
            let reason = format!("no parameters could be made up: {reason}; `--set {kind}.NAME=VALUE` gives them");
            findings.unseen(kind, GOOD, reason);
            return Ok(());
        }
    };
    let mut inputs = tasks.inputs();
    inputs.extend(def.files.iter().filter_map(|name| params.get(name)?.as_str().map(PathBuf::from)));
    let worker = Worker::start(&subject.candidate, subject.limit)?;
    let mut bench = Bench { subject, def, params, inputs, worker, tasks, cache };
    let made = bench.made(&def.reads)?;
    let good = bench.answers(&made, 1)?;
    let answers = match good {
        Ok(answers) => answers,
        Err(fault) => {
            findings.note(Some(kind), GOOD, Err(fault));
            bench.version(&made, findings)?;
            return Ok(());
        }
    };
    let failure = answers.iter().find_map(|answer| if let Answer::Failed(error) = answer { Some(error) } else { None });
    match failure {
        None => {
            findings.note(Some(kind), GOOD, Ok(()));
            let same = bench.same(&made, &answers)?;
            findings.note(Some(kind), SAME, same);
        }
        Some(error) => {
            let reason =
                format!("it refused them, as it may: {error}; `--set` and `--file` give it what it can work with");
            findings.unseen(kind, GOOD, reason.clone());
            findings.unseen(kind, SAME, "it refused the rows");
        }
    }
    bench.odd(&made, findings)?;
    let after = bench.answers(&made, 1)?.and_then(|after| alike(&answers, &after, "when it was asked again"));
    findings.note(Some(kind), AFTER, after);
    bench.version(&made, findings)
}

impl Bench<'_> {
    /// Units of rows with these columns: three of one row, or one of three.
    fn made(&self, columns: &[ColumnDef]) -> Result<Made> {
        if self.def.source {
            return Ok(Made::units(Manifest::unit(0), vec![0]));
        }
        let table = self.tasks.rows(columns, 3)?;
        Ok(Made::units(table, if self.def.grain == Grain::Row { vec![1; 3] } else { vec![3] }))
    }

    fn answers(&mut self, made: &Made, threads: usize) -> Result<Result<Vec<Answer>, Fault>> {
        self.worker.again(self.subject)?;
        let dir = self.tasks.make(self.def, &self.params, made, threads)?;
        let talk = self.worker.task(&dir);
        Ok(of_units(&talk, &dir, self.def, &made.sizes, &self.inputs, self.cache))
    }

    /// Whether units are answered the same in other company.
    fn same(&mut self, made: &Made, answers: &[Answer]) -> Result<Result<(), Fault>> {
        let all: Vec<usize> = (0..answers.len()).collect();
        let turned: Vec<usize> = all.iter().rev().copied().collect();
        let mut asked = vec![(all.clone(), 1, "when it was asked again"), (all.clone(), 2, "with two threads")];
        if all.len() > 1 {
            asked.push((turned, 1, "when the units came in another order"));
            asked.extend(all.iter().map(|&unit| (vec![unit], 1, "when the unit came alone")));
        }
        for (units, threads, when) in asked {
            let wanted: Vec<Answer> = units.iter().map(|&unit| answers[unit].clone()).collect();
            let found = self.answers(&made.some(&units), threads)?;
            if let Err(fault) = found.and_then(|found| alike(&wanted, &found, when)) {
                return Ok(Err(fault));
            }
        }
        Ok(Ok(()))
    }

    /// Rows that nobody would wish for.
    fn odd(&mut self, made: &Made, findings: &mut Findings) -> Result<()> {
        let kind = Some(self.def.kind.as_str());
        if self.def.source {
            return Ok(());
        }
        let middle = made.sizes.len() / 2;
        let nulls = self.answers(&made.without_values(middle)?, 1)?.map(drop);
        findings.note(kind, NULLS, nulls);
        let empty = match self.def.grain {
            Grain::Row => Made::units(self.tasks.rows(&self.def.reads, 0)?, Vec::new()),
            // a table without rows has no columns that anybody would miss
            _ => Made::units(Manifest::unit(0), vec![0]),
        };
        let empty = self.answers(&empty, 1)?.map(drop);
        findings.note(kind, EMPTY, empty);
        if self.def.reads.iter().any(|column| column.optional) {
            let needed: Vec<ColumnDef> = self.def.reads.iter().filter(|column| !column.optional).cloned().collect();
            let least = self.made(&needed)?;
            let least = self.answers(&least, 1)?.map(drop);
            findings.note(kind, LEAST, least);
        }
        if let Some(column) = self.def.reads.iter().find(|column| column.ty == Type::Blob && !column.optional) {
            let unreadable = self.unreadable(made, &column.name, middle)?;
            findings.note(kind, UNREADABLE, unreadable);
        }
        Ok(())
    }

    fn unreadable(&mut self, made: &Made, column: &str, unit: usize) -> Result<Result<(), Fault>> {
        let first: usize = made.sizes[..unit].iter().sum();
        let mut columns = Vec::new();
        for name in made.table.schema().names() {
            let mut values = made.table.column(name)?;
            if name == column {
                values[first] = Value::Str(self.tasks.nowhere().display().to_string());
            }
            columns.push(values);
        }
        let table = Manifest::from_columns(made.table.schema().clone(), made.table.len(), &columns)?;
        let answers = self.answers(&Made { table, ..made.clone() }, 1)?;
        Ok(answers.and_then(|answers| match &answers[unit] {
            Answer::Failed(_) => Ok(()),
            Answer::Rows(_) => {
                let message = format!(
                    "column `{column}` of unit {unit} named a file that is not there, and the unit was delivered"
                );
                Err(fault(
                    message,
                    "read every file that the result is to depend on, and fail where that cannot be done",
                ))
            }
        }))
    }

    fn version(&mut self, made: &Made, findings: &mut Findings) -> Result<()> {
        self.worker.again(self.subject)?;
        let other = StageDef { version: self.def.version + 1, ..self.def.clone() };
        let dir = self.tasks.make(&other, &self.params, made, 1)?;
        let refused = refuses(&self.worker.task(&dir));
        findings.note(Some(&self.def.kind), VERSION, refused);
        Ok(())
    }
}

fn alike(wanted: &[Answer], found: &[Answer], when: &str) -> Result<(), Fault> {
    for (i, (wanted, found)) in wanted.iter().zip(found).enumerate() {
        let how = match (wanted, found) {
            (Answer::Rows(a), Answer::Rows(b)) if a == b => continue,
            (Answer::Failed(_), Answer::Failed(_)) => continue,
            (Answer::Rows(_), Answer::Failed(error)) => format!("failed {when}: {error}"),
            (Answer::Failed(_), Answer::Rows(_)) => format!("failed at first, and was delivered {when}"),
            (Answer::Rows(_), Answer::Rows(_)) => format!("came out with other rows {when}"),
        };
        let hint = "a result may depend on the unit's rows, parameters and constants only; draw seeds from its key";
        return Err(fault(format!("unit {i} {how}"), hint));
    }
    Ok(())
}
