//! A provider that breaks one rule of the protocol, named by its first argument, and keeps all others. Written against
//! the protocol itself, without the frame for stages in Rust: that would not let it.

use manifests::{Manifest, Schema, Type, Value, read_ipc, write_ipc};
use protocol::{Description, Event, Grain, PROTOCOL, StageDef, TaskParams, UNIT};
use std::io::{BufRead, Write};
use std::path::Path;

fn main() {
    let mut words = std::env::args().skip(1);
    let (rule, verb) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    match verb.as_str() {
        "describe" => describe(&rule),
        _ => worker(&rule),
    }
}

fn describe(rule: &str) {
    let mut def = StageDef::new("double", 1, Grain::Row)
        .reads([("x", Type::I64)])
        .writes([("y", Type::I64), ("page", Type::Blob)]);
    match rule {
        "describe-text" => println!("I am a provider"),
        "describe-exit" => {
            eprintln!("cannot load my libraries");
            std::process::exit(3);
        }
        "describe-hang" => std::thread::sleep(std::time::Duration::from_secs(1000)),
        "describe-changes" => def.doc = format!("{:?}", std::time::SystemTime::now()),
        "describe-batch" => def.batch = 0,
        "describe-files" => def.files = vec!["weights".into()],
        "describe-unit" => def.reads[0].name = UNIT.into(),
        _ => {}
    }
    let description = Description {
        protocol: if rule == "describe-protocol" { 9 } else { PROTOCOL },
        provider: "broken".into(),
        version: "0".into(),
        software: Default::default(),
        files: Vec::new(),
        stages: if rule == "describe-twice" { vec![def.clone(), def] } else { vec![def] },
    };
    println!("{}", serde_json::to_string(&description).expect("plain data"));
}

fn say(event: &Event) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(event).expect("plain data"))
        .and_then(|()| out.flush())
        .expect("a listener");
}

fn failed(unit: Option<usize>, error: &str) {
    say(&Event::Failed { unit, error: error.into(), hint: None });
}

fn worker(rule: &str) {
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("text");
        if let Err(error) = task(rule, Path::new(&line)) {
            match rule {
                "dies-of-nonsense" => panic!("{error}"),
                "silent-failure" => {}
                _ => failed(None, &error),
            }
        }
        if rule != "never-done" {
            say(&Event::Done);
        }
    }
    match rule {
        "stays" => std::thread::sleep(std::time::Duration::from_secs(1000)),
        "ends-badly" => std::process::exit(7),
        _ => {}
    }
}

fn task(rule: &str, dir: &Path) -> Result<(), String> {
    let text = |error: std::io::Error| format!("the task cannot be read: {error}");
    let params = std::fs::read(dir.join("params.json")).map_err(text)?;
    let task: TaskParams = serde_json::from_slice(&params).map_err(|error| error.to_string())?;
    if task.kind != "double" && rule != "any-kind" {
        return Err(format!("there is no stage `{}`", task.kind));
    }
    if task.version != 1 && rule != "any-version" {
        return Err("the version is another".into());
    }
    let table = read_ipc(&dir.join("in.arrow")).map_err(|error| error.to_string())?;
    let units = table.column(UNIT).map_err(|error| error.to_string())?;
    let xs = table.column("x").unwrap_or_else(|_| vec![Value::Null; table.len()]);
    let sum: i64 = xs.iter().map(|x| if let Value::I64(x) = x { *x } else { 0 }).sum();
    let mut rows = Vec::new();
    for (i, (unit, x)) in units.iter().zip(&xs).enumerate() {
        let Value::I64(x) = x else {
            match rule {
                "dies-of-nulls" => panic!("a null"),
                "empty-error" => failed(Some(i), " "),
                _ => failed(Some(i), "x is null"),
            }
            continue;
        };
        let y = match rule {
            "neighbours" => x + sum,
            "threads" => x + task.threads as i64,
            "time" => std::time::UNIX_EPOCH.elapsed().expect("a time").as_nanos() as i64,
            _ => 2 * x,
        };
        let name = format!("out/{i}.txt");
        std::fs::write(dir.join(&name), y.to_string()).map_err(text)?;
        let page = match rule {
            "no-file" => "out/nothing.txt".into(),
            "file-outside" => "/etc/passwd".into(),
            "file-climbs" => format!("../{}/{name}", dir.file_name().expect("a name").to_string_lossy()),
            _ => name,
        };
        let unit = if rule == "wrong-unit" { Value::I64(99) } else { unit.clone() };
        rows.push(vec![unit, Value::I64(y), Value::Str(page)]);
        if rule == "forgets-a-unit" {
            break;
        }
    }
    match rule {
        "dies" => {
            eprintln!("last words");
            std::process::abort();
        }
        "hangs" => std::thread::sleep(std::time::Duration::from_secs(1000)),
        "closes" => {
            // SAFETY: nothing of ours writes to it any more.
            unsafe { libc::close(1) };
            std::thread::sleep(std::time::Duration::from_secs(1000));
        }
        "prints" => println!("loading the model ..."),
        "progress" => say(&Event::Progress { done: 3, total: 2, note: String::new() }),
        _ => {}
    }
    deliver(rule, dir, &rows)
}

fn deliver(rule: &str, dir: &Path, rows: &[Vec<Value>]) -> Result<(), String> {
    let (y, page) = match rule {
        "other-column" => ("z", "page"),
        _ => ("y", "page"),
    };
    let schema = Schema::new([(UNIT, Type::I64), (y, Type::I64), (page, Type::Str)]).expect("names");
    let mut table = Manifest::from_rows(schema, rows).map_err(|error| error.to_string())?;
    match rule {
        "missing-column" => table = table.select(&[UNIT, "page"]).expect("they are there"),
        "wrong-type" => {
            let texts = vec![Value::Str("four".into()); table.len()];
            let text = Manifest::from_columns(Schema::new([("y", Type::Str)]).expect("a name"), table.len(), &[texts]);
            table = table.select(&[UNIT, "page"]).and_then(|rest| rest.beside(&text?)).expect("columns");
        }
        "wrong-of" => {
            let fives = vec![Value::I64(5); table.len()];
            let of = Manifest::from_columns(Schema::new([("_of", Type::I64)]).expect("a name"), table.len(), &[fives]);
            table = table.beside(&of.expect("a column")).expect("columns");
        }
        _ => {}
    }
    let file = "out.00000.arrow";
    write_ipc(&dir.join(file), &table).map_err(|error| error.to_string())?;
    match rule {
        "cut-part" => std::fs::write(dir.join(file), "ARROW1").map_err(|error| error.to_string())?,
        "part-elsewhere" => {
            std::fs::rename(dir.join(file), dir.join("../part.arrow")).map_err(|error| error.to_string())?;
            say(&Event::Part { file: "../part.arrow".into() });
            return Ok(());
        }
        "part-missing" => {
            say(&Event::Part { file: "out.00001.arrow".into() });
            return Ok(());
        }
        "twice" => {
            std::fs::copy(dir.join(file), dir.join("out.00001.arrow")).map_err(|error| error.to_string())?;
            say(&Event::Part { file: "out.00001.arrow".into() });
        }
        _ => {}
    }
    say(&Event::Part { file: file.into() });
    Ok(())
}
