//! From YAML to a schema: names resolved, filters compiled, plans laid out, everything wrong said at once.

use super::layout::{Layout, Source};
use super::names::closest;
use super::routes::Routes;
use super::source::RawSchema;
use super::spec::{EntityTypeSpec, FieldSpec, Phase};
use super::{Schema, views};
use crate::entity::EntityType;
use crate::expr::Predicate;
use crate::hash::definition;
use crate::yaml::{Problem, Problems, Text, line, parse};

/// A filter of the schema, evaluated once an event for all plans that use it.
pub(super) struct Filter {
    pub phase: Phase,
    /// Canonical text; empty for every event of the phase.
    pub source: String,
    pub predicate: Option<Predicate>,
}

/// A member of the schema, hashed once an event for all plans that count it.
pub(super) struct Member {
    pub name: String,
    /// Where it is found in each phase.
    pub sources: [Option<Source>; 3],
}

/// A schema while it is being compiled.
pub(super) struct Compiler {
    pub file: String,
    pub problems: Vec<Problem>,
    pub entities: Vec<EntityTypeSpec>,
    pub declared: Vec<FieldSpec>,
    pub layout: Layout,
    pub filters: Vec<Filter>,
    pub members: Vec<Member>,
    pub routes: Routes,
    pub secrets: Secrets,
    pub proofs: Vec<Option<usize>>,
}

/// What is replaced by tokens, beside the places of entities and secret fields.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    /// Header names in lower case.
    pub headers: Vec<String>,
    /// Cookie names.
    pub cookies: Vec<String>,
    /// Whether every cookie is a secret.
    pub all_cookies: bool,
    /// Query parameter names.
    pub query: Vec<String>,
}

pub(super) fn compile(files: &[(String, String)]) -> Result<Schema, Problems> {
    let mut compiler = Compiler {
        file: String::new(),
        problems: Vec::new(),
        entities: Vec::new(),
        declared: Vec::new(),
        layout: Layout::default(),
        filters: Vec::new(),
        members: Vec::new(),
        routes: Routes::default(),
        secrets: Secrets::default(),
        proofs: Vec::new(),
    };
    let mut sources = Vec::new();
    for (file, text) in files {
        match parse(file, text) {
            Ok(raw) => sources.push((file.clone(), raw)),
            Err(problem) => compiler.problems.push(problem),
        }
    }
    compiler.first_pass(&sources);
    compiler.layout = Layout::new(&compiler.declared);
    compiler.proofs(&sources);
    let views = views::compile(&mut compiler, &sources);
    if compiler.entities.is_empty() && compiler.problems.is_empty() {
        compiler.problem(0, "no `entities`: a schema needs at least one entity type".to_owned());
    }
    if !compiler.problems.is_empty() {
        return Err(Problems { problems: compiler.problems });
    }
    let mut digest = definition(&files.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>().join("\n---\n"));
    digest ^= definition(crate::door::CATALOGUE.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(",").as_str());
    Ok(Schema {
        digest: format!("{digest:016x}"),
        entities: compiler.entities,
        declared: compiler.declared,
        features: views.features,
        plans: views.plans.into(),
        inputs: views.inputs,
        own: views.own,
        hidden: views.hidden,
        layout: compiler.layout,
        filters: compiler.filters,
        members: compiler.members,
        routes: compiler.routes,
        secrets: compiler.secrets,
        proofs: compiler.proofs,
    })
}

impl Compiler {
    pub fn problem(&mut self, line: u32, message: String) {
        self.problems.push(Problem { file: self.file.clone(), line, message });
    }

    /// The value, or a problem at that line.
    pub fn checked<T>(&mut self, line: u32, result: Result<T, String>) -> Option<T> {
        result.map_err(|message| self.problem(line, message)).ok()
    }

    fn proofs(&mut self, sources: &[(String, RawSchema)]) {
        for (file, raw) in sources {
            self.file.clone_from(file);
            for entity in &raw.entities {
                let filter = entity.proved_by.as_ref().and_then(|text| self.filter(Some(text), Phase::Outcome));
                self.proofs.push(filter);
            }
        }
    }

    /// The entity type of that name, or a problem.
    pub fn entity_type(&mut self, name: &Text) -> Option<EntityType> {
        if let Some(index) = self.entities.iter().position(|spec| spec.name == name.value) {
            return u8::try_from(index).ok().map(EntityType);
        }
        let known: Vec<String> = self.entities.iter().map(|spec| format!("`{}`", spec.name)).collect();
        let best = closest(&name.value, self.entities.iter().map(|spec| spec.name.as_str()));
        let hint = best.map_or_else(String::new, |best| format!("; did you mean `{best}`?"));
        self.problem(line(name), format!("`{}` is no entity{hint} Declared are {}", name.value, known.join(", ")));
        None
    }

    /// A filter of the schema, compiled once; no text means every event of that phase.
    pub fn filter(&mut self, text: Option<&Text>, phase: Phase) -> Option<usize> {
        let source = text.map_or_else(String::new, |text| canonical(&text.value));
        self.filter_source(&source, text.map_or(0, line), phase)
    }

    pub fn filter_source(&mut self, source: &str, line: u32, phase: Phase) -> Option<usize> {
        if let Some(known) = self.filters.iter().position(|filter| filter.phase == phase && filter.source == source) {
            return Some(known);
        }
        let predicate = match source {
            "" => None,
            source => match Predicate::compile(source, self.layout.scope(phase)) {
                Ok(predicate) => Some(predicate),
                Err(error) => {
                    let message = self.refusal(source, phase).unwrap_or_else(|| format!("filter `{source}`, {error}"));
                    self.problem(line, message);
                    return None;
                }
            },
        };
        self.filters.push(Filter { phase, source: source.to_owned(), predicate });
        Some(self.filters.len() - 1)
    }

    /// Why a filter that a transaction could answer cannot be one of an outcome or a label.
    fn refusal(&self, source: &str, phase: Phase) -> Option<String> {
        if phase == Phase::Request {
            return None;
        }
        let elsewhere = Predicate::compile(source, &self.layout.request).ok()?;
        let scope = self.layout.scope(phase);
        let missing = elsewhere.reads().iter().find(|read| scope.resolve(&read.name).is_none())?;
        Some(self.not_carried(&missing.name, phase))
    }

    /// The message for a name that the phase does not have.
    pub fn not_carried(&self, name: &str, phase: Phase) -> String {
        let allowed: Vec<String> = self.layout.scope(phase).names().map(|(name, _)| format!("`{name}`")).collect();
        format!(
            "`{name}` belongs to the request, and an aggregation of the {} phase sees only what the context token carries: {}. \
             Declare it under `fields` with `carried: true`, or count it in the request phase",
            phase.name(),
            allowed.join(", ")
        )
    }

    /// A member of the schema: an entity type, a text, a number, or `http.target`.
    pub fn member(&mut self, name: &Text, phase: Phase) -> Option<usize> {
        let index = match self.members.iter().position(|member| member.name == name.value) {
            Some(index) => index,
            None => {
                let kind = self.entities.iter().position(|spec| spec.name == name.value).and_then(|index| u8::try_from(index).ok());
                let find = |phase| self.layout.member(&name.value, phase, kind.map(EntityType));
                let sources = [find(Phase::Request), find(Phase::Outcome), find(Phase::Label)];
                self.members.push(Member { name: name.value.clone(), sources });
                self.members.len() - 1
            }
        };
        let sources = self.members.get(index)?.sources;
        match phase_of(&sources, phase) {
            Some(_) => Some(index),
            None if sources.iter().any(Option::is_some) => {
                self.problem(line(name), self.not_carried(&name.value, phase));
                None
            }
            None => {
                let message =
                    self.unknown(&name.value, phase, "can be counted: give an entity type, a text or a number of the transaction");
                self.problem(line(name), message);
                None
            }
        }
    }

    pub fn unknown(&self, name: &str, phase: Phase, why: &str) -> String {
        let scope = self.layout.scope(phase);
        let near: Vec<String> = scope.closest(name, 3).into_iter().map(|name| format!("`{name}`")).collect();
        let entities: Vec<String> = self.entities.iter().map(|spec| format!("`{}`", spec.name)).collect();
        format!("`{name}` is nothing that {why}; closest are {}; entity types are {}", near.join(", "), entities.join(", "))
    }
}

/// The entry of a phase.
pub(super) fn phase_of<T: Copy>(of: &[Option<T>; 3], phase: Phase) -> Option<T> {
    let [request, outcome, label] = of;
    match phase {
        Phase::Request => *request,
        Phase::Outcome => *outcome,
        Phase::Label => *label,
    }
}

/// The text with white space outside quotes brought to single spaces: layout is no definition.
pub(super) fn canonical(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut quote = None;
    let mut gap = false;
    let mut escaped = false;
    for character in source.trim().chars() {
        if quote.is_none() && character.is_whitespace() {
            gap = true;
            continue;
        }
        if std::mem::take(&mut gap) {
            out.push(' ');
        }
        match quote {
            Some(open) if character == open && !escaped => quote = None,
            None if matches!(character, '"' | '\'') => quote = Some(character),
            _ => {}
        }
        escaped = character == '\\' && !escaped;
        out.push(character);
    }
    out
}

/// Whether a name is one of the numbers or flags that a feature of the transaction itself may show.
pub(super) fn shown(layout: &Layout, name: &str) -> Option<(crate::expr::NameKind, usize)> {
    let (kind, place) = layout.request.resolve(name)?;
    matches!(kind, crate::expr::NameKind::Number | crate::expr::NameKind::Flag).then_some((kind, place.into()))
}
