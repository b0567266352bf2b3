//! The names that an expression may use, and the rows that give them values.

use std::collections::HashMap;
use std::sync::Arc;

use super::value::Value;

/// What a name stands for in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NameKind {
    /// A number of [`Row::numbers`]; NaN is missing.
    Number,
    /// A text of [`Row::texts`]; empty is missing.
    Text,
    /// A flag of [`Row::flags`].
    Flag,
    /// A constant, replaced when the expression is compiled.
    Constant,
}

/// The names that an expression may use: dotted, as `address.requests_1m`.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    names: Vec<(Arc<str>, NameKind, u16)>,
    index: HashMap<Arc<str>, usize>,
    constants: Vec<Value>,
    counts: [u16; 3],
}

impl Scope {
    /// A scope without names.
    pub fn new() -> Self {
        Self::default()
    }

    /// Declares a number. Returns its place in [`Row::numbers`]: numbers count from 0 in the order of declaration. A name that
    /// is already a number keeps its place.
    pub fn number(&mut self, name: &str) -> u16 {
        self.declare(name, NameKind::Number)
    }

    /// Declares a text. Returns its place in [`Row::texts`].
    pub fn text(&mut self, name: &str) -> u16 {
        self.declare(name, NameKind::Text)
    }

    /// Declares a flag. Returns its place in [`Row::flags`].
    pub fn flag(&mut self, name: &str) -> u16 {
        self.declare(name, NameKind::Flag)
    }

    /// Declares a constant: a list of routes, a threshold with a name.
    pub fn constant(&mut self, name: &str, value: Value) {
        let place = u16::try_from(self.constants.len()).unwrap_or(u16::MAX);
        self.constants.push(value);
        self.insert(name, NameKind::Constant, place);
    }

    /// All names in the order of declaration.
    pub fn names(&self) -> impl Iterator<Item = (&str, NameKind)> {
        self.names.iter().map(|(name, kind, _)| (name.as_ref(), *kind))
    }

    /// What a name stands for, and its place among its kind.
    pub fn resolve(&self, name: &str) -> Option<(NameKind, u16)> {
        let (_, kind, place) = self.names.get(*self.index.get(name)?)?;
        Some((*kind, *place))
    }

    /// How many numbers, texts and flags a row must have.
    pub fn widths(&self) -> (usize, usize, usize) {
        let [numbers, texts, flags] = self.counts;
        (numbers.into(), texts.into(), flags.into())
    }

    /// The declared names most like `name`, the closest first, at most `limit`.
    pub fn closest(&self, name: &str, limit: usize) -> Vec<&str> {
        let mut ranked: Vec<_> = self.names.iter().map(|(known, ..)| (distance(name, known), known.as_ref())).collect();
        ranked.sort();
        ranked.into_iter().take(limit).map(|(_, known)| known).collect()
    }

    pub(super) fn constant_value(&self, place: u16) -> Option<&Value> {
        self.constants.get(usize::from(place))
    }

    /// Whether any declared name begins with these segments.
    pub(super) fn has_prefix(&self, prefix: &str) -> bool {
        self.names.iter().any(|(name, ..)| name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('.')))
    }

    fn declare(&mut self, name: &str, kind: NameKind) -> u16 {
        if let Some((known, place)) = self.resolve(name)
            && known == kind
        {
            return place;
        }
        let [numbers, texts, flags] = &mut self.counts;
        let count = match kind {
            NameKind::Number => numbers,
            NameKind::Text => texts,
            NameKind::Flag | NameKind::Constant => flags,
        };
        let place = *count;
        *count = count.saturating_add(1);
        self.insert(name, kind, place);
        place
    }

    fn insert(&mut self, name: &str, kind: NameKind, place: u16) {
        let name: Arc<str> = name.into();
        self.index.insert(Arc::clone(&name), self.names.len());
        self.names.push((name, kind, place));
    }
}

/// Values for the names of a scope, each at its place.
#[derive(Clone, Copy, Debug, Default)]
pub struct Row<'a> {
    /// Numbers; NaN is missing, and so is a place beyond the end.
    pub numbers: &'a [f64],
    /// Texts; empty is missing.
    pub texts: &'a [&'a str],
    /// Flags.
    pub flags: &'a [bool],
}

impl<'a> Row<'a> {
    pub(super) fn number(&self, place: u16) -> f64 {
        self.numbers.get(usize::from(place)).copied().unwrap_or(f64::NAN)
    }

    pub(super) fn text(&self, place: u16) -> &'a str {
        self.texts.get(usize::from(place)).copied().unwrap_or_default()
    }

    pub(super) fn flag(&self, place: u16) -> bool {
        self.flags.get(usize::from(place)).copied().unwrap_or_default()
    }
}

/// A name that an expression reads, with the literal that it is compared to, where that is evident.
#[derive(Clone, Debug, PartialEq)]
pub struct NameRef {
    /// The name.
    pub name: Arc<str>,
    /// What it stands for.
    pub kind: NameKind,
    /// Its place among its kind.
    pub place: u16,
    /// The literal beside it.
    pub compared: Option<Compared>,
}

/// A comparison of a name with a literal number, the name on the left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Compared {
    /// `>`, `>=`, `<`, `<=`, `==` or `!=`.
    pub operator: &'static str,
    /// The literal.
    pub literal: f64,
}

/// Levenshtein distance, with a match of the part after the last dot counted as near.
fn distance(asked: &str, known: &str) -> usize {
    let plain = levenshtein(asked, known);
    let tail = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    plain.min(levenshtein(&tail(asked), &tail(known)) + 2)
}

fn levenshtein(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = i;
        let mut last = i + 1;
        for (cell, b) in row.iter_mut().skip(1).zip(&right) {
            let substituted = diagonal + usize::from(a != *b);
            diagonal = *cell;
            last = substituted.min(last + 1).min(diagonal + 1);
            *cell = last;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}
