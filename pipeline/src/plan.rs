//! A plan: the recipe's stages wired to each other, in an order in which each comes after what it needs, all columns
//! and parameters checked. Says everything that is wrong at once. Runs nothing.

use crate::axes::AxisValue;
use crate::builtin::concat::Concat;
use crate::builtin::files::Files;
use crate::builtin::join::Join;
use crate::builtin::rows::Inline;
use crate::builtin::select::Select;
use crate::builtin::{Columns, PlannedColumn, Table};
use crate::error::{Place, Problem, Problems};
use crate::fields::{Fields, texts_of};
use crate::finished::{FinishedNode, NodeState, ReportItem};
use crate::matrix;
use crate::provider::Provider;
use crate::spec::{Does, Spec, Stanza};
use crate::stage::{Inputs, UnitStage};
use crate::yaml::{At, Node as YamlNode};
use std::collections::HashMap;

/// What a node does.
#[derive(Clone, Debug)]
pub enum Work {
    /// The engine does it itself.
    Table(Table),
    /// Its units go to workers.
    Units(Box<UnitStage>),
}

/// A stage of the plan.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its name in the recipe, which its variants share.
    pub base: String,
    /// The values of the axes along which it varies: columns of its table.
    pub axes: Vec<AxisValue>,
    /// Where it stands in the recipe.
    pub at: At,
    /// What it does.
    pub work: Work,
    /// The nodes whose rows it takes: none, one, or for joins several.
    pub from: Vec<usize>,
    /// Its constants: name and node.
    pub with: Vec<(String, usize)>,
    /// The columns of its table.
    pub columns: Columns,
}

impl Node {
    /// Its kind.
    pub fn kind(&self) -> &str {
        match &self.work {
            Work::Table(table) => table.kind(),
            Work::Units(stage) => &stage.def.kind,
        }
    }

    /// All nodes it needs.
    pub fn needs(&self) -> impl Iterator<Item = usize> + '_ {
        self.from.iter().copied().chain(self.with.iter().map(|(_, node)| *node))
    }
}

/// A recipe, understood.
pub struct Plan {
    /// The recipe.
    pub spec: Spec,
    /// Who provides stages.
    pub providers: Vec<Provider>,
    /// The stages; each comes after those it needs.
    pub nodes: Vec<Node>,
    /// The report's items.
    pub report: Vec<ReportItem>,
}

impl Plan {
    /// What a plan tells of a stage without having run it.
    pub fn describe(&self, i: usize) -> FinishedNode {
        let node = &self.nodes[i];
        let name = |i: &usize| self.nodes[*i].name.clone();
        let (version, grain, params) = match &node.work {
            Work::Table(_) => (1, "table".to_string(), Vec::new()),
            Work::Units(stage) => (stage.def.version, stage.grain(), stage.shown_params()),
        };
        FinishedNode {
            name: node.name.clone(),
            kind: node.kind().into(),
            version,
            grain,
            state: NodeState::Skipped,
            executed: 0,
            cached: 0,
            failed: 0,
            seconds: 0.0,
            worth: 0.0,
            key: String::new(),
            params,
            from: node.from.iter().map(name).collect(),
            with: node.with.iter().map(|(own, i)| (own.clone(), name(i))).collect(),
            manifest: None,
        }
    }

    /// The nodes that a name on the command line means: one, or the variants of a stage. `train` means all of them,
    /// `train@seed=1` those of this seed.
    ///
    /// # Errors
    /// If there is none.
    pub fn stages(&self, name: &str) -> Result<Vec<usize>, Problem> {
        if let Some(i) = self.nodes.iter().position(|node| node.name == name) {
            return Ok(vec![i]);
        }
        let (base, parts) = name.split_once('@').unwrap_or((name, ""));
        let parts: Vec<&str> = parts.split(',').filter(|part| !part.is_empty()).collect();
        let fits = |node: &Node| {
            let own: Vec<&str> = node.name.split_once('@').map_or(Vec::new(), |(_, own)| own.split(',').collect());
            node.base == base && !node.axes.is_empty() && parts.iter().all(|part| own.contains(part))
        };
        let found: Vec<usize> = (0..self.nodes.len()).filter(|&i| fits(&self.nodes[i])).collect();
        if !found.is_empty() {
            return Ok(found);
        }
        let message = format!("the recipe {} has no stage `{name}`", self.spec.file);
        let known = self.nodes.iter().flat_map(|node| [node.base.as_str(), node.name.as_str()]);
        let known = known.filter(|known| !known.ends_with("@*"));
        let problem = Problem::at(&Place::command_line(), message);
        Err(match self.spec.left_out.iter().any(|left| left == name) {
            true => problem.hint("`--variant` leaves it out"),
            false => problem.did_you_mean(name, known),
        })
    }
}

/// What a stanza refers to.
struct Wires {
    from: Vec<(At, usize)>,
    with: Vec<(String, At, usize)>,
}

/// Understands a recipe.
///
/// # Errors
/// All that is wrong with it.
pub fn plan(spec: Spec, providers: Vec<Provider>) -> Result<Plan, Problems> {
    let mut problems = Vec::new();
    let mut stanzas: Vec<(Fields<'_>, &Stanza, Wires)> = Vec::new();
    let names: HashMap<&str, usize> =
        spec.stages.iter().enumerate().map(|(i, stanza)| (stanza.name.as_str(), i)).collect();
    for stanza in &spec.stages {
        let owner = format!("stage `{}`", stanza.name);
        let mut fields = Fields::new(&spec.file, owner, stanza.at, stanza.fields.clone());
        let wires = wires(&spec, &names, stanza, &mut fields);
        stanzas.push((fields, stanza, wires));
    }
    let order = match order(&spec, &stanzas) {
        Ok(order) => order,
        Err(problem) => {
            // what depends on itself has no columns to check
            problems.extend(stanzas.into_iter().flat_map(|(fields, ..)| fields.problems));
            problems.push(problem);
            return Err(Problems(problems));
        }
    };
    let mut place_of = vec![0; stanzas.len()];
    order.iter().enumerate().for_each(|(place, &i)| place_of[i] = place);
    let mut stanzas: Vec<Option<_>> = stanzas.into_iter().map(Some).collect();
    let mut nodes: Vec<Node> = Vec::new();
    // columns of stages that are broken are not known: what is wrong with their users is no news
    let mut known: Vec<bool> = Vec::new();
    for i in order {
        let (mut fields, stanza, wires) = stanzas[i].take().expect("each stanza comes once in the order");
        let from: Vec<usize> = wires.from.iter().map(|(_, node)| place_of[*node]).collect();
        let with: Vec<(String, usize)> =
            wires.with.iter().map(|(name, _, node)| (name.clone(), place_of[*node])).collect();
        let inputs_known = from.iter().chain(with.iter().map(|(_, node)| node)).all(|&node| known[node]);
        let broken = !fields.problems.is_empty();
        let built = if broken {
            // with wires that lead nowhere the rest cannot be understood
            fields.rest();
            None
        } else {
            let with: Vec<usize> = with.iter().map(|(_, node)| *node).collect();
            build(&spec, &providers, stanza, &mut fields, &nodes, (&from, &with), &wires)
        };
        let own = fields.finish();
        let sound = own.is_empty() && built.is_some() && inputs_known;
        if inputs_known || broken {
            problems.extend(own);
        }
        let (work, mut columns) = built.unwrap_or_else(|| {
            let table = manifests::Manifest::unit(0);
            (Work::Table(Table::Rows(Inline { table })), Vec::new())
        });
        let names = (stanza.name.clone(), stanza.base.clone(), stanza.axes.clone());
        let (name, base, axes) = names;
        problems.extend(vary(&spec, stanza, &work, &from, &nodes, &mut columns));
        nodes.push(Node { name, base, axes, at: stanza.at, work, from, with, columns });
        known.push(sound);
    }
    let report =
        if problems.is_empty() { crate::report_items::parse(&spec, &nodes, &mut problems) } else { Vec::new() };
    // what is wrong with a stage that varies is wrong with all its variants
    let is_varied = nodes.iter().any(|node| !node.axes.is_empty());
    let problems = if is_varied { matrix::once(problems) } else { problems };
    if problems.is_empty() { Ok(Plan { spec, providers, nodes, report }) } else { Err(Problems(problems)) }
}

/// Adds the columns of a stage's axes; says which of them would hide another.
fn vary(
    spec: &Spec,
    stanza: &Stanza,
    work: &Work,
    from: &[usize],
    nodes: &[Node],
    columns: &mut Columns,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    for one in &stanza.axes {
        let axis = &one.axis;
        let carried = from.iter().any(|&need| nodes[need].axes.iter().any(|other| other.axis == *axis));
        let written = match work {
            Work::Units(stage) => stage.def.writes.iter().any(|column| column.name == *axis),
            Work::Table(_) => false,
        };
        if written || !carried && columns.iter().any(|column| column.name == *axis) {
            let message = format!("stage `{}` has a column `{axis}`, and varies along the axis `{axis}`", stanza.name);
            let problem = Problem::at(&spec.place(stanza.at), message);
            problems
                .push(problem.hint("the axis becomes a column of its rows: give the axis or the column another name"));
        }
        columns.retain(|column| column.name != *axis);
        columns.push(PlannedColumn::sure(axis, one.ty));
    }
    problems
}

fn wires(spec: &Spec, names: &HashMap<&str, usize>, stanza: &Stanza, fields: &mut Fields<'_>) -> Wires {
    let find = |fields: &mut Fields<'_>, at: At, name: &str| {
        let found = names.get(name).copied();
        if found.is_none() {
            let problem = Problem::at(&fields.place(at), format!("there is no stage `{name}`"));
            let known = spec.stages.iter().map(|stanza| stanza.base.as_str());
            fields.problems.push(problem.did_you_mean(name, known));
        }
        found
    };
    let names: Vec<(At, String)> = match stanza.does {
        Does::Stage | Does::Run => fields.text("from").into_iter().collect(),
        Does::Select => match &stanza.what.node {
            YamlNode::Text(name) => vec![(stanza.what.at, name.clone())],
            node => {
                let message = format!("`select:` takes the name of a stage, not {}", node.what());
                fields.wrong(stanza.what.at, message, "for example `select: src`; conditions go under `where:`");
                Vec::new()
            }
        },
        Does::Join | Does::Concat | Does::Gather => {
            let names = texts_of(&stanza.what).unwrap_or_default();
            let (enough, wanted, hint) = match stanza.does {
                Does::Join => (names.len() == 2, "`join:` takes two stages", "for example `join: [renders, scores]`"),
                _ => (!names.is_empty(), "`concat:` takes a list of stages", "for example `concat: [a, b]`"),
            };
            if !enough {
                fields.wrong(stanza.what.at, wanted, hint);
            }
            names
        }
        Does::Files | Does::Rows => Vec::new(),
    };
    let from = names.into_iter().filter_map(|(at, name)| Some((at, find(fields, at, &name)?))).collect();
    let mut with = Vec::new();
    if matches!(stanza.does, Does::Stage | Does::Run) {
        for (key, item) in fields.map("with").map_or(Vec::new(), |(_, items)| items) {
            match &item.node {
                YamlNode::Text(name) => {
                    if let Some(node) = find(fields, item.at, name) {
                        with.push((key.name, item.at, node));
                    }
                }
                node => {
                    let hint = format!("for example `with: {{ {}: STAGE }}`; values go into parameters", key.name);
                    fields.wrong(item.at, format!("`with:` takes `name: stage`, not {}", node.what()), hint);
                }
            }
        }
    }
    with.sort_by(|(a, ..), (b, ..)| a.cmp(b));
    Wires { from, with }
}

/// Each after what it needs, otherwise in the order of the file.
fn order(spec: &Spec, stanzas: &[(Fields<'_>, &Stanza, Wires)]) -> Result<Vec<usize>, Problem> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Done,
    }
    let mut marks = vec![Mark::New; stanzas.len()];
    let mut order = Vec::new();
    for start in 0..stanzas.len() {
        // an explicit stack: a chain of ten thousand stages is no reason to overflow ours
        let mut stack: Vec<(usize, usize)> = vec![(start, 0)];
        if marks[start] != Mark::New {
            continue;
        }
        marks[start] = Mark::Open;
        while let Some((i, next)) = stack.last_mut() {
            let wires = &stanzas[*i].2;
            let target = wires.from.iter().map(|(_, n)| *n).chain(wires.with.iter().map(|(.., n)| *n)).nth(*next);
            *next += 1;
            match target {
                None => {
                    marks[*i] = Mark::Done;
                    order.push(*i);
                    stack.pop();
                }
                Some(target) if marks[target] == Mark::New => {
                    marks[target] = Mark::Open;
                    stack.push((target, 0));
                }
                Some(target) if marks[target] == Mark::Open => {
                    let from = stack.iter().position(|(i, _)| *i == target).expect("open stanzas are on the stack");
                    let name = |i: usize| stanzas[i].1.name.as_str();
                    let circle: Vec<&str> = stack[from..].iter().map(|(i, _)| name(*i)).chain([name(target)]).collect();
                    let message = format!("these stages need each other in a circle: {}", circle.join(" -> "));
                    let problem = Problem::at(&spec.place(stanzas[target].1.at), message);
                    return Err(problem.hint("an arrow points to what a stage takes by `from:` or `with:`"));
                }
                Some(_) => {}
            }
        }
    }
    Ok(order)
}

fn build(
    spec: &Spec,
    providers: &[Provider],
    stanza: &Stanza,
    fields: &mut Fields<'_>,
    nodes: &[Node],
    (from, with): (&[usize], &[usize]),
    wires: &Wires,
) -> Option<(Work, Columns)> {
    let tables: Vec<&Columns> = from.iter().map(|&node| &nodes[node].columns).collect();
    let what = &stanza.what;
    Some(match stanza.does {
        Does::Files => {
            let files = Files::parse(what, fields, &spec.dir)?;
            let columns = files.columns().into_iter().map(|(name, ty)| PlannedColumn::sure(name, ty)).collect();
            (Work::Table(Table::Files(files)), columns)
        }
        Does::Rows => {
            let rows = Inline::parse(what, fields)?;
            let columns =
                rows.table.schema().columns().iter().map(|column| PlannedColumn::sure(&column.name, column.ty));
            let columns = columns.collect();
            (Work::Table(Table::Rows(rows)), columns)
        }
        Does::Select => {
            let (select, columns) = Select::parse(fields, tables.first()?);
            (Work::Table(Table::Select(Box::new(select))), columns)
        }
        Does::Join => {
            let join = Join::parse(fields, &tables)?;
            let columns = join.columns(&tables);
            (Work::Table(Table::Join(join)), columns)
        }
        // what gathers has become a `concat:`, or no axis is there: then there is one table
        Does::Concat | Does::Gather => {
            if stanza.does == Does::Gather {
                fields.take("over");
            }
            let concat = Concat::parse(fields, tables.len());
            let columns = concat.columns(&tables, fields);
            (Work::Table(Table::Concat(concat)), columns)
        }
        Does::Stage | Does::Run => {
            let with =
                wires.with.iter().zip(with).map(|((name, at, _), &node)| (name.clone(), *at, &nodes[node].columns));
            let with = with.collect();
            let inputs = Inputs {
                from: tables.first().copied(),
                with,
                axes: &stanza.axes,
                params: &spec.params,
                dir: &spec.dir,
                bases: &spec.bases,
                packages: &spec.packages,
            };
            let (stage, columns) = if stanza.does == Does::Run {
                UnitStage::of_command(&stanza.name, what, fields, &inputs)?
            } else {
                let YamlNode::Text(kind) = &what.node else {
                    let message = format!("`stage:` takes the kind of a stage, not {}", what.node.what());
                    fields.wrong(what.at, message, "`effigy stages` lists them");
                    return None;
                };
                let def = providers
                    .iter()
                    .enumerate()
                    .find_map(|(i, provider)| Some((i, provider.description.provider.as_str(), provider.stage(kind)?)));
                let Some(def) = def else {
                    fields.rest();
                    unknown_kind(providers, kind, what.at, fields);
                    return None;
                };
                UnitStage::of_provider(&stanza.name, def, fields, &inputs, wires.from.first().map(|(at, _)| *at))
            };
            (Work::Units(Box::new(stage)), columns)
        }
    })
}

fn unknown_kind(providers: &[Provider], kind: &str, at: At, fields: &mut Fields<'_>) {
    let problem = Problem::at(&fields.place(at), format!("no provider has a stage of kind `{kind}`"));
    let known = providers.iter().flat_map(|provider| &provider.description.stages).map(|def| def.kind.as_str());
    let problem = if providers.is_empty() {
        problem.hint(
            "there is no provider: `effigy-stages` does not lie beside `effigy`, and the recipe has no `providers:`",
        )
    } else {
        problem.did_you_mean(kind, known).or_hint("the providers that there are have no stages")
    };
    fields.problems.push(problem);
}
