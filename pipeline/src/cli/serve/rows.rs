//! Tables as pages of rows: conditions, order, and cells as JSON. Knows nothing of stages.

use super::asked::{Answered, Refusal, missing, wrong};
use crate::memory::Store;
use crate::rows_where;
use manifests::{Digest, Manifest, Value};
use serde_json::{Value as Json, json};
use std::cmp::Ordering;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// Tables that are kept in memory, since pages ask for the same again.
const KEPT: usize = 6;
/// Longer lists of numbers are shown by their beginning, unless all of it is asked for.
const LONG: usize = 16;
/// At most so many rows on a page.
const PAGE: usize = 500;

/// The tables of a workspace.
pub struct Tables {
    store: Store,
    recent: Mutex<Vec<(Digest, Arc<Manifest>)>>,
    /// What is told of the columns of tables that were asked for.
    told: Mutex<Vec<(Digest, Arc<Json>)>>,
}

/// What rows are asked for.
#[derive(Default)]
pub struct Query {
    /// Conditions as `effigy show --where` takes them.
    pub conditions: Vec<String>,
    /// A column, and whether the largest come first.
    pub order: Option<(String, bool)>,
    /// The first row of the page.
    pub offset: usize,
    /// Rows of the page.
    pub limit: usize,
    /// Whether long lists are given out whole.
    pub whole: bool,
}

impl Tables {
    /// Those of a workspace.
    pub fn new(root: &Path) -> Tables {
        Tables { store: Store::new(root), recent: Mutex::default(), told: Mutex::default() }
    }

    /// Whether the table of a digest is still kept.
    pub fn has(&self, digest: &Digest) -> bool {
        self.store.table_path(digest).is_file()
    }

    /// The table of a digest. One that is damaged stays where it is: the next run deals with it.
    ///
    /// # Errors
    /// If it is not kept any more, or damaged.
    pub fn table(&self, digest: &Digest) -> Answered<Arc<Manifest>> {
        let lock = || self.recent.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((_, table)) = lock().iter().find(|(known, _)| known == digest) {
            return Ok(table.clone());
        }
        let gone = || Refusal {
            hint: Some(
                "tables are kept of the last run of each recipe and of the ten latest runs; run it again".into(),
            ),
            ..missing("this table is not kept any more")
        };
        let table = manifests::read_ipc(&self.store.table_path(digest)).map_err(|_| gone())?;
        if table.digest() != *digest {
            return Err(gone());
        }
        let table = Arc::new(table);
        let mut recent = lock();
        recent.insert(0, (*digest, table.clone()));
        recent.truncate(KEPT);
        Ok(table)
    }
}

impl Tables {
    /// The columns of a table, each with name, type and what all of its rows have in common.
    ///
    /// # Errors
    /// If the table is not kept any more.
    pub fn columns(&self, digest: &Digest) -> Answered<Arc<Json>> {
        let lock = || self.told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((_, told)) = lock().iter().find(|(known, _)| known == digest) {
            return Ok(told.clone());
        }
        let told = Arc::new(columns(&*self.table(digest)?)?);
        let mut all = lock();
        all.insert(0, (*digest, told.clone()));
        all.truncate(KEPT);
        Ok(told)
    }
}

/// What a page needs of columns to show them the same way whatever rows it holds: whether all rows are equal, the kind
/// of files, whether rows are called by it, and how numbers are written.
fn columns(table: &Manifest) -> Answered<Json> {
    let mut told = Vec::new();
    let naming = crate::compare::Naming::of(table);
    for column in table.schema().columns() {
        let values = table.column(&column.name).map_err(anyhow::Error::from)?;
        let constant = values.windows(2).all(|pair| pair[0] == pair[1])
            && (values.len() > 1 || values.first() == Some(&Value::Null));
        let ext =
            values.iter().find_map(|value| if let Value::Blob(blob) = value { Some(blob.ext.clone()) } else { None });
        let numbers = || {
            values
                .iter()
                .filter_map(|value| if let Value::F64(x) = value { Some(*x) } else { None })
                .filter(|x| x.is_finite())
        };
        let decimals = |x: f64| format!("{x}").split_once('.').map_or(0, |(_, digits)| digits.len());
        let facts = json!({
            "constant": constant,
            "ext": ext,
            "names": naming.columns().contains(&column.name),
            "largest": numbers().map(f64::abs).reduce(f64::max),
            "decimals": numbers().map(decimals).max(),
        });
        told.push(json!([column.name, column.ty.to_string(), facts]));
    }
    Ok(told.into())
}

/// A page of a table.
///
/// # Errors
/// If a condition is not understood, or a column is not there.
pub fn page(table: &Manifest, query: &Query) -> Answered<Json> {
    let mut rows = rows_where::rows(table, &query.conditions)?;
    if let Some((column, down)) = &query.order {
        let values = table.column(column).map_err(|error| wrong(error.to_string()))?;
        rows.sort_by(|a, b| {
            let order = order(&values[*a], &values[*b]);
            // what has no value stands last either way
            let empty = matches!(values[*a], Value::Null) || matches!(values[*b], Value::Null);
            if *down && !empty { order.reverse() } else { order }
        });
    }
    let columns: Vec<Json> =
        table.schema().columns().iter().map(|column| json!([column.name, column.ty.to_string()])).collect();
    let shown = rows.iter().skip(query.offset).take(query.limit.min(PAGE));
    let cells = |row: &usize| {
        let cells: Vec<Json> = table.row(*row).iter().map(|value| cell(value, query.whole)).collect();
        json!([row, cells])
    };
    Ok(json!({
        "columns": columns,
        "total": table.len(),
        "matching": rows.len(),
        "rows": shown.map(cells).collect::<Vec<_>>(),
    }))
}

/// A cell: a file as its digest, length and extension, a long list by its beginning, all else as `show --json` has it.
pub fn cell(value: &Value, whole: bool) -> Json {
    match value {
        Value::Blob(blob) => json!({"blob": blob.digest.to_string(), "len": blob.len, "ext": blob.ext}),
        Value::Floats(values) if values.len() > LONG && !whole => json!({"floats": values.len(), "first": values[..4]}),
        other => serde_json::from_str(&other.to_json_text()).expect("it is JSON"),
    }
}

fn order(a: &Value, b: &Value) -> Ordering {
    let number = |value: &Value| match value {
        Value::I64(number) => Some(*number as f64),
        Value::F64(number) => Some(*number),
        Value::Bool(value) => Some(f64::from(*value)),
        _ => None,
    };
    match (a, b) {
        (Value::Null, Value::Null) => Ordering::Equal,
        (Value::Null, _) => Ordering::Greater,
        (_, Value::Null) => Ordering::Less,
        (Value::Str(a), Value::Str(b)) => a.cmp(b),
        (Value::Blob(a), Value::Blob(b)) => a.len.cmp(&b.len),
        _ => number(a).zip(number(b)).map_or(Ordering::Equal, |(a, b)| a.total_cmp(&b)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use manifests::{Schema, Type};

    #[test]
    fn a_page_is_cut_from_what_is_left_in_order() {
        let schema = Schema::new([("n", Type::I64), ("x", Type::F64), ("code", Type::Floats(20))]).unwrap();
        let row = |n, x| vec![Value::I64(n), x, Value::Floats(vec![0.5; 20])];
        let rows =
            [row(1, Value::F64(3.0)), row(2, Value::Null), row(3, Value::F64(f64::NAN)), row(4, Value::F64(-1.0))];
        let table = Manifest::from_rows(schema, &rows).unwrap();
        let numbers = |query: &Query| -> Vec<i64> {
            let page = page(&table, query).unwrap();
            let rows = page["rows"].as_array().unwrap().clone();
            rows.iter().map(|row| row[1][0].as_i64().unwrap()).collect()
        };
        let order = |down| Query { order: Some(("x".into(), down)), limit: 9, ..Query::default() };
        assert_eq!(numbers(&order(false)), [4, 1, 3, 2]);
        assert_eq!(numbers(&order(true)), [3, 1, 4, 2]);
        let query = Query { conditions: vec!["n>1".into()], offset: 1, limit: 1, ..Query::default() };
        assert_eq!(numbers(&query), [3]);
        let found = page(&table, &query).unwrap();
        assert_eq!((&found["total"], &found["matching"]), (&json!(4), &json!(3)));
        assert_eq!(found["rows"][0][1][2], json!({"floats": 20, "first": [0.5, 0.5, 0.5, 0.5]}));
        let told = columns(&table).unwrap();
        assert_eq!(
            told[1],
            json!(["x", "f64", {"constant": false, "ext": null, "names": false, "largest": 3.0, "decimals": 0}])
        );
        assert_eq!(told[0][2]["names"], json!(true));
        assert_eq!((&told[2][2]["constant"], &told[0][2]["constant"]), (&json!(true), &json!(false)));
        assert_eq!(page(&table, &Query { conditions: vec!["m>1".into()], ..query }).unwrap_err().status, 400);
    }
}
