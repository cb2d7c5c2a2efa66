//! `effigy provider`: looking at programs that bring stages of their own.

use super::{DONE, FAILED, print};
use crate::conformance::{Finding, Subject, Verdict, check};
use crate::error::{Place, Problem};
use crate::{provider, yaml};
use anyhow::Result;
use clap::Subcommand;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Look at a program that brings stages of its own
#[derive(clap::Args)]
pub struct Provider {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Give a provider tasks that were made up, good and bad, and name what does not conform to the protocol
    Check {
        /// The provider as recipes name it, for example "python3 my_stages.py"
        command: String,
        /// Only stages of this kind
        #[arg(long)]
        kind: Option<String>,
        /// A parameter that cannot be made up (may be given more than once)
        #[arg(long = "set", value_name = "KIND.PARAMETER=VALUE")]
        set: Vec<String>,
        /// A file for columns that hold files [default: a line of text]
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// Seconds that it may take to describe itself, and for each task
        #[arg(long, value_name = "SECONDS", default_value_t = 30.0)]
        timeout: f64,
        /// Print the findings as JSON lines
        #[arg(long)]
        json: bool,
    },
}

impl Provider {
    /// Does it.
    pub fn run(self) -> Result<u8> {
        let Verb::Check { command, kind, set, file, timeout, json } = self.verb;
        let here = std::env::current_dir()?;
        let wrong = |message: String, hint: &str| Problem::at(&Place::command_line(), message).hint(hint);
        if !(timeout > 0.0 && timeout < 1e6) {
            return Err(wrong(
                format!("`--timeout` is a number of seconds, not {timeout}"),
                "for example `--timeout 30`",
            )
            .into());
        }
        let file = match file {
            Some(file) => Some(file.canonicalize().map_err(|error| {
                wrong(
                    format!("`--file {}` cannot be read: {error}", file.display()),
                    "give the path of a file that is there",
                )
            })?),
            None => None,
        };
        let mut params: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
        for text in &set {
            let parts = text.split_once('=').and_then(|(target, value)| Some((target.split_once('.')?, value)));
            let Some(((kind, name), value)) = parts else {
                let message = format!("`--set {text}` is not of the form KIND.PARAMETER=VALUE");
                return Err(wrong(message, "for example `--set count.words=4`").into());
            };
            let value = yaml::parse("command line", value)?.to_json();
            params.entry(kind.into()).or_default().insert(name.into(), value);
        }
        let candidate = provider::of_words(&command, &here, Place::command_line());
        let subject = Subject { candidate, limit: Duration::from_secs_f64(timeout), params, file, kind };
        let (description, findings) = check(&subject)?;
        let count = |wanted: fn(&Verdict) -> bool| findings.iter().filter(|finding| wanted(&finding.verdict)).count();
        let fails = count(|verdict| matches!(verdict, Verdict::Fails { .. }));
        let unseen = count(|verdict| matches!(verdict, Verdict::Unseen(_)));
        let holds = findings.len() - fails - unseen;
        if json {
            findings.iter().for_each(|finding| print(&as_json(finding).to_string()));
            print(&json!({ "event": "done", "holds": holds, "fails": fails, "unseen": unseen }).to_string());
        } else {
            let (name, version) = (&description.provider, &description.version);
            print(&format!("{name} {version}, {} stages", description.stages.len()));
            findings.iter().for_each(|finding| print(&as_text(finding)));
            print(&format!("{holds} hold, {fails} do not, {unseen} could not be seen"));
        }
        Ok(if fails > 0 { FAILED } else { DONE })
    }
}

fn as_json(finding: &Finding) -> Value {
    let (verdict, message, hint) = match &finding.verdict {
        Verdict::Holds => ("holds", None, None),
        Verdict::Fails { message, hint } => ("fails", Some(message), Some(hint)),
        Verdict::Unseen(reason) => ("unseen", Some(reason), None),
    };
    json!({
        "event": "finding", "stage": finding.stage, "what": finding.what, "verdict": verdict, "message": message,
        "hint": hint,
    })
}

fn as_text(finding: &Finding) -> String {
    let stage = finding.stage.as_ref().map_or(String::new(), |stage| format!("{stage}: "));
    let indented = |text: &str| text.replace('\n', "\n         ");
    match &finding.verdict {
        Verdict::Holds => format!("  holds  {stage}{}", finding.what),
        Verdict::Fails { message, hint } => {
            let (message, hint) = (indented(message), indented(hint));
            format!("  FAILS  {stage}{}\n         {message}\n         hint: {hint}", finding.what)
        }
        Verdict::Unseen(reason) => format!("  unseen {stage}{}\n         {}", finding.what, indented(reason)),
    }
}
