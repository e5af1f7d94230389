//! What a revocation would take, found by reading alone: for `--dry-run` of what revokes.

use std::collections::HashSet;

use tokend_client::Repeatable;
use tokend_client::proto::{GetPolicyRequest, GetTokenRequest, ListTokensRequest, Token, TokenState};

use super::list::show;
use crate::cli::CommandError;
use crate::cli::client::{Client, ClientError};
use crate::cli::output::remark;

/// How many tokens one page has.
const PAGE: i32 = 1000;

/// Prints which tokens revoking this one would revoke: itself and what was rotated from it, however often.
pub(super) async fn token(
    client: &Client,
    token_id: String,
    only_this: bool,
    json: bool,
) -> Result<(), CommandError> {
    let asked = client.call(Repeatable::Yes, GetTokenRequest { token_id }, |mut raw, request| async move {
        raw.get_token(request).await
    });
    let found = asked.await?.token.ok_or(ClientError::Incomplete("token"))?;
    let mut line = vec![found.clone()];
    if !only_this {
        // A successor is younger than what it was rotated from.
        let mut ids = HashSet::from([found.id]);
        // Those that are revoked, too: the line goes on behind them.
        let mut others = of_user(client, found.organization_id, found.user_id, &[]).await?;
        others.reverse();
        line.extend(others.into_iter().filter(|other| {
            let follows = ids.contains(&other.rotated_from);
            follows && ids.insert(other.id.clone())
        }));
    }
    line.retain(|token| token.state() != TokenState::Revoked);
    told(&line, json)
}

/// Prints which tokens revoking all of a user would revoke.
pub(in super::super) async fn user(
    client: &Client,
    organization_id: String,
    user_id: String,
    json: bool,
) -> Result<(), CommandError> {
    // The organization that is meant where none is named: the server says.
    let asked =
        client.call(Repeatable::Yes, GetPolicyRequest { organization_id }, |mut raw, request| async move {
            raw.get_policy(request).await
        });
    let meant = asked.await?;
    let states = [TokenState::Active, TokenState::Expired, TokenState::Disabled];
    told(&of_user(client, meant.organization_id, user_id, &states).await?, json)
}

fn told(tokens: &[Token], json: bool) -> Result<(), CommandError> {
    show(tokens, json)?;
    remark(&format!("{} tokens would be revoked; nothing was changed\n", tokens.len()));
    Ok(())
}

/// Lists what a user has in these states, newest first; none: in any.
async fn of_user(
    client: &Client,
    organization_id: String,
    user_id: String,
    states: &[TokenState],
) -> Result<Vec<Token>, CommandError> {
    let mut message = ListTokensRequest {
        organization_id,
        user_id,
        states: states.iter().map(|state| (*state).into()).collect(),
        page_size: PAGE,
        ..ListTokensRequest::default()
    };
    let mut tokens = Vec::new();
    loop {
        let asked = client.call(Repeatable::Yes, message.clone(), |mut raw, request| async move {
            raw.list_tokens(request).await
        });
        let page = asked.await?;
        tokens.extend(page.tokens);
        message.page_token = page.next_page_token;
        if message.page_token.is_empty() {
            return Ok(tokens);
        }
    }
}
