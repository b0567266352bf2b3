//! Secrets become typed keyed tokens; bodies and identities in clear are dropped.

use super::forms;
use crate::domain::{HttpRequest, Identity, Transaction, Value};
use crate::hash::Hasher;
use crate::schema::{Place, Schema, Secrets};

/// Which attributes hold identities or secrets, and the rest of what must go.
pub(super) struct Redactor {
    secrets: Secrets,
    attributes: Vec<(String, String)>,
}

impl Redactor {
    pub fn new(schema: &Schema) -> Self {
        let of_entities = schema.entity_types().iter().filter(|spec| !spec.keep_names).map(|spec| (&spec.name, &spec.places));
        let of_fields = schema.declared_fields().iter().filter(|field| field.secret).map(|field| (&field.name, &field.places));
        let attributes = of_entities.chain(of_fields).flat_map(|(kind, places)| {
            places.iter().filter_map(move |place| match place {
                Place::Attribute(name) => Some((name.clone(), kind.clone())),
                _ => None,
            })
        });
        Self { secrets: schema.secrets().clone(), attributes: attributes.collect() }
    }

    /// Redacts a whole transaction.
    pub fn transaction(&self, tx: &mut Transaction, hasher: &Hasher) {
        tx.identity = Identity { verified: tx.identity.verified, ..Identity::default() };
        for (name, kind) in &self.attributes {
            if let Some(value) = tx.attributes.get_mut(name) {
                let token = match value {
                    Value::Text(text) => hasher.token(kind, text.as_bytes()),
                    Value::Number(number) => hasher.token(kind, number.to_string().as_bytes()),
                    Value::Flag(_) => continue,
                };
                *value = Value::Text(token);
            }
        }
        if let Some(http) = &mut tx.http {
            self.request(http, hasher);
        }
        if let Some(response) = &mut tx.response {
            self.headers(&mut response.headers, hasher);
        }
    }

    fn request(&self, http: &mut HttpRequest, hasher: &Hasher) {
        http.body = Vec::new();
        if let Some(query) = self.query(&http.query, hasher) {
            http.query = query;
        }
        self.headers(&mut http.headers, hasher);
    }

    /// Redacts header values: configured ones, cookies, and what a referring page's query holds.
    pub fn headers(&self, headers: &mut [crate::domain::Header], hasher: &Hasher) {
        for header in headers {
            match header.name.as_str() {
                "cookie" => header.value = self.cookies(&header.value, hasher),
                "set-cookie" => header.value = self.set_cookie(&header.value, hasher),
                "referer" | "location" => {
                    if let Some((page, query)) = header.value.split_once('?')
                        && let Some(query) = self.query(query, hasher)
                    {
                        header.value = format!("{page}?{query}");
                    }
                }
                name if self.secrets.headers.iter().any(|secret| secret == name) => {
                    let token = hasher.token(name, header.value.as_bytes());
                    header.value = match header.value.split_once(' ') {
                        Some((scheme, _)) if scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("basic") => {
                            format!("{scheme} {token}")
                        }
                        _ => token,
                    };
                }
                _ => {}
            }
        }
    }

    fn is_secret_cookie(&self, name: &str) -> bool {
        self.secrets.all_cookies || self.secrets.cookies.iter().any(|secret| secret == name)
    }

    fn cookies(&self, header: &str, hasher: &Hasher) -> String {
        let mut out = String::with_capacity(header.len() + 48);
        for pair in header.split(';') {
            if !out.is_empty() {
                out.push_str("; ");
            }
            match pair.trim().split_once('=') {
                Some((name, value)) if self.is_secret_cookie(name) => {
                    out.push_str(name);
                    out.push('=');
                    out.push_str(&hasher.token("cookie", value.as_bytes()));
                }
                // A cookie without a name is a value: who knows whose.
                None if self.secrets.all_cookies && !pair.trim().is_empty() => {
                    out.push_str(&hasher.token("cookie", pair.trim().as_bytes()))
                }
                _ => out.push_str(pair.trim()),
            }
        }
        out
    }

    fn set_cookie(&self, header: &str, hasher: &Hasher) -> String {
        let (pair, rest) = header.split_once(';').map_or((header, ""), |(pair, rest)| (pair, rest));
        let gap = if rest.is_empty() { "" } else { ";" };
        match pair.split_once('=') {
            Some((name, value)) if self.is_secret_cookie(name.trim()) && !value.is_empty() => {
                format!("{name}={}{gap}{rest}", hasher.token("cookie", value.trim().as_bytes()))
            }
            Some(_) => header.to_owned(),
            None => hasher.token("cookie", pair.as_bytes()),
        }
    }

    /// The query with secret values as tokens; `None` when it holds none.
    fn query(&self, query: &str, hasher: &Hasher) -> Option<String> {
        if query.is_empty() {
            return None;
        }
        let secret = |pair: &str| {
            let name = pair.split_once('=')?.0;
            let name = forms::decoded(name.as_bytes(), true);
            self.secrets.query.iter().any(|secret| secret.eq_ignore_ascii_case(&name)).then_some(())
        };
        query.split('&').find_map(secret)?;
        let pairs = query.split('&').map(|pair| match (secret(pair), pair.split_once('=')) {
            (Some(()), Some((name, value))) => format!("{name}={}", hasher.token("query", value.as_bytes())),
            _ => pair.to_owned(),
        });
        Some(pairs.collect::<Vec<_>>().join("&"))
    }
}
