//! The cached record of a token, and the only function that judges it. Called by the engine, for Verify
//! and for every caller's own credential. Knows no clock: the time of judging is an argument.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU32, Ordering};

use time::{OffsetDateTime, PrimitiveDateTime, UtcOffset};
use triomphe::ThinArc;

use super::networks::{self, Network, Networks};
use super::packed::{FieldPositions, PackedToken};
use super::reach::Reach;
use super::scope::{ReservedScopes, Scope, Scopes};
use super::token::{Token, TokenState};
use crate::secret::Mac;

/// A token with its fast verifier, in as few bytes as judging allows: one allocation, shared by clones.
#[derive(Clone)]
pub struct Record(ThinArc<Facts, u8>);

/// The data for judging besides the packed token, which is stored after it.
struct Facts {
    mac: Mac,
    positions: FieldPositions,
    /// In UTC; four bytes less than with an offset.
    expire_time: Option<PrimitiveDateTime>,
    revision: Option<NonZeroU64>,
    /// The uses that were counted, times two; odd: there was one that is not counted.
    uses: AtomicU32,
    reserved: ReservedScopes,
    revoked: bool,
    disabled: bool,
    limited: bool,
}

impl Record {
    /// Creates a record with what judging needs.
    #[must_use]
    pub fn new(token: &Token, mac: Mac) -> Self {
        Self::of_row(token, mac, None)
    }

    /// Creates a record from a row of this revision; `None` when the revision is not known.
    #[must_use]
    pub fn of_row(token: &Token, mac: Mac, revision: Option<NonZeroU64>) -> Self {
        let (positions, wire) = FieldPositions::pack(token);
        let in_utc = |time: OffsetDateTime| {
            let time = time.to_offset(UtcOffset::UTC);
            PrimitiveDateTime::new(time.date(), time.time())
        };
        let facts = Facts {
            mac,
            positions,
            expire_time: token.expire_time.map(in_utc),
            revision,
            uses: AtomicU32::new(0),
            reserved: token.scopes.reserved(),
            revoked: token.revoke_time.is_some(),
            disabled: token.disabled_since().is_some(),
            limited: token.plan.is_some(),
        };
        Self(ThinArc::from_header_and_slice(facts, &wire))
    }

    /// Returns the token as it appears in a response.
    #[must_use]
    pub fn packed(&self) -> PackedToken<'_> {
        self.facts().positions.read(&self.0.slice)
    }

    /// Returns the MAC with which the token's secret is compared.
    #[must_use]
    pub fn mac(&self) -> &Mac {
        &self.facts().mac
    }

    /// Returns the time from which it is expired; `None`: never.
    #[must_use]
    pub fn expire_time(&self) -> Option<OffsetDateTime> {
        self.facts().expire_time.map(PrimitiveDateTime::assume_utc)
    }

    /// Returns the reserved scopes that it has.
    #[must_use]
    pub fn reserved(&self) -> ReservedScopes {
        self.facts().reserved
    }

    /// Returns whether it has a plan, whose limits may refuse it.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.facts().limited
    }

    /// Returns the name of its plan; `None`: it has none.
    #[must_use]
    pub fn plan(&self) -> Option<&str> {
        self.is_limited().then(|| self.packed().plan()).flatten()
    }

    /// Returns the revision of its row, if known.
    #[must_use]
    pub fn revision(&self) -> Option<NonZeroU64> {
        self.facts().revision
    }

    /// Counts a use, for all clones together, and returns whether it is the first one since uses were taken. The
    /// count wraps after 2^31 uses.
    #[must_use]
    pub fn count_use(&self) -> bool {
        self.facts().uses.fetch_add(2, Ordering::Relaxed) == 0
    }

    /// Notes a use that is not counted, and returns whether it is the first one since uses were taken.
    #[must_use]
    pub fn note_use(&self) -> bool {
        // Read before write: a shared cache line that is only read stays in every core's cache.
        !self.has_uses() && self.facts().uses.fetch_or(1, Ordering::Relaxed) == 0
    }

    /// Returns whether there are uses that were not taken.
    #[must_use]
    pub fn has_uses(&self) -> bool {
        self.facts().uses.load(Ordering::Relaxed) > 0
    }

    /// Takes the uses and returns how many were counted.
    #[must_use]
    pub fn take_uses(&self) -> u32 {
        self.facts().uses.swap(0, Ordering::Relaxed) >> 1
    }

    /// Returns the bytes that it requests from the allocator: a reference count, the facts, a length,
    /// the token.
    #[must_use]
    pub fn bytes(&self) -> usize {
        const FIXED: usize = 2 * size_of::<usize>() + size_of::<Facts>();
        let all = self.0.slice.len().saturating_add(FIXED);
        all.next_multiple_of(align_of::<usize>())
    }

    /// Reads a byte of each CPU cache line that judging it and encoding it will read, and returns their
    /// combination, which has no meaning. So the processor can load several records at once.
    #[must_use]
    pub fn touch(&self) -> u8 {
        const LINE: usize = 64;
        self.0.slice.iter().step_by(LINE).fold(0, |all, byte| all ^ byte)
    }

    /// Returns whether two records are clones of each other.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        std::ptr::eq(self.facts(), other.facts())
    }

    fn facts(&self) -> &Facts {
        &self.0.header.header
    }

    /// Returns the token's state at `now`.
    #[must_use]
    pub fn state(&self, now: OffsetDateTime) -> TokenState {
        let facts = self.facts();
        TokenState::at(now, facts.revoked, facts.disabled, self.expire_time())
    }

    /// Returns whether the token may be used from this address; if it has networks, not from an unknown
    /// one.
    #[must_use]
    pub fn admits(&self, address: Option<IpAddr>) -> bool {
        networks::admitted(self.networks(), address)
    }

    /// Returns the networks from which it may be used; `None` if one cannot be read.
    #[must_use]
    pub fn allowed_cidrs(&self) -> Option<Networks> {
        Networks::new(self.networks().collect::<Option<_>>()?).ok()
    }

    fn networks(&self) -> impl Iterator<Item = Option<Network>> {
        self.packed().allowed_cidrs().map(|text| Network::parse(std::str::from_utf8(text).ok()?).ok())
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record").field("id", &self.packed().id()).finish_non_exhaustive()
    }
}

/// The result of Verify. Only `Valid` grants access.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// The secret may be used for the request.
    Valid,
    /// The text is not a secret: wrong form or wrong checksum.
    Malformed,
    /// Unknown id, wrong secret, or a token outside the caller's reach: indistinguishable.
    NotFound,
    /// The token was revoked.
    Revoked,
    /// The token has expired.
    Expired,
    /// The token is disabled.
    Disabled,
    /// The token lacks a required scope.
    MissingScope,
    /// The token may not be used from the client's address, or that address is unknown.
    IpNotAllowed,
    /// A rate of the token's plan is used up for now.
    RateLimited,
    /// Credits of the token's plan do not suffice.
    CreditsExhausted,
}

impl Verdict {
    /// Every verdict, in the order in which they apply.
    pub const ALL: [Self; 10] = [
        Self::Valid,
        Self::Malformed,
        Self::NotFound,
        Self::Revoked,
        Self::Expired,
        Self::Disabled,
        Self::MissingScope,
        Self::IpNotAllowed,
        Self::RateLimited,
        Self::CreditsExhausted,
    ];

    /// Returns the verdict's lower-case name.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Malformed => "malformed",
            Self::NotFound => "not_found",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::Disabled => "disabled",
            Self::MissingScope => "missing_scope",
            Self::IpNotAllowed => "ip_not_allowed",
            Self::RateLimited => "rate_limited",
            Self::CreditsExhausted => "credits_exhausted",
        }
    }
}

/// A verdict on a token whose secret matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// The verdict to return.
    pub verdict: Verdict,
    /// The required scopes that the token lacks; empty unless the verdict is `MissingScope`.
    pub missing_scopes: Vec<Scope>,
}

/// Judges a token whose secret matched, at `now`, for a caller with the reach `reach`, when a client at
/// `client_ip` presented it. Returns the first verdict that applies, in the order of [`Verdict`].
#[must_use]
pub fn judge(
    record: &Record,
    now: OffsetDateTime,
    reach: Reach<'_>,
    required: &Scopes,
    client_ip: Option<IpAddr>,
) -> Judgement {
    let plain = |verdict| Judgement { verdict, missing_scopes: Vec::new() };
    if !reach.includes_record(record) {
        return plain(Verdict::NotFound);
    }
    match record.state(now) {
        TokenState::Revoked => return plain(Verdict::Revoked),
        TokenState::Expired => return plain(Verdict::Expired),
        TokenState::Disabled => return plain(Verdict::Disabled),
        TokenState::Active => {}
    }
    let missing_scopes = required.not_covered_by(|| record.packed().scopes());
    if !missing_scopes.is_empty() {
        return Judgement { verdict: Verdict::MissingScope, missing_scopes };
    }
    plain(if record.admits(client_ip) { Verdict::Valid } else { Verdict::IpNotAllowed })
}

impl Reach<'_> {
    /// Returns whether a record's token is within reach.
    #[must_use]
    pub fn includes_record(&self, record: &Record) -> bool {
        match self {
            Self::Any => true,
            Self::Only(own) => record.packed().belongs_to(own),
        }
    }
}

#[cfg(test)]
mod tests;
