//! Tests of the journal: what is torn, damaged, too long, or of another boot.

use super::*;
use crate::entry::OutRow;
use manifests::{Blob, Type, Value};

fn unit(n: u8) -> Unit {
    let blob = Blob { digest: Digest([n; 32]), len: 7, ext: "png".into() };
    Unit {
        key: Digest([n; 32]),
        stage: Digest([9; 32]),
        node: "a".into(),
        name: "x=1".into(),
        inputs: vec![("x".into(), "1".into())],
        columns: vec![("y".into(), Type::Floats(2)), ("f".into(), Type::Blob)],
        rows: vec![OutRow { of: Some(0), values: vec![Value::Floats(vec![0.1, f64::NAN.abs()]), Value::Blob(blob)] }],
        at: 5,
        seconds: 0.25,
    }
}

fn keys(dir: &Path) -> Vec<u8> {
    let mut keys = Vec::new();
    scan_all(dir, &mut |_, entry| {
        if let Entry::Unit(unit) = entry {
            keys.push(unit.key.0[0]);
        }
    })
    .unwrap();
    keys
}

#[test]
fn torn_tails_lose_only_the_torn_record() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("records");
    let mut journal = Journal::open(&dir, "test").unwrap();
    let places: Vec<Place> = (1..=3).map(|n| journal.append(&Entry::Unit(unit(n))).unwrap()).collect();
    let text = |unit: Option<Unit>| format!("{unit:?}");
    assert_eq!(text(journal.read(places[1]).unwrap()), text(Some(unit(2))));
    let path = segment_path(&dir, 1);
    let whole = std::fs::read(&path).unwrap();
    for cut in places[2].offset as usize..whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        assert_eq!(keys(root.path()), [1, 2], "cut at {cut}");
    }
    // a flipped bit in the middle, be it of the length or of the payload, costs that record and no other
    for at in [0, FRAME + 3] {
        let mut broken = whole.clone();
        broken[places[1].offset as usize + at] ^= 1;
        std::fs::write(&path, &broken).unwrap();
        assert_eq!(keys(root.path()), [1, 3]);
        let gap = (path.clone(), places[1].offset, places[1].end() - places[1].offset);
        assert_eq!(gaps(root.path(), &mut |_, _| {}).unwrap(), [gap]);
    }
}

#[test]
fn a_damaged_head_hides_nothing_that_a_mark_speaks_of() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("records");
    let mut journal = Journal::open(&dir, "test").unwrap();
    journal.append(&Entry::Unit(unit(1))).unwrap();
    let (_, upto) = journal.unsynced().unwrap();
    journal.committed(upto).unwrap();
    journal.append(&Entry::Unit(unit(2))).unwrap();
    let path = segment_path(&dir, 1);
    let whole = std::fs::read(&path).unwrap();
    let first = FRAME + u32::from_le_bytes(whole[..4].try_into().unwrap()) as usize;
    for at in [0, FRAME + 1] {
        let mut broken = whole.clone();
        broken[at] ^= 1;
        std::fs::write(&path, &broken).unwrap();
        assert_eq!(keys(root.path()), [1], "whether the second reached the disk nobody knows");
        assert_eq!(gaps(root.path(), &mut |_, _| {}).unwrap(), [(path.clone(), 0, first as u64)]);
    }
    // one that was torn off before it was whole has nothing behind it
    std::fs::write(&path, &whole[..first - 1]).unwrap();
    assert!(gaps(root.path(), &mut |_, _| {}).unwrap().is_empty() && keys(root.path()).is_empty());
}

/// A segment as another boot of the machine left it.
fn of_another_boot(root: &Path, entries: impl Fn(u64) -> Vec<Option<Entry>>) {
    let dir = root.join("records");
    std::fs::create_dir_all(&dir).unwrap();
    let path = segment_path(&dir, 1);
    let _ = std::fs::remove_file(&path);
    let file = OpenOptions::new().write(true).create_new(true).open(&path).unwrap();
    let head = Entry::Head { boot: "another".into(), host: "h".into(), program: "p".into(), at: 0 };
    let mut offset = write_frame(&file, 1, 0, &head.encode()).unwrap().end();
    for i in 0.. {
        // what comes next may speak of where it stands
        let Some(entry) = entries(offset).into_iter().nth(i) else { break };
        offset = match entry {
            Some(entry) => write_frame(&file, 1, offset, &entry.encode()).unwrap().end(),
            None => {
                // the form of the mark before it had a number
                let frame = [&1u32.to_le_bytes()[..], &checksum(&[COMMIT]), &[COMMIT]].concat();
                (&file).write_all(&frame).unwrap();
                offset + frame.len() as u64
            }
        };
    }
}

#[test]
fn after_a_power_failure_only_committed_records_are_believed() {
    let root = tempfile::tempdir().unwrap();
    let record = |n| Some(Entry::Unit(unit(n)));
    of_another_boot(root.path(), |offset| vec![record(1), Some(Entry::Commit(offset)), record(2)]);
    assert_eq!(keys(root.path()), [1]);
    of_another_boot(root.path(), |_| vec![record(1), None, record(2)]);
    assert_eq!(keys(root.path()), [1], "a mark without a number speaks of all before it");
    // a mark may stand behind records that it does not speak of
    of_another_boot(root.path(), |_| vec![record(1), record(2), Some(Entry::Commit(40)), record(3)]);
    assert_eq!(keys(root.path()), [0u8; 0]);
}

#[test]
fn a_record_is_sure_when_the_mark_that_speaks_of_it_has_reached_the_disk() {
    let root = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(&root.path().join("records"), "test").unwrap();
    let first = journal.append(&Entry::Unit(unit(1))).unwrap();
    let (_, upto) = journal.unsynced().unwrap();
    journal.committed(upto).unwrap();
    assert!(journal.unsynced().is_none() && !journal.is_safe(first), "the mark is on its way");
    let second = journal.append(&Entry::Unit(unit(2))).unwrap();
    // whatever brings the second to the disk brings the mark of the first there
    let (_, upto) = journal.unsynced().unwrap();
    journal.committed(upto).unwrap();
    assert!(journal.is_safe(first) && !journal.is_safe(second));
    journal.sync_mark().unwrap();
    assert!(journal.is_safe(second));
    let end = second.end();
    assert!(journal.segments().unwrap()[0].1 >= end, "now the index may say that it knows this much");
}

#[test]
fn a_record_that_is_too_long_is_refused_and_costs_no_other() {
    let root = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(&root.path().join("records"), "test").unwrap();
    journal.append(&Entry::Unit(unit(1))).unwrap();
    journal.longest = 1000;
    let long = Unit { name: "y".repeat(1000), ..unit(2) };
    let error = journal.append(&Entry::Unit(long)).unwrap_err();
    assert!(matches!(error, Error::TooLong { most: 1000, bytes: 1001.., .. }), "{error}");
    assert!(error.to_string().contains("of stage `a`"), "{error}");
    journal.append(&Entry::Unit(unit(3))).unwrap();
    assert_eq!(keys(root.path()), [1, 3]);
}

#[test]
fn only_a_segment_that_is_not_there_is_a_miss_and_few_are_kept_open() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("records");
    let mut journal = Journal::open(&dir, "test").unwrap();
    let mut places = Vec::new();
    for n in 1..=3 * READERS as u8 {
        places.push(journal.append(&Entry::Unit(unit(n))).unwrap());
        journal.next_segment().unwrap();
    }
    for _ in 0..2 {
        for (place, n) in places.iter().zip(1..) {
            assert_eq!(format!("{:?}", journal.read(*place).unwrap()), format!("{:?}", Some(unit(n))));
            assert!(journal.readers.len() <= READERS);
        }
    }
    let gone = segment_path(&dir, places[0].segment);
    std::fs::remove_file(&gone).unwrap();
    assert_eq!(journal.read(places[0]).unwrap(), None);
    std::os::unix::fs::symlink(&gone, &gone).unwrap();
    let error = journal.read(places[0]).unwrap_err().to_string();
    assert!(error.contains("cannot read") && error.contains("00000001.journal"), "{error}");
}

#[test]
fn nothing_is_cut_off_behind_what_was_only_stepped_over() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("records");
    let mut journal = Journal::open(&dir, "test").unwrap();
    journal.append(&Entry::Unit(unit(1))).unwrap();
    let last = journal.append(&Entry::Unit(unit(2))).unwrap();
    journal.next_segment().unwrap();
    let path = segment_path(&dir, 1);
    let whole = std::fs::read(&path).unwrap();
    // a torn tail is
    std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    let believed = journal.scan(1, 0, &mut |_, _| {}).unwrap();
    assert_eq!((believed.end, believed.is_unread), (last.offset, false));
    journal.seal(1, &believed).unwrap();
    assert_eq!(journal.scan(1, 0, &mut |_, _| {}).unwrap().sure, journal.length(1).unwrap());
    // so many lengths that lead somewhere that the search for the next frame gives up
    let mut broken = whole.clone();
    broken.splice(last.offset as usize..last.offset as usize, [0, 0, 8, 0].repeat(1 << 19));
    std::fs::write(&path, &broken).unwrap();
    let believed = journal.scan(1, 0, &mut |_, _| {}).unwrap();
    assert_eq!((believed.end, believed.is_unread), (last.offset, true));
    journal.seal(1, &believed).unwrap();
    assert!(std::fs::read(&path).unwrap() == broken);
}
