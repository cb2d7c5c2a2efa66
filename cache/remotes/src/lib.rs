//! Remotes by their URL: a shared folder, S3, Google Cloud Storage, Azure, plain HTTP.
//!
//! The only crate that talks to a network. It starts no runtime and opens no connection before a remote is first asked
//! for something. Knows neither keys nor records, and reads no environment: it is told what is set there.

mod profile;
mod store;

use cache::{Answer, Dir, Remote, Trouble};
use std::path::Path;
use std::sync::Arc;

/// What it is told of the world outside.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// Environment variables that begin with `AWS_`, `GOOGLE_` or `AZURE_`: endpoints, regions, credentials.
    pub variables: Vec<(String, String)>,
    /// The user's folder, in which credentials may lie as the providers' own tools leave them.
    pub home: Option<std::path::PathBuf>,
    /// The folder that `dir:` begins at.
    pub dir: std::path::PathBuf,
}

/// The remote of a URL: `dir:FOLDER`, `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX`, `az://CONTAINER/PREFIX`,
/// `http://HOST/PATH` or `https://HOST/PATH`.
///
/// # Errors
/// If it is no such URL, or what is set for it contradicts itself. Whether it answers shows only when it is asked.
pub fn open(url: &str, surroundings: &Surroundings) -> Answer<Arc<dyn Remote>> {
    if let Some(folder) = url.strip_prefix("dir:") {
        let folder = folder.strip_prefix("//").unwrap_or(folder);
        if folder.is_empty() {
            return Err(Trouble("`dir:` names no folder: write `dir:FOLDER`".into()));
        }
        return Ok(Arc::new(Dir::new(&surroundings.dir.join(Path::new(folder)))));
    }
    Ok(Arc::new(store::Store::open(url, surroundings)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_remotes_and_their_secrets_are_not_shown() {
        let surroundings = Surroundings { dir: "base".into(), ..Surroundings::default() };
        let name =
            |url: &str| open(url, &surroundings).map(|remote| remote.name().to_string()).map_err(|error| error.0);
        assert_eq!(name("dir:shared").unwrap(), "dir:base/shared");
        assert_eq!(name("s3://bucket/a/b/").unwrap(), "s3://bucket/a/b");
        assert_eq!(name("gs://bucket").unwrap(), "gs://bucket");
        assert_eq!(name("https://me:secret@host/a?token=secret").unwrap(), "https://host/a");
        for wrong in ["", "dir:", "bucket/a", "ftp://host/a", "s3://", "http:///a"] {
            let error = name(wrong).unwrap_err();
            assert!(error.contains("dir:FOLDER"), "{wrong}: {error}");
        }
    }
}
