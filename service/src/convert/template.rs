//! Endpoint templates, to and from the wire.

use telltale_features::schema::Template;
use telltale_proto::v1;

use super::ConvertError;

/// A template as the wire has it, in that state.
pub fn template_to_proto(template: &Template, state: v1::TemplateState) -> v1::Template {
    v1::Template {
        service: template.service.clone(),
        method: template.method.clone(),
        path: template.path.clone(),
        state: state.into(),
        ..v1::Template::default()
    }
}

/// The domain's template.
///
/// # Errors
/// When it is none.
pub fn template_from_proto(wire: &v1::Template, at: &str) -> Result<Template, ConvertError> {
    Template::new(&wire.service, &wire.method, &wire.path).map_err(|error| ConvertError::new(at, error.found, error.allowed))
}

/// A state in words.
pub const fn template_state(state: v1::TemplateState) -> &'static str {
    match state {
        v1::TemplateState::InForce => "in force",
        v1::TemplateState::Suggested => "suggested",
        v1::TemplateState::Refused => "refused",
        v1::TemplateState::Unspecified => "unspecified",
    }
}
