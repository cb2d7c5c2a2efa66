//! Conditions on the rows of a table as they are typed: `psnr>=20`, `split=test`, `note=~`. Knows nothing of recipes,
//! whose conditions are YAML.

use crate::error::{Place, Problem};
use manifests::{Manifest, Type, Value};
use std::cmp::Ordering;

/// How a value is compared.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Relation {
    Equal,
    NotEqual,
    Less,
    AtMost,
    More,
    AtLeast,
    Contains,
}

/// The signs, longer ones first.
const SIGNS: [(&str, Relation); 8] = [
    ("!=", Relation::NotEqual),
    ("<=", Relation::AtMost),
    (">=", Relation::AtLeast),
    ("*=", Relation::Contains),
    ("==", Relation::Equal),
    ("=", Relation::Equal),
    ("<", Relation::Less),
    (">", Relation::More),
];

const EXAMPLE: &str = "for example `--where 'psnr>=20'`; signs are = != < <= > >= and *= (contains), `~` is no value";

/// The rows of a table for which all conditions hold.
///
/// # Errors
/// The first condition that cannot be understood or does not fit the table.
pub fn rows(table: &Manifest, conditions: &[String]) -> Result<Vec<usize>, Problem> {
    let mut kept: Vec<usize> = (0..table.len()).collect();
    for text in conditions {
        let holds = condition(table, text)?;
        kept.retain(|&row| holds[row]);
    }
    Ok(kept)
}

fn condition(table: &Manifest, text: &str) -> Result<Vec<bool>, Problem> {
    let wrong = |message: String| Problem::at(&Place::command_line(), message);
    // the sign that stands first; of two at one place the longer
    let found = SIGNS.iter().filter_map(|(sign, relation)| Some((text.find(sign)?, *sign, *relation)));
    let first = found.min_by_key(|(at, sign, _)| (*at, usize::MAX - sign.len()));
    let Some((at, sign, relation)) = first else {
        return Err(wrong(format!("`--where {text}` compares nothing")).hint(EXAMPLE));
    };
    let (name, wanted) = (text[..at].trim(), text[at + sign.len()..].trim());
    let Some(ty) = table.schema().ty(name) else {
        let problem = wrong(format!("there is no column `{name}`"));
        return Err(problem.did_you_mean(name, table.schema().names()).or_hint("the table has no columns"));
    };
    let unfit = || {
        wrong(format!("column `{name}` is {ty}: `{sign} {wanted}` cannot be asked of it")).hint(match ty {
            Type::Bool => "ask for `true`, `false` or `~`",
            Type::I64 | Type::F64 => "compare it with a number, or `~`",
            Type::Str => "compare it with a text, or `~`",
            Type::Floats(_) => "only whether it is there can be asked: `=~` or `!=~`",
            Type::Blob => "compare it with the first digits of a digest, by = or !=, or `~`",
        })
    };
    let ordered = matches!(relation, Relation::Less | Relation::AtMost | Relation::More | Relation::AtLeast);
    let values = table.column(name).expect("it is a column of the table");
    if wanted == "~" {
        return match relation {
            Relation::Equal => Ok(values.iter().map(|value| *value == Value::Null).collect()),
            Relation::NotEqual => Ok(values.iter().map(|value| *value != Value::Null).collect()),
            _ => Err(unfit()),
        };
    }
    let fits = match ty {
        Type::Bool => !ordered && matches!(wanted, "true" | "false"),
        Type::I64 | Type::F64 => relation != Relation::Contains && wanted.parse::<f64>().is_ok(),
        Type::Str => true,
        Type::Floats(_) => false,
        Type::Blob => {
            !ordered
                && relation != Relation::Contains
                && wanted.len() >= 4
                && wanted.bytes().all(|b| b.is_ascii_hexdigit())
        }
    };
    if fits { Ok(values.iter().map(|value| holds(value, relation, wanted)).collect()) } else { Err(unfit()) }
}

/// Whether a value stands in this relation to what was typed, which fits its type. No value stands in none.
fn holds(value: &Value, relation: Relation, wanted: &str) -> bool {
    let order = match value {
        Value::Null | Value::Floats(_) => return false,
        Value::Bool(value) => value.to_string().as_str().cmp(wanted),
        Value::I64(value) => match (wanted.parse::<i64>(), wanted.parse::<f64>()) {
            (Ok(wanted), _) => value.cmp(&wanted),
            (_, Ok(wanted)) => (*value as f64).partial_cmp(&wanted).unwrap_or(Ordering::Less),
            _ => return false,
        },
        Value::F64(value) => match wanted.parse::<f64>().ok().and_then(|wanted| value.partial_cmp(&wanted)) {
            Some(order) => order,
            // NaN is not equal to anything
            None => return relation == Relation::NotEqual,
        },
        Value::Str(value) if relation == Relation::Contains => return value.contains(wanted),
        Value::Str(value) => value.as_str().cmp(wanted),
        Value::Blob(blob) => {
            let starts = blob.digest.to_string().starts_with(&wanted.to_ascii_lowercase());
            if starts { Ordering::Equal } else { Ordering::Less }
        }
    };
    match relation {
        Relation::Equal => order.is_eq(),
        Relation::NotEqual => order.is_ne(),
        Relation::Less => order.is_lt(),
        Relation::AtMost => order.is_le(),
        Relation::More => order.is_gt(),
        Relation::AtLeast => order.is_ge(),
        Relation::Contains => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use manifests::Schema;

    fn table() -> Manifest {
        let schema = Schema::new([("s", Type::Str), ("n", Type::I64), ("x", Type::F64)]).unwrap();
        let row = |s: &str, n, x| vec![Value::Str(s.into()), Value::I64(n), x];
        let rows = [
            row("a", 1, Value::F64(0.5)),
            row("b=c", 10, Value::Null),
            row("b", 9_007_199_254_740_993, Value::F64(f64::NAN)),
        ];
        Manifest::from_rows(schema, &rows).unwrap()
    }

    fn found(conditions: &[&str]) -> Vec<usize> {
        let conditions: Vec<String> = conditions.iter().map(|text| text.to_string()).collect();
        rows(&table(), &conditions).unwrap_or_else(|problem| panic!("{problem}"))
    }

    #[test]
    fn conditions_choose_rows() {
        assert_eq!(found(&["s=b=c"]), [1]);
        assert_eq!(found(&["s!=a", "n > 5"]), [1, 2]);
        assert_eq!(found(&["s *= b"]), [1, 2]);
        assert_eq!(found(&["n=9007199254740993"]), [2], "integers are compared exactly");
        assert_eq!(found(&["n<=9.5"]), [0], "and with fractions as numbers");
        assert_eq!((found(&["x=~"]), found(&["x!=~"])), (vec![1], vec![0, 2]));
        assert_eq!(found(&["x>=0.5"]), [0], "neither nothing nor NaN is at least anything");
    }

    #[test]
    fn what_cannot_be_asked_is_told() {
        let error = |text: &str| rows(&table(), &[text.to_string()]).unwrap_err().to_string();
        assert!(error("n").contains("compares nothing"));
        assert!(error("m=1").contains("there are: n, s, x") || error("m=1").contains("did you mean"));
        assert!(error("n=a").contains("column `n` is i64: `= a` cannot be asked of it"));
        assert!(error("s<~").contains("cannot be asked"));
    }
}
