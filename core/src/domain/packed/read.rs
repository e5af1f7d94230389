//! Reads the fields of a message in the wire encoding one by one. Used by the packed token for the fields whose positions
//! it does not know, and by its grant. Knows no field.

use crate::domain::fields::FieldError;

pub(super) const UNREADABLE: FieldError = FieldError::Rule("cannot be read");

/// Returns the text of the field with this number; empty if there is none, or one before it cannot be read.
pub(super) fn text(mut fields: &[u8], number: u64) -> &str {
    while let Ok(Some(field)) = next(&mut fields) {
        if field.number == number {
            return std::str::from_utf8(field.content).unwrap_or_default();
        }
    }
    ""
}

/// A field of a message: with a number, or with content.
pub(super) struct Wire<'a> {
    pub(super) number: u64,
    pub(super) value: u64,
    pub(super) content: &'a [u8],
}

/// Reads the next field; `None`: there is none.
///
/// # Errors
/// It cannot be read.
pub(super) fn next<'a>(wire: &mut &'a [u8]) -> Result<Option<Wire<'a>>, FieldError> {
    if wire.is_empty() {
        return Ok(None);
    }
    let tag = number(wire)?;
    let value = number(wire)?;
    let content = match tag & 7 {
        0 => &[],
        2 => {
            let length = usize::try_from(value).map_err(|_| UNREADABLE)?;
            let (content, rest) = wire.split_at_checked(length).ok_or(UNREADABLE)?;
            *wire = rest;
            content
        }
        _ => return Err(UNREADABLE),
    };
    Ok(Some(Wire { number: tag >> 3, value, content }))
}

fn number(wire: &mut &[u8]) -> Result<u64, FieldError> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = wire.split_first().ok_or(UNREADABLE)?;
        *wire = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err(UNREADABLE)
}
