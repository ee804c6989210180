//! A menu on the serial line of a machine, used by the words on it: GRUB's, or the agent's. Both show
//! the line that Enter would choose in reverse video.

use crate::machine::Machine;
use std::collections::BTreeSet;

const DOWN: &str = "\x1b[B";
const ENTER: &str = "\r";
const ESCAPE: &str = "\x1b";
/// Ctrl-U, which deletes the whole text in the agent's editor.
const CLEAR: &str = "\x15";

/// The cursor of the agent's editor.
const CURSOR: char = '_';

/// Seconds for one key to show its effect, on a busy machine.
const STEP: u64 = 60;

/// The mark goes round the menu twice before an item is given up: a message of the kernel may have spoilt a
/// label once.
const ROUNDS: usize = 3;

/// A menu that the machine shows; see [`Machine::menu`].
pub struct Menu<'a> {
    machine: &'a mut Machine,
}

impl<'a> Menu<'a> {
    pub(crate) fn of(machine: &'a mut Machine) -> Self {
        Self { machine }
    }

    /// Waits until the screen says `words`, and gives all of its text.
    pub fn shows(&mut self, words: &str) -> String {
        self.machine.wait_for_screen(&format!("\"{words}\" on the screen"), STEP, |terminal| {
            Some(terminal.text()).filter(|text| text.contains(words))
        })
    }

    /// Moves the mark to the item whose label has these `words`, a step at a time; each step is seen on
    /// the screen before the next.
    pub fn mark(&mut self, words: &str) {
        let mut seen = vec![self.marked_other_than(None)];
        while let Some(label) = seen.last().filter(|label| !label.contains(words)) {
            let rounds = seen.iter().filter(|other| *other == label).count();
            let items: BTreeSet<&String> = seen.iter().collect();
            assert!(rounds < ROUNDS, "no item of the menu says \"{words}\"; they are {items:#?}");

            self.machine.press(DOWN);
            let next = self.marked_other_than(seen.last());
            seen.push(next);
        }
    }

    /// Chooses the item whose label has these `words`.
    pub fn pick(&mut self, words: &str) {
        self.mark(words);
        self.machine.press(ENTER);
    }

    /// Replaces the text in the agent's editor, which is open, by `text`, and accepts it.
    pub fn type_text(&mut self, text: &str) {
        self.edited("an open editor", |edited| edited.ends_with(CURSOR));
        self.machine.press(CLEAR);
        self.edited("an empty editor", |edited| edited == CURSOR.to_string());
        self.machine.press(text);
        let whole = format!("{text}{CURSOR}");
        self.edited(&format!("\"{text}\" in the editor"), |edited| edited == whole);
        self.machine.press(ENTER);
    }

    /// Leaves the agent's editor; nothing is chosen.
    pub fn leave(&mut self) {
        self.edited("an open editor", |edited| edited.ends_with(CURSOR));
        self.machine.press(ESCAPE);
        self.edited("the list of items", |marked| !marked.ends_with(CURSOR));
    }

    /// The label of the one marked item, once it is another than `before`.
    fn marked_other_than(&mut self, before: Option<&String>) -> String {
        self.machine.wait_for_screen("a marked item on the screen", STEP, |terminal| {
            let rows = terminal.marked()?;
            let [row] = rows.as_slice() else { return None };
            // GRUB puts a star before it.
            let label = row.trim_matches([' ', '*']).to_owned();
            (!label.is_empty() && Some(&label) != before).then_some(label)
        })
    }

    /// Waits until the marked text, which the editor breaks into rows, is as `wanted`.
    fn edited(&mut self, what: &str, wanted: impl Fn(&str) -> bool) {
        self.machine.wait_for_screen(what, STEP, |terminal| {
            let marked = terminal.marked()?.concat();
            (!marked.is_empty() && wanted(&marked)).then_some(())
        });
    }
}
