//! Answers that go on: news of the list, and exports. Each session has few of them, and a replica a bounded number.
//! Called by the pages that stream.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

/// How many streams of one session are open at once. Browsers open six connections to a site without HTTP/2: the rest
/// is for pages.
const OF_A_SESSION: usize = 3;

/// How many streams a replica has open at once.
const OF_A_REPLICA: usize = 256;

/// The open streams of a replica.
#[derive(Debug, Clone, Default)]
pub struct Streams(Arc<Mutex<HashMap<Uuid, usize>>>);

/// A stream, open until this is dropped.
#[derive(Debug)]
pub(super) struct OpenStream {
    all: Streams,
    session: Uuid,
}

impl Streams {
    /// Opens a stream of a session; `None` if it has enough, or the replica has.
    pub(super) fn open(&self, session: Uuid) -> Option<OpenStream> {
        let mut open = self.lock();
        let all: usize = open.values().sum();
        let of_session = open.entry(session).or_default();
        if all >= OF_A_REPLICA || *of_session >= OF_A_SESSION {
            return None;
        }
        *of_session = of_session.saturating_add(1);
        Some(OpenStream { all: self.clone(), session })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let mut open = self.all.lock();
        if let Some(number) = open.get_mut(&self.session) {
            *number = number.saturating_sub(1);
        }
        open.retain(|_, number| *number > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_a_session_and_of_all_are_bounded_and_come_back() {
        let streams = Streams::default();
        let session = Uuid::from_u128(1);
        let mut held: Vec<_> = (0..OF_A_SESSION).map(|_| streams.open(session).unwrap()).collect();
        assert!(streams.open(session).is_none());
        held.pop();
        held.push(streams.open(session).unwrap());
        let others = (2..).map(Uuid::from_u128).map_while(|other| streams.open(other));
        held.extend(others);
        assert_eq!(held.len(), OF_A_REPLICA);
        drop(held);
        assert!(streams.lock().is_empty());
        assert!(streams.open(session).is_some());
    }
}
