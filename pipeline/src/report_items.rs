//! The recipe's `report:`: what to show, checked against the stages there are. Makes no report.

use crate::error::Problem;
use crate::fields::Fields;
use crate::finished::{ReportItem, TableItem};
use crate::plan::Node;
use crate::spec::Spec;
use crate::yaml::{At, Item, Node as YamlNode};
use manifests::{Type, Value};

const AN_ITEM: &str = "{ text: \"What this shows.\" }";

const KINDS: [&str; 6] = ["text", "table", "images", "curve", "rates", "videos"];

/// Understands the items.
pub fn parse(spec: &Spec, nodes: &[Node], problems: &mut Vec<Problem>) -> Vec<ReportItem> {
    let Some(report) = &spec.report else { return Vec::new() };
    let YamlNode::List(items) = &report.node else {
        let problem =
            Problem::at(&spec.place(report.at), format!("`report:` takes a list, not {}", report.node.what()));
        problems.push(problem.hint(format!("for example `report: [{AN_ITEM}]`")));
        return Vec::new();
    };
    let mut parsed = Vec::new();
    for item in items {
        match Fields::of(&spec.file, "an item of the report", item.clone(), AN_ITEM) {
            Ok(mut fields) => {
                parsed.extend(one(item, nodes, &mut fields));
                problems.append(&mut fields.finish());
            }
            Err(problem) => problems.push(problem),
        }
    }
    parsed
}

fn one(item: &Item, nodes: &[Node], fields: &mut Fields<'_>) -> Option<ReportItem> {
    let YamlNode::Map(entries) = &item.node else { return None };
    let kinds: Vec<&str> = KINDS.into_iter().filter(|kind| entries.iter().any(|(key, _)| key.name == *kind)).collect();
    let [kind] = kinds[..] else {
        fields.rest();
        let problem = Problem::at(&fields.place(item.at), "an item of the report must be one thing");
        fields.problems.push(problem.hint(format!("give it one of {}", KINDS.join(", "))));
        return None;
    };
    if kind == "text" {
        return fields.text("text").map(|(_, text)| ReportItem::Text { text });
    }
    if kind == "rates" {
        return rates(nodes, fields);
    }
    let (at, stage) = fields.text(kind)?;
    let Some(node) = nodes.iter().find(|node| node.name == stage) else {
        fields.rest();
        let problem = Problem::at(&fields.place(at), format!("there is no stage `{stage}`"));
        fields.problems.push(problem.did_you_mean(&stage, nodes.iter().map(|node| node.name.as_str())));
        return None;
    };
    let title = fields.text("title").map(|(_, title)| title);
    if kind == "table" {
        return Some(ReportItem::Table(table(at, node, stage, title, fields)));
    }
    let column = match fields.text("column") {
        Some((at, column)) => {
            if require(fields, node, at, &column).is_some_and(|ty| ty != Type::Blob) {
                let blobs = node.columns.iter().filter(|column| column.ty == Type::Blob);
                let problem = Problem::at(&fields.place(at), format!("column `{column}` of `{stage}` holds no files"));
                let problem = problem.did_you_mean(&column, blobs.map(|column| column.name.as_str()));
                fields.problems.push(problem.or_hint("none of its columns does; `table:` shows numbers and text"));
            }
            column
        }
        None => {
            fields.missing("column", "the blob column to show");
            return None;
        }
    };
    let limit = fields.count("limit").map(|(_, limit)| limit as usize);
    if kind == "curve" {
        return Some(ReportItem::Curve { stage, title, column, limit });
    }
    let groups = columns(fields, node, "groups", false).into_iter().map(|(_, name)| name).collect();
    let caption = fields.texts("caption").unwrap_or_default().into_iter().map(|(_, name)| name).collect();
    if kind == "videos" {
        return Some(ReportItem::Videos { stage, title, column, caption, groups, limit });
    }
    Some(ReportItem::Images { stage, title, column, caption, groups, limit })
}

/// Stages by the names they have in the recipe: one that varies means all of its variants.
fn rates(nodes: &[Node], fields: &mut Fields<'_>) -> Option<ReportItem> {
    let stages = fields.texts("rates").unwrap_or_default();
    let count = fields.text("count");
    let title = fields.text("title").map(|(_, title)| title);
    let base = |node: &Node| node.name.split('@').next().unwrap_or_default().to_string();
    for (at, stage) in stages.iter().chain(&count) {
        if !nodes.iter().any(|node| base(node) == *stage) {
            let bases: Vec<String> = nodes.iter().map(base).collect();
            let problem = Problem::at(&fields.place(*at), format!("there is no stage `{stage}`"));
            fields.problems.push(problem.did_you_mean(stage, bases.iter().map(String::as_str)));
            return None;
        }
    }
    let stages = stages.into_iter().map(|(_, stage)| stage).collect();
    Some(ReportItem::Rates { stages, title, count: count.map(|(_, stage)| stage) })
}

fn table(at: At, node: &Node, stage: String, title: Option<String>, fields: &mut Fields<'_>) -> TableItem {
    let by = columns(fields, node, "by", false);
    let (mean, per) = (columns(fields, node, "mean", true), columns(fields, node, "per", false));
    let shown = columns(fields, node, "columns", false);
    let (higher, lower) = (columns(fields, node, "higher", true), columns(fields, node, "lower", true));
    if let (false, Some((at, _))) = (by.is_empty(), shown.first()) {
        let hint = "`by:` with `mean: [COLUMN]` shows groups; `columns:` without `by:` shows the rows as they are";
        fields.wrong(*at, "a table shows groups (`by:`) or rows (`columns:`), not both", hint);
    }
    if let Some((at, name)) = lower.iter().find(|(_, name)| higher.iter().any(|(_, other)| other == name)) {
        let hint = "leave it where more (`higher:`) or less (`lower:`) of it is better";
        fields.wrong(*at, format!("column `{name}` is under `higher:` and under `lower:`"), hint);
    }
    let has = |list: &[(At, String)], name: &String| list.iter().any(|(_, other)| other == name);
    for (field, (at, name)) in higher.iter().map(|one| ("higher", one)).chain(lower.iter().map(|one| ("lower", one))) {
        let (is_told, does, hint) = match mean.is_empty() && by.is_empty() {
            true => (shown.is_empty() || has(&shown, name), "show", "`columns:` says which columns are shown"),
            false => (has(&mean, name), "average", "`mean: [COLUMN]` says which columns are averaged, `by:` over what"),
        };
        // one that is not there has been told of
        if !is_told && node.columns.iter().any(|column| column.name == *name) {
            fields.wrong(*at, format!("`{field}:` names `{name}`, which this table does not {does}"), hint);
        }
    }
    let names = |columns: Vec<(At, String)>| columns.into_iter().map(|(_, name)| name).collect::<Vec<_>>();
    let (by, mean, per, columns) = (names(by), names(mean), names(per), names(shown));
    let (higher, lower) = (names(higher), names(lower));
    let filter = filter(fields, node);
    let tolerance = tolerance(fields, node);
    let note = fields.text("note").map(|(_, note)| note);
    let against = fields.text("against");
    let averages =
        |problem: Problem| problem.or_hint("`mean: [COLUMN]` says which columns are averaged, `by:` over what");
    if mean.is_empty() && !per.is_empty() {
        let hint = "`mean: [COLUMN]` says of what; `per:` what is averaged before, like `per: [participant]`";
        fields.problems.push(Problem::at(&fields.place(at), "`per:` is for tables of means").hint(hint));
    }
    if let Some((at, value)) = against.as_ref().filter(|_| mean.is_empty() || by.is_empty()) {
        let message = format!("nothing can be compared with `{value}`: `against:` is for means of groups");
        fields.problems.push(averages(Problem::at(&fields.place(*at), message)));
    }
    if let Some((column, _)) = tolerance.iter().find(|(column, _)| !mean.contains(column)) {
        let message = format!("`tolerance:` names `{column}`, which this table does not average");
        fields.problems.push(averages(Problem::at(&fields.place(at), message)));
    }
    let against = against.map(|(_, value)| value);
    TableItem { stage, title, by, mean, per, columns, higher, lower, filter, against, tolerance, note }
}

/// The columns that a field of a table names. Some fields are for `numbers`, or for truth values, whose mean is a
/// share.
fn columns(fields: &mut Fields<'_>, node: &Node, field: &str, numbers: bool) -> Vec<(At, String)> {
    let named = fields.texts(field).unwrap_or_default();
    let is_number = |ty: Type| matches!(ty, Type::I64 | Type::F64 | Type::Bool);
    for (at, name) in &named {
        let Some(ty) = require(fields, node, *at, name).filter(|ty| numbers && !is_number(*ty)) else { continue };
        let message = format!("column `{name}` of `{}` is {ty}, and `{field}:` is for numbers", node.name);
        let others: Vec<&str> =
            node.columns.iter().filter(|column| is_number(column.ty)).map(|column| column.name.as_str()).collect();
        let problem = Problem::at(&fields.place(*at), message).there_are(&others);
        fields.problems.push(problem.or_hint("none of its columns holds any; `columns:` shows text"));
    }
    named
}

/// How far committed means may be off, by column.
fn tolerance(fields: &mut Fields<'_>, node: &Node) -> Vec<(String, f64)> {
    let Some((at, entries)) = fields.map("tolerance") else { return Vec::new() };
    let place = fields.place(at);
    let names: Vec<(At, String)> = entries.iter().map(|(key, _)| (key.at, key.name.clone())).collect();
    let mut own = Fields::new(&place.file, "`tolerance`", at, entries);
    let mut found = Vec::new();
    for (at, name) in names {
        let Some((_, most)) = own.number(&name) else { continue };
        if most >= 0.0 && most.is_finite() {
            found.push((name.clone(), most));
        } else {
            own.wrong(
                at,
                format!("the tolerance of `{name}` is {most}"),
                "it is a number from 0 on, in the column's unit",
            );
        }
        require(&mut own, node, at, &name);
    }
    let mut problems = own.finish();
    fields.problems.append(&mut problems);
    found
}

fn require(fields: &mut Fields<'_>, node: &Node, at: At, name: &str) -> Option<Type> {
    let found = node.columns.iter().find(|column| column.name == name).map(|column| column.ty);
    if found.is_none() {
        let problem = Problem::at(&fields.place(at), format!("stage `{}` has no column `{name}`", node.name));
        let problem = problem.did_you_mean(name, node.columns.iter().map(|column| column.name.as_str()));
        fields.problems.push(problem.or_hint("it has no columns"));
    }
    found
}

fn filter(fields: &mut Fields<'_>, node: &Node) -> Vec<(String, Vec<Value>)> {
    use crate::builtin::filter::{Condition, Filter};
    let at = fields.at();
    let mut plain = Vec::new();
    for (column, condition) in Filter::parse(fields, &node.columns).unwrap_or_default().conditions {
        match condition {
            Condition::In(values) => plain.push((column, values)),
            _ => {
                let hint = "put a `select:` with this condition before it, and show that";
                fields.wrong(at, "the `where:` of a report's table takes values only", hint);
            }
        }
    }
    plain
}
