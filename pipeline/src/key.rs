//! Keys: the facts that decide a unit's result, hashed. The same facts go through a printer for `why`, so that an
//! explanation cannot drift from the key.
//!
//! ```text
//! unit key = H( "unit/1" | kind | version | parameters, sorted, files by content
//!             | each constant: name, digest of the columns that are read of it
//!             | names of the columns read | number of rows | each row, projected to these columns, encoded canonically )
//! ```
//!
//! Not among the facts: paths, times, hosts, batch sizes, threads, the order of stages, or how often a unit was tried.

use cache::StageFacts;
use manifests::{Digest, Hasher, Manifest, Value};
use rayon::prelude::*;

/// Takes in facts, in order.
pub trait Facts {
    /// A named text.
    fn text(&mut self, name: &str, value: &str);
    /// A named content: a file, a table.
    fn content(&mut self, name: &str, digest: &Digest);
}

impl Facts for Hasher {
    fn text(&mut self, name: &str, value: &str) {
        self.bytes(name.as_bytes());
        self.bytes(value.as_bytes());
    }

    fn content(&mut self, name: &str, digest: &Digest) {
        self.bytes(name.as_bytes());
        self.digest(digest);
    }
}

/// Writes facts down for people.
#[derive(Default)]
pub struct Printer(pub Vec<(String, String)>);

impl Facts for Printer {
    fn text(&mut self, name: &str, value: &str) {
        self.0.push((name.into(), value.into()));
    }

    fn content(&mut self, name: &str, digest: &Digest) {
        self.0.push((name.into(), digest.to_string()));
    }
}

/// What all units of a stage have in common.
#[derive(Clone)]
pub struct Head {
    hasher: Hasher,
    /// Digest of the facts, with their readable form.
    pub facts: StageFacts,
}

impl Head {
    /// The head of a stage of this kind: `write` tells its facts.
    pub fn new(kind: &str, write: impl Fn(&mut dyn Facts)) -> Head {
        let mut hasher = Hasher::new("unit/1");
        write(&mut hasher);
        let mut printer = Printer::default();
        write(&mut printer);
        let facts = StageFacts { digest: hasher.finish(), kind: kind.into(), facts: printer.0 };
        Head { hasher, facts }
    }

    /// The keys of units of one row each: the rows of `table`, which holds the columns read.
    pub fn row_keys(&self, table: &Manifest) -> Vec<Digest> {
        let (head, names) = self.with_columns(table);
        let keys = table.map_encoded(&names, |bytes| {
            let mut hasher = head.clone();
            hasher.number(1);
            hasher.bytes(bytes);
            hasher.finish()
        });
        keys.expect("they are columns of the table")
    }

    /// The keys of units of several rows each.
    pub fn unit_keys(&self, table: &Manifest, units: &[Vec<usize>]) -> Vec<Digest> {
        let (head, names) = self.with_columns(table);
        let rows: Vec<Vec<u8>> = table.map_encoded(&names, <[u8]>::to_vec).expect("they are columns of the table");
        units
            .par_iter()
            .map(|unit| {
                let mut hasher = head.clone();
                hasher.number(unit.len() as u64);
                unit.iter().for_each(|&row| hasher.bytes(&rows[row]));
                hasher.finish()
            })
            .collect()
    }

    fn with_columns<'a>(&self, table: &'a Manifest) -> (Hasher, Vec<&'a str>) {
        let mut names = table.schema().names();
        names.sort_unstable();
        let mut hasher = self.hasher.clone();
        hasher.number(names.len() as u64);
        names.iter().for_each(|name| hasher.bytes(name.as_bytes()));
        (hasher, names)
    }
}

/// What a unit read, for people: the values of its row, or for several rows a digest of each column and the number of
/// rows.
pub fn inputs(table: &Manifest, unit: &[usize]) -> Vec<(String, String)> {
    let mut names = table.schema().names();
    names.sort_unstable();
    let cell = |row: usize, name: &str| table.value(row, name).expect("it is a column of the table");
    if let [row] = unit {
        return names.into_iter().map(|name| (name.to_string(), show(&cell(*row, name)))).collect();
    }
    let mut facts: Vec<(String, String)> = names
        .into_iter()
        .map(|name| {
            let mut bytes = Vec::new();
            unit.iter().for_each(|&row| cell(row, name).encode(&mut bytes));
            (name.to_string(), format!("content {}", Digest::of_bytes(&bytes).short()))
        })
        .collect();
    facts.push(("rows".into(), unit.len().to_string()));
    facts
}

/// A value for people, on one line.
pub fn show(value: &Value) -> String {
    match value {
        Value::Blob(blob) if blob.ext.is_empty() => format!("file {}", blob.digest.short()),
        Value::Blob(blob) => format!("file {}.{}", blob.digest.short(), blob.ext),
        Value::Str(text) => text.clone(),
        other => other.to_json_text(),
    }
}

/// JSON with sorted keys and without blanks: equal parameters give equal text.
pub fn canonical(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Object(map) => {
            let mut names: Vec<&String> = map.keys().collect();
            names.sort_unstable();
            let parts: Vec<String> = names
                .into_iter()
                .map(|name| format!("{}:{}", serde_json::Value::from(name.as_str()), canonical(&map[name])))
                .collect();
            format!("{{{}}}", parts.join(","))
        }
        serde_json::Value::Array(items) => {
            format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(","))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use manifests::{Schema, Type};

    fn table() -> Manifest {
        let schema = Schema::new([("b", Type::I64), ("a", Type::Str)]).unwrap();
        let row = |b, a: &str| vec![Value::I64(b), Value::Str(a.into())];
        Manifest::from_rows(schema, &[row(1, "x"), row(2, "y")]).unwrap()
    }

    fn head() -> Head {
        Head::new("thing", |facts| {
            facts.text("kind", "thing");
            facts.content("weights", &Digest::of_bytes(b"w"));
        })
    }

    #[test]
    fn keys_are_pinned() {
        let keys = head().row_keys(&table());
        assert_eq!(keys[0].to_string(), PINNED);
        assert_eq!(head().facts.facts[0], ("kind".into(), "thing".into()));
    }

    const PINNED: &str = "0917f928d73fd0a76873f711f8455fb9a495dfaa4cf6c839ba93d962640521ad";

    #[test]
    fn a_row_alone_has_one_key_however_it_is_cut() {
        let keys = head().row_keys(&table());
        assert_eq!(head().unit_keys(&table(), &[vec![0], vec![1]]), keys);
        let reordered = table().select(&["a", "b"]).unwrap();
        assert_eq!(head().row_keys(&reordered), keys, "the order of columns is no fact");
        let both = head().unit_keys(&table(), &[vec![0, 1]]);
        assert!(!keys.contains(&both[0]));
        assert_ne!(both, head().unit_keys(&table(), &[vec![1, 0]]));
    }

    #[test]
    fn equal_parameters_are_equal_text() {
        let value: serde_json::Value = serde_json::from_str(r#"{"b": [1, {"d": 1, "c": 2}], "a": "x"}"#).unwrap();
        assert_eq!(canonical(&value), r#"{"a":"x","b":[1,{"c":2,"d":1}]}"#);
    }
}
