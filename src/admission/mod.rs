//! What protects the server from its callers: fair shares of limited resources, memory
//! reservations, a bounded pool for Argon2id. Called by the API, the actions and the engine.
//! Knows no messages, no SQL and no verdicts.

pub(crate) mod eviction;
pub mod fair_limiter;
pub mod fair_queue;
pub mod hash_pool;
pub mod keyed_mutex;
pub(crate) mod packed_head;
pub mod received;
pub mod request_memory;
pub mod request_reader;
pub mod response_memory;
