//! What a journal is made of: who wrote it, facts, finished units, commit marks, and their binary form. Knows neither
//! frames nor files.

use crate::codec::{Odd, Reader, put_str, put_u32, put_u64, put_value};
use manifests::{Blob, Digest, Type, Value};

const VERSION: u32 = 1;
/// First byte of a unit.
pub(crate) const UNIT: u8 = 2;
/// First byte of a commit mark.
pub(crate) const COMMIT: u8 = 3;

/// An output row of a unit: new columns only.
#[derive(Clone, Debug, PartialEq)]
pub struct OutRow {
    /// The row of the unit that it extends; `None` stands alone.
    pub of: Option<u32>,
    /// One value for each of [`Unit::columns`].
    pub values: Vec<Value>,
}

/// A finished unit.
#[derive(Clone, Debug, PartialEq)]
pub struct Unit {
    /// Its key.
    pub key: Digest,
    /// The [`StageFacts`] it was computed under.
    pub stage: Digest,
    /// Name of the stage in the recipe that asked for it first.
    pub node: String,
    /// What tells it from other units of its stage, for people: `path=in/7.txt`.
    pub name: String,
    /// What it read, for people: column and value; for units of many rows, column and a digest of all its values.
    pub inputs: Vec<(String, String)>,
    /// The columns it put out.
    pub columns: Vec<(String, Type)>,
    /// The rows it put out.
    pub rows: Vec<OutRow>,
    /// When it was finished, milliseconds since 1970.
    pub at: u64,
    /// How long it took, seconds; its share, where several were worked on together.
    pub seconds: f64,
}

impl Unit {
    /// The files among its values.
    pub fn blobs(&self) -> impl Iterator<Item = &Blob> {
        self.rows.iter().flat_map(|row| &row.values).filter_map(|value| match value {
            Value::Blob(blob) => Some(blob),
            _ => None,
        })
    }
}

/// What is the same for all units of a stage: the readable form of the head of their keys.
#[derive(Clone, Debug, PartialEq)]
pub struct StageFacts {
    /// Digest of the facts.
    pub digest: Digest,
    /// The stage's kind.
    pub kind: String,
    /// Name and value of each fact, in the order in which they were hashed.
    pub facts: Vec<(String, String)>,
}

/// One frame of a journal.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// How a segment starts: who wrote it.
    Head {
        /// Which boot of the machine.
        boot: String,
        /// Name of the machine.
        host: String,
        /// Version of the program.
        program: String,
        /// Milliseconds since 1970.
        at: u64,
    },
    /// Facts that units refer to.
    Stage(StageFacts),
    /// A finished unit.
    Unit(Unit),
    /// Everything up to this offset of the segment has reached the disk, and the files it speaks of.
    Commit(u64),
}

impl Entry {
    /// What it tells of, for people.
    pub(crate) fn whose(&self) -> String {
        match self {
            Entry::Unit(unit) if unit.name.is_empty() => format!("a unit of stage `{}`", unit.node),
            // a name as long as this tells people nothing
            Entry::Unit(unit) => {
                format!("unit {} of stage `{}`", unit.name.chars().take(200).collect::<String>(), unit.node)
            }
            Entry::Stage(stage) => format!("what is the same for all units of a stage `{}`", stage.kind),
            Entry::Head { .. } | Entry::Commit(_) => "the journal itself".into(),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        match self {
            Entry::Head { boot, host, program, at } => {
                out.push(0);
                put_u32(&mut out, VERSION);
                [boot, host, program].into_iter().for_each(|text| put_str(&mut out, text));
                put_u64(&mut out, *at);
            }
            Entry::Stage(stage) => {
                out.push(1);
                out.extend(stage.digest.0);
                put_str(&mut out, &stage.kind);
                put_pairs(&mut out, &stage.facts);
            }
            Entry::Unit(unit) => {
                out.push(UNIT);
                out.extend(unit.key.0);
                out.extend(unit.stage.0);
                put_str(&mut out, &unit.node);
                put_str(&mut out, &unit.name);
                put_pairs(&mut out, &unit.inputs);
                put_u32(&mut out, unit.columns.len() as u32);
                for (name, ty) in &unit.columns {
                    put_str(&mut out, name);
                    put_str(&mut out, &ty.to_string());
                }
                put_u32(&mut out, unit.rows.len() as u32);
                for row in &unit.rows {
                    put_u32(&mut out, row.of.unwrap_or(u32::MAX));
                    row.values.iter().for_each(|value| put_value(&mut out, value));
                }
                put_u64(&mut out, unit.at);
                put_u64(&mut out, unit.seconds.to_bits());
            }
            Entry::Commit(upto) => {
                out.push(COMMIT);
                put_u64(&mut out, *upto);
            }
        }
        out
    }

    pub(crate) fn decode(payload: &[u8]) -> Result<Entry, Odd> {
        let mut reader = Reader(payload);
        let entry = match reader.u8()? {
            0 => {
                if reader.u32()? != VERSION {
                    return Err("it was written by another version of the program");
                }
                Entry::Head { boot: reader.str()?, host: reader.str()?, program: reader.str()?, at: reader.u64()? }
            }
            1 => Entry::Stage(StageFacts {
                digest: reader.digest()?,
                kind: reader.str()?,
                facts: read_pairs(&mut reader)?,
            }),
            UNIT => {
                let (key, stage) = (reader.digest()?, reader.digest()?);
                let (node, name) = (reader.str()?, reader.str()?);
                let inputs = read_pairs(&mut reader)?;
                let n = reader.u32()?;
                let columns = (0..n).map(|_| Ok((reader.str()?, reader.ty()?))).collect::<Result<Vec<_>, Odd>>()?;
                let n = reader.u32()?;
                let mut rows = Vec::new();
                for _ in 0..n {
                    let of = Some(reader.u32()?).filter(|&of| of != u32::MAX);
                    let values = columns.iter().map(|_| reader.value()).collect::<Result<_, _>>()?;
                    rows.push(OutRow { of, values });
                }
                let (at, seconds) = (reader.u64()?, reader.f64()?);
                Entry::Unit(Unit { key, stage, node, name, inputs, columns, rows, at, seconds })
            }
            // the first form of the mark had no number: it spoke of all before it
            COMMIT if reader.0.is_empty() => Entry::Commit(u64::MAX),
            COMMIT => Entry::Commit(reader.u64()?),
            _ => return Err("a record of an unknown kind"),
        };
        if reader.0.is_empty() { Ok(entry) } else { Err("it is longer than it should be") }
    }
}

fn put_pairs(out: &mut Vec<u8>, pairs: &[(String, String)]) {
    put_u32(out, pairs.len() as u32);
    for (name, value) in pairs {
        put_str(out, name);
        put_str(out, value);
    }
}

fn read_pairs(reader: &mut Reader<'_>) -> Result<Vec<(String, String)>, Odd> {
    let n = reader.u32()?;
    (0..n).map(|_| Ok((reader.str()?, reader.str()?))).collect()
}
