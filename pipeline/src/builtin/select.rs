//! `select: FROM`: a choice of rows and columns, in this order: `where`, `every`, `distinct`, `limit` choose rows;
//! `set` and `overrides` write constants; `rename: {new: old}` and `columns`, or `drop`, choose columns.
//!
//! `every: n` keeps the first, the (n+1)th, ... row; with `by: [columns]`, of each group of rows equal there.

use crate::builtin::filter::Filter;
use crate::builtin::{Columns, PlannedColumn, rows};
use crate::error::Problem;
use crate::fields::Fields;
use crate::key::Facts;
use crate::yaml::{At, Item, Key};
use anyhow::Result;
use manifests::{Manifest, Schema, Type, Value};
use std::collections::{HashMap, HashSet};

/// The stage.
#[derive(Clone, Debug, Default)]
pub struct Select {
    filter: Filter,
    every: Option<u64>,
    by: Vec<String>,
    distinct: Option<Vec<String>>,
    limit: Option<u64>,
    set: Vec<(String, Value)>,
    overrides: Vec<(Filter, Vec<(String, Value)>)>,
    rename: Vec<(String, String)>,
    columns: Option<Vec<String>>,
    drop: Vec<String>,
}

impl Select {
    /// Understands the stanza; gives the stage and the columns of its table.
    pub fn parse(fields: &mut Fields<'_>, input: &Columns) -> (Select, Columns) {
        let mut columns = input.clone();
        let filter = Filter::parse(fields, &columns).unwrap_or_default();
        let every = fields.count("every");
        if let Some((at, 0)) = every {
            fields.wrong(at, "`every` must be at least 1, not 0", "`every: 1` keeps all rows, `every: 2` every other");
        }
        let by = fields.texts("by").unwrap_or_default();
        let distinct = fields.texts("distinct");
        if let (Some((at, _)), None) = (by.first(), &every) {
            let hint = "`every: 2` with it keeps every other row of each group; of `limit` and `distinct` a group is no matter";
            fields.wrong(*at, "`by` says what groups `every` counts in, and there is no `every`", hint);
        }
        for (at, name) in by.iter().chain(distinct.iter().flatten()) {
            require(fields, &columns, *at, name);
        }
        let limit = fields.count("limit").map(|(_, limit)| limit);
        let set = fields.map("set").map_or(Vec::new(), |(_, items)| constants(fields, items));
        for (name, value) in &set {
            columns.retain(|column| column.name != *name);
            columns.push(PlannedColumn::sure(name, value.ty().unwrap_or(Type::Str)));
        }
        let mut overrides = Vec::new();
        for item in fields.list("overrides").map_or(Vec::new(), |(_, items)| items) {
            overrides.extend(override_of(fields, item, &columns));
        }
        let (before, mut rename, mut renamed) = (columns.clone(), Vec::<(String, String)>::new(), Vec::new());
        for (key, item) in fields.map("rename").map_or(Vec::new(), |(_, items)| items) {
            let crate::yaml::Node::Text(old) = &item.node else {
                let hint = format!("for example `rename: {{ {}: OLD }}`", key.name);
                fields.wrong(item.at, format!("`rename` takes `new: old`, not {}", item.node.what()), hint);
                continue;
            };
            // all at once: what has a new name does not lose it to the next
            if is_name(fields, key.at, &key.name) && require(fields, &before, item.at, old) {
                let place = before.iter().position(|column| column.name == *old).expect("it was just found");
                if rename.iter().any(|(_, known)| known == old) {
                    fields.wrong(item.at, format!("`{old}` is renamed twice"), "a column has one name");
                }
                columns[place].name = key.name.clone();
                renamed.push((item.at, key.name.clone()));
                rename.push((key.name, old.clone()));
            }
        }
        for (at, name) in renamed {
            if columns.iter().filter(|column| column.name == name).count() > 1 {
                fields.wrong(at, format!("two columns would be called `{name}`"), "rename the other one as well");
            }
        }
        let (chosen, dropped) = (fields.texts("columns"), fields.texts("drop").unwrap_or_default());
        if let (Some(_), Some((at, _))) = (&chosen, dropped.first()) {
            let hint = "`columns` says what stays, `drop` what goes: one will do";
            fields.wrong(*at, "`columns` and `drop` are both given", hint);
        } else if let Some(chosen) = &chosen {
            columns = named(fields, "columns", chosen, &columns, &rename);
        } else {
            let dropped = named(fields, "drop", &dropped, &columns, &rename);
            columns.retain(|column| !dropped.contains(column));
        }
        let names = |texts: Vec<(At, String)>| texts.into_iter().map(|(_, name)| name).collect::<Vec<_>>();
        let select = Select {
            filter,
            every: every.map(|(_, every)| every),
            by: names(by),
            distinct: distinct.map(names),
            limit,
            set,
            overrides,
            rename,
            columns: chosen.map(names),
            drop: names(dropped),
        };
        (select, columns)
    }

    /// Whether each row's fate is its own: then some rows can be told before others are there.
    pub fn is_row_wise(&self) -> bool {
        self.every.is_none() && self.distinct.is_none() && self.limit.is_none()
    }

    /// Its facts. What is not asked for reads otherwise than any column's name.
    pub fn facts(&self, facts: &mut dyn Facts) {
        let every = match (self.every, self.by.as_slice()) {
            (None, _) => "none".into(),
            (Some(every), []) => every.to_string(),
            (Some(every), by) => format!("{every} by {}", by.join(", ")),
        };
        let by = |columns: &Option<Vec<String>>| match columns {
            None => "none".into(),
            Some(columns) => format!("of {}", columns.join(", ")),
        };
        self.filter.facts(facts);
        facts.text("every", &every);
        facts.text("distinct", &by(&self.distinct));
        facts.text("limit", &self.limit.map_or(String::from("none"), |limit| limit.to_string()));
        let write = |owner: &str, set: &[(String, Value)], facts: &mut dyn Facts| {
            set.iter().for_each(|(name, value)| facts.text(&format!("{owner}set {name}"), &value.to_json_text()));
        };
        write("", &self.set, facts);
        for (i, (filter, set)) in self.overrides.iter().enumerate() {
            let owner = format!("override {} ", i + 1);
            filter.facts_of(&owner, facts);
            write(&owner, set, facts);
        }
        self.rename.iter().for_each(|(new, old)| facts.text(&format!("rename {new}"), old));
        let columns = match (&self.columns, self.drop.as_slice()) {
            (Some(columns), _) => format!("only {}", columns.join(", ")),
            (None, []) => "all".into(),
            (None, dropped) => format!("all but {}", dropped.join(", ")),
        };
        facts.text("columns", &columns);
    }

    /// Which rows of its input it keeps, in the order of its table.
    ///
    /// # Errors
    /// If the input lacks a column.
    pub fn rows(&self, input: &Manifest) -> Result<Vec<usize>> {
        let mut rows = self.filter.rows(input)?;
        if let Some(every) = self.every {
            let mut seen: HashMap<Vec<u8>, u64> = HashMap::new();
            let groups = encoded(input, &self.by)?;
            rows.retain(|&row| {
                let count = seen.entry(groups[row].clone()).or_insert(0);
                *count += 1;
                (*count - 1).is_multiple_of(every)
            });
        }
        if let Some(columns) = &self.distinct {
            let values = encoded(input, columns)?;
            let mut seen = HashSet::new();
            rows.retain(|&row| seen.insert(values[row].clone()));
        }
        if let Some(limit) = self.limit {
            rows.truncate(limit as usize);
        }
        Ok(rows)
    }

    /// Its rows.
    pub fn evaluate(&self, input: &Manifest) -> Result<Manifest> {
        let rows = self.rows(input)?;
        let whole = rows.len() == input.len() && rows.iter().enumerate().all(|(i, row)| i == *row);
        let mut table = if whole { input.clone() } else { input.take(&rows) };
        for (name, value) in &self.set {
            let schema = Schema::new([(name.as_str(), value.ty().unwrap_or(Type::Str))])?;
            table = table.beside(&Manifest::from_columns(schema, table.len(), &[vec![value.clone(); table.len()]])?)?;
        }
        for (filter, set) in &self.overrides {
            let rows = filter.rows(&table)?;
            for (name, value) in set {
                let mut values = table.column(name)?;
                rows.iter().for_each(|&row| values[row] = value.clone());
                let ty = table.schema().ty(name).expect("it is a column of the table");
                let schema = Schema::new([(name.as_str(), ty)])?;
                let position = table.schema().names().iter().map(|name| name.to_string()).collect::<Vec<_>>();
                table = table.beside(&Manifest::from_columns(schema, table.len(), &[values])?)?;
                table = table.select(&position.iter().map(String::as_str).collect::<Vec<_>>())?;
            }
        }
        if !self.rename.is_empty() {
            let names: Vec<String> = table
                .schema()
                .names()
                .into_iter()
                .map(|name| {
                    self.rename.iter().find(|(_, old)| old == name).map_or(name.to_string(), |(new, _)| new.clone())
                })
                .collect();
            table = table.renamed(&names.iter().map(String::as_str).collect::<Vec<_>>())?;
        }
        if let Some(columns) = &self.columns {
            table = table.select(&columns.iter().map(String::as_str).collect::<Vec<_>>())?;
        } else if !self.drop.is_empty() {
            let mut kept = table.schema().names();
            kept.retain(|name| !self.drop.iter().any(|dropped| dropped == name));
            table = table.select(&kept)?;
        }
        Ok(table)
    }
}

fn encoded(table: &Manifest, columns: &[String]) -> Result<Vec<Vec<u8>>> {
    Ok(table.map_encoded(&columns.iter().map(String::as_str).collect::<Vec<_>>(), <[u8]>::to_vec)?)
}

/// Whether there is such a column; complains if not.
fn require(fields: &mut Fields<'_>, columns: &Columns, at: At, name: &str) -> bool {
    let found = columns.iter().any(|column| column.name == name);
    if !found {
        let place = fields.place(at);
        let problem = Problem::at(&place, format!("there is no column `{name}` here"));
        let problem = problem.did_you_mean(name, columns.iter().map(|column| column.name.as_str()));
        fields.problems.push(problem.or_hint("the table has no columns"));
    }
    found
}

/// The columns that a list names, each once and by its new name; complains of others.
fn named(
    fields: &mut Fields<'_>,
    list: &str,
    names: &[(At, String)],
    columns: &Columns,
    rename: &[(String, String)],
) -> Columns {
    let mut found = Columns::new();
    for (at, name) in names {
        let is_there = columns.iter().any(|column| column.name == *name);
        if let Some((new, _)) = rename.iter().find(|(_, old)| old == name && !is_there) {
            let message = format!("there is no column `{name}` here any more");
            fields.wrong(*at, message, format!("it is `{new}` now: `{list}:` comes after `rename:`"));
            continue;
        }
        if require(fields, columns, *at, name) {
            let column = columns.iter().find(|column| column.name == *name).expect("it was just found");
            if found.contains(column) {
                fields.wrong(*at, format!("`{list}` names `{name}` twice"), "once is enough");
            } else {
                found.push(column.clone());
            }
        }
    }
    found
}

fn constants(fields: &mut Fields<'_>, items: Vec<(Key, Item)>) -> Vec<(String, Value)> {
    let mut set = Vec::new();
    for (key, item) in items {
        match rows::value_of(&item) {
            Some(_) if !is_name(fields, key.at, &key.name) => {}
            Some(value) => set.push((key.name, value)),
            None => {
                let hint = "a cell is a number, a text, a truth value, `~`, or a list of numbers";
                fields.wrong(item.at, format!("`{}` cannot be set to {}", key.name, item.node.what()), hint);
            }
        }
    }
    set
}

/// Whether a column can be called so; says why not.
fn is_name(fields: &mut Fields<'_>, at: At, name: &str) -> bool {
    let schema = Schema::new([(name.to_string(), Type::Str)]);
    if let Err(error) = &schema {
        fields.wrong(at, error.to_string(), "use letters, digits and `_`, not a digit first");
    }
    schema.is_ok()
}

fn override_of(fields: &mut Fields<'_>, item: Item, columns: &Columns) -> Option<(Filter, Vec<(String, Value)>)> {
    let place = fields.place(item.at);
    let mut own =
        match Fields::of(&place.file, "an override", item, "{ where: { column: value }, set: { column: value } }") {
            Ok(own) => own,
            Err(problem) => {
                fields.problems.push(problem);
                return None;
            }
        };
    let filter = Filter::parse(&mut own, columns).unwrap_or_default();
    let items = own.map("set").map_or(Vec::new(), |(_, items)| items);
    let mut set = Vec::new();
    for (key, item) in items {
        if !require(&mut own, columns, key.at, &key.name) {
            continue;
        }
        let ty = columns.iter().find(|column| column.name == key.name).expect("it was just found").ty;
        match rows::value_of(&item).map(|value| rows::in_column(ty, value)) {
            Some(value) if value.ty().is_none_or(|found| crate::builtin::fits(ty, found)) => {
                set.push((key.name, value))
            }
            _ => {
                let message = format!("column `{}` is {ty}, it cannot be set to {}", key.name, item.node.what());
                own.wrong(item.at, message, format!("give a value of type {ty}, or `~` for none"));
            }
        }
    }
    fields.problems.append(&mut own.finish());
    Some((filter, set))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Printer;

    fn parsed(yaml: &str) -> (Vec<String>, Vec<Problem>) {
        let columns = ["n", "g", "path"].map(|name| PlannedColumn::sure(name, Type::I64)).to_vec();
        let mut fields = Fields::of("r", "it", crate::yaml::parse("r", yaml).unwrap(), "{}").unwrap();
        let (select, _) = Select::parse(&mut fields, &columns);
        let mut printer = Printer::default();
        select.facts(&mut printer);
        let facts = printer.0.into_iter().map(|(name, value)| format!("{name}: {value}")).collect();
        (facts, fields.finish())
    }

    #[test]
    fn facts_are_words() {
        let (facts, problems) = parsed("{}");
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(facts, ["every: none", "distinct: none", "limit: none", "columns: all"]);
        let override_of = "{ where: { n: [3] }, set: { n: 4 } }";
        let (facts, problems) = parsed(&format!(
            "{{ where: {{ n: {{ min: 2 }} }}, every: 2, by: g, distinct: [n], limit: 5, overrides: [{override_of}], columns: [n] }}"
        ));
        assert!(problems.is_empty(), "{problems:?}");
        let override_facts = ["override 1 where n: 3", "override 1 set n: 4"];
        let own = ["where n: at least 2", "every: 2 by g", "distinct: of n", "limit: 5"];
        assert_eq!(facts, [&own[..], &override_facts, &["columns: only n"]].concat());
    }

    #[test]
    fn columns_that_are_dropped_are_there_and_are_not_chosen_as_well() {
        let (facts, problems) = parsed("{ rename: { m: n }, drop: [m, path] }");
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(facts.last().unwrap(), "columns: all but m, path");
        for (yaml, message) in [
            ("{ drop: [n, q] }", "there is no column `q` here"),
            ("{ drop: [n, n] }", "`drop` names `n` twice"),
            ("{ rename: { m: n }, drop: [n] }", "there is no column `n` here any more"),
            ("{ columns: [g], drop: n }", "`columns` and `drop` are both given"),
        ] {
            let (_, problems) = parsed(yaml);
            let told: Vec<&str> = problems.iter().map(|problem| problem.message.as_str()).collect();
            assert_eq!(told, [message]);
        }
        let ints = |values: [i64; 2]| values.map(Value::I64).to_vec();
        let schema = Schema::new([("n", Type::I64), ("g", Type::I64)]).unwrap();
        let table = Manifest::from_columns(schema, 2, &[ints([1, 2]), ints([3, 4])]).unwrap();
        let select = Select { drop: vec!["n".into()], ..Select::default() };
        assert_eq!(select.evaluate(&table).unwrap(), table.select(&["g"]).unwrap());
    }

    #[test]
    fn a_column_that_was_renamed_is_found_again() {
        let (_, problems) = parsed("{ rename: { copy_path: path }, columns: [n, path] }");
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].hint.as_deref(), Some("it is `copy_path` now: `columns:` comes after `rename:`"));
    }
}
