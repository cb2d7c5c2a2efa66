//! What the page asks for: runs, the one that is on, rows, pairs of rows, and what the avatar viewer shows.

use super::asked::{Answer, Answered, missing, wrong};
use super::rows::{Query, page};
use super::site::Site;
use super::{compared, failures, stages};
use crate::cli::live;
use crate::compare::compare;
use crate::record::Record;
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
        "live" => json(live(site, fields.get("drawing"))?),
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
            let digest = fields.digest("table")?;
            let mut page = page(&*site.tables.table(&digest)?, &query)?;
            page["columns"] = (*site.tables.columns(&digest)?).clone();
            json(page)
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

/// The run that is on: stages that are no old news, how many are at work on, and the drawing if it is another than the
/// one of the digest that the page has already. It is asked for every second.
fn live(site: &Site, drawing: Option<&str>) -> Answered<Json> {
    let Some(live) = live::current(&site.root) else { return Ok(json!({"live": null, "svg": null})) };
    let over = live.stages.iter().filter(|stage| stage.state != "running").count();
    let news = live.stages.iter().filter(|stage| stage.state != "done" || stage.ran > 0.0);
    let told: Vec<Json> = news
        .map(|stage| {
            let mut told = serde_json::to_value(stage).map_err(anyhow::Error::from)?;
            if stage.state == "running" {
                told["working"] = failures::working(&site.root, &live, &stage.name).into();
            }
            Ok(told)
        })
        .collect::<Answered<_>>()?;
    let svg = if drawing == Some("none") { None } else { stages::of_live(&live) };
    let digest = svg.as_ref().map(|svg| Digest::of_bytes(svg.as_bytes()).short());
    let svg = svg.filter(|_| digest.as_deref() != drawing);
    let stages = live.graph.len();
    let live = json!({
        "pid": live.pid, "recipe": live.recipe, "profile": live.profile, "run": live.run, "started": live.started,
        "remarks": live.remarks, "stages": told, "over": over, "of": stages,
    });
    Ok(json!({"live": live, "svg": svg, "drawing": digest}))
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
        if own.failed > 0 {
            stage["failures"] = failures::of(site, record, own).into();
        }
    }
    told["svg"] = stages::of_record(record).into();
    told["typed"] = record.typed().into();
    told["avatar"] = super::cast::Cast::all(record).is_ok().into();
    Ok(told)
}
