//! What a revocation would revoke, or a deletion of a plan would change, found by reading only: for `--dry-run`.

use std::collections::HashSet;

use tokend_client::Repeatable;
use tokend_client::proto::{
    GetPlanRequest, GetPolicyRequest, GetTokenRequest, ListTokensRequest, OwnerKind, Token, TokenState,
};

use super::list::show;
use crate::cli::CommandError;
use crate::cli::client::{Client, ClientError};
use crate::cli::output::remark;

/// The tokens per page.
const TOKENS_PER_PAGE: i32 = 1000;

/// Prints the tokens that revoking this one would revoke: itself and its successors by rotation.
pub(super) async fn token(
    client: &Client,
    token_id: String,
    only_this: bool,
    json: bool,
) -> Result<(), CommandError> {
    let call = client.call(Repeatable::Yes, GetTokenRequest { token_id }, |mut raw, request| async move {
        raw.get_token(request).await
    });
    let found = call.await?.token.ok_or(ClientError::Incomplete("token"))?;
    let mut line = vec![found.clone()];
    if !only_this {
        // A successor is newer than the token it was rotated from.
        let mut ids = HashSet::from([found.id]);
        // Includes revoked ones: their successors belong to the family, too.
        let mut others =
            of_user(client, found.organization_id, found.user_id, OwnerKind::Unspecified, &[]).await?;
        others.reverse();
        line.extend(others.into_iter().filter(|other| {
            let follows = ids.contains(&other.rotated_from);
            follows && ids.insert(other.id.clone())
        }));
    }
    line.retain(|token| token.state() != TokenState::Revoked);
    print_preview(&line, json)
}

/// Prints the tokens that revoking all of a user would revoke.
pub(in super::super) async fn user(
    client: &Client,
    organization_id: String,
    user_id: String,
    kind: OwnerKind,
    json: bool,
) -> Result<(), CommandError> {
    // If no organization is named, the server says which one applies.
    let call =
        client.call(Repeatable::Yes, GetPolicyRequest { organization_id }, |mut raw, request| async move {
            raw.get_policy(request).await
        });
    let meant = call.await?;
    let states = [TokenState::Active, TokenState::Expired, TokenState::Disabled];
    print_preview(&of_user(client, meant.organization_id, user_id, kind, &states).await?, json)
}

/// Prints the tokens that name a plan, which keep it from being deleted or would lose it.
pub(in super::super) async fn plan(
    client: &Client,
    (organization_id, name): (String, String),
    json: bool,
) -> Result<(), CommandError> {
    let message = GetPlanRequest { organization_id, name };
    let call =
        client.call(Repeatable::Yes, message, |mut raw, request| async move { raw.get_plan(request).await });
    let plan = call.await?.plan.ok_or(ClientError::Incomplete("plan"))?;
    let message = ListTokensRequest {
        organization_id: plan.organization_id,
        page_size: TOKENS_PER_PAGE,
        ..ListTokensRequest::default()
    };
    let tokens = listed(client, message, |token| token.plan == plan.name).await?;
    show(&tokens, json)?;
    let has_ended = |token: &&Token| matches!(token.state(), TokenState::Revoked | TokenState::Expired);
    let ended = tokens.iter().filter(has_ended).count();
    let using = tokens.len() - ended;
    remark(&match using {
        0 => format!(
            "the plan would be deleted, and {ended} ended tokens would lose it; nothing was changed\n"
        ),
        _ => format!("the plan would not be deleted: {using} tokens that have not ended name it\n"),
    });
    Ok(())
}

fn print_preview(tokens: &[Token], json: bool) -> Result<(), CommandError> {
    show(tokens, json)?;
    remark(&format!("{} tokens would be revoked; nothing was changed\n", tokens.len()));
    Ok(())
}

/// Lists a user's tokens in these states, newest first; no states: all.
async fn of_user(
    client: &Client,
    organization_id: String,
    user_id: String,
    kind: OwnerKind,
    states: &[TokenState],
) -> Result<Vec<Token>, CommandError> {
    let message = ListTokensRequest {
        organization_id,
        user_id,
        states: states.iter().map(|state| (*state).into()).collect(),
        page_size: TOKENS_PER_PAGE,
        owner_kind: kind.into(),
        ..ListTokensRequest::default()
    };
    listed(client, message, |_| true).await
}

/// Lists all tokens of the pages of this request that are to be kept.
async fn listed(
    client: &Client,
    mut message: ListTokensRequest,
    keep: impl Fn(&Token) -> bool,
) -> Result<Vec<Token>, CommandError> {
    let mut tokens = Vec::new();
    loop {
        let call = client.call(Repeatable::Yes, message.clone(), |mut raw, request| async move {
            raw.list_tokens(request).await
        });
        let page = call.await?;
        tokens.extend(page.tokens.into_iter().filter(&keep));
        message.page_token = page.next_page_token;
        if message.page_token.is_empty() {
            return Ok(tokens);
        }
    }
}
