//! What is already known: unit records in plain files, blobs by digest, and a rebuildable index over both.
//!
//! Truth lies in plain files. A finished unit is a [`Unit`] record in an append-only journal; large outputs are blobs
//! beside it; the index (sled) only says where a record lies and can be thrown away at any time. Behind it there may be
//! a [`Remote`], which colleagues share.
//!
//! Knows manifests, and neither stages nor recipes: a key is a digest, a record is what was put under it.

mod blobs;
mod codec;
mod compact;
mod entry;
mod error;
mod fingerprint;
mod fsck;
mod index;
pub mod layout;
mod lock;
mod records;
mod remote;
mod seek;
mod shared;
mod store;

pub use blobs::{Blobs, State, Take, extension, is_plain};
pub use entry::{Entry, OutRow, StageFacts, Unit};
pub use error::Error;
pub use fingerprint::Fingerprint;
pub use fsck::{Damage, Verified};
pub use lock::is_locked;
pub use records::{Place, scan_all};
pub use remote::{Answer, Dir, Remote, Trouble};
pub use seek::scan_units;
pub use shared::Moved;
pub use store::{Cache, LEFT};

/// What functions of this crate return.
pub type Result<T, E = Error> = std::result::Result<T, E>;
