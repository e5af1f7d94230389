//! The names of the supervised tasks: values of a metric's label. Used by the code that starts them.

/// A supervised task. Its word is the value of the metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the task of its word")]
pub enum Task {
    Accept,
    Announce,
    Feed,
    LastUse,
    Lessor,
    Listen,
    Loader,
    MacRefresh,
    Purge,
    Readiness,
    Registration,
    Reload,
    Retention,
    Seal,
    Watch,
}

impl Task {
    /// Every task.
    pub const ALL: [Self; 15] = [
        Self::Accept,
        Self::Announce,
        Self::Feed,
        Self::LastUse,
        Self::Lessor,
        Self::Listen,
        Self::Loader,
        Self::MacRefresh,
        Self::Purge,
        Self::Readiness,
        Self::Registration,
        Self::Reload,
        Self::Retention,
        Self::Seal,
        Self::Watch,
    ];

    /// Returns the task's label value.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Announce => "announce",
            Self::Feed => "feed",
            Self::LastUse => "last_use",
            Self::Lessor => "lessor",
            Self::Listen => "listen",
            Self::Loader => "loader",
            Self::MacRefresh => "mac_refresh",
            Self::Purge => "purge",
            Self::Readiness => "readiness",
            Self::Registration => "registration",
            Self::Reload => "reload",
            Self::Retention => "retention",
            Self::Seal => "seal",
            Self::Watch => "watch",
        }
    }
}
