//! A terminal, from the bytes that are sent to it: enough of ECMA-48 for the menus of GRUB and of the
//! agent, which move the cursor, erase, and show one line in reverse video. Pure.

const COLUMNS: usize = 80;
const ROWS: usize = 24;

#[derive(Clone, Copy)]
struct Cell {
    letter: char,
    is_reversed: bool,
}

const BLANK: Cell = Cell { letter: ' ', is_reversed: false };

/// The progress of an escape sequence.
#[derive(Default)]
enum Sequence {
    #[default]
    None,
    /// After the escape.
    Begun,
    /// After `ESC [`: its parameters so far.
    Control(String),
}

/// The screen, the cursor and the state of the parser.
pub(crate) struct Terminal {
    cells: Vec<[Cell; COLUMNS]>,
    row: usize,
    /// May be one past the last column: the next letter then goes to the next row.
    column: usize,
    is_reversed: bool,
    sequence: Sequence,
}

impl Default for Terminal {
    fn default() -> Self {
        let cells = vec![[BLANK; COLUMNS]; ROWS];
        Self { cells, row: 0, column: 0, is_reversed: false, sequence: Sequence::None }
    }
}

impl Terminal {
    pub(crate) fn show(&mut self, text: &str) {
        text.chars().for_each(|letter| self.character(letter));
    }

    /// The rows, without blanks and empty rows at their ends.
    pub(crate) fn text(&self) -> String {
        let row = |cells: &[Cell; COLUMNS]| {
            let row: String = cells.iter().map(|cell| cell.letter).collect();
            row.trim_end().to_owned() + "\n"
        };
        let rows: String = self.cells.iter().map(row).collect();
        rows.trim_end().to_owned()
    }

    /// The text in reverse video, a string for each row that has some; `None` in the middle of drawing it.
    pub(crate) fn marked(&self) -> Option<Vec<String>> {
        let marked = |row: &[Cell; COLUMNS]| -> String {
            row.iter().filter(|cell| cell.is_reversed).map(|cell| cell.letter).collect()
        };
        let rows = self.cells.iter().map(marked).filter(|row| !row.is_empty());
        (!self.is_reversed).then(|| rows.collect())
    }

    fn character(&mut self, character: char) {
        match (std::mem::take(&mut self.sequence), character) {
            (_, '\x1b') => self.sequence = Sequence::Begun,
            (Sequence::Begun, '[') => self.sequence = Sequence::Control(String::new()),
            // A sequence of two characters; none of those is for the menus.
            (Sequence::Begun, _) => {}
            (Sequence::Control(parameters), '@'..='~') => self.control(character, &parameters),
            (Sequence::Control(mut parameters), _) => {
                parameters.push(character);
                self.sequence = Sequence::Control(parameters);
            }
            (Sequence::None, '\r') => self.column = 0,
            (Sequence::None, '\n') => self.line_feed(),
            (Sequence::None, '\x08') => self.column = self.column.saturating_sub(1),
            (Sequence::None, character) if character.is_control() => {}
            (Sequence::None, letter) => self.letter(letter),
        }
    }

    fn letter(&mut self, letter: char) {
        if self.column == COLUMNS {
            self.column = 0;
            self.line_feed();
        }
        self.cells[self.row][self.column] = Cell { letter, is_reversed: self.is_reversed };
        self.column += 1;
    }

    fn line_feed(&mut self) {
        if self.row + 1 < ROWS {
            self.row += 1;
        } else {
            self.cells.remove(0);
            self.cells.push([BLANK; COLUMNS]);
        }
    }

    fn control(&mut self, function: char, parameters: &str) {
        let parameters: Vec<usize> = parameters.split(';').map(|word| word.parse().unwrap_or(0)).collect();
        let first = parameters[0];
        let distance = first.max(1);

        match function {
            'A' => self.row = self.row.saturating_sub(distance),
            'B' => self.row = (self.row + distance).min(ROWS - 1),
            'C' => self.column = (self.column + distance).min(COLUMNS - 1),
            'D' => self.column = self.column.saturating_sub(distance),
            // Rows and columns are counted from 1.
            'H' | 'f' => {
                self.row = distance.min(ROWS) - 1;
                self.column = parameters.get(1).copied().unwrap_or(1).clamp(1, COLUMNS) - 1;
            }
            'J' if first == 2 => self.cells.fill([BLANK; COLUMNS]),
            'J' => {
                self.cells[self.row][self.column.min(COLUMNS)..].fill(BLANK);
                self.cells[self.row + 1..].fill([BLANK; COLUMNS]);
            }
            'K' => self.cells[self.row][self.column.min(COLUMNS)..].fill(BLANK),
            'm' => {
                for attribute in parameters {
                    match attribute {
                        0 | 27 => self.is_reversed = false,
                        7 => self.is_reversed = true,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the agent draws its menu.
    #[test]
    fn the_line_in_reverse_video_is_the_marked_one() {
        let mut terminal = Terminal::default();
        terminal.show("noise\x1b[H\x1b[JInetBoot\r\n\r\n  Debian\r\n\x1b[7m  Fed");
        assert_eq!(terminal.marked(), None, "it is being drawn");
        terminal.show("ora\x1b[m\r\n\r\nArrows and Enter choose\r\n");
        assert_eq!(terminal.marked().unwrap(), ["  Fedora"]);
        assert!(terminal.text().starts_with("InetBoot\n\n  Debian\n  Fedora\n\nArrows"));
    }

    /// As GRUB moves the mark: it draws both lines anew, in their places.
    #[test]
    fn lines_may_be_drawn_anew_in_place() {
        let mut terminal = Terminal::default();
        terminal.show("\x1b[2J\x1b[01;01H\x1b[=3h\x1b[7m*One\x1b[m\r\n Two\x1b[4;5Hx");
        terminal.show("\x1b[1;1H One\x1b[2;1H\x1b[7m*Two\x1b[m");
        assert_eq!(terminal.marked().unwrap(), ["*Two"]);
        assert_eq!(terminal.text().lines().nth(3), Some("    x"));
    }

    #[test]
    fn a_full_row_goes_on_in_the_next_and_the_screen_scrolls() {
        let mut terminal = Terminal::default();
        terminal.show(&"x".repeat(COLUMNS));
        terminal.show("\r\ny");
        assert_eq!(terminal.text().lines().nth(1), Some("y"));
        terminal.show(&"\r\n".repeat(ROWS));
        assert_eq!(terminal.text(), "");
    }
}
