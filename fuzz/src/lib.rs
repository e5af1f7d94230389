//! Input from unauthenticated clients: each target takes any bytes and panics if a guarantee is
//! broken. `main` passes them to libFuzzer, `tests/seeds.rs` replays the committed `seeds/`.

mod calls;
mod leaves;
mod running;

/// A function that takes any bytes.
pub type Target = fn(&[u8]);

/// All targets by name.
pub const TARGETS: [(&str, Target); 6] = [
    ("secret", leaves::secret),
    ("page", leaves::page),
    ("config", leaves::config),
    ("certificate", leaves::certificate),
    ("message", calls::message),
    ("frames", calls::frames),
];
