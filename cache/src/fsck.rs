//! Checking a workspace: every blob against its name, every record against its blobs. Repairs nothing by itself but what can
//! be done again: a damaged blob is removed on request, and the unit that made it is then a miss.

use crate::{Cache, Entry, Result, records};
use manifests::Digest;
use rayon::prelude::*;
use std::collections::HashMap;
use std::path::PathBuf;

/// A file that is not what its name says.
#[derive(Clone, Debug)]
pub struct Damage {
    /// The digest it should have.
    pub digest: Digest,
    /// Where it lies, or should.
    pub path: PathBuf,
    /// What is wrong with it.
    pub what: String,
    /// The stage whose unit put it out, if a record says so.
    pub stage: Option<String>,
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
        let mut owners: HashMap<Digest, (String, u64)> = HashMap::new();
        let mut latest: HashMap<Digest, Vec<Digest>> = HashMap::new();
        let mut verified = Verified { blobs: list.len(), ..Verified::default() };
        records::scan_all(self.root(), &mut |_, entry| {
            if let Entry::Unit(unit) = entry {
                verified.records += 1;
                for blob in unit.blobs() {
                    owners.insert(blob.digest, (unit.node.clone(), blob.len));
                }
                latest.insert(unit.key, unit.blobs().map(|blob| blob.digest).collect());
            }
        })?;
        verified.bytes = list.iter().map(|(.., len)| len).sum();
        let owner = |digest: &Digest| owners.get(digest).map(|(stage, _)| stage.clone());
        let mut damaged: Vec<Damage> = list
            .par_iter()
            .filter_map(|(digest, path, _)| {
                let what = match Digest::of_file(path) {
                    Ok((found, _)) if found == *digest => return None,
                    Ok(_) => "its content has changed".into(),
                    Err(error) => format!("it cannot be read: {error}"),
                };
                Some(Damage { digest: *digest, path: path.clone(), what, stage: owner(digest) })
            })
            .collect();
        let present: std::collections::HashSet<Digest> = list.iter().map(|(digest, ..)| *digest).collect();
        let mut missing: Vec<Digest> =
            latest.into_values().flatten().filter(|digest| !present.contains(digest)).collect();
        missing.sort_unstable();
        missing.dedup();
        damaged.extend(missing.into_iter().filter(|digest| !self.is_referred(digest)).map(|digest| Damage {
            digest,
            path: self.blobs().path(&digest),
            what: "it is missing".into(),
            stage: owner(&digest),
        }));
        verified.damaged = damaged;
        Ok(verified)
    }

    /// Removes damaged blobs, so that the units that made them run again.
    pub fn discard(&self, damaged: &[Damage]) {
        for damage in damaged {
            // one that is missing is as good as removed
            let _ = std::fs::remove_file(&damage.path);
        }
    }
}
