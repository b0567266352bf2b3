//! Under which key of Redis an entity stands: its type in clear, its keyed identifier, and over that, where the operator gives one, a
//! second secret that can be changed.
//!
//! An entity enters, its name leaves, and back for who walks keys. A name is a permutation of the identifier under the secret, so two
//! entities never share one, and it carries the secret's number: a name says by itself under which secret it reads.

use crate::entity::EntityKey;

/// Rounds of the permutation.
const ROUNDS: u8 = 4;

/// A secret of names.
#[derive(Clone, PartialEq, Eq)]
pub struct NamesKey {
    /// Its number, which stands in every name made with it; two secrets of one installation never have the same.
    pub id: u32,
    secret: [u8; 32],
}

impl NamesKey {
    /// From 32 secret bytes.
    pub fn new(id: u32, secret: &[u8; 32]) -> Self {
        Self { id, secret: blake3::derive_key("telltale 2026 names in redis", secret) }
    }

    /// Balanced Feistel network with a keyed hash as its round function: with four rounds a strong pseudorandom permutation (Luby and
    /// Rackoff 1988).
    fn permute(&self, key: EntityKey, rounds: impl Iterator<Item = u8>) -> EntityKey {
        let [mut left, mut right] = halves(key);
        for round in rounds {
            let mut part = [round; 9];
            part.iter_mut().skip(1).zip(right.to_le_bytes()).for_each(|(to, from)| *to = from);
            let [a, b, c, d, e, f, g, h, ..] = *blake3::keyed_hash(&self.secret, &part).as_bytes();
            (left, right) = (right, left ^ u64::from_le_bytes([a, b, c, d, e, f, g, h]));
        }
        // Swapped at the end, so that the same network with its rounds turned round is the way back.
        joined(right, left)
    }

    fn name(&self, key: EntityKey) -> EntityKey {
        self.permute(key, 0..ROUNDS)
    }

    fn key(&self, name: EntityKey) -> EntityKey {
        self.permute(name, (0..ROUNDS).rev())
    }
}

impl std::fmt::Debug for NamesKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NamesKey({}, redacted)", self.id)
    }
}

fn halves(EntityKey(bytes): EntityKey) -> [u64; 2] {
    let number = u128::from_le_bytes(bytes);
    [number as u64, (number >> 64) as u64]
}

fn joined(left: u64, right: u64) -> EntityKey {
    EntityKey((u128::from(left) | u128::from(right) << 64).to_le_bytes())
}

/// Which of its names an entity has in Redis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Standing {
    /// The newest one.
    #[default]
    Settled,
    /// The one of before, until another scorer brings it to the newest.
    Follows,
    /// The one of before; the next write brings it to the newest.
    Moves,
}

/// How this scorer names entities: without secrets at first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// The secret of names; none: the keyed identifier stands as it is.
    newest: Option<NamesKey>,
    /// The one of before, while a change is under way.
    before: Option<Option<NamesKey>>,
    moves: bool,
}

impl Names {
    /// Under one secret.
    pub const fn under(key: Option<NamesKey>) -> Self {
        Self { newest: key, before: None, moves: false }
    }

    /// First step of a change: everything stays under `key`; what another scorer has brought under `next` is found and written there.
    pub const fn until_moved(key: Option<NamesKey>, next: NamesKey) -> Self {
        Self { newest: Some(next), before: Some(key), moves: false }
    }

    /// Second step: what stands under `before` is read there and brought under `key` by its first write.
    pub const fn moving(key: NamesKey, before: Option<NamesKey>) -> Self {
        Self { newest: Some(key), before: Some(before), moves: true }
    }

    /// Whether a change is under way.
    pub const fn are_changing(&self) -> bool {
        self.before.is_some()
    }

    /// How an entity stands of which nothing is known yet.
    pub(super) const fn standing(&self) -> Standing {
        match (&self.before, self.moves) {
            (None, _) => Standing::Settled,
            (Some(_), false) => Standing::Follows,
            (Some(_), true) => Standing::Moves,
        }
    }

    /// The name of an entity that stands so.
    pub(super) fn name(&self, (kind, key): (&str, EntityKey), standing: Standing) -> String {
        let secret = match (&self.before, standing) {
            (Some(before), Standing::Follows | Standing::Moves) => before,
            _ => &self.newest,
        };
        match secret {
            None => format!("{{{kind}:{key:?}}}"),
            Some(secret) => format!("{{{kind}:{}.{:?}}}", secret.id, secret.name(key)),
        }
    }

    /// Entity type and keyed identifier of a name; `None` for what is no name, or one under another secret.
    pub(super) fn parse<'a>(&self, name: &'a str) -> Option<(&'a str, EntityKey)> {
        let (kind, text) = name.strip_prefix('{')?.strip_suffix('}')?.rsplit_once(':')?;
        let (id, hex) = text.split_once('.').map_or((None, text), |(id, hex)| (Some(id), hex));
        let key = u128::from_str_radix(hex, 16).ok().filter(|_| hex.len() == 32)?;
        let key = EntityKey(key.to_be_bytes());
        let Some(id) = id else { return Some((kind, key)) };
        let id: u32 = id.parse().ok()?;
        let known = [self.newest.as_ref(), self.before.as_ref().and_then(Option::as_ref)];
        let secret = known.into_iter().flatten().find(|secret| secret.id == id)?;
        Some((kind, secret.key(key)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> EntityKey {
        EntityKey(std::array::from_fn(|at| number.wrapping_mul(31).wrapping_add(at as u8)))
    }

    fn secret(id: u32) -> NamesKey {
        NamesKey::new(id, &[id as u8; 32])
    }

    #[test]
    fn a_name_reads_back_under_its_secret_alone() {
        let (first, second) = (Names::under(Some(secret(1))), Names::under(Some(secret(2))));
        let mut names = std::collections::HashSet::new();
        for number in 0..=255 {
            let name = first.name(("user", key(number)), Standing::Settled);
            assert!(name.starts_with("{user:1.") && name.len() == "{user:1.}".len() + 32, "{name}");
            assert!(!name.contains(&format!("{:?}", key(number))), "{name}");
            assert_eq!((first.parse(&name), second.parse(&name)), (Some(("user", key(number))), None));
            assert_ne!(name.replace(":1.", ":2."), second.name(("user", key(number)), Standing::Settled));
            assert!(names.insert(name));
        }
        let plain = Names::default().name(("user", key(7)), Standing::Settled);
        assert_eq!(plain, format!("{{user:{:?}}}", key(7)), "as it always was");
        assert_eq!(Names::default().parse(&plain), Some(("user", key(7))));
        for other in ["{claim:1}", "{decisions:default}", "{probe}", "user:1", "{user:x.00}", "{user:1.00}"] {
            assert_eq!(first.parse(other), None, "{other}");
        }
    }

    #[test]
    fn while_a_secret_changes_both_names_are_known() {
        let (follows, moves) = (Names::until_moved(None, secret(1)), Names::moving(secret(1), None));
        assert_eq!((follows.standing(), moves.standing()), (Standing::Follows, Standing::Moves));
        for names in [&follows, &moves] {
            let [before, newest] = [names.standing(), Standing::Settled].map(|standing| names.name(("user", key(3)), standing));
            assert_eq!(before, Names::default().name(("user", key(3)), Standing::Settled));
            assert_eq!(newest, Names::under(Some(secret(1))).name(("user", key(3)), Standing::Settled));
            assert_eq!((names.parse(&before), names.parse(&newest)), (Some(("user", key(3))), Some(("user", key(3)))));
        }
    }
}
