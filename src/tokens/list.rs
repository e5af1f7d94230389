//! Lists tokens, page by page. Called by `ListTokens`.

use time::OffsetDateTime;

use super::{ActionError, Actions};
use crate::domain::page::Listing;
use crate::domain::{Caller, Token, size};
use crate::store::Walk;

/// The fields of a `ListTokens` request.
#[derive(Debug, Clone)]
pub struct ListTokens {
    /// The filters and the order. If no organization is given: see [`Caller::listed_owner`].
    pub listing: Listing,
    /// The maximum number of tokens to return.
    pub page_size: u32,
    /// The page token of the last page; `None`: start at the beginning.
    pub page_token: Option<String>,
}

/// One page of tokens.
#[derive(Debug)]
pub struct Page {
    /// The tokens, each with the time at which its state is judged.
    pub tokens: Vec<(Token, OffsetDateTime)>,
    /// Continues after this page; `None`: it was the last one.
    pub next_page_token: Option<String>,
}

impl Actions {
    /// Lists tokens for a caller with `tokend:read` or `tokend:self`.
    ///
    /// # Errors
    /// [`ActionError`]: access, a page token of another listing, the database.
    pub async fn list_tokens(&self, caller: &Caller, request: ListTokens) -> Result<Page, ActionError> {
        let mut listing = request.listing;
        (listing.organization_id, listing.user_id) =
            caller.listed_owner(listing.organization_id, listing.user_id)?;
        listing.owner_kind = caller.listed_kind(listing.owner_kind)?;
        let position = request
            .page_token
            .map(|text| listing.parse_page_token(&text, &self.keyring.peek()))
            .transpose()?;

        // One token more than fits shows whether there is a next page; so does a scan that stopped at
        // its limit.
        let Walk { mut tokens, broken_off } = self
            .admission
            .reads(caller)
            .await?
            .list_tokens(&listing, position, request.page_size.saturating_add(1))
            .await?;
        let fitting = fitting(&tokens, request.page_size);
        let more = tokens.len() > fitting;
        tokens.truncate(fitting);
        let next = match tokens.last().filter(|_| more) {
            Some((last, _)) => Some(listing.position_of(last)),
            None => broken_off,
        };
        let next_page_token = next.map(|position| listing.page_token(&position, &self.keyring.peek()));
        Ok(Page { tokens, next_page_token })
    }
}

/// Returns how many of the tokens, from the first, fit into a page; at least one if there is one.
fn fitting(tokens: &[(Token, OffsetDateTime)], page_size: u32) -> usize {
    size::fitting(tokens.iter().map(|(token, _)| size::of_token(token))).min(page_size as usize)
}
