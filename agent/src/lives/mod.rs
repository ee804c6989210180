//! The lives of the program, each in its own file, in the order in which things happen.

pub mod last_words;
pub mod second;
pub mod shutdown;
pub mod unaided;
