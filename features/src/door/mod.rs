//! The door: raw transactions enter, redacted ones leave, with everything that later steps need of what was taken away.
//!
//! In this order: identities are taken from the raw bytes and hashed, content signals computed, configured secrets replaced by
//! typed keyed tokens, the body dropped. Nothing behind the door sees a secret, and nothing behind it looks at raw bytes again.

mod content;
mod forms;
mod inspect;
mod json;
mod limits;
mod parts;
mod patterns;
mod redact;
mod sessions;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use smallvec::SmallVec;

use crate::domain::limits::TEXT_BYTES;
use crate::domain::{Context, Identity, Outcome, Transaction, Value, Values};
use crate::entity::{EntityId, EntityKey, EntityType, Subject, Subjects};
use crate::hash::Hasher;
use crate::schema::{FieldKind, Place, Schema, Templates, vouched};
use inspect::{Gathered, Inspector};
use parts::{Parts, Spot, Wanted, normalized};
use redact::Redactor;
use sessions::Sessions;
pub use sessions::{SessionPage, SessionPlace};

pub use content::{CATALOGUE, SIGNALS, Signals};

/// Longest name that is kept in clear, bytes.
const NAME_BYTES: usize = 256;

/// A transaction behind the door.
// INVARIANT: everything later is computed from this alone and the journal keeps all of it, so replay never identifies anew.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Admitted {
    /// The transaction, redacted: no body, secrets as tokens, identity empty.
    pub tx: Transaction,
    /// Who takes part.
    pub subjects: Subjects,
    /// Endpoint template; empty without HTTP.
    pub route: String,
    /// Content signals.
    pub signals: Signals,
    /// The schema's declared fields as found, secrets as tokens.
    pub fields: Values,
}

/// An outcome behind the door.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AdmittedOutcome {
    /// The outcome, redacted: identity empty, `set-cookie` values as tokens.
    pub outcome: Outcome,
    /// Entities that the answer revealed and that the transaction did not have.
    pub revealed: Subjects,
}

/// Why a transaction was refused at the door.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DoorError {
    /// Something is larger than [`crate::domain::limits`] allows.
    #[error("`{what}` has size {found}, at most {allowed} is allowed")]
    TooLarge {
        /// Which field.
        what: String,
        /// Its size.
        found: usize,
        /// The limit.
        allowed: usize,
    },
    /// A number is not finite.
    #[error("`{what}` is not a finite number")]
    NotFinite {
        /// Which field.
        what: String,
    },
    /// The identifier is missing.
    #[error("`id` is empty: the gateway must give every transaction an identifier of 1 to 128 bytes")]
    NoId,
}

/// Lets transactions in.
pub struct Door {
    schema: Arc<Schema>,
    hasher: Hasher,
    wanted: Wanted,
    /// Places by entity type.
    entities: Vec<Vec<Spot>>,
    /// Places by declared field.
    fields: Vec<Vec<Spot>>,
    inspector: Inspector,
    redactor: Redactor,
    templates: ArcSwap<Templates>,
    sessions: Sessions<Subject>,
    /// The route that each session asked for last; only kept when a field names it.
    routes: Option<Sessions<Box<str>>>,
    session: Option<EntityType>,
    user: Option<EntityType>,
    cuts: AtomicU64,
}

impl Door {
    /// A door for that schema and key.
    pub fn new(schema: Arc<Schema>, hasher: Hasher) -> Self {
        let mut wanted = Wanted::default();
        let mut spots = |places: &[Place]| places.iter().map(|place| wanted.spot(place)).collect::<Vec<_>>();
        let entities = schema.entity_types().iter().map(|spec| spots(&spec.places)).collect();
        let fields = schema.declared_fields().iter().map(|field| spots(&field.places)).collect();
        let follows = schema.declared_fields().iter().any(|field| field.places.contains(&Place::PreviousRoute));
        Self {
            entities,
            fields,
            wanted,
            inspector: Inspector::new(),
            redactor: Redactor::new(&schema),
            templates: ArcSwap::default(),
            sessions: Sessions::default(),
            routes: follows.then(Sessions::default),
            session: schema.entity_type("session"),
            user: schema.entity_type("user"),
            cuts: AtomicU64::new(0),
            schema,
            hasher,
        }
    }

    /// Takes these templates for every transaction from now on, beside the configured ones.
    pub fn use_templates(&self, templates: Arc<Templates>) {
        self.templates.store(templates);
    }

    /// Identifies, inspects and redacts one transaction.
    ///
    /// # Errors
    /// When the transaction is over a limit that cannot be cut to, has no id, or holds a number that is not finite.
    pub fn admit(&self, mut tx: Transaction) -> Result<Admitted, DoorError> {
        let cut = limits::enforce(&mut tx)?;
        if cut > 0 {
            self.cuts.fetch_add(cut, Ordering::Relaxed);
        }
        let route = self.route(&tx);
        let mut gathered = Gathered::default();
        let parts = Parts::of(&tx, &route, &self.wanted, |path, text, quoted| gathered.leaf(path, text, quoted));
        let subjects = self.subjects(&parts);
        let fields = self.field_values(&parts, self.previous_route(&subjects, &route).as_deref());
        let signals = self.inspector.inspect(&parts, gathered);
        drop(parts);
        self.redactor.transaction(&mut tx, &self.hasher);
        if let Some(http) = &mut tx.http {
            http.route.clone_from(&route);
        }
        Ok(Admitted { tx, subjects, route, signals, fields })
    }

    /// Redacts an outcome, hashes the identities it revealed, and remembers whose session a successful login opened.
    ///
    /// # Errors
    /// When the outcome is over a limit or holds a number that is not finite.
    pub fn admit_outcome(&self, mut outcome: Outcome, context: &Context) -> Result<AdmittedOutcome, DoorError> {
        limits::attributes(&outcome.attributes)?;
        limits::identity(&outcome.identity)?;
        let revealed = self.revealed(&outcome, context);
        outcome.identity = Identity { verified: outcome.identity.verified, ..Identity::default() };
        if let Some(response) = &mut outcome.response {
            response.headers.truncate(crate::domain::limits::HEADERS);
            self.redactor.headers(&mut response.headers, &self.hasher);
        }
        let admitted = AdmittedOutcome { outcome, revealed };
        self.remember(context, &admitted);
        Ok(admitted)
    }

    /// Learns from an admitted outcome which session belongs to which user; called again with journalled ones after a restart.
    pub fn remember(&self, context: &Context, outcome: &AdmittedOutcome) {
        let (Some(session), Some(user)) = (self.session, self.user) else { return };
        let opened = outcome.revealed.of(session).or_else(|| context.subjects.of(session));
        let of = context.subjects.of(user).or_else(|| outcome.revealed.of(user));
        if let (Some(opened), Some(of)) = (opened, of)
            && self.schema.proved_by(user, context, outcome)
        {
            self.sessions.replace(opened.id.key, of.clone());
        }
    }

    /// At most so many of the sessions whose user is known, from that place on (the first is `SessionPlace::default()`), and the place after them;
    /// `None` at the end. For snapshots.
    pub fn sessions(&self, from: SessionPlace, most: usize) -> Option<SessionPage<Subject>> {
        self.sessions.some(from, most)
    }

    /// Remembers to whom a session was opened, as a snapshot tells it.
    pub fn restore_session(&self, session: EntityKey, user: EntityKey, (verified, name): (bool, Option<Box<str>>)) {
        if let Some(kind) = self.user {
            self.sessions.replace(session, Subject { id: EntityId { kind, key: user }, verified, name });
        }
    }

    /// The same for the routes that sessions asked for last.
    pub fn session_routes(&self, from: SessionPlace, most: usize) -> Option<SessionPage<Box<str>>> {
        self.routes.as_ref()?.some(from, most)
    }

    /// Remembers which route a session asked for last, as a snapshot tells it.
    pub fn restore_route(&self, session: EntityKey, route: Box<str>) {
        if let Some(routes) = &self.routes {
            routes.replace(session, route);
        }
    }

    /// Forgets an entity on request: to whom sessions were opened, and what is known of a session.
    pub fn forget(&self, entity: EntityId) {
        if Some(entity.kind) == self.user {
            self.sessions.forget(|_, user| user.id == entity);
        }
        if Some(entity.kind) == self.session {
            self.sessions.forget(|session, _| *session == entity.key);
            if let Some(routes) = &self.routes {
                routes.forget(|session, _| *session == entity.key);
            }
        }
    }

    /// Whether the schema asks for the route that a session asked for before.
    pub const fn follows_routes(&self) -> bool {
        self.routes.is_some()
    }

    /// Learns from an admitted transaction where its session is now; called with journalled ones after a restart.
    pub fn follow(&self, admitted: &Admitted) {
        self.previous_route(&admitted.subjects, &admitted.route);
    }

    /// The entity of that type with that identifier as a person writes it; `None` when nothing is left of it.
    pub fn entity(&self, kind: EntityType, identifier: &str) -> Option<EntityId> {
        let spec = self.schema.entity_types().get(kind.index())?;
        let text = normalized(spec.normalization, identifier);
        (!text.is_empty()).then(|| EntityId { kind, key: self.hasher.entity(&spec.name, &text) })
    }

    /// How many texts, headers and bodies were cut to their limits.
    pub fn cuts(&self) -> u64 {
        self.cuts.load(Ordering::Relaxed)
    }

    fn route(&self, tx: &Transaction) -> String {
        match &tx.http {
            None => String::new(),
            Some(http) if !http.route.is_empty() => http.route.clone(),
            Some(http) => {
                let mut route = self.schema.routes().route_among(&self.templates.load(), (&tx.service, &http.method), &http.path);
                limits::cut(&mut route, TEXT_BYTES);
                route
            }
        }
    }

    fn subjects(&self, parts: &Parts<'_>) -> Subjects {
        let mut subjects: SmallVec<[Subject; 8]> = SmallVec::new();
        for index in 0..self.entities.len() {
            let Ok(index) = u8::try_from(index) else { break };
            if let Some(subject) = self.subject(EntityType(index), parts, &subjects) {
                subjects.push(subject);
            }
        }
        if let Some(user) = self.user {
            self.know_session(user, &mut subjects);
        }
        Subjects::new(subjects)
    }

    fn subject(&self, kind: EntityType, parts: &Parts<'_>, known: &[Subject]) -> Option<Subject> {
        let spec = self.schema.entity_types().get(kind.index())?;
        let spots = self.entities.get(kind.index())?;
        for spot in spots {
            if *spot.place() == Place::SessionUser {
                let session = known.iter().find(|subject| Some(subject.id.kind) == self.session);
                match session.and_then(|session| self.sessions.get(session.id.key)) {
                    Some(user) => return Some(Subject { verified: true, ..user }),
                    None => continue,
                }
            }
            let Some(found) = parts.find(spot) else { continue };
            let text = normalized(spec.normalization, &found);
            if text.is_empty() {
                continue;
            }
            let by_gateway = matches!(spot.place(), Place::IdentitySession | Place::IdentityUser);
            return Some(Subject {
                id: EntityId { kind, key: self.hasher.entity(&spec.name, &text) },
                verified: vouched(spot.place()) || (by_gateway && parts.tx.identity.verified),
                name: spec.keep_names.then(|| name(&text)),
            });
        }
        None
    }

    /// A session that a login was seen to open is a known one.
    fn know_session(&self, user: EntityType, subjects: &mut [Subject]) {
        let Some(session) = subjects.iter().position(|subject| Some(subject.id.kind) == self.session) else { return };
        let known = subjects.get(session).and_then(|session| self.sessions.get(session.id.key));
        if let (Some(known), Some(subject)) = (known, subjects.get_mut(session)) {
            debug_assert_eq!(known.id.kind, user);
            subject.verified = true;
        }
    }

    /// The route that this session asked for before, as far as this door saw it; from now on it is this one.
    fn previous_route(&self, subjects: &Subjects, route: &str) -> Option<Box<str>> {
        let session = self.session.and_then(|session| subjects.of(session))?;
        self.routes.as_ref().filter(|_| !route.is_empty())?.replace(session.id.key, route.into())
    }

    fn field_values(&self, parts: &Parts<'_>, previous: Option<&str>) -> Values {
        let mut values = Values::new();
        for (field, spots) in self.schema.declared_fields().iter().zip(&self.fields) {
            let found = spots.iter().find_map(|spot| match spot.place() {
                Place::PreviousRoute => previous.map(Cow::Borrowed),
                _ => parts.find(spot),
            });
            let Some(found) = found else { continue };
            let value = match field.kind {
                _ if field.secret => Some(Value::Text(self.hasher.token(&field.name, found.trim().as_bytes()))),
                FieldKind::Number => found.trim().parse::<f64>().ok().filter(|number| number.is_finite()).map(Value::Number),
                FieldKind::Text => Some(Value::Text(bounded(found))),
                FieldKind::Flag => match found.trim() {
                    "true" | "1" | "yes" | "on" => Some(Value::Flag(true)),
                    "false" | "0" | "no" | "off" => Some(Value::Flag(false)),
                    _ => None,
                },
            };
            if let Some(value) = value {
                values.insert(field.name.clone(), value);
            }
        }
        values
    }

    /// Entities that an answer reveals: cookies that it sets, identities that the gateway names.
    fn revealed(&self, outcome: &Outcome, context: &Context) -> Subjects {
        let headers = outcome.response.as_ref().map(|response| response.headers.as_slice()).unwrap_or_default();
        let mut revealed: SmallVec<[Subject; 8]> = SmallVec::new();
        for (index, spec) in self.schema.entity_types().iter().enumerate() {
            let Ok(index) = u8::try_from(index) else { break };
            let kind = EntityType(index);
            let found = spec.places.iter().find_map(|place| revealed_at(place, headers, outcome));
            let Some(found) = found else { continue };
            let text = normalized(spec.normalization, found);
            if text.is_empty() {
                continue;
            }
            let id = EntityId { kind, key: self.hasher.entity(&spec.name, &text) };
            if context.subjects.iter().all(|subject| subject.id != id) {
                revealed.push(Subject { id, verified: outcome.identity.verified, name: spec.keep_names.then(|| name(&text)) });
            }
        }
        Subjects::new(revealed)
    }
}

fn revealed_at<'a>(place: &Place, headers: &'a [crate::domain::Header], outcome: &'a Outcome) -> Option<&'a str> {
    let found = match place {
        Place::Cookie(name) => headers.iter().filter(|header| header.name == "set-cookie").find_map(|header| {
            let pair = header.value.split(';').next().unwrap_or_default();
            let (known, value) = pair.split_once('=')?;
            (known.trim() == name).then(|| value.trim().trim_matches('"'))
        }),
        Place::IdentitySession => Some(outcome.identity.session.as_str()),
        Place::IdentityUser => Some(outcome.identity.user.as_str()),
        Place::IdentityFingerprint => Some(outcome.identity.fingerprint.as_str()),
        Place::IdentityCredential => Some(outcome.identity.credential_hash.as_str()),
        Place::IdentityField(name) => outcome.identity.fields.get(name).map(String::as_str),
        _ => None,
    };
    found.filter(|text| !text.trim().is_empty())
}

fn name(text: &str) -> Box<str> {
    let mut name: String = text.chars().filter(|character| !character.is_control()).collect();
    limits::cut(&mut name, NAME_BYTES);
    name.into_boxed_str()
}

fn bounded(text: Cow<'_, str>) -> String {
    let mut text = text.into_owned();
    limits::cut(&mut text, TEXT_BYTES);
    text
}
