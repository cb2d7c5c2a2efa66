//! Reading the fields of a JSON configuration, with errors that name the file and the field. Knows no network.

use serde_json::Value;

use super::PerLevel;
use crate::weights::WeightsError;

/// Reads fields of a diffusers configuration, with errors that name the file and the field.
pub(crate) struct Reader<'a> {
    pub value: &'a Value,
    pub place: &'a str,
}

impl Reader<'_> {
    pub fn error(&self, reason: String) -> WeightsError {
        let hint = "networks of the Stable Diffusion 1.x and 2.x families are supported".into();
        WeightsError::Config { place: self.place.to_owned(), reason, hint }
    }

    /// An absent field is fine: diffusers then uses its default, which is what is implemented.
    pub fn refuse_unless(&self, key: &str, allowed: &[Value]) -> Result<(), WeightsError> {
        match self.value.get(key) {
            Some(found) if !allowed.contains(found) => {
                let allowed = allowed.iter().map(Value::to_string).collect::<Vec<_>>().join(" or ");
                Err(self.error(format!("{key}: {found} is not implemented (only {allowed})")))
            }
            _ => Ok(()),
        }
    }

    pub fn integer(&self, key: &str, default: i64) -> Result<i64, WeightsError> {
        match self.value.get(key) {
            None => Ok(default),
            Some(v) => v.as_i64().ok_or_else(|| self.error(format!("{key} must be a whole number, not {v}"))),
        }
    }

    pub fn number(&self, key: &str, default: f64) -> Result<f64, WeightsError> {
        match self.value.get(key) {
            None => Ok(default),
            Some(v) => v.as_f64().ok_or_else(|| self.error(format!("{key} must be a number, not {v}"))),
        }
    }

    pub fn boolean(&self, key: &str, default: bool) -> Result<bool, WeightsError> {
        match self.value.get(key) {
            None => Ok(default),
            Some(v) => v.as_bool().ok_or_else(|| self.error(format!("{key} must be true or false, not {v}"))),
        }
    }

    /// A list; where `scalar` gives (default, length), a single number or an absent field stands for that many.
    pub fn integers(&self, key: &str, scalar: Option<(i64, usize)>) -> Result<Vec<i64>, WeightsError> {
        let wrong = || self.error(format!("{key} must be a list of whole numbers"));
        match (self.value.get(key), scalar) {
            (None, Some((default, length))) => Ok(vec![default; length]),
            (Some(Value::Number(n)), Some((_, length))) => Ok(vec![n.as_i64().ok_or_else(wrong)?; length]),
            (Some(list), _) => serde_json::from_value(list.clone()).map_err(|_| wrong()),
            (None, None) => Err(self.error(format!("the field {key} is missing"))),
        }
    }

    /// One value for all levels, or a list of one for each; an absent field is the default.
    pub fn per_level<T: Copy + PartialEq + Into<Value>>(
        &self,
        key: &str,
        levels: usize,
        default: T,
        parse: impl Fn(&Value) -> Option<T>,
    ) -> Result<PerLevel<T>, WeightsError> {
        let Some(value) = self.value.get(key) else { return Ok(PerLevel::Same(default)) };
        if let Some(one) = parse(value) {
            return Ok(PerLevel::Same(one));
        }
        match value.as_array().and_then(|list| list.iter().map(&parse).collect::<Option<Vec<T>>>()) {
            Some(list) if list.len() == levels => Ok(PerLevel::of(list)),
            Some(list) => Err(self.error(format!("{key} has {} values, and there are {levels} levels", list.len()))),
            None => Err(self.error(format!("{key} must be one value or a list of one for each level, not {value}"))),
        }
    }

    /// Whether all of a field's values are so large.
    pub fn at_least(&self, key: &str, least: i64, values: &[i64]) -> Result<(), WeightsError> {
        match values.iter().find(|value| **value < least) {
            Some(bad) => Err(self.error(format!("{key} must be at least {least}, not {bad}"))),
            None => Ok(()),
        }
    }

    /// Whether every level's channels can be cut into groups to be normed.
    pub fn norm_groups(&self, channels: &[i64], groups: i64) -> Result<(), WeightsError> {
        self.at_least("norm_num_groups", 1, &[groups])?;
        self.at_least("block_out_channels", 1, channels)?;
        match channels.iter().find(|channels| *channels % groups != 0) {
            Some(bad) => Err(self.error(format!(
                "block_out_channels: {bad} channels cannot be cut into {groups} groups (norm_num_groups)"
            ))),
            None => Ok(()),
        }
    }

    pub fn strings(&self, key: &str) -> Result<Vec<String>, WeightsError> {
        let list = self.value.get(key).ok_or_else(|| self.error(format!("the field {key} is missing")))?;
        serde_json::from_value(list.clone()).map_err(|_| self.error(format!("{key} must be a list of names")))
    }
}
