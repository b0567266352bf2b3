//! Endpoint templates beside the configured ones: in force or refused by record, saved, shared; suggested by what was learned here.
//!
//! Requests of operators and proposals of the learner enter; records, files and lists leave. A template takes effect as an override
//! does: put in force with its record, saved, audited, and shared with the other replicas.

mod learner;
mod lessons;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use telltale_features::file::{self, Readers};
use telltale_features::schema::{Template, Templates as InForce};
use telltale_features::time::Timestamp;
use telltale_proto::journal::v1::{TemplateChanged, journal_record::Kind};
use telltale_proto::json;
use telltale_proto::v1::{self, TemplateState};

use super::Service;
use super::access::{Caller, Role};
use super::audit::Change;
use super::errors::CallError;
use super::overrides::REASON_BYTES;
use super::sharing::Shared;
use crate::config::EndpointsSection;
use crate::convert;
use crate::score::Engine;

use learner::Proposal;
pub use lessons::{Lessons, run};

/// Most templates that stand, whoever put them so.
const MOST: usize = 1_000;
/// Most suggestions; beyond, the oldest goes.
const SUGGESTIONS: usize = 256;

/// What becomes of what is learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learning {
    /// Nothing is learned.
    Off,
    /// It is listed.
    Suggest,
    /// It comes into force.
    On,
}

impl Learning {
    /// By its name in the configuration, which was checked.
    fn parse(name: &str) -> Self {
        match name {
            "off" => Self::Off,
            "on" => Self::On,
            _ => Self::Suggest,
        }
    }
}

/// The table.
pub struct Templates {
    /// What traffic teaches.
    pub lessons: Lessons,
    file: PathBuf,
    inner: Mutex<Inner>,
    /// One at a time: the last change must be the one that is saved.
    changing: Mutex<()>,
}

#[derive(Default)]
struct Inner {
    /// In force and refused, by [`Template::id`].
    standing: BTreeMap<String, v1::Template>,
    suggested: Vec<v1::Template>,
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
        let standing = inner.standing.values().filter(|wire| wire.state() == TemplateState::InForce);
        InForce::new(standing.filter_map(|wire| convert::template_from_proto(wire, "template").ok()))
    }

    /// All of them: in force, suggested, refused.
    pub fn list(&self) -> Vec<v1::Template> {
        let inner = self.inner.lock();
        let of = |state: TemplateState| inner.standing.values().filter(move |wire| wire.state() == state);
        of(TemplateState::InForce).chain(&inner.suggested).chain(of(TemplateState::Refused)).cloned().collect()
    }

    /// How many are in force, suggested and refused.
    pub fn counts(&self) -> [(&'static str, usize); 3] {
        let inner = self.inner.lock();
        let in_force = inner.standing.values().filter(|wire| wire.state() == TemplateState::InForce).count();
        [("in_force", in_force), ("suggested", inner.suggested.len()), ("refused", inner.standing.len() - in_force)]
    }

    fn find(&self, id: &str) -> Option<v1::Template> {
        self.inner.lock().standing.get(id).cloned()
    }

    /// Sets or drops the one of that id and saves the table before it returns.
    fn set(&self, id: &str, wire: Option<v1::Template>) -> io::Result<()> {
        let content = {
            let mut inner = self.inner.lock();
            inner.suggested.retain(|suggested| id_of(suggested) != id);
            match wire {
                Some(wire) => inner.standing.insert(id.to_owned(), wire),
                None => inner.standing.remove(id),
            };
            let lines: Result<Vec<String>, _> = inner.standing.values().map(json::write).collect();
            lines.map_err(io::Error::other)?.iter().map(|line| format!("{line}\n")).collect::<String>()
        };
        file::replace(&self.file, content.as_bytes(), Readers::Umask)
    }

    fn suggest(&self, wire: v1::Template) {
        let mut inner = self.inner.lock();
        inner.suggested.retain(|known| id_of(known) != id_of(&wire));
        inner.suggested.push(wire);
        if inner.suggested.len() > SUGGESTIONS {
            inner.suggested.remove(0);
        }
    }

    fn is_full(&self) -> bool {
        self.inner.lock().standing.len() >= MOST
    }
}

fn id_of(wire: &v1::Template) -> String {
    convert::template_from_proto(wire, "template").map(|template| template.id()).unwrap_or_default()
}

/// Puts a template in force.
///
/// # Errors
/// When it is none, there are too many, or the table cannot be saved.
pub fn add(service: &Service, caller: &Caller, request: v1::AddTemplateRequest) -> Result<v1::Template, CallError> {
    let template = asked_for(request.template.as_ref(), &request.reason)?;
    if service.templates.find(&template.id()).is_none() && service.templates.is_full() {
        return Err(CallError::Override(format!("{MOST} templates stand, which is all that is allowed; remove some or configure them")));
    }
    stand(service, &template, (TemplateState::InForce, caller, &request.reason))
}

/// Takes a template out of force, or refuses a suggested one.
///
/// # Errors
/// When it is none, or the table cannot be saved.
pub fn remove(service: &Service, caller: &Caller, request: v1::RemoveTemplateRequest) -> Result<Option<v1::Template>, CallError> {
    let template = asked_for(request.template.as_ref(), &request.reason)?;
    let id = template.id();
    if !service.templates.list().iter().any(|known| id_of(known) == id) {
        return Ok(None);
    }
    stand(service, &template, (TemplateState::Refused, caller, &request.reason)).map(Some)
}

fn asked_for(wire: Option<&v1::Template>, reason: &str) -> Result<Template, CallError> {
    if reason.len() > REASON_BYTES {
        return Err(CallError::Override(format!("`reason` is {} bytes long; allowed: at most {REASON_BYTES}", reason.len())));
    }
    Ok(convert::template_from_proto(wire.ok_or(CallError::Empty("template"))?, "template")?)
}

/// Lets a template stand so from now on. In this order, so that what is answered holds: in force and journalled, audited, saved.
fn stand(service: &Service, template: &Template, how: (TemplateState, &Caller, &str)) -> Result<v1::Template, CallError> {
    let (state, caller, reason) = how;
    let _one_at_a_time = service.templates.changing.lock();
    let now = service.engine.clock().now();
    let wire = v1::Template {
        author: caller.name.to_string(),
        reason: reason.to_owned(),
        changed: Some(convert::timestamp_to_proto(now)),
        ..convert::template_to_proto(template, state)
    };
    put(&service.engine, template, &wire);
    service.audit.write(&Change {
        time_us: now.micros(),
        caller: &caller.name,
        role: caller.role.map_or("any", Role::name),
        what: "template",
        subject: &template.id(),
        detail: &format!("{}: {reason}", state_name(state)),
    });
    service.templates.set(&template.id(), Some(wire.clone()))?;
    Ok(wire)
}

/// Puts a template in force or out of it, and journals that; nothing where it stands so already.
pub(super) fn put(engine: &Engine, template: &Template, wire: &v1::Template) {
    let wanted = wire.state() == TemplateState::InForce;
    engine.change(engine.live(), |force, _| {
        if force.templates.contains(template) == wanted {
            return None;
        }
        let templates = if wanted { force.templates.with(template.clone()) } else { force.templates.without(template) };
        Some((force.with_templates(templates), Kind::Template(TemplateChanged { template: Some(wire.clone()) })))
    });
}

/// What the learner found: in force, suggested, or known already.
fn learned(service: &Service, proposal: Proposal) {
    let Proposal { template, paths, addresses } = proposal;
    let id = template.id();
    if service.templates.find(&id).is_some() {
        return;
    }
    let reason = format!("{paths} different paths, asked for from {addresses} addresses or more");
    tracing::info!(%id, paths, addresses, "an endpoint template was learned");
    if service.templates.lessons.learning() == Learning::On && !service.templates.is_full() {
        let caller = Caller { name: "telltale".into(), role: None };
        if let Err(error) = stand(service, &template, (TemplateState::InForce, &caller, &reason)) {
            tracing::error!(%error, %id, "a learned template holds until a restart only");
        }
        return;
    }
    service.templates.suggest(v1::Template {
        author: "telltale".to_owned(),
        reason,
        changed: Some(convert::timestamp_to_proto(service.engine.clock().now())),
        ..convert::template_to_proto(&template, TemplateState::Suggested)
    });
}

const fn state_name(state: TemplateState) -> &'static str {
    match state {
        TemplateState::InForce => "in force",
        TemplateState::Suggested => "suggested",
        TemplateState::Refused => "refused",
        TemplateState::Unspecified => "unspecified",
    }
}

impl Shared for Templates {
    const TABLE: &'static str = "templates:default";
    const WHAT: &'static str = "endpoint templates";

    fn local(service: &Service, _: Timestamp) -> BTreeMap<String, String> {
        let inner = service.templates.inner.lock();
        inner.standing.iter().filter_map(|(id, wire)| Some((id.clone(), json::write(wire).ok()?))).collect()
    }

    fn has_ended(_: &str, _: Timestamp) -> bool {
        false
    }

    fn leaves_a_trace(_: &str, _: Timestamp) -> bool {
        true
    }

    fn put_in_force(service: &Service, id: &str, text: Option<&str>) {
        let wire = text.and_then(|text| json::parse::<v1::Template>(text, json::Unknown::Report).ok()).map(|(wire, _)| wire);
        let Some(about) = wire.clone().or_else(|| service.templates.find(id)) else { return };
        let _one_at_a_time = service.templates.changing.lock();
        match convert::template_from_proto(&about, "template") {
            Ok(template) if template.id() == id => {
                let state = if wire.is_some() { about.state() } else { TemplateState::Unspecified };
                put(&service.engine, &template, &v1::Template { state: state.into(), ..about });
            }
            Ok(_) | Err(_) => {
                tracing::error!(%id, "a shared template cannot be used");
                return;
            }
        }
        if let Err(error) = service.templates.set(id, wire) {
            tracing::error!(%error, "the endpoint templates could not be saved");
        }
    }
}

/// The RPCs.
#[derive(Clone)]
pub struct TemplatesApi(pub Arc<Service>);

#[tonic::async_trait]
impl v1::templates_server::Templates for TemplatesApi {
    async fn list_templates(
        &self,
        _: tonic::Request<v1::ListTemplatesRequest>,
    ) -> Result<tonic::Response<v1::ListTemplatesResponse>, tonic::Status> {
        Ok(tonic::Response::new(v1::ListTemplatesResponse { templates: self.0.templates.list() }))
    }

    async fn add_template(
        &self,
        request: tonic::Request<v1::AddTemplateRequest>,
    ) -> Result<tonic::Response<v1::AddTemplateResponse>, tonic::Status> {
        let caller = Caller::of(&request);
        let template = add(&self.0, &caller, request.into_inner()).map_err(|error| self.0.refuse(error))?;
        Ok(tonic::Response::new(v1::AddTemplateResponse { template: Some(template) }))
    }

    async fn remove_template(
        &self,
        request: tonic::Request<v1::RemoveTemplateRequest>,
    ) -> Result<tonic::Response<v1::RemoveTemplateResponse>, tonic::Status> {
        let caller = Caller::of(&request);
        let template = remove(&self.0, &caller, request.into_inner()).map_err(|error| self.0.refuse(error))?;
        Ok(tonic::Response::new(v1::RemoveTemplateResponse { template }))
    }
}
