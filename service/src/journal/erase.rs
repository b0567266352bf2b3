//! Erasure on request: records that hold an entity's key, or its identifier in clear, give up their content and keep their number.
//!
//! Closed files enter, rewritten ones take their places, each in one rename; a file without such a record is not touched. An identifier is
//! a whole word in any text of a record, plain or as in a URL: it is better to erase a record too many than one too few. Replay says
//! how many records were erased and claims nothing about what they held. The file that is being written is never touched: rotate first.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;

use memchr::memmem::Finder;
use prost::Message;
use telltale_features::file::{self, Readers};
use telltale_features::time::Timestamp;
use telltale_proto::journal::v1::{Erased, JournalRecord, journal_record::Kind};

use super::block::{self, FILE_MAGIC, Found};
use super::reader::files;

/// Identifiers shorter than this are found by their key only: they stand in half of all texts.
const SHORTEST: usize = 5;
/// Fields whose words are the protocol's and not anybody's.
const STRUCTURE: [&str; 6] = ["method", "scheme", "version", "host", "service", "tenant"];

/// What is to be erased.
pub struct Erasure {
    key: Finder<'static>,
    /// The identifier in lower case, and as it stands in a URL where that is something else.
    identifiers: Vec<Finder<'static>>,
}

/// What was erased.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ErasedCount {
    /// Records that gave up their content.
    pub records: u64,
    /// Files that were rewritten.
    pub files: u32,
}

impl Erasure {
    /// An entity by its key and, where it is given, by its identifier, which is looked for as a whole word in all text, in whatever case
    /// it stands, if it has at least five bytes.
    pub fn new(key: &[u8; 16], identifier: Option<&str>) -> Self {
        let identifier = identifier.map(|identifier| identifier.trim().to_ascii_lowercase());
        let identifier = identifier.filter(|identifier| identifier.len() >= SHORTEST);
        let mut forms: Vec<String> = identifier.iter().flat_map(|identifier| [identifier.clone(), in_url(identifier)]).collect();
        forms.dedup();
        let identifiers = forms.iter().map(|form| Finder::new(form).into_owned()).collect();
        Self { key: Finder::new(key).into_owned(), identifiers }
    }

    /// Whether these bytes hold the key or, anywhere, the identifier.
    pub fn is_in(&self, bytes: &[u8]) -> bool {
        self.has_key(bytes) || self.may_name(bytes)
    }

    fn has_key(&self, bytes: &[u8]) -> bool {
        self.key.find(bytes).is_some()
    }

    fn may_name(&self, bytes: &[u8]) -> bool {
        !self.identifiers.is_empty() && {
            let lower = bytes.to_ascii_lowercase();
            self.identifiers.iter().any(|finder| finder.find(&lower).is_some())
        }
    }

    /// Whether a text has the identifier as a whole word.
    pub fn names(&self, text: &str) -> bool {
        let lower = text.to_ascii_lowercase();
        let bytes = lower.as_bytes();
        let border = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_none_or(|byte| !byte.is_ascii_alphanumeric());
        let whole = |finder: &Finder<'_>, at: usize| border(at.checked_sub(1)) && border(Some(at + finder.needle().len()));
        self.identifiers.iter().any(|finder| finder.find_iter(bytes).any(|at| whole(finder, at)))
    }

    /// Whether a record is to be emptied. What is in force is looked through for the key only: a policy that has the word must not go.
    fn concerns(&self, record: &JournalRecord) -> bool {
        let bytes = record.encode_to_vec();
        match &record.kind {
            Some(Kind::Forgotten(_) | Kind::Erased(_) | Kind::Gap(_)) | None => false,
            _ if self.has_key(&bytes) => true,
            Some(Kind::Changed(_)) => false,
            // Most records end here: only of what may hold it every text is looked at.
            Some(_) => self.may_name(&bytes) && serde_json::to_value(record).map_or(true, |json| self.stands_in(&json)),
        }
    }

    fn stands_in(&self, value: &serde_json::Value) -> bool {
        match value {
            serde_json::Value::String(text) => self.names(text),
            serde_json::Value::Array(values) => values.iter().any(|value| self.stands_in(value)),
            serde_json::Value::Object(fields) => {
                let said = fields.iter().filter(|(field, _)| !STRUCTURE.contains(&field.as_str()));
                said.into_iter().any(|(_, value)| self.stands_in(value))
            }
            _ => false,
        }
    }

    /// Text without the identifier; `None` when it is not in there.
    pub fn without(&self, text: &str) -> Option<String> {
        let lower = text.to_ascii_lowercase();
        let found = |finder: &Finder<'_>| finder.find_iter(lower.as_bytes()).map(|at| (at, finder.needle().len())).collect::<Vec<_>>();
        let mut places: Vec<(usize, usize)> = self.identifiers.iter().flat_map(found).collect();
        places.sort_unstable();
        let (mut rest, mut kept) = (0, String::new());
        for (at, length) in places {
            if at >= rest {
                kept.push_str(text.get(rest..at)?);
                kept.push_str("[forgotten]");
                rest = at + length;
            }
        }
        (rest > 0).then(|| kept + text.get(rest..).unwrap_or_default())
    }
}

/// As it stands in a URL: RFC 3986, all but unreserved characters escaped; in lower case.
fn in_url(identifier: &str) -> String {
    let escaped = |byte: u8| match byte {
        b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02x}"),
    };
    identifier.bytes().map(escaped).collect()
}

/// Erases from every file whose number is below `end` what was recorded up to `until`; `progress` is told of each file that was looked at.
///
/// # Errors
/// When a file cannot be read or written; those before it are done.
pub fn erase(folder: &Path, (end, until): (u64, Timestamp), erasure: &Erasure, mut progress: impl FnMut(u64)) -> io::Result<ErasedCount> {
    let mut count = ErasedCount::default();
    if !folder.is_dir() {
        return Ok(count);
    }
    for (number, path) in files(folder)?.into_iter().filter(|(number, _)| *number < end) {
        let erased = match rewrite(&path, until, erasure) {
            // The oldest files go by themselves.
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            erased => erased?,
        };
        count.records += erased;
        count.files += u32::from(erased > 0);
        progress(number);
    }
    Ok(count)
}

/// Writes a file anew beside itself and takes its place. A damaged tail is left out: nobody can tell what it holds.
fn rewrite(path: &Path, until: Timestamp, erasure: &Erasure) -> io::Result<u64> {
    let mut file = BufReader::with_capacity(1 << 20, File::open(path)?);
    let mut magic = [0; FILE_MAGIC.len()];
    if io::Read::read_exact(&mut file, &mut magic).is_err() || magic != *FILE_MAGIC {
        return Ok(0);
    }
    let mut erased = 0;
    let mut content = FILE_MAGIC.to_vec();
    loop {
        match block::read(&mut file)? {
            Found::End => break,
            Found::Damaged(what) => {
                tracing::warn!(path = %path.display(), %what, "what follows in this journal file is erased: it cannot be read");
                erased += 1;
                break;
            }
            Found::Records(mut records) => {
                for record in &mut records {
                    // What they did since is somebody new's.
                    if record.now_us <= until.micros() && erasure.concerns(record) {
                        record.kind = Some(Kind::Erased(Erased {}));
                        erased += 1;
                    }
                }
                content.extend_from_slice(&block::encode(&records)?);
            }
        }
    }
    if erased > 0 {
        file::replace(path, &content, Readers::Owner)?;
    }
    Ok(erased)
}

#[cfg(test)]
mod tests {
    use super::*;
    use telltale_proto::journal::v1::{Changed, Observed, TemplateChanged};
    use telltale_proto::v1::{HttpRequest, Template, Transaction};

    fn observed(path: &str, method: &str) -> JournalRecord {
        let http = HttpRequest { path: path.to_owned(), method: method.to_owned(), ..Default::default() };
        let transaction = Some(Transaction { http: Some(http), ..Default::default() });
        JournalRecord { sequence: 1, now_us: 1, kind: Some(Kind::Observed(Observed { transaction, ..Default::default() })) }
    }

    #[test]
    fn whole_words_are_found_in_every_form_and_parts_of_others_are_not() {
        let erasure = Erasure::new(&[7; 16], Some("Anna.K@example.org"));
        for path in ["/u/anna.k@example.org", "/u/ANNA.K@EXAMPLE.ORG/x", "/u?m=anna.k%40example.org", "anna.k@example.org"] {
            assert!(erasure.concerns(&observed(path, "GET")), "{path}");
        }
        for path in ["/u/hanna.k@example.org", "/u/anna.k@example.organic", "/u/bert"] {
            assert!(!erasure.concerns(&observed(path, "GET")), "{path}");
        }
        // A word of the protocol is nobody's; a policy stays whatever words are in it, unless it has the key.
        let options = Erasure::new(&[7; 16], Some("options"));
        assert!(!options.concerns(&observed("/", "OPTIONS")));
        let changed = |content: &[u8]| {
            let changed = Changed { what: "policy".to_owned(), content: content.to_vec().into(), ..Default::default() };
            JournalRecord { sequence: 0, now_us: 0, kind: Some(Kind::Changed(changed)) }
        };
        assert!(!options.concerns(&changed(b"the options of a rule")));
        assert!(options.concerns(&changed(&[7; 16])));
        // An endpoint template is made of paths, and may name somebody.
        let template = |path: &str| {
            let template = Some(Template { path: path.to_owned(), ..Default::default() });
            JournalRecord { sequence: 1, now_us: 1, kind: Some(Kind::Template(TemplateChanged { template })) }
        };
        assert!(erasure.concerns(&template("/u/anna.k@example.org/{id}")) && !erasure.concerns(&template("/u/{id}")));
        // Too short a word would empty half of everything.
        assert!(!Erasure::new(&[7; 16], Some("post")).is_in(b"post"));
        assert_eq!(erasure.without("Anna.K@example.org, twice anna.k%40example.org").as_deref(), Some("[forgotten], twice [forgotten]"));
        assert_eq!(erasure.without("nobody"), None);
    }
}
