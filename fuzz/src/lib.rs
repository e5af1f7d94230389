//! What strangers can send: each target takes any bytes and panics where a promise is broken. `main` gives them to
//! libFuzzer, `tests/seeds.rs` replays what is committed in `seeds/`.

mod calls;
mod leaves;
mod running;

/// Takes any bytes.
pub type Target = fn(&[u8]);

/// All targets by their names.
pub const TARGETS: [(&str, Target); 6] = [
    ("secret", leaves::secret),
    ("page", leaves::page),
    ("config", leaves::config),
    ("certificate", leaves::certificate),
    ("message", calls::message),
    ("frames", calls::frames),
];
