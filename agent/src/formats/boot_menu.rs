//! The medium's own boot menu: GRUB's `grub.cfg` and `loopback.cfg`, and ISOLINUX's configuration. Pure.
//!
//! A reader of menus, not an interpreter: variables are followed, `if` is not evaluated (both branches are
//! read), and the first entry wins. [`grub_quoted`] is the other way round, for the menus that we write.

use crate::formats::cmdline::{self, Word};
use std::collections::HashMap;

/// A program that a menu starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// A path on the medium, without a leading `/`.
    pub path: String,
    /// Its arguments, each as it stands on a kernel's command line.
    pub words: Vec<String>,
}

/// An entry that starts Linux, by itself or under a hypervisor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    pub title: String,
    /// A path on the medium, without a leading `/`.
    pub kernel: String,
    /// Paths like the kernel's.
    pub initrds: Vec<String>,
    /// The kernel's arguments, as in [`Program`]. Words with a variable that is not set are left out: the boot
    /// loader would have known its value.
    pub words: Vec<String>,
    /// The hypervisor that starts it all (`multiboot2`, `mboot.c32`).
    pub hypervisor: Option<Program>,
}

/// Reads a file that a menu includes, by its path on the medium.
pub type Files<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// Includes within includes at most; deeper ones are a loop.
const DEEPEST: usize = 8;

/// The Linux entries of the menu in `text`. Its path tells GRUB's language from ISOLINUX's.
pub fn entries(path: &str, text: &str, files: &Files<'_>) -> Vec<Entry> {
    // The others are ISOLINUX's, and SYSLINUX's, which are the same.
    if path.ends_with("grub.cfg") || path.ends_with("loopback.cfg") {
        let mut grub = Grub { variables: HashMap::new(), entries: Vec::new(), open: None, files };
        grub.read(text, 0);
        grub.entries
    } else {
        let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
        let mut isolinux = Isolinux { dir, entries: Vec::new(), files };
        isolinux.read(text, 0);
        isolinux.entries.retain(Entry::is_whole);
        isolinux.entries
    }
}

impl Entry {
    /// True if it starts Linux, as far as can be seen.
    fn is_whole(&self) -> bool {
        !self.kernel.is_empty() && !self.initrds.is_empty()
    }

    /// Adds a module that a hypervisor is given: the first is the kernel, the others are initrds.
    fn add_module(&mut self, module: Program) {
        if self.kernel.is_empty() {
            self.kernel = module.path;
            self.words = module.words;
        } else {
            self.initrds.push(module.path);
        }
    }
}

struct Grub<'a> {
    variables: HashMap<String, String>,
    entries: Vec<Entry>,
    /// The menuentry that has begun and not ended.
    open: Option<Entry>,
    files: &'a Files<'a>,
}

impl Grub<'_> {
    fn read(&mut self, text: &str, depth: usize) {
        // A backslash at the end of a line joins it with the next.
        for line in text.replace("\\\n", " ").lines() {
            for words in grub_statements(line) {
                self.statement(&words, depth);
            }
        }
        if depth == 0 {
            self.close();
        }
    }

    fn statement(&mut self, words: &[Template], depth: usize) {
        let plain: Vec<String> = words.iter().map(|word| self.expand(word).0).collect();
        let plain: Vec<&str> = plain.iter().map(String::as_str).collect();

        match plain.as_slice() {
            ["set", assignment, ..] => {
                if let Some((name, value)) = assignment.split_once('=') {
                    self.variables.insert(name.to_owned(), value.to_owned());
                }
            }
            ["menuentry", title, ..] => {
                self.close();
                self.open = Some(Entry { title: (*title).to_owned(), ..Entry::default() });
            }
            ["}", ..] => self.close(),
            ["source" | "configfile" | ".", path, ..] if depth < DEEPEST => {
                if let Some(text) = (self.files)(relative(path)) {
                    self.read(&text, depth + 1);
                }
            }
            _ => self.command(&plain, words),
        }
    }

    /// A command of the entry that is open.
    fn command(&mut self, plain: &[&str], words: &[Template]) {
        let program = self.program(words.get(1..).unwrap_or_default());
        let Some(entry) = &mut self.open else { return };
        match plain {
            ["linux" | "linuxefi" | "linux16", ..] => {
                (entry.kernel, entry.words) = (program.path, program.words);
            }
            ["multiboot" | "multiboot2", ..] => entry.hypervisor = Some(program),
            ["module" | "module2", ..] => entry.add_module(program),
            ["initrd" | "initrdefi" | "initrd16", initrds @ ..] => {
                entry.initrds = initrds.iter().map(|path| relative(path).to_owned()).collect();
            }
            _ => {}
        }
    }

    fn close(&mut self) {
        self.entries.extend(self.open.take().filter(Entry::is_whole));
    }

    /// A path and arguments, after the command's own options. Arguments that a kernel's command line cannot
    /// say are left out: one quote too many would swallow the words after it.
    fn program(&self, words: &[Template]) -> Program {
        let mut words =
            words.iter().map(|word| self.expand(word)).skip_while(|(word, _)| word.starts_with("--"));
        let path = words.next().map(|(path, _)| relative(&path).to_owned()).unwrap_or_default();
        let complete = words.filter(|(_, complete)| *complete);
        let said = complete.filter_map(|(word, _)| Word::from_text(&word)).map(|word| word.raw);
        Program { path, words: said.collect() }
    }

    /// Replaces a word's variables. False if one of them is not set.
    fn expand(&self, word: &Template) -> (String, bool) {
        let mut text = String::new();
        let mut complete = true;
        for part in word {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Variable(name) => match self.variables.get(name) {
                    Some(value) => text.push_str(value),
                    None => complete = false,
                },
            }
        }
        (text, complete)
    }
}

/// A word of GRUB's language, its quotes removed and its variables marked.
type Template = Vec<Part>;

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Variable(String),
}

/// The statements of one line, as GRUB's lexer splits them (GRUB manual, "Quoting"): `;` and `{` end one, and
/// `}` is one by itself. What follows `#` is a comment.
fn grub_statements(line: &str) -> Vec<Vec<Template>> {
    let mut statements = vec![Vec::new()];
    let mut word: Option<Template> = None;
    let mut chars = line.chars().peekable();
    let mut quote: Option<char> = None;
    let push = |word: &mut Option<Template>, character: char| {
        let parts = word.get_or_insert_default();
        match parts.last_mut() {
            Some(Part::Text(text)) => text.push(character),
            _ => parts.push(Part::Text(character.into())),
        }
    };
    let end_word = |statements: &mut Vec<Vec<Template>>, word: &mut Option<Template>| {
        if let Some(last) = statements.last_mut() {
            last.extend(word.take());
        }
    };

    while let Some(character) = chars.next() {
        match (character, quote) {
            (c, Some(q)) if c == q => quote = None,
            ('\'' | '"', None) => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            ('\\', None | Some('"')) => {
                if let Some(next) = chars.next() {
                    push(&mut word, next);
                }
            }
            ('$', None | Some('"')) => {
                let mut name = String::new();
                if chars.next_if_eq(&'{').is_some() {
                    name.extend(std::iter::from_fn(|| chars.next_if(|c| *c != '}')));
                    chars.next();
                } else {
                    name.extend(std::iter::from_fn(|| chars.next_if(|c| c.is_alphanumeric() || *c == '_')));
                }
                word.get_or_insert_default().push(Part::Variable(name));
            }
            ('#', None) if word.is_none() => break,
            (';' | '{' | '}', None) => {
                end_word(&mut statements, &mut word);
                if character == '}' {
                    statements.push(vec![vec![Part::Text("}".into())]]);
                }
                statements.push(Vec::new());
            }
            (c, None) if c.is_whitespace() => end_word(&mut statements, &mut word),
            (c, _) => push(&mut word, c),
        }
    }
    end_word(&mut statements, &mut word);
    statements.retain(|statement| !statement.is_empty());
    statements
}

/// `text` as one word of GRUB's language.
pub fn grub_quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_=+:/.,@%".contains(c);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

/// A path from the medium's root: without GRUB's device prefix and leading slashes.
fn relative(path: &str) -> &str {
    let path = match path.split_once(')') {
        Some((device, rest)) if device.starts_with('(') => rest,
        _ => path,
    };
    path.trim_start_matches('/')
}

struct Isolinux<'a> {
    dir: &'a str,
    entries: Vec<Entry>,
    files: &'a Files<'a>,
}

impl Isolinux<'_> {
    fn read(&mut self, text: &str, depth: usize) {
        for line in text.lines() {
            let line = line.trim();
            let (key, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let rest = rest.trim();
            match key.to_ascii_lowercase().as_str() {
                "label" => self.entries.push(Entry { title: rest.to_owned(), ..Entry::default() }),
                "include" if depth < DEEPEST => {
                    let path = self.path(rest);
                    if let Some(text) = (self.files)(&path) {
                        self.read(&text, depth + 1);
                    }
                }
                "append" => self.append(rest),
                key => self.line(key, rest),
            }
        }
    }

    /// A line that is about the last label.
    fn line(&mut self, key: &str, rest: &str) {
        let kernel = self.path(rest);
        let initrds = rest.split(',').map(|path| self.path(path.trim())).collect();
        let Some(entry) = self.entries.last_mut() else { return };
        match (key, rest.split_once(char::is_whitespace)) {
            // `^` marks the hot key.
            ("menu", Some((label, title))) if label.eq_ignore_ascii_case("label") => {
                entry.title = title.trim().replace('^', "");
            }
            ("linux" | "kernel", _) => entry.kernel = kernel,
            ("initrd", _) => entry.initrds = initrds,
            _ => {}
        }
    }

    fn append(&mut self, rest: &str) {
        if self.entries.last().is_some_and(|entry| entry.kernel.ends_with("mboot.c32")) {
            self.multiboot(rest);
            return;
        }

        let mut words = Vec::new();
        let mut initrds = None;
        // A quote that is left open is closed: the kernel reads the same, and what is appended is not swallowed.
        let is_open = cmdline::words(rest).last().is_some_and(Word::has_open_quote);
        let closed = if is_open { format!("{rest}\"") } else { rest.to_owned() };
        for word in cmdline::words(&closed).into_iter().map(|word| word.raw) {
            match word.strip_prefix("initrd=") {
                Some(paths) => initrds = Some(paths.split(',').map(|path| self.path(path)).collect()),
                // ISOLINUX knows no variables; a `$` is left over from a template.
                None if word.contains('$') => {}
                None => words.push(word),
            }
        }

        if let Some(entry) = self.entries.last_mut() {
            entry.words = words;
            if let Some(initrds) = initrds {
                entry.initrds = initrds;
            }
        }
    }

    /// `HYPERVISOR ARGUMENTS --- KERNEL ARGUMENTS --- INITRD`
    fn multiboot(&mut self, rest: &str) {
        let mut programs = rest.split("---").map(|part| {
            let mut words = cmdline::words(part).into_iter().map(|word| word.raw);
            let path = words.next().map(|path| self.path(&path)).unwrap_or_default();
            Program { path, words: words.collect() }
        });
        let hypervisor = programs.next();
        let modules: Vec<Program> = programs.collect();
        if let Some(entry) = self.entries.last_mut() {
            entry.kernel.clear();
            entry.hypervisor = hypervisor;
            modules.into_iter().for_each(|module| entry.add_module(module));
        }
    }

    /// Paths without a leading slash are relative to the configuration's directory.
    fn path(&self, path: &str) -> String {
        match path.strip_prefix('/') {
            Some(absolute) => absolute.to_owned(),
            None if self.dir.is_empty() => path.to_owned(),
            None => format!("{}/{path}", self.dir),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn grub(text: &str) -> Vec<Entry> {
        entries("boot/grub/grub.cfg", text, &|_| None)
    }

    #[test]
    fn a_debian_menu_gives_its_first_entry() {
        // In the shape live-build writes, tabs and an unset variable included.
        let text = "source /boot/grub/config.cfg\n\n# Live boot\n\
            menuentry \"Live system (amd64)\" --hotkey=l {\n\
            \tlinux\t/live/vmlinuz-6.1.0-56-amd64 boot=live components quiet splash findiso=${iso_path}\n\
            \tinitrd\t/live/initrd.img-6.1.0-56-amd64\n}\n\
            menuentry \"Live system (amd64 fail-safe mode)\" {\n\
            \tlinux\t/live/vmlinuz-6.1.0-56-amd64 boot=live components memtest noapic\n\
            \tinitrd\t/live/initrd.img-6.1.0-56-amd64\n}\n";
        let entries = grub(text);
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].title, "Live system (amd64)");
        assert_eq!(entries[0].kernel, "live/vmlinuz-6.1.0-56-amd64");
        assert_eq!(entries[0].initrds, ["live/initrd.img-6.1.0-56-amd64"]);
        assert_eq!(entries[0].words, ["boot=live", "components", "quiet", "splash"]);
    }

    #[test]
    fn variables_quotes_and_includes_are_followed() {
        let text = "set options=\"a b\"\nsource /boot/x.cfg\n";
        let included =
            "menuentry 'It''s' {\n linux ($root)/k \"$options\" c\\ d 'e $f' \\\n g\n initrd /1 /2\n}\n";
        let files = |path: &str| (path == "boot/x.cfg").then(|| included.to_owned());
        let found = entries("boot/grub/loopback.cfg", text, &files);
        assert_eq!(found[0].title, "Its");
        assert_eq!(found[0].kernel, "k");
        assert_eq!(found[0].words, ["\"a b\"", "\"c d\"", "\"e $f\"", "g"]);
        assert_eq!(found[0].initrds, ["1", "2"]);
    }

    #[test]
    fn entries_that_start_no_linux_are_passed_over() {
        assert_eq!(grub("menuentry x {\n chainloader /efi\n}\nmenuentry y {\n fwsetup\n}\n"), []);
    }

    #[test]
    fn a_hypervisor_and_what_it_starts_are_read() {
        let text = "menuentry 'Xen' {\n multiboot2 /boot/xen.gz dom0_mem=1G ${x}\n\
            module2 /live/vmlinuz boot=live quiet\n module2 --nounzip ($root)/live/initrd.img\n}\n";
        let found = grub(text);
        let xen = Program { path: "boot/xen.gz".into(), words: vec!["dom0_mem=1G".into()] };
        assert_eq!(found[0].hypervisor, Some(xen));
        assert_eq!(
            (found[0].kernel.as_str(), found[0].initrds[0].as_str()),
            ("live/vmlinuz", "live/initrd.img")
        );
        assert_eq!(found[0].words, ["boot=live", "quiet"]);

        let text =
            "label xen\n kernel mboot.c32\n append xen.gz dom0_mem=1G --- vmlinuz boot=live --- initrd.img\n";
        let found = entries("isolinux/isolinux.cfg", text, &|_| None);
        let xen = Program { path: "isolinux/xen.gz".into(), words: vec!["dom0_mem=1G".into()] };
        assert_eq!(found[0].hypervisor, Some(xen));
        assert_eq!(found[0].kernel, "isolinux/vmlinuz");
        assert_eq!(found[0].words, ["boot=live"]);
        assert_eq!(found[0].initrds, ["isolinux/initrd.img"]);
    }

    /// Blanks in quotes separate no words behind a hypervisor either.
    #[test]
    fn quoted_words_behind_a_hypervisor() {
        let text =
            "label xen\n kernel mboot.c32\n append xen.gz a=\"b c\" --- vmlinuz d=\"e f\" --- initrd.img\n";
        let found = entries("isolinux/isolinux.cfg", text, &|_| None);
        assert_eq!(found[0].hypervisor.as_ref().unwrap().words, ["a=\"b c\""]);
        assert_eq!(found[0].words, ["d=\"e f\""]);
    }

    #[test]
    fn a_menu_that_includes_itself_ends() {
        let text = "source /boot/grub/grub.cfg\n";
        entries("boot/grub/grub.cfg", text, &|_| Some(text.to_owned()));
    }

    #[test]
    fn isolinux_is_read_too() {
        let text = "label live-amd64\n\tMENU LABEL ^Live system\n\tlinux /live/vmlinuz\n\tinitrd /live/initrd.img\n\
            \tappend boot=live components findiso=${iso_path}\nlabel old\n kernel vmlinuz\n append initrd=initrd.gz quiet\n";
        let found = entries("isolinux/live.cfg", text, &|_| None);
        assert_eq!(found[0].title, "Live system");
        assert_eq!(found[0].words, ["boot=live", "components"]);
        assert_eq!(found[1].kernel, "isolinux/vmlinuz");
        assert_eq!(found[1].initrds, ["isolinux/initrd.gz"]);
    }

    /// An entry on one line is read as one over several lines is; braces and semicolons in quotes are text.
    #[test]
    fn statements_share_a_line() {
        let found = grub(
            "menuentry 'A {x; y}' { linux /k 'a;b' c; initrd /i; }\nmenuentry b{ linux /l\n initrd /j\n}",
        );
        assert_eq!((found[0].title.as_str(), found[0].kernel.as_str()), ("A {x; y}", "k"));
        assert_eq!(
            (found[0].words.as_slice(), found[0].initrds[0].as_str()),
            (&["a;b".into(), "c".into()][..], "i")
        );
        assert_eq!((found[1].title.as_str(), found[1].kernel.as_str(), found.len()), ("b", "l", 2));
    }

    /// No argument of a medium's menu swallows those that are appended to it.
    #[test]
    fn open_quotes_swallow_nothing() {
        let found = grub("menuentry a {\n linux /k x=\\\" '\"a b\"' ok\n initrd /i\n}\n");
        assert_eq!(found[0].words, ["\"a b\"", "ok"]);
        let text = "label a\n kernel /k\n append initrd=/i x=\"a b\" y=\"c d\n";
        let found = entries("isolinux/isolinux.cfg", text, &|_| None);
        assert_eq!(found[0].words, ["x=\"a b\"", "y=\"c d\""]);
    }

    proptest! {
        #[test]
        fn what_is_quoted_is_one_word(text in "\\PC{0,20}") {
            let read = grub_statements(&grub_quoted(&text));
            let is_text = |part: &Part| *part == Part::Text(text.clone());
            prop_assert!(read.len() == 1 && read[0].len() == 1 && read[0][0].iter().all(is_text), "{read:?}");
        }

        #[test]
        fn no_menu_makes_it_panic(text in "[a-z {}$'\"\\\\\n;#=/]{0,200}") {
            grub(&text);
            entries("isolinux/x.cfg", &text, &|_| None);
        }
    }
}
