//! Tests of the durable verifier: a fixed known result, a single accepted format, and no work beyond
//! the configured cost.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::collection::vec;
use proptest::prelude::*;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::*;
use tokend_core::fixtures::{known_secret, secret};

/// The salt and the output of the reference implementation (through Python's argon2-cffi) for [`known_secret`].
const KNOWN: &str = "c2l4dGVlbiBieXRlIHNsdAFlOynO9hFFcpLjPDHxi1iPGcCe2bS++oi3E05YCj+d";

/// Returns the known hash, as stored with these costs.
fn known(memory_kib: u32, iterations: u16, parallelism: u8) -> Vec<u8> {
    let salt_and_output = STANDARD.decode(KNOWN).unwrap();
    [&[1], &memory_kib.to_be_bytes()[..], &iterations.to_be_bytes(), &[parallelism], &salt_and_output]
        .concat()
}

fn cost(memory_kib: u32, iterations: u32, parallelism: u32) -> DurableCost {
    DurableCost::new(memory_kib, iterations, parallelism).unwrap()
}

fn cheap() -> DurableCost {
    cost(64, 2, 1)
}

fn compute(cost: DurableCost) -> DurableHash {
    DurableHash::compute(&known_secret(), cost, &mut StdRng::seed_from_u64(1)).unwrap()
}

fn verify(stored: Vec<u8>) -> Result<bool, DurableError> {
    DurableHash::from_bytes(stored).verify(&known_secret(), cheap())
}

#[test]
fn a_hash_of_the_reference_implementation_proves_its_secret() {
    assert!(verify(known(64, 1, 1)).unwrap());
    for changed in 8..56 {
        let mut stored = known(64, 1, 1);
        stored[changed] ^= 1;
        assert!(!verify(stored).unwrap(), "byte {changed}");
    }
    assert!(!verify(known(64, 2, 1)).unwrap(), "another cost");
}

#[test]
fn a_hash_proves_its_secret_and_no_other() {
    let hash = compute(cheap());
    assert!(hash.verify(&known_secret(), cheap()).unwrap());
    let (id, random) =
        (known_secret().id().to_bytes(), std::array::from_fn(|i| u8::try_from(100 + i).unwrap()));
    assert!(hash.verify(&secret(id, random), cheap()).unwrap(), "these are the parts of the known secret");
    assert!(!hash.verify(&secret(id, [1; 32]), cheap()).unwrap(), "other random bits");
    assert!(!hash.verify(&secret([0; 16], random), cheap()).unwrap(), "another id");
}

#[test]
fn the_default_cost_is_owasps() {
    let hash = compute(DurableCost::default());
    assert!(hash.as_bytes().starts_with(&known(19_456, 2, 1)[..8]));
    assert!(hash.verify(&known_secret(), DurableCost::default()).unwrap());
}

#[test]
fn every_hash_has_its_own_salt() {
    let mut randomness = StdRng::seed_from_u64(1);
    let mut compute = || DurableHash::compute(&known_secret(), cheap(), &mut randomness).unwrap();
    assert_ne!(compute().as_bytes()[8..24], compute().as_bytes()[8..24]);
}

#[test]
fn a_hash_above_the_configured_cost_is_refused() {
    for above in [cost(128, 2, 1), cost(64, 3, 1), cost(64, 2, 2)] {
        let refused = compute(above).verify(&known_secret(), cheap());
        assert!(matches!(refused, Err(DurableError::TooCostly)), "{above:?}");
    }
    // So costly that the test would never end if hashing started.
    let refused = verify(known(4_194_304, u16::MAX, 1));
    assert!(matches!(refused, Err(DurableError::TooCostly)));
}

#[test]
fn a_hash_of_another_kind_is_refused() {
    let another_kind = |kind| [&[kind], &known(64, 1, 1)[1..]].concat();
    let longer = [&known(64, 1, 1)[..], &[0]].concat();
    let shorter = (0..56).map(|length| known(64, 1, 1)[..length].to_vec());
    // Memory that is too little for Argon2, no passes, no lanes.
    let costs = [known(7, 1, 1), known(0, 1, 1), known(64, 0, 1), known(64, 1, 0)];
    let phc = b"$argon2id$v=19$m=64,t=1,p=1$c2l4dGVlbiBieXRlIHNsdA$AWU7Kc".to_vec();
    for foreign in shorter.chain(costs).chain([another_kind(0), another_kind(2), longer, phc]) {
        assert!(matches!(verify(foreign.clone()), Err(DurableError::Foreign)), "{foreign:?}");
    }
}

#[test]
fn costs_are_within_argon2s_bounds_and_errors_have_their_cause() {
    for (iterations, parallelism) in [(1 << 16, 1), (1, 1 << 8)] {
        let error = DurableCost::new(1 << 20, iterations, parallelism).unwrap_err();
        assert!(matches!(error, DurableError::Large));
    }
    for (memory_kib, iterations, parallelism) in [(7, 1, 1), (15, 1, 2), (64, 0, 1), (64, 1, 0)] {
        let error = DurableCost::new(memory_kib, iterations, parallelism).unwrap_err();
        assert!(matches!(error, DurableError::Cost(_)));
        let cause = std::error::Error::source(&error).expect("argon2's error is the cause").to_string();
        assert!(!error.to_string().contains(&cause), "a chain would print the cause twice: {error}");
    }
}

#[test]
fn debug_output_and_errors_do_not_show_the_hash() {
    assert_eq!(format!("{:?}", compute(cheap())), "DurableHash([redacted])");
    let error = verify(b"canary".to_vec()).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("canary"));
}

proptest! {
    #[test]
    fn checking_stored_bytes_never_panics(
        stored in prop_oneof![vec(any::<u8>(), 0..80), vec(any::<u8>(), 55).prop_map(|rest| [&[1], &rest[..]].concat())],
    ) {
        let least = cost(8, 1, 1);
        prop_assert!(!matches!(DurableHash::from_bytes(stored).verify(&known_secret(), least), Ok(true)));
    }
}
