//! Endpoint templates beside the configured ones: in force or refused by record, saved, shared; suggested by what was learned here.
//!
//! Requests of operators and proposals of the learner enter; records, files and lists leave. A template takes effect as an override
//! does: put in force with its record, saved, audited, and shared with the other replicas.

mod learner;
mod lessons;
mod table;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use telltale_features::schema::{Template, Templates as InForce};
use telltale_features::time::Timestamp;
use telltale_policy::Policy;
use telltale_proto::journal::v1::{TemplateChanged, journal_record::Kind};
use telltale_proto::json;
use telltale_proto::v1::{self, TemplateState};

use super::Service;
use super::access::{Caller, Role};
use super::audit::Change;
use super::errors::CallError;
use super::overrides::REASON_BYTES;
use super::sharing::Shared;
use crate::convert;
use crate::journal::Erasure;
use crate::score::Engine;

use learner::Proposal;
pub use lessons::start;
pub use table::Templates;
use table::{Changing, MOST, changed_us};

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

/// Puts a template in force.
///
/// # Errors
/// When it is none, there are too many, or the table cannot be saved.
pub fn add(service: &Service, caller: &Caller, request: v1::AddTemplateRequest) -> Result<v1::Template, CallError> {
    let template = asked_for(request.template.as_ref(), &request.reason)?;
    let turn = service.templates.change();
    if !service.templates.has_room(&template.id(), &turn) {
        let text = format!("{MOST} templates are in force, which is all that is allowed; remove some or configure them");
        return Err(CallError::Override(text));
    }
    stand(service, &template, (TemplateState::InForce, caller, &request.reason), &turn)
}

/// Takes a template out of force, or refuses a suggested one.
///
/// # Errors
/// When it is none, or the table cannot be saved.
pub fn remove(service: &Service, caller: &Caller, request: v1::RemoveTemplateRequest) -> Result<Option<v1::Template>, CallError> {
    let template = asked_for(request.template.as_ref(), &request.reason)?;
    let turn = service.templates.change();
    if !service.templates.knows(&template.id()) {
        return Ok(None);
    }
    stand(service, &template, (TemplateState::Refused, caller, &request.reason), &turn).map(Some)
}

/// Drops the templates whose paths name somebody, and their identifier out of the reasons of others. Nothing is journalled: the record
/// would name them, and those before give up their content.
///
/// # Errors
/// When the table cannot be saved.
pub(super) fn forget(service: &Service, erasure: &Erasure) -> io::Result<()> {
    let turn = service.templates.change();
    service.templates.withdraw(|wire| erasure.names(&wire.path));
    let (mut changes, mut gone) = (Vec::new(), Vec::new());
    for (id, wire) in service.templates.standing() {
        if erasure.names(&wire.path) {
            gone.extend(convert::template_from_proto(&wire, "template"));
            changes.push((id, None));
        } else if let Some(reason) = erasure.without(&wire.reason) {
            changes.push((id, Some(v1::Template { reason, ..wire })));
        }
    }
    if changes.is_empty() {
        return Ok(());
    }
    service.engine.change_all(service.engine.live(), |force, _| {
        let left = force.templates.iter().filter(|template| !gone.contains(template)).cloned();
        Some((force.with_templates(InForce::new(left)), Vec::new()))
    });
    service.templates.set(changes, &turn)
}

fn asked_for(wire: Option<&v1::Template>, reason: &str) -> Result<Template, CallError> {
    if reason.len() > REASON_BYTES {
        return Err(CallError::Override(format!("`reason` is {} bytes long; allowed: at most {REASON_BYTES}", reason.len())));
    }
    Ok(convert::template_from_proto(wire.ok_or(CallError::Empty("template"))?, "template")?)
}

/// Lets a template stand so from now on. In this order, so that what is answered holds: in force and journalled, audited, saved.
fn stand(
    service: &Service,
    template: &Template,
    (state, caller, reason): (TemplateState, &Caller, &str),
    turn: &Changing<'_>,
) -> Result<v1::Template, CallError> {
    let now = service.engine.clock().now();
    let wire = v1::Template {
        author: caller.name.to_string(),
        reason: reason.to_owned(),
        changed: Some(convert::timestamp_to_proto(now)),
        ..convert::template_to_proto(template, state)
    };
    put(&service.engine, vec![(template.clone(), wire.clone())]);
    service.audit.write(&Change {
        time_us: now.micros(),
        caller: &caller.name,
        role: caller.role.map_or("any", Role::name),
        what: "template",
        subject: &template.id(),
        detail: &format!("{}: {reason}", convert::template_state(state)),
    });
    service.templates.set([(template.id(), Some(wire.clone()))], turn)?;
    Ok(wire)
}

/// Puts templates in force or out of it, together, and journals each; nothing of those that stand so already.
pub(super) fn put(engine: &Engine, changes: Vec<(Template, v1::Template)>) {
    engine.change_all(engine.live(), |force, _| {
        let mut templates: BTreeSet<Template> = force.templates.iter().cloned().collect();
        let mut records = Vec::new();
        for (template, wire) in changes {
            let wanted = wire.state() == TemplateState::InForce;
            let changes = if wanted { templates.insert(template) } else { templates.remove(&template) };
            if changes {
                records.push(Kind::Template(TemplateChanged { template: Some(wire) }));
            }
        }
        (!records.is_empty()).then(|| (force.with_templates(InForce::new(templates)), records))
    });
}

/// What the learner found: in force, suggested, or known already. False when there was no room for it.
fn learned(service: &Service, proposal: &Proposal) -> bool {
    let Proposal { template, paths, addresses } = proposal;
    let (id, table) = (template.id(), &service.templates);
    let turn = table.change();
    if table.find(&id).is_some() {
        return true;
    }
    let mut reason = format!("{paths} different paths, asked for from {addresses} addresses or more");
    let named = taken_in(&service.engine.in_force().policy, template);
    if table.lessons.learning() == Learning::On && named.is_none() && table.has_room(&id, &turn) {
        tracing::info!(%id, paths, addresses, "an endpoint template was learned");
        let caller = Caller { name: "telltale".into(), role: None };
        if let Err(error) = stand(service, template, (TemplateState::InForce, &caller, &reason), &turn) {
            tracing::error!(%error, %id, "a learned template holds until a restart only");
        }
        return true;
    }
    if let Some(route) = named {
        reason += &format!("; the policy names `{route}`, which would not match any more");
    }
    let suggested = table.suggest(
        id.clone(),
        v1::Template {
            author: "telltale".to_owned(),
            reason,
            changed: Some(convert::timestamp_to_proto(service.engine.clock().now())),
            ..convert::template_to_proto(template, TemplateState::Suggested)
        },
    );
    if suggested {
        tracing::info!(%id, paths, addresses, "an endpoint template is suggested");
    }
    suggested
}

/// The first route that a policy names and paths would no longer have under that template.
fn taken_in(policy: &Policy, template: &Template) -> Option<String> {
    let alone = InForce::new([template.clone()]);
    let of = (template.service.as_str(), template.method.as_str());
    policy.named_routes().find(|route| *route != template.path && alone.find(of, route).is_some()).map(str::to_owned)
}

impl Shared for Templates {
    const TABLE: &'static str = "templates:default";
    const WHAT: &'static str = "endpoint templates";

    fn local(service: &Service, _: Timestamp) -> BTreeMap<String, String> {
        service.templates.standing().into_iter().filter_map(|(id, wire)| Some((id, json::write(&wire).ok()?))).collect()
    }

    fn changed(row: &str) -> i64 {
        read(row).as_ref().map_or(0, changed_us)
    }

    fn has_ended(_: &str, _: Timestamp) -> bool {
        false
    }

    fn leaves_a_trace(_: &str, _: Timestamp) -> bool {
        true
    }

    fn put_in_force(service: &Service, rows: &[(String, Option<String>)]) {
        let turn = service.templates.change();
        let (mut changes, mut kept) = (Vec::new(), Vec::new());
        for (id, text) in rows {
            let wire = text.as_deref().and_then(read);
            let Some(about) = wire.clone().or_else(|| service.templates.find(id)) else { continue };
            match convert::template_from_proto(&about, "template") {
                Ok(template) if template.id() == *id => {
                    let state = if wire.is_some() { about.state() } else { TemplateState::Unspecified };
                    changes.push((template, v1::Template { state: state.into(), ..about }));
                    kept.push((id.clone(), wire));
                }
                Ok(_) | Err(_) => tracing::error!(%id, "a shared template cannot be used"),
            }
        }
        put(&service.engine, changes);
        if let Err(error) = service.templates.set(kept, &turn) {
            tracing::error!(%error, "the endpoint templates could not be saved");
        }
    }
}

fn read(row: &str) -> Option<v1::Template> {
    json::parse(row, json::Unknown::Report).ok().map(|(wire, _)| wire)
}

/// The RPCs.
#[derive(Clone)]
pub struct TemplatesApi(pub Arc<Service>);

impl TemplatesApi {
    /// A change waits for the disk: not on a thread that scores.
    async fn aside<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Service) -> Result<T, CallError> + Send + 'static,
    ) -> Result<T, CallError> {
        let service = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || change(&service)).await.map_err(io::Error::other)?
    }
}

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
        let added = self.aside(move |service| add(service, &caller, request.into_inner())).await;
        let template = added.map_err(|error| self.0.refuse(error))?;
        Ok(tonic::Response::new(v1::AddTemplateResponse { template: Some(template) }))
    }

    async fn remove_template(
        &self,
        request: tonic::Request<v1::RemoveTemplateRequest>,
    ) -> Result<tonic::Response<v1::RemoveTemplateResponse>, tonic::Status> {
        let caller = Caller::of(&request);
        let removed = self.aside(move |service| remove(service, &caller, request.into_inner())).await;
        let template = removed.map_err(|error| self.0.refuse(error))?;
        Ok(tonic::Response::new(v1::RemoveTemplateResponse { template }))
    }
}
