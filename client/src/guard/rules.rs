//! The rules of a guard. A rule that can match nothing is refused when it is added; if it is not certain
//! which rule applies to a request, all that may apply must be met. Knows paths, and no requests.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokend_core::domain::{FieldError, Scope, Scopes};

use super::spelling::{can_match, plain};

/// Why a guard's rule is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// A scope is invalid, or there are too many.
    #[error("a required scope {0}")]
    Scope(#[from] FieldError),
    /// No request can have the path.
    #[error("no request can match the path {path:?}: {reason}")]
    Path {
        /// The given path.
        path: String,
        /// What is wrong with it, and what to do.
        reason: &'static str,
    },
    /// Another rule for the same path, or for another spelling of it, demands something else.
    #[error("the path {path:?} already has a rule: {other:?}")]
    Repeated {
        /// The given path.
        path: String,
        /// The existing rule's path.
        other: String,
    },
    /// The rule for paths without one is already set.
    #[error("what other paths require is already set; set it once")]
    Elsewhere,
}

/// The requests that are admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Access {
    Requires(Scopes),
    Open,
    Closed,
}

/// The rules of a guard.
#[derive(Debug, Clone, Default)]
pub(super) struct Rules {
    /// The rule for other paths; unless `elsewhere_set`, any token is admitted.
    elsewhere: Access,
    elsewhere_set: bool,
    /// The rules by path, as written.
    paths: HashMap<String, Access>,
    /// The rules by normalized path, see [`plain`].
    alike: HashMap<String, SimilarPaths>,
    /// The rules by each suffix of the normalized path: what is left of it after a removed prefix.
    ends: HashMap<String, SimilarPaths>,
    warned: Arc<AtomicBool>,
}

/// The combined demand of the rules that a path resembles, and one of their paths.
#[derive(Debug, Clone)]
struct SimilarPaths {
    path: String,
    access: Access,
}

impl Default for Access {
    fn default() -> Self {
        Self::Requires(Scopes::default())
    }
}

impl Rules {
    /// Sets the rule for paths without one.
    pub(super) fn require(&mut self, scopes: Scopes) -> Result<(), RuleError> {
        if std::mem::replace(&mut self.elsewhere_set, true) {
            return Err(RuleError::Elsewhere);
        }
        self.elsewhere = Access::Requires(scopes);
        Ok(())
    }

    /// Refuses requests at paths without a rule.
    pub(super) fn close_elsewhere(&mut self) {
        (self.elsewhere, self.elsewhere_set) = (Access::Closed, true);
    }

    /// Adds the rule for a path.
    pub(super) fn insert(&mut self, path: String, access: Access) -> Result<(), RuleError> {
        if let Err(reason) = can_match(&path) {
            return Err(RuleError::Path { path, reason });
        }
        let plain = plain(&path).into_owned();
        match self.alike.get(&plain) {
            Some(other) if other.path == path || other.access != access => {
                return Err(RuleError::Repeated { path, other: other.path.clone() });
            }
            _ => {}
        }
        for (at, _) in plain.match_indices('/').skip(1) {
            note(&mut self.ends, &plain[at..], &path, &access);
        }
        note(&mut self.alike, &plain, &path, &access);
        self.paths.insert(path, access);
        Ok(())
    }

    /// Returns the access at a path: `visible` is the path as the guard sees it, `full` the path
    /// before routers removed anything, if known.
    ///
    /// A rule for exactly this path applies. If there is none, but one may be meant (a router may
    /// accept other spellings, or only part of the path is seen), its scopes are required in
    /// addition to those elsewhere; that it is open does not apply.
    pub(super) fn access(&self, visible: &str, full: Option<&str>) -> Cow<'_, Access> {
        let named = self.paths.get(full.unwrap_or(visible));
        let access = named.unwrap_or(&self.elsewhere);
        if self.paths.is_empty() || (named.is_some() && full.is_some()) {
            return Cow::Borrowed(access);
        }
        let similar = self.similar(&plain(visible), full.map(plain).as_deref(), named.is_none());
        if similar.is_empty() {
            return Cow::Borrowed(access);
        }
        let least = if *access == Access::Open { &self.elsewhere } else { access };
        Cow::Owned(similar.into_iter().fold(least.clone(), |all, SimilarPaths { path, access }| {
            self.warn(path);
            all.and(access)
        }))
    }

    /// Finds the rules with requirements that may apply to a path. `alike`: also by other spellings.
    fn similar(&self, visible: &str, full: Option<&str>, alike: bool) -> Vec<&SimilarPaths> {
        let mut found = vec![self.alike.get(visible).filter(|_| alike)];
        match full {
            None => found.push(self.ends.get(visible)),
            // What was removed from the path may belong to the rule's path.
            Some(full) => {
                let ends = full.match_indices('/').map(|(at, _)| &full[at..]);
                found.extend(ends.take_while(|end| end.len() > visible.len()).map(|end| self.alike.get(end)));
            }
        }
        found.into_iter().flatten().filter(|found| matches!(found.access, Access::Requires(_))).collect()
    }

    /// Logs once that a rule matches only by resemblance.
    fn warn(&self, path: &str) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                rule.path = path,
                "a request's path resembles a rule's path but is not equal: the request must satisfy both \
                 that rule and what other paths require; a rule must name the whole path, also within a \
                 nested router"
            );
        }
    }
}

impl Access {
    /// Returns the combined demand of both.
    fn and(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Closed, _) | (_, Self::Closed) => Self::Closed,
            (Self::Open, access) | (access, Self::Open) => access.clone(),
            (Self::Requires(some), Self::Requires(others)) => {
                // Too many for one request: no token could prove that it has them.
                let all = Scopes::new(some.iter().chain(others.iter()).cloned().collect());
                all.map_or(Self::Closed, Self::Requires)
            }
        }
    }
}

/// Parses scopes.
pub(super) fn scopes<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Scopes, RuleError> {
    Ok(Scopes::new(texts.into_iter().map(Scope::parse).collect::<Result<_, _>>()?)?)
}

fn note(paths: &mut HashMap<String, SimilarPaths>, by: &str, path: &str, access: &Access) {
    let similar = SimilarPaths { path: path.to_owned(), access: access.clone() };
    paths.entry(by.to_owned()).and_modify(|there| there.access = there.access.and(access)).or_insert(similar);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requires(texts: &[&str]) -> Access {
        Access::Requires(scopes(texts.iter().copied()).unwrap())
    }

    fn rules(paths: &[(&str, Access)]) -> Rules {
        let mut rules = Rules::default();
        rules.require(scopes(["some"]).unwrap()).unwrap();
        for (path, access) in paths {
            rules.insert((*path).to_owned(), access.clone()).unwrap();
        }
        rules
    }

    #[test]
    fn a_path_has_one_rule_and_the_rule_for_other_paths_is_set_once() {
        for (other, access) in [
            ("/admin", requires(&["a"])),
            ("/admin", requires(&["b"])),
            ("/Admin", requires(&["b"])),
            ("/admin/", Access::Open),
        ] {
            let mut rules = rules(&[("/admin", requires(&["a"]))]);
            let refused = rules.insert(other.to_owned(), access).unwrap_err();
            assert!(matches!(refused, RuleError::Repeated { .. }), "{other}");
        }
        let same = rules(&[("/admin", requires(&["a"])), ("/admin/", requires(&["a"]))]);
        assert_eq!(*same.access("/admin/", None), requires(&["a"]));
        assert_eq!(rules(&[]).require(Scopes::default()).unwrap_err(), RuleError::Elsewhere);
        let mut closed = rules(&[]);
        closed.close_elsewhere();
        assert_eq!(*closed.access("/", None), Access::Closed);
        assert_eq!(closed.require(Scopes::default()).unwrap_err(), RuleError::Elsewhere);
    }

    #[test]
    fn a_similar_path_must_satisfy_every_rule_that_may_be_meant() {
        let rules = rules(&[
            ("/api/admin", requires(&["admin"])),
            ("/api/health", Access::Open),
            ("/acme.v1.Reports/Get", requires(&["get"])),
        ]);
        let (some, both) = (requires(&["some"]), requires(&["some", "admin"]));
        for (visible, full, expected) in [
            ("/api/admin", None, requires(&["admin"])),
            ("/acme.v1.Reports/Get", None, requires(&["get"])),
            ("/api/health", None, Access::Open),
            ("/other", None, some.clone()),
            ("/", None, some.clone()),
            ("", None, some.clone()),
            // A nested router has removed a prefix that is not known.
            ("/admin", None, both.clone()),
            ("/health", None, some.clone()),
            // And with the whole path known.
            ("/admin", Some("/api/admin"), requires(&["admin"])),
            ("/api/admin", Some("/v1/api/admin"), both.clone()),
            ("/admin", Some("/v1/api/admin"), both.clone()),
            ("/api/health", Some("/v1/api/health"), some.clone()),
            ("/health", Some("/api/health"), Access::Open),
            ("/admin", Some("/v1/admin"), some.clone()),
            ("/admin", Some("/admin"), some.clone()),
            // Other spellings.
            ("/API/%61dmin", None, both.clone()),
            ("/x", Some("/api//admin/"), both.clone()),
            ("/Health", Some("/api/Health"), some),
        ] {
            assert_eq!(*rules.access(visible, full), expected, "{visible} of {full:?}");
        }
        let mut closed = rules.clone();
        closed.close_elsewhere();
        assert_eq!(*closed.access("/admin", None), Access::Closed);
        assert_eq!(*closed.access("/admin", Some("/api/admin")), requires(&["admin"]));
    }

    #[test]
    fn an_open_path_is_closed_where_another_rule_may_be_meant() {
        let rules = rules(&[("/admin", Access::Open), ("/api/admin", requires(&["admin"]))]);
        assert_eq!(*rules.access("/admin", None), requires(&["some", "admin"]));
        assert_eq!(*rules.access("/admin", Some("/admin")), Access::Open);
    }

    #[test]
    fn more_scopes_than_a_token_can_have_admit_nobody() {
        let many = |kind: &str| {
            let texts: Vec<_> = (0..40).map(|number| format!("{kind}{number}")).collect();
            Access::Requires(scopes(texts.iter().map(|text| &**text)).unwrap())
        };
        assert_eq!(many("a").and(&many("b")), Access::Closed);
    }
}
