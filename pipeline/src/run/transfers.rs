//! Units that come from the remote and go there, as events: how far, now and then. Knows neither remotes nor stages.

use super::is_stopped;
use crate::event::{Event, Reader};
use anyhow::Result;
use cache::Cache;
use manifests::Digest;
use std::time::{Duration, Instant};

/// Readers are told no more often than this.
const EVERY: Duration = Duration::from_millis(200);

/// When readers were told last.
#[derive(Default)]
pub struct Transfers {
    told: Option<Instant>,
}

impl Transfers {
    fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let due = self.told.is_none_or(|told| now.duration_since(told) >= EVERY);
        if due {
            self.told = Some(now);
        }
        due
    }

    /// Fetches what the remote has of these keys, for a stage.
    ///
    /// # Errors
    /// If the workspace cannot be written.
    pub fn fetch(
        &mut self,
        stage: &str,
        keys: &[Digest],
        cache: &mut Cache,
        readers: &mut [Box<dyn Reader>],
    ) -> Result<()> {
        let before = cache.moved();
        if keys.is_empty() || !cache.is_shared() {
            return Ok(());
        }
        let event = |moved: cache::Moved, over| {
            let open = keys.len().saturating_sub(moved.asked - before.asked);
            let (units, bytes) = (moved.fetched - before.fetched, moved.fetched_bytes - before.fetched_bytes);
            Event::Transfer { stage: stage.into(), verb: "fetched", units, open, bytes, over }
        };
        cache.fetch(keys, &mut |moved| {
            if self.is_due() {
                tell(readers, &event(moved, false));
            }
            !is_stopped()
        })?;
        tell(readers, &event(cache.moved(), true));
        Ok(())
    }

    /// Sends what waits, until all has gone, the remote fails or the user stops it.
    ///
    /// # Errors
    /// If the workspace cannot be read or written.
    pub fn send(&mut self, cache: &mut Cache, readers: &mut [Box<dyn Reader>]) -> Result<()> {
        let event = |moved: cache::Moved, over| Event::Transfer {
            stage: String::new(),
            verb: "sent",
            units: moved.sent,
            open: moved.waiting,
            bytes: moved.sent_bytes,
            over,
        };
        cache.send_all(&mut |moved| {
            if self.is_due() {
                tell(readers, &event(moved, false));
            }
            !is_stopped()
        })?;
        let moved = cache.moved();
        if moved.sent + moved.known > 0 {
            tell(readers, &event(moved, true));
        }
        Ok(())
    }
}

fn tell(readers: &mut [Box<dyn Reader>], event: &Event) {
    readers.iter_mut().for_each(|reader| reader.hear(event));
}
