//! The table of templates: what stands, saved and bounded, and what is suggested.
//!
//! Changes enter, lists and a file leave. What is in force by it is put there elsewhere.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::{Mutex, MutexGuard};
use telltale_features::file::{self, Readers};
use telltale_features::schema::Templates as InForce;
use telltale_proto::json;
use telltale_proto::v1::{self, TemplateState};

use super::lessons::Lessons;
use crate::config::EndpointsSection;
use crate::convert;

/// Most templates in force, whoever put them so.
pub(super) const MOST: usize = 1_000;
/// Most refused ones; beyond, the oldest goes and may be suggested again.
const REFUSED: usize = 1_000;
/// Most suggestions; beyond, a new one has to wait.
const SUGGESTIONS: usize = 256;

/// The table.
pub struct Templates {
    /// What traffic teaches.
    pub lessons: Lessons,
    file: PathBuf,
    inner: Mutex<Inner>,
    changing: Mutex<()>,
}

/// Held by who changes what stands, one at a time: bounds are looked at under it, and the last change is the one that is saved.
pub(super) struct Changing<'a> {
    _turn: MutexGuard<'a, ()>,
}

#[derive(Default)]
struct Inner {
    /// In force and refused, by [`Template::id`](telltale_features::schema::Template::id).
    standing: BTreeMap<String, v1::Template>,
    suggested: BTreeMap<String, v1::Template>,
}

impl Templates {
    /// The table saved in the data directory, or an empty one.
    ///
    /// # Errors
    /// When the file cannot be read or a line of it is no template.
    pub fn open(data: &Path, section: &EndpointsSection) -> io::Result<Self> {
        let file = data.join("templates.ndjson");
        let text = match std::fs::read_to_string(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            text => text?,
        };
        let mut inner = Inner::default();
        for (at, line) in text.lines().enumerate() {
            let wrong = |problem: String| io::Error::new(io::ErrorKind::InvalidData, format!("{}:{}: {problem}", file.display(), at + 1));
            let (wire, _): (v1::Template, _) = json::parse(line, json::Unknown::Report).map_err(|error| wrong(error.to_string()))?;
            let template = convert::template_from_proto(&wire, "template").map_err(|error| wrong(error.to_string()))?;
            inner.standing.insert(template.id(), wire);
        }
        Ok(Self { lessons: Lessons::new(section), file, inner: Mutex::new(inner), changing: Mutex::new(()) })
    }

    /// Those that are to be in force.
    pub fn in_force(&self) -> InForce {
        let inner = self.inner.lock();
        let standing = inner.standing.values().filter(|wire| is_in_force(wire));
        InForce::new(standing.filter_map(|wire| convert::template_from_proto(wire, "template").ok()))
    }

    /// All of them: in force, suggested, refused.
    pub fn list(&self) -> Vec<v1::Template> {
        let inner = self.inner.lock();
        let of = |in_force: bool| inner.standing.values().filter(move |wire| is_in_force(wire) == in_force);
        of(true).chain(inner.suggested.values()).chain(of(false)).cloned().collect()
    }

    /// How many are in force, suggested and refused.
    pub fn counts(&self) -> [(&'static str, usize); 3] {
        let inner = self.inner.lock();
        let in_force = inner.in_force();
        [("in_force", in_force), ("suggested", inner.suggested.len()), ("refused", inner.standing.len() - in_force)]
    }

    /// Those that stand, by their identifiers.
    pub(super) fn standing(&self) -> BTreeMap<String, v1::Template> {
        self.inner.lock().standing.clone()
    }

    /// The turn to change what stands.
    pub(super) fn change(&self) -> Changing<'_> {
        Changing { _turn: self.changing.lock() }
    }

    /// The one of that identifier that stands.
    pub(super) fn find(&self, id: &str) -> Option<v1::Template> {
        self.inner.lock().standing.get(id).cloned()
    }

    /// Whether one stands or is suggested.
    pub(super) fn knows(&self, id: &str) -> bool {
        let inner = self.inner.lock();
        inner.standing.contains_key(id) || inner.suggested.contains_key(id)
    }

    /// Whether that one may come into force: it is already, or there is room.
    pub(super) fn has_room(&self, id: &str, _: &Changing<'_>) -> bool {
        let inner = self.inner.lock();
        inner.standing.get(id).is_some_and(is_in_force) || inner.in_force() < MOST
    }

    /// Lets those stand, or drops them, and saves the table before it returns.
    pub(super) fn set(&self, changes: impl IntoIterator<Item = (String, Option<v1::Template>)>, _: &Changing<'_>) -> io::Result<()> {
        let content = {
            let mut inner = self.inner.lock();
            for (id, wire) in changes {
                inner.suggested.remove(&id);
                match wire {
                    Some(wire) => inner.standing.insert(id, wire),
                    None => inner.standing.remove(&id),
                };
            }
            inner.drop_oldest_refused();
            let lines: Result<Vec<String>, _> = inner.standing.values().map(json::write).collect();
            lines.map_err(io::Error::other)?.iter().map(|line| format!("{line}\n")).collect::<String>()
        };
        file::replace(&self.file, content.as_bytes(), Readers::Umask)
    }

    /// Suggests one; false when there is no room for it.
    pub(super) fn suggest(&self, id: String, wire: v1::Template) -> bool {
        let mut inner = self.inner.lock();
        let has_room = inner.suggested.len() < SUGGESTIONS || inner.suggested.contains_key(&id);
        if has_room {
            inner.suggested.insert(id, wire);
        }
        has_room
    }

    /// Drops the suggestions that are so.
    pub(super) fn withdraw(&self, is_so: impl Fn(&v1::Template) -> bool) {
        self.inner.lock().suggested.retain(|_, wire| !is_so(wire));
    }
}

impl Inner {
    fn in_force(&self) -> usize {
        self.standing.values().filter(|wire| is_in_force(wire)).count()
    }

    fn drop_oldest_refused(&mut self) {
        let refused = self.standing.iter().filter(|(_, wire)| !is_in_force(wire));
        let mut refused: Vec<(i64, String)> = refused.map(|(id, wire)| (changed_us(wire), id.clone())).collect();
        let over = refused.len().saturating_sub(REFUSED);
        refused.sort_unstable();
        for (_, id) in refused.into_iter().take(over) {
            self.standing.remove(&id);
        }
    }
}

fn is_in_force(wire: &v1::Template) -> bool {
    wire.state() == TemplateState::InForce
}

/// When it came to stand so, microseconds since 1970.
pub(super) fn changed_us(wire: &v1::Template) -> i64 {
    wire.changed.as_ref().map_or(0, |at| at.seconds.saturating_mul(1_000_000).saturating_add(i64::from(at.nanos) / 1_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(folder: &Path) -> Templates {
        Templates::open(folder, &EndpointsSection::default()).unwrap()
    }

    fn template(number: usize, state: TemplateState) -> (String, v1::Template) {
        let path = format!("/p{number}/{{id}}");
        let changed = Some(pbjson_types::Timestamp { seconds: i64::try_from(number).unwrap(), nanos: 0 });
        (format!("* * {path}"), v1::Template { path, state: state.into(), changed, ..v1::Template::default() })
    }

    fn some((id, wire): (String, v1::Template)) -> (String, Option<v1::Template>) {
        (id, Some(wire))
    }

    #[test]
    fn refused_ones_take_no_room_and_the_oldest_of_them_go() {
        let folder = tempfile::tempdir().unwrap();
        let table = table(folder.path());
        let turn = table.change();
        table.set((0..MOST).map(|number| some(template(number, TemplateState::InForce))), &turn).unwrap();
        let (another, known) = (template(MOST, TemplateState::InForce).0, template(7, TemplateState::InForce).0);
        assert!(!table.has_room(&another, &turn) && table.has_room(&known, &turn));
        // A full table is free again once its templates are refused, however many were refused before.
        table.set((0..MOST).map(|number| some(template(number, TemplateState::Refused))), &turn).unwrap();
        assert!(table.has_room(&another, &turn));
        table.set((MOST..MOST + 3).map(|number| some(template(number, TemplateState::Refused))), &turn).unwrap();
        let oldest = (0..4).map(|number| table.find(&template(number, TemplateState::Refused).0).is_some()).collect::<Vec<_>>();
        assert_eq!((oldest, table.counts()[2]), (vec![false, false, false, true], ("refused", REFUSED)));
        let saved = Templates::open(folder.path(), &EndpointsSection::default()).unwrap();
        assert_eq!(saved.standing(), table.standing());
    }

    #[test]
    fn a_suggestion_beyond_the_most_has_to_wait() {
        let folder = tempfile::tempdir().unwrap();
        let table = table(folder.path());
        let suggest = |number: usize| {
            let (id, wire) = template(number, TemplateState::Suggested);
            table.suggest(id, wire)
        };
        assert!((0..SUGGESTIONS).all(suggest));
        assert!(!suggest(SUGGESTIONS) && suggest(0));
        assert!(table.knows(&template(0, TemplateState::Suggested).0));
        let turn = table.change();
        table.set([some(template(0, TemplateState::Refused))], &turn).unwrap();
        assert!(suggest(SUGGESTIONS));
    }
}
