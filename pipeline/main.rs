//! The program `effigy`: the engine's command line, and nothing else. Links neither libtorch nor OpenCV.

use std::process::ExitCode;

fn main() -> ExitCode {
    pipeline::cli::main()
}
