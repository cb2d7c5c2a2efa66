//! What a case is: a name, checks with an error and a tolerance each, or a reason why it could not run. Knows tensors
//! and files, no case.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use models::weights::{self, Tensors};
use serde_json::Value;
use tch::{Kind, Tensor};

/// One comparison.
pub struct Check {
    what: String,
    error: f64,
    tolerance: f64,
}

impl Check {
    /// The error in units of the tolerance; infinite if there is none.
    fn share(&self) -> f64 {
        if !self.error.is_finite() || self.tolerance.is_nan() {
            f64::INFINITY
        } else if self.error == 0.0 {
            0.0
        } else {
            self.error / self.tolerance
        }
    }
}

/// The comparisons of one case, and remarks on what could not be compared.
#[derive(Default)]
pub struct Checks {
    all: Vec<Check>,
    remarks: Vec<String>,
}

impl Checks {
    /// Records an error that must not exceed the tolerance; not-a-number never passes.
    pub fn error(&mut self, what: impl Into<String>, error: f64, tolerance: f64) {
        self.all.push(Check { what: what.into(), error, tolerance });
    }

    /// The remarks so far.
    #[cfg(test)]
    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }

    /// Are all errors within their tolerances?
    pub fn hold(&self) -> bool {
        self.all.iter().all(|check| check.share() <= 1.0)
    }

    /// Prints a sentence below the case's line.
    pub fn remark(&mut self, sentence: impl Into<String>) {
        self.remarks.push(sentence.into());
    }

    /// Tells of fields of a configuration that nobody knows: the comparison is made without them.
    pub fn unknown_fields(&mut self, config: &Value, is_known: impl Fn(&str) -> bool) {
        for name in config.as_object().into_iter().flat_map(|fields| fields.keys()).filter(|name| !is_known(name)) {
            self.remark(format!("the field {name} is not understood: the comparison is made without it"));
        }
    }

    /// Records something that must hold exactly.
    pub fn exact(&mut self, what: impl Into<String>, equal: bool) {
        self.error(what, if equal { 0.0 } else { f64::INFINITY }, 0.0);
    }

    /// Largest absolute difference.
    pub fn absolute(&mut self, what: impl Into<String>, got: &Tensor, want: &Tensor, tolerance: f64) {
        self.weighted(what, got, want, tolerance, |want| want.ones_like());
    }

    /// Largest difference in units of max(1, |reference|).
    pub fn scaled(&mut self, what: impl Into<String>, got: &Tensor, want: &Tensor, tolerance: f64) {
        self.weighted(what, got, want, tolerance, |want| want.abs().clamp_min(1.0));
    }

    /// The same of what a difference is more than `slack`, which is what the reference's own rounding comes to.
    pub fn scaled_beyond(
        &mut self,
        what: impl Into<String>,
        got: &Tensor,
        want: &Tensor,
        tolerance: f64,
        slack: &Tensor,
    ) {
        let excess = if got.size() == want.size() {
            let off = got - want;
            want + off.sign() * (off.abs() - slack).clamp_min(0.0)
        } else {
            got.shallow_clone()
        };
        self.scaled(what, &excess, want, tolerance);
    }

    /// Largest difference in units of max(1, the reference's root mean square): what cancels in a sum is as large as
    /// its terms.
    pub fn by_rms(&mut self, what: impl Into<String>, got: &Tensor, want: &Tensor, tolerance: f64) {
        let unit =
            |want: &Tensor| want.ones_like() * want.square().mean(Kind::Double).sqrt().double_value(&[]).max(1.0);
        self.weighted(what, got, want, tolerance, unit);
    }

    fn weighted(
        &mut self,
        what: impl Into<String>,
        got: &Tensor,
        want: &Tensor,
        tolerance: f64,
        unit: impl Fn(&Tensor) -> Tensor,
    ) {
        let what = what.into();
        if got.size() != want.size() {
            self.error(
                format!("{what}: shape {:?} instead of {:?}", got.size(), want.size()),
                f64::INFINITY,
                tolerance,
            );
        } else if got.numel() == 0 {
            self.error(what, 0.0, tolerance);
        } else {
            let (got, want) = (got.detach().to_kind(Kind::Double), want.to_kind(Kind::Double));
            let error = ((got - &want).abs() / unit(&want)).max().double_value(&[]);
            self.error(what, error, tolerance);
        }
    }
}

/// All cases run so far.
#[derive(Default)]
pub struct Report {
    /// Cases that passed.
    pub passed: usize,
    /// Names of cases that did not.
    pub failed: Vec<String>,
}

impl Report {
    /// Runs a case and prints its line: the check that came closest to, or went furthest beyond, its tolerance.
    pub fn case(&mut self, name: &str, run: impl FnOnce(&mut Checks) -> Result<()>) {
        let mut checks = Checks::default();
        // A panic in a network (libtorch's way of refusing a shape) is that case's failure, not the end of the run.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&mut checks)));
        let outcome = outcome.unwrap_or_else(|_| Err(anyhow::anyhow!("it panicked (message above)")));
        // the first of those that are equally far off
        let worst = checks.all.iter().rev().max_by(|a, b| a.share().total_cmp(&b.share()));
        match (outcome, worst) {
            (Err(error), _) => self.fail(name, &format!("{error:#}")),
            (Ok(()), None) => self.fail(name, "it checked nothing"),
            (Ok(()), Some(c)) if c.share() > 1.0 => {
                let over = checks.all.iter().filter(|check| check.share() > 1.0).count();
                let said = match c.error {
                    f64::INFINITY if c.tolerance == 0.0 => format!("does not hold: {}", c.what),
                    error => format!("error {error:.3e}, tolerance {:.1e}, at {}", c.tolerance, c.what),
                };
                self.fail(name, &format!("{said} ({over} of {} checks fail)", checks.all.len()));
            }
            (Ok(()), Some(c)) => {
                self.passed += 1;
                let count = checks.all.len();
                println!("ok    {name:<36} worst {:.2e} of {:.1e}  ({}, {count} checks)", c.error, c.tolerance, c.what);
            }
        }
        checks.remarks.iter().for_each(|remark| self.left(name, remark));
    }

    /// Says what is not compared.
    pub fn left(&self, name: &str, reason: &str) {
        println!("left  {name:<36} {reason}");
    }

    /// Records a case that cannot pass.
    pub fn fail(&mut self, name: &str, reason: &str) {
        println!("FAIL  {name:<36} {reason}");
        self.failed.push(name.to_owned());
    }
}

/// Tensors of a case, with errors for absent ones. Notes which were asked for: one that nobody asks for is compared
/// with nothing.
pub struct Case {
    tensors: Tensors,
    place: String,
    asked: RefCell<BTreeSet<String>>,
}

impl Case {
    /// Reads a safetensors file.
    pub fn read(path: &Path) -> Result<Self> {
        Ok(Self { tensors: weights::read(path)?, place: path.display().to_string(), asked: RefCell::default() })
    }

    /// A tensor as it is stored.
    pub fn raw(&self, name: &str) -> Result<&Tensor> {
        let tensor = self.tensors.get(name).with_context(|| format!("{} has no tensor {name}", self.place))?;
        self.asked.borrow_mut().insert(name.to_owned());
        Ok(tensor)
    }

    /// Fails if there are tensors that nobody asked for, but for those that are `spare`.
    pub fn all_asked(&self, spare: impl Fn(&str) -> bool) -> Result<()> {
        let asked = self.asked.borrow();
        let left: Vec<&str> = self.names().filter(|name| !asked.contains(*name) && !spare(name)).collect();
        ensure!(left.is_empty(), "{} has tensors that no comparison knows: {}", self.place, left.join(", "));
        Ok(())
    }

    /// A tensor as f32.
    pub fn get(&self, name: &str) -> Result<Tensor> {
        Ok(self.raw(name)?.to_kind(Kind::Float))
    }

    /// A fresh f32 copy that gathers a gradient.
    pub fn leaf(&self, name: &str) -> Result<Tensor> {
        Ok(self.get(name)?.copy().set_requires_grad(true))
    }

    /// Whole numbers.
    pub fn integers(&self, name: &str) -> Result<Vec<i64>> {
        Ok(Vec::try_from(self.raw(name)?.to_kind(Kind::Int64).flatten(0, -1))?)
    }

    /// Numbers in f64, flattened.
    pub fn numbers(&self, name: &str) -> Result<Vec<f64>> {
        Ok(Vec::try_from(self.raw(name)?.to_kind(Kind::Double).flatten(0, -1))?)
    }

    /// Bytes, flattened.
    pub fn bytes(&self, name: &str) -> Result<Vec<u8>> {
        Ok(Vec::try_from(self.raw(name)?.to_kind(Kind::Uint8).flatten(0, -1))?)
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Tensors `stem.0`, `stem.1`, ... as f32; at least one.
    pub fn series(&self, stem: &str) -> Result<Vec<Tensor>> {
        let list: Vec<Tensor> = (0..).map_while(|i| self.get(&format!("{stem}.{i}")).ok()).collect();
        if list.is_empty() {
            bail!("{} has no tensors {stem}.0, {stem}.1, ...", self.place);
        }
        Ok(list)
    }
}

/// The largest of errors, 0 if there are none; not-a-number if one is.
pub fn largest(errors: impl Iterator<Item = f64>) -> f64 {
    errors.fold(0.0, |most, error| if error.is_nan() || error > most { error } else { most })
}

/// Reads a JSON file.
pub fn json(path: &Path) -> Result<Value> {
    Ok(weights::read_json(path)?)
}

/// A number at a path like `optimiser/lr` of a JSON value.
pub fn number(value: &Value, path: &str) -> Result<f64> {
    let found = path.split('/').try_fold(value, |v, key| v.get(key));
    found.and_then(Value::as_f64).with_context(|| format!("there is no number {path}"))
}

/// Fails if a field is there and says anything but what is implemented.
pub fn only(config: &Value, key: &str, implemented: &[Value]) -> Result<()> {
    match config.get(key) {
        Some(found) if !implemented.contains(found) => {
            let known = implemented.iter().map(Value::to_string).collect::<Vec<_>>().join(" or ");
            bail!("{key}: {found} is not implemented (only {known})")
        }
        _ => Ok(()),
    }
}

/// Weights that sets do not store: element i of tensor k is uniform in +-bound, from splitmix64 of (seed, k, i).
pub fn closed_form(seed: u64, k: u64, count: u64, bound: f64) -> Vec<f32> {
    let value = |i: u64| {
        let u = (splitmix64((seed << 48).wrapping_add(k << 40).wrapping_add(i)) >> 40) as f64 / (1u64 << 24) as f64;
        ((2.0 * u - 1.0) * bound) as f32
    };
    (0..count).map(value).collect()
}

fn splitmix64(x: u64) -> u64 {
    let z = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
