//! Which names stand where in a row, for each phase.

use super::names;
use super::spec::{FieldKind, FieldSpec, Phase};
use crate::entity::EntityType;
use crate::expr::{NameKind, Scope};

/// The scopes of the three phases. Declared fields follow the built-in names of their kind, in the order declared.
#[derive(Clone, Debug, Default)]
pub(super) struct Layout {
    pub request: Scope,
    pub outcome: Scope,
    pub label: Scope,
}

/// Where a number or a member of an event comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Number(usize),
    Text(usize),
    Subject(EntityType),
    Target,
}

impl Layout {
    pub fn new(declared: &[FieldSpec]) -> Self {
        let mut layout = Self::default();
        for (name, _) in names::NUMBERS {
            layout.request.number(name);
        }
        for name in names::signals() {
            layout.request.number(&name);
        }
        for (name, _) in names::TEXTS {
            layout.request.text(name);
        }
        for (name, _) in names::FLAGS {
            layout.request.flag(name);
        }
        for name in names::OUTCOME_NUMBERS {
            layout.outcome.number(name);
        }
        for name in names::CARRIED_TEXTS {
            layout.outcome.text(name);
            layout.label.text(name);
        }
        layout.label.text(names::LABEL_TEXT);
        for name in names::OUTCOME_FLAGS {
            layout.outcome.flag(name);
        }
        for field in declared {
            if in_request(field) {
                declare(&mut layout.request, field);
            }
            if in_outcome(field) {
                declare(&mut layout.outcome, field);
            }
            if in_label(field) {
                declare(&mut layout.label, field);
            }
        }
        layout
    }

    pub const fn scope(&self, phase: Phase) -> &Scope {
        match phase {
            Phase::Request => &self.request,
            Phase::Outcome => &self.outcome,
            Phase::Label => &self.label,
        }
    }

    /// The place of a number in that phase's rows.
    pub fn number(&self, name: &str, phase: Phase) -> Option<usize> {
        match self.scope(phase).resolve(name)? {
            (NameKind::Number, place) => Some(place.into()),
            _ => None,
        }
    }

    /// Where a member is found in that phase: an entity type, a text, a number, or path and query together.
    pub fn member(&self, name: &str, phase: Phase, entity: Option<EntityType>) -> Option<Source> {
        match self.scope(phase).resolve(name) {
            Some((NameKind::Text, place)) => return Some(Source::Text(place.into())),
            Some((NameKind::Number, place)) => return Some(Source::Number(place.into())),
            _ => {}
        }
        match entity {
            Some(kind) => Some(Source::Subject(kind)),
            None if name == names::TARGET && phase == Phase::Request => Some(Source::Target),
            None => None,
        }
    }
}

fn declare(scope: &mut Scope, field: &FieldSpec) {
    let name = format!("attributes.{}", field.name);
    match field.kind {
        FieldKind::Number => scope.number(&name),
        FieldKind::Text => scope.text(&name),
        FieldKind::Flag => scope.flag(&name),
    };
}

/// Whether a transaction's rows have that field.
pub(super) const fn in_request(field: &FieldSpec) -> bool {
    !field.from_outcome
}

/// Whether an outcome's rows have that field.
pub(super) const fn in_outcome(field: &FieldSpec) -> bool {
    field.carried || field.from_outcome
}

/// Whether a label's rows have that field.
pub(super) const fn in_label(field: &FieldSpec) -> bool {
    field.carried
}
