//! A finished unit as an object of a remote: a line that says what it is, the BLAKE3 of what follows, the facts of its
//! stage and the unit as the journal has them. Knows no remote.

use crate::blobs::is_plain;
use crate::codec::{Reader, put_u32};
use crate::entry::{Entry, StageFacts, Unit};
use manifests::{Digest, Value};

/// How every record begins; another number is another form.
const HEAD: &[u8] = b"effigy record 1\n";
/// Longer ones are taken for damage: large things are blobs.
pub(crate) const LONGEST: u64 = 1 << 30;

/// The bytes of a unit's record.
pub(crate) fn encode(unit: &Unit, facts: &StageFacts) -> Vec<u8> {
    let facts = Entry::Stage(facts.clone()).encode();
    let mut body = Vec::with_capacity(facts.len() + 512);
    put_u32(&mut body, facts.len() as u32);
    body.extend(facts);
    body.extend(Entry::Unit(unit.clone()).encode());
    [HEAD, &Digest::of_bytes(&body).0, &body].concat()
}

/// The unit of `key` and the facts of its stage.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn decode(bytes: &[u8], key: &Digest) -> Result<(Unit, StageFacts), String> {
    let rest = bytes.strip_prefix(HEAD).ok_or("it does not begin as a record does")?;
    let (digest, body) = rest.split_at_checked(32).ok_or("it ends early")?;
    if Digest::of_bytes(body).0 != digest {
        return Err("its content is not what its digest says".into());
    }
    let mut reader = Reader(body);
    let length = reader.u32()? as usize;
    let (Entry::Stage(facts), Entry::Unit(unit)) = (Entry::decode(reader.take(length)?)?, Entry::decode(reader.0)?)
    else {
        return Err("it holds something else".into());
    };
    if unit.key != *key {
        return Err(format!("it is the record of another key, {}", unit.key.short()));
    }
    if unit.stage != facts.digest {
        return Err("its unit is of another stage".into());
    }
    // extensions become parts of file names
    if let Some(blob) = unit.blobs().find(|blob| !is_plain(&blob.ext)) {
        return Err(format!("`{}` is no extension of a file", blob.ext.escape_debug()));
    }
    Ok((unit, facts))
}

/// Whether two units of the same key gave the same: when, how fast and under which name does not count. A number that
/// is none (NaN) is the same as itself.
pub(crate) fn same(one: &Unit, other: &Unit) -> bool {
    let encoded = |unit: &Unit| {
        let mut bytes = Vec::new();
        for row in &unit.rows {
            Value::I64(row.of.map_or(-1, i64::from)).encode(&mut bytes);
            row.values.iter().for_each(|value| value.encode(&mut bytes));
        }
        bytes
    };
    one.columns == other.columns && one.rows.len() == other.rows.len() && encoded(one) == encoded(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::OutRow;
    use manifests::{Blob, Type};

    #[test]
    fn a_record_is_what_it_was_or_refused() {
        let (key, stage) = (Digest([1; 32]), Digest([2; 32]));
        let unit = |ext: &str| Unit {
            key,
            stage,
            node: "a".into(),
            name: "path=x".into(),
            inputs: vec![("path".into(), "x".into())],
            columns: vec![("file".into(), Type::Blob)],
            rows: vec![OutRow {
                of: Some(0),
                values: vec![Value::Blob(Blob { digest: key, len: 3, ext: ext.into() })],
            }],
            at: 1,
            seconds: 0.5,
        };
        let facts = StageFacts { digest: stage, kind: "run".into(), facts: vec![("version".into(), "1".into())] };
        let bytes = encode(&unit("txt"), &facts);
        assert_eq!(decode(&bytes, &key).unwrap(), (unit("txt"), facts.clone()));
        for at in 0..bytes.len() {
            let mut spoilt = bytes.clone();
            spoilt[at] ^= 1;
            assert!(decode(&spoilt, &key).is_err(), "byte {at}");
            assert!(decode(&bytes[..at], &key).is_err(), "cut at {at}");
        }
        assert!(decode(&bytes, &stage).unwrap_err().contains("another key"));
        assert!(decode(&encode(&unit("../x"), &facts), &key).unwrap_err().contains("extension"));
        let other = StageFacts { digest: key, ..facts };
        assert!(decode(&encode(&unit("txt"), &other), &key).is_err());
        // the form is meant to last
        let digest = Digest::of_bytes(&bytes).to_string();
        assert_eq!(&digest[..16], "17566a35407db969");
    }

    #[test]
    fn a_number_that_is_none_is_the_same_again() {
        let unit = |value: f64| Unit {
            key: Digest([1; 32]),
            stage: Digest([2; 32]),
            node: "a".into(),
            columns: vec![("x".into(), Type::Floats(2))],
            rows: vec![OutRow { of: Some(0), values: vec![Value::Floats(vec![value, 1.0])] }],
            seconds: 0.0,
            at: 0,
            name: Default::default(),
            inputs: Default::default(),
        };
        assert!(same(&unit(f64::NAN), &unit(f64::NAN)) && !same(&unit(f64::NAN), &unit(0.0)));
    }
}
