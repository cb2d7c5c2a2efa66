//! Checking a workspace: every blob against its name, every record against its blobs. Repairs nothing by itself but
//! what can be done again: a damaged blob is removed on request, and the unit that made it is then a miss.

use crate::entry::Entry;
use crate::{Cache, Result, records};
use manifests::Digest;
use rayon::prelude::*;
use std::collections::HashMap;
use std::path::PathBuf;

/// A file that is not what its name says.
#[derive(Clone, Debug)]
pub struct Damage {
    /// The digest it should have; none for a part of the journal.
    pub digest: Option<Digest>,
    /// Where it lies, or should.
    pub path: PathBuf,
    /// What is wrong with it.
    pub what: String,
    /// The stage whose unit put it out, if a record says so.
    pub stage: Option<String>,
    /// Which unit of that stage, as people know it; empty if it has but one.
    pub unit: Option<String>,
}

/// What a check found.
#[derive(Clone, Debug, Default)]
pub struct Verified {
    /// Blobs that were read.
    pub blobs: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Records that were read.
    pub records: usize,
    /// What is wrong.
    pub damaged: Vec<Damage>,
}

impl Cache {
    /// Reads every blob and every record.
    ///
    /// # Errors
    /// If the workspace cannot be read at all.
    pub fn verify(&self) -> Result<Verified> {
        let list = self.blobs().list()?;
        let mut owners: HashMap<Digest, (String, String)> = HashMap::new();
        let mut latest: HashMap<Digest, Vec<Digest>> = HashMap::new();
        let mut verified = Verified { blobs: list.len(), ..Verified::default() };
        let gaps = records::gaps(self.root(), &mut |_, entry| {
            if let Entry::Unit(unit) = entry {
                verified.records += 1;
                for blob in unit.blobs() {
                    owners.insert(blob.digest, (unit.node.clone(), unit.name.clone()));
                }
                latest.insert(unit.key, unit.blobs().map(|blob| blob.digest).collect());
            }
        })?;
        verified.bytes = list.iter().map(|(.., len)| len).sum();
        let damage = |digest: Digest, path: PathBuf, what: String| {
            let (stage, unit) = owners.get(&digest).cloned().unzip();
            Damage { digest: Some(digest), path, what, stage, unit }
        };
        let mut damaged: Vec<Damage> = list
            .par_iter()
            .filter_map(|(digest, path, _)| {
                let what = match Digest::of_file_at_rest(path) {
                    Ok((found, _)) if found == *digest => return None,
                    Ok(_) => "its content has changed".into(),
                    Err(error) => format!("it cannot be read: {error}"),
                };
                Some(damage(*digest, path.clone(), what))
            })
            .collect();
        let present: std::collections::HashSet<Digest> = list.iter().map(|(digest, ..)| *digest).collect();
        let mut missing: Vec<Digest> =
            latest.into_values().flatten().filter(|digest| !present.contains(digest)).collect();
        missing.sort_unstable();
        missing.dedup();
        let missing = missing.into_iter().filter(|digest| !self.is_referred(digest));
        damaged.extend(missing.map(|digest| damage(digest, self.blobs().path(&digest), "it is missing".into())));
        damaged.extend(gaps.into_iter().map(|(path, offset, bytes)| {
            let what = format!("{bytes} bytes from {offset} on are no record; a unit that stood there runs again");
            Damage { digest: None, path, what, stage: None, unit: None }
        }));
        verified.damaged = damaged;
        Ok(verified)
    }

    /// Removes damaged blobs, so that the units that made them run again, and from the journal damaged parts and units
    /// whose files are gone.
    ///
    /// # Errors
    /// If the journal cannot be written.
    pub fn discard(&mut self, damaged: &[Damage]) -> Result<()> {
        self.blobs().discard(&damaged.iter().filter_map(|damage| damage.digest).collect::<Vec<_>>());
        self.compact(&|_| true)?;
        Ok(())
    }
}
