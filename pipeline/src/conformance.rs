//! Whether a provider does what the protocol asks: it is made to describe itself, then its worker gets tasks that were
//! made up, good ones and bad ones, and everything it says and leaves behind is judged.
//!
//! What it puts out is read by the very functions that a run reads it with. Knows no recipe, and prints nothing.

mod answer;
mod made_up;
mod stages;
pub(crate) mod talk;

use crate::error::{Place, Problem};
use crate::provider::{Candidate, ask};
use anyhow::Result;
use cache::Cache;
use made_up::{Made, Tasks};
use manifests::{Manifest, Schema};
use protocol::{Description, Grain, OF, StageDef, UNIT};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use talk::{End, Talk, Worker};

/// What to check, and how.
pub struct Subject {
    /// The provider.
    pub candidate: Candidate,
    /// How long it may take to describe itself, and for each task.
    pub limit: Duration,
    /// Parameters of its stages, by kind: those that cannot be made up.
    pub params: BTreeMap<String, Map<String, Value>>,
    /// A file for the columns that hold files; a line of text if there is none.
    pub file: Option<PathBuf>,
    /// Only stages of this kind.
    pub kind: Option<String>,
}

/// What came of one check.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The stage that it is about, if it is about one.
    pub stage: Option<String>,
    /// What was to hold, in a sentence.
    pub what: &'static str,
    /// Whether it does.
    pub verdict: Verdict,
}

/// Whether something holds.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// It does.
    Holds,
    /// It does not.
    Fails {
        /// How that shows.
        message: String,
        /// What to do about it.
        hint: String,
    },
    /// It could not be seen.
    Unseen(String),
}

/// A fault: how it shows, and what to do about it.
pub(crate) type Fault = (String, String);

pub(crate) fn fault(message: impl Into<String>, hint: impl Into<String>) -> Fault {
    (message.into(), hint.into())
}

/// Collects findings.
pub(crate) struct Findings(Vec<Finding>);

impl Findings {
    pub(crate) fn note(&mut self, stage: Option<&str>, what: &'static str, found: Result<(), Fault>) {
        let verdict = match found {
            Ok(()) => Verdict::Holds,
            Err((message, hint)) => Verdict::Fails { message, hint },
        };
        self.0.push(Finding { stage: stage.map(str::to_string), what, verdict });
    }

    pub(crate) fn unseen(&mut self, stage: &str, what: &'static str, why: impl Into<String>) {
        self.0.push(Finding { stage: Some(stage.into()), what, verdict: Verdict::Unseen(why.into()) });
    }
}

/// Checks a provider.
///
/// # Errors
/// If there is nothing to check: it cannot be started, does not describe itself, or has no stage of the kind asked for.
/// And if the temporary folder cannot be written.
pub fn check(subject: &Subject) -> Result<(Description, Vec<Finding>)> {
    let description = ask(&subject.candidate, subject.limit)?;
    let mut findings = Findings(Vec::new());
    describes(subject, &description, &mut findings);
    let place = tempfile::tempdir()?;
    let mut tasks = Tasks::new(place.path(), subject.file.clone())?;
    let mut cache = Cache::open(&place.path().join("workspace"), "conformance")?;
    let chosen: Vec<&StageDef> =
        description.stages.iter().filter(|def| subject.kind.as_ref().is_none_or(|kind| def.kind == *kind)).collect();
    if let (Some(kind), true) = (&subject.kind, chosen.is_empty()) {
        let problem = Problem::at(&Place::command_line(), format!("the provider has no stage of kind `{kind}`"));
        let known = description.stages.iter().map(|def| def.kind.as_str());
        return Err(problem.did_you_mean(kind, known).or_hint("it has no stages at all").into());
    }
    manners(subject, &mut tasks, &mut findings)?;
    for def in chosen {
        stages::check(subject, def, &mut tasks, &mut cache, &mut findings)?;
    }
    Ok((description, findings.0))
}

/// What can be seen in the description alone.
fn describes(subject: &Subject, description: &Description, findings: &mut Findings) {
    let again = ask(&subject.candidate, subject.limit).map(|again| text(&again));
    let same = match again {
        Ok(again) if again == text(description) => Ok(()),
        Ok(_) => Err(fault(
            "asked twice, it described itself in two ways",
            "print stages in a fixed order, and nothing that changes from one start to the next",
        )),
        Err(problem) => Err(fault(problem.message, problem.hint.unwrap_or_default())),
    };
    findings.note(None, "it describes itself, twice in the same way", same);
    for def in &description.stages {
        findings.note(Some(&def.kind), "its description can be used", usable(def));
    }
}

fn text(description: &Description) -> String {
    serde_json::to_string(description).expect("a description is plain data")
}

fn usable(def: &StageDef) -> Result<(), Fault> {
    let lists = [("reads", &def.reads), ("writes", &def.writes)].into_iter();
    let lists = lists.chain(def.with.iter().map(|with| ("reads of a constant", &with.reads)));
    for (list, columns) in lists {
        let schema = Schema::new(columns.iter().map(|column| (column.name.clone(), column.ty)));
        schema.map_err(|error| {
            fault(
                format!("`{list}`: {error}"),
                "columns have different names of letters, digits and `_`, no digit first",
            )
        })?;
        if let Some(taken) = columns.iter().find(|column| column.name == UNIT || column.name == OF) {
            return Err(fault(
                format!("`{list}` has the column `{}`", taken.name),
                "that name is the engine's: take another",
            ));
        }
    }
    if def.source && !def.reads.is_empty() {
        return Err(fault("it is a source and reads columns", "a source takes no `from:`: leave `reads` out"));
    }
    if def.batch == 0 {
        return Err(fault("`batch` is 0", "it is the number of units that one call gains from: at least 1"));
    }
    let object =
        def.params.is_null() || def.params.get("type").is_none_or(|ty| ty == "object") && def.params.is_object();
    if !object {
        return Err(fault(
            "`params` is no JSON Schema of an object",
            "`{\"type\": \"object\", \"properties\": {...}}`",
        ));
    }
    for file in &def.files {
        if def.params.pointer(&format!("/properties/{file}")).is_none() {
            let message = format!("`files` names `{file}`, which is no parameter");
            return Err(fault(message, "`files` lists the parameters whose values are paths"));
        }
    }
    Ok(())
}

/// What a worker does that has nothing to do with any stage.
fn manners(subject: &Subject, tasks: &mut Tasks, findings: &mut Findings) -> Result<()> {
    let mut worker = Worker::start(&subject.candidate, subject.limit)?;
    findings.note(None, "a worker without tasks ends well when its input does", worker.end());
    let nobody = StageDef::new("no stage of this name", 1, Grain::Row);
    let task = tasks.make(&nobody, &Map::new(), &Made::units(Manifest::unit(1), vec![1]), 1)?;
    let mut worker = Worker::start(&subject.candidate, subject.limit)?;
    findings.note(None, "a stage that it does not have is refused", refuses(&worker.task(&task)));
    let task = tasks.make(&nobody, &Map::new(), &Made::units(Manifest::unit(1), vec![1]), 1)?;
    std::fs::write(task.join("params.json"), "{\"kind\": ")?;
    worker.again(subject)?;
    findings.note(None, "a task whose params.json is cut short is refused", refuses(&worker.task(&task)));
    let nowhere = tasks.nowhere();
    worker.again(subject)?;
    findings.note(None, "a task directory that is not there is refused", refuses(&worker.task(&nowhere)));
    worker.again(subject)?;
    let line = PathBuf::from("\u{1b}[31m{\"event\":\"done\"}\u{7f} \u{fffd}");
    findings.note(None, "a line that makes no sense is refused", refuses(&worker.task(&line)));
    worker.again(subject)?;
    findings.note(None, "and after all that, the worker ends well when its input does", worker.end());
    Ok(())
}

/// Whether a worker has refused all of a task and is ready for the next.
pub(crate) fn refuses(talk: &Talk) -> Result<(), Fault> {
    answer::said(talk)?;
    if talk.parts().next().is_some() {
        return Err(fault(
            "it delivered a part all the same",
            "compare `kind` and `version` in params.json with those of the stage before any work",
        ));
    }
    if talk.failures().next().is_none() {
        return Err(fault(
            "it said nothing but `done`",
            "`{\"event\":\"failed\",\"unit\":null,\"error\":\"a sentence\"}` before `{\"event\":\"done\"}`",
        ));
    }
    Ok(())
}

impl Worker {
    /// Starts the worker again, if it has gone.
    fn again(&mut self, subject: &Subject) -> Result<()> {
        if !matches!(self.last, End::Done) {
            *self = Worker::start(&subject.candidate, subject.limit)?;
        }
        Ok(())
    }
}
