//! A request with an id: its fields as bytes, so that retries are distinguished from other requests.
//! Used by creation and rotation.

use crate::domain::{Expiration, Grant, Labels, Networks, Scopes};
use crate::secret::{RequestContext, RequestId, TokenId};

/// A request that may be retried with the same result.
#[derive(Debug, Clone)]
pub(super) struct Repeatable {
    pub(super) rpc: &'static str,
    pub(super) organization_id: String,
    pub(super) caller: String,
    pub(super) request_id: RequestId,
    pub(super) body: Body,
}

impl Repeatable {
    pub(super) fn mac(&self) -> [u8; 32] {
        self.request_id.mac(&self.caller)
    }

    pub(super) fn context(&self, token_id: TokenId) -> RequestContext<'_> {
        RequestContext {
            rpc: self.rpc,
            organization_id: &self.organization_id,
            caller: &self.caller,
            token_id,
            request_id: &self.request_id,
        }
    }
}

/// The fields of a request as bytes: equal only for equal requests. Its Debug output reveals nothing.
#[derive(Clone)]
pub(super) struct Body(pub(super) Vec<u8>);

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Body")
    }
}

impl Body {
    /// Starts with the RPC, so that requests of different RPCs are never equal.
    pub(super) fn new(rpc: &str) -> Self {
        Self(Vec::with_capacity(512)).text(rpc)
    }

    /// Adds a text after its length.
    pub(super) fn text(mut self, text: &str) -> Self {
        self.number(text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    /// Adds a list of texts after its length.
    pub(super) fn texts<T: AsRef<str>>(mut self, texts: impl Iterator<Item = T>) -> Self {
        let texts: Vec<T> = texts.collect();
        self.number(texts.len() as u64);
        texts.iter().fold(self, |body, text| body.text(text.as_ref()))
    }

    /// Adds scopes, in any order given.
    pub(super) fn scopes(self, scopes: &Scopes) -> Self {
        let mut scopes: Vec<&str> = scopes.iter().map(crate::domain::Scope::as_str).collect();
        scopes.sort_unstable();
        self.texts(scopes.into_iter())
    }

    pub(super) fn labels(self, labels: &Labels) -> Self {
        self.texts(labels.iter().flat_map(|(key, value)| [key, value]))
    }

    /// Adds networks, in any order given.
    pub(super) fn networks(self, networks: &Networks) -> Self {
        let mut networks: Vec<String> = networks.iter().map(ToString::to_string).collect();
        networks.sort_unstable();
        self.texts(networks.into_iter())
    }

    /// Adds a grant, its lists in any order given; nothing if there is none.
    pub(super) fn grant(self, grant: Option<&Grant>) -> Self {
        let Some(grant) = grant else { return self };
        let (mut ids, mut prefixes): (Vec<_>, Vec<_>) =
            (grant.users.ids().collect(), grant.users.prefixes().collect());
        ids.sort_unstable();
        prefixes.sort_unstable();
        let longest =
            grant.longest_lifetime.map_or_else(String::new, |longest| longest.whole_seconds().to_string());
        self.text("grant")
            .scopes(&grant.scopes)
            .texts(ids.into_iter())
            .texts(prefixes.into_iter())
            .text(&format!("{} {}", grant.users.is_all(), grant.may_grant_self))
            .text(&longest)
            .networks(&grant.networks)
    }

    /// Adds the choice of an expiration.
    pub(super) fn expiration(mut self, expiration: Option<Expiration>) -> Self {
        let (kind, nanos) = match expiration {
            None => (0, 0),
            Some(Expiration::At(time)) => (1, time.unix_timestamp_nanos()),
            Some(Expiration::After(ttl)) => (2, ttl.whole_nanoseconds()),
            Some(Expiration::Never) => (3, 0),
        };
        self.0.push(kind);
        self.0.extend_from_slice(&nanos.to_be_bytes());
        self
    }

    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }
}
