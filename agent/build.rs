//! Links the release programs without the unwinder's tables: with musl they abort on panic, so nothing reads
//! the tables.

fn main() {
    let script = "discard-unwind.ld";
    println!("cargo:rerun-if-changed={script}");

    let is_set_to = |variable: &str, value: &str| std::env::var(variable).is_ok_and(|found| found == value);
    if is_set_to("CARGO_CFG_TARGET_ENV", "musl") && is_set_to("PROFILE", "release") {
        println!(
            "cargo:rustc-link-arg-bins=-Wl,--no-eh-frame-hdr,-T,{}/{script}",
            env!("CARGO_MANIFEST_DIR")
        );
    }
}
