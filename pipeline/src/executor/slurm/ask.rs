//! What is said to Slurm: `sbatch`, `squeue`, `sacct`, `scancel`, and what it answers. Every call ends within its
//! limit; none is made for each job. Knows no tasks.

use super::cluster::Cluster;
use crate::command::quote;
use crate::executor::{output_within, tail};
use protocol::Needs;
use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

/// How long a command of Slurm's may take.
const LIMIT: Duration = Duration::from_secs(60);

/// One of our jobs: the array it belongs to, counted by us, and its index there.
pub type Which = (usize, usize);

/// How Slurm sees a job.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// `PENDING`, `RUNNING`, `NODE_FAIL`, ...; empty if Slurm does not know it.
    pub state: String,
    /// Why it waits, or was ended.
    pub reason: String,
    /// How Slurm names it: `123_4`.
    pub job: String,
}

impl Seen {
    /// A job that Slurm does not know.
    pub fn unknown() -> Seen {
        Seen { state: String::new(), reason: String::new(), job: String::new() }
    }

    /// Whether it is at work, as far as Slurm knows.
    pub fn is_running(&self) -> bool {
        matches!(self.state.as_str(), "RUNNING" | "COMPLETING" | "SUSPENDED" | "STOPPED" | "SIGNALING" | "STAGE_OUT")
    }

    /// Whether it will be at work.
    pub fn is_waiting(&self) -> bool {
        let states = ["PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD", "RESIZING"];
        states.contains(&self.state.as_str()) || self.state == "SPECIAL_EXIT"
    }
}

/// Runs a command of Slurm's in a folder.
///
/// # Errors
/// What it said, or why it could not be started, as a sentence.
pub fn say(words: &[&str], last: &str, dir: &Path) -> Result<String, String> {
    let argv: Vec<String> = words.iter().map(|word| word.to_string()).collect();
    let name = words[0];
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output_within(&argv, last, dir, LIMIT) {
        Err(error) => Err(format!("`{name}` cannot be started: {error}")),
        Ok(None) => Err(format!("`{name}` did not answer within {} s", LIMIT.as_secs())),
        Ok(Some(output)) if output.status.success() => Ok(text(&output.stdout)),
        Ok(Some(output)) => Err(format!("`{name}` refused: {}", tail(&text(&output.stderr), 4).replace('\n', "; "))),
    }
}

/// The arguments of `sbatch` for an array of so many jobs whose stage has these needs.
pub fn arguments(
    cluster: &Cluster,
    needs: &Needs,
    elements: usize,
    tasks: usize,
    comment: &str,
    dir: &Path,
) -> Vec<String> {
    let threads = if needs.threads == 0 { cluster.threads } else { needs.threads };
    // what a stage says is for a task, what the cluster's file says for a job
    let minutes = if needs.minutes > 0 { needs.minutes * tasks as u64 } else { cluster.minutes };
    let memory = if needs.memory_mb > 0 { needs.memory_mb } else { cluster.memory_mb };
    let gpus = (needs.gpus > 0).then(|| format!("{}:{}", cluster.gpu, needs.gpus));
    let gres: Vec<String> = cluster.gres.iter().cloned().chain(gpus).collect();
    let mut words: Vec<String> = [
        "sbatch".into(),
        "--parsable".into(),
        format!("--job-name={}", cluster.name()),
        format!("--comment={comment}"),
        format!(
            "--array=0-{}{}",
            elements - 1,
            if elements > cluster.jobs { format!("%{}", cluster.jobs) } else { String::new() }
        ),
        format!("--output={}/%a.log", dir.display()),
        "--open-mode=append".into(),
        format!("--chdir={}", dir.display()),
        "--export=NIL".into(),
        "--requeue".into(),
        format!("--signal=B:USR1@{}", cluster.grace.as_secs()),
        format!("--time={minutes}"),
        format!("--cpus-per-task={threads}"),
        "--ntasks=1".into(),
    ]
    .into();
    words.extend((memory > 0).then(|| format!("--mem={memory}M")));
    words.extend((!gres.is_empty()).then(|| format!("--gres={}", gres.join(","))));
    let option = |name: &str, value: &Option<String>| value.as_ref().map(|value| format!("--{name}={value}"));
    words.extend(option("partition", &cluster.partition));
    words.extend(option("account", &cluster.account));
    words.extend(option("qos", &cluster.qos));
    words.extend(cluster.args.iter().cloned());
    words
}

/// What a job executes: the environment that it is to have, the cluster's prelude, and then ourselves.
pub fn script(cluster: &Cluster, dir: &Path) -> String {
    let export = |(name, value): &(String, String)| format!("export {name}={}\n", quote(value));
    let env: String = cluster.env.iter().map(export).collect();
    let prelude = if cluster.prelude.is_empty() { String::new() } else { format!("{}\n", cluster.prelude.trim_end()) };
    let (program, dir) = (quote(&cluster.program.display().to_string()), quote(&dir.display().to_string()));
    format!("#!/bin/sh\n{env}{prelude}exec {program} work {dir} \"$SLURM_ARRAY_TASK_ID\" \"$SLURM_JOB_ID\"\n")
}

/// How Slurm sees the jobs of a run: one call for all of them, and a second one if its accounting has to be asked for
/// some.
///
/// # Errors
/// If Slurm does not answer; then nothing is known.
pub fn jobs(cluster: &Cluster, wanted: &[(Which, String)], dir: &Path) -> Result<HashMap<Which, Seen>, String> {
    let name = format!("--name={}", cluster.name());
    let words = ["squeue", "--noheader", "--array", "--states=all", "--format=%F|%K|%T|%k|%r"];
    let mut seen = understand(&say(&words, &name, dir)?, &cluster.run);
    let missing: Vec<&(Which, String)> = wanted.iter().filter(|(which, _)| !seen.contains_key(which)).collect();
    if !missing.is_empty() {
        let ids: Vec<String> = missing.iter().map(|((_, index), job)| format!("{job}_{index}")).collect();
        let words = ["sacct", "--noheader", "--allocations", "--parsable2", "--format=JobID,State,JobName"];
        // a cluster without accounting has nothing to say
        let told = say(&words, &format!("--jobs={}", ids.join(",")), dir).unwrap_or_default();
        for one in of_accounting(&told, &cluster.name()) {
            if let Some(at) = ids.iter().position(|id| *id == one.job) {
                seen.insert(missing[at].0, one);
            }
        }
    }
    Ok(seen)
}

/// What `squeue` told of the jobs of this run. A number may have been given out again; the comment may not.
fn understand(text: &str, run: &str) -> HashMap<Which, Seen> {
    let mut seen = HashMap::new();
    for line in text.lines() {
        let parts: Vec<&str> = line.trim().splitn(5, '|').collect();
        let [array, index, state, comment, reason] = parts[..] else { continue };
        let mut words = comment.split('/');
        let batch = (words.next() == Some(run)).then(|| words.next()?.parse::<usize>().ok()).flatten();
        if let (Some(batch), Ok(element)) = (batch, index.parse::<usize>()) {
            let job = format!("{array}_{index}");
            seen.insert((batch, element), Seen { state: state.into(), reason: reason.into(), job });
        }
    }
    seen
}

/// What `sacct` told of jobs of this name.
fn of_accounting(text: &str, name: &str) -> Vec<Seen> {
    let seen = |line: &str| {
        let parts: Vec<&str> = line.split('|').collect();
        let [id, state, job_name] = parts[..] else { return None };
        // `CANCELLED by 1000`
        let state = state.split(' ').next().unwrap_or_default().to_string();
        (job_name == name).then(|| Seen { state, reason: String::new(), job: id.into() })
    };
    text.lines().filter_map(seen).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_of_others_are_not_ours() {
        let text = "12|0|RUNNING|r1/0/ab|None\n12|1|PENDING|r1/0/ab|(Resources)\n12|0|COMPLETED|r0/0/ab|None\n7|N/A|RUNNING||None\n";
        let seen = understand(text, "r1");
        assert_eq!(seen.len(), 2);
        assert!(seen[&(0, 0)].is_running() && seen[&(0, 1)].is_waiting());
        assert_eq!(seen[&(0, 1)].job, "12_1");
    }

    #[test]
    fn accounting_is_understood() {
        let text = "12_0|COMPLETED|effigy.r1\n12_1|CANCELLED by 1000|effigy.r1\n12_2|RUNNING|other\nslurm: error\n";
        let seen = of_accounting(text, "effigy.r1");
        let told: Vec<(&str, &str)> = seen.iter().map(|one| (one.job.as_str(), one.state.as_str())).collect();
        assert_eq!(told, [("12_0", "COMPLETED"), ("12_1", "CANCELLED")]);
    }

    #[test]
    fn what_a_stage_needs_is_asked_for() {
        let cluster = Cluster { gpu: "gpu:a100".into(), account: Some("lab".into()), ..Cluster::default() };
        let needs = Needs { threads: 4, memory_mb: 8000, gpus: 2, minutes: 30 };
        let words = arguments(&cluster, &needs, 3, 2, "run/0/ab", Path::new("/d")).join(" ");
        for word in
            ["--array=0-2 ", "--mem=8000M", "--gres=gpu:a100:2", "--time=60", "--cpus-per-task=4", "--account=lab"]
        {
            assert!(words.contains(word), "{word} in {words}");
        }
    }
}
