//! Tests of what becomes of programs that nobody listens to for a while.

use super::*;

fn program(id: usize, words: &[&str], dir: &Path, timeout: Duration) -> Task {
    let argv = words.iter().map(ToString::to_string).collect();
    let needs = Needs { threads: 1, memory_mb: 0, gpus: 0, minutes: 0 };
    let by = By::Program { argv, dir: dir.into() };
    Task { id, keys: Vec::new(), dir: dir.into(), by, timeout: Some(timeout), needs, limit_mb: None }
}

fn end_of(local: &mut Local, id: usize) -> (Ended, Instant) {
    let until = Instant::now() + Duration::from_secs(20);
    while Instant::now() < until {
        for (task, report) in local.poll(Duration::from_millis(100)) {
            if let (true, Report::Ended(ended, at)) = (task == id, report) {
                return (ended, at);
            }
        }
    }
    panic!("task {id} does not end");
}

#[test]
fn a_program_that_ended_while_nobody_listened_has_not_timed_out() {
    let dir = tempfile::tempdir().unwrap();
    let mut local = Local::new(2, 1000, Gpus::These(Vec::new()));
    let task = program(1, &["true"], dir.path(), Duration::from_millis(400));
    let begun = Instant::now();
    assert!(local.submit(&task).is_none());
    std::thread::sleep(Duration::from_millis(900));
    let (ended, at) = end_of(&mut local, 1);
    assert!(matches!(ended, Ended::Done), "{ended:?}");
    assert!(at - begun < Duration::from_millis(800), "the time that nobody listened is not the program's");

    let task = program(2, &["sleep", "60"], dir.path(), Duration::from_millis(50));
    assert!(local.submit(&task).is_none());
    std::thread::sleep(Duration::from_millis(100));
    assert!(matches!(end_of(&mut local, 2).0, Ended::TimedOut));
    assert!(!local.is_busy());
}
