//! libFuzzer on one of the targets, which `TOKEND_FUZZ_TARGET` names.

#![no_main]

use std::sync::OnceLock;

use tokend_fuzz::{TARGETS, Target};

static CHOSEN: OnceLock<Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let target = CHOSEN.get_or_init(|| {
        let name = std::env::var("TOKEND_FUZZ_TARGET").unwrap_or_default();
        let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("TOKEND_FUZZ_TARGET");
        *target
    });
    target(data);
});
