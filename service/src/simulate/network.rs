//! Addresses of the simulated world: homes, offices, mobile carriers, data centres. Enters a draw, leaves an IP address.
//!
//! Attackers rent addresses in the ranges where customers live; no range gives anybody away.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::dice::{Dice, mix};

/// Where an address is drawn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// Subscribers' lines.
    Residential,
    /// Carrier-grade NAT of mobile networks: few addresses, many people.
    Mobile,
    /// Rented servers.
    Datacentre,
    /// Subscribers' lines and telephones.
    Mixed,
}

/// Which addresses the transactions show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Addresses {
    /// Public ones, IPv4 and IPv6.
    #[default]
    Public,
    /// Ones in 127/8, that a process can bind: for live traffic without a trusted hop.
    Loopback,
}

const RESIDENTIAL: [u8; 6] = [46, 77, 81, 84, 88, 193];
const DATACENTRE: [u8; 3] = [5, 51, 185];
const CARRIERS: u64 = 3;
const CARRIER_ADDRESSES: u64 = 96;

/// One address of the pool.
pub fn draw(dice: &mut Dice, pool: Pool) -> IpAddr {
    match pool {
        Pool::Residential => home(dice),
        Pool::Mobile => mobile(dice.below(CARRIERS as usize) as u64, dice.bits()),
        Pool::Datacentre => rented(dice, &DATACENTRE),
        Pool::Mixed if dice.chance(0.35) => mobile(dice.below(CARRIERS as usize) as u64, dice.bits()),
        Pool::Mixed => home(dice),
    }
}

/// The address that a mobile carrier gives now; `turn` changes with every new lease.
pub fn mobile(carrier: u64, turn: u64) -> IpAddr {
    let slot = mix(carrier, turn) % CARRIER_ADDRESSES;
    let place = mix(carrier % CARRIERS, 77_000 + slot);
    v4(90 + (carrier % CARRIERS) as u8 * 2, place)
}

fn home(dice: &mut Dice) -> IpAddr {
    if dice.chance(0.15) {
        let bits = dice.bits();
        let part = |shift: u32| (bits >> shift) as u16;
        return IpAddr::V6(Ipv6Addr::new(
            0x2a02,
            0x0100 | (part(0) & 0xff),
            part(16),
            part(32) & 0xff00,
            part(48),
            part(8),
            part(24),
            part(40),
        ));
    }
    rented(dice, &RESIDENTIAL)
}

fn rented(dice: &mut Dice, first: &[u8]) -> IpAddr {
    let first = dice.pick(first);
    v4(first, dice.bits())
}

fn v4(first: u8, bits: u64) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(first, (bits >> 8) as u8, (bits >> 24) as u8, 1 + (bits % 253) as u8))
}

/// The address as the chosen kind of traffic shows it.
pub fn shown(address: IpAddr, kind: Addresses) -> IpAddr {
    if kind == Addresses::Public {
        return address;
    }
    let bits = match address {
        IpAddr::V4(v4) => mix(u64::from(u32::from(v4)), 1),
        IpAddr::V6(v6) => mix(v6.to_bits() as u64, (v6.to_bits() >> 64) as u64),
    };
    // The first /16 is left to servers.
    IpAddr::V4(Ipv4Addr::new(127, 1 + (bits % 254) as u8, (bits >> 16) as u8, 1 + ((bits >> 32) % 253) as u8))
}
