//! Parameters of a query, a posted form (`application/x-www-form-urlencoded`) or a route's
//! configuration. Each may occur once, and unknown ones are refused: a misspelt requirement must not be
//! ignored. Not by serde, whose errors repeat names, and a secret may be where a name should be.

use std::borrow::Cow;
use std::collections::HashMap;

use zeroize::{Zeroize as _, Zeroizing};

use super::refusal::Refusal;
use crate::domain::FieldError;

const TWICE: FieldError = FieldError::Rule("is there more than once");

/// Decoded parameters.
pub(crate) struct Form<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Form<'a> {
    /// Reads parameters; unknown names are refused.
    pub(crate) fn read(bytes: &'a [u8], known: &[&str]) -> Result<Self, Refusal> {
        Self::read_loosely(bytes, known)?.check(known)
    }

    /// Takes parameters from a route's configuration; unknown names are refused.
    pub(crate) fn of(pairs: &'a HashMap<String, String>, known: &[&str]) -> Result<Self, Refusal> {
        Self(pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()).check(known)
    }

    fn check(self, known: &[&str]) -> Result<Self, Refusal> {
        if self.0.iter().all(|(name, _)| known.contains(&&**name)) {
            return Ok(self);
        }
        Err(Refusal::parameter("parameter", &FieldError::Rule("is not one of the known ones")))
    }

    /// Reads parameters and ignores unknown names, where a protocol demands that.
    pub(crate) fn read_loosely(bytes: &'a [u8], known: &[&str]) -> Result<Self, Refusal> {
        let pairs: Vec<_> = form_urlencoded::parse(bytes).collect();
        for name in known {
            if pairs.iter().filter(|(found, _)| found == name).count() > 1 {
                return Err(Refusal::parameter(name, &TWICE));
            }
        }
        Ok(Self(pairs))
    }

    /// Returns a parameter; an empty one counts as absent (RFC 6749, 3.1).
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(found, _)| found == name);
        found.map(|(_, value)| &**value).filter(|value| !value.is_empty())
    }

    /// Returns a parameter, parsed.
    pub(crate) fn parse<T>(
        &self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, FieldError>,
    ) -> Result<Option<T>, Refusal> {
        self.get(name).map(parse).transpose().map_err(|error| Refusal::parameter(name, &error))
    }

    /// Returns a required parameter.
    pub(crate) fn require(&self, name: &str) -> Result<&str, Refusal> {
        self.get(name).ok_or_else(|| Refusal::parameter(name, &FieldError::Required))
    }
}

impl Drop for Form<'_> {
    /// Overwrites the values: secrets may be among them.
    fn drop(&mut self) {
        for (_, value) in &mut self.0 {
            if let Cow::Owned(text) = value {
                text.zeroize();
            }
        }
    }
}

/// Reads one parameter and keeps nothing of the others; an empty one counts as absent.
///
/// # Errors
/// The parameter occurs more than once.
pub(super) fn only(form: &[u8], name: &str) -> Result<Option<Zeroizing<String>>, Refusal> {
    let pairs = form_urlencoded::parse(form).filter(|(found, _)| found == name);
    let mut values = pairs.map(|(_, value)| Zeroizing::new(value.into_owned()));
    let value = values.next();
    if values.next().is_some() {
        return Err(Refusal::parameter(name, &TWICE));
    }
    Ok(value.filter(|value| !value.is_empty()))
}

/// Decodes a form-encoded name or value; text that is a whole form is returned unchanged.
pub(super) fn decoded(text: &str) -> Zeroizing<String> {
    let decoded = form_urlencoded::parse(text.as_bytes()).next().filter(|_| !text.contains(['&', '=']));
    Zeroizing::new(decoded.map_or_else(|| text.to_owned(), |(decoded, _)| decoded.into_owned()))
}
