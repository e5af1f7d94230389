//! Runs every seed once through its target, without a fuzzer, as regression tests.

use std::fs;
use std::path::Path;

use tokend_fuzz::TARGETS;

#[test]
fn every_seed_keeps_the_promises() {
    for (name, target) in TARGETS {
        let seeds = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(name)).unwrap();
        let mut count = 0;
        for seed in seeds {
            target(&fs::read(seed.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 0, "{name} has no seeds");
    }
}
