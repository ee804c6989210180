//! `inetbootctl catalogue`: makes GRUB's and iPXE's menus of the file that the agent's own menu reads.

use crate::config::Config;
use crate::formats::boot_menu::grub_quoted;
use crate::formats::catalogue::{Catalogue, Entry};
use crate::formats::cmdline;
use anyhow::{Context, bail, ensure};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// The entries that follow those of the catalogue in every menu: name, title, and arguments.
const OURS: [(&str, &str, &str); 2] = [
    ("menu", "InetBoot's own menu, for other addresses", ""),
    ("shell", "InetBoot shell", "inetboot.onfail=shell"),
];

/// Names that the menus use themselves.
const RESERVED: [&str; 4] = ["exit", "inetboot", "menu", "shell"];

/// Text that iPXE interprets wherever it stands: it has no quotes.
const IPXE_SPECIAL: [&str; 5] = ["${", "&&", "||", ";", "#"];

/// Reads a catalogue from a file.
///
/// # Errors
/// It cannot be read, or one of its entries cannot be booted or cannot be written into a menu.
pub fn read(path: &Path) -> anyhow::Result<Catalogue> {
    let name = path.display();
    let text = fs::read_to_string(path).with_context(|| format!("reading {name}"))?;
    let catalogue = Catalogue::decode(&text).with_context(|| format!("{name} is not understood"))?;
    for entry in &catalogue.entries {
        Config::parse(&cmdline::words(&entry.to_string()))
            .with_context(|| format!("{name}: entry {}", entry.name))?;
        ensure!(
            !RESERVED.contains(&&*entry.name),
            "{name}: entry {}: that name is one of ours ({})",
            entry.name,
            RESERVED.join(", ")
        );
        if let Some(mark) = ipxe_mark(&entry.title).or_else(|| ipxe_mark(&entry.to_string())) {
            bail!("{name}: entry {}: iPXE would take \"{mark}\" for its own: leave it out", entry.name);
        }
    }
    Ok(catalogue)
}

/// The first mark in `text` that iPXE would interpret.
pub(super) fn ipxe_mark(text: &str) -> Option<&'static str> {
    IPXE_SPECIAL.into_iter().find(|mark| text.contains(mark))
}

/// Makes a menu for GRUB, with kernel and initramfs in `$inetboot`. Every kernel gets `arguments` too, and, if
/// `has_shell`, a second initrd with the shell. A menu that `is_whole` also has the catalogue's timeout.
pub fn grub(catalogue: &Catalogue, arguments: &str, has_shell: bool, is_whole: bool) -> String {
    let mut text = match catalogue.timeout {
        Some(timeout) if is_whole => format!("set timeout={}\n", timeout.as_secs()),
        _ => String::new(),
    };
    for (name, title, words) in rows(catalogue, has_shell) {
        let words = grub_words(&format!("{arguments} {words}"));
        let shell = if has_shell { " $inetboot/shell.img" } else { "" };
        // Our own entries come after many others, and so are chosen by their first letters.
        let is_ours = OURS.iter().any(|(ours, ..)| *ours == name);
        let hotkey = if is_ours { format!(" --hotkey={}", &name[..1]) } else { String::new() };
        let _ = write!(
            text,
            "menuentry {} --id inetboot-{name}{hotkey} {{\n\tlinux $inetboot/vmlinuz{words}\n\tinitrd $inetboot/initramfs.img{shell}\n}}\n",
            grub_quoted(title),
        );
    }
    text
}

/// Makes a menu for iPXE and a script for each entry: file names and contents, for the directory on a web server
/// that has vmlinuz and initramfs.img.
pub fn ipxe(catalogue: &Catalogue, arguments: &str, has_shell: bool) -> Vec<(String, String)> {
    let wait = match catalogue.timeout {
        None => String::new(),
        Some(timeout) => format!(" --timeout {}", timeout.as_millis()),
    };

    let mut menu = String::from("#!ipxe\n:start\nmenu InetBoot: what shall be booted?\n");
    let mut scripts = Vec::new();
    for (name, title, words) in rows(catalogue, has_shell) {
        let _ = writeln!(menu, "item {name} {title}");
        let words: String =
            cmdline::words(&format!("{arguments} {words}")).iter().map(|word| format!(" {word}")).collect();
        let (named, loaded) = if has_shell { (" initrd=shell.img", "initrd shell.img\n") } else { ("", "") };
        let script = format!(
            "#!ipxe\n# {title}\nkernel vmlinuz initrd=initramfs.img{named} BOOTIF=01-${{netX/mac:hexhyp}}{words}\ninitrd initramfs.img\n{loaded}boot\n"
        );
        scripts.push((format!("{name}.ipxe"), script));
    }

    let _ = write!(
        menu,
        "item exit iPXE's own shell\nchoose{wait} selected || goto exit\niseq ${{selected}} exit && goto exit ||\nchain ${{selected}}.ipxe || goto start\n:exit\nshell\n"
    );
    scripts.push(("inetboot.ipxe".into(), menu));
    scripts
}

/// Name, title and arguments of each entry.
fn rows(catalogue: &Catalogue, has_shell: bool) -> impl Iterator<Item = (&str, &str, String)> {
    let entries = catalogue.entries.iter();
    let entries = entries.map(|entry: &Entry| (&*entry.name, &*entry.title, entry.to_string()));
    let ours = OURS.into_iter().filter(move |(name, ..)| has_shell || *name != "shell");
    entries.chain(ours.map(|(name, title, words)| (name, title, words.to_owned())))
}

/// Kernel arguments in GRUB's language, a blank before each.
pub(super) fn grub_words(words: &str) -> String {
    cmdline::words(words).iter().map(|word| format!(" {}", grub_word(word))).collect()
}

/// GRUB puts quotes around a word with blanks by itself, so the word is given to it without its own.
fn grub_word(word: &cmdline::Word) -> String {
    match &word.value {
        Some(value) => grub_quoted(&format!("{}={value}", word.key)),
        None => grub_quoted(&word.key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOML: &str = r#"
        timeout = 3
        [[entry]]
        name = "a"
        title = "Anna's, $5"
        netdir = "http://h/a.iso"
        arguments = 'bootxen=1 inetboot.xen="dom0_mem=1G smap=0"'
    "#;

    #[test]
    fn grub_gets_words_that_it_leaves_alone() {
        let text = grub(&Catalogue::decode(TOML).unwrap(), "console=ttyS0", true, false);
        assert!(text.contains(r"menuentry 'Anna'\''s, $5' --id inetboot-a {"), "{text}");
        let linux = "\tlinux $inetboot/vmlinuz console=ttyS0 netdir=http://h/a.iso bootxen=1 'inetboot.xen=dom0_mem=1G smap=0'\n";
        assert!(text.contains(linux), "{text}");
        assert!(text.contains("inetboot.onfail=shell\n\tinitrd $inetboot/initramfs.img $inetboot/shell.img"));
        let alone = grub(&Catalogue::decode(TOML).unwrap(), "", false, true);
        assert!(!alone.contains("shell") && alone.starts_with("set timeout=3\n"), "{alone}");
    }

    #[test]
    fn what_a_menu_could_not_say_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (name, title, words) in
            [("menu", "A", "one of ours"), ("a", "A #1", "\"#\""), ("a", "A ${x}", "\"${\"")]
        {
            let entry =
                format!("[[entry]]\nname = \"{name}\"\ntitle = \"{title}\"\nnetdir = \"http://h/a\"\n");
            fs::write(file.path(), entry).unwrap();
            let error = read(file.path()).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn ipxe_gets_a_menu_and_a_script_for_each_entry() {
        let files = ipxe(&Catalogue::decode(TOML).unwrap(), "", false);
        let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a.ipxe", "menu.ipxe", "inetboot.ipxe"]);
        assert!(
            files[0].1.contains("kernel vmlinuz initrd=initramfs.img BOOTIF=01-${netX/mac:hexhyp} netdir=")
        );
        assert!(files.last().unwrap().1.contains("choose --timeout 3000 selected"));
    }
}
