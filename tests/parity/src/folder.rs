//! Families whose cases are listed in `cases.json`, a folder with `meta.json` and tensors each. Knows no kind of case:
//! the family's own file does.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;
use tch::Tensor;

use crate::check::{Case, Checks, Report, json, number};

/// One case folder.
pub struct Folder {
    /// Where it lies.
    pub dir: PathBuf,
    /// Its `meta.json`.
    pub meta: Value,
    /// Its `io.safetensors`.
    pub io: Case,
}

impl Folder {
    fn open(dir: &Path) -> Result<Self> {
        Ok(Self {
            dir: dir.to_owned(),
            meta: json(&dir.join("meta.json"))?,
            io: Case::read(&dir.join("io.safetensors"))?,
        })
    }

    /// Tolerance of an output, `f32_abs` or `f64_abs` by what it was computed in, or `abs`.
    pub fn tolerance(&self, output: &str, which: &str) -> Result<f64> {
        let entry = self.meta["tolerance"].get(output);
        let entry = entry.with_context(|| format!("meta.json has no tolerance for {output}"))?;
        number(entry, which).with_context(|| format!("tolerance of {output}"))
    }

    /// Compares an f32 result with the output of that name.
    pub fn f32(&self, checks: &mut Checks, output: &str, got: &Tensor) -> Result<()> {
        checks.absolute(output, got, self.io.raw(output)?, self.tolerance(output, "f32_abs")?);
        Ok(())
    }

    /// Compares an f64 result with the output of that name.
    pub fn f64(&self, checks: &mut Checks, output: &str, got: &[f64]) -> Result<()> {
        let want = self.io.raw(output)?.flatten(0, -1);
        checks.absolute(output, &Tensor::from_slice(got), &want, self.tolerance(output, "f64_abs")?);
        Ok(())
    }

    /// A number of the configuration, by path.
    pub fn config(&self, path: &str) -> Result<f64> {
        number(&self.meta["config"], path)
    }
}

/// Runs a family's cases: `run` is given each case's kind. A listed case without a folder, a folder that is not listed,
/// a file that belongs to none, a kind that `run` does not know and an output that it does not look at are failures.
pub fn run(dir: &Path, family: &str, report: &mut Report, run: impl Fn(&str, &Folder, &mut Checks) -> Result<()>) {
    let cases = match json(&dir.join("cases.json")) {
        Ok(Value::Array(cases)) => cases,
        Ok(_) => return report.fail(family, "cases.json is not a list"),
        Err(error) => return report.fail(family, &format!("{error:#}")),
    };
    if cases.is_empty() {
        report.fail(family, "cases.json lists no cases");
    }
    let mut listed = BTreeSet::new();
    for case in &cases {
        let (Some(name), Some(kind)) = (case["case"].as_str(), case["kind"].as_str()) else {
            report.fail(family, &format!("cases.json has an entry without case and kind: {case}"));
            continue;
        };
        listed.insert(name.to_owned());
        report.case(&format!("{family}/{name}"), |checks| {
            let folder = Folder::open(&dir.join(name))?;
            run(kind, &folder, checks)?;
            folder.io.all_asked(|tensor| tensor.starts_with("in."))
        });
    }
    for name in crate::names(dir).iter().filter(|name| dir.join(name).is_dir() && !listed.contains(*name)) {
        report.fail(&format!("{family}/{name}"), "this folder is not listed in cases.json");
    }
    crate::strangers(dir, family, report, |name| name == "cases.json" || dir.join(name).is_dir());
}
