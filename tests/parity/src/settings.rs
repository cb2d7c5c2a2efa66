//! Numbers that a case was made with and that no tensor holds: the scale of a ControlNet, guidance, eta. They may stand
//! in the metadata of its tensors, in a JSON file of the same name, or in its row of the folder's README.md. Knows no
//! network.

use std::path::Path;

use anyhow::{Context, Result, bail};
use models::weights::WeightFile;
use serde_json::Value;

use crate::check::{Checks, json};

/// What a ControlNet's residuals are multiplied by.
pub const SCALE: Setting = Setting {
    names: &["conditioning_scale", "controlnet_conditioning_scale", "controlnet_scale"],
    phrases: &["conditioning scale ", "controlnet scale ", "on both halves scale "],
};
/// How far a sampled image is led away from what is seen without a prompt.
pub const GUIDANCE: Setting =
    Setting { names: &["guidance_scale", "guidance"], phrases: &["guidance ", "guidance scale "] };
/// DDIM's share of the ancestral noise.
pub const ETA: Setting = Setting { names: &["eta"], phrases: &["eta "] };
/// Sampling steps.
pub const STEPS: Setting = Setting { names: &["num_inference_steps", "steps"], phrases: &[] };

/// Fields that have no bearing on a result.
const NOTES: [&str; 5] = ["format", "note", "notes", "config", "tolerance"];

/// A number and what it is called.
pub struct Setting {
    /// As a field, most natural first.
    names: &'static [&'static str],
    /// The words before it in a sentence, as [`plain`] has them.
    phrases: &'static [&'static str],
}

impl Setting {
    /// The setting in a configuration; none where it is absent or null.
    ///
    /// # Errors
    /// If it is no number.
    pub fn of(&self, config: &Value) -> Result<Option<f64>> {
        let Some((name, value)) = self.names.iter().find_map(|name| Some((name, config.get(name)?))) else {
            return Ok(None);
        };
        // metadata holds texts alone
        let text = value.as_str().map(str::trim).filter(|text| *text != "null" && *text != "None");
        match (value, text) {
            (Value::Null, _) | (Value::String(_), None) => Ok(None),
            (_, Some(text)) => Ok(Some(text.parse::<f64>().with_context(|| format!("{name}: {value} is no number"))?)),
            _ => Ok(Some(value.as_f64().with_context(|| format!("{name}: {value} is no number"))?)),
        }
    }

    /// Whether a field is called so.
    pub fn is_called(&self, field: &str) -> bool {
        self.names.contains(&field)
    }

    /// The number behind the phrases, if it is one and the same wherever they stand.
    fn told(&self, words: &str) -> Option<f64> {
        let words = &*plain(words);
        let is_whole = |at: usize| !words[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let number = |from: usize| -> Option<f64> {
            let rest = &words[from..];
            let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
            rest[..end].trim_end_matches('.').parse().ok()
        };
        let behind = |phrase: &&str| -> Vec<f64> {
            let places = words.match_indices(*phrase).filter(|(at, _)| is_whole(*at));
            places.filter_map(|(at, _)| number(at + phrase.len())).collect()
        };
        let all: Vec<f64> = self.phrases.iter().flat_map(behind).collect();
        all.first().copied().filter(|first| all.iter().all(|other| other == first))
    }
}

/// What is said of one file of tensors.
pub struct Settings {
    /// Configurations, with the place where each stands.
    said: Vec<(String, Value)>,
    /// The row of the README, empty where there is none.
    row: String,
}

impl Settings {
    /// Reads what is said of `{stem}.safetensors` of a folder.
    ///
    /// # Errors
    /// If the file, or one beside it that describes it, cannot be read.
    pub fn read(dir: &Path, stem: &str) -> Result<Self> {
        let file = format!("{stem}.safetensors");
        let metadata: serde_json::Map<String, Value> = WeightFile::open(&dir.join(&file))?
            .metadata()
            .into_iter()
            .map(|(name, text)| {
                // a configuration as a whole
                let inner = serde_json::from_str::<Value>(&text).ok().filter(Value::is_object);
                (name, inner.unwrap_or_else(|| text.into()))
            })
            .collect();
        let mut said = vec![(format!("the metadata of {file}"), Value::Object(metadata))];
        let beside = dir.join(format!("{stem}.json"));
        if beside.is_file() {
            let about = json(&beside)?;
            if !about.is_object() {
                bail!("{stem}.json is no table of settings");
            }
            said.push((format!("{stem}.json"), about));
        }
        let inner: Vec<(String, Value)> =
            said.iter().filter_map(|(place, about)| Some((place.clone(), about.get("config")?.clone()))).collect();
        said.extend(inner);
        let words = std::fs::read_to_string(dir.join("README.md")).unwrap_or_default();
        let first = |line: &str| line.split('|').nth(1).unwrap_or_default().contains(&file);
        let rows = words.lines().filter(|line| line.starts_with('|') && first(line));
        Ok(Self { said, row: rows.collect::<Vec<_>>().join("\n") })
    }

    /// The number, or `otherwise` where nobody says it.
    ///
    /// # Errors
    /// If what stands there is no number, or not the same everywhere.
    pub fn number(&self, setting: &Setting, otherwise: f64) -> Result<f64> {
        Ok(self.stated(setting)?.unwrap_or(otherwise))
    }

    fn stated(&self, setting: &Setting) -> Result<Option<f64>> {
        let mut found: Option<(&str, f64)> = None;
        for (place, about) in &self.said {
            let Some(value) = setting.of(about).with_context(|| place.clone())? else { continue };
            match found {
                Some((other, earlier)) if earlier != value => {
                    bail!("{} is {earlier} in {other}, and {value} in {place}", setting.names[0])
                }
                _ => found = Some((place.as_str(), value)),
            }
        }
        Ok(found.map(|(_, value)| value).or_else(|| setting.told(&self.row)))
    }

    /// As [`Settings::number`], and says so where nobody does.
    ///
    /// # Errors
    /// The same.
    pub fn number_or_told(&self, setting: &Setting, otherwise: f64, checks: &mut Checks) -> Result<f64> {
        let said = self.stated(setting)?;
        if said.is_none() {
            checks.remark(format!("nothing says {}: {otherwise} is taken", setting.names[0]));
        }
        Ok(said.unwrap_or(otherwise))
    }

    /// Tells of fields that are none of these settings.
    pub fn tell_unknown(&self, settings: &[&Setting], checks: &mut Checks) {
        for (_, about) in &self.said {
            let is_known =
                |field: &str| NOTES.contains(&field) || settings.iter().any(|setting| setting.names.contains(&field));
            checks.unknown_fields(about, is_known);
        }
    }
}

/// Words in small letters with one space between, without the marks that stand around names and between them and
/// numbers.
fn plain(words: &str) -> String {
    let marks = |c: char| if "`*_=:,".contains(c) { ' ' } else { c.to_ascii_lowercase() };
    let words: String = words.chars().map(marks).collect();
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use models::weights::{self, Precision, Tensors};
    use serde_json::json;
    use std::collections::BTreeMap;

    /// The scale and the guidance of `pipeline.safetensors` in a folder with this metadata and these files.
    fn numbers(name: &str, metadata: &[(&str, &str)], files: &[(&str, &str)]) -> Result<(f64, f64)> {
        let dir = std::env::temp_dir().join(format!("effigy-parity-settings-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let tensors = Tensors::from([("x".to_owned(), tch::Tensor::from_slice(&[1.0f32]))]);
        let metadata: BTreeMap<String, String> =
            metadata.iter().map(|(key, text)| (key.to_string(), text.to_string())).collect();
        weights::write(&dir.join("pipeline.safetensors"), &tensors, &metadata, Precision::Keep).unwrap();
        files.iter().for_each(|(file, text)| std::fs::write(dir.join(file), text).unwrap());
        let settings = Settings::read(&dir, "pipeline");
        std::fs::remove_dir_all(&dir).unwrap();
        let settings = settings?;
        Ok((settings.number(&SCALE, 0.7)?, settings.number(&GUIDANCE, 3.0)?))
    }

    #[test]
    fn settings_are_found_wherever_they_stand() {
        assert_eq!(numbers("none", &[], &[]).unwrap(), (0.7, 3.0));
        let metadata = [("format", "pt"), ("conditioning_scale", "0.5"), ("guidance", "2")];
        assert_eq!(numbers("metadata", &metadata, &[]).unwrap(), (0.5, 2.0));
        let config = [("config", r#"{"controlnet_conditioning_scale": 0.4, "guidance_scale": null}"#)];
        assert_eq!(numbers("config", &config, &[]).unwrap(), (0.4, 3.0));
        let beside = [("pipeline.json", r#"{"controlnet_scale": 1, "config": {"guidance_scale": 7.5}}"#)];
        assert_eq!(numbers("beside", &[], &beside).unwrap(), (1.0, 7.5));
        let row =
            "| `pipeline.safetensors` | DDIM 10 steps, guidance 4.5; ControlNet on both halves, scale 0.8. | 2e-4 |\n";
        let words =
            format!("guidance 9\n| `unet.safetensors` | guidance 8 |\n{row}| `pipeline.safetensors` | 441 kB |\n");
        assert_eq!(numbers("words", &[], &[("README.md", words.as_str())]).unwrap(), (0.8, 4.5));
        for said in [
            "`conditioning_scale` 0.9",
            "conditioning_scale = 0.9",
            "conditioning_scale=0.9",
            "Conditioning scale: 0.9",
            "**ControlNet scale** 0.9",
        ] {
            let words = format!("| pipeline.safetensors | 20 steps, guidance scale 7.5; {said} | 2e-4 |\n");
            assert_eq!(numbers("spelt", &[], &[("README.md", words.as_str())]).unwrap(), (0.9, 7.5), "{said}");
        }
        // a field goes before words
        assert_eq!(numbers("both", &metadata, &[("README.md", words.as_str())]).unwrap(), (0.5, 2.0));
    }

    #[test]
    fn settings_that_are_no_numbers_or_differ_are_refused() {
        let text = |result: Result<(f64, f64)>| format!("{:#}", result.unwrap_err());
        let metadata = [("conditioning_scale", "0.5")];
        let other = numbers("differ", &metadata, &[("pipeline.json", r#"{"conditioning_scale": 0.6}"#)]);
        assert!(text(other).contains("conditioning_scale is 0.5 in the metadata"));
        let same = numbers("same", &metadata, &[("pipeline.json", r#"{"controlnet_scale": 0.5}"#)]);
        assert_eq!(same.unwrap(), (0.5, 3.0));
        assert!(text(numbers("list", &[], &[("pipeline.json", r#"{"guidance": [1, 2]}"#)])).contains("no number"));
        assert!(text(numbers("text", &[("guidance", "much")], &[])).contains("no number"));
        assert!(text(numbers("no-table", &[], &[("pipeline.json", "[3.0]")])).contains("no table"));
    }

    #[test]
    fn words_are_read_whole_and_fields_that_nobody_knows_are_told() {
        assert_eq!(ETA.told("theta 3, beta 2, eta of it, eta 0.5; eta 0.50"), Some(0.5));
        assert_eq!(ETA.told("eta 0.5, of the other set eta 1"), None, "nobody can tell which one is meant");
        assert_eq!((ETA.told("theta 3"), ETA.told("eta of it")), (None, None));
        let about = json!({ "eta": 0, "guess_mode": true, "note": "" });
        let settings = Settings { said: vec![("a file".into(), about)], row: String::new() };
        let mut checks = Checks::default();
        settings.tell_unknown(&[&ETA], &mut checks);
        assert!(checks.remarks().len() == 1 && checks.remarks()[0].contains("guess_mode"));
    }
}
