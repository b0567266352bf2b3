//! What a compiled schema says of itself: entity types, fields, features, places. Plain data for people, models and rules.

use std::time::Duration;

use crate::entity::EntityType;

/// An entity type as declared.
#[derive(Clone, Debug, PartialEq)]
pub struct EntityTypeSpec {
    /// Name: `address`, `session`.
    pub name: String,
    /// Places to look for the identifier, in order; the first that yields one wins.
    pub places: Vec<Place>,
    /// How the identifier is brought to one form before it is hashed.
    pub normalization: Normalization,
    /// Whether the identifier is kept in clear beside its hash.
    pub keep_names: bool,
    /// History that is not touched for this long is forgotten.
    pub ttl: Duration,
    /// Largest blob, bytes.
    pub max_bytes: usize,
    /// What it is, in plain words.
    pub meaning: String,
}

/// Where a value of a transaction is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The client address.
    Address,
    /// The service of the transaction.
    Service,
    /// The tenant of the transaction.
    Tenant,
    /// Method and route template.
    Endpoint,
    /// The first header of that lower-case name.
    Header(String),
    /// The token of a header `Bearer …` (RFC 6750).
    Bearer(String),
    /// The cookie of that name.
    Cookie(String),
    /// The query parameter of that name.
    Query(String),
    /// A value of the JSON body by path; `*` stands for any key or index.
    Json(Vec<String>),
    /// A field of an `application/x-www-form-urlencoded` body.
    Form(String),
    /// A claim of the bearer token's payload, unverified.
    Jwt(Vec<String>),
    /// A segment of a route template: `/users/{user}` and `user`.
    Segment {
        /// The template.
        template: String,
        /// The name between braces.
        name: String,
    },
    /// An attribute of the transaction.
    Attribute(String),
    /// An attribute of the outcome.
    Outcome(String),
    /// `identity.session`.
    IdentitySession,
    /// `identity.user`.
    IdentityUser,
    /// `identity.fingerprint`.
    IdentityFingerprint,
    /// `identity.credential_hash`.
    IdentityCredential,
    /// A customer-named identity.
    IdentityField(String),
    /// The user name of HTTP Basic credentials (RFC 7617).
    BasicUser,
    /// The password of HTTP Basic credentials (RFC 7617).
    BasicPassword,
    /// What stays the same when a client changes its address: JA4 where known, order of header names, user agent.
    ClientShape,
    /// The user to whom a successful login opened this session.
    SessionUser,
    /// The route template that this session asked for before.
    PreviousRoute,
}

/// How an identifier is brought to one form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Normalization {
    /// As it is.
    #[default]
    None,
    /// Surrounding white space removed, ASCII letters in lower case.
    Lowercase,
    /// An address: IPv4 whole, IPv6 its first 64 bits, in canonical text.
    Address,
    /// Only its digits.
    Digits,
}

/// A typed field of the transaction that rules and aggregations may name as `attributes.<name>`.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldSpec {
    /// Name, without `attributes.`.
    pub name: String,
    /// Its type.
    pub kind: FieldKind,
    /// Places to look, in order.
    pub places: Vec<Place>,
    /// Whether it is replaced by a keyed token.
    pub secret: bool,
    /// Whether outcome and label aggregations may use it: it travels in the context token.
    pub carried: bool,
    /// Whether it is known only from the outcome.
    pub from_outcome: bool,
    /// What it is, in plain words.
    pub meaning: String,
}

/// Type of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldKind {
    /// A finite number.
    Number,
    /// Text.
    Text,
    /// A truth value.
    Flag,
}

/// When an aggregation's events come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// With the transaction.
    Request,
    /// With its outcome.
    Outcome,
    /// With its label.
    Label,
}

impl Phase {
    /// As written in a schema.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Outcome => "outcome",
            Self::Label => "label",
        }
    }
}

/// One feature: a column of the vector.
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureSpec {
    /// Name: `address.failed_logins_10m`, `request.path_depth`.
    pub name: String,
    /// Definition hash. A model's input is valid while name and hash are the same.
    pub hash: u64,
    /// One line in plain words.
    pub meaning: String,
    /// Whose history it reads; `None` for a feature of the transaction itself.
    pub entity: Option<EntityType>,
    /// The view that declares it.
    pub view: String,
    /// Aggregation or `field`, as written: `count`, `distinct`, `ratio`.
    pub aggregation: String,
    /// What is counted or summed, as written; empty where nothing is.
    pub of: String,
    /// Filter, as written; empty for every event.
    pub filter: String,
    /// Statistic or delay, as written; empty where there is none.
    pub stat: String,
    /// Over how long; `None` where there is no window.
    pub window: Option<Duration>,
    /// When its events come.
    pub phase: Phase,
}

impl FeatureSpec {
    /// Whether it counts whole things: between two whole numbers lies no value that anybody could mean, though a reading may be estimated.
    pub fn counts_whole_things(&self) -> bool {
        ["count", "distinct"].contains(&self.aggregation.as_str())
    }

    /// Whether the event itself is already counted when the feature is read (STATE, read order).
    pub fn includes_event(&self) -> bool {
        let before = ["novelty", "interarrival", "age", "last", "quantile_rank", "zscore_self", "transition_rarity", "geo_velocity"];
        !before.contains(&self.aggregation.as_str()) && self.stat != "own_share"
    }
}

/// How enforcement points find an entity in a request without its body.
#[derive(Clone, Debug, PartialEq)]
pub struct Selector {
    /// The entity type by name.
    pub entity: String,
    /// Address, header, cookie and query places, in order.
    pub places: Vec<Place>,
    /// How the value is brought to one form before it is hashed.
    pub normalization: Normalization,
}
