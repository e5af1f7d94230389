//! Users as far as tokens need them: the types of the calls, and the calls.

use time::OffsetDateTime;
use tokend_core::domain::{OrganizationId, OwnerKind, UserId};

use crate::client::{Client, effective};
use crate::error::Error;
use crate::pages::{Page, Pages};
use crate::proto;
use crate::requests::{Changed, EndOptions};
use crate::retry::Repeatable;
use crate::token::{owner_kind, time};

/// A user of an organization.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserRef<'a> {
    /// The organization; `None`: the caller's own, or `default` for a root caller.
    pub organization_id: Option<&'a str>,
    /// The id.
    pub user_id: &'a str,
    /// What the id names.
    pub kind: OwnerKind,
}

impl<'a> UserRef<'a> {
    /// A person in the caller's own organization.
    #[must_use]
    pub const fn person(user_id: &'a str) -> Self {
        Self { organization_id: None, user_id, kind: OwnerKind::User }
    }

    /// A service account in the caller's own organization.
    #[must_use]
    pub const fn service(user_id: &'a str) -> Self {
        Self { organization_id: None, user_id, kind: OwnerKind::Service }
    }

    /// The same in another organization.
    #[must_use]
    pub const fn of(self, organization_id: &'a str) -> Self {
        Self { organization_id: Some(organization_id), ..self }
    }
}

/// Selects users; the default is all that the caller can reach.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct UserListing {
    /// Only those of this organization.
    pub organization_id: Option<OrganizationId>,
    /// Only those of this kind.
    pub kind: Option<OwnerKind>,
    /// Only those who are disabled.
    pub only_disabled: bool,
    /// The most users in a page; 0: tokend's default.
    pub page_size: u16,
}

/// A user who has tokens or is disabled.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct User {
    /// The organization.
    pub organization_id: OrganizationId,
    /// The id.
    pub user_id: UserId,
    /// What the id names.
    pub kind: OwnerKind,
    /// How many tokens are active.
    pub active_count: u64,
    /// How many tokens are stored, in any state.
    pub token_count: u64,
    /// When one of the tokens was last used, as far as recorded.
    pub last_use_time: Option<OffsetDateTime>,
    /// When the user was disabled; `None`: the user is not.
    pub disable_time: Option<OffsetDateTime>,
    /// The reason of the disabling; empty: none was given.
    pub disable_reason: String,
}

impl Client {
    /// Disables a user: all tokens are refused, and none is created, until the user is enabled. Returns how many
    /// tokens this call put out of use.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn disable_user(
        &self,
        user: UserRef<'_>,
        options: impl Into<EndOptions>,
    ) -> Result<Changed<u64>, Error> {
        let EndOptions { reason, force } = options.into();
        let message = proto::DisableUserRequest {
            organization_id: user.organization_id.unwrap_or_default().to_owned(),
            user_id: user.user_id.to_owned(),
            reason,
            force,
            owner_kind: proto::OwnerKind::from(user.kind).into(),
        };
        let done = self
            .run(Repeatable::Yes, message, |mut raw, request| async move { raw.disable_user(request).await })
            .await?;
        let changed = count("disabled_count", done.disabled_count)?;
        Ok(Changed { changed, effective_time: effective(done.effective_time)? })
    }

    /// Takes back what [`Self::disable_user`] did. Returns how many tokens are no longer out of use on account of the
    /// user. Not retried automatically: another client may have disabled the user meanwhile.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn enable_user(&self, user: UserRef<'_>) -> Result<Changed<u64>, Error> {
        let message = proto::EnableUserRequest {
            organization_id: user.organization_id.unwrap_or_default().to_owned(),
            user_id: user.user_id.to_owned(),
            owner_kind: proto::OwnerKind::from(user.kind).into(),
        };
        let done = self
            .run(Repeatable::No, message, |mut raw, request| async move { raw.enable_user(request).await })
            .await?;
        let changed = count("enabled_count", done.enabled_count)?;
        Ok(Changed { changed, effective_time: effective(done.effective_time)? })
    }

    /// Reads a page of users: the first, or the one after a previous page.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn list_users(&self, listing: &UserListing, after: Option<&str>) -> Result<Page<User>, Error> {
        let organization_id = listing.organization_id.as_ref().map(|id| id.as_str().to_owned());
        let message = proto::ListUsersRequest {
            organization_id: organization_id.unwrap_or_default(),
            owner_kind: listing.kind.map_or(0, |kind| proto::OwnerKind::from(kind).into()),
            only_disabled: listing.only_disabled,
            page_size: listing.page_size.into(),
            page_token: after.unwrap_or_default().to_owned(),
        };
        let page = self
            .run(Repeatable::Yes, message, |mut raw, request| async move { raw.list_users(request).await })
            .await?;
        Page::read(page.users, page.next_page_token, User::try_from)
    }

    /// Reads users, page by page.
    #[must_use]
    pub fn user_pages(&self, listing: &UserListing) -> Pages<User> {
        let (client, listing) = (self.clone(), listing.clone());
        Pages::new(move |after| {
            let (client, listing) = (client.clone(), listing.clone());
            async move { client.list_users(&listing, after.as_deref()).await }
        })
    }
}

impl TryFrom<proto::User> for User {
    type Error = Error;

    fn try_from(message: proto::User) -> Result<Self, Error> {
        fn field<T, E>(name: &'static str, parsed: Result<T, E>) -> Result<T, Error> {
            parsed.map_err(|_| Error::invalid_response(name))
        }
        Ok(Self {
            organization_id: field("organization_id", OrganizationId::parse(&message.organization_id))?,
            user_id: field("user_id", UserId::parse(&message.user_id))?,
            kind: owner_kind(message.owner_kind)?,
            active_count: count("active_count", message.active_count)?,
            token_count: count("token_count", message.token_count)?,
            last_use_time: time("last_use_time", message.last_use_time)?,
            disable_time: time("disable_time", message.disable_time)?,
            disable_reason: message.disable_reason,
        })
    }
}

fn count(name: &'static str, number: i64) -> Result<u64, Error> {
    u64::try_from(number).map_err(|_| Error::invalid_response(name))
}
