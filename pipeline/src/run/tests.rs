//! Tests of what a run tells: warnings of stages, stages that put out nothing, files that change meanwhile.

use super::*;
use crate::executor::{Cluster, Gpus, Place};
use crate::spec::{self, Overrides};
use std::cell::RefCell;
use std::rc::Rc;

struct Ear(Rc<RefCell<Vec<Event>>>);

impl Reader for Ear {
    fn hear(&mut self, event: &Event) {
        self.0.borrow_mut().push(event.clone());
    }
}

/// What is told of a run of this recipe in a folder.
fn told(dir: &Path, recipe: &str) -> Vec<Event> {
    let spec = spec::parse("r.yaml", dir.into(), recipe.into(), &Overrides::default()).unwrap();
    let plan = crate::plan::plan(spec, Vec::new()).unwrap();
    let mut cache = Cache::open(&dir.join("workspace"), "test").unwrap();
    let gpus = Gpus::These(Vec::new());
    let means = Means { jobs: 1, memory_mb: 1000, gpus, place: Place::Local, cluster: Cluster::default() };
    let (recipe, selection) = (dir.join("r.yaml"), Selection::default());
    let options = Options { means, recipe, overrides: Vec::new(), selection, fail_fast: false, keep_going: false };
    let events = Rc::default();
    let mut readers: Vec<Box<dyn Reader>> = vec![Box::new(Ear(Rc::clone(&events)))];
    run(&plan, &mut cache, &options, &mut readers).unwrap();
    events.take()
}

fn warnings<'a>(events: &'a [Event]) -> Vec<&'a str> {
    let text = |event: &'a Event| match event {
        Event::Warning { text } => Some(text.as_str()),
        _ => None,
    };
    events.iter().filter_map(text).collect()
}

#[test]
fn warnings_in_logs_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = "
stages:
  src: { rows: [{ n: 1 }, { n: 2 }, { n: 3 }, { n: 4 }] }
  say:
    run: 'echo hello; echo warning: it is dark >&2; echo warning: row {n} >&2; echo > {out}/x'
    shell: true
    from: src
    writes: { x: blob }
";
    let events = told(dir.path(), recipe);
    let told_of = warnings(&events);
    assert_eq!((told_of.len(), told_of[0]), (4, "stage `say`: it is dark"), "{told_of:?}");
    assert!(told_of[1].starts_with("stage `say`: row ") && told_of[2].starts_with("stage `say`: row "), "{told_of:?}");
    assert_eq!(told_of[3], "stage `say`: more in `effigy log say`");
    assert!(warnings(&told(dir.path(), recipe)).is_empty(), "nothing ran");
}

#[test]
fn a_stage_that_put_out_nothing_is_remarked_on() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = "
stages:
  src: { rows: [{ n: 1 }, { n: 2 }] }
  none: { run: 'touch {out}/out.jsonl', from: src, writes: { y: i64 } }
  some: { run: 'touch {out}/y', from: src, writes: { y: blob } }
";
    assert_eq!(warnings(&told(dir.path(), recipe)), ["stage `none`: put out no row from 2 units"]);
}

#[test]
fn what_was_made_while_code_changed_is_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tool"), "one").unwrap();
    let recipe = "
stages:
  src: { rows: [{ n: 1 }, { n: 2 }] }
  use: { run: 'echo more >> tool; echo {n} > {out}/y', shell: true, code: [tool], from: src, writes: { y: blob } }
";
    let events = told(dir.path(), recipe);
    let failed =
        events.iter().filter_map(|event| if let Event::Failed { error, .. } = event { Some(error) } else { None });
    let failed: Vec<&String> = failed.collect();
    assert_eq!(failed.len(), 2, "{events:?}");
    assert!(failed.iter().all(|error| error.contains("tool changed while it was being read")), "{failed:?}");
}
