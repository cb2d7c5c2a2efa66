//! `out.jsonl`: the rows that a program without an Arrow library puts out, a JSON object a line, as a table with the
//! types that its stage declares. Knows no units, and takes no files in.

use crate::hints::hinted;
use anyhow::{Context, Result};
use manifests::{Manifest, Schema, Type, Value};
use protocol::{ColumnDef, OF, UNIT};
use serde_json::{Map, Value as Json};
use std::path::Path;

/// Its name in `{out}`.
pub const FILE: &str = "out.jsonl";

/// Reads the file: columns `_unit` and `_of`, null where a line does not say them, then those of `writes`; the paths of
/// files are text. Blank lines count for nothing.
///
/// # Errors
/// With the number of the line, if one is no JSON object, or has no value of the declared type for each column and no
/// others.
pub fn read(path: &Path, writes: &[ColumnDef]) -> Result<Manifest> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let text = String::from_utf8(bytes)
        .map_err(|_| hinted("{out}/out.jsonl is no text in UTF-8", "write it in UTF-8, a JSON object on each line"))?;
    let mut types: Vec<Type> =
        [Type::I64, Type::I64].into_iter().chain(writes.iter().map(|column| column.ty)).collect();
    let mut rows = Vec::new();
    for (n, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let row = row(n + 1, line, writes)?;
        for (ty, (value, column)) in types.iter_mut().skip(2).zip(row.iter().skip(2).zip(writes)) {
            // the width is what the first row has
            match (*ty, value) {
                (Type::Floats(0), Value::Floats(floats)) => *ty = Type::Floats(floats.len() as u32),
                (Type::Floats(wanted), Value::Floats(floats)) if floats.len() != wanted as usize => {
                    let found = floats.len();
                    let message = format!("`{}` holds {found} numbers, and {wanted} in lines above", column.name);
                    return Err(wrong(n + 1, &message, "write lists of one length"));
                }
                _ => {}
            }
        }
        rows.push(row);
    }
    let names = [UNIT, OF].into_iter().chain(writes.iter().map(|column| column.name.as_str()));
    let of_path = |ty: Type| if ty == Type::Blob { Type::Str } else { ty };
    let schema = Schema::new(names.zip(types.into_iter().map(of_path)))?;
    Ok(Manifest::from_rows(schema, &rows)?)
}

fn wrong(line: usize, what: &str, hint: impl Into<String>) -> anyhow::Error {
    hinted(format!("line {line} of {{out}}/{FILE}: {what}"), hint)
}

/// The values of one line: `_unit`, `_of`, then one for each column.
fn row(n: usize, line: &str, writes: &[ColumnDef]) -> Result<Vec<Value>> {
    let json: Json = serde_json::from_str(line).map_err(|error| {
        // there is but one line to it
        let error = error.to_string().replace(" at line 1 column ", " at column ");
        wrong(n, &format!("it is no JSON ({error})"), "each line is a JSON object; NaN and what is not there is `null`. A file that is no table of results needs another name")
    })?;
    let object = match json {
        Json::Object(object) => object,
        other => {
            let message = format!("it is no JSON object but {}", short(&other));
            return Err(wrong(n, &message, "write a value for each column of `writes:`, as in {\"score\": 0.5}"));
        }
    };
    let known = |name: &str| name == UNIT || name == OF || writes.iter().any(|column| column.name == name);
    if let Some((name, _)) = object.iter().find(|(name, _)| !known(name)) {
        let declared: Vec<&str> = writes.iter().map(|column| column.name.as_str()).collect();
        let message =
            format!("there is a `{name}` that the stage does not declare; it declares {}", declared.join(", "));
        return Err(wrong(n, &message, format!("add `{name}:` with its type to `writes:`, or leave it out")));
    }
    let mut values = Vec::with_capacity(writes.len() + 2);
    for name in [UNIT, OF] {
        values.push(if object.contains_key(name) { cell(n, &object, name, Type::I64)? } else { Value::Null });
    }
    for column in writes {
        values.push(cell(n, &object, &column.name, column.ty)?);
    }
    Ok(values)
}

fn cell(n: usize, object: &Map<String, Json>, name: &str, ty: Type) -> Result<Value> {
    let Some(json) = object.get(name) else {
        let hint = format!("each line has all columns: write \"{name}\": null where there is no value");
        return Err(wrong(n, &format!("there is no `{name}` ({ty})"), hint));
    };
    value(ty, json).ok_or_else(|| {
        let wanted = match ty {
            Type::Bool => "true or false".to_string(),
            Type::I64 => "an integer, without quotes and point".into(),
            Type::F64 => "a number, without quotes".into(),
            Type::Str => "a text in quotes".into(),
            Type::Floats(0) => "a list of numbers".into(),
            Type::Floats(count) => format!("a list of {count} numbers"),
            Type::Blob => "the path of a file, relative to {out}".into(),
        };
        let message = format!("`{name}` is {}, expected {ty}", short(json));
        wrong(n, &message, format!("write {wanted}, or null; or declare another type under `writes:`"))
    })
}

/// A value of this type, or null; `None` if it is of another.
fn value(ty: Type, json: &Json) -> Option<Value> {
    Some(match (ty, json) {
        (_, Json::Null) => Value::Null,
        (Type::Bool, Json::Bool(value)) => Value::Bool(*value),
        (Type::I64, Json::Number(number)) => Value::I64(number.as_i64()?),
        (Type::F64, Json::Number(number)) => Value::F64(number.as_f64()?),
        (Type::Str | Type::Blob, Json::String(text)) => Value::Str(text.clone()),
        (Type::Floats(count), Json::Array(items)) => {
            let floats = items.iter().map(Json::as_f64).collect::<Option<Vec<f64>>>()?;
            let fits = if count == 0 { !floats.is_empty() } else { floats.len() == count as usize };
            Value::Floats(fits.then_some(floats)?)
        }
        _ => return None,
    })
}

/// JSON as a message shows it.
fn short(json: &Json) -> String {
    let text = json.to_string();
    let cut: String = text.chars().take(40).collect();
    if cut.len() < text.len() { format!("{cut}...") } else { cut }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hints::hint_of;

    fn writes() -> Vec<ColumnDef> {
        let types = [("ok", Type::Bool), ("n", Type::I64), ("x", Type::F64), ("s", Type::Str)];
        let more = [("k", Type::Floats(0)), ("pair", Type::Floats(2)), ("file", Type::Blob)];
        let column = |(name, ty): (&str, Type)| ColumnDef { name: name.into(), ty, optional: false };
        types.into_iter().chain(more).map(column).collect()
    }

    fn of(text: &[u8], writes: &[ColumnDef]) -> Result<Manifest> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        std::fs::write(&path, text).unwrap();
        read(&path, writes)
    }

    const GOOD: &str = r#"{"ok": true, "n": -3, "x": 2, "s": "ü", "k": [1, 2.5, 3], "pair": [0, 1], "file": "a.txt"}"#;

    #[test]
    fn values_have_the_types_that_are_declared() {
        let nulls = r#"{"ok":null,"n":null,"x":null,"s":null,"k":null,"pair":null,"file":null,"_of":0}"#;
        let table = of(format!("{nulls}\n\n{GOOD}\r\n").as_bytes(), &writes()).unwrap();
        let good = [
            Value::Null,
            Value::Null,
            Value::Bool(true),
            Value::I64(-3),
            Value::F64(2.0),
            Value::Str("ü".into()),
            Value::Floats(vec![1.0, 2.5, 3.0]),
            Value::Floats(vec![0.0, 1.0]),
            Value::Str("a.txt".into()),
        ];
        assert_eq!((table.len(), table.row(1)), (2, good.to_vec()));
        assert_eq!(table.row(0)[..3], [Value::Null, Value::I64(0), Value::Null]);
        assert_eq!(
            (table.schema().names()[..3].to_vec(), table.schema().ty("k")),
            (vec![UNIT, OF, "ok"], Some(Type::Floats(3)))
        );
        let empty = of(b"", &writes()).unwrap();
        assert_eq!((empty.len(), empty.schema().ty("k")), (0, Some(Type::Floats(0))));
        assert_eq!(of(nulls.as_bytes(), &writes()).unwrap().len(), 1, "floats of a width that no line tells");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let with = |old: &str, new: &str| format!("{GOOD}\n{}\n", GOOD.replace(old, new));
        for (text, expected) in [
            (with("}", ""), "line 2 of {out}/out.jsonl: it is no JSON (EOF while parsing an object at column"),
            (with("-3", "NaN"), "line 2 of {out}/out.jsonl: it is no JSON"),
            ("[1]\n".into(), "line 1 of {out}/out.jsonl: it is no JSON object but [1]"),
            (with("\"n\": -3, ", ""), "line 2 of {out}/out.jsonl: there is no `n` (i64)"),
            (with("\"n\": -3", "\"n\": 3.5"), "`n` is 3.5, expected i64"),
            (
                with("\"n\": -3", "\"n\": -3, \"m\": 1"),
                "there is a `m` that the stage does not declare; it declares ok, n",
            ),
            (with("\"x\": 2", "\"x\": \"2\""), "`x` is \"2\", expected f64"),
            (with("true", "1"), "`ok` is 1, expected bool"),
            (with("\"a.txt\"", "7"), "`file` is 7, expected blob"),
            (with("[0, 1]", "[0]"), "`pair` is [0], expected floats[2]"),
            (with("[1, 2.5, 3]", "[1, 2]"), "line 2 of {out}/out.jsonl: `k` holds 2 numbers, and 3 in lines above"),
            (with("[1, 2.5, 3]", "[]"), "`k` is [], expected floats[0]"),
            (with("{", "{\"_of\": \"a\", "), "`_of` is \"a\", expected i64"),
        ] {
            let error = of(text.as_bytes(), &writes()).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}\nexpected {expected}");
            assert!(hint_of(&error).is_some_and(|hint| !hint.is_empty()), "{error}");
        }
        assert!(of(&[0xff], &writes()).unwrap_err().to_string().contains("no text in UTF-8"));
    }
}
