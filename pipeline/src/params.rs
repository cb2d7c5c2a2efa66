//! Parameters of a stage against its JSON Schema: unknown names, wrong types, values out of range; defaults filled in,
//! so that a parameter left out and one set to its default are the same fact. Knows the part of JSON Schema that
//! describes plain structs: types, enums, alternatives, ranges, lists, nested objects, references. Also the recipe's
//! own parameters, against what the command line makes of them.

use crate::error::{Place, Problem};
use crate::fields::{elsewhere, unquoted};
use crate::sections::assignment;
use crate::yaml::{At, Item, Key, Node};
use serde_json::{Map, Value};

/// Checks and completes the parameters of a stage.
pub struct Checker<'a> {
    /// The whole schema, which references point into.
    pub schema: &'a Value,
    /// Names the stage in messages.
    pub owner: &'a str,
    /// Makes a place of a position.
    pub place: &'a dyn Fn(At) -> Place,
}

impl Checker<'_> {
    /// The complete parameters.
    ///
    /// # Errors
    /// All that is wrong with them.
    pub fn check(&self, at: At, fields: &[(Key, Item)]) -> Result<Map<String, Value>, Vec<Problem>> {
        let mut problems = Vec::new();
        let checked = self.object(self.resolve(self.schema), "", at, fields, &mut problems);
        if problems.is_empty() { Ok(checked) } else { Err(problems) }
    }

    fn resolve<'s>(&'s self, schema: &'s Value) -> &'s Value {
        resolve(self.schema, schema)
    }

    fn object(
        &self,
        schema: &Value,
        path: &str,
        at: At,
        fields: &[(Key, Item)],
        problems: &mut Vec<Problem>,
    ) -> Map<String, Value> {
        let empty = Map::new();
        let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&empty);
        let extra = schema.get("additionalProperties");
        let mut checked = Map::new();
        for (key, item) in fields {
            match (properties.get(&key.name), extra) {
                (Some(property), _) => {
                    let path = join(path, &key.name);
                    checked.insert(key.name.clone(), self.value(property, &path, item, problems));
                }
                (None, Some(Value::Object(_))) => {
                    let path = join(path, &key.name);
                    let extra = extra.expect("it was just matched");
                    checked.insert(key.name.clone(), self.value(extra, &path, item, problems));
                }
                (None, _) => {
                    let what =
                        if path.is_empty() { self.owner.to_string() } else { format!("`{path}` of {}", self.owner) };
                    let message = format!("{what} has no parameter `{}`", key.name);
                    let mut names: Vec<&str> = properties.keys().map(String::as_str).collect();
                    if path.is_empty() {
                        names.extend(["from", "with", "by", "where"]);
                    }
                    let place = (self.place)(key.at);
                    let unknown = || {
                        let problem = Problem::at(&place, message).did_you_mean(&key.name, names);
                        problem.or_hint("it takes no parameters: leave it out")
                    };
                    problems.push(elsewhere(&place, &what, &key.name).unwrap_or_else(unknown));
                }
            }
        }
        for name in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            if !fields.iter().any(|(key, _)| key.name == name) {
                let message = format!("{} needs the parameter `{}`", self.owner, join(path, name));
                let problem = Problem::at(&(self.place)(at), message);
                let doc = properties.get(name).and_then(|property| property.get("description")).and_then(Value::as_str);
                problems.push(match doc {
                    Some(doc) => problem.hint(format!("`{name}`: {doc}")),
                    None => problem.hint(self.example(name, properties.get(name).unwrap_or(&Value::Null))),
                });
            }
        }
        for (name, property) in properties {
            if let (false, Some(default)) = (checked.contains_key(name), property.get("default")) {
                checked.insert(name.clone(), self.normal(property, default));
            }
        }
        checked
    }

    /// Numbers in one form: a float parameter is a float also where it is written `1`.
    fn normal(&self, schema: &Value, value: &Value) -> Value {
        let schema = self.resolve(schema);
        match value {
            Value::Number(number) if has_type(schema, "number") && !has_type(schema, "integer") => {
                number.as_f64().and_then(serde_json::Number::from_f64).map_or(value.clone(), Value::Number)
            }
            Value::Array(items) => {
                let item = schema.get("items").unwrap_or(&Value::Null);
                items.iter().map(|value| self.normal(item, value)).collect()
            }
            _ => value.clone(),
        }
    }

    fn value(&self, schema: &Value, path: &str, item: &Item, problems: &mut Vec<Problem>) -> Value {
        let schema = self.resolve(schema);
        let mut wrong = |message: String| {
            let problem = Problem::at(&(self.place)(item.at), message);
            problems.push(problem.hint(self.meant(path, schema, item)));
        };
        let name = format!("`{path}` of {}", self.owner);
        if let Some(alternatives) = schema.get("oneOf").or(schema.get("anyOf")).and_then(Value::as_array) {
            return self.alternative(alternatives, path, item, problems);
        }
        let json = item.to_json();
        if let Some(values) = schema.get("enum").and_then(Value::as_array) {
            if !values.contains(&json) {
                let known: Vec<String> = values.iter().map(plain).collect();
                let found = json.as_str().map_or(json.to_string(), str::to_string);
                let problem = Problem::at(&(self.place)(item.at), format!("{name} cannot be `{found}`"));
                let problem = problem.did_you_mean(&found, known.iter().map(String::as_str));
                problems.push(problem.or_hint("its provider allows no value at all"));
            }
            return json;
        }
        if let Some(only) = schema.get("const") {
            if *only != json {
                wrong(format!("{name} must be {only}, not {json}"));
            }
            return json;
        }
        if schema.get("type").is_some() && !fits(schema, &item.node) {
            let wanted = types(schema).join(" or ");
            wrong(format!("{name} must be {wanted}, not {}", item.node.what()));
            return json;
        }
        match &item.node {
            Node::Int(_) | Node::Float(_) => {
                let number = json.as_f64().unwrap_or(f64::NAN);
                type Test = fn(f64, f64) -> bool;
                let limits: [(&str, &str, Test); 4] = [
                    ("minimum", "at least", |number, limit| number >= limit),
                    ("maximum", "at most", |number, limit| number <= limit),
                    ("exclusiveMinimum", "more than", |number, limit| number > limit),
                    ("exclusiveMaximum", "less than", |number, limit| number < limit),
                ];
                for (keyword, words, holds) in limits {
                    if let Some(limit) =
                        schema.get(keyword).filter(|limit| !holds(number, limit.as_f64().unwrap_or(f64::NAN)))
                    {
                        wrong(format!("{name} must be {words} {limit}, not {json}"));
                    }
                }
                // a width that the stage's own language has, and would complain of without a name
                let most = match schema.get("format").and_then(Value::as_str) {
                    Some("uint8") => f64::from(u8::MAX),
                    Some("uint16") => f64::from(u16::MAX),
                    Some("int32") => f64::from(i32::MAX),
                    Some("uint32") => f64::from(u32::MAX),
                    _ => f64::INFINITY,
                };
                if number > most && schema.get("maximum").is_none() {
                    wrong(format!("{name} must be at most {most}, not {json}"));
                }
                self.normal(schema, &json)
            }
            Node::List(items) => {
                let count = |keyword: &str| schema.get(keyword).and_then(Value::as_u64);
                let (least, most) = (count("minItems").unwrap_or(0), count("maxItems").unwrap_or(u64::MAX));
                if !(least..=most).contains(&(items.len() as u64)) {
                    let wanted = match most {
                        _ if least == most => least.to_string(),
                        u64::MAX => format!("at least {least}"),
                        _ => format!("{least} to {most}"),
                    };
                    wrong(format!("{name} must have {wanted} items, not {}", items.len()));
                }
                let each = schema.get("items").unwrap_or(&Value::Null);
                let value = |(i, item)| self.value(each, &format!("{path}[{i}]"), item, problems);
                items.iter().enumerate().map(value).collect()
            }
            Node::Map(fields) if schema.get("properties").is_some() || schema.get("additionalProperties").is_some() => {
                Value::Object(self.object(schema, path, item.at, fields, problems))
            }
            _ => json,
        }
    }

    /// The first alternative that the value fits.
    fn alternative(&self, alternatives: &[Value], path: &str, item: &Item, problems: &mut Vec<Problem>) -> Value {
        let mut first = None;
        for schema in alternatives {
            let mut own = Vec::new();
            let value = self.value(schema, path, item, &mut own);
            if own.is_empty() {
                return value;
            }
            // the complaint of the alternative of the right shape is the helpful one
            let schema = self.resolve(schema);
            if first.is_none() || fits(schema, &item.node) && schema.get("type").is_some_and(|ty| ty != "null") {
                first = Some(own);
            }
        }
        let known: Vec<&str> = alternatives
            .iter()
            .flat_map(|schema| {
                let schema = self.resolve(schema);
                let one = schema.get("const").and_then(Value::as_str);
                let many = schema.get("enum").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
                one.into_iter().chain(many)
            })
            .collect();
        let is_listed = |schema: &Value| {
            let schema = self.resolve(schema);
            schema.get("const").is_some() || schema.get("enum").is_some() || has_type(schema, "null")
        };
        match &item.node {
            Node::Text(text) if !known.is_empty() => {
                let message = format!("`{path}` of {} cannot be `{text}`", self.owner);
                problems.push(Problem::at(&(self.place)(item.at), message).did_you_mean(text, known));
            }
            // what is no text is none of them, however it is written
            _ if !known.is_empty() && alternatives.iter().all(is_listed) => {
                let message = format!("`{path}` of {} cannot be `{}`", self.owner, item.to_json());
                problems.push(Problem::at(&(self.place)(item.at), message).there_are(&known));
            }
            _ => problems.extend(first.unwrap_or_default()),
        }
        item.to_json()
    }
}

impl Checker<'_> {
    /// What is meant where a value cannot stand: the same without quotes or in them, or else something valid.
    fn meant(&self, path: &str, schema: &Value, item: &Item) -> String {
        let name = path.rsplit('.').next().unwrap_or(path);
        match &item.node {
            Node::Text(text) if unquoted(text).is_some_and(|node| fits(schema, &node)) => {
                format!("write it without quotes: {}", shown(name, text.trim()))
            }
            Node::Int(_) | Node::Float(_) | Node::Bool(_)
                if !fits(schema, &item.node)
                    && fits(schema, &Node::Text(String::new()))
                    && schema.get("const").is_none() =>
            {
                format!("write it in quotes: {}", shown(name, &format!("\"{}\"", item.to_json())))
            }
            _ => self.example(name, schema),
        }
    }

    fn example(&self, name: &str, schema: &Value) -> String {
        format!("for example {}", shown(name, &yaml(&self.valid(schema, 0))))
    }

    /// A value that a schema allows.
    fn valid(&self, schema: &Value, depth: usize) -> Value {
        let schema = self.resolve(schema);
        // a schema may hold itself
        if depth > 8 {
            return Value::Null;
        }
        let known = schema.get("default").filter(|default| !default.is_null()).or(schema.get("const"));
        let listed = || schema.get("enum").and_then(Value::as_array).and_then(|values| values.first());
        if let Some(known) = known.or_else(listed) {
            return known.clone();
        }
        if let Some(alternatives) = schema.get("oneOf").or(schema.get("anyOf")).and_then(Value::as_array) {
            let values = alternatives.iter().map(|schema| self.valid(schema, depth + 1));
            return values.into_iter().find(|value| !value.is_null()).unwrap_or_default();
        }
        let limit = |keyword: &str| schema.get(keyword).and_then(Value::as_f64);
        if has_type(schema, "integer") || has_type(schema, "number") {
            let low = limit("minimum").or(limit("exclusiveMinimum"));
            let high = limit("maximum").or(limit("exclusiveMaximum"));
            let number = match (low, high) {
                // what merely may not be negative is seldom meant to be nothing
                (Some(low), None) if low <= 0.0 => 1.0,
                // an end that is included is as good as any; between two ends, the middle
                (Some(low), _) if limit("minimum").is_some() => low,
                (Some(low), Some(high)) => f64::midpoint(low, high),
                (Some(low), None) => low + 1.0,
                (None, Some(high)) => {
                    if limit("maximum").is_some() {
                        high
                    } else {
                        high - 1.0
                    }
                }
                (None, None) => 1.0,
            };
            return if has_type(schema, "integer") { (number.ceil() as i64).into() } else { number.into() };
        }
        if has_type(schema, "array") {
            let count = schema.get("minItems").and_then(Value::as_u64).unwrap_or(1).clamp(1, 16);
            let each = schema.get("items").map_or("value".into(), |items| self.valid(items, depth + 1));
            return (0..count).map(|_| each.clone()).collect();
        }
        if has_type(schema, "object") {
            let empty = Map::new();
            let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&empty);
            let required = schema.get("required").and_then(Value::as_array);
            let needed = |name: &str| required.is_some_and(|names| names.iter().any(|needed| needed == name));
            let named = properties.iter().filter(|(name, _)| needed(name));
            let named: Map<_, _> = named.map(|(name, schema)| (name.clone(), self.valid(schema, depth + 1))).collect();
            let first = properties.iter().next().filter(|_| named.is_empty());
            let first = first.map(|(name, schema)| (name.clone(), self.valid(schema, depth + 1)));
            return Value::Object(named.into_iter().chain(first).collect());
        }
        if has_type(schema, "boolean") { true.into() } else { "text".into() }
    }
}

/// What is wrong with the values that `--param` gives, `given` as they were typed, beside the recipe's own. A number
/// stands for a number, with a point or without, a truth value for a truth value, a mapping for a mapping, a list or a
/// text for a list; whatever is text or nothing in the recipe may become anything, and nothing else becomes nothing.
pub fn overridden(params: &[(Key, Item)], given: &[String]) -> Vec<Problem> {
    let wrong = |text: &String| {
        // what is no assignment, or of no parameter, is told elsewhere
        let (name, item) = assignment("--param", "size=64", text).ok()?;
        let (_, own) = params.iter().find(|(key, _)| key.name == name)?;
        let wanted = match (&own.node, &item.node) {
            (Node::Null | Node::Text(_), _) => return None,
            (Node::Int(_) | Node::Float(_), Node::Int(_) | Node::Float(_)) => return None,
            (Node::Bool(_), Node::Bool(_)) | (Node::Map(_), Node::Map(_)) => return None,
            (Node::List(_), Node::List(_) | Node::Text(_)) => return None,
            (Node::Int(_) | Node::Float(_), _) => "a number",
            (Node::Bool(_), _) => "`true` or `false`",
            (Node::Map(_), _) => "a mapping",
            (Node::List(_), _) => "a list",
        };
        let value = yaml(&own.to_json());
        let message =
            format!("`--param {text}`: `{name}` must be {wanted}, as in the recipe, not {}", item.node.what());
        let quote = if value.contains([' ', '[', '{']) { "'" } else { "" };
        let problem = Problem::at(&Place::command_line(), message);
        Some(problem.hint(format!("for example `--param {quote}{name}={value}{quote}`, which is the recipe's own")))
    };
    given.iter().filter_map(wrong).collect()
}

/// What a schema refers to, itself if to nothing; `root` is the whole that references point into.
pub fn resolve<'s>(root: &'s Value, schema: &'s Value) -> &'s Value {
    let mut schema = schema;
    // a chain of references longer than this is a circle
    for _ in 0..32 {
        let Some(target) = schema.get("$ref").and_then(Value::as_str) else { return schema };
        match target.strip_prefix('#').and_then(|pointer| root.pointer(pointer)) {
            Some(found) => schema = found,
            None => return schema,
        }
    }
    schema
}

/// A field as it is written; an item of a list has no name of its own.
fn shown(name: &str, value: &str) -> String {
    if name.contains('[') { format!("`{value}`") } else { format!("`{name}: {value}`") }
}

/// A value as text, without quotes.
pub fn plain(value: &Value) -> String {
    value.as_str().map_or(value.to_string(), str::to_string)
}

/// A value as a recipe writes it on one line.
fn yaml(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(yaml).collect::<Vec<_>>().join(", ")),
        Value::Object(fields) if !fields.is_empty() => {
            let field = |(name, value): (&String, &Value)| format!("{name}: {}", yaml(value));
            format!("{{ {} }}", fields.iter().map(field).collect::<Vec<_>>().join(", "))
        }
        // JSON is YAML; only plain words need no quotes
        Value::String(text) if text.starts_with(char::is_alphabetic) && unquoted(text).is_none() => {
            if text.chars().all(|c| c.is_alphanumeric() || "_-./".contains(c)) {
                text.clone()
            } else {
                value.to_string()
            }
        }
        _ => value.to_string(),
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.into() } else { format!("{path}.{name}") }
}

fn has_type(schema: &Value, wanted: &str) -> bool {
    match schema.get("type") {
        Some(Value::String(ty)) => ty == wanted,
        Some(Value::Array(types)) => types.iter().any(|ty| ty == wanted),
        _ => false,
    }
}

fn types(schema: &Value) -> Vec<&str> {
    let one = |ty: &'_ Value| match ty.as_str() {
        Some("integer") => "an integer",
        Some("number") => "a number",
        Some("string") => "text",
        Some("boolean") => "`true` or `false`",
        Some("array") => "a list",
        Some("object") => "a mapping",
        _ => "nothing (`~`)",
    };
    match schema.get("type") {
        Some(Value::Array(types)) => types.iter().map(one).collect(),
        Some(ty) => vec![one(ty)],
        None => Vec::new(),
    }
}

fn fits(schema: &Value, node: &Node) -> bool {
    let names: &[&str] = match node {
        Node::Null => &["null"],
        Node::Bool(_) => &["boolean"],
        Node::Int(_) => &["integer", "number"],
        Node::Float(_) => &["number"],
        Node::Text(_) => &["string"],
        Node::List(_) => &["array"],
        Node::Map(_) => &["object"],
    };
    names.iter().any(|name| has_type(schema, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(yaml: &str, expected: Result<&str, &str>) {
        let schema: Value = serde_json::from_str(
            r##"{"type": "object", "required": ["steps"], "properties": {
                "steps": {"type": "integer", "format": "uint32", "minimum": 1},
                "rate": {"type": "number", "default": 1},
                "mode": {"oneOf": [{"type": "string", "enum": ["tokens", "none"]}, {"const": "map", "type": "string"}]},
                "size": {"type": ["integer", "null"], "default": null},
                "only": {"const": "cosine", "type": "string"},
                "inner": {"$ref": "#/$defs/Inner"}},
               "additionalProperties": false,
               "$defs": {"Inner": {"type": "object", "properties": {"x": {"type": "array", "items": {"type": "number"},
                         "minItems": 2, "maxItems": 2}}, "additionalProperties": false}}}"##,
        )
        .unwrap();
        let item = crate::yaml::parse("r", yaml).unwrap();
        let Node::Map(fields) = item.node else { panic!() };
        let place = |at: At| at.place("r");
        let checker = Checker { schema: &schema, owner: "stage `s`", place: &place };
        let found = checker.check(At::default(), &fields).map(|map| crate::key::canonical(&Value::Object(map)));
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected),
            (Err(problems), Err(expected)) => {
                let text = problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n");
                assert!(text.contains(expected), "expected {expected:?} in {text}");
            }
            (found, expected) => panic!("{found:?} for {expected:?}"),
        }
    }

    #[test]
    fn parameters_are_completed_and_mistakes_told() {
        check("{steps: 5}", Ok(r#"{"rate":1.0,"size":null,"steps":5}"#));
        check(
            "{steps: 5, rate: 2, mode: map, inner: {x: [1, 2]}}",
            Ok(r#"{"inner":{"x":[1.0,2.0]},"mode":"map","rate":2.0,"size":null,"steps":5}"#),
        );
        check("{stepz: 5}", Err("did you mean `steps`?"));
        check("{}", Err("needs the parameter `steps`"));
        check("{steps: 9223372036854775807}", Err("`steps` of stage `s` must be at most 4294967295"));
        check("{steps: 0}", Err("at least 1"));
        check("{steps: x}", Err("must be an integer, not text"));
        check("{steps: 1, mode: token}", Err("did you mean `tokens`?"));
        check("{steps: 1, inner: {x: [1]}}", Err("must have 2 items, not 1"));
        check("{steps: 1, inner: {y: 1}}", Err("`inner` of stage `s` has no parameter `y`"));
        check("{steps: 1, size: a}", Err("an integer or nothing"));
        check("{steps: 1, matrix: {size: [1, 2]}}", Err("stage `s`: `matrix:` stands at the top of a recipe"));
    }

    #[test]
    fn every_mistake_has_a_valid_value_for_a_hint() {
        check("{}", Err("hint: for example `steps: 1`"));
        check("{steps: '8'}", Err("hint: write it without quotes: `steps: 8`"));
        check("{steps: 0}", Err("hint: for example `steps: 1`"));
        check("{steps: 1, rate: fast}", Err("hint: for example `rate: 1`"));
        check("{steps: 1, mode: 7}", Err("`mode` of stage `s` cannot be `7`\n  hint: there are: tokens, none, map"));
        check("{steps: 1, only: 3}", Err("hint: for example `only: cosine`"));
        check("{steps: 1, inner: 7}", Err("hint: for example `inner: { x: [1.0, 1.0] }`"));
        check("{steps: 1, inner: {x: [1]}}", Err("hint: for example `x: [1.0, 1.0]`"));
        check("{steps: 1, inner: {x: [1, b]}}", Err("hint: for example `1.0`"));
    }

    #[test]
    fn the_command_line_keeps_to_the_types_of_the_recipe() {
        let item =
            crate::yaml::parse("r", "{n: 3, x: 0.5, on: true, all: [a b], t: auto, none: ~, m: {a: 1}}").unwrap();
        let Node::Map(params) = item.node else { panic!() };
        let told = |text: &str| overridden(&params, &[text.to_string()]).first().map(Problem::to_string);
        for right in [
            "n=4", "n=0.5", "t=", "none=", "x=1", "on=false", "all=[c]", "all=c", "t=7", "none=[1]", "m={}", "else=1",
            "n",
        ] {
            assert_eq!(told(right), None, "{right}");
        }
        let text = told("n=many").unwrap();
        assert!(
            text.starts_with("command line: `--param n=many`: `n` must be a number, as in the recipe, not text"),
            "{text}"
        );
        assert!(text.ends_with("hint: for example `--param n=3`, which is the recipe's own"), "{text}");
        assert!(told("all=3").unwrap().contains("`--param 'all=[\"a b\"]'`"), "{:?}", told("all=3"));
        assert!(told("n=").unwrap().contains("must be a number, as in the recipe, not nothing"), "{:?}", told("n="));
        for (wrong, wanted) in
            [("x=fast", "a number"), ("all=~", "a list"), ("on=1", "`true` or `false`"), ("m=3", "a mapping")]
        {
            assert!(told(wrong).unwrap().contains(&format!("must be {wanted}")), "{wrong}");
        }
    }
}
