//! `effigy run`.

use super::choice::Choice;
use super::remote::{Chosen, RemoteArgs};
use super::{DONE, FAILED, INTERRUPTED, RecipeArgs, host, live, load, print, progress, remark};
use crate::check::{Sample, check};
use crate::error::{Place, Problem, Problems};
use crate::event::{Event, Reader};
use crate::executor::{Left, Means};
use crate::finished::{FinishedRun, HostInfo, NodeState};
use crate::hints::hinted;
use crate::kept::{self, Begun};
use crate::memory::Store;
use crate::plan::Plan;
use crate::rest::Rest;
use crate::run::{INTERRUPTS, Options, Outcome, Transfers, run};
use crate::selection::Part;
use anyhow::{Context, Result};
use cache::Cache;
use load::Loaded;
use manifests::Digest;
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Run a recipe: compute what is not known yet
#[derive(clap::Args)]
pub struct Run {
    #[command(flatten)]
    recipe: RecipeArgs,
    /// Print events as JSON lines; the last is {"event":"done","executed":N,...}
    #[arg(long)]
    json: bool,
    /// Say only what failed
    #[arg(long, short)]
    quiet: bool,
    /// Threads for all tasks together [default: all]
    #[arg(long, short, value_name = "N")]
    jobs: Option<std::num::NonZeroUsize>,
    /// Memory for all tasks together, MB [default: what the machine has]
    #[arg(long, value_name = "MB")]
    memory: Option<u64>,
    /// GPUs of this machine for all tasks together [default: those that CUDA_VISIBLE_DEVICES names, else 1]
    #[arg(long, value_name = "N")]
    gpus: Option<usize>,
    #[command(flatten)]
    work: super::place::PlaceArgs,
    #[command(flatten)]
    choice: Choice,
    /// Say what would be done, as `effigy plan` does, and do nothing
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// Execute up to N known units of each stage again, or P% of them, and compare what comes out; keep nothing
    #[arg(long, value_name = "N|P%", num_args = 0..=1, require_equals = true, default_missing_value = "5",
          value_parser = super::check::sample, conflicts_with_all = ["dry_run", "force", "keep_going", "fail_fast"])]
    check: Option<Sample>,
    /// After a failure, do everything that does not need what failed: the default. Given explicitly, all units of a
    /// stage are tried, even if the first few all fail
    #[arg(long, short, conflicts_with = "fail_fast")]
    keep_going: bool,
    /// After a failure, finish only what has begun
    #[arg(long)]
    fail_fast: bool,
    #[command(flatten)]
    remote: RemoteArgs,
    /// Folder for the report
    #[arg(long, value_name = "DIR", default_value = "out")]
    out: PathBuf,
}

impl Run {
    /// Runs the recipe.
    pub fn run(self) -> Result<u8> {
        if let Some(left) = Left::of(&self.recipe.workspace.workspace).filter(|left| left.is_meant) {
            let message = format!("a run is detached here, with {} jobs on the cluster", left.jobs.len());
            let hint = "`effigy attach` (with the same --workspace) goes on with it, and Ctrl-C then ends its jobs";
            return Err(Problem::at(&Place::command_line(), message).hint(hint).into());
        }
        self.attach()
    }

    /// Runs the recipe, with what an earlier run of it has left on a cluster.
    pub fn attach(self) -> Result<u8> {
        let began = Instant::now();
        let now = cache::Fingerprint::now();
        let started = (now / 1_000_000) as u64;
        let remote = self.remote.find()?;
        if let Some(rest) = self.at_rest(remote.as_ref()) {
            return Ok(self.tell_rest(&rest, started, began));
        }
        let loaded = load::load(&self.recipe)?;
        let plan = &loaded.plan;
        let selection = self.choice.selection(plan)?;
        let parts = selection.parts(plan);
        let whole = parts.iter().all(|part| *part != Part::Left);
        let jobs = self.jobs.map_or_else(host::threads, usize::from);
        let root = std::path::absolute(&self.recipe.workspace.workspace)?;
        if root.to_str().is_none() {
            let message = format!("the workspace {} has a name that is not UTF-8", root.display());
            let hint = "programs and workers are told of it as text: `--workspace DIR` names another";
            return Err(Problem::at(&Place::command_line(), message).hint(hint).into());
        }
        let mut cache = self.recipe.workspace.open()?;
        if self.dry_run {
            if let Some(remote) = &remote {
                remote.ask(&mut cache)?;
            }
            return super::plan::tell(&loaded, &selection, &mut cache, self.json);
        }
        catch_interrupts("the units in work, trainings up to a checkpoint");
        let memory_mb = self.memory.unwrap_or_else(host::memory_mb).max(1);
        let id = run_id(started);
        let (place, cluster) = self.work.read(&loaded.recipe, &id)?;
        let means = Means { jobs, memory_mb, gpus: host::gpus(self.gpus)?, place, cluster };
        let overrides = self.recipe.overrides();
        let (fail_fast, keep_going) = (self.fail_fast, self.keep_going);
        let options = Options { means, recipe: loaded.recipe.clone(), overrides, selection, fail_fast, keep_going };
        if let Some(sample) = self.check {
            let checked = check(plan, &mut cache, &options, sample)?;
            if checked.stages.iter().all(|(_, units, _)| *units == 0) && !checked.stages.is_empty() {
                let message = "none of its units is known yet, so there is nothing to check".to_string();
                let hint = format!("effigy run {}", self.recipe.typed(None, self.recipe.profile.as_deref()));
                return Err(hinted(message, hint));
            }
            return Ok(super::check::tell(&checked, began.elapsed().as_secs_f64(), self.json));
        }
        // better now than when everything has been computed
        if whole && !plan.report.is_empty() {
            std::fs::create_dir_all(&self.out)
                .with_context(|| format!("cannot make the folder {} for the report", self.out.display()))?;
        }
        if let Some(remote) = &remote {
            remote.share(&mut cache)?;
        }
        let begun = Begun {
            recipe: loaded.recipe.to_string_lossy().into_owned(),
            profile: plan.spec.profile.clone(),
            started,
            stages: plan.nodes.iter().map(|node| node.name.clone()).collect(),
        };
        kept::begin(cache.root(), &id, &begun)?;
        // the commit is that at which it begins
        let host = host::info(&plan.spec.dir, &plan.providers);
        let warnings = Warnings::default();
        let mut readers: Vec<Box<dyn Reader>> = vec![
            progress::reader(self.json, self.quiet),
            live::reader(cache.root(), plan, started),
            Box::new(warnings.clone()),
        ];
        let emit = |readers: &mut Vec<Box<dyn Reader>>, event: Event| {
            readers.iter_mut().for_each(|reader| reader.hear(&event))
        };
        let stages = plan.nodes.iter().map(|node| node.name.clone()).collect();
        emit(&mut readers, Event::Start { run: id.clone(), recipe: plan.spec.name.clone(), stages });
        // what is wrong with the call is told before anything is worked on
        let mut outcome = run(plan, &mut cache, &options, &mut readers).inspect_err(|error| {
            if error.is::<Problems>() {
                kept::end(cache.root(), &id, &begun, false);
            }
        })?;
        outcome.warnings = warnings.0.take();
        let earlier = crate::record::still_warned(cache.root(), plan, &options.recipe, &outcome);
        outcome.warnings.extend(earlier);
        let (executed, cached, failed) = outcome.totals();
        let seconds = began.elapsed().as_secs_f64();
        // first of all: whatever goes wrong from now on, what was done is on record
        crate::record::write(
            &self.recipe.called(),
            plan,
            (&options, &outcome),
            cache.root(),
            &id,
            (started, &host),
            seconds,
        )?;
        kept::end(cache.root(), &id, &begun, outcome.is_whole(plan, &options.selection));
        let is_done = |state: &NodeState| *state == NodeState::Done;
        // that of a run of some stages would say less than the one that is there
        let tells = whole && !outcome.interrupted && (outcome.states.is_empty() || outcome.states.iter().any(is_done));
        // one that cannot be written takes nothing else along, and is told last
        let report = if tells { self.report(plan, &outcome, &cache, (started, &host), seconds) } else { Ok(None) };
        Transfers::default().send(&mut cache, &mut readers)?;
        for text in cache.take_warnings() {
            emit(&mut readers, Event::Warning { text });
        }
        let rests = loaded.can_rest && !outcome.interrupted;
        if let (Some(rest), Ok(page), true) = (outcome.rest.take(), &report, rests) {
            self.keep_rest(rest, &loaded, page.as_deref(), cache.root(), now)?;
        }
        let seconds = began.elapsed().as_secs_f64();
        emit(&mut readers, Event::Done { executed, cached, failed, seconds });
        if outcome.interrupted && !self.json && !self.quiet {
            let but = if self.choice.force.is_empty() { "" } else { ", without `--force`," };
            remark(&format!("interrupted: the same command{but} goes on from here"));
        }
        if let (Some(path), false) = (report?, self.json || self.quiet) {
            print(&format!("report: {}", path.display()));
        }
        Ok(if outcome.interrupted {
            INTERRUPTED
        } else if outcome.states.contains(&NodeState::Failed) {
            FAILED
        } else {
            DONE
        })
    }

    /// What the run looks like if there is nothing to do and nothing else was asked for.
    fn at_rest(&self, remote: Option<&Chosen>) -> Option<Rest> {
        if !self.choice.is_all() || self.dry_run || self.check.is_some() {
            return None;
        }
        // what an earlier run could not send is something to do
        if remote.is_some_and(|remote| remote.is_waited_for(&self.recipe.workspace.workspace)) {
            return None;
        }
        let recipe = load::recipe(&self.recipe)?;
        let call = load::call(&self.recipe, &recipe, &self.out)?;
        let (root, profile) = (&self.recipe.workspace.workspace, self.recipe.kept_profile());
        let rest = Rest::find(root, profile, &call)?;
        kept::rest(root, &recipe.to_string_lossy(), profile);
        Some(rest)
    }

    /// Says that there is nothing to do, as a run does that has looked at each stage.
    fn tell_rest(&self, rest: &Rest, started: u64, began: Instant) -> u8 {
        let mut reader = progress::reader(self.json, self.quiet);
        if self.json {
            let stages = rest.stages.iter().map(|(name, ..)| name.clone()).collect();
            reader.hear(&Event::Start { run: run_id(started), recipe: rest.recipe.clone(), stages });
            for (stage, units, rows) in &rest.stages {
                let (stage, cached, rows) = (stage.clone(), *units, *rows);
                reader.hear(&Event::Finished {
                    stage,
                    state: NodeState::Done,
                    executed: 0,
                    cached,
                    failed: 0,
                    rows,
                    seconds: 0.0,
                });
            }
        }
        let cached = rest.stages.iter().map(|(_, units, _)| units).sum();
        reader.hear(&Event::Done { executed: 0, cached, failed: 0, seconds: began.elapsed().as_secs_f64() });
        if let (Some((page, ..)), false) = (&rest.report, self.json || self.quiet) {
            print(&format!("report: {}", page.display()));
        }
        DONE
    }

    /// Keeps what the run has looked at.
    fn keep_rest(&self, mut rest: Rest, loaded: &Loaded, page: Option<&Path>, root: &Path, now: i64) -> Result<()> {
        let Some(call) = load::call(&self.recipe, &loaded.recipe, &self.out) else { return Ok(()) };
        rest.seen.extend(loaded.seen.iter().cloned());
        rest.report = match page {
            Some(page) => {
                let mark = report_mark(root);
                let state = std::fs::read(&mark).with_context(|| format!("cannot read {}", mark.display()))?;
                Some((page.into(), mark, Digest::of_bytes(&state)))
            }
            None => None,
        };
        rest.keep(&Store::new(root), self.recipe.kept_profile(), &call, now)
    }

    /// Writes the report, if the recipe has one and it would say something new. It tells of what failed, too.
    fn report(
        &self,
        plan: &Plan,
        outcome: &Outcome,
        cache: &Cache,
        begun: (u64, &HostInfo),
        seconds: f64,
    ) -> Result<Option<PathBuf>> {
        if plan.report.is_empty() {
            return Ok(None);
        }
        let page = self.out.join(crate::own_output::PAGE);
        let mark = report_mark(cache.root());
        let state: Vec<String> =
            outcome.tallies.iter().map(|tally| tally.table.map_or(String::new(), |table| table.to_string())).collect();
        let out = std::path::absolute(&self.out).unwrap_or_else(|_| self.out.clone());
        let state = format!("{}\n{:?}\n{}", out.display(), plan.report, state.join("\n"));
        let same = std::fs::read_to_string(&mark).is_ok_and(|old| old == state);
        // units that ran anew to the same end still say when, where and by which version
        let idle = outcome.tallies.iter().all(|tally| tally.executed + tally.failed == 0);
        if same && idle && crate::report::is_whole(&page) {
            return Ok(Some(page));
        }
        let finished = finished(plan, outcome, cache, begun, seconds)?;
        crate::report::write(&finished, &self.out).context("the report cannot be written")?;
        crate::memory::write(&mark, state.as_bytes())?;
        Ok(Some(page))
    }
}

/// The file that says what the report shows.
fn report_mark(workspace: &Path) -> PathBuf {
    crate::record::runs_folder(workspace).join("report")
}

/// A finished run as plain data.
pub fn finished(
    plan: &Plan,
    outcome: &Outcome,
    cache: &Cache,
    (started, host): (u64, &HostInfo),
    seconds: f64,
) -> Result<FinishedRun> {
    let nodes = (0..plan.nodes.len()).map(|i| outcome.node(plan, i)).collect::<Result<_>>()?;
    Ok(FinishedRun {
        recipe: plan.spec.name.clone(),
        file: plan.spec.file.clone(),
        text: plan.spec.text.clone(),
        profile: plan.spec.profile.clone(),
        params: plan.spec.shown_params(),
        nodes,
        report: plan.report.clone(),
        workspace: cache.root().to_path_buf(),
        started,
        seconds,
        warnings: outcome.warnings.clone(),
        host: host.clone(),
        blob_path: Box::new(cache.places()),
    })
}

/// Keeps what a run warns of, each text once.
#[derive(Clone, Default)]
struct Warnings(Rc<RefCell<Vec<String>>>);

impl Reader for Warnings {
    fn hear(&mut self, event: &Event) {
        let mut all = self.0.borrow_mut();
        if let Event::Warning { text } = event
            && !all.contains(text)
        {
            all.push(text.clone());
        }
    }
}

/// A name for a run: when it began, and a few digits against collisions.
fn run_id(started: u64) -> String {
    let time = host::utc(started).replace(['-', ':'], "").replace(' ', "-");
    format!("{time}-{:03}", started % 1000)
}

/// Ctrl-C once drains, twice stops, and a third time ends us wherever we are: a large file may be read, and nobody
/// looks at the count. Whoever cannot install a handler is stopped at once, as ever. `first` is what is finished then.
pub fn catch_interrupts(first: &'static str) {
    let _ = ctrlc::set_handler(move || match INTERRUPTS.fetch_add(1, Ordering::Relaxed) {
        0 => remark(&format!("\nfinishing {first}; Ctrl-C once more stops it")),
        1 => {}
        // as if killed: nothing is lost that was put, and what we have started is ended beside us
        _ => std::process::exit(i32::from(INTERRUPTED)),
    });
}
