//! InetBoot boots any live Linux straight from a web server.
//!
//! The rooms, in boot order within each layer. Imports run one way, from the top of this table
//! to its bottom (`tests/layers.rs` checks it):
//!
//! | layer | rooms |
//! |---|---|
//! | the lives | `main`, [`serve`], [`alone`], [`desk`], [`rescue`] |
//! | who is in front of it | [`choose`], [`ways_out`] |
//! | the image and what is made of it | [`medium`], [`distro`], [`miniroot`] |
//! | the outside | [`early`], [`net`], [`source`], [`measure`], [`kexec`] |
//! | values and codecs, pure | [`config`], [`catalogue`], [`lease`], [`receipt`], `miniroot::newc`, … |
//! | the floor | [`step`], [`failure`], [`console`], [`glob`], [`memory`], [`sys`] |
//!
//! Nothing here may panic or exit: this code is process 1.

pub mod lives;

pub mod person;

pub mod config;

pub mod net;

pub mod source;

pub mod medium;

pub mod distro;

pub mod miniroot;

pub mod measure;

pub mod kexec;

pub mod machine;

pub mod formats;

pub mod base;

pub mod sys;

/// The host's tools; never reached from `main.rs`.
pub mod desk;
