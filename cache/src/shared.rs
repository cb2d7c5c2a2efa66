//! A cache with a remote behind it: what is missed here is looked for there, what is finished here is queued and sent
//! there by threads beside the run. A remote that fails once is left alone from then on, one that only takes nothing is
//! still read; what is finished stays queued.
//!
//! Knows neither what a remote is made of nor who shows how far it is.

use crate::entry::{Entry, StageFacts, Unit};
use crate::layout;
use crate::remote::queue::Queue;
use crate::remote::transfer::{Failed, Found, Job, Sent, fetch, look, send};
use crate::remote::{Answer, Trouble, key_of};
use crate::{Cache, Remote, Result, scan_all, scan_units};
use manifests::{Blob, Digest};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// So many objects move at the same time: a remote answers late, and costs little meanwhile.
const THREADS: usize = 8;
/// So many units are handed to the threads before one of them is done.
const AHEAD: usize = 4 * THREADS;
/// More warnings than these are not given.
const TOLD: usize = 5;
/// What becomes of units that are not sent.
const STAYS: &str = "; what is finished stays queued, and a later run or `effigy cache push` sends it";

/// What went to and fro.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Units that came.
    pub fetched: usize,
    /// Their files.
    pub fetched_files: usize,
    /// Bytes of records and files.
    pub fetched_bytes: u64,
    /// Units that went.
    pub sent: usize,
    /// Their files, but for those that were there.
    pub sent_files: usize,
    /// Bytes of records and files.
    pub sent_bytes: u64,
    /// Units that were to go and were there already.
    pub known: usize,
    /// Units that wait to go.
    pub waiting: usize,
    /// Keys that were asked for.
    pub asked: usize,
}

/// The remote of an open workspace.
pub(crate) struct Shared {
    remote: Arc<dyn Remote>,
    /// None if nothing may be written there.
    queue: Option<Queue>,
    facts: HashMap<Digest, StageFacts>,
    threads: Option<Threads>,
    under_way: usize,
    /// Whether it has failed.
    down: bool,
    /// Whether it takes nothing any more, because it has failed or refused what was sent.
    closed: Arc<AtomicBool>,
    why: Option<Trouble>,
    moved: Moved,
    told: usize,
}

struct Threads {
    jobs: Sender<Job>,
    /// Only one thread hears them; the lock is for the sake of threads that look at the cache meanwhile.
    results: Mutex<Receiver<(Digest, Answer<Sent>)>>,
}

impl Threads {
    fn results(&mut self) -> &mut Receiver<(Digest, Answer<Sent>)> {
        self.results.get_mut().expect("no thread panics while it holds this")
    }

    fn start(remote: &Arc<dyn Remote>, closed: &Arc<AtomicBool>) -> Threads {
        let (jobs, taken) = channel::<Job>();
        let (told, results) = channel();
        let taken = Arc::new(Mutex::new(taken));
        for n in 0..THREADS {
            let (remote, closed, taken, told) = (remote.clone(), closed.clone(), taken.clone(), told.clone());
            let work = move || {
                loop {
                    let job = taken.lock().expect("no thread panics while it holds this").recv();
                    let Ok(job) = job else { break };
                    let failed = || Err(Trouble("it failed before".into()));
                    let sent = if closed.load(Ordering::Relaxed) { failed() } else { send(&*remote, &job) };
                    if told.send((job.unit.key, sent)).is_err() {
                        break;
                    }
                }
            };
            // with fewer threads it takes longer; with none, everything stays queued
            let _ = std::thread::Builder::new().name(format!("send-{n}")).spawn(work);
        }
        Threads { jobs, results: Mutex::new(results) }
    }
}

impl Shared {
    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Leaves the remote alone from now on, and says so once.
    fn give_up(&mut self, trouble: Trouble, warnings: &mut Vec<String>) {
        if std::mem::replace(&mut self.down, true) {
            return;
        }
        // whoever cannot be read need not be tried with more
        self.closed.store(true, Ordering::Relaxed);
        let later = if self.queue.is_some() { STAYS } else { "" };
        let name = self.remote.name();
        warnings.push(format!("the remote {name} cannot be used: {trouble}; going on with what is here{later}"));
        self.why = Some(trouble);
    }

    /// Sends it nothing any more, and says so once. What is there can be read all the same.
    fn close(&mut self, trouble: Trouble, warnings: &mut Vec<String>) {
        if self.closed.swap(true, Ordering::Relaxed) {
            return;
        }
        let name = self.remote.name();
        warnings.push(format!("the remote {name} cannot be used for sending: {trouble}{STAYS}"));
        self.why = Some(trouble);
    }

    fn tell(&mut self, text: String, warnings: &mut Vec<String>) {
        self.told += 1;
        match self.told {
            ..=TOLD => warnings.push(text),
            n if n == TOLD + 1 => warnings.push("further warnings of this kind are not shown".into()),
            _ => {}
        }
    }

    fn heard(&mut self, (key, sent): (Digest, Answer<Sent>), warnings: &mut Vec<String>) -> Result<()> {
        self.under_way -= 1;
        match sent {
            Ok(sent) => {
                if let Some(queue) = &mut self.queue {
                    queue.done(&key)?;
                }
                let moved = &mut self.moved;
                moved.sent_files += sent.files;
                moved.sent_bytes += sent.bytes;
                match (sent.known, &sent.warning) {
                    (true, _) => moved.known += 1,
                    _ => moved.sent += 1,
                }
                sent.warning.into_iter().for_each(|text| self.tell(text, warnings));
            }
            Err(trouble) => self.close(trouble, warnings),
        }
        Ok(())
    }
}

fn queue_path(root: &Path, remote: &str) -> PathBuf {
    root.join(layout::UPLOADS).join(Digest::of_bytes(remote.as_bytes()).short())
}

impl Cache {
    /// Puts a remote behind this cache. Nothing is asked of it before something is missed or finished.
    ///
    /// # Errors
    /// If the list of what waits for it cannot be read.
    pub fn share(&mut self, remote: Arc<dyn Remote>, read_only: bool) -> Result<()> {
        let queue = match read_only {
            true => None,
            false => Some(Queue::open(&queue_path(&self.root, remote.name()))?),
        };
        self.shared = Some(Shared {
            remote,
            queue,
            facts: HashMap::new(),
            threads: None,
            under_way: 0,
            down: false,
            closed: Arc::default(),
            why: None,
            moved: Moved::default(),
            told: 0,
        });
        Ok(())
    }

    /// Whether something of the workspace `root` waits to be sent to the remote of this name.
    pub fn has_uploads(root: &Path, remote: &str) -> bool {
        std::fs::metadata(queue_path(root, remote)).is_ok_and(|meta| meta.len() > 0)
    }

    /// Whether there is a remote that has not failed; it may have refused what was sent.
    pub fn is_shared(&self) -> bool {
        self.shared.as_ref().is_some_and(|shared| !shared.down)
    }

    /// Why the remote cannot be used, if it failed or refused what was sent.
    pub fn trouble(&self) -> Option<&Trouble> {
        self.shared.as_ref()?.why.as_ref()
    }

    /// What went to and fro so far.
    pub fn moved(&self) -> Moved {
        self.shared.as_ref().map_or(Moved::default(), |shared| Moved {
            waiting: shared.queue.as_ref().map_or(0, Queue::len),
            ..shared.moved
        })
    }

    /// Work on the remote and the rest of the cache at once.
    fn with_shared<T>(&mut self, work: impl FnOnce(&mut Cache, &mut Shared) -> Result<T>) -> Result<Option<T>> {
        let Some(mut shared) = self.shared.take() else { return Ok(None) };
        let outcome = work(self, &mut shared);
        self.shared = Some(shared);
        outcome.map(Some)
    }

    /// A unit is about to be put: it is to be sent.
    pub(crate) fn queue(&mut self, key: Digest, facts: &StageFacts) -> Result<()> {
        let Some(Shared { queue: Some(queue), facts: known, .. }) = &mut self.shared else { return Ok(()) };
        known.entry(facts.digest).or_insert_with(|| facts.clone());
        queue.add(key)
    }

    /// The file of what waits, for a commit.
    pub(crate) fn queue_file(&self) -> Option<&std::fs::File> {
        self.shared.as_ref()?.queue.as_ref()?.file()
    }

    /// Fetches what the remote has of these keys; each is then known here. `heard` is told after each answer, and says
    /// whether to go on.
    ///
    /// # Errors
    /// If the workspace cannot be written. A remote that fails is a warning.
    pub fn fetch(&mut self, keys: &[Digest], heard: &mut dyn FnMut(Moved) -> bool) -> Result<()> {
        if keys.is_empty() || !self.is_shared() {
            return Ok(());
        }
        self.with_shared(|cache, shared| cache.fetch_from(shared, keys, heard))?;
        self.commit_soon()
    }

    fn fetch_from(&mut self, shared: &mut Shared, keys: &[Digest], heard: &mut dyn FnMut(Moved) -> bool) -> Result<()> {
        let (remote, blobs, places) = (shared.remote.clone(), self.blobs.clone(), self.places());
        let (next, stop, heals) = (AtomicUsize::new(0), AtomicBool::new(false), shared.queue.is_some());
        let here = |blob: &Blob| places(blob).is_some();
        let work = |told: Sender<Result<Found, Failed>>| {
            while let (false, Some(key)) =
                (stop.load(Ordering::Relaxed), keys.get(next.fetch_add(1, Ordering::Relaxed)))
            {
                if told.send(fetch(&*remote, &blobs, &here, key, heals)).is_err() {
                    break;
                }
            }
        };
        std::thread::scope(|scope| {
            let (told, results) = channel();
            for _ in 0..THREADS.min(keys.len()) {
                let told = told.clone();
                let work = &work;
                scope.spawn(move || work(told));
            }
            drop(told);
            let mut outcome = Ok(());
            for found in results {
                shared.moved.asked += 1;
                let kept = match found {
                    Ok(Found::Unit { unit, facts, files, bytes }) => {
                        shared.moved.fetched += 1;
                        shared.moved.fetched_files += files;
                        shared.moved.fetched_bytes += bytes;
                        self.keep(&unit, &facts)
                    }
                    Ok(Found::Nothing) => Ok(()),
                    Ok(Found::Refused(text)) => {
                        shared.tell(text, &mut self.warnings);
                        Ok(())
                    }
                    Err(Failed::Remote(trouble)) => {
                        shared.give_up(trouble, &mut self.warnings);
                        Ok(())
                    }
                    Err(Failed::Here(error)) => Err(error),
                };
                outcome = outcome.and(kept);
                if outcome.is_err() || shared.down || !heard(shared.moved) {
                    stop.store(true, Ordering::Relaxed);
                }
            }
            outcome
        })
    }

    /// What the remote has of these keys, by key. Nothing of it is known here afterwards, and no file is fetched.
    pub fn look(&mut self, keys: &[Digest]) -> HashMap<Digest, Unit> {
        if keys.is_empty() || !self.is_shared() {
            return HashMap::new();
        }
        let Some(mut shared) = self.shared.take() else { return HashMap::new() };
        let (remote, places) = (shared.remote.clone(), self.places());
        let (next, here) = (AtomicUsize::new(0), |blob: &Blob| places(blob).is_some());
        let work = || {
            let mut found = Vec::new();
            while let Some(key) = keys.get(next.fetch_add(1, Ordering::Relaxed)) {
                match look(&*remote, &here, key) {
                    Ok(unit) => found.extend(unit),
                    Err(trouble) => {
                        // nobody else need try
                        next.store(keys.len(), Ordering::Relaxed);
                        return Err(trouble);
                    }
                }
            }
            Ok(found)
        };
        let answers: Vec<Answer<Vec<Unit>>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS.min(keys.len())).map(|_| scope.spawn(work)).collect();
            let panicked = |_| Err(Trouble("a thread that asked it failed".into()));
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect()
        });
        let mut units = HashMap::new();
        for answer in answers {
            match answer {
                Ok(found) => units.extend(found.into_iter().map(|unit| (unit.key, unit))),
                Err(trouble) => shared.give_up(trouble, &mut self.warnings),
            }
        }
        self.shared = Some(shared);
        units
    }

    /// Hands some of what waits to the threads that send it, and takes in what they have done. Waits for nobody.
    ///
    /// # Errors
    /// If the workspace cannot be read or written. A remote that fails is a warning.
    pub fn send_some(&mut self) -> Result<()> {
        self.with_shared(Cache::pump).map(|_| ())
    }

    fn pump(&mut self, shared: &mut Shared) -> Result<()> {
        while let Some(result) = shared.threads.as_mut().and_then(|threads| threads.results().try_recv().ok()) {
            shared.heard(result, &mut self.warnings)?;
        }
        while !shared.is_closed() && shared.under_way < AHEAD {
            let Some(key) = shared.queue.as_mut().and_then(Queue::next) else { break };
            match self.job(shared, &key)? {
                Some(job) => {
                    let threads = shared.threads.get_or_insert_with(|| Threads::start(&shared.remote, &shared.closed));
                    if threads.jobs.send(job).is_ok() {
                        shared.under_way += 1;
                    }
                }
                // its record or a file of it has gone since
                None => shared.queue.as_mut().map_or(Ok(()), |queue| queue.done(&key))?,
            }
        }
        Ok(())
    }

    /// What there is to be sent of a key.
    fn job(&mut self, shared: &mut Shared, key: &Digest) -> Result<Option<Job>> {
        let Some(unit) = self.get(key)? else { return Ok(None) };
        if !shared.facts.contains_key(&unit.stage) {
            // it was finished by another process
            scan_units(&self.root, &|_| false, &mut |entry| {
                if let Entry::Stage(facts) = entry {
                    shared.facts.insert(facts.digest, facts);
                }
            })?;
        }
        let Some(facts) = shared.facts.get(&unit.stage).cloned() else { return Ok(None) };
        let mut seen = HashSet::new();
        let files = unit.blobs().filter(|blob| seen.insert(blob.digest));
        let files: Option<Vec<_>> = files.map(|blob| Some((blob.clone(), self.path(blob).ok()?))).collect();
        Ok(files.map(|files| Job { unit, facts, files }))
    }

    /// Sends all that waits. `heard` is told now and then, and says whether to go on; what has not gone stays queued.
    ///
    /// # Errors
    /// If the workspace cannot be read or written. A remote that fails is a warning.
    pub fn send_all(&mut self, heard: &mut dyn FnMut(Moved) -> bool) -> Result<()> {
        loop {
            self.send_some()?;
            let moved = self.moved();
            let is_open = self.shared.as_ref().is_some_and(|shared| !shared.is_closed());
            if !is_open || moved.waiting == 0 || !heard(moved) {
                return Ok(());
            }
            self.with_shared(|cache, shared| {
                let Some(threads) = &mut shared.threads else { return Ok(()) };
                match threads.results().recv_timeout(Duration::from_millis(100)) {
                    Ok(result) => shared.heard(result, &mut cache.warnings),
                    Err(RecvTimeoutError::Timeout) => Ok(()),
                    Err(RecvTimeoutError::Disconnected) => {
                        shared.close(Trouble("no thread could be started for it".into()), &mut cache.warnings);
                        Ok(())
                    }
                }
            })?;
        }
    }

    /// Queues every unit of this workspace, oldest first; says how many there are to be sent.
    ///
    /// # Errors
    /// If the workspace cannot be read or written.
    pub fn queue_all(&mut self) -> Result<usize> {
        let (mut keys, mut facts, mut seen) = (Vec::new(), HashMap::new(), HashSet::new());
        scan_all(&self.root, &mut |_, entry| match entry {
            Entry::Unit(Unit { key, .. }) if seen.insert(key) => keys.push(key),
            Entry::Stage(stage) => {
                facts.insert(stage.digest, stage);
            }
            _ => {}
        })?;
        let Some(Shared { queue: Some(queue), facts: known, .. }) = &mut self.shared else { return Ok(0) };
        known.extend(facts);
        keys.into_iter().try_for_each(|key| queue.add(key))?;
        Ok(queue.len())
    }

    /// The keys of all records of the remote that are not known here; sorted.
    ///
    /// # Errors
    /// If the workspace cannot be read; within, if the remote cannot list.
    pub fn missing(&mut self) -> Result<Answer<Vec<Digest>>> {
        let Some(remote) = self.shared.as_ref().map(|shared| shared.remote.clone()) else { return Ok(Ok(Vec::new())) };
        let names = match remote.list("records") {
            Ok(names) => names,
            Err(trouble) => return Ok(Err(trouble)),
        };
        let mut keys: Vec<Digest> = names.iter().filter_map(|name| key_of(name)).collect();
        keys.sort_unstable();
        let mut missing = Vec::new();
        for key in keys {
            if self.get(&key)?.is_none() {
                missing.push(key);
            }
        }
        Ok(Ok(missing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dir;
    use std::io::Write;

    /// A folder that can be read alone.
    struct Closed(Dir);

    impl Closed {
        fn refused<T>() -> Answer<T> {
            Err(Trouble("it takes nothing".into()))
        }
    }

    impl Remote for Closed {
        fn name(&self) -> &str {
            self.0.name()
        }

        fn length(&self, name: &str) -> Answer<Option<u64>> {
            self.0.length(name)
        }

        fn read(&self, name: &str, limit: u64, to: &mut dyn Write) -> Answer<Option<u64>> {
            self.0.read(name, limit, to)
        }

        fn write(&self, _: &str, _: &Path) -> Answer<()> {
            Closed::refused()
        }

        fn write_new(&self, _: &str, _: &[u8]) -> Answer<bool> {
            Closed::refused()
        }

        fn set_aside(&self, _: &str) -> Answer<()> {
            Closed::refused()
        }

        fn list(&self, folder: &str) -> Answer<Vec<String>> {
            self.0.list(folder)
        }
    }

    fn key(n: u8) -> Digest {
        Digest([n; 32])
    }

    fn put(cache: &mut Cache, n: u8) {
        let facts = StageFacts { digest: key(9), kind: "k".into(), facts: Vec::new() };
        let unit = Unit {
            key: key(n),
            stage: facts.digest,
            node: "a".into(),
            name: String::new(),
            inputs: Vec::new(),
            columns: Vec::new(),
            rows: Vec::new(),
            at: 0,
            seconds: 0.0,
        };
        cache.put(&unit, &facts).unwrap();
    }

    #[test]
    fn a_remote_that_takes_nothing_is_still_read() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("shared");
        std::fs::create_dir(&folder).unwrap();
        let mut one = Cache::open(&dir.path().join("one"), "test").unwrap();
        one.share(Arc::new(Dir::new(&folder)), false).unwrap();
        put(&mut one, 1);
        one.send_all(&mut |_| true).unwrap();
        let mut two = Cache::open(&dir.path().join("two"), "test").unwrap();
        two.share(Arc::new(Closed(Dir::new(&folder))), false).unwrap();
        put(&mut two, 2);
        two.send_all(&mut |_| true).unwrap();
        let told = two.take_warnings();
        assert!(
            told.len() == 1 && told[0].contains("it takes nothing") && told[0].contains("stays queued"),
            "{told:?}"
        );
        assert!(two.trouble().is_some() && two.is_shared());
        two.fetch(&[key(1)], &mut |_| true).unwrap();
        assert!(two.get(&key(1)).unwrap().is_some());
        assert_eq!((two.moved().fetched, two.moved().waiting), (1, 1));
        // one that cannot be read is left alone altogether
        std::fs::remove_dir_all(&folder).unwrap();
        put(&mut one, 3);
        one.fetch(&[key(4)], &mut |_| true).unwrap();
        one.send_all(&mut |_| true).unwrap();
        let told = one.take_warnings();
        assert!(told.len() == 1 && told[0].contains("there is no such folder") && !one.is_shared(), "{told:?}");
    }
}
