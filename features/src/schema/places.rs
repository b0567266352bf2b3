//! Places as written in a schema: `cookie:sid`, `json:card.number`, `segment:/users/{user}#user`.

use super::names::closest;
use super::spec::Place;

/// What may be written, with a word each for messages.
const ALLOWED: &str = "`address`, `service`, `tenant`, `endpoint`, `header:NAME`, `bearer:HEADER`, `cookie:NAME`, `query:NAME`, `json:PATH`, \
                       `form:NAME`, `jwt:CLAIM`, `segment:TEMPLATE#NAME`, `attribute:NAME`, `outcome:NAME`, `identity.session`, \
                       `identity.user`, `identity.fingerprint`, `identity.credential_hash`, `identity.fields:NAME`, `basic.user`, \
                       `basic.password`, `client_shape`, `session_user`, `previous_route`";

const WORDS: [&str; 24] = [
    "address",
    "service",
    "tenant",
    "endpoint",
    "header",
    "bearer",
    "cookie",
    "query",
    "json",
    "form",
    "jwt",
    "segment",
    "attribute",
    "outcome",
    "identity.session",
    "identity.user",
    "identity.fingerprint",
    "identity.credential_hash",
    "identity.fields",
    "basic.user",
    "basic.password",
    "client_shape",
    "session_user",
    "previous_route",
];

/// Reads a place.
///
/// # Errors
/// What is wrong and what is allowed.
pub(super) fn parse(text: &str) -> Result<Place, String> {
    let (word, argument) = text.split_once(':').map_or((text, ""), |(word, argument)| (word.trim(), argument.trim()));
    let plain = |place: Place| if argument.is_empty() { Ok(place) } else { Err(format!("`{word}` takes no name, but `{text}` gives one")) };
    let named = |place: fn(String) -> Place| match argument {
        "" => Err(format!("`{word}` needs a name: `{word}:NAME`")),
        name => Ok(place(name.to_owned())),
    };
    match word {
        "address" => plain(Place::Address),
        "service" => plain(Place::Service),
        "tenant" => plain(Place::Tenant),
        "endpoint" => plain(Place::Endpoint),
        "header" => named(|name| Place::Header(name.to_ascii_lowercase())),
        "bearer" => named(|name| Place::Bearer(name.to_ascii_lowercase())),
        "cookie" => named(Place::Cookie),
        "query" => named(Place::Query),
        "json" => named(|path| Place::Json(dotted(&path))),
        "form" => named(Place::Form),
        "jwt" => named(|path| Place::Jwt(dotted(&path))),
        "segment" => segment(text, argument),
        "attribute" => named(Place::Attribute),
        "outcome" => named(Place::Outcome),
        "identity.session" => plain(Place::IdentitySession),
        "identity.user" => plain(Place::IdentityUser),
        "identity.fingerprint" => plain(Place::IdentityFingerprint),
        "identity.credential_hash" => plain(Place::IdentityCredential),
        "identity.fields" => named(Place::IdentityField),
        "basic.user" => plain(Place::BasicUser),
        "basic.password" => plain(Place::BasicPassword),
        "client_shape" => plain(Place::ClientShape),
        "session_user" => plain(Place::SessionUser),
        "previous_route" => plain(Place::PreviousRoute),
        _ => Err(match closest(word, WORDS.iter().copied()) {
            Some(best) => format!("`{text}` is no place in a transaction; did you mean `{best}`? Allowed: {ALLOWED}"),
            None => format!("`{text}` is no place in a transaction; allowed: {ALLOWED}"),
        }),
    }
}

fn dotted(path: &str) -> Vec<String> {
    path.split('.').map(str::to_owned).collect()
}

fn segment(text: &str, argument: &str) -> Result<Place, String> {
    match argument.split_once('#') {
        Some((template, name)) if template.contains(&format!("{{{name}}}")) => {
            Ok(Place::Segment { template: template.to_owned(), name: name.to_owned() })
        }
        _ => {
            Err(format!("`{text}` must be `segment:TEMPLATE#NAME` with `{{NAME}}` in the template, such as `segment:/users/{{user}}#user`"))
        }
    }
}

/// Whether the gateway, not the client, says what stands there.
pub(crate) const fn vouched(place: &Place) -> bool {
    matches!(place, Place::Address | Place::Service | Place::Tenant | Place::Endpoint)
}
