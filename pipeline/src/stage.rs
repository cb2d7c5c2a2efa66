//! What a `stage:` or `run:` stanza means: its definition, inputs, columns and parameters, checked before anything
//! runs. Knows the definitions that providers give, not how they are run.

use crate::axes::AxisValue;
use crate::builtin::filter::Filter;
use crate::builtin::{Columns, PlannedColumn, fits};
use crate::command::{Command, Piece};
use crate::error::Problem;
use crate::executor::Place;
use crate::fields::Fields;
use crate::key::{Facts, canonical};
use crate::params::Checker;
use crate::provider::SHIPPED;
use crate::yaml::{At, Item, Node};
use manifests::Type;
use protocol::{ColumnDef, Grain, Needs, StageDef, WithDef};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A longer `timeout:` than this, a hundred years, is none.
const LONGEST_S: f64 = 3.2e9;

/// Who does the work of a unit stage.
#[derive(Clone, Debug)]
pub enum Worker {
    /// A provider, by its index in the plan.
    Provider(usize),
    /// A program of the user's.
    Command(Command),
}

/// A stage whose work is cut into units.
#[derive(Clone, Debug)]
pub struct UnitStage {
    /// Kind, version, columns, needs. For `run:` made from the stanza.
    pub def: StageDef,
    /// Who does it.
    pub worker: Worker,
    /// What its provider calls itself, if it is not the one that comes with effigy: two of them may have stages of the
    /// same kind and version.
    pub provider: Option<String>,
    /// Columns that make a group.
    pub by: Vec<String>,
    /// Which rows it takes.
    pub filter: Option<Filter>,
    /// The columns of its input that it reads, sorted: those declared that are there.
    pub reads: Vec<String>,
    /// The columns it reads of each constant, in the order of the plan's `with`.
    pub with_reads: Vec<Vec<String>>,
    /// Parameters, complete.
    pub params: BTreeMap<String, Value>,
    /// Parameters that are paths, absolute; their content is the fact.
    pub files: Vec<(String, PathBuf)>,
    /// The share of its units that may fail.
    pub allow_failures: f64,
    /// How often a unit is tried again whose work fails. No fact of its key: what comes out is the same.
    pub retries: usize,
    /// How long a task may take.
    pub timeout: Option<Duration>,
    /// Where its tasks are worked on, if not where those of others are.
    pub place: Option<Place>,
    /// How much memory a task may take, MB: what the recipe says that it needs. A provider's word is an estimate.
    pub limit_mb: Option<u64>,
    /// What the user should know before it runs.
    pub warnings: Vec<String>,
}

/// The inputs of a stanza as the plan knows them.
pub struct Inputs<'a> {
    /// Columns of the stage it maps over, if it has one.
    pub from: Option<&'a Columns>,
    /// Names and columns of its constants.
    pub with: Vec<(String, At, &'a Columns)>,
    /// The axes along which it varies, whose columns it reads only by name: it is the same work for each value.
    pub axes: &'a [AxisValue],
    /// The recipe's parameters.
    pub params: &'a [(String, Item)],
    /// The recipe's folder.
    pub dir: &'a Path,
    /// The recipes that it extends: files that they name may lie beside them.
    pub bases: &'a [PathBuf],
    /// The folder of data packages.
    pub packages: &'a Path,
}

impl UnitStage {
    /// Whether each unit is a task of its own.
    pub fn is_alone(&self) -> bool {
        matches!(self.worker, Worker::Command(_)) || !self.def.is_row_wise()
    }

    /// Its parameters as whoever does the work is given them: complete, with absolute paths.
    pub fn given(&self) -> serde_json::Map<String, Value> {
        let mut params: serde_json::Map<String, Value> = self.params.clone().into_iter().collect();
        params.extend(self.files.iter().map(|(name, file)| (name.clone(), file.display().to_string().into())));
        params
    }

    /// What it declares to read of a constant; of `run:` nothing is declared.
    pub fn constant(&self, name: &str) -> &[ColumnDef] {
        self.def.with.iter().find(|with| with.name == name).map_or(&[], |with| &with.reads)
    }

    /// Understands `stage: KIND`.
    pub fn of_provider(
        name: &str,
        (provider, provided_by, def): (usize, &str, &StageDef),
        fields: &mut Fields<'_>,
        inputs: &Inputs<'_>,
        from_at: Option<At>,
    ) -> (UnitStage, Columns) {
        let owner = format!("stage `{name}` ({})", def.kind);
        match (def.source, from_at) {
            (true, Some(at)) => {
                fields.wrong(at, format!("{owner} is a source: it takes no `from:`"), "leave `from:` out");
            }
            (false, None) => fields.missing("from", "the stage whose rows it works on"),
            _ => {}
        }
        let filter = inputs.from.and_then(|columns| Filter::parse(fields, columns));
        let by = groups(fields, def.grain, inputs.from);
        let reads = match inputs.from {
            Some(columns) => reads(fields, &owner, fields.at(), &def.reads, columns),
            None => Vec::new(),
        };
        let with_reads = constants(fields, &owner, &def.with, inputs);
        let mut stage = UnitStage {
            def: def.clone(),
            worker: Worker::Provider(provider),
            provider: Some(provided_by).filter(|name| *name != SHIPPED).map(str::to_string),
            by,
            filter,
            reads,
            with_reads,
            params: BTreeMap::new(),
            files: Vec::new(),
            allow_failures: 0.0,
            retries: 0,
            timeout: None,
            place: None,
            limit_mb: None,
            warnings: Vec::new(),
        };
        stage.common(fields);
        let rest = fields.rest();
        let places: BTreeMap<String, At> = rest.iter().map(|(key, item)| (key.name.clone(), item.at)).collect();
        let place = |at: At| fields.place(at);
        let checker = Checker { schema: &def.params, owner: &owner, place: &place };
        match checker.check(fields.at(), &rest) {
            Ok(params) => stage.params = params.into_iter().collect(),
            Err(mut problems) => fields.problems.append(&mut problems),
        }
        for param in &def.files {
            let Some(Value::String(text)) = stage.params.get(param) else { continue };
            let package = text.strip_prefix("package:").map(|name| inputs.packages.join(name));
            let beside = || {
                let bases = inputs.bases.iter().filter_map(|base| Some(base.parent()?.join(text)));
                let own = inputs.dir.join(text);
                if own.exists() { own } else { bases.into_iter().find(|path| path.exists()).unwrap_or(own) }
            };
            let path = package.clone().unwrap_or_else(beside);
            if path.exists() {
                stage.files.push((param.clone(), path));
                continue;
            }
            let problem = format!("`{param}` of {owner}: `{text}` is not there");
            let optional = def.params.pointer(&format!("/properties/{param}")).is_some_and(takes_null);
            if package.is_some() && optional {
                // the stage says itself that its result is not available then
                stage.warnings.push(format!("{problem}; going on without it (`make setup` gets it)"));
                stage.params.insert(param.clone(), Value::Null);
                continue;
            }
            let at = places.get(param).copied().unwrap_or(fields.at());
            let hint = if package.is_some() { "`make setup` gets it; " } else { "" };
            let problem = Problem::at(&fields.place(at), problem).hint(format!("{hint}looked for {}", path.display()));
            fields.problems.push(problem);
        }
        let columns = columns_of(&stage, inputs.from);
        (stage, columns)
    }

    /// Understands `run: COMMAND`.
    pub fn of_command(
        name: &str,
        what: &Item,
        fields: &mut Fields<'_>,
        inputs: &Inputs<'_>,
    ) -> Option<(UnitStage, Columns)> {
        let owner = format!("stage `{name}`");
        let grain = match (fields.text("grain"), inputs.from) {
            (Some((at, _)), None) => {
                let hint = "leave `grain:` out, or name a stage under `from:`";
                fields.wrong(at, "without `from:` there are no rows, so there is no grain", hint);
                Grain::Whole
            }
            (Some((at, text)), _) => match text.as_str() {
                "row" => Grain::Row,
                "group" => Grain::Group,
                "whole" => Grain::Whole,
                _ => {
                    let problem = Problem::at(&fields.place(at), format!("`grain` cannot be `{text}`"));
                    fields.problems.push(problem.did_you_mean(&text, ["row", "group", "whole"]));
                    Grain::Row
                }
            },
            (None, Some(_)) => Grain::Row,
            (None, None) => Grain::Whole,
        };
        let command = Command::parse(what, fields, inputs.dir)?;
        let version = fields.count("version").map_or(1, |(at, version)| {
            u32::try_from(version).unwrap_or_else(|_| {
                let message = format!("`version` is {version}, and may be {} at most", u32::MAX);
                fields.wrong(at, message, "count versions up from 1: any other number is another version");
                1
            })
        });
        let writes = writes(fields, &owner);
        let params = match fields.map("params") {
            Some((_, items)) => items.into_iter().map(|(key, item)| (key.name, item.to_json())).collect(),
            None => BTreeMap::new(),
        };
        let mut def = StageDef::new("run", version, grain);
        def.writes = writes;
        def.source = inputs.from.is_none();
        let empty = Vec::new();
        let columns = inputs.from.unwrap_or(&empty);
        let names: Vec<String> = inputs.with.iter().map(|(name, ..)| name.clone()).collect();
        command.check(what.at, columns, (&names, &params, inputs.params), grain != Grain::Row, fields);
        let by = groups(fields, grain, inputs.from);
        let filter = inputs.from.and_then(|columns| Filter::parse(fields, columns));
        let declared = fields.texts("reads");
        let own = |name: &String| inputs.axes.iter().any(|one| one.axis == *name);
        let all = |columns: &Columns| {
            columns.iter().map(|column| column.name.clone()).filter(|name| !own(name)).collect::<Vec<_>>()
        };
        let mut reads: Vec<String> = command.columns().into_iter().map(str::to_string).collect();
        match declared {
            Some(declared) => {
                for (at, name) in declared {
                    if !columns.iter().any(|column| column.name == name) {
                        let problem = Problem::at(&fields.place(at), format!("there is no column `{name}` to read"));
                        let known = columns.iter().map(|column| column.name.as_str());
                        let problem = problem.did_you_mean(&name, known);
                        fields.problems.push(problem.or_hint("without `from:` there is nothing to read"));
                    }
                    reads.push(name);
                }
            }
            // whoever takes the whole table may read all of it
            None if command.pieces().any(|piece| *piece == Piece::In) => {
                reads.extend(all(columns));
            }
            None => {}
        }
        reads.sort();
        reads.dedup();
        let with_reads = inputs.with.iter().map(|(.., columns)| all(columns)).collect();
        let mut stage = UnitStage {
            def,
            worker: Worker::Command(command),
            provider: None,
            by,
            filter,
            reads,
            with_reads,
            params,
            files: Vec::new(),
            allow_failures: 0.0,
            retries: 0,
            timeout: None,
            place: None,
            limit_mb: None,
            warnings: Vec::new(),
        };
        stage.common(fields);
        if let Worker::Command(command) = &stage.worker {
            // a version says the same in another way
            for file in command.untold.iter().filter(|_| stage.def.version == 1) {
                stage.warnings.push(format!(
                    "{owner}: changes of `{file}`, which its command names, make nothing run again\n  hint: `code: [{file}]` counts its content"
                ));
            }
        }
        let columns = columns_of(&stage, inputs.from);
        Some((stage, columns))
    }

    /// Fields that every unit stage has.
    fn common(&mut self, fields: &mut Fields<'_>) {
        let example = "0.1`: up to a tenth of them may fail";
        self.allow_failures = fields.share("allow_failures", ("units", example)).unwrap_or(0.0);
        self.retries = fields.count("retries").map_or(0, |(_, count)| count as usize);
        if let Some((at, seconds)) = fields.number("timeout") {
            if seconds.is_nan() || seconds <= 0.0 {
                let hint = "for example `timeout: 60`; without it a task may take as long as it likes";
                fields.wrong(at, format!("`timeout` is a number of seconds, more than 0, not {seconds}"), hint);
            } else {
                self.timeout = Some(Duration::from_secs_f64(seconds.clamp(0.001, LONGEST_S)));
            }
        }
        if let Some((at, name)) = fields.text("executor") {
            self.place = name.parse().ok();
            if self.place.is_none() {
                let problem = Problem::at(&fields.place(at), format!("there is no executor `{name}`"));
                fields.problems.push(problem.did_you_mean(&name, Place::NAMES));
            }
        }
        if let Some((at, items)) = fields.map("needs") {
            let place = fields.place(at);
            let mut own = Fields::new(&place.file, "`needs`", at, items);
            let threads = own.count("threads").map_or(self.def.needs.threads, |(_, n)| n as usize);
            self.limit_mb = own.count("memory_mb").map(|(_, n)| n).filter(|n| *n > 0);
            let memory_mb = self.limit_mb.unwrap_or(self.def.needs.memory_mb);
            let gpus = own.count("gpus").map_or(self.def.needs.gpus, |(_, n)| n);
            let minutes = own.count("minutes").map_or(self.def.needs.minutes, |(_, n)| n);
            self.def.needs = Needs { threads, memory_mb, gpus, minutes };
            fields.problems.append(&mut own.finish());
        }
    }

    /// Its grain in a word.
    pub fn grain(&self) -> String {
        let grain = serde_json::to_value(self.def.grain).expect("a grain is a word");
        grain.as_str().unwrap_or_default().to_string()
    }

    /// Its parameters as text, a program's command first.
    pub fn shown_params(&self) -> Vec<(String, String)> {
        let command = match &self.worker {
            Worker::Command(command) => Some(("command".to_string(), command.written.replace('\u{1f}', " "))),
            Worker::Provider(_) => None,
        };
        let text = |value: &Value| value.as_str().map_or(value.to_string(), str::to_string);
        let params = self.params.iter().map(|(name, value)| (name.clone(), text(value)));
        command.into_iter().chain(params).collect()
    }

    /// The facts of its key that all units share. `with` and `files` give contents in the order of the plan.
    pub fn facts(
        &self,
        facts: &mut dyn Facts,
        with: &[(String, manifests::Digest)],
        files: &[(String, manifests::Digest)],
    ) {
        facts.text("kind", &self.def.kind);
        facts.text("version", &self.def.version.to_string());
        if let Some(name) = &self.provider {
            facts.text("provider", name);
        }
        if let Worker::Command(command) = &self.worker {
            command.facts(facts);
            facts.text("grain", &self.grain());
            for column in &self.def.writes {
                facts.text(&format!("writes {}", column.name), &column.ty.to_string());
            }
        }
        for (name, value) in &self.params {
            // a path is no fact, its content is; no path is one
            if !self.files.iter().any(|(file, _)| file == name) {
                facts.text(&format!("param {name}"), &canonical(value));
            }
        }
        files.iter().for_each(|(name, digest)| facts.content(&format!("file {name}"), digest));
        with.iter().for_each(|(name, digest)| facts.content(&format!("with {name}"), digest));
    }
}

fn takes_null(schema: &Value) -> bool {
    let null = |ty: &Value| ty == "null";
    let listed =
        schema.get("type").is_some_and(|ty| null(ty) || ty.as_array().is_some_and(|types| types.iter().any(null)));
    listed
        || ["anyOf", "oneOf"]
            .iter()
            .any(|key| schema.get(key).and_then(Value::as_array).is_some_and(|all| all.iter().any(takes_null)))
}

fn writes(fields: &mut Fields<'_>, owner: &str) -> Vec<ColumnDef> {
    let Some((_, items)) = fields.map("writes") else {
        fields.missing("writes", "the columns it puts out, for example `writes: { file: blob }`");
        return Vec::new();
    };
    let mut writes = Vec::new();
    for (key, item) in items {
        let identifier = manifests::Schema::new([(key.name.clone(), Type::Bool)]);
        if identifier.is_err() || key.name == protocol::UNIT || key.name == protocol::OF {
            let hint = "use letters, digits and `_`, not a digit first; `_unit` and `_of` are taken";
            fields.wrong(key.at, format!("`{}` cannot be the name of a column", key.name), hint);
        }
        let ty = match &item.node {
            Node::Text(text) => text.parse::<Type>().map_err(|error| (text.clone(), error)),
            node => Err((String::new(), format!("the type of a column is text, not {}", node.what()))),
        };
        match ty {
            Ok(ty) => writes.push(ColumnDef { name: key.name, ty, optional: false }),
            Err((text, error)) => {
                let known = ["bool", "i64", "f64", "str", "blob"];
                let problem = Problem::at(&fields.place(item.at), format!("column `{}` of {owner}: {error}", key.name));
                fields.problems.push(problem.did_you_mean(&text, known));
            }
        }
    }
    writes
}

fn groups(fields: &mut Fields<'_>, grain: Grain, columns: Option<&Columns>) -> Vec<String> {
    let at = fields.at();
    match (grain, fields.texts("by")) {
        (Grain::Group, Some(names)) => {
            for (at, name) in &names {
                let known = columns.into_iter().flatten();
                if columns.is_some() && !known.clone().any(|column| column.name == *name) {
                    let problem = Problem::at(&fields.place(*at), format!("there is no column `{name}` to group by"));
                    let problem = problem.did_you_mean(name, known.map(|column| column.name.as_str()));
                    fields.problems.push(problem.or_hint("the stage under `from:` has no columns"));
                }
            }
            names.into_iter().map(|(_, name)| name).collect()
        }
        (Grain::Group, None) => {
            if columns.is_some() {
                fields
                    .missing("by", "the columns whose equal rows are worked on together, for example `by: [sequence]`");
            }
            Vec::new()
        }
        (_, Some(names)) => {
            let at = names.first().map_or(at, |(at, _)| *at);
            let hint = "leave it out; a `run:` stage takes it with `grain: group`";
            fields.wrong(at, "`by:` is for stages that work on groups of rows; this one does not", hint);
            Vec::new()
        }
        (_, None) => Vec::new(),
    }
}

/// The declared columns that are there; complains about those that are missing or of another type.
fn reads(fields: &mut Fields<'_>, owner: &str, at: At, declared: &[ColumnDef], columns: &Columns) -> Vec<String> {
    let mut reads = Vec::new();
    for wanted in declared {
        match columns.iter().find(|column| column.name == wanted.name) {
            Some(found) if fits(wanted.ty, found.ty) => reads.push(wanted.name.clone()),
            Some(found) => {
                fields.wrong(
                    at,
                    format!("{owner} reads column `{}` as {}, but it is {}", wanted.name, wanted.ty, found.ty),
                    format!(
                        "give it a column of that type: a `select:` before it has `rename: {{ {}: OTHER }}`",
                        wanted.name
                    ),
                );
            }
            None if wanted.optional => {}
            None => {
                let message = format!("{owner} reads column `{}` ({}), which is not there", wanted.name, wanted.ty);
                let known = columns.iter().map(|column| column.name.as_str());
                let problem = Problem::at(&fields.place(at), message).did_you_mean(&wanted.name, known);
                fields.problems.push(problem.or_hint("the stage that it takes has no columns"));
            }
        }
    }
    reads.sort();
    reads
}

fn constants(fields: &mut Fields<'_>, owner: &str, defs: &[WithDef], inputs: &Inputs<'_>) -> Vec<Vec<String>> {
    let names = || defs.iter().map(|def| def.name.as_str());
    for def in defs.iter().filter(|def| !def.optional) {
        if !inputs.with.iter().any(|(name, ..)| *name == def.name) {
            let problem = Problem::at(&fields.place(fields.at()), format!("{owner} needs the constant `{}`", def.name));
            fields.problems.push(problem.hint(format!("`with: {{ {}: STAGE }}`", def.name)));
        }
    }
    let mut all = Vec::new();
    for (name, at, columns) in &inputs.with {
        match defs.iter().find(|def| def.name == *name) {
            Some(def) => all.push(reads(fields, &format!("{owner}, constant `{name}`,"), *at, &def.reads, columns)),
            None => {
                let problem = Problem::at(&fields.place(*at), format!("{owner} takes no constant `{name}`"));
                fields.problems.push(problem.did_you_mean(name, names()).or_hint("it takes none: leave `with:` out"));
                all.push(Vec::new());
            }
        }
    }
    all
}

/// The columns of a stage's table: those it writes, after those that are carried along.
fn columns_of(stage: &UnitStage, from: Option<&Columns>) -> Columns {
    let carried =
        from.into_iter().flatten().filter(|column| !stage.def.writes.iter().any(|new| new.name == column.name));
    let carried = carried.map(|column| {
        let certain = stage.def.grain == Grain::Row || stage.by.contains(&column.name);
        PlannedColumn { sure: column.sure && certain, ..column.clone() }
    });
    carried.chain(stage.def.writes.iter().map(|column| PlannedColumn::sure(&column.name, column.ty))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Head;

    fn key(provider: &str, version: u32) -> manifests::Digest {
        let def = StageDef::new("count", version, Grain::Row);
        let columns = Columns::new();
        let with = Vec::new();
        let here = Path::new("");
        let inputs =
            Inputs { from: Some(&columns), with, axes: &[], params: &[], dir: here, bases: &[], packages: here };
        let mut fields = Fields::new("r", "stage `a`", At::default(), Vec::new());
        let (stage, _) = UnitStage::of_provider("a", (0, provider, &def), &mut fields, &inputs, Some(At::default()));
        assert!(fields.finish().is_empty());
        Head::new(&def.kind, |facts| stage.facts(facts, &[], &[])).facts.digest
    }

    #[test]
    fn a_version_that_is_no_version_is_refused() {
        let wrong = |version: u64| {
            let stanza = crate::yaml::parse("r", &format!("{{ run: p, version: {version}, writes: {{ x: blob }} }}"));
            let mut fields = Fields::of("r", "it", stanza.unwrap(), "{}").unwrap();
            let what = fields.take("run").unwrap();
            let here = Path::new("");
            let inputs =
                Inputs { from: None, with: vec![], axes: &[], params: &[], dir: here, bases: &[], packages: here };
            let version = UnitStage::of_command("a", &what, &mut fields, &inputs).map(|(stage, _)| stage.def.version);
            (version, fields.finish())
        };
        assert_eq!((wrong(7).0, wrong(7).1.len()), (Some(7), 0));
        assert!(wrong(u64::from(u32::MAX)).1.is_empty());
        let problems = wrong((1 << 32) + 7).1;
        assert!(problems.len() == 1 && problems[0].message.contains("`version` is 4294967303"), "{problems:?}");
    }

    #[test]
    fn stages_of_two_providers_share_no_keys() {
        assert_eq!(key("mine", 1), key("mine", 1));
        assert_ne!(key("mine", 1), key("yours", 1));
        // a workspace holds what took hours under these
        let before = Head::new("count", |facts| {
            facts.text("kind", "count");
            facts.text("version", "2");
        });
        assert_eq!(key(SHIPPED, 2), before.facts.digest, "the one that comes with effigy is no fact");
        assert_ne!(key("mine", 2), before.facts.digest);
    }
}
