//! The remote of a workspace: which one it is, as `--remote`, the environment or `.effigy.yaml` says, and `effigy cache
//! push` and `pull`. Knows not what is in it.

use super::{DONE, FAILED, INTERRUPTED, WorkspaceArgs, print, progress, remark};
use crate::error::Problem;
use crate::event::Event;
use crate::hints::hinted;
use crate::run::{Transfers, is_stopped};
use crate::yaml::{self, Node};
use anyhow::{Context, Result};
use cache::{Cache, Remote};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Says which remote, in the folder that `effigy` is called in.
const FILE: &str = ".effigy.yaml";
/// Says that there is none.
const NONE: &str = "none";

/// Which remote.
#[derive(clap::Args, Clone, Debug)]
pub struct RemoteArgs {
    /// A cache to share: dir:FOLDER, s3://, gs://, az:// or https:// [default: EFFIGY_REMOTE, else `remote:` of
    /// .effigy.yaml; `none`: no remote]
    #[arg(long, value_name = "URL")]
    remote: Option<String>,
    /// Fetch from the remote and write nothing there [also: EFFIGY_REMOTE_READ_ONLY=1, `remote_read_only: true`]
    #[arg(long)]
    remote_read_only: bool,
}

/// Which way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To the remote.
    Push,
    /// From it.
    Pull,
}

/// The remote that was asked for.
pub struct Chosen {
    remote: Arc<dyn Remote>,
    read_only: bool,
}

impl Chosen {
    /// Puts it behind a cache.
    pub fn share(&self, cache: &mut Cache) -> Result<()> {
        Ok(cache.share(self.remote.clone(), self.read_only)?)
    }

    /// Puts it behind a cache that only asks.
    pub fn ask(&self, cache: &mut Cache) -> Result<()> {
        Ok(cache.share(self.remote.clone(), true)?)
    }

    /// Whether something of a workspace waits for it.
    pub fn is_waited_for(&self, workspace: &Path) -> bool {
        !self.read_only && Cache::has_uploads(workspace, self.remote.name())
    }
}

/// What `.effigy.yaml` says.
#[derive(Debug, Default, PartialEq)]
struct Config {
    remote: Option<String>,
    read_only: bool,
}

impl RemoteArgs {
    /// The remote, if there is to be one. It is not asked anything.
    ///
    /// # Errors
    /// If what was said of it makes no sense.
    pub fn find(&self) -> Result<Option<Chosen>> {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let config = match std::fs::read_to_string(FILE) {
            Ok(text) => read(&text)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Config::default(),
            Err(error) => return Err(error).with_context(|| format!("cannot read {FILE}")),
        };
        let named = [("--remote", self.remote.clone()), ("EFFIGY_REMOTE", set("EFFIGY_REMOTE")), (FILE, config.remote)];
        let Some((place, url)) = named.into_iter().find_map(|(place, url)| Some((place, url?))) else {
            return Ok(None);
        };
        if url == NONE {
            return Ok(None);
        }
        let usual = |name: &str| ["AWS_", "GOOGLE_", "AZURE_"].iter().any(|start| name.starts_with(start));
        let surroundings = remotes::Surroundings {
            variables: std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .filter(|(name, _)| usual(name))
                .collect(),
            home: std::env::var_os("HOME").map(PathBuf::from),
            dir: std::env::current_dir().context("the folder that effigy was called in is gone")?,
        };
        let remote = remotes::open(&url, &surroundings).map_err(|trouble| {
            // the URL itself may hold a password
            Problem::new(format!("the remote that {place} names cannot be used: {trouble}"))
                .or_hint("`effigy run --help` says how a remote is named")
        })?;
        let said = set("EFFIGY_REMOTE_READ_ONLY").map(|value| !["0", "false"].contains(&value.as_str()));
        Ok(Some(Chosen { remote, read_only: self.remote_read_only || said.unwrap_or(config.read_only) }))
    }

    /// Sends all that is known here, or fetches all that is known there.
    pub fn move_all(&self, workspace: &WorkspaceArgs, direction: Direction, json: bool) -> Result<u8> {
        let began = Instant::now();
        let Some(chosen) = self.find()? else {
            let message = "no remote is named, so there is nothing to exchange with";
            let hint = format!("name one: `--remote dir:FOLDER`, EFFIGY_REMOTE, or `remote: URL` in {FILE}");
            return Err(Problem::new(message).hint(hint).into());
        };
        let name = chosen.remote.name().to_string();
        if direction == Direction::Push && chosen.read_only {
            let hint =
                format!("leave out --remote-read-only, EFFIGY_REMOTE_READ_ONLY and `remote_read_only:` of {FILE}");
            return Err(Problem::new(format!("the remote {name} is only to be read")).hint(hint).into());
        }
        if direction == Direction::Push {
            workspace.must_be_there()?;
        }
        let mut cache = workspace.open()?;
        chosen.share(&mut cache)?;
        super::run::catch_interrupts("what has begun");
        let mut readers = vec![progress::reader(json, false)];
        match direction {
            Direction::Push => {
                cache.queue_all()?;
                Transfers::default().send(&mut cache, &mut readers)?;
            }
            Direction::Pull => {
                // what is referred to need not come
                crate::memory::Store::new(cache.root()).refer_all(&mut cache);
                let missing = cache.missing()?.map_err(|trouble| {
                    let hint = "a remote that cannot list its objects still serves runs: `effigy run --remote URL` fetches what it needs";
                    hinted(format!("the remote {name} cannot be listed: {trouble}"), hint)
                })?;
                Transfers::default().fetch("", &missing, &mut cache, &mut readers)?;
                cache.commit()?;
            }
        }
        for text in cache.take_warnings() {
            readers.iter_mut().for_each(|reader| reader.hear(&Event::Warning { text: text.clone() }));
        }
        let (moved, seconds) = (cache.moved(), began.elapsed().as_secs_f64());
        let (units, files, bytes, verb) = match direction {
            Direction::Push => (moved.sent, moved.sent_files, moved.sent_bytes, "sent"),
            Direction::Pull => (moved.fetched, moved.fetched_files, moved.fetched_bytes, "fetched"),
        };
        if json {
            let all = json!({"event": verb, "units": units, "files": files, "bytes": bytes, "known": moved.known,
                "waiting": moved.waiting, "seconds": seconds});
            print(&all.to_string());
        } else {
            let rate = progress::room((bytes as f64 / seconds.max(0.001)) as u64);
            let known = if moved.known > 0 { format!(", {} were there", moved.known) } else { String::new() };
            let (size, taken) = (progress::room(bytes), progress::seconds(seconds));
            print(&format!("{units} units and {files} files {verb} ({size}, {rate}/s){known} ({taken})"));
        }
        if is_stopped() {
            return Ok(INTERRUPTED);
        }
        if cache.trouble().is_some() {
            remark(&format!(
                "  hint: is {name} the right place, can it be reached, and may you use it? run the same again then"
            ));
            return Ok(FAILED);
        }
        Ok(DONE)
    }
}

/// Reads `.effigy.yaml`.
fn read(text: &str) -> Result<Config> {
    let mut config = Config::default();
    let tree = yaml::parse(FILE, text)?;
    let fields = match tree.node {
        Node::Null => Vec::new(),
        Node::Map(fields) => fields,
        other => {
            let problem = Problem::at(&tree.at.place(FILE), format!("this is {}, not fields", other.what()));
            return Err(problem.hint("write `remote: URL`").into());
        }
    };
    for (key, item) in fields {
        match (key.name.as_str(), item.node) {
            ("remote", Node::Text(url)) => config.remote = Some(url),
            ("remote", Node::Null) => {}
            ("remote_read_only", Node::Bool(read_only)) => config.read_only = read_only,
            ("remote" | "remote_read_only", other) => {
                let wanted = if key.name == "remote" { "a URL, like dir:../shared" } else { "true or false" };
                let problem = Problem::at(&item.at.place(FILE), format!("`{}` is {}", key.name, other.what()));
                return Err(problem.hint(format!("it is {wanted}")).into());
            }
            (other, _) => {
                let problem = Problem::at(&key.at.place(FILE), format!("there is no field `{other}`"));
                let known = ["remote", "remote_read_only"];
                return Err(problem
                    .did_you_mean(other, known)
                    .or_hint("there are `remote` and `remote_read_only`")
                    .into());
            }
        }
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_says_little_and_nothing_else() {
        let config = |remote: Option<&str>, read_only| Config { remote: remote.map(str::to_string), read_only };
        assert_eq!(read("").unwrap(), config(None, false));
        assert_eq!(read("remote: s3://b/p\nremote_read_only: true\n").unwrap(), config(Some("s3://b/p"), true));
        for wrong in ["remotes: x", "remote: 3", "remote_read_only: x", "- x"] {
            let error = crate::run::sentence(&read(wrong).unwrap_err());
            assert!(error.contains(".effigy.yaml:1"), "{error}");
        }
    }
}
