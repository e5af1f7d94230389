//! Parameters of a query or of a posted form (`application/x-www-form-urlencoded`), or of a route's
//! configuration. Each may stand there once, and nothing unknown beside them: a misspelt requirement must not be
//! none. Not by serde, whose errors repeat the names that they find: a secret may be where a name should.

use std::borrow::Cow;
use std::collections::HashMap;

use zeroize::{Zeroize as _, Zeroizing};

use super::refusal::Refusal;
use crate::domain::FieldError;

const TWICE: FieldError = FieldError::Rule("stands there more than once");

/// The parameters.
pub(crate) struct Form<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Form<'a> {
    /// Reads those that are known here.
    pub(crate) fn read(bytes: &'a [u8], known: &[&str]) -> Result<Self, Refusal> {
        Self::read_loosely(bytes, known)?.check(known)
    }

    /// Takes what a configuration says by the same names.
    pub(crate) fn of(pairs: &'a HashMap<String, String>, known: &[&str]) -> Result<Self, Refusal> {
        Self(pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()).check(known)
    }

    fn check(self, known: &[&str]) -> Result<Self, Refusal> {
        if self.0.iter().all(|(name, _)| known.contains(&&**name)) {
            return Ok(self);
        }
        Err(Refusal::parameter("parameter", &FieldError::Rule("is not one of those that are known here")))
    }

    /// Does the same where a protocol has what is unknown be passed over.
    pub(crate) fn read_loosely(bytes: &'a [u8], known: &[&str]) -> Result<Self, Refusal> {
        let pairs: Vec<_> = form_urlencoded::parse(bytes).collect();
        for name in known {
            if pairs.iter().filter(|(found, _)| found == name).count() > 1 {
                return Err(Refusal::parameter(name, &TWICE));
            }
        }
        Ok(Self(pairs))
    }

    /// Returns a parameter; an empty one is none (RFC 6749, 3.1).
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(found, _)| found == name);
        found.map(|(_, value)| &**value).filter(|value| !value.is_empty())
    }

    /// Returns a parameter as what it is to be.
    pub(crate) fn parse<T>(
        &self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, FieldError>,
    ) -> Result<Option<T>, Refusal> {
        self.get(name).map(parse).transpose().map_err(|error| Refusal::parameter(name, &error))
    }

    /// Returns a parameter that must be there.
    pub(crate) fn require(&self, name: &str) -> Result<&str, Refusal> {
        self.get(name).ok_or_else(|| Refusal::parameter(name, &FieldError::Required))
    }
}

impl Drop for Form<'_> {
    /// Secrets are among them.
    fn drop(&mut self) {
        for (_, value) in &mut self.0 {
            if let Cow::Owned(text) = value {
                text.zeroize();
            }
        }
    }
}

/// Reads one parameter and keeps nothing of the others; an empty one is none.
///
/// # Errors
/// It stands there more than once.
pub(super) fn only(form: &[u8], name: &str) -> Result<Option<Zeroizing<String>>, Refusal> {
    let pairs = form_urlencoded::parse(form).filter(|(found, _)| found == name);
    let mut values = pairs.map(|(_, value)| Zeroizing::new(value.into_owned()));
    let value = values.next();
    if values.next().is_some() {
        return Err(Refusal::parameter(name, &TWICE));
    }
    Ok(value.filter(|value| !value.is_empty()))
}

/// Decodes what is encoded as a name or a value of a form is; what is a whole form stays as it is.
pub(super) fn decoded(text: &str) -> Zeroizing<String> {
    let decoded = form_urlencoded::parse(text.as_bytes()).next().filter(|_| !text.contains(['&', '=']));
    Zeroizing::new(decoded.map_or_else(|| text.to_owned(), |(decoded, _)| decoded.into_owned()))
}
