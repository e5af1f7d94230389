//! Networks from which a token may be used, in CIDR notation (RFC 4632, RFC 4291). Called by the judge,
//! by access control and wherever a token is read or shown. An IPv4-mapped IPv6 address
//! (`::ffff:192.0.2.7`) counts as the IPv4 address, in a network and in a client's address.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

use super::fields::FieldError;

/// The maximum number of networks of a token.
pub const MAX_NETWORKS: usize = 64;

/// One network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network(IpNet);

impl Network {
    /// Accepts an address and a prefix length, such as `192.0.2.0/24` or `2001:db8::/32`.
    ///
    /// # Errors
    /// Any other text, including a bare address, and an address with bits set after the prefix.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        const GRAMMAR: FieldError =
            FieldError::Rule("is not a network such as 192.0.2.0/24, 192.0.2.7/32 or 2001:db8::/32");
        const HOST_BITS: FieldError = FieldError::Rule("has bits of its address set after the prefix length");
        if text.is_empty() {
            return Err(FieldError::Required);
        }
        let (address, length) = text.split_once('/').ok_or(GRAMMAR)?;
        let digits = (1..=3).contains(&length.len()) && length.bytes().all(|byte| byte.is_ascii_digit());
        if !digits || (length.len() > 1 && length.starts_with('0')) {
            return Err(GRAMMAR);
        }
        let address: IpAddr = address.parse().map_err(|_| GRAMMAR)?;
        let network = IpNet::new(address, length.parse().map_err(|_| GRAMMAR)?).map_err(|_| GRAMMAR)?;
        if network.addr() != network.network() {
            return Err(HOST_BITS);
        }
        Ok(Self(canonical(network)))
    }

    /// Returns the length of its prefix, in bits.
    #[must_use]
    pub fn prefix_length(&self) -> u8 {
        self.0.prefix_len()
    }

    /// Returns whether an address is in the network.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

/// Parses one address, without a zone, a port or leading zeros, which other parsers read as octal.
/// IPv4-mapped IPv6 becomes IPv4.
///
/// # Errors
/// [`FieldError`] for any other text.
pub fn parse_address(text: &str) -> Result<IpAddr, FieldError> {
    let address: Result<IpAddr, _> = text.parse();
    let address = address.map_err(|_| FieldError::Rule("is not an IPv4 or IPv6 address"))?;
    Ok(address.to_canonical())
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(wide) = network else { return network };
    let mapped = wide.addr().to_ipv4_mapped().zip(wide.prefix_len().checked_sub(96));
    mapped.and_then(|(address, length)| Ipv4Net::new(address, length).ok()).map_or(network, IpNet::V4)
}

/// The addresses that count as one client wherever something is limited by address: one IPv4 address, or
/// the /64 of an IPv6 address, since one machine may have all of it. Never decides what is allowed from where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PeerNetwork(IpAddr);

impl From<IpAddr> for PeerNetwork {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        })
    }
}

/// At most 64 networks, in the order in which they were first given; empty means from anywhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks(Box<[Network]>);

impl Networks {
    /// Creates the set; duplicates are stored once.
    ///
    /// # Errors
    /// There are more than 64 networks.
    pub fn new(named: Vec<Network>) -> Result<Self, FieldError> {
        if named.len() > MAX_NETWORKS {
            return Err(FieldError::TooLong { limit: MAX_NETWORKS, unit: "networks" });
        }
        let mut networks: Vec<Network> = Vec::with_capacity(named.len());
        for network in named {
            if !networks.contains(&network) {
                networks.push(network);
            }
        }
        Ok(Self(networks.into()))
    }

    /// Iterates over the networks in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Network> {
        self.0.iter()
    }

    /// Returns whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether a token with these networks may be used from an address; if there are networks,
    /// not from an unknown one.
    #[must_use]
    pub fn admit(&self, address: Option<IpAddr>) -> bool {
        admitted(self.iter().copied().map(Some), address)
    }

    /// Returns whether these networks contain every address that `other` contains.
    #[must_use]
    pub fn cover(&self, other: &Self) -> bool {
        if self.0.is_empty() {
            return true;
        }
        // Adjacent networks are joined, so that two halves cover the whole.
        let own = IpNet::aggregate(&self.iter().map(|network| network.0).collect());
        !other.0.is_empty() && other.iter().all(|inner| own.iter().any(|outer| outer.contains(&inner.0)))
    }
}

/// Returns whether an address is in one of the networks, or there are none. A network that cannot be
/// read counts as one that contains nothing.
pub(super) fn admitted(mut networks: impl Iterator<Item = Option<Network>>, address: Option<IpAddr>) -> bool {
    let Some(first) = networks.next() else { return true };
    let Some(address) = address else { return false };
    let admits = |network: Option<Network>| network.is_some_and(|network| network.contains(address));
    admits(first) || networks.any(admits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn networks(texts: &[&str]) -> Networks {
        Networks::new(texts.iter().map(|text| Network::parse(text).unwrap()).collect()).unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_with_host_bits_is_refused() {
        for good in ["0.0.0.0/0", "192.0.2.7/32", "10.0.0.0/8", "::/0", "2001:db8::/32", "::1/128"] {
            assert_eq!(Network::parse(good).unwrap().to_string(), good);
        }
        for bad in [
            "",
            "10.0.0.0",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "10.0.0/8",
            "10.0.0.0/",
            "10.0.0.0/-1",
            "/8",
            "a/8",
            "2001:db8::1/32",
            "::/129",
            "fe80::%eth0/64",
            " 10.0.0.0/8",
            "10.0.0.0/8 ",
            "10.0.0.0/255.0.0.0",
            "10.0.0.0/08",
            "10.0.0.0/+8",
            "10.0.0.0/00",
            "010.0.0.0/8",
            "10.0.0.00/8",
            "0x0a.0.0.0/8",
            "167772160/8",
            "::ffff:010.0.0.0/104",
            "::ffff:10.0.0.0/0104",
            "::ffff:10.0.0.0/104/8",
            "fe80::%1/64",
            "[::]/0",
            "10.0.0.0/٨",
        ] {
            assert!(Network::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ipv4_mapped_addresses_are_ipv4() {
        assert_eq!(Network::parse("::ffff:192.0.2.0/120").unwrap().to_string(), "192.0.2.0/24");
        assert!(networks(&["192.0.2.0/24"]).admit(Some(ip("::ffff:192.0.2.7"))));
        assert!(networks(&["::ffff:192.0.2.0/120"]).admit(Some(ip("192.0.2.7"))));
        assert!(!networks(&["::/0"]).admit(Some(ip("::ffff:192.0.2.7"))), "a v6 network lets in v6 alone");
    }

    #[test]
    fn without_networks_any_address_is_admitted_and_with_them_an_unknown_one_is_not() {
        assert!(networks(&[]).admit(None) && networks(&[]).admit(Some(ip("192.0.2.7"))));
        let some = networks(&["10.0.0.0/8", "2001:db8::/32"]);
        for (address, admitted) in [
            ("10.255.255.255", true),
            ("11.0.0.0", false),
            ("2001:db8:ffff::1", true),
            ("2001:db9::1", false),
        ] {
            assert_eq!(some.admit(Some(ip(address))), admitted, "{address}");
        }
        assert!(!some.admit(None));
    }

    #[test]
    fn wider_networks_cover_narrower_ones_and_no_networks_cover_all() {
        for (own, other, covered) in [
            (&[][..], &[][..], true),
            (&[], &["10.0.0.0/8"], true),
            (&["10.0.0.0/8"], &[], false),
            (&["10.0.0.0/8"], &["10.1.0.0/16", "10.0.0.0/8"], true),
            (&["10.0.0.0/8"], &["10.1.0.0/16", "11.0.0.0/16"], false),
            (&["10.0.0.0/9", "10.128.0.0/9"], &["10.0.0.0/8"], true),
            (&["::/0"], &["10.0.0.0/8"], false),
            (&["0.0.0.0/0", "::/0"], &["10.0.0.0/8", "::1/128"], true),
        ] {
            assert_eq!(networks(own).cover(&networks(other)), covered, "{own:?} {other:?}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_displayed_networks_parse_back(text in "[0-9a-f:.]{0,20}/?[0-9]{0,3}") {
            if let Ok(network) = Network::parse(&text) {
                prop_assert_eq!(Network::parse(&network.to_string()), Ok(network));
            }
        }

        #[test]
        fn covering_networks_admit_every_address_of_the_covered_ones(
            own in "(1|2)\\.0\\.0\\.0/(8|9|32)", other in "(1|2)\\.0\\.0\\.0/(8|9|32)", address: u32,
        ) {
            let (own, other) = (networks(&[&own]), networks(&[&other]));
            let address = Some(IpAddr::from((address & 0x03ff_ffff).to_be_bytes()));
            prop_assert!(!own.cover(&other) || !other.admit(address) || own.admit(address));
        }
    }
}
