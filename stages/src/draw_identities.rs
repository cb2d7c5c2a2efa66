//! `draw_identities`: a list of people to make: numbers from which the synthetic heads are drawn.
//!
//! no rows in   writes: identity
//!
//! A source of its own, so that asking for more people adds rows and leaves the others, and all made from them, alone.
//! Knows no heads.

use anyhow::Result;
use manifests::Type;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// How many.
    #[schemars(range(min = 1))]
    count: i64,
    /// The first is this times a million: lists of different seeds share nobody.
    #[serde(default)]
    seed: i64,
}

fn def() -> StageDef {
    StageDef::new("draw_identities", 1, Grain::Whole)
        .doc("Lists identities of synthetic people.")
        .source()
        .writes([("identity", Type::I64)])
}

protocol::register!(Params, def, |params, _: &Cx<'_>| anyhow::Ok(DrawIdentities { params }));

struct DrawIdentities {
    params: Params,
}

impl Stage for DrawIdentities {
    fn run(&mut self, units: &[Unit<'_>], _: &Cx<'_>) -> Result<Vec<Rows>> {
        let p = &self.params;
        let list = || (0..p.count).map(|i| OutRow::new().i64("identity", p.seed * 1_000_000 + i)).collect();
        Ok(units.iter().map(|_| list()).collect())
    }
}
