//! Converts tokens and times between the contract's messages and `tokend-core`'s types, in both
//! directions: the server writes with the one what clients read with the other. A field that cannot be
//! read is an error, never a guess.

use std::ops::Deref;
use std::time::Duration;

use prost_types::Timestamp;
use time::OffsetDateTime;
use tokend_core::domain::token::LastRefusal;
use tokend_core::domain::{
    Labels, Network, Networks, OrganizationId, OwnerKind, PlanName, Principal, RevokeReason, Scope, Scopes,
    Token, TokenName, TokenState, UserId, Verdict,
};
use tokend_core::secret::TokenId;

use crate::error::Error;
use crate::proto;

/// A token, and its state at the time of the response.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenStatus {
    /// The token.
    pub token: Token,
    /// Its state at the time of the response.
    pub state: TokenState,
}

impl Deref for TokenStatus {
    type Target = Token;

    fn deref(&self) -> &Token {
        &self.token
    }
}

/// Converts a required token with its state.
pub(crate) fn status(message: Option<proto::Token>) -> Result<TokenStatus, Error> {
    let message = message.ok_or_else(|| Error::invalid_response("token"))?;
    let state = match message.state() {
        proto::TokenState::Active => TokenState::Active,
        proto::TokenState::Expired => TokenState::Expired,
        proto::TokenState::Revoked => TokenState::Revoked,
        proto::TokenState::Disabled => TokenState::Disabled,
        proto::TokenState::Unspecified => return Err(Error::invalid_response("state")),
    };
    Ok(TokenStatus { token: token(message)?, state })
}

fn field<T, E>(name: &'static str, parsed: Result<T, E>) -> Result<T, Error> {
    parsed.map_err(|_| Error::invalid_response(name))
}

/// Converts a token.
pub(crate) fn token(message: proto::Token) -> Result<Token, Error> {
    // Without `..`, so that this does not compile while a field is missing below.
    let proto::Token {
        id,
        organization_id,
        user_id,
        name,
        scopes,
        labels,
        allowed_cidrs,
        state: _,
        create_time,
        created_by,
        expire_time,
        last_use_time,
        revoke_time,
        revoke_reason,
        rotated_from,
        disable_time,
        superseded_by,
        grant,
        user_disable_time,
        owner_kind,
        plan,
        family_id,
        last_refusal,
    } = message;
    let plan = Some(&*plan).filter(|plan| !plan.is_empty());
    let networks = allowed_cidrs.iter().map(|text| Network::parse(text)).collect();
    let reason = Some(&*revoke_reason).filter(|reason| !reason.is_empty());
    let other =
        |name, id: &str| field(name, Some(id).filter(|id| !id.is_empty()).map(TokenId::parse).transpose());
    Ok(Token {
        id: field("id", TokenId::parse(&id))?,
        organization_id: field("organization_id", OrganizationId::parse(&organization_id))?,
        user_id: field("user_id", UserId::parse(&user_id))?,
        name: field("name", TokenName::parse(&name))?,
        scopes: field("scopes", self::scopes(&scopes))?,
        labels: field("labels", Labels::parse(labels))?,
        allowed_cidrs: field("allowed_cidrs", Result::<Vec<_>, _>::and_then(networks, Networks::new))?,
        create_time: time("create_time", create_time)?
            .ok_or_else(|| Error::invalid_response("create_time"))?,
        created_by: Principal::parse(&created_by).ok_or_else(|| Error::invalid_response("created_by"))?,
        expire_time: time("expire_time", expire_time)?,
        last_use_time: time("last_use_time", last_use_time)?,
        revoke_time: time("revoke_time", revoke_time)?,
        revoke_reason: field("revoke_reason", reason.map(RevokeReason::parse).transpose())?,
        rotated_from: other("rotated_from", &rotated_from)?,
        disable_time: time("disable_time", disable_time)?,
        superseded_by: other("superseded_by", &superseded_by)?,
        grant: field("grant", grant.map(crate::grant::grant).transpose())?,
        user_disable_time: time("user_disable_time", user_disable_time)?,
        plan: field("plan", plan.map(PlanName::parse).transpose())?,
        family_id: other("family_id", &family_id)?,
        owner_kind: self::owner_kind(owner_kind)?,
        last_refusal: last_refusal.map(refusal).transpose()?.map(Box::new),
    })
}

/// A token, and the time at which its state is judged, as a message.
impl From<(&Token, OffsetDateTime)> for proto::Token {
    fn from((token, now): (&Token, OffsetDateTime)) -> Self {
        Self {
            id: token.id.to_string(),
            organization_id: token.organization_id.as_str().to_owned(),
            user_id: token.user_id.as_str().to_owned(),
            name: token.name.as_str().to_owned(),
            scopes: texts(&token.scopes),
            labels: token.labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
            allowed_cidrs: token.allowed_cidrs.iter().map(ToString::to_string).collect(),
            state: proto::TokenState::from(token.state(now)).into(),
            create_time: Some(timestamp(token.create_time)),
            created_by: token.created_by.to_string(),
            expire_time: token.expire_time.map(timestamp),
            last_use_time: token.last_use_time.map(timestamp),
            revoke_time: token.revoke_time.map(timestamp),
            revoke_reason: token.revoke_reason.as_ref().map_or("", RevokeReason::as_str).to_owned(),
            rotated_from: token.rotated_from.map_or_else(String::new, |id| id.to_string()),
            disable_time: token.disable_time.map(timestamp),
            superseded_by: token.superseded_by.map_or_else(String::new, |id| id.to_string()),
            grant: token.grant.as_ref().map(Into::into),
            user_disable_time: token.user_disable_time.map(timestamp),
            owner_kind: proto::OwnerKind::from(token.owner_kind).into(),
            plan: token.plan.as_ref().map_or("", PlanName::as_str).to_owned(),
            family_id: token.family_id.map_or_else(String::new, |id| id.to_string()),
            last_refusal: token.last_refusal.as_deref().map(Into::into),
        }
    }
}

impl From<&LastRefusal> for proto::LastRefusal {
    fn from(refusal: &LastRefusal) -> Self {
        Self {
            refusal_time: Some(timestamp(refusal.time)),
            verdict: refusal.verdict.into(),
            missing_scopes: refusal.missing_scopes.clone(),
            client_ip: refusal.client_ip.map_or_else(String::new, |address| address.to_string()),
        }
    }
}

fn refusal(message: proto::LastRefusal) -> Result<LastRefusal, Error> {
    let invalid = || Error::invalid_response("last_refusal");
    let address = Some(&*message.client_ip).filter(|text| !text.is_empty());
    Ok(LastRefusal {
        time: time("refusal_time", message.refusal_time)?.ok_or_else(invalid)?,
        verdict: u8::try_from(message.verdict).map_err(|_| invalid())?,
        missing_scopes: message.missing_scopes,
        client_ip: address.map(str::parse).transpose().map_err(|_| invalid())?,
    })
}

impl From<OwnerKind> for proto::OwnerKind {
    fn from(kind: OwnerKind) -> Self {
        match kind {
            OwnerKind::User => Self::User,
            OwnerKind::Service => Self::Service,
            // There is no other; a test checks that this list is complete.
            _ => Self::Unspecified,
        }
    }
}

/// Converts what owns a token. A server that does not know of kinds has only users.
pub(crate) fn owner_kind(number: i32) -> Result<OwnerKind, Error> {
    match proto::OwnerKind::try_from(number) {
        Ok(proto::OwnerKind::User | proto::OwnerKind::Unspecified) => Ok(OwnerKind::User),
        Ok(proto::OwnerKind::Service) => Ok(OwnerKind::Service),
        Err(_) => Err(Error::invalid_response("owner_kind")),
    }
}

impl From<TokenState> for proto::TokenState {
    // Verify writes one in each response.
    #[inline]
    fn from(state: TokenState) -> Self {
        match state {
            TokenState::Active => Self::Active,
            TokenState::Expired => Self::Expired,
            TokenState::Revoked => Self::Revoked,
            TokenState::Disabled => Self::Disabled,
            // There is no other; a test checks that this list is complete.
            _ => Self::Unspecified,
        }
    }
}

impl From<Verdict> for proto::Verdict {
    #[inline]
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Valid => Self::Valid,
            Verdict::Malformed => Self::Malformed,
            Verdict::NotFound => Self::NotFound,
            Verdict::Revoked => Self::Revoked,
            Verdict::Expired => Self::Expired,
            Verdict::Disabled => Self::Disabled,
            Verdict::MissingScope => Self::MissingScope,
            Verdict::IpNotAllowed => Self::IpNotAllowed,
            Verdict::RateLimited => Self::RateLimited,
            Verdict::CreditsExhausted => Self::CreditsExhausted,
            // There is no other, as for states.
            _ => Self::Unspecified,
        }
    }
}

/// Parses scopes.
pub(crate) fn scopes(texts: &[String]) -> Result<Scopes, tokend_core::domain::FieldError> {
    Scopes::new(texts.iter().map(|text| Scope::parse(text)).collect::<Result<_, _>>()?)
}

/// Returns the scopes as text.
pub(crate) fn texts(scopes: &Scopes) -> Vec<String> {
    scopes.iter().map(|scope| scope.as_str().to_owned()).collect()
}

/// Converts a verdict; one that this client does not know is an error.
pub(crate) fn verdict(number: i32) -> Result<Verdict, Error> {
    match proto::Verdict::try_from(number) {
        Ok(proto::Verdict::Valid) => Ok(Verdict::Valid),
        Ok(proto::Verdict::Malformed) => Ok(Verdict::Malformed),
        Ok(proto::Verdict::NotFound) => Ok(Verdict::NotFound),
        Ok(proto::Verdict::Revoked) => Ok(Verdict::Revoked),
        Ok(proto::Verdict::Expired) => Ok(Verdict::Expired),
        Ok(proto::Verdict::Disabled) => Ok(Verdict::Disabled),
        Ok(proto::Verdict::MissingScope) => Ok(Verdict::MissingScope),
        Ok(proto::Verdict::IpNotAllowed) => Ok(Verdict::IpNotAllowed),
        Ok(proto::Verdict::RateLimited) => Ok(Verdict::RateLimited),
        Ok(proto::Verdict::CreditsExhausted) => Ok(Verdict::CreditsExhausted),
        Ok(proto::Verdict::Unspecified) | Err(_) => Err(Error::invalid_response("verdict")),
    }
}

/// Converts an optional time.
pub(crate) fn time(name: &str, time: Option<Timestamp>) -> Result<Option<OffsetDateTime>, Error> {
    let read = |time: Timestamp| {
        let second = OffsetDateTime::from_unix_timestamp(time.seconds).ok()?;
        second.replace_nanosecond(u32::try_from(time.nanos).ok()?).ok()
    };
    time.map(|time| read(time).ok_or_else(|| Error::invalid_response(name))).transpose()
}

/// Converts a time to a message.
pub(crate) fn timestamp(time: OffsetDateTime) -> Timestamp {
    // Below 10^9, which fits.
    let nanos = i32::try_from(time.nanosecond()).unwrap_or(0);
    Timestamp { seconds: time.unix_timestamp(), nanos }
}

/// Converts a duration to a message.
pub(crate) fn duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        // Below 10^9, which fits.
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;
    use tokend_core::domain::grant::Users;
    use tokend_core::domain::packed::FieldPositions;
    use tokend_core::domain::{Grant, UserPrefix};
    use tokend_core::fixtures;

    /// A token with every field set.
    fn full() -> Token {
        let mut token = fixtures::token(&["repo:*", "user:read"]);
        let text = |text: &str| text.to_owned();
        token.labels = Labels::parse([(text("team"), text("core"))]).unwrap();
        token.allowed_cidrs = Networks::new(vec![Network::parse("10.0.0.0/8").unwrap()]).unwrap();
        token.expire_time = Some(token.create_time + Duration::from_millis(1_500));
        token.revoke_time = Some(token.create_time);
        token.revoke_reason = Some(RevokeReason::parse("lost").unwrap());
        token.rotated_from = Some(TokenId::from_bytes([8; 16]));
        token.disable_time = Some(token.create_time);
        token.superseded_by = Some(TokenId::from_bytes([9; 16]));
        token.grant = Some(Grant {
            scopes: scopes(&[text("repo:*")]).unwrap(),
            users: Users::new(
                vec![UserId::parse("ada").unwrap()],
                vec![UserPrefix::parse("team-").unwrap()],
                false,
            )
            .unwrap(),
            longest_lifetime: Some(time::Duration::days(90)),
            networks: token.allowed_cidrs.clone(),
            may_grant_self: true,
        });
        token.user_disable_time = Some(token.create_time);
        token.plan = Some(PlanName::parse("free").unwrap());
        token.family_id = Some(TokenId::from_bytes([7; 16]));
        token.owner_kind = OwnerKind::Service;
        token
    }

    #[test]
    fn what_the_server_writes_reads_back() {
        for token in [
            fixtures::token(&[]),
            Token { grant: Some(Grant::default()), ..fixtures::token(&[]) },
            Token {
                grant: Some(Grant { users: Users::new(vec![], vec![], true).unwrap(), ..Grant::default() }),
                ..fixtures::token(&[])
            },
            full(),
        ] {
            let (_, wire) = FieldPositions::pack(&token);
            assert_eq!(super::token(proto::Token::decode(&*wire).unwrap()).unwrap(), token);
            for state in TokenState::ALL {
                let message = proto::Token {
                    state: proto::TokenState::from(state).into(),
                    ..proto::Token::from((&token, token.create_time))
                };
                assert_eq!(status(Some(message)).unwrap(), TokenStatus { token: token.clone(), state });
            }
        }
        for kind in OwnerKind::ALL {
            assert_eq!(i32::from(proto::OwnerKind::from(kind)), i32::from(kind.number()));
            assert_eq!(owner_kind(kind.number().into()).unwrap(), kind);
        }
        for known in Verdict::ALL {
            assert_eq!(verdict(proto::Verdict::from(known).into()).unwrap(), known);
        }
    }

    #[test]
    fn an_unreadable_token_is_an_error() {
        let good = || proto::Token::decode(&*FieldPositions::pack(&full()).1).unwrap();
        assert!(token(good()).is_ok());
        let changes: [fn(&mut proto::Token); 6] = [
            |token| token.id.push('0'),
            |token| token.user_id.clear(),
            |token| token.scopes.push("*".to_owned()),
            |token| token.allowed_cidrs.push("10.0.0.1/8".to_owned()),
            |token| token.create_time = None,
            |token| token.expire_time = Some(Timestamp { seconds: 0, nanos: -1 }),
        ];
        for change in changes {
            let mut message = good();
            change(&mut message);
            assert_eq!(token(message).unwrap_err().kind(), crate::ErrorKind::InvalidResponse);
        }
        assert!(status(Some(good())).is_err(), "a state is not set");
        assert!(verdict(0).is_err() && verdict(99).is_err());
    }
}
