//! Which stages `run` and `plan` are about, as arguments. What they mean is the selection's business.

use crate::error::{Place, Problem};
use crate::plan::Plan;
use crate::selection::{Part, Selection};

/// Which stages.
#[derive(clap::Args, Clone, Debug)]
pub struct Choice {
    /// Only this stage and what it needs (may be given more than once)
    #[arg(long, value_name = "STAGE")]
    pub only: Vec<String>,
    /// Only this stage and what follows it; what stands before stays as the last run left it (may be given more than
    /// once)
    #[arg(long, value_name = "STAGE")]
    pub from: Vec<String>,
    /// Run this stage's units even if they are known; the results replace those there are (may be given more than once)
    #[arg(long, value_name = "STAGE")]
    pub force: Vec<String>,
}

impl Choice {
    /// Whether all stages are meant, as ever.
    pub fn is_all(&self) -> bool {
        self.only.is_empty() && self.from.is_empty() && self.force.is_empty()
    }

    /// The stages of a plan that are meant.
    ///
    /// # Errors
    /// If there is no stage of a name, or the arguments contradict each other.
    pub fn selection(&self, plan: &Plan) -> Result<Selection, Problem> {
        let selection = Selection::new(plan, &self.only, &self.from, &self.force)?;
        let parts = selection.parts(plan);
        if !parts.is_empty() && parts.iter().all(|part| *part == Part::Left) {
            let (only, from) = (self.only.join(", "), self.from.join(", "));
            let message = format!("no stage that `--only {only}` needs follows `--from {from}`");
            let hint =
                "together they mean what lies between: name under `--only` a stage that follows that of `--from`";
            return Err(Problem::at(&Place::command_line(), message).hint(hint));
        }
        Ok(selection)
    }
}
