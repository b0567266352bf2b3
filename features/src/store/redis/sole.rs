//! Alone at a Redis: what nobody else can have changed is written without a look at its version.
//!
//! A look takes a script, which costs a server three times the write itself. One key, `tt:{writer}`, holds a token. Calls, answers and times
//! enter; which token stands, and whether it may be relied on, leaves. Pure: no I/O, no clock.
//!
//! INVARIANT: while a token stands, nobody but its owner has changed what stands under an entity's key. Every call of the script puts a
//! token of its caller there in the same step as it writes, unless the one that its caller knows stands there; no token is made twice but
//! `SHARED`, which nobody relies on. So what was read or written under a token is what is stored for as long as it stands, and `WATCH` on
//! that key makes Redis refuse a write that comes after.
//!
//! INVARIANT: a write without a look whose fate is open ends the token. The next call of the script replaces it before it writes anything, so
//! that what is still on its way, on whichever connection, is refused from then on.

use std::time::Duration;

use tokio::time::Instant;

use crate::kernel::WriterId;

/// Bytes of a token.
const TOKEN: usize = 16;
/// Stands there for all scorers that compare always: nobody relies on it.
pub(super) const SHARED: [u8; TOKEN] = *b"compares always ";
/// How long a token must have stood before it is relied on: by default other scorers write every 100 ms.
const CALM: Duration = Duration::from_secs(1);

/// One of this scorer's tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Token(u64);

impl Token {
    /// No token: nothing was learnt under it, and it never stands.
    pub(super) const NONE: Self = Self(0);

    /// As it stands in Redis: whose it is, then its number.
    pub(super) fn bytes(self, writer: WriterId) -> [u8; TOKEN] {
        (u128::from(writer) | u128::from(self.0) << 64).to_le_bytes()
    }

    /// The token of that writer, if it is one.
    pub(super) fn of(writer: WriterId, bytes: &[u8]) -> Option<Self> {
        let number = u128::from_le_bytes(bytes.try_into().ok()?);
        (number as u64 == writer).then_some(Self((number >> 64) as u64))
    }
}

/// What a call of the script takes with it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    /// The token that stands, as far as is known.
    pub standing: Token,
    /// The one to put there if another stands.
    pub next: Token,
    /// How often a token had ended when the call was made.
    pub ended: u64,
}

/// Which token stands, as far as its owner knows.
#[derive(Debug, Default)]
pub(super) struct Sole {
    standing: Token,
    since: Option<Instant>,
    made: u64,
    ended: u64,
}

impl Sole {
    /// For one call of the script.
    pub(super) const fn claim(&mut self) -> Claim {
        self.made += 1;
        Claim { standing: self.standing, next: Token(self.made), ended: self.ended }
    }

    /// Which token stood after a call with that claim. An answer from before an end tells nothing of what stands since.
    pub(super) fn told(&mut self, claim: Claim, token: Token, now: Instant) {
        if claim.ended == self.ended && token != self.standing {
            (self.standing, self.since) = (token, Some(now));
        }
    }

    /// Nothing is known any more of what stands: a write's fate is open, another writer was there, or the connection is new.
    pub(super) const fn end(&mut self) {
        (self.standing, self.since) = (Token::NONE, None);
        self.ended += 1;
    }

    /// The token that stands, as far as is known.
    pub(super) const fn standing(&self) -> Token {
        self.standing
    }

    /// The token, once it has stood long enough that nobody else seems to write.
    pub(super) fn calm(&self, now: Instant) -> Option<Token> {
        self.since.filter(|since| now.duration_since(*since) >= CALM).map(|_| self.standing)
    }
}
