//! libFuzzer's entry: the codec that `CODEC` names.
#![no_main]

mod targets;

use libfuzzer_sys::fuzz_target;
use std::sync::OnceLock;
use targets::{TARGETS, Target};

fuzz_target!(|data: &[u8]| {
    static CODEC: OnceLock<Target> = OnceLock::new();
    CODEC.get_or_init(|| {
        let name = std::env::var("CODEC").expect("CODEC names the codec");
        TARGETS.into_iter().find(|(known, _)| *known == name).expect("there is no such codec").1
    })(data);
});
