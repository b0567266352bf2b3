//! Templates that are not configured but came by a record: learned from traffic, or added by an operator.
//!
//! Templates enter, a set of them that finds the one of a path leaves. A set is immutable; a change makes a new one. Whether a
//! template should be in it is decided elsewhere.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::routes::{MAX_SEGMENTS, is_variable, segments};

/// Longest template, bytes.
const PATH_BYTES: usize = 1024;
/// Longest name of a service or method in a template, bytes.
const NAME_BYTES: usize = 256;

/// What a template's path may be.
const ALLOWED: &str =
    "a path of at most eight segments and 1,024 bytes, of which at least one segment is variable, such as `/users/{id}/posts`";

/// Why something is no template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found}; allowed: {allowed}")]
pub struct TemplateError {
    /// What stood there and what is wrong with it.
    pub found: String,
    /// What is allowed.
    pub allowed: &'static str,
}

/// A template with the requests that it is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Template {
    /// Service; empty: every one.
    pub service: String,
    /// Method; empty: every one.
    pub method: String,
    /// Path with `{name}` for what differs, such as `/users/{id}/posts`.
    pub path: String,
}

impl Template {
    /// Checks a template. Methods are brought to upper case.
    ///
    /// # Errors
    /// What is wrong with it and what is allowed.
    pub fn new(service: &str, method: &str, path: &str) -> Result<Self, TemplateError> {
        let wrong = |what: String| Err(TemplateError { found: format!("`{}`, {what}", path.escape_debug()), allowed: ALLOWED });
        let found: Vec<&str> = segments(path).collect();
        let halved = |segment: &&&str| segment.contains(['{', '}', '*']) && (!is_variable(segment) || segment.len() < 3);
        if !path.starts_with('/') || path.contains(|each: char| matches!(each, '?' | '#') || each.is_whitespace() || each.is_control()) {
            return wrong("which is no path".to_owned());
        }
        if path.len() > PATH_BYTES || found.len() > MAX_SEGMENTS {
            return wrong("which is too long".to_owned());
        }
        if found.iter().any(|segment| segment.is_empty()) {
            return wrong("which has an empty segment".to_owned());
        }
        if let Some(segment) = found.iter().find(halved) {
            return wrong(format!("whose `{segment}` is neither a word nor `{{name}}`"));
        }
        if !found.iter().any(|segment| is_variable(segment)) {
            return wrong("which has no variable segment".to_owned());
        }
        for (what, name) in [("service", service), ("method", method)] {
            if name.len() > NAME_BYTES || name.contains(char::is_control) || (what == "method" && name.contains(' ')) {
                let found = format!("for the {what} `{}`", name.escape_debug());
                return Err(TemplateError {
                    found,
                    allowed: "a name of at most 256 bytes, a method without spaces, or none for every one",
                });
            }
        }
        Ok(Self { service: service.to_owned(), method: method.to_ascii_uppercase(), path: path.to_owned() })
    }

    /// Names it in the installation: `shop GET /users/{id}`, with `*` for every service or method.
    pub fn id(&self) -> String {
        let any = |name: &str| if name.is_empty() { "*".to_owned() } else { name.to_owned() };
        format!("{} {} {}", any(&self.service), any(&self.method), self.path)
    }

    fn is_for(&self, service: &str, method: &str) -> bool {
        (self.service.is_empty() || self.service == service) && (self.method.is_empty() || self.method == method)
    }
}

/// Templates in force beside the configured ones.
#[derive(Clone, Debug, Default)]
pub struct Templates {
    all: BTreeSet<Arc<Template>>,
    /// Templates by their segments; the root stands before the first one.
    root: Node,
}

#[derive(Clone, Debug, Default)]
struct Node {
    words: HashMap<String, Node>,
    variable: Option<Box<Node>>,
    /// Those that end here, the most particular first.
    ends: Vec<Arc<Template>>,
}

impl PartialEq for Templates {
    fn eq(&self, other: &Self) -> bool {
        self.all == other.all
    }
}

impl Templates {
    /// A set of them.
    pub fn new(all: impl IntoIterator<Item = Template>) -> Self {
        Self::of(all.into_iter().map(Arc::new).collect())
    }

    fn of(all: BTreeSet<Arc<Template>>) -> Self {
        let mut root = Node::default();
        for template in &all {
            root.insert(segments(&template.path), template);
        }
        Self { all, root }
    }

    /// The same with one more.
    #[must_use]
    pub fn with(&self, template: Template) -> Self {
        let mut all = self.all.clone();
        all.insert(Arc::new(template));
        Self::of(all)
    }

    /// The same without that one.
    #[must_use]
    pub fn without(&self, template: &Template) -> Self {
        let mut all = self.all.clone();
        all.remove(template);
        Self::of(all)
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Template> {
        self.all.iter().map(AsRef::as_ref)
    }

    /// Whether that one is in it.
    pub fn contains(&self, template: &Template) -> bool {
        self.all.contains(template)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The template of a path; of several the one whose words come first, then the one for this service, then for this method.
    pub fn find(&self, (service, method): (&str, &str), path: &str) -> Option<&Template> {
        if self.is_empty() {
            return None;
        }
        self.root.find((service, method), segments(path))
    }
}

impl Node {
    fn insert(&mut self, mut rest: std::str::Split<'_, char>, template: &Arc<Template>) {
        match rest.next() {
            None => {
                self.ends.push(Arc::clone(template));
                self.ends.sort_by_key(|end| (end.service.is_empty(), end.method.is_empty()));
            }
            Some(segment) if is_variable(segment) => self.variable.get_or_insert_default().insert(rest, template),
            Some(word) => self.words.entry(word.to_owned()).or_default().insert(rest, template),
        }
    }

    /// At most two ways at each of eight segments, and the second only where the first led nowhere.
    fn find(&self, of: (&str, &str), mut rest: std::str::Split<'_, char>) -> Option<&Template> {
        let Some(segment) = rest.next() else {
            return self.ends.iter().find(|end| end.is_for(of.0, of.1)).map(AsRef::as_ref);
        };
        let by_word = self.words.get(segment).and_then(|node| node.find(of, rest.clone()));
        by_word.or_else(|| self.variable.as_ref().filter(|_| !segment.is_empty())?.find(of, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(text: &str) -> Template {
        let [service, method, path] = text.split(' ').collect::<Vec<_>>()[..] else { panic!("{text}") };
        let any = |text: &str| if text == "*" { String::new() } else { text.to_owned() };
        Template::new(&any(service), &any(method), path).unwrap()
    }

    #[test]
    fn words_come_before_variables_and_the_particular_before_the_general() {
        let set = Templates::new(
            ["* * /u/{id}", "* GET /u/{name}", "shop * /u/{who}", "* * /u/{id}/posts", "* * /u/me/{what}", "shop GET /{a}/{b}/{c}"]
                .map(template),
        );
        let cases = [
            (("shop", "GET"), "/u/anna", Some("/u/{who}")),
            (("blog", "GET"), "/u/anna", Some("/u/{name}")),
            (("blog", "PUT"), "/u/anna", Some("/u/{id}")),
            (("blog", "GET"), "/u/anna/posts", Some("/u/{id}/posts")),
            (("blog", "GET"), "/u/me/posts", Some("/u/me/{what}")),
            (("blog", "GET"), "/u/anna/likes", None),
            (("shop", "GET"), "/u/anna/likes", Some("/{a}/{b}/{c}")),
            (("shop", "GET"), "/u/", None),
            (("shop", "GET"), "/u", None),
            (("shop", "GET"), "/", None),
        ];
        for (of, path, expected) in cases {
            assert_eq!(set.find(of, path).map(|found| found.path.as_str()), expected, "{of:?} {path}");
        }
        let less = set.without(&template("shop * /u/{who}"));
        assert_eq!((less.len(), less.find(("shop", "GET"), "/u/anna").unwrap().path.as_str()), (5, "/u/{name}"));
        assert_eq!(less.with(template("shop * /u/{who}")), set);
        assert_eq!(Templates::default().find(("shop", "GET"), "/u/anna"), None);
    }

    #[test]
    fn what_is_no_template_is_refused_with_what_is_allowed() {
        let cases = [
            ("users/{id}", "no path"),
            ("/users/{id}?x", "no path"),
            ("/users /{id}", "no path"),
            ("/users", "no variable"),
            ("/users//{id}", "empty segment"),
            ("/users/{id}/", "empty segment"),
            ("/a/b/c/d/e/f/g/h/{id}", "too long"),
            ("/users/x{id}", "neither"),
            ("/users/{}", "neither"),
            ("/users/*", "neither"),
        ];
        for (path, part) in cases {
            let error = Template::new("", "", path).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("allowed"), "{path}: {error}");
        }
        assert!(Template::new("", "GE T", "/u/{id}").unwrap_err().to_string().contains("method `GE T`"));
        assert_eq!(Template::new("", "get", "/u/{id}").unwrap().id(), "* GET /u/{id}");
    }
}
