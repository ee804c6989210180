//! The plans for the current releases of every family, made from descriptions of their media in
//! `fixtures/media`: file names, sizes, menus, and the plan that is expected.
#![allow(clippy::unwrap_used, clippy::panic)]

use inetboot::config::Target;
use inetboot::distro::{Plan, recognise};
use std::fs::{self, File};
use std::path::Path;

/// Makes the files of the medium that `text` describes, in `dir`. Gives the lines of the expected plan.
fn make_medium(text: &str, dir: &Path) -> Vec<String> {
    let mut plan = Vec::new();
    let mut menu = None;
    for line in text.lines() {
        if let Some(line) = line.strip_prefix('|') {
            let menu: &mut String = menu.as_mut().map(|(_, text)| text).unwrap();
            menu.push_str(line.strip_prefix(' ').unwrap_or(line));
            menu.push('\n');
            continue;
        }

        if let Some((path, text)) = menu.take() {
            write(dir, path, text);
        }

        match line.split(' ').collect::<Vec<_>>()[..] {
            ["#", ..] => {}
            ["present", path] => write(dir, path, String::new()),
            ["present", path, size] => {
                write(dir, path, String::new());
                File::create(dir.join(path)).unwrap().set_len(size.parse().unwrap()).unwrap();
            }
            ["menu", path] => menu = Some((path, String::new())),
            _ => plan.push(line.to_owned()),
        }
    }
    plan
}

fn write(dir: &Path, path: &str, text: String) {
    let path = dir.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn lines(plan: &Plan) -> Vec<String> {
    let mut lines = vec![
        format!("family {}", plan.family),
        format!("title {}", plan.title),
        format!("kernel {}", plan.kernel.display()),
    ];
    lines.extend(plan.initrds.iter().map(|path| format!("initrd {}", path.display())));
    lines.extend(plan.words.iter().map(|word| format!("word {word}")));
    lines.extend(plan.premount.map(|dir| format!("premount {dir}")));
    lines.extend(plan.roots.iter().map(|path| format!("root {}", path.display())));
    lines
}

/// Every release is recognised, and gets the plan of its description; `type=` makes no difference.
#[test]
fn releases() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/media");
    let mut releases = 0;
    for file in fs::read_dir(fixtures).unwrap().map(|entry| entry.unwrap().path()) {
        if file.extension().is_none_or(|extension| extension != "txt") {
            continue;
        }
        releases += 1;

        let dir = tempfile::tempdir().unwrap();
        let wanted = make_medium(&fs::read_to_string(&file).unwrap(), dir.path());
        let plan = recognise(dir.path(), &Target::default())
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert_eq!(lines(&plan), wanted, "{}", file.display());

        let forced = Target { family: plan.family.parse().ok(), ..Target::default() };
        assert_eq!(recognise(dir.path(), &forced).unwrap(), plan, "type= makes no difference");
    }
    assert!(releases >= 8, "{releases} releases");
}

/// `bootxen=1` finds the hypervisor beside the kernel, though the menu does not name it.
#[test]
fn hypervisor_beside_the_kernel() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/media");
    let dir = tempfile::tempdir().unwrap();
    make_medium(&fs::read_to_string(fixtures.join("opensuse-tumbleweed.txt")).unwrap(), dir.path());

    let pass_on = vec!["console=ttyS0".to_owned()];
    let target = Target { xen: Some(vec!["dom0_mem=1G".into()]), pass_on, ..Target::default() };
    let plan = recognise(dir.path(), &target).unwrap();
    let hypervisor = plan.hypervisor.unwrap();
    assert_eq!(hypervisor.path, "boot/x86_64/loader/xen.gz");
    assert_eq!(hypervisor.words, ["com1=115200,8n1", "console=vga,com1", "no-real-mode", "dom0_mem=1G"]);
    assert_eq!(plan.words.last().unwrap(), "console=hvc0");
}
