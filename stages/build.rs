//! Two things Cargo does not do by itself: notice a new stage file, and let the finished binary find libtorch
//! without `LD_LIBRARY_PATH`.
fn main() {
    println!("cargo:rerun-if-changed=src");
    if let Ok(dir) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{dir}");
        println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib");
    }
}
