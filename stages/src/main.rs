//! `effigy-stages`: the provider of the avatar stages. One file a stage; each registers itself, so a new stage is a new
//! file here and a stanza in a recipe, and no list is edited.
//!
//! `common` holds no stages but what several need: images, videos and arrays on disk, head models, an avatar's parts. `import` is a command beside the stages.
//!
//! Knows no recipes, keys or caches: rows come in, rows go out (see the `protocol` crate).

automod::dir!("src");
mod common;

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|verb| verb == "import") {
        return list_capture(&arguments[1..]);
    }
    let software = [
        ("libtorch", tch_version()),
        ("opencv", opencv::core::get_version_string().unwrap_or_else(|error| error.to_string())),
    ];
    let code = protocol::provider_main("effigy-stages", env!("CARGO_PKG_VERSION"), &software, prepare);
    if code == ExitCode::SUCCESS {
        let _ = std::io::stdout().flush();
        models::runtime::leave();
    }
    code
}

/// The command `import`; whoever reads its answer may have seen enough and closed the pipe.
fn list_capture(arguments: &[String]) -> ExitCode {
    match import::answer(arguments) {
        Ok(text) => match writeln!(std::io::stdout(), "{text}") {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
            _ => ExitCode::SUCCESS,
        },
        Err(error) => {
            eprintln!("error: {}", format!("{error:#}").replace("\nhint: ", "\n  hint: "));
            ExitCode::from(2)
        }
    }
}

/// The libtorch this binary was built against: torch-sys of this version takes no other.
fn tch_version() -> String {
    "2.13".into()
}

/// Holds every thread pool of the process to the threads of the task: two pools on the same cores stall each other.
fn prepare(threads: usize) {
    models::runtime::prepare(threads);
    // the pool of a process is made once; a later task of another width uses what is there
    let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    // OpenCV's own pool would fight rayon's
    let _ = opencv::core::set_num_threads(1);
}
