//! Which stages of a run an avatar is made of: what draws it, what was tracked of its people, and by what.
//!
//! Goes by the kinds of stages and how they are wired. Reads no table and computes nothing.

use crate::record::{Record, StageRecord};
use manifests::Digest;
use std::collections::{HashSet, VecDeque};

/// The names that this file knows of the provider.
const TRACKS: &str = "track_head";
pub const RASTERS: &str = "raster_gbuffer";
pub const RENDERS: &str = "render_avatar";
const TRUTH: &str = "capture_truth";

/// The stages of a run that an avatar is made of.
#[derive(Clone)]
pub struct Cast {
    /// The stage of the pictures, or of the tracking if there are no pictures.
    pub name: String,
    /// The stage of the tracking.
    pub tracked: StageRecord,
    /// Tracked rows beside what was really shown, of a synthetic capture.
    pub truth: Option<Digest>,
    /// The head model that was tracked with.
    pub head_model: Digest,
    /// The person as the tracking knows them.
    pub person: Digest,
    /// What draws pictures: the G-buffers' parameters, and stage and constants of the avatar.
    pub render: Option<(StageRecord, StageRecord, Digest, Digest)>,
}

impl Cast {
    /// All avatars of a run; if it has none, the heads that it tracked.
    ///
    /// # Errors
    /// What is missing, in a sentence.
    pub fn all(record: &Record) -> Result<Vec<Cast>, String> {
        let is = |kind: &'static str| move |stage: &&StageRecord| stage.kind == kind && stage.table.is_some();
        let renders = record.stages.iter().filter(is(RENDERS)).flat_map(|stage| Cast::of_render(record, stage));
        let mut casts: Vec<Cast> = renders.collect();
        if casts.is_empty() {
            casts.extend(record.stages.iter().filter(is(TRACKS)).filter_map(|stage| Cast::of_tracked(record, stage)));
        }
        if casts.is_empty() {
            return Err(format!("this run tracked no head: it has no finished stage of kind `{TRACKS}`"));
        }
        Ok(casts)
    }

    fn of_tracked(record: &Record, tracked: &StageRecord) -> Option<Cast> {
        Some(Cast {
            name: tracked.name.clone(),
            tracked: tracked.clone(),
            truth: beside_truth(record, tracked),
            head_model: constant(record, tracked, "head_model")?,
            person: constant(record, tracked, "person")?,
            render: None,
        })
    }

    /// The avatar of each tracking that its pictures go back to: people who share an avatar are tracked each alone.
    fn of_render(record: &Record, render: &StageRecord) -> Vec<Cast> {
        let (Some(avatar), Some(backbone)) = (constant(record, render, "avatar"), constant(record, render, "backbone"))
        else {
            return Vec::new();
        };
        let mut pairs: Vec<(&StageRecord, &StageRecord)> = Vec::new();
        for gbuffer in before(record, render, RASTERS) {
            for tracked in before(record, gbuffer, TRACKS) {
                if pairs.iter().all(|(_, known)| known.name != tracked.name) {
                    pairs.push((gbuffer, tracked));
                }
            }
        }
        // who only drives the avatar was not learned from, and is none of its heads
        let training =
            render.wiring.with.iter().find(|(own, _)| own == "avatar").and_then(|(_, name)| record.stage(name));
        let learned: Vec<&str> = training.map_or_else(Vec::new, |training| {
            before(record, training, TRACKS).into_iter().map(|tracked| tracked.name.as_str()).collect()
        });
        match pairs.iter().any(|(_, tracked)| learned.contains(&tracked.name.as_str())) {
            true => pairs.retain(|(_, tracked)| learned.contains(&tracked.name.as_str())),
            false => pairs.truncate(1),
        }
        let several = pairs.len() > 1;
        let cast = |(gbuffer, tracked): (&StageRecord, &StageRecord)| {
            let name = if several { format!("{} of {}", render.name, tracked.name) } else { render.name.clone() };
            let render = Some((gbuffer.clone(), render.clone(), avatar, backbone));
            Some(Cast { name, render, ..Cast::of_tracked(record, tracked)? })
        };
        pairs.into_iter().filter_map(cast).collect()
    }
}

/// The stages of a kind that a stage's rows went through, the nearest first; none that lies behind another one.
fn before<'r>(record: &'r Record, stage: &StageRecord, kind: &str) -> Vec<&'r StageRecord> {
    let mut all = Vec::new();
    let (mut open, mut seen) = (VecDeque::from([stage.name.as_str()]), HashSet::new());
    while let Some(name) = open.pop_front() {
        let Some(found) = record.stage(name).filter(|_| seen.insert(name)) else { continue };
        if found.kind == kind && found.table.is_some() {
            all.push(found);
            continue;
        }
        open.extend(found.wiring.from.iter().map(String::as_str));
    }
    all
}

/// The rows of a stage joined with the truth.
fn beside_truth(record: &Record, tracked: &StageRecord) -> Option<Digest> {
    let is = |name: &String| record.stage(name).is_some_and(|stage| stage.kind == TRUTH);
    let joins = |from: &[String]| from.contains(&tracked.name) && from.iter().any(is);
    record.stages.iter().find(|stage| joins(&stage.wiring.from) && stage.table.is_some())?.table
}

fn constant(record: &Record, stage: &StageRecord, own: &str) -> Option<Digest> {
    let (_, name) = stage.wiring.with.iter().find(|(known, _)| known == own)?;
    record.stage(name)?.table
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A stage that is done, with what it takes: constants as `own=stage`.
    fn stage(name: &str, kind: &str, from: &str, with: &str) -> StageRecord {
        let digest = Digest::of_bytes(name.as_bytes());
        let told = json!({"name": name, "kind": kind, "state": "done", "executed": 1, "cached": 0, "failed": 0, "seconds": 0.0, "head": null, "table": null});
        let mut stage: StageRecord = serde_json::from_value(told).unwrap();
        stage.table = Some(digest);
        stage.wiring.from = from.split_whitespace().map(String::from).collect();
        let pair = |word: &str| word.split_once('=').map(|(own, name)| (own.to_string(), name.to_string()));
        stage.wiring.with = with.split_whitespace().filter_map(pair).collect();
        stage
    }

    #[test]
    fn every_person_of_a_shared_avatar_is_reached_and_no_driver() {
        let models = "head_model=model person=person";
        let stages = vec![
            stage("model", "load_head_model", "", ""),
            stage("person", "fit_identity", "", ""),
            stage("tracked@who=18", TRACKS, "", models),
            stage("tracked@who=37", TRACKS, "", models),
            stage("gbuffers@who=18", RASTERS, "tracked@who=18", ""),
            stage("gbuffers@who=37", RASTERS, "tracked@who=37", ""),
            stage("coded", "gather", "gbuffers@who=18 gbuffers@who=37", ""),
            stage("backbone", "load_diffusers", "", ""),
            stage("avatar", "train_avatar", "coded", "backbone=backbone"),
            stage("renders", RENDERS, "coded", "avatar=avatar backbone=backbone"),
            stage("driver", TRACKS, "", models),
            stage("animated@who=37", "animate", "driver tracked@who=37", ""),
            stage("flight", RASTERS, "animated@who=37", ""),
            stage("flown", RENDERS, "flight", "avatar=avatar backbone=backbone"),
        ];
        let casts = Cast::all(&Record { stages, ..Record::default() }).unwrap();
        let told: Vec<(&str, &str)> =
            casts.iter().map(|cast| (cast.name.as_str(), cast.tracked.name.as_str())).collect();
        assert_eq!(
            told,
            [
                ("renders of tracked@who=18", "tracked@who=18"),
                ("renders of tracked@who=37", "tracked@who=37"),
                ("flown", "tracked@who=37")
            ]
        );
    }
}
