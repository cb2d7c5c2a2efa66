//! What the page asks for: runs, the one that is on, rows, pairs of rows, and what the avatar viewer shows.

use super::asked::{Answer, Answered, missing, wrong};
use super::rows::{Query, page};
use super::site::Site;
use super::{compared, stages};
use crate::cli::live;
use crate::cli::record::Record;
use crate::compare::compare;
use manifests::Digest;
use serde_json::{Value as Json, json};
use std::sync::Arc;

/// Runs of a page, if nobody says how many, and at most.
const RUNS: (usize, usize) = (100, 500);
/// Rows of a page, if nobody says how many.
const ROWS: usize = 60;
/// Pairs of a page.
const PAIRS: usize = 24;
/// Rows that changed, of each kind.
const EXAMPLES: usize = 30;

/// The fields of a request.
pub struct Fields(pub Vec<(String, String)>);

impl Fields {
    /// The first of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// All of this name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The first of this name.
    ///
    /// # Errors
    /// If there is none.
    pub fn need(&self, name: &str) -> Answered<&str> {
        self.get(name).ok_or_else(|| wrong(format!("the field `{name}` is missing")))
    }

    /// A number.
    ///
    /// # Errors
    /// If it is none.
    pub fn number(&self, name: &str, otherwise: usize) -> Answered<usize> {
        let wrong = || wrong(format!("the field `{name}` is no number from 0"));
        self.get(name).map_or(Ok(otherwise), |text| text.parse().map_err(|_| wrong()))
    }

    fn digest(&self, name: &str) -> Answered<Digest> {
        self.need(name)?.parse().map_err(|_| wrong(format!("the field `{name}` is no digest")))
    }
}

/// Answers for `/api/NAME`.
///
/// # Errors
/// If there is no such thing, or a field is wrong.
pub fn answer(site: &Site, name: &str, fields: &Fields) -> Answered {
    let json = |json: Json| Ok(Answer::json(json.to_string()));
    match name {
        "runs" => json(runs(site, fields)?),
        "live" => {
            let live = live::current(&site.root);
            json(json!({"live": live, "svg": live.as_ref().and_then(stages::of_live)}))
        }
        "run" => json(run(site, &*find(site, fields.need("run")?)?)?),
        "rows" => {
            let order = fields.get("order").map(|column| match column.strip_prefix('-') {
                Some(column) => (column.to_string(), true),
                None => (column.to_string(), false),
            });
            let query = Query {
                conditions: fields.all("where").map(str::to_string).collect(),
                order,
                offset: fields.number("offset", 0)?,
                limit: fields.number("limit", ROWS)?,
                whole: fields.get("whole").is_some(),
            };
            json(page(&*site.tables.table(&fields.digest("table")?)?, &query)?)
        }
        "pairs" => {
            let (old, new) = both(site, fields)?;
            json(compared::pairs(&old, &new, fields.number("offset", 0)?, fields.number("limit", PAIRS)?.min(PAIRS))?)
        }
        "diff" => {
            let (old, new) = both(site, fields)?;
            let told = compare(&old, &new, None, EXAMPLES)?;
            json(serde_json::to_value(told).map_err(anyhow::Error::from)?)
        }
        "avatar" => json(site.viewer.describe(site, &*find(site, fields.need("run")?)?)?),
        "mesh" => site.viewer.mesh(site, &*find(site, fields.need("run")?)?, fields),
        "render" => site.viewer.render(site, &*find(site, fields.need("run")?)?, fields),
        _ => Err(missing("there is nothing at this address")),
    }
}

fn both(site: &Site, fields: &Fields) -> Answered<(Arc<manifests::Manifest>, Arc<manifests::Manifest>)> {
    Ok((site.tables.table(&fields.digest("old")?)?, site.tables.table(&fields.digest("new")?)?))
}

fn find(site: &Site, name: &str) -> Answered<Arc<Record>> {
    site.records.get(name).ok_or_else(|| missing("there is no run of this name"))
}

/// A page of runs, the last one first.
fn runs(site: &Site, fields: &Fields) -> Answered<Json> {
    let (offset, limit) = (fields.number("offset", 0)?, fields.number("limit", RUNS.0)?.min(RUNS.1));
    let (total, runs) = site.records.page(offset, limit, fields.get("avatar").is_some());
    let (workspace, version) = (site.root.display().to_string(), crate::cli::host::VERSION);
    Ok(json!({"workspace": workspace, "version": version, "total": total, "runs": runs}))
}

fn run(site: &Site, record: &Record) -> Answered<Json> {
    let mut told = serde_json::to_value(record).map_err(anyhow::Error::from)?;
    for (stage, own) in told["stages"].as_array_mut().into_iter().flatten().zip(&record.stages) {
        stage["kept"] = own.table.is_some_and(|table| site.tables.has(&table)).into();
    }
    told["svg"] = stages::of_record(record).into();
    told["typed"] = record.typed().into();
    told["avatar"] = super::avatar::Cast::all(record).is_ok().into();
    Ok(told)
}
