//! Release programs for musl abort on panic: link them without the tables of the unwinder.

fn main() {
    let script = "discard-unwind.ld";
    println!("cargo:rerun-if-changed={script}");
    let is = |variable: &str, value: &str| std::env::var(variable).is_ok_and(|found| found == value);
    if is("CARGO_CFG_TARGET_ENV", "musl") && is("PROFILE", "release") {
        println!(
            "cargo:rustc-link-arg-bins=-Wl,--no-eh-frame-hdr,-T,{}/{script}",
            env!("CARGO_MANIFEST_DIR")
        );
    }
}
