//! Tests of the durable verifier: a fixed known result, a single accepted format, and no work beyond
//! the configured cost.

use proptest::prelude::*;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::*;
use tokend_core::fixtures::{known_secret, secret};

/// The result of the reference implementation (through Python's argon2-cffi) for [`known`].
const KNOWN: &str =
    "$argon2id$v=19$m=64,t=1,p=1$c2l4dGVlbiBieXRlIHNsdA$AWU7Kc72EUVykuM8MfGLWI8ZwJ7ZtL76iLcTTlgKP50";

fn cost(memory_kib: u32, iterations: u32, parallelism: u32) -> DurableCost {
    DurableCost::new(memory_kib, iterations, parallelism).unwrap()
}

fn cheap() -> DurableCost {
    cost(64, 2, 1)
}

fn compute(cost: DurableCost) -> DurableHash {
    DurableHash::compute(&known_secret(), cost, &mut StdRng::seed_from_u64(1)).unwrap()
}

fn verify(phc: &str) -> Result<bool, DurableError> {
    DurableHash::from_phc(phc.to_owned()).verify(&known_secret(), cheap())
}

#[test]
fn a_hash_of_the_reference_implementation_proves_its_secret() {
    assert!(verify(KNOWN).unwrap());
    let another_output = KNOWN.replace("AWU7", "AWU8");
    assert!(!verify(&another_output).unwrap());
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
    assert!(hash.as_str().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
    assert!(hash.verify(&known_secret(), DurableCost::default()).unwrap());
}

#[test]
fn every_hash_has_its_own_salt() {
    let mut randomness = StdRng::seed_from_u64(1);
    let mut compute = || DurableHash::compute(&known_secret(), cheap(), &mut randomness).unwrap();
    assert_ne!(compute().as_str(), compute().as_str());
}

#[test]
fn a_hash_above_the_configured_cost_is_refused() {
    for above in [cost(128, 2, 1), cost(64, 3, 1), cost(64, 2, 2)] {
        let refused = compute(above).verify(&known_secret(), cheap());
        assert!(matches!(refused, Err(DurableError::TooCostly)), "{above:?}");
    }
    // So costly that the test would never end if hashing started.
    let refused = verify(&KNOWN.replace("m=64,t=1", "m=4194304,t=4000000"));
    assert!(matches!(refused, Err(DurableError::TooCostly)));
}

/// Returns the hashes that are not rejected as foreign.
fn accepted(hashes: impl IntoIterator<Item = String>) -> Vec<String> {
    hashes.into_iter().filter(|phc| !matches!(verify(phc), Err(DurableError::Foreign))).collect()
}

#[test]
fn a_hash_of_another_kind_is_refused() {
    let (without_output, _) = KNOWN.rsplit_once('$').unwrap();
    let (without_salt, _) = without_output.rsplit_once('$').unwrap();
    let foreign = [
        KNOWN.replace("argon2id", "argon2i"),
        KNOWN.replace("argon2id", "argon2d"),
        KNOWN.replace("argon2id", "scrypt"),
        KNOWN.replace("v=19", "v=16"),
        KNOWN.replace("$v=19", ""),
        format!("{KNOWN}$"),
        without_output.to_owned(),
        without_salt.to_owned(),
        "$argon2id$".to_owned(),
        "plain".to_owned(),
        String::new(),
    ];
    assert_eq!(accepted(foreign), Vec::<String>::new());
}

#[test]
fn only_the_parameters_m_t_p_in_this_order_are_accepted() {
    let foreign = [
        "m=64,t=1",
        "m=64,p=1",
        "t=1,p=1",
        "m=64,t=1,p=1,p=1",
        "m=64,m=64,t=1,p=1",
        "m=64,t=1,t=1",
        "t=1,m=64,p=1",
        "m=64,p=1,t=1",
        "m=64,t=1,p=1,data=AAAA",
        "m=64,t=1,p=1,keyid=AAAA",
        "m=64,t=1,p=1,x=1",
        "m=064,t=1,p=1",
        "m=-64,t=1,p=1",
        "m=99999999999,t=1,p=1",
        "m=1,t=1,p=1",
    ];
    let foreign = foreign.map(|params| KNOWN.replace("m=64,t=1,p=1", params)).into_iter();
    let without_any = KNOWN.replace("$m=64,t=1,p=1", "");
    assert_eq!(accepted(foreign.chain([without_any])), Vec::<String>::new());
}

#[test]
fn an_output_of_other_than_32_bytes_is_refused() {
    let (start, _) = KNOWN.rsplit_once('$').unwrap();
    // 16, 31, 33 and 64 bytes.
    let foreign = ["A".repeat(22), "A".repeat(42), "A".repeat(44), "A".repeat(86)];
    assert_eq!(accepted(foreign.map(|output| format!("{start}${output}"))), Vec::<String>::new());
}

#[test]
fn costs_are_within_argon2s_bounds_and_errors_have_their_cause() {
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
    let error = verify("$canary$canary").unwrap_err();
    assert!(!format!("{error} {error:?}").contains("canary"));
}

proptest! {
    #[test]
    fn checking_a_stored_text_never_panics(text in "(\\$argon2id\\$v=19\\$)?([a-z=,$0-9]{0,40}|\\PC{0,60})") {
        let least = cost(8, 1, 1);
        prop_assert!(!matches!(DurableHash::from_phc(text).verify(&known_secret(), least), Ok(true)));
    }
}
