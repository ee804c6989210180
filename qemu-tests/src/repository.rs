//! The repository as the harness uses it: its scripts, what they build, and the programs that
//! `scripts/setup` installs. All of it fails by a panic that says which command helps.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The repository's top directory.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is in the repository")
}

/// A file that `scripts/build` or `scripts/media` made.
pub fn built(name: &str) -> PathBuf {
    let path = repository().join("target/boot").join(name);
    assert!(path.exists(), "{} is missing: run scripts/build (scripts/test does)", path.display());
    path
}

/// The output of one of `scripts/`, trimmed.
pub fn script(name: &str) -> String {
    output_of(&mut Command::new(repository().join("scripts").join(name)))
}

/// A program that the tests bring along, in `qemu-tests/programs`.
pub fn program(name: &str) -> String {
    repository().join("qemu-tests/programs").join(name).display().to_string()
}

/// The output of `command`, trimmed. Its messages go to the test's own.
pub fn output_of(command: &mut Command) -> String {
    let output =
        command.stderr(Stdio::inherit()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?} failed");
    String::from_utf8(output.stdout).expect("scripts print text").trim().to_owned()
}

/// Runs a program in `dir` and gives its output. It has to succeed.
pub fn run(dir: &Path, program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(dir)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error} (scripts/setup installs it)"));
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs `inetbootctl` in `dir` and gives its output. It has to succeed.
pub fn inetbootctl(dir: &Path, arguments: &[&str]) -> String {
    run(dir, &text(&built("inetbootctl")), arguments)
}

/// A path as text, for the command lines of programs.
pub fn text(path: &Path) -> String {
    path.to_str().expect("the paths of tests are text").to_owned()
}
