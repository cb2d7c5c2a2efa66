//! Compaction: the journal without what nobody needs any more. Knows not who needs what: it is told.

use crate::entry::{Entry, Unit};
use crate::error::io;
use crate::{Cache, Result, scan_all};
use manifests::Digest;
use std::collections::{HashMap, HashSet};

impl Cache {
    /// Writes the journal anew with those units alone that `keep` wants and whose files are there, and the index with
    /// it; gives back how many units are left.
    ///
    /// # Errors
    /// If it cannot be read or written. The old journal is removed only when the new one has reached the disk.
    pub fn compact(&mut self, keep: &dyn Fn(&Unit) -> bool) -> Result<usize> {
        self.commit()?;
        let mut stages = Vec::new();
        let mut units: HashMap<Digest, Unit> = HashMap::new();
        scan_all(&self.root, &mut |_, entry| match entry {
            Entry::Stage(facts) => stages.push(facts),
            Entry::Unit(unit) => {
                units.insert(unit.key, unit);
            }
            _ => {}
        })?;
        let whole = |unit: &Unit| unit.blobs().all(|blob| self.has(blob));
        let mut left: Vec<Unit> = units.into_values().filter(|unit| keep(unit) && whole(unit)).collect();
        left.sort_by_key(|unit| (unit.at, unit.key));
        let used: HashSet<Digest> = left.iter().map(|unit| unit.stage).collect();
        let old = self.journal.next_segment()?;
        let mut written = HashSet::new();
        for facts in stages.into_iter().filter(|facts| used.contains(&facts.digest)) {
            if written.insert(facts.digest) {
                self.journal.append(&Entry::Stage(facts))?;
            }
        }
        for unit in &left {
            self.journal.append(&Entry::Unit(unit.clone()))?;
        }
        if let Some((file, upto)) = self.journal.unsynced() {
            // the new segment vouches for files that the old ones may not have vouched for
            self.blobs.sync_all()?;
            file.sync_data().map_err(io("write", &self.root))?;
            self.journal.committed(upto)?;
            self.journal.sync_mark()?;
        }
        self.journal.remove(&old)?;
        self.places.clear();
        self.unindexed.clear();
        // facts that went with their units have to be written again
        self.known_stages.clear();
        self.rebuild()?;
        Ok(left.len())
    }
}
