//! A grant in the wire encoding, in both directions: written into the packed token, and read when its holder becomes a
//! caller.

use time::Duration;

use super::read::{UNREADABLE, next};
use super::{bytes, text, varint};
use crate::domain::fields::{FieldError, UserId, UserPrefix};
use crate::domain::grant::{Grant, Users};
use crate::domain::networks::{Network, Networks};
use crate::domain::scope::{Scope, Scopes};

/// Writes a field with the message of a grant.
pub(super) fn write(wire: &mut Vec<u8>, tag: u32, grant: &Grant) {
    let mut message = Vec::with_capacity(256);
    grant.scopes.iter().for_each(|scope| text(&mut message, 1 << 3 | 2, scope.as_str()));
    grant.users.ids().for_each(|user| text(&mut message, 2 << 3 | 2, user));
    grant.users.prefixes().for_each(|prefix| text(&mut message, 3 << 3 | 2, prefix));
    flag(&mut message, 4, grant.users.is_all());
    if let Some(longest) = grant.longest_lifetime {
        let mut duration = Vec::with_capacity(11);
        duration.push(1 << 3);
        varint(&mut duration, longest.whole_seconds().cast_unsigned());
        bytes(&mut message, 5 << 3 | 2, &duration);
    }
    grant.networks.iter().for_each(|network| text(&mut message, 6 << 3 | 2, &network.to_string()));
    flag(&mut message, 7, grant.may_grant_self);
    bytes(wire, tag, &message);
}

fn flag(wire: &mut Vec<u8>, number: u8, is: bool) {
    if is {
        wire.extend_from_slice(&[number << 3, 1]);
    }
}

/// Reads the grant among these fields of a token; `None`: it has none.
///
/// # Errors
/// The fields, or the grant, cannot be read.
pub(super) fn find(mut fields: &[u8], number: u64) -> Result<Option<Grant>, FieldError> {
    while let Some(field) = next(&mut fields)? {
        if field.number == number {
            return read(field.content).map(Some);
        }
    }
    Ok(None)
}

fn read(mut message: &[u8]) -> Result<Grant, FieldError> {
    let (mut scopes, mut ids, mut prefixes, mut networks) = (vec![], vec![], vec![], vec![]);
    let (mut all, mut may_grant_self, mut longest_lifetime) = (false, false, None);
    while let Some(field) = next(&mut message)? {
        let text = std::str::from_utf8(field.content).map_err(|_| UNREADABLE);
        match field.number {
            1 => scopes.push(Scope::parse(text?)?),
            2 => ids.push(UserId::parse(text?)?),
            3 => prefixes.push(UserPrefix::parse(text?)?),
            4 => all = field.value != 0,
            5 => {
                let mut duration = field.content;
                let seconds = next(&mut duration)?.ok_or(UNREADABLE)?.value;
                longest_lifetime = Some(Duration::seconds(seconds.cast_signed()));
            }
            6 => networks.push(Network::parse(text?)?),
            7 => may_grant_self = field.value != 0,
            _ => return Err(UNREADABLE),
        }
    }
    Ok(Grant {
        scopes: Scopes::new(scopes)?,
        users: Users::new(ids, prefixes, all)?,
        longest_lifetime,
        networks: Networks::new(networks)?,
        may_grant_self,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::packed::FieldPositions;
    use crate::domain::token::Token;
    use crate::fixtures::token;

    #[test]
    fn a_packed_grant_reads_back_and_a_damaged_one_is_an_error() {
        let full = Grant {
            scopes: Scopes::new(vec![Scope::parse("repo:*").unwrap()]).unwrap(),
            users: Users::new(
                vec![UserId::parse(&"u".repeat(200)).unwrap()],
                vec![UserPrefix::parse("team-").unwrap()],
                false,
            )
            .unwrap(),
            longest_lifetime: Some(Duration::days(90)),
            networks: Networks::new(vec![Network::parse("10.0.0.0/8").unwrap()]).unwrap(),
            may_grant_self: true,
        };
        let all = Grant { users: Users::new(vec![], vec![], true).unwrap(), ..Grant::default() };
        for grant in [None, Some(Grant::default()), Some(all), Some(full.clone())] {
            let (positions, wire) =
                FieldPositions::pack(&Token { grant: grant.clone(), ..token(&["tokend:write"]) });
            assert_eq!(positions.read(&wire).grant(), Ok(grant));
        }
        let mut wire = Vec::new();
        write(&mut wire, 18 << 3 | 2, &full);
        for length in 1..wire.len() {
            assert!(find(&wire[..length], 18).is_err(), "{length}");
        }
    }
}
