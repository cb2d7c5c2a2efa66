//! `expression_directions`: along which directions the tracked expression codes of a person vary most.
//!
//! reads: expression
//! writes: component, direction, share
//!
//! All rows are one unit. Component 0 is the mean code; the others are principal components of the codes, most
//! important first, each a standard deviation of the codes long, with its share of their variance. Codes that are all
//! equal have a mean alone. What a direction looks like nobody has named: its sign is the one that makes its largest
//! entry positive. Knows no truth.

use anyhow::{Context, Result, ensure};
use manifests::{Type, Value};
use models::pca::principal;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;
use tch::{Kind, Tensor};

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Directions at most.
    #[serde(default = "count")]
    count: usize,
}

fn count() -> usize {
    8
}

fn def() -> StageDef {
    StageDef::new("expression_directions", 1, Grain::Whole)
        .doc("Mean and principal directions of expression codes.")
        .reads([("expression", Type::Floats(0))])
        .writes([("component", Type::I64), ("direction", Type::Floats(0)), ("share", Type::F64)])
}

protocol::register!(Params, def, |params, _: &Cx<'_>| anyhow::Ok(ExpressionDirections { params }));

struct ExpressionDirections {
    params: Params,
}

impl Stage for ExpressionDirections {
    fn run(&mut self, units: &[Unit<'_>], _: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.directions(unit)).collect()
    }
}

impl ExpressionDirections {
    fn directions(&self, unit: &Unit<'_>) -> Result<Rows> {
        let codes = unit.rows().iter().map(|row| row.floats("expression")).collect::<Result<Vec<_>>>()?;
        let width = codes.first().context("there are no expression codes")?.len();
        ensure!(
            width > 0 && codes.iter().all(|code| code.len() == width),
            "column `expression` holds codes of different lengths\nhint: they have to be of one head model"
        );
        let samples = Tensor::from_slice(codes.concat().as_slice()).view([-1, width as i64]);
        let mean = samples.mean_dim(0, true, Kind::Double);
        let basis = principal(&(&samples - &mean), self.params.count);
        let numbers = |t: &Tensor| Vec::<f64>::try_from(&t.contiguous().view(-1)).context("a direction is numbers");
        let row = |component: usize, direction: Vec<f64>, share: Value| {
            OutRow::new().i64("component", component).floats("direction", direction).set("share", share)
        };
        let mut rows = vec![row(0, numbers(&mean)?, Value::Null)];
        for (i, share) in basis.shares.iter().enumerate() {
            rows.push(row(i + 1, numbers(&basis.directions.select(1, i as i64))?, Value::F64(*share)));
        }
        Ok(rows)
    }
}
