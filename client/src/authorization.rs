//! What the metadata of every call says of its caller.

use tokend_core::domain::{FieldError, UserId};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

/// Puts the caller's credential into calls, and for whom it acts. Its Debug shows nothing of the credential.
#[derive(Debug, Clone)]
pub struct Authorization {
    credential: Option<MetadataValue<Ascii>>,
    acting_user: Option<MetadataValue<Ascii>>,
}

impl Authorization {
    /// Takes what the caller is known by.
    pub(crate) fn of(credential: Option<MetadataValue<Ascii>>) -> Self {
        Self { credential, acting_user: None }
    }

    /// Says for whom the caller acts.
    pub(crate) fn acting_for(&self, user: &str) -> Result<Self, FieldError> {
        const NOT_ASCII: FieldError = FieldError::Rule("is not ASCII");
        let user = UserId::parse(user)?;
        let text = Some(user.as_str()).filter(|text| text.is_ascii()).ok_or(NOT_ASCII)?;
        let acting_user = Some(MetadataValue::try_from(text).map_err(|_| NOT_ASCII)?);
        Ok(Self { acting_user, ..self.clone() })
    }
}

impl Interceptor for Authorization {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        for (name, value) in [("authorization", &self.credential), ("tokend-acting-user", &self.acting_user)]
        {
            if let Some(value) = value {
                request.metadata_mut().insert(name, value.clone());
            }
        }
        Ok(request)
    }
}
