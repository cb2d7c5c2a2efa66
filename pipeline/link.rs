//! How the program is linked: at a fixed address. Position-independent, it would spend three milliseconds of every
//! start on the relocation of tables that a run with nothing to do never looks at.

fn main() {
    println!("cargo:rerun-if-changed=pipeline/link.rs");
    println!("cargo:rustc-link-arg-bins=-no-pie");
}
