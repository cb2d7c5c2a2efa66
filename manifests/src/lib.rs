//! Typed tables of rows, their canonical encoding and digests, and Arrow files.
//!
//! A [`Manifest`] is what passes between stages: columns of a closed set of types ([`Type`]) over an Arrow record
//! batch. Large things (images, weights, meshes) are [`Blob`]s: a file named by the digest of its content.
//!
//! Knows no other crate of ours: not where blobs lie, not what a stage or a recipe is. Does no I/O but Arrow files and
//! hashing files.

mod digest;
mod error;
mod ipc;
mod manifest;
mod schema;
mod value;

pub use digest::{Digest, Hasher};
pub use error::Error;
pub use ipc::{read_ipc, read_ipc_from, write_ipc};
pub use manifest::Manifest;
pub use schema::{Column, Schema};
pub use value::{Blob, Type, Value};

/// What functions of this crate return.
pub type Result<T, E = Error> = std::result::Result<T, E>;
