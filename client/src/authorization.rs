//! The metadata that identifies the caller in every call.

use std::sync::Arc;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use tokend_core::domain::{FieldError, UserId};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

use crate::credential::Credential;

/// Adds the caller's credential to calls, and the user it acts for. Its `Debug` shows nothing of
/// the credential.
#[derive(Debug, Clone)]
#[cfg_attr(not(feature = "raw"), expect(unreachable_pub, reason = "a part of the raw client's type"))]
pub struct Authorization {
    credential: Option<Arc<Credential>>,
    acting_user: Option<MetadataValue<Ascii>>,
}

/// What metadata cannot carry, and `%` itself.
const INVISIBLE: AsciiSet = CONTROLS.add(b' ').add(b'%');

impl Authorization {
    /// Takes the caller's credential.
    pub(crate) fn of(credential: Option<Arc<Credential>>) -> Self {
        Self { credential, acting_user: None }
    }

    /// Sets the user that the caller acts for.
    pub(crate) fn acting_for(&self, user: &str) -> Result<Self, FieldError> {
        let user = UserId::parse(user)?;
        let encoded = MetadataValue::try_from(utf8_percent_encode(user.as_str(), &INVISIBLE).to_string());
        let acting_user = Some(encoded.map_err(|_| FieldError::Rule("is no metadata"))?);
        Ok(Self { acting_user, ..self.clone() })
    }
}

impl Interceptor for Authorization {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let credential = self.credential.as_ref().map(|credential| credential.current().header.clone());
        for (name, value) in [("authorization", credential), ("tokend-acting-user", self.acting_user.clone())]
        {
            if let Some(value) = value {
                request.metadata_mut().insert(name, value);
            }
        }
        Ok(request)
    }
}
