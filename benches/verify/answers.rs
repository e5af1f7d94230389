//! Reads the responses of a `VerifyStream` from its DATA frames, whose boundaries differ from those of
//! the messages. Used by `connection`. Only looks at the verdict.

use std::collections::VecDeque;

/// gRPC's frame header (5 bytes), then `response` (1 byte and a length of 1 to 3), then the verdict (2
/// bytes).
const HEAD: usize = 11;

/// The incomplete response between two frames, and the requests without a response.
#[derive(Debug, Default)]
pub(crate) struct AnswerReader {
    sent: VecDeque<u64>,
    head: Vec<u8>,
    rest: usize,
}

impl AnswerReader {
    /// Records a request, and when it was scheduled.
    pub(crate) fn expect(&mut self, scheduled: u64) {
        self.sent.push_back(scheduled);
    }

    /// Reads more bytes; calls `answered` with each response's schedule and verdict.
    pub(crate) fn read(&mut self, mut bytes: &[u8], mut answered: impl FnMut(u64, u8)) {
        while !bytes.is_empty() {
            if self.rest > 0 {
                let skipped = self.rest.min(bytes.len());
                bytes = &bytes[skipped..];
                self.rest -= skipped;
                continue;
            }
            let wanted = HEAD - self.head.len();
            let taken = wanted.min(bytes.len());
            self.head.extend(&bytes[..taken]);
            bytes = &bytes[taken..];
            if self.head.len() < HEAD {
                return;
            }
            let length =
                u32::from_be_bytes([self.head[1], self.head[2], self.head[3], self.head[4]]) as usize;
            // A response is always longer than this head: it has a verdict and a time.
            self.rest = (5 + length).saturating_sub(HEAD);
            let verdict = verdict(&self.head[5..]);
            self.head.clear();
            if let Some(scheduled) = self.sent.pop_front() {
                answered(scheduled, verdict);
            }
        }
    }
}

/// Returns the verdict after the tag and the length of `response`; 0 for anything unexpected.
fn verdict(message: &[u8]) -> u8 {
    let (Some(0x0a), rest) = (message.first(), &message[1..]) else { return 0 };
    let length_bytes = 1 + rest.iter().take_while(|byte| **byte & 0x80 != 0).count();
    match rest.get(length_bytes..length_bytes + 2) {
        Some(&[0x08, verdict]) => verdict,
        _ => 0,
    }
}
