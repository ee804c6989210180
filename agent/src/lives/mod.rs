//! The lives of the program, each in its own file, in the order in which things happen.

pub mod first;
pub mod handover;
pub mod last_words;
pub mod second;
pub mod server;
pub mod unaided;
pub mod upkeep;
