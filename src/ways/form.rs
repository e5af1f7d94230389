//! Parameters of a query or of a posted form (`application/x-www-form-urlencoded`), or of a route's
//! configuration. Each may stand there once, and nothing unknown beside them: a misspelt requirement must not be
//! none.

use std::borrow::Cow;
use std::collections::HashMap;

use super::refusal::Refusal;
use crate::domain::FieldError;

/// The parameters.
pub(super) struct Form<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Form<'a> {
    /// Reads those that are known here.
    pub(super) fn read(bytes: &'a [u8], known: &[&str]) -> Result<Self, Refusal> {
        Self::read_loosely(bytes, known)?.check(known)
    }

    /// Takes what a configuration says by the same names.
    pub(super) fn of(pairs: &'a HashMap<String, String>, known: &[&str]) -> Result<Self, Refusal> {
        Self(pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()).check(known)
    }

    fn check(self, known: &[&str]) -> Result<Self, Refusal> {
        if self.0.iter().all(|(name, _)| known.contains(&&**name)) {
            return Ok(self);
        }
        Err(Refusal::parameter("parameter", &FieldError::Rule("is not one of those that are known here")))
    }

    /// Does the same where a protocol has what is unknown be passed over.
    pub(super) fn read_loosely(bytes: &'a [u8], known: &[&str]) -> Result<Self, Refusal> {
        let pairs: Vec<_> = form_urlencoded::parse(bytes).collect();
        for name in known {
            if pairs.iter().filter(|(found, _)| found == name).count() > 1 {
                return Err(Refusal::parameter(name, &FieldError::Rule("stands there more than once")));
            }
        }
        Ok(Self(pairs))
    }

    /// Returns a parameter; an empty one is none (RFC 6749, 3.1).
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(found, _)| found == name);
        found.map(|(_, value)| &**value).filter(|value| !value.is_empty())
    }

    /// Returns a parameter as what it is to be.
    pub(super) fn parse<T>(
        &self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, FieldError>,
    ) -> Result<Option<T>, Refusal> {
        self.get(name).map(parse).transpose().map_err(|error| Refusal::parameter(name, &error))
    }

    /// Returns a parameter that must be there.
    pub(super) fn require(&self, name: &str) -> Result<&str, Refusal> {
        self.get(name).ok_or_else(|| Refusal::parameter(name, &FieldError::Required))
    }
}
