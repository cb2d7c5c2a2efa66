//! A provider for the tests: small stages that do what tests need stages to do, crash included. Each notes in the file
//! named by its parameter `log` what it worked on, so that a test can count.

use anyhow::{Context, Result, bail};
use manifests::{Type, Value};
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    protocol::provider_main("test-provider", "0.1.0", &[("nothing", "1.0".into())], |_| {})
}

fn note(log: &str, text: &str) -> Result<()> {
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(log).context("cannot open the log")?;
    // at once: others write into it at the same time
    Ok(file.write_all(format!("{text}\n").as_bytes())?)
}

/// What `count` does besides counting.
#[derive(Deserialize, JsonSchema, Clone, Copy, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Mishap {
    /// Nothing.
    None,
    /// It fails on a text with an `x`.
    Error,
    /// It panics there.
    Panic,
    /// The process aborts there.
    Abort,
    /// It leaves a process of another session behind that holds its output open, and aborts there.
    Leak,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Count {
    /// Where it notes what it did.
    log: String,
    /// What the count is multiplied with.
    #[serde(default = "one")]
    factor: f64,
    /// What happens at an `x`.
    #[serde(default = "none")]
    mishap: Mishap,
    /// Words that are counted as well: a file.
    #[serde(default)]
    words: Option<String>,
}

fn one() -> f64 {
    1.0
}

fn none() -> Mishap {
    Mishap::None
}

protocol::register!(
    Count,
    || {
        // tests change it as a provider's author would
        let version = std::env::var("COUNT_VERSION").ok().and_then(|text| text.parse().ok());
        StageDef::new("count", version.unwrap_or(1), Grain::Row)
            .doc("Counts the letters of a file.")
            .reads([("file", Type::Blob)])
            .may_read([("weight", Type::F64)])
            .writes([("letters", Type::F64), ("copy", Type::Blob)])
            .file_param("words")
            .batch(4)
    },
    |params: Count, _: &Cx<'_>| anyhow::Ok(params)
);

impl Stage for Count {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        let mut all = Vec::new();
        for unit in units {
            let row = unit.row();
            let text = std::fs::read_to_string(row.path("file")?)?;
            if text.contains('x') {
                match self.mishap {
                    Mishap::None => {}
                    Mishap::Error => bail!("there is an x in it"),
                    Mishap::Panic => panic!("an x makes me panic"),
                    Mishap::Leak => {
                        std::process::Command::new("setsid").args(["sleep", "20"]).spawn()?;
                        std::thread::sleep(std::time::Duration::from_millis(100));
                        std::process::abort();
                    }
                    Mishap::Abort => {
                        cx.log("last words of the worker");
                        std::process::abort();
                    }
                }
            }
            note(&self.log, text.trim())?;
            let words = self.words.as_ref().map_or(Ok(String::new()), std::fs::read_to_string)?;
            let weight = if row.has("weight") { row.f64("weight")? } else { 1.0 };
            let letters = (text.trim().len() + words.trim().len()) as f64 * self.factor * weight;
            let copy = cx.file(unit, "copy.txt");
            std::fs::write(&copy, &text)?;
            all.push(vec![OutRow::new().f64("letters", letters).file("copy", &copy)]);
        }
        Ok(all)
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Rank {
    /// Where it notes what it did.
    log: String,
}

protocol::register!(
    Rank,
    || {
        StageDef::new("rank", 1, Grain::Group)
            .doc("Ranks the rows of a group by their count.")
            .reads([("letters", Type::F64)])
            .writes([("rank", Type::I64), ("both", Type::Floats(0))])
    },
    |params: Rank, _: &Cx<'_>| anyhow::Ok(params)
);

impl Stage for Rank {
    fn run(&mut self, units: &[Unit<'_>], _: &Cx<'_>) -> Result<Vec<Rows>> {
        let mut all = Vec::new();
        for unit in units {
            let letters = unit.rows().iter().map(|row| row.f64("letters")).collect::<Result<Vec<_>>>()?;
            note(&self.log, &format!("rank of {}", letters.len()))?;
            let rank = |mine: f64| letters.iter().filter(|other| **other < mine).count();
            let row =
                |(i, mine): (usize, &f64)| OutRow::of(i).i64("rank", rank(*mine) as i64).floats("both", [*mine, 0.5]);
            all.push(letters.iter().enumerate().map(row).collect());
        }
        Ok(all)
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Train {
    /// Where it notes what it did.
    log: String,
    /// How many steps.
    #[schemars(range(min = 1))]
    steps: u32,
    /// How long a step takes, ms.
    #[serde(default)]
    pause: u64,
}

protocol::register!(
    Train,
    || {
        StageDef::new("train", 3, Grain::Whole)
            .doc("Adds up all counts in steps, with checkpoints.")
            .reads([("letters", Type::F64)])
            .writes([("total", Type::F64)])
            .with("bias", [("value", Type::F64)])
            .threads(0)
    },
    |params: Train, _: &Cx<'_>| anyhow::Ok(params)
);

impl Stage for Train {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        let unit = &units[0];
        let bias = cx.with("bias")?.only()?.f64("value")?;
        let sum: f64 = unit.rows().iter().map(|row| row.f64("letters")).sum::<Result<f64>>()?;
        let checkpoint = cx.scratch()?.join("step");
        let done = std::fs::read_to_string(&checkpoint).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
        for step in done..self.steps {
            std::thread::sleep(std::time::Duration::from_millis(self.pause));
            note(&self.log, &format!("step {step}"))?;
            let temporary = checkpoint.with_extension("tmp");
            std::fs::write(&temporary, (step + 1).to_string())?;
            std::fs::rename(&temporary, &checkpoint)?;
            cx.progress(step as usize + 1, self.steps as usize, "");
            cx.stop_if(step + 1 < self.steps && cx.should_stop())?;
        }
        Ok(vec![vec![OutRow::new().f64("total", sum * f64::from(self.steps) + bias)]])
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Split {
    /// Where it notes what it did.
    log: String,
}

protocol::register!(
    Split,
    || {
        StageDef::new("split", 1, Grain::Row)
            .doc("A row for each word of a file; none for an empty one.")
            .reads([("file", Type::Blob)])
            .writes([("word", Type::Str), ("place", Type::I64)])
    },
    |params: Split, _: &Cx<'_>| anyhow::Ok(params)
);

impl Stage for Split {
    fn run(&mut self, units: &[Unit<'_>], _: &Cx<'_>) -> Result<Vec<Rows>> {
        let mut all = Vec::new();
        for unit in units {
            let text = std::fs::read_to_string(unit.row().path("file")?)?;
            note(&self.log, text.trim())?;
            let row = |(i, word): (usize, &str)| OutRow::new().str("word", word).set("place", Value::I64(i as i64));
            all.push(text.split_whitespace().enumerate().map(row).collect());
        }
        Ok(all)
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Numbers {
    /// How many.
    count: u32,
    /// So many of them, spread evenly, are others than without this.
    #[serde(default)]
    changed: u32,
}

protocol::register!(
    Numbers,
    || {
        StageDef::new("numbers", 1, Grain::Whole)
            .doc("A row for each number, from 0.")
            .source()
            .writes([("id", Type::I64), ("x", Type::F64)])
    },
    |params: Numbers, _: &Cx<'_>| anyhow::Ok(params)
);

impl Stage for Numbers {
    fn run(&mut self, _: &[Unit<'_>], _: &Cx<'_>) -> Result<Vec<Rows>> {
        let every = self.count.checked_div(self.changed).unwrap_or(u32::MAX).max(1);
        let is_changed = |i: u32| i.is_multiple_of(every) && i / every < self.changed;
        let row = |i: u32| OutRow::new().i64("id", i).f64("x", f64::from(i) + if is_changed(i) { 0.25 } else { 0.0 });
        Ok(vec![(0..self.count).map(row).collect()])
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Add {
    /// What is added.
    amount: f64,
}

protocol::register!(
    Add,
    || {
        StageDef::new("add", 1, Grain::Row)
            .doc("Adds an amount.")
            .reads([("x", Type::F64)])
            .writes([("x", Type::F64)])
            .batch(1000)
    },
    |params: Add, _: &Cx<'_>| anyhow::Ok(params)
);

impl Stage for Add {
    fn run(&mut self, units: &[Unit<'_>], _: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| Ok(vec![OutRow::new().f64("x", unit.row().f64("x")? + self.amount)])).collect()
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct OnGpu {
    /// Where it notes which GPUs it has, at the beginning and at the end.
    log: String,
    /// How long a row takes, ms.
    pause: u64,
}

protocol::register!(
    OnGpu,
    || {
        StageDef::new("on_gpu", 1, Grain::Row)
            .doc("Takes its time on a GPU.")
            .reads([("id", Type::I64)])
            .writes([("done", Type::I64)])
    },
    |params: OnGpu, _: &Cx<'_>| anyhow::Ok(params)
);

impl Stage for OnGpu {
    fn run(&mut self, units: &[Unit<'_>], _: &Cx<'_>) -> Result<Vec<Rows>> {
        let gpus = std::env::var("CUDA_VISIBLE_DEVICES").unwrap_or_default();
        let mut all = Vec::new();
        for unit in units {
            note(&self.log, &format!("begin {gpus}"))?;
            std::thread::sleep(std::time::Duration::from_millis(self.pause));
            note(&self.log, &format!("end {gpus}"))?;
            all.push(vec![OutRow::new().set("done", Value::I64(unit.row().i64("id")?))]);
        }
        Ok(all)
    }
}
