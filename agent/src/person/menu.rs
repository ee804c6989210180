//! A menu as a value: keys and time change it, and it gives its picture. Pure; `screen.rs` draws it.

use crate::person::keys::Key;
use std::time::Duration;

/// A line of a menu that can be chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub label: String,
    /// The text that goes with the choice, if any; `e` opens it for editing.
    pub text: Option<String>,
    /// True if Enter opens the text for editing too, because it is only a beginning.
    pub is_typed: bool,
}

impl Item {
    /// An item without a text.
    pub fn new(label: impl Into<String>) -> Self {
        Self { label: label.into(), text: None, is_typed: false }
    }

    /// An item with a text that may be edited.
    pub fn with_text(label: impl Into<String>, text: impl Into<String>) -> Self {
        Self { text: Some(text.into()), ..Self::new(label) }
    }

    /// An item whose text has to be completed first.
    pub fn to_type(label: impl Into<String>, begun: impl Into<String>) -> Self {
        Self { is_typed: true, ..Self::with_text(label, begun) }
    }
}

/// The choice of a person, or of the timeout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The index of the item.
    pub item: usize,
    /// The item's text, as it was edited.
    pub text: Option<String>,
}

/// A line of the picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub text: String,
    /// True for the item that Enter would choose, and for a text that is edited.
    pub is_marked: bool,
}

#[derive(Clone, Debug)]
pub struct Menu {
    heading: String,
    items: Vec<Item>,
    /// The index of the marked item.
    at: usize,
    /// The time until the first item is taken.
    left: Option<Duration>,
    /// The value of `left` after a key was pressed.
    idle: Option<Duration>,
    /// The marked item's text, while it is edited.
    editor: Option<Editor>,
}

/// A text that is edited; the next letter goes before the one at `cursor`.
#[derive(Clone, Debug)]
struct Editor {
    text: Vec<char>,
    cursor: usize,
}

impl Menu {
    /// A menu whose first item is taken after `timeout`, unless a key is pressed.
    pub fn new(heading: impl Into<String>, items: Vec<Item>, timeout: Option<Duration>) -> Self {
        Self { heading: heading.into(), items, at: 0, left: timeout, idle: None, editor: None }
    }

    /// Lets the first item be taken whenever no key was pressed for this time.
    pub fn or_after(self, idle: Duration) -> Self {
        Self { left: Some(idle), idle: Some(idle), ..self }
    }

    /// Does what a key means.
    pub fn press(&mut self, key: Key) -> Option<Chosen> {
        self.left = self.idle;
        if self.editor.is_some() {
            return self.edit(key);
        }

        let last = self.items.len().saturating_sub(1);
        match key {
            Key::Up | Key::Char('k') => self.at = self.at.checked_sub(1).unwrap_or(last),
            Key::Down | Key::Char('j') => self.at = if self.at < last { self.at + 1 } else { 0 },
            Key::Home => self.at = 0,
            Key::End => self.at = last,
            Key::Enter if !self.items.get(self.at)?.is_typed => {
                let text = self.items.get(self.at)?.text.clone();
                return Some(Chosen { item: self.at, text });
            }
            Key::Enter | Key::Char('e') => {
                let text: Vec<char> = self.items.get(self.at)?.text.as_ref()?.chars().collect();
                self.editor = Some(Editor { cursor: text.len(), text });
            }
            _ => {}
        }
        None
    }

    fn edit(&mut self, key: Key) -> Option<Chosen> {
        let Editor { text, cursor } = self.editor.as_mut()?;

        match key {
            Key::Char(letter) => {
                text.insert(*cursor, letter);
                *cursor += 1;
            }
            Key::Backspace if *cursor > 0 => {
                *cursor -= 1;
                text.remove(*cursor);
            }
            Key::Delete if *cursor < text.len() => {
                text.remove(*cursor);
            }
            Key::Clear => (*text, *cursor) = (Vec::new(), 0),
            Key::Left => *cursor = cursor.saturating_sub(1),
            Key::Right => *cursor = (*cursor + 1).min(text.len()),
            Key::Home => *cursor = 0,
            Key::End => *cursor = text.len(),
            Key::Escape => self.editor = None,
            Key::Enter => {
                let text: String = text.iter().collect();
                return Some(Chosen { item: self.at, text: Some(text.trim().to_owned()) });
            }
            _ => {}
        }
        None
    }

    /// Lets time pass, which may be the end of the timeout.
    pub fn tick(&mut self, passed: Duration) -> Option<Chosen> {
        let left = self.left.as_mut()?;
        *left = left.saturating_sub(passed);
        if !left.is_zero() {
            return None;
        }
        self.left = None;
        let text = self.items.first()?.text.clone();
        Some(Chosen { item: 0, text })
    }

    /// The picture for a screen of this size, of `rows` lines at most.
    pub fn picture(&self, columns: usize, rows: usize) -> Vec<Line> {
        let plain = |text: String| Line { text, is_marked: false };
        let mut lines: Vec<Line> = wrapped(&self.heading, columns).into_iter().map(plain).collect();
        lines.push(plain(String::new()));

        let room = rows.saturating_sub(lines.len() + FOOT);
        let (body, help) = match &self.editor {
            Some(editor) => (editor.picture(columns), "Enter boots it, Esc goes back, Ctrl-U deletes all"),
            None => (self.list(columns, room.max(1)), "Arrows and Enter choose, e edits"),
        };
        lines.extend(body);

        lines.push(plain(String::new()));
        let help = match self.left {
            None => help.to_owned(),
            Some(left) => format!("{help}; the first in {} s", left.as_secs_f64().ceil()),
        };
        lines.push(plain(cut(&help, columns)));
        lines.truncate(rows);
        lines
    }

    /// The items, as many as there is `room` for, the marked one among them.
    fn list(&self, columns: usize, room: usize) -> Vec<Line> {
        let first = self.at.saturating_sub(room - 1);
        let shown = self.items.iter().enumerate().skip(first).take(room);
        shown
            .map(|(number, item)| Line {
                text: cut(&format!("  {}", item.label), columns),
                is_marked: number == self.at,
            })
            .collect()
    }
}

impl Editor {
    fn picture(&self, columns: usize) -> Vec<Line> {
        let mut text = self.text.clone();
        text.insert(self.cursor, '_');
        let line = |part: &[char]| Line { text: part.iter().collect(), is_marked: true };
        text.chunks(columns.max(1)).map(line).collect()
    }
}

/// Lines below the items: an empty one, the help, and one for the cursor.
const FOOT: usize = 3;

/// Lines of the heading at most.
const HEAD: usize = 8;

/// Breaks a text at blanks, into [`HEAD`] lines at most.
fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= columns => {
                line.push(' ');
                line.push_str(word);
            }
            _ => {
                let letters: Vec<char> = word.chars().collect();
                lines.extend(letters.chunks(columns.max(1)).map(|part| part.iter().collect::<String>()));
            }
        }
    }
    lines.truncate(HEAD);
    lines
}

fn cut(text: &str, columns: usize) -> String {
    text.chars().take(columns).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn menu(timeout: Option<u64>) -> Menu {
        let items = vec![
            Item::with_text("Debian", "netdir=http://a/"),
            Item::to_type("Other", "netdir="),
            Item::new("Reboot"),
        ];
        Menu::new("What to boot", items, timeout.map(Duration::from_secs))
    }

    fn press(menu: &mut Menu, keys: &[Key]) -> Option<Chosen> {
        keys.iter().find_map(|key| menu.press(*key))
    }

    /// Up from the first item goes to the last, and Enter takes the marked one.
    #[test]
    fn arrows_go_round() {
        let mut menu = menu(None);
        assert_eq!(press(&mut menu, &[Key::Up]), None);
        assert!(menu.picture(40, 20)[4].is_marked);
        assert_eq!(press(&mut menu, &[Key::Down, Key::Enter]).unwrap().text.unwrap(), "netdir=http://a/");
        assert_eq!(press(&mut menu, &[Key::End, Key::Enter]), Some(Chosen { item: 2, text: None }));
    }

    /// A text is edited before it is taken, and Escape forgets the edits.
    #[test]
    fn a_text_is_edited() {
        let (mut menu, mut untouched) = (menu(None), menu(None));
        let keys = [
            Key::Char('e'),
            Key::Backspace,
            Key::Char('b'),
            Key::Home,
            Key::Delete,
            Key::Char('N'),
            Key::Enter,
        ];
        assert_eq!(press(&mut menu, &keys).unwrap().text.unwrap(), "Netdir=http://ab");
        let keys = [Key::Down, Key::Enter, Key::Clear, Key::Char('x'), Key::Escape, Key::Enter, Key::Enter];
        let chosen = press(&mut untouched, &keys).unwrap();
        assert_eq!((chosen.item, chosen.text.unwrap().as_str()), (1, "netdir="), "Esc forgets");
    }

    /// A key stops the timeout, or starts it again where the menu is left alone.
    #[test]
    fn the_timeout_takes_the_first() {
        let mut alone = menu(Some(2));
        assert!(alone.picture(60, 20).last().unwrap().text.contains("the first in 2 s"));
        assert_eq!(alone.tick(Duration::from_secs(1)), None);
        assert_eq!(alone.tick(Duration::from_secs(1)).unwrap().item, 0);
        let mut watched = menu(Some(2));
        watched.press(Key::Down);
        assert_eq!(watched.tick(Duration::from_secs(9)), None);
        let mut left_again = menu(None).or_after(Duration::from_secs(60));
        left_again.press(Key::Down);
        assert_eq!(left_again.tick(Duration::from_secs(59)), None);
        assert_eq!(left_again.tick(Duration::from_secs(1)).unwrap().item, 0);
    }

    #[test]
    fn a_long_heading_is_read_to_its_end() {
        let menu =
            Menu::new("[3/8] source failed: the server said 404 Not Found", vec![Item::new("a")], None);
        let picture: Vec<String> = menu.picture(24, 20).into_iter().map(|line| line.text).collect();
        assert_eq!(picture[..3], ["[3/8] source failed: the", "server said 404 Not", "Found"]);
    }

    proptest! {
        #[test]
        fn the_picture_fits_and_shows_the_marked_item(count in 1_usize..40, downs in 0_usize..50, rows in 6_usize..30) {
            let items = (0..count).map(|number| Item::new(format!("item {number}"))).collect();
            let mut menu = Menu::new("Much", items, None);
            press(&mut menu, &vec![Key::Down; downs]);
            let picture = menu.picture(20, rows);
            prop_assert!(picture.len() <= rows);
            let marked: Vec<_> = picture.iter().filter(|line| line.is_marked).collect();
            prop_assert_eq!(marked.len(), 1);
            prop_assert_eq!(marked[0].text.trim(), format!("item {}", downs % count));
        }
    }
}
