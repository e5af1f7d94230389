//! The state of the service: what all APIs share, and what only its own RPCs need. Built by the
//! server; the RPCs are its methods, in the files beside this one.

use std::sync::Arc;

use super::server::token_service_server::TokenServiceServer;
use crate::api::context::Context;
use crate::api::limits::MAX_REQUEST_BYTES;
use crate::changefeed::hub::Hub;
use crate::secret::CurrentKeyring;

/// Serves `tokend.v1.TokenService`.
#[derive(Debug)]
pub struct TokenApi {
    /// What all APIs share.
    pub context: Context,
    /// Publishes changes of tokens.
    pub hub: Arc<Hub>,
    /// Authenticates watchers' positions.
    pub keyring: Arc<CurrentKeyring>,
    /// The address of the console of this replica, if it serves one.
    pub console: Option<String>,
}

impl TokenApi {
    /// Makes the service for tonic's router.
    #[must_use]
    pub fn server(self: &Arc<Self>) -> TokenServiceServer<Self> {
        TokenServiceServer::from_arc(Arc::clone(self)).max_decoding_message_size(MAX_REQUEST_BYTES)
    }
}
