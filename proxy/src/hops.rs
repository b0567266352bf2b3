//! Who the client is: the peer, or what trusted hops say of it. Never believes a peer outside of the configured networks.

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use http::{HeaderMap, HeaderName};

/// A network in CIDR notation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    bits: u128,
    mask: u128,
    v4: bool,
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.trim().parse().ok()?;
        let (bits, v4) = number(address);
        let width: u32 = if v4 { 32 } else { 128 };
        let length = length.map_or(Some(width), |length| length.trim().parse().ok())?;
        let mask = if length == 0 { 0 } else { u128::MAX.checked_shl(width.checked_sub(length)?)? };
        Some(Self { bits: bits & mask, mask, v4 })
    }

    fn holds(&self, address: IpAddr) -> bool {
        let (bits, v4) = number(address);
        v4 == self.v4 && bits & self.mask == self.bits
    }
}

/// The address as a number; an IPv4 address in IPv6 clothes counts as IPv4.
fn number(address: IpAddr) -> (u128, bool) {
    match address.to_canonical() {
        IpAddr::V4(v4) => (u128::from(u32::from(v4)), true),
        IpAddr::V6(v6) => (u128::from(v6), false),
    }
}

/// The networks whose forwarding headers are believed.
#[derive(Clone, Debug, Default)]
pub struct TrustedHops(Vec<Network>);

impl TrustedHops {
    /// Parses networks and single addresses; the error is the text that is neither.
    pub fn parse(texts: &[String]) -> Result<Self, String> {
        texts.iter().map(|text| Network::parse(text).ok_or_else(|| text.clone())).collect::<Result<_, _>>().map(Self)
    }

    /// Whether that address is a trusted hop.
    pub fn holds(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.holds(address))
    }

    /// The client behind `peer`: the right-most address of `X-Forwarded-For` that is not itself a trusted hop. A chain that
    /// cannot be read ends at the hop that wrote it: what stands left of it could be anybody's word.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        if !self.holds(client) {
            return client;
        }
        let lines: Vec<_> = headers.get_all(FORWARDED_FOR).iter().collect();
        for line in lines.iter().rev() {
            let Ok(text) = line.to_str() else { return client };
            for part in text.rsplit(',') {
                let Some(address) = address_of(part.trim()) else { return client };
                client = address;
                if !self.holds(client) {
                    return client;
                }
            }
        }
        client
    }
}

/// `X-Forwarded-For`.
pub const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// `1.2.3.4`, `1.2.3.4:567`, `2001:db8::1`, `[2001:db8::1]:567`.
fn address_of(text: &str) -> Option<IpAddr> {
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(inside, _)| inside);
    let address: Option<IpAddr> = bracketed.unwrap_or(text).parse().ok();
    address.or_else(|| text.parse::<std::net::SocketAddr>().ok().map(|socket| socket.ip())).map(|address| address.to_canonical())
}
