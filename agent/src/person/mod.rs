//! The person at the console: the menu of what to boot, keys, the screen, a shell.

pub mod choose;
pub mod keys;
pub mod menu;
pub mod screen;
pub mod shell;
