//! Answering the same request again: what a request with an id asks for as bytes, and what is answered to its
//! retries. Called by creation and rotation.

use std::sync::Arc;

use super::create::{Created, Minted, mint};
use super::{ActionError, Actions};
use crate::domain::{Caller, Expiration, Labels, Networks, Scopes, Token};
use crate::secret::{Keyring, RequestContext, RequestId, TokenId};
use crate::store::{KnownRequest, NewRequest};

/// A request that may be answered again.
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

    /// Returns what is to be noted of the request whose secret was just made.
    pub(super) fn note(&self, keyring: &Keyring, minted: &Minted) -> Option<NewRequest> {
        Some(NewRequest {
            request_mac: self.mac(),
            body_mac: keyring.sign_request(&self.body.0),
            salt: minted.salt?,
            token_id: minted.id,
        })
    }
}

impl Actions {
    /// Finds what answered the request before, for the caller as it stands now.
    pub(super) async fn known(
        &self,
        caller: &Caller,
        request: &Repeatable,
    ) -> Result<Option<(Caller, KnownRequest)>, ActionError> {
        let store = self.admission.writes(caller).await?;
        Ok(store.find_request(caller, &request.mac()).await??)
    }

    /// Makes a secret and its verifiers where there is place for that.
    pub(super) async fn minted(
        &self,
        keyring: &Arc<Keyring>,
        repeatable: Option<&Repeatable>,
    ) -> Result<Minted, ActionError> {
        let (keyring, prefix, cost) = (Arc::clone(keyring), self.prefix.clone(), self.durable_cost);
        let repeatable = repeatable.cloned();
        let minted = self.hashing.run(move || mint(&keyring, &prefix, cost, repeatable.as_ref())).await;
        Ok(minted??)
    }

    /// Answers what was answered before, if it is the same that is asked for.
    pub(super) fn repeated(&self, request: &Repeatable, known: KnownRequest) -> Result<Created, ActionError> {
        let unrepeatable = || ActionError::Unrepeatable(known.token_id);
        // First: without the key, whether it asks for the same cannot be told either.
        let context = request.context(known.token_id);
        let keyring = self.keyring.get();
        let secret = keyring.derive_secret(known.body_mac.key_id, known.salt, &context);
        let secret = secret.ok_or_else(unrepeatable)?;
        if !keyring.check_request(&request.body.0, &known.body_mac) {
            return Err(ActionError::RequestIdReused);
        }
        let (token, now) = known.token.ok_or_else(|| ActionError::Unrepeatable(known.token_id))?;
        Ok(Created { token, now, secret: secret.render(&self.prefix) })
    }
}

/// What is asked for, as bytes: equal only for equal requests. Its Debug shows nothing.
#[derive(Clone)]
pub(super) struct Body(Vec<u8>);

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Body")
    }
}

impl Body {
    /// Begins with the RPC, so that one's request is never another's.
    pub(super) fn new(rpc: &str) -> Self {
        Self(Vec::with_capacity(512)).text(rpc)
    }

    /// Adds a text, behind its length.
    pub(super) fn text(mut self, text: &str) -> Self {
        self.number(text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    /// Adds a list of texts, behind their number.
    pub(super) fn texts<T: AsRef<str>>(mut self, texts: impl Iterator<Item = T>) -> Self {
        let texts: Vec<T> = texts.collect();
        self.number(texts.len() as u64);
        texts.iter().fold(self, |body, text| body.text(text.as_ref()))
    }

    /// Adds scopes, in whatever order they were named.
    pub(super) fn scopes(self, scopes: &Scopes) -> Self {
        let mut scopes: Vec<&str> = scopes.iter().map(crate::domain::Scope::as_str).collect();
        scopes.sort_unstable();
        self.texts(scopes.into_iter())
    }

    pub(super) fn labels(self, labels: &Labels) -> Self {
        self.texts(labels.iter().flat_map(|(key, value)| [key, value]))
    }

    /// Adds networks, in whatever order they were named.
    pub(super) fn networks(self, networks: &Networks) -> Self {
        let mut networks: Vec<String> = networks.iter().map(ToString::to_string).collect();
        networks.sort_unstable();
        self.texts(networks.into_iter())
    }

    /// Adds the choice of an end.
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

impl Created {
    /// A token that was made just now.
    pub(super) fn new(token: Token, minted: Minted) -> Self {
        Self { now: token.create_time, token, secret: minted.text }
    }
}
