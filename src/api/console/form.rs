//! The fields of a posted form, or the parameters of a page's address. Overwritten when dropped: a secret may be
//! among them. Called by each page.

use std::borrow::Cow;

use zeroize::Zeroize as _;

use crate::domain::FieldError;

/// Decoded fields, in their order.
pub(super) struct Fields<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Fields<'a> {
    /// Decodes a form or a query.
    pub(super) fn read(bytes: &'a [u8]) -> Self {
        Self(form_urlencoded::parse(bytes).collect())
    }

    /// Returns the first value of a field, or the empty text.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value)
    }

    /// Returns a field as people type it: without white space around it.
    pub(super) fn typed(&self, name: &str) -> String {
        self.get(name).trim().to_owned()
    }

    /// Returns every value of a field.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(found, _)| found == name).map(|(_, value)| &**value)
    }
}

impl Drop for Fields<'_> {
    fn drop(&mut self) {
        for (_, value) in &mut self.0 {
            if let Cow::Owned(text) = value {
                text.zeroize();
            }
        }
    }
}

/// Parses a field; `None`: it is empty.
pub(super) fn optional<T>(
    text: &str,
    parse: impl Fn(&str) -> Result<T, FieldError>,
) -> Result<Option<T>, FieldError> {
    if text.is_empty() { Ok(None) } else { parse(text).map(Some) }
}

/// What is wrong with the fields of a form, in people's words, each beside its field.
#[derive(Debug, Default, Clone)]
pub(super) struct Problems(Vec<(&'static str, String)>);

impl Problems {
    pub(super) fn one(field: &'static str, text: impl Into<String>) -> Self {
        Self(vec![(field, text.into())])
    }

    pub(super) fn add(&mut self, field: &'static str, text: impl Into<String>) {
        self.0.push((field, text.into()));
    }

    /// Returns what is wrong with a field: its first problem.
    pub(super) fn of(&self, field: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| *found == field).map(|(_, text)| &**text)
    }

    pub(super) fn all(&self) -> &[(&'static str, String)] {
        &self.0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes a parsed value, or records what is wrong with its field.
    pub(super) fn take<T>(
        &mut self,
        field: &'static str,
        parsed: Result<T, impl std::fmt::Display>,
        what: &str,
    ) -> Option<T> {
        parsed.inspect_err(|error| self.add(field, format!("{what} {error}."))).ok()
    }
}
