//! A watcher's position in the history of changes: it has received everything that a snapshot of one
//! server epoch sees, for one organization or all. Opaque to clients and authenticated, so that nobody
//! can forge one to query the database for anything else. Pure; knows no streams.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::domain::OrganizationId;
use crate::secret::Keyring;
use crate::store::{Epoch, Snapshot};

const VERSION: &str = "watch1";
const TAG: usize = 16;

/// A watcher's position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchPosition {
    /// The epoch of the server.
    pub epoch: Epoch,
    /// The snapshot whose changes have all been sent.
    pub snapshot: Snapshot,
}

/// The text is not a position issued for this organization.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a position from a watch of this organization")]
pub struct PositionError;

impl WatchPosition {
    /// Encodes the position of a watcher of `organization` (`None`: of all organizations).
    #[must_use]
    pub fn render(&self, organization: Option<&OrganizationId>, keyring: &Keyring) -> String {
        // Neither an epoch nor a snapshot contains a newline.
        let payload = format!("{}\n{}", self.epoch.as_str(), self.snapshot.as_str());
        let mut bytes = keyring.sign_page(&bound(&payload, organization)).to_vec();
        bytes.extend_from_slice(payload.as_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Decodes what [`Self::render`] encoded for the same organization.
    ///
    /// # Errors
    /// [`PositionError`] for any other text.
    pub fn parse(
        text: &str,
        organization: Option<&OrganizationId>,
        keyring: &Keyring,
    ) -> Result<Self, PositionError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| PositionError)?;
        let (tag, payload) = bytes.split_first_chunk::<TAG>().ok_or(PositionError)?;
        let payload = str::from_utf8(payload).map_err(|_| PositionError)?;
        if !keyring.verify_page(&bound(payload, organization), tag) {
            return Err(PositionError);
        }
        let (epoch, snapshot) = payload.split_once('\n').ok_or(PositionError)?;
        Ok(Self {
            epoch: Epoch::parse(epoch.to_owned()),
            snapshot: Snapshot::from_database(snapshot.to_owned()),
        })
    }
}

/// Returns the bytes that the tag covers: never equal to those of a page token, whose first byte is
/// below 32.
fn bound(payload: &str, organization: Option<&OrganizationId>) -> Vec<u8> {
    let organization = organization.map_or("", OrganizationId::as_str);
    format!("{VERSION}\n{payload}\n{organization}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyring(byte: u8) -> Keyring {
        Keyring::parse(&base64::engine::general_purpose::STANDARD.encode([byte; 32])).unwrap()
    }

    #[test]
    fn a_position_reads_back_only_for_its_organization_and_keyring() {
        let position = WatchPosition {
            epoch: Epoch::parse("1/2/3".to_owned()),
            snapshot: Snapshot::from_database("10:20:10,14".to_owned()),
        };
        let acme = OrganizationId::parse("acme").unwrap();
        let text = position.render(Some(&acme), &keyring(1));

        assert_eq!(WatchPosition::parse(&text, Some(&acme), &keyring(1)), Ok(position));
        let other = OrganizationId::parse("other").unwrap();
        assert_eq!(WatchPosition::parse(&text, Some(&other), &keyring(1)), Err(PositionError));
        assert_eq!(WatchPosition::parse(&text, None, &keyring(1)), Err(PositionError));
        assert_eq!(WatchPosition::parse(&text, Some(&acme), &keyring(2)), Err(PositionError));
        for bad in ["", "x", &text[..text.len() - 1], &format!("{text}A"), "AAAAAAAAAAAAAAAAAAAAAAAA"] {
            assert_eq!(WatchPosition::parse(bad, Some(&acme), &keyring(1)), Err(PositionError), "{bad}");
        }
    }
}
