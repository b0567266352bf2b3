//! Route templates and operations: a path enters, the template that stands for its like leaves.
//!
//! Configured templates come first, then those that came by a record. Else the shape of each segment decides, without any memory:
//! digits, UUIDs, hexadecimal and long mixed tokens become `{id}`, so the number of routes stays bounded by the words of the API and
//! not by its objects.

use std::collections::HashMap;

use super::learned::Templates;

/// Deeper paths end in `/**`.
pub(super) const MAX_SEGMENTS: usize = 8;
/// Longer words are tokens.
const MAX_WORD: usize = 32;

/// The templates and operations of a schema.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    by_length: HashMap<usize, Vec<Template>>,
    operations: HashMap<String, Vec<Operation>>,
    names: Vec<String>,
}

#[derive(Clone, Debug)]
struct Template {
    text: String,
    segments: Vec<Segment>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Word(String),
    Any,
}

#[derive(Clone, Debug)]
struct Operation {
    method: Option<String>,
    anywhere: bool,
    segments: Vec<Segment>,
    name: usize,
}

impl Routes {
    /// Adds a template such as `/orders/{id}`.
    ///
    /// # Errors
    /// When it is not a path.
    pub(super) fn add_template(&mut self, text: &str) -> Result<(), String> {
        if !text.starts_with('/') || text.contains(['?', '#', ' ']) {
            return Err(format!(
                "`{text}` is no template: it must begin with `/` and hold neither `?`, `#` nor spaces, such as `/orders/{{id}}`"
            ));
        }
        let segments = parsed(text);
        self.by_length.entry(segments.len()).or_default().push(Template { text: text.to_owned(), segments });
        Ok(())
    }

    /// Adds a pattern of an operation: `POST **/login`, `/api/orders/{id}`.
    ///
    /// # Errors
    /// When it is not a pattern.
    pub(super) fn add_operation(&mut self, name: &str, pattern: &str) -> Result<(), String> {
        let (method, path) = match pattern.split_once(' ') {
            Some((method, path)) => (Some(method.trim().to_ascii_uppercase()), path.trim()),
            None => (None, pattern.trim()),
        };
        let (anywhere, path) = path.strip_prefix("**").map_or((false, path), |rest| (true, rest));
        if !path.starts_with('/') || path.len() < 2 {
            return Err(format!("`{pattern}` is no pattern: write `/path`, `**/end`, or a method before either, such as `POST **/login`"));
        }
        let segments = parsed(path);
        let name = match self.names.iter().position(|known| known == name) {
            Some(index) => index,
            None => {
                self.names.push(name.to_owned());
                self.names.len() - 1
            }
        };
        let key = match segments.last() {
            Some(Segment::Word(word)) => word.to_ascii_lowercase(),
            _ => String::new(),
        };
        self.operations.entry(key).or_default().push(Operation { method, anywhere, segments, name });
        Ok(())
    }

    /// The template of a path, without those that came by a record.
    pub fn route(&self, path: &str) -> String {
        self.configured(path).map_or_else(|| shaped(path), str::to_owned)
    }

    /// The template of a path that is asked for with that method of that service: configured, else one of those given, else by its shape.
    pub fn route_among(&self, templates: &Templates, of: (&str, &str), path: &str) -> String {
        if let Some(configured) = self.configured(path) {
            return configured.to_owned();
        }
        let shaped = shaped(path);
        match templates.find(of, path) {
            Some(found) if self.may_stand_for(&found.path, (of.1, &shaped)) => found.path.clone(),
            _ => shaped,
        }
    }

    /// The route of a path by its shape alone, where templates may be learned of it: nothing configured names it or what it does.
    pub fn learnable(&self, method: &str, path: &str) -> Option<String> {
        let depth = segments(path).count();
        if depth > MAX_SEGMENTS || segments(path).any(str::is_empty) || self.configured(path).is_some() {
            return None;
        }
        Some(shaped(path)).filter(|shaped| self.operation(method, shaped).is_empty())
    }

    /// A template never hides an operation: who can teach `/{id}` must not make logins at `/login` nameless.
    fn may_stand_for(&self, template: &str, (method, shaped): (&str, &str)) -> bool {
        let named = self.operation(method, shaped);
        named.is_empty() || named == self.operation(method, template)
    }

    fn configured(&self, path: &str) -> Option<&str> {
        let templates = self.by_length.get(&segments(path).count())?;
        let found = templates.iter().find(|template| {
            segments(path).zip(&template.segments).all(|(segment, wanted)| match wanted {
                Segment::Word(word) => word == segment,
                Segment::Any => !segment.is_empty(),
            })
        });
        found.map(|template| template.text.as_str())
    }

    /// The operation of a method on a route; empty when none is configured.
    pub fn operation(&self, method: &str, route: &str) -> &str {
        let last = segments(route).next_back().unwrap_or_default();
        let word = if last.bytes().any(|byte| byte.is_ascii_uppercase()) { last.to_ascii_lowercase() } else { String::new() };
        let key = if word.is_empty() { last } else { word.as_str() };
        let by_word = self.operations.get(key).map(Vec::as_slice).unwrap_or_default();
        let by_any = if key.is_empty() { &[] } else { self.operations.get("").map(Vec::as_slice).unwrap_or_default() };
        let found = by_word.iter().chain(by_any).find(|operation| operation.fits(method, route));
        found.and_then(|operation| self.names.get(operation.name)).map_or("", String::as_str)
    }

    /// The operations that are configured.
    pub fn operations(&self) -> &[String] {
        &self.names
    }
}

impl Operation {
    fn fits(&self, method: &str, route: &str) -> bool {
        if self.method.as_deref().is_some_and(|wanted| wanted != method) {
            return false;
        }
        let count = segments(route).count();
        if count < self.segments.len() || (!self.anywhere && count != self.segments.len()) {
            return false;
        }
        segments(route).skip(count - self.segments.len()).zip(&self.segments).all(|(segment, wanted)| match wanted {
            Segment::Word(word) => word.eq_ignore_ascii_case(segment),
            Segment::Any => true,
        })
    }
}

/// The segments of a path: `/a/b` has two, `/` has one that is empty.
pub(crate) fn segments(path: &str) -> std::str::Split<'_, char> {
    path.strip_prefix('/').unwrap_or(path).split('/')
}

/// Whether a segment of a template stands for any value.
pub(super) fn is_variable(segment: &str) -> bool {
    segment.starts_with('{') && segment.ends_with('}')
}

fn parsed(text: &str) -> Vec<Segment> {
    segments(text)
        .map(|segment| match segment {
            "*" => Segment::Any,
            other if is_variable(other) => Segment::Any,
            other => Segment::Word(other.to_owned()),
        })
        .collect()
}

fn shaped(path: &str) -> String {
    let count = segments(path).count();
    let mut route = String::with_capacity(path.len().min(128) + 1);
    for segment in segments(path).take(MAX_SEGMENTS) {
        route.push('/');
        route.push_str(if variable(segment) { "{id}" } else { segment });
    }
    if count > MAX_SEGMENTS {
        route.push_str("/**");
    }
    route
}

/// Whether a segment names an object and not a resource.
fn variable(segment: &str) -> bool {
    if segment.is_empty() {
        return false;
    }
    let digits = segment.bytes().filter(u8::is_ascii_digit).count();
    let hex = segment.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    let version = segment.len() <= 4 && segment.starts_with('v');
    let plain = segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    digits == segment.len()
        || segment.len() > MAX_WORD
        || !plain
        || (hex && digits > 0 && segment.len() >= 6)
        || (digits > 0 && !version && (digits >= 4 || (segment.len() >= 16 && digits >= 2) || digits * 2 >= segment.len()))
}

/// The last variable segment of a path, given its route; empty when there is none.
pub(crate) fn object_id<'a>(path: &'a str, route: &str) -> &'a str {
    segments(path).zip(segments(route)).filter(|(_, template)| is_variable(template)).last().map_or("", |(segment, _)| segment)
}

/// The segment of a path that a template calls `name`.
pub(crate) fn segment_of<'a>(path: &'a str, template: &str, name: &str) -> Option<&'a str> {
    let mut found = None;
    let (mut left, mut right) = (segments(path), segments(template));
    loop {
        match (left.next(), right.next()) {
            (None, None) => return found,
            (Some(value), Some(wanted)) => match wanted.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
                Some(variable) if variable == name => found = Some(value),
                Some(_) => {}
                None if wanted == value => {}
                None => return None,
            },
            _ => return None,
        }
    }
}
