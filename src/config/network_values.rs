//! Setting types of addresses and networks, as those of `values`.

use std::net::SocketAddr;
use std::str::FromStr;

use serde::Deserialize;

use super::values::ValueError;
use crate::domain::{Network, Networks};

/// The address of the console, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct ConsoleListen(Option<SocketAddr>);

impl ConsoleListen {
    /// Returns the address.
    pub(super) fn get(self) -> Option<SocketAddr> {
        self.0
    }
}

impl FromStr for ConsoleListen {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text == "off" {
            return Ok(Self(None));
        }
        text.parse().map(|address| Self(Some(address))).map_err(|_| ValueError::ConsoleListen)
    }
}

impl TryFrom<String> for ConsoleListen {
    type Error = ValueError;

    fn try_from(text: String) -> Result<Self, ValueError> {
        text.parse()
    }
}

/// The networks of trusted proxies. None wider than /8: a trusted proxy may name any address, so
/// trusting every address would let each client choose its own.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct TrustedProxies(Networks);

impl TrustedProxies {
    const WIDEST_PREFIX: u8 = 8;

    /// Returns the networks.
    #[must_use]
    pub fn get(self) -> Networks {
        self.0
    }
}

impl FromStr for TrustedProxies {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let parsed = text.split(',').map(str::trim).map(|part| {
            Network::parse(part).ok().filter(|network| network.prefix_length() >= Self::WIDEST_PREFIX)
        });
        let networks = parsed.collect::<Option<_>>().and_then(|networks| Networks::new(networks).ok());
        networks.map(Self).ok_or(ValueError::TrustedProxies)
    }
}

impl TryFrom<String> for TrustedProxies {
    type Error = ValueError;

    fn try_from(text: String) -> Result<Self, ValueError> {
        text.parse()
    }
}
