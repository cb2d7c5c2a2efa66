//! A workspace from outside: what is found again after kills, damage, failures of the disk and of the power.

use super::*;
use crate::OutRow;
use manifests::Type;

fn facts() -> StageFacts {
    StageFacts { digest: Digest([1; 32]), kind: "k".into(), facts: Vec::new() }
}

fn unit(key: u8, blob: Option<Blob>) -> Unit {
    let value = blob.map_or(Value::Null, Value::Blob);
    Unit {
        key: Digest([key; 32]),
        stage: Digest([1; 32]),
        node: "a".into(),
        name: String::new(),
        inputs: Vec::new(),
        columns: vec![("file".into(), Type::Blob)],
        rows: vec![OutRow { of: Some(0), values: vec![value] }],
        at: 0,
        seconds: 0.0,
    }
}

#[test]
fn units_are_found_again_with_and_without_an_index() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("f");
    std::fs::write(&file, "content").unwrap();
    let root = dir.path().join("ws");
    let mut cache = Cache::open(&root, "test").unwrap();
    let blob = cache.ingest(&file, "", Take::Move).unwrap();
    cache.put(&unit(1, Some(blob.clone())), &facts()).unwrap();
    cache.commit().unwrap();
    // put, but the process ends before it can commit
    cache.put(&unit(2, None), &facts()).unwrap();
    drop(cache);

    let mut cache = Cache::open(&root, "test").unwrap();
    assert_eq!(cache.get(&Digest([1; 32])).unwrap(), Some(unit(1, Some(blob.clone()))));
    assert_eq!(cache.get(&Digest([2; 32])).unwrap(), Some(unit(2, None)));
    assert_eq!(cache.get(&Digest([3; 32])).unwrap(), None);
    drop(cache);

    // every kind of damage to the index leaves the same answers
    for damage in ["delete", "zero", "truncate"] {
        for entry in std::fs::read_dir(root.join("index")).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() || damage == "delete" {
                continue;
            }
            let len = std::fs::metadata(&path).unwrap().len() as usize;
            let bytes = if damage == "zero" { vec![0; len] } else { std::fs::read(&path).unwrap()[..len / 2].to_vec() };
            std::fs::write(&path, bytes).unwrap();
        }
        if damage == "delete" {
            std::fs::remove_dir_all(root.join("index")).unwrap();
        }
        let mut cache = Cache::open(&root, "test").unwrap();
        assert!(cache.get(&Digest([1; 32])).unwrap().is_some(), "{damage}");
        assert!(cache.get(&Digest([2; 32])).unwrap().is_some(), "{damage}");
        cache.commit().unwrap();
    }

    // a blob that is gone or cut makes its unit a miss
    let mut cache = Cache::open(&root, "test").unwrap();
    assert!(cache.verify().unwrap().damaged.is_empty());
    std::fs::remove_file(cache.path(&blob).unwrap()).unwrap();
    assert_eq!(cache.get(&Digest([1; 32])).unwrap(), None);
    let damaged = cache.verify().unwrap().damaged;
    assert_eq!((damaged.len(), damaged[0].stage.as_deref()), (1, Some("a")));
    assert_eq!(cache.rebuild().unwrap(), 2);
}

#[test]
fn one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let first = Cache::open(dir.path(), "test").unwrap();
    let error = Cache::open(dir.path(), "test").err().expect("it is locked").to_string();
    assert!(error.contains(&std::process::id().to_string()), "{error}");
    drop(first);
    Cache::open(dir.path(), "test").unwrap();
}

#[test]
fn files_are_read_again_only_when_they_may_have_changed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("f");
    std::fs::write(&file, "one").unwrap();
    let mut cache = Cache::open(&dir.path().join("ws"), "test").unwrap();
    let one = cache.refer(std::slice::from_ref(&file)).unwrap();
    let seen = |cache: &Cache| cache.referred()[0].1;
    assert_ne!(seen(&cache), Fingerprint::of(&file).unwrap(), "written just now: its fingerprint proves nothing");
    std::fs::write(&file, "two").unwrap();
    assert_ne!(cache.refer(std::slice::from_ref(&file)).unwrap(), one);
    std::thread::sleep(std::time::Duration::from_millis(80));
    cache.refer(std::slice::from_ref(&file)).unwrap();
    assert_eq!(seen(&cache), Fingerprint::of(&file).unwrap());
}

#[test]
fn files_of_a_user_with_equal_content_are_all_recognised() {
    let dir = tempfile::tempdir().unwrap();
    let files = ["a.txt", "b.txt"].map(|name| dir.path().join(name));
    files.iter().for_each(|file| std::fs::write(file, "same").unwrap());
    let mut cache = Cache::open(&dir.path().join("ws"), "test").unwrap();
    let digest = cache.refer(&files).unwrap()[0].0;
    for file in &files {
        assert_eq!(cache.ingest(file, "txt", Take::Copy).unwrap().digest, digest);
    }
    assert!(cache.blobs().list().unwrap().is_empty(), "nobody wants them twice");
}

/// Makes a workspace look as if another boot of the machine had written it: all that was not brought to the disk is in
/// doubt.
fn reboot(root: &Path) {
    for entry in std::fs::read_dir(root.join("records")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let len = u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize;
        let mut payload = bytes[12..12 + len].to_vec();
        // kind, version, length of the boot's name, its name
        payload[9] ^= 1;
        let sum = Digest::of_bytes(&payload);
        std::fs::write(&path, [&bytes[..4], &sum.0[..8], &payload, &bytes[12 + len..]].concat()).unwrap();
    }
}

/// The units that a workspace knows without its index.
fn known(root: &Path) -> Vec<u8> {
    let _ = std::fs::remove_dir_all(root.join("index"));
    let mut cache = Cache::open(root, "test").unwrap();
    (1..=250).filter(|key| cache.get(&Digest([*key; 32])).unwrap().is_some()).collect()
}

fn file(root: &Path, n: u8) -> PathBuf {
    let path = root.with_extension(format!("{n}.txt"));
    std::fs::write(&path, [n; 9]).unwrap();
    path
}

#[test]
fn after_a_commit_a_power_failure_takes_nothing_back() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("ws");
    let mut cache = Cache::open(&root, "test").unwrap();
    cache.put(&unit(1, None), &facts()).unwrap();
    cache.commit().unwrap();
    cache.put(&unit(2, None), &facts()).unwrap();
    drop(cache);
    reboot(&root);
    assert_eq!(known(&root), [1]);
}

#[test]
fn what_was_begun_to_be_made_safe_is_marked_when_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("ws");
    let mut cache = Cache::open(&root, "test").unwrap();
    let blob = cache.ingest(&file(&root, 1), "", Take::Move).unwrap();
    cache.put(&unit(1, Some(blob)), &facts()).unwrap();
    cache.commit_soon().unwrap();
    assert!(cache.syncing.is_some(), "it works beside us");
    cache.put(&unit(2, None), &facts()).unwrap();
    cache.commit().unwrap();
    cache.put(&unit(3, None), &facts()).unwrap();
    drop(cache);
    reboot(&root);
    assert_eq!(known(&root), [1, 2]);
}

#[test]
fn a_failed_sync_leaves_no_mark() {
    for beside in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("ws");
        let mut cache = Cache::open(&root, "test").unwrap();
        let blob = cache.ingest(&file(&root, 1), "", Take::Move).unwrap();
        cache.put(&unit(1, Some(blob.clone())), &facts()).unwrap();
        // a file where its folder was cannot be synced
        let path = cache.path(&blob).unwrap();
        let folder = path.parent().unwrap();
        std::fs::rename(folder, folder.with_extension("away")).unwrap();
        std::fs::write(folder, "").unwrap();
        let failed = if beside {
            cache.commit_soon().unwrap();
            cache.finish_sync()
        } else {
            cache.commit()
        };
        assert!(failed.is_err() && cache.is_doubtful());
        // the disk may say later that all is well: it is not believed
        std::fs::remove_file(folder).unwrap();
        std::fs::rename(folder.with_extension("away"), folder).unwrap();
        cache.put(&unit(2, None), &facts()).unwrap();
        cache.commit_soon().unwrap();
        cache.commit().unwrap();
        assert!(cache.get(&Digest([1; 32])).unwrap().is_some(), "this process may use it");
        drop(cache);
        reboot(&root);
        assert_eq!(known(&root), [0u8; 0]);
    }
}

#[test]
fn an_index_that_is_made_anew_amid_a_run_holds_only_what_is_safe() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("ws");
    let mut cache = Cache::open(&root, "test").unwrap();
    cache.put(&unit(1, None), &facts()).unwrap();
    cache.commit().unwrap();
    cache.put(&unit(2, None), &facts()).unwrap();
    cache.commit_soon().unwrap();
    cache.finish_sync().unwrap();
    cache.put(&unit(3, None), &facts()).unwrap();
    cache.rebuild().unwrap();
    let held = |cache: &mut Cache, key: u8| cache.indexed(|index| index.unit(&Digest([key; 32]))).unwrap().is_some();
    assert!(held(&mut cache, 1));
    assert!(!held(&mut cache, 2), "the mark that speaks of it may still be on its way");
    assert!(!held(&mut cache, 3));
    for key in 1..=3 {
        assert!(cache.get(&Digest([key; 32])).unwrap().is_some(), "this process knows all it has put");
    }
    cache.commit().unwrap();
    assert!(held(&mut cache, 2) && held(&mut cache, 3));
}

/// A disk that loses, when the power fails, all that no mark speaks of: tails of the journal, content of files.
#[test]
fn whatever_a_power_failure_takes_what_is_left_is_whole() {
    // a linear congruential generator: the same failures every time
    let mut state = 7u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize % below
    };
    for trial in 0..60 {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("ws");
        let mut cache = Cache::open(&root, "test").unwrap();
        let mut blobs = Vec::new();
        let mut safe = 0;
        for n in 1..=12u8 {
            let blob = cache.ingest(&file(&root, n), "", Take::Move).unwrap();
            cache.put(&unit(n, Some(blob.clone())), &facts()).unwrap();
            blobs.push(blob);
            match random(6) {
                0 => {
                    cache.commit().unwrap();
                    safe = n;
                }
                1 => cache.commit_soon().unwrap(),
                _ => {}
            }
        }
        cache.finish_sync().unwrap();
        let (upto, places, path) = (cache.journal.segments().unwrap()[0].1, cache.places.clone(), root.join("records"));
        drop(cache);
        // what lies behind the last sure mark reaches the disk or not; so do the files it speaks of
        let journal = path.join("00000001.journal");
        let len = std::fs::metadata(&journal).unwrap().len();
        let cut = upto + random((len - upto) as usize + 1) as u64;
        std::fs::OpenOptions::new().write(true).open(&journal).unwrap().set_len(cut).unwrap();
        let marked = {
            let mut last = 0;
            crate::scan_all(&root, &mut |_, entry| {
                if let Entry::Commit(upto) = entry {
                    last = upto.max(last)
                }
            })
            .unwrap();
            last
        };
        for (n, blob) in (1..=12u8).zip(&blobs) {
            if places[&Digest([n; 32])].offset >= marked && random(2) == 0 {
                let path = root.join("blobs").join(&blob.digest.to_string()[..2]).join(&blob.digest.to_string()[2..]);
                std::fs::remove_file(&path).unwrap();
                std::fs::write(&path, [0; 9]).unwrap();
            }
        }
        reboot(&root);
        if random(2) == 0 {
            std::fs::remove_dir_all(root.join("index")).unwrap_or_default();
        }
        let mut cache = Cache::open(&root, "test").unwrap();
        for (n, blob) in (1..=12u8).zip(&blobs) {
            let found = cache.get(&Digest([n; 32])).unwrap();
            assert!(found.is_some() || n > safe, "trial {trial}: {n} was committed");
            if found.is_some() {
                assert!(cache.damaged([blob]).is_empty(), "trial {trial}: {n} is known and its file is not whole");
            }
        }
    }
}
