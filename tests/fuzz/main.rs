//! Input that nobody meant: recipes and Arrow files, cut, spliced and bent by a generator that draws the same every
//! time. None may end in a panic, whatever it says. `make fuzz` tries millions, the normal tests as many as some
//! seconds allow.
//!
//! Knows the engine as a library; starts no program. An input that makes it panic is kept in the build folder.

mod bodies;
mod mutate;

use bodies::{SEEDS, look, provider, tables, understand};
use mutate::Draws;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, Once};
use std::time::{Duration, Instant};

/// How long, or how many.
#[derive(Clone, Copy)]
enum Until {
    Time(Duration),
    Inputs(usize),
}

/// What became of the inputs: so many ended like this.
type Ends = BTreeMap<String, usize>;

/// Tries inputs on two threads; says how they ended.
fn fuzz(
    what: &str,
    until: Until,
    seed: u64,
    input: impl Fn(&mut Draws) -> Vec<u8> + Sync,
    body: impl Fn(&[u8]) -> String + Sync,
) -> Ends {
    static QUIET: Once = Once::new();
    // thousands of caught panics would tell nothing; the first one is told below
    QUIET.call_once(|| std::panic::set_hook(Box::new(|_| {})));
    let (since, stop) = (Instant::now(), AtomicBool::new(false));
    let (ends, broken) = (Mutex::new(Ends::new()), Mutex::new(None));
    std::thread::scope(|scope| {
        for thread in 0..2u64 {
            let (ends, broken, stop, input, body) = (&ends, &broken, &stop, &input, &body);
            scope.spawn(move || {
                let mut draws = Draws::new(seed * 2 + thread);
                let mut own = Ends::new();
                for n in 0.. {
                    let over = match until {
                        Until::Time(most) => n % 16 == 0 && since.elapsed() > most,
                        Until::Inputs(most) => n >= most / 2,
                    };
                    if over || stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let bytes = input(&mut draws);
                    match std::panic::catch_unwind(AssertUnwindSafe(|| body(&bytes))) {
                        Ok(end) => *own.entry(end).or_default() += 1,
                        Err(panic) => {
                            let text = panic.downcast_ref::<String>().cloned();
                            let text = text.or(panic.downcast_ref::<&str>().map(|text| text.to_string()));
                            *broken.lock().unwrap() = Some((text.unwrap_or_default(), bytes));
                            stop.store(true, Ordering::Relaxed);
                        }
                    }
                }
                let mut all = ends.lock().unwrap();
                own.into_iter().for_each(|(end, count)| *all.entry(end).or_default() += count);
            });
        }
    });
    if let Some((text, bytes)) = broken.into_inner().unwrap() {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{what}.panic"));
        std::fs::write(&kept, &bytes).expect("it can be kept");
        let _ = std::panic::take_hook();
        panic!("{what}: it panicked: {text}\n{}\nkept in {}", String::from_utf8_lossy(&bytes), kept.display());
    }
    let ends = ends.into_inner().unwrap();
    let count: usize = ends.values().sum();
    println!("{what}: {count} inputs in {:.1} s, {} different ends", since.elapsed().as_secs_f64(), ends.len());
    let mut most: Vec<_> = ends.iter().collect();
    most.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    most.iter().take(12).for_each(|(end, count)| println!("  {count:9} {end}"));
    ends
}

fn recipe(draws: &mut Draws) -> Vec<u8> {
    let seed = SEEDS[[1, 1, 1, 2, 3, 0][draws.below(6)]];
    mutate::text(seed, SEEDS[1], draws)
}

fn recipes(until: Until, seed: u64) {
    let provider = provider();
    let ends = fuzz("recipes", until, seed, recipe, |bytes| understand(&provider, bytes));
    // a generator that reaches nothing finds nothing
    assert!(ends["a plan"] > 0 && ends.len() > 30, "{ends:?}");
}

fn arrow_files(until: Until, seed: u64) {
    let seeds = tables();
    let ends = fuzz(
        "tables",
        until,
        seed,
        |draws| {
            let (one, other) = (draws.below(seeds.len()), draws.below(seeds.len()));
            mutate::bytes(&seeds[one], &seeds[other], draws)
        },
        look,
    );
    assert!(ends["a table"] > 0 && ends.len() > 5, "{ends:?}");
}

#[test]
fn no_recipe_makes_it_panic() {
    recipes(Until::Time(Duration::from_secs(6)), 1);
}

#[test]
fn no_arrow_file_makes_it_panic() {
    arrow_files(Until::Time(Duration::from_secs(4)), 2);
}

/// Not for every day: `make fuzz`.
#[test]
#[ignore = "it takes minutes"]
fn at_length() {
    recipes(Until::Inputs(2_000_000), 3);
    arrow_files(Until::Inputs(3_000_000), 4);
}

/// The sound inputs as files, for the targets of cargo-fuzz beside this file: `make fuzz`.
#[test]
#[ignore = "it writes files"]
fn seeds() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("seeds");
    let files = SEEDS
        .iter()
        .map(|seed| ("recipes", seed.as_bytes().to_vec()))
        .chain(tables().into_iter().map(|table| ("tables", table)));
    for (i, (kind, bytes)) in files.enumerate() {
        std::fs::create_dir_all(folder.join(kind)).expect("a folder");
        std::fs::write(folder.join(kind).join(i.to_string()), bytes).expect("a file");
    }
}
