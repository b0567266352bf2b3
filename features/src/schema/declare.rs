//! What a schema declares before anything refers to it: entity types, fields, secrets, endpoints.
//!
//! Parsed files enter, the compiler's lists are filled; what is wrong is noted by line. Nothing is looked up in what other parts declare.

use std::time::Duration;

use super::compile::Compiler;
use super::source::{RawEntity, RawField, RawSchema};
use super::spec::{EntityTypeSpec, FieldKind, FieldSpec, Normalization, Place};
use super::{duration, places};
use crate::yaml::{Text, line};

/// Entity types are few: a transaction has at most one subject of each.
const MAX_ENTITIES: usize = 32;
const DEFAULT_TTL: Duration = Duration::from_secs(30 * 86_400);
const DEFAULT_MAX_BYTES: usize = 64 * 1024;

impl Compiler {
    /// Entities, fields, secrets and endpoints of all files, before anything refers to them.
    pub(super) fn first_pass(&mut self, sources: &[(String, RawSchema)]) {
        for (file, raw) in sources {
            self.file.clone_from(file);
            for entity in &raw.entities {
                self.entity(entity);
            }
            for field in &raw.fields {
                self.field(field);
            }
            self.secrets.headers.extend(raw.secrets.headers.iter().map(|name| name.to_ascii_lowercase()));
            self.secrets.all_cookies |= raw.secrets.cookies.iter().any(|name| name == "*");
            self.secrets.cookies.extend(raw.secrets.cookies.iter().cloned());
            self.secrets.query.extend(raw.secrets.query.iter().cloned());
            for template in &raw.endpoints.templates {
                let added = self.routes.add_template(&template.value);
                self.checked(line(template), added);
            }
            for (name, patterns) in &raw.endpoints.operations {
                for pattern in patterns {
                    let added = self.routes.add_operation(name, &pattern.value);
                    self.checked(line(pattern), added);
                }
            }
        }
        self.derive_secrets();
    }

    /// What identifies somebody, or is declared secret, never stays readable.
    fn derive_secrets(&mut self) {
        let of_entities = self.entities.iter().filter(|entity| !entity.keep_names).flat_map(|entity| &entity.places);
        let of_fields = self.declared.iter().filter(|field| field.secret).flat_map(|field| &field.places);
        for place in of_entities.chain(of_fields) {
            match place {
                Place::Header(name) | Place::Bearer(name) => self.secrets.headers.push(name.clone()),
                Place::Cookie(name) => self.secrets.cookies.push(name.clone()),
                Place::Query(name) => self.secrets.query.push(name.clone()),
                Place::BasicUser | Place::BasicPassword | Place::Jwt(_) => self.secrets.headers.push("authorization".to_owned()),
                _ => {}
            }
        }
        // The user agent is part of a fingerprint and stays readable: rules and people need it.
        self.secrets.headers.retain(|name| name != "cookie" && name != "user-agent");
        for list in [&mut self.secrets.headers, &mut self.secrets.cookies, &mut self.secrets.query] {
            list.sort();
            list.dedup();
        }
    }

    fn entity(&mut self, raw: &RawEntity) {
        let name = raw.name.value.clone();
        self.well_named(&raw.name, "an entity");
        if self.entities.iter().any(|known| known.name == name) {
            self.problem(line(&raw.name), format!("entity `{name}` is declared twice"));
            return;
        }
        if self.entities.len() >= MAX_ENTITIES {
            self.problem(line(&raw.name), format!("entity `{name}` is one too many: at most {MAX_ENTITIES} are allowed"));
        }
        let places = self.places(&raw.from);
        if places.contains(&Place::PreviousRoute) {
            self.problem(
                line(&raw.name),
                format!("`previous_route` is a field's place and identifies nobody: entity `{name}` cannot come from it"),
            );
        }
        let normalization = match &raw.normalization {
            None => Normalization::None,
            Some(text) => self.normalization(text),
        };
        let ttl = match &raw.ttl {
            None => DEFAULT_TTL,
            Some(text) => {
                let parsed = duration::parse(&text.value);
                self.checked(line(text), parsed).unwrap_or(DEFAULT_TTL)
            }
        };
        let max_bytes = raw.max_bytes.as_ref().map_or(DEFAULT_MAX_BYTES, |bytes| bytes.value);
        self.entities.push(EntityTypeSpec {
            name,
            places,
            normalization,
            keep_names: raw.keep_names,
            ttl,
            max_bytes,
            meaning: raw.meaning.clone(),
        });
    }

    fn normalization(&mut self, text: &Text) -> Normalization {
        match text.value.as_str() {
            "none" => Normalization::None,
            "lowercase" => Normalization::Lowercase,
            "address" => Normalization::Address,
            "digits" => Normalization::Digits,
            other => {
                self.problem(line(text), format!("`{other}` is no normalization: allowed are `none`, `lowercase`, `address`, `digits`"));
                Normalization::None
            }
        }
    }

    fn field(&mut self, raw: &RawField) {
        self.well_named(&raw.name, "a field");
        if self.declared.iter().any(|known| known.name == raw.name.value) {
            self.problem(line(&raw.name), format!("field `{}` is declared twice", raw.name.value));
            return;
        }
        let kind = match raw.kind.value.as_str() {
            "number" => FieldKind::Number,
            "text" => FieldKind::Text,
            "flag" => FieldKind::Flag,
            other => {
                self.problem(line(&raw.kind), format!("`{other}` is no field type: allowed are `number`, `text`, `flag`"));
                FieldKind::Text
            }
        };
        if raw.secret && kind != FieldKind::Text {
            self.problem(line(&raw.kind), format!("field `{}` is secret and so becomes a token: its type must be `text`", raw.name.value));
        }
        let places = self.places(&raw.from);
        let later = places.iter().filter(|place| matches!(place, Place::Outcome(_))).count();
        if later > 0 && (later < places.len() || raw.carried) {
            let name = &raw.name.value;
            self.problem(
                line(&raw.name),
                format!("field `{name}` comes from the outcome: it can neither be `carried` nor come from elsewhere too"),
            );
        }
        self.declared.push(FieldSpec {
            name: raw.name.value.clone(),
            kind,
            places,
            secret: raw.secret,
            carried: raw.carried,
            from_outcome: later > 0,
            meaning: raw.meaning.clone(),
        });
    }

    fn places(&mut self, from: &[Text]) -> Vec<Place> {
        from.iter().filter_map(|text| self.checked(line(text), places::parse(&text.value))).collect()
    }

    pub(super) fn well_named(&mut self, name: &Text, what: &str) {
        let good = !name.value.is_empty()
            && name.value.len() <= 64
            && name.value.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
            && name.value.as_bytes().first().is_some_and(u8::is_ascii_lowercase);
        if !good {
            let message =
                format!("`{}` cannot name {what}: small letters, digits and `_` are allowed, a letter first, at most 64", name.value);
            self.problem(line(name), message);
        }
    }
}
