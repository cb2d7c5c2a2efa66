//! What lies at which address.

use super::asked::{Answer, Answered, Asked, missing};
use super::avatar::Viewer;
use super::files::Files;
use super::records::Records;
use super::rows::Tables;
use crate::provider::Candidate;
use crate::report::palette;
use std::path::{Path, PathBuf};

/// The page, written by hand: no build step, and nothing is fetched from anywhere.
const PAGE: [(&str, &str, &str); 10] = [
    ("/", "text/html; charset=utf-8", include_str!("../../../templates/serve/index.html")),
    ("/icon.svg", "image/svg+xml", include_str!("../../../templates/serve/icon.svg")),
    ("/app.js", SCRIPT, include_str!("../../../templates/serve/app.js")),
    ("/dom.js", SCRIPT, include_str!("../../../templates/serve/dom.js")),
    ("/runs.js", SCRIPT, include_str!("../../../templates/serve/runs.js")),
    ("/rows.js", SCRIPT, include_str!("../../../templates/serve/rows.js")),
    ("/compare.js", SCRIPT, include_str!("../../../templates/serve/compare.js")),
    ("/avatar.js", SCRIPT, include_str!("../../../templates/serve/avatar.js")),
    ("/mesh.js", SCRIPT, include_str!("../../../templates/serve/mesh.js")),
    ("/style.css", "text/css; charset=utf-8", include_str!("../../../templates/serve/style.css")),
];
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// A workspace as it is shown.
pub struct Site {
    /// Its folder, absolute.
    pub root: PathBuf,
    /// Its runs.
    pub records: Records,
    /// Its tables.
    pub tables: Tables,
    /// Its files.
    pub files: Files,
    /// What computes heads and pictures of an avatar.
    pub viewer: Viewer,
}

impl Site {
    /// Over a workspace, with the provider that has the stages of the avatar, and a folder for what they compute.
    pub fn new(root: PathBuf, provider: Option<Candidate>, folder: &Path) -> Site {
        let (records, tables, files) = (Records::new(&root), Tables::new(&root), Files::new(&root));
        Site { viewer: Viewer::new(&root, provider, folder), root, records, tables, files }
    }

    /// Answers a request that the guard has let in.
    pub fn answer(&self, asked: &Asked) -> Answer {
        self.answered(asked).unwrap_or_else(|refusal| refusal.answer(asked.wants_page()))
    }

    fn answered(&self, asked: &Asked) -> Answered {
        let (path, fields) = asked.parts()?;
        if let Some((_, media, text)) = PAGE.iter().find(|(known, ..)| *known == path) {
            let colours = if *media == PAGE[PAGE.len() - 1].1 { palette::style_sheet() } else { String::new() };
            return Ok(Answer::bytes(media, (colours + text).into_bytes()));
        }
        if let Some(name) = path.strip_prefix("/blob/") {
            return self.files.answer(name, asked);
        }
        match path.strip_prefix("/api/") {
            Some(name) => super::api::answer(self, name, &super::api::Fields(fields)),
            None => Err(missing("there is nothing at this address")),
        }
    }
}
