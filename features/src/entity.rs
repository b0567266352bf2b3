//! Who takes part: entity types, keyed identifiers, and the subjects of one transaction.

use smallvec::SmallVec;

/// An entity type: its index in the schema's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntityType(pub u8);

impl EntityType {
    /// Index into per-type tables.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Keyed hash of an identifier: see [`crate::hash::Keyring`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntityKey(pub [u8; 16]);

impl EntityKey {
    /// The first eight bytes as a number: a member of distinct counts, a shard selector.
    pub const fn low64(self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
}

impl std::fmt::Debug for EntityKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// One entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntityId {
    /// Its type.
    pub kind: EntityType,
    /// Its keyed identifier.
    pub key: EntityKey,
}

/// An entity in its part in one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Which entity.
    pub id: EntityId,
    /// Whether the gateway vouched for it in this transaction.
    pub verified: bool,
    /// The identifier in clear, where the schema keeps names of that type.
    pub name: Option<Box<str>>,
}

/// Everybody who takes part in one transaction: at most one of each type.
// INVARIANT: sorted by `EntityId` without repeats; stores lock in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subjects(SmallVec<[Subject; 8]>);

impl Subjects {
    /// Sorts the subjects; of several with the same type the first given is kept.
    pub fn new(given: impl IntoIterator<Item = Subject>) -> Self {
        let mut subjects: SmallVec<[Subject; 8]> = SmallVec::new();
        for subject in given {
            if !subjects.iter().any(|known| known.id.kind == subject.id.kind) {
                subjects.push(subject);
            }
        }
        subjects.sort_by_key(|subject| subject.id);
        Self(subjects)
    }

    /// All of them in lock order.
    pub fn iter(&self) -> std::slice::Iter<'_, Subject> {
        self.0.iter()
    }

    /// The subject of that type.
    pub fn of(&self, kind: EntityType) -> Option<&Subject> {
        self.0.iter().find(|subject| subject.id.kind == kind)
    }

    /// All but those that are to be left out.
    pub fn without(&self, leave_out: impl Fn(EntityId) -> bool) -> Self {
        Self(self.0.iter().filter(|subject| !leave_out(subject.id)).cloned().collect())
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nobody is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
