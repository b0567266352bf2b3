//! What one decision is made with: policy, models and overrides as one immutable snapshot with its epoch, and the endpoint templates
//! that came by record.
//!
//! A change makes a new snapshot; nothing is ever changed in place, so a verdict cannot mix versions.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use telltale_features::schema::{Schema, Templates};
use telltale_features::store::Sequence;
use telltale_features::yaml::Problems;
use telltale_models::{Bundle, CalibrationTable, Loader, ModelState, half_space};
use telltale_policy::{Mode, Overrides, Policy};
use telltale_proto::journal::v1::{Changed, DecisionChanged, TemplateChanged, journal_record::Kind};
use telltale_proto::v1;

use crate::convert::{self, ConvertError};

/// The snapshot in force.
#[derive(Clone)]
pub struct InForce {
    /// Rules.
    pub policy: Arc<Policy>,
    /// Where the rules came from: journalled with every change.
    pub source: Arc<PolicySource>,
    /// Models.
    pub bundle: Arc<Bundle>,
    /// What loads them; `None` without a repository.
    pub loader: Option<Arc<Loader>>,
    /// What people ruled.
    pub overrides: Arc<Overrides>,
    /// Endpoint templates beside the configured ones. The door uses them; decisions do not look at them.
    pub templates: Arc<Templates>,
    /// Sequence of the change that put it in force; 0 at the start.
    pub epoch: Sequence,
    /// What verdicts say of it.
    pub versions: Arc<v1::Versions>,
}

impl InForce {
    /// A first snapshot without overrides.
    pub fn new(policy: Policy, source: PolicySource, bundle: Bundle, schema: &Schema) -> Self {
        let mut force = Self {
            policy: Arc::new(policy),
            source: Arc::new(source),
            bundle: Arc::new(bundle),
            loader: None,
            overrides: Arc::new(Overrides::default()),
            templates: Arc::default(),
            epoch: Sequence(0),
            versions: Arc::default(),
        };
        force.versions = Arc::new(force.describe(schema.digest()));
        force
    }

    /// Warns of models that the policy weighs or asks a condition of and that are not loaded: perhaps a name is misspelt. One that failed
    /// to load was told of before. Returns how many there are.
    pub fn warn_of_unknown_models(&self) -> usize {
        let is_known = |model: &str| {
            let failed = self.bundle.failures().iter().any(|failure| &*failure.model == model);
            failed || self.bundle.states().any(|(name, _)| name == model)
        };
        let unknown: BTreeSet<&str> = self.policy.named_models().filter(|model| !is_known(model)).collect();
        for model in &unknown {
            tracing::warn!(model, "the risk section of the policy names a model that is not loaded");
        }
        unknown.len()
    }

    /// The same with what loads its models.
    #[must_use]
    pub fn with_loader(mut self, loader: Option<Arc<Loader>>) -> Self {
        self.loader = loader;
        self
    }

    /// The same with another policy.
    #[must_use]
    pub fn with_policy(&self, policy: Arc<Policy>, source: Arc<PolicySource>) -> Self {
        self.changed(|force| {
            force.policy = policy;
            force.source = source;
        })
    }

    /// The same with other models or calibrations.
    #[must_use]
    pub fn with_bundle(&self, bundle: Bundle) -> Self {
        self.changed(|force| force.bundle = Arc::new(bundle))
    }

    /// The same with other overrides.
    #[must_use]
    pub fn with_overrides(&self, overrides: Overrides) -> Self {
        self.changed(|force| force.overrides = Arc::new(overrides))
    }

    /// The same with other endpoint templates.
    #[must_use]
    pub fn with_templates(&self, templates: Templates) -> Self {
        self.changed(|force| force.templates = Arc::new(templates))
    }

    fn changed(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut force = self.clone();
        change(&mut force);
        force.versions = Arc::new(force.describe(&self.versions.schema));
        force
    }

    fn describe(&self, schema: &str) -> v1::Versions {
        v1::Versions {
            schema: schema.to_owned(),
            policy: self.policy.digest().to_owned(),
            models: Vec::new(),
            telltale: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// The text that a policy is compiled from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicySource {
    /// The global mode, where it is set: `monitor`, `enforce` or `off`.
    pub mode: Option<String>,
    /// Name and text of each file; none: the pack that is built in.
    pub files: Vec<(String, String)>,
}

/// Why a policy could not be read.
#[derive(Debug, thiserror::Error)]
pub enum PolicySourceError {
    /// A file could not be read.
    #[error("cannot read the policy `{}`: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A mode that does not exist.
    #[error("policy mode `{0}` does not exist; allowed: off, monitor, enforce")]
    Mode(String),
    /// Its content is wrong.
    #[error(transparent)]
    Policy(#[from] Problems),
}

impl PolicySource {
    /// The files of a folder (`*.yaml`, `*.yml`, in name order), one file, or the built-in pack.
    ///
    /// # Errors
    /// When a path cannot be read.
    pub fn read(path: Option<&Path>, mode: Option<&str>) -> Result<Self, PolicySourceError> {
        let mode = mode.map(str::to_owned);
        let Some(path) = path else { return Ok(Self { mode, files: Vec::new() }) };
        let at = |source| PolicySourceError::Read { path: path.to_path_buf(), source };
        let files = yaml_files(path).map_err(at)?;
        if files.is_empty() {
            return Err(at(std::io::Error::new(std::io::ErrorKind::NotFound, "no `*.yaml` file in it")));
        }
        Ok(Self { mode, files })
    }

    /// Compiles it.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn compile(&self, schema: &Schema) -> Result<Policy, PolicySourceError> {
        let policy = match self.files.as_slice() {
            [] => Policy::shipped(schema)?,
            files => Policy::from_sources(files, schema)?,
        };
        Ok(match self.mode.as_deref() {
            None => policy,
            Some("off") => policy.with_mode(Mode::Off),
            Some("monitor") => policy.with_mode(Mode::Monitor),
            Some("enforce") => policy.with_mode(Mode::Enforce),
            Some(other) => return Err(PolicySourceError::Mode(other.to_owned())),
        })
    }
}

/// Name and text of the YAML files at a path, in name order.
///
/// # Errors
/// When something cannot be read.
pub fn yaml_files(path: &Path) -> std::io::Result<Vec<(String, String)>> {
    if !path.is_dir() {
        return Ok(vec![(path.display().to_string(), std::fs::read_to_string(path)?)]);
    }
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            paths.push(path);
        }
    }
    paths.sort();
    paths.into_iter().map(|path| Ok((path.display().to_string(), std::fs::read_to_string(&path)?))).collect()
}

/// A calibration table as it is journalled.
pub fn table_json(table: &CalibrationTable) -> Vec<u8> {
    table.to_json().into_bytes()
}

/// The record of a policy that comes into force.
pub fn policy_record(policy: &Policy, source: &PolicySource, author: &str) -> Kind {
    Kind::Changed(Changed {
        what: "policy".to_owned(),
        name: source.files.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", "),
        digest: policy.digest().to_owned(),
        content: serde_json::to_vec(source).unwrap_or_default().into(),
        author: author.to_owned(),
    })
}

/// The record of a model whose versions change their parts.
pub fn model_record(model: &str, state: &ModelState, author: &str) -> Kind {
    Kind::Changed(Changed {
        what: "model".to_owned(),
        name: model.to_owned(),
        digest: state.digest(),
        content: state.to_json().into(),
        author: author.to_owned(),
    })
}

/// The record of a version's calibration.
pub fn calibration_record(model: &str, version: u32, table: &CalibrationTable, author: &str) -> Kind {
    Kind::Changed(Changed {
        what: "calibration".to_owned(),
        name: format!("{model}:{version}"),
        digest: table.digest(),
        content: table_json(table).into(),
        author: author.to_owned(),
    })
}

/// The record of an online version's profile.
pub fn profile_record(model: &str, version: u32, profile: &[u8], author: &str) -> Kind {
    Kind::Changed(Changed {
        what: "profile".to_owned(),
        name: format!("{model}:{version}"),
        digest: half_space::digest(profile),
        content: profile.to_vec().into(),
        author: author.to_owned(),
    })
}

/// Repeats a recorded change; `None` when it changes nothing here.
///
/// # Errors
/// Why it cannot be repeated, in words.
pub fn apply_change(force: &InForce, change: &Changed, schema: &Schema) -> Result<Option<InForce>, String> {
    match change.what.as_str() {
        "policy" => {
            let source: PolicySource = serde_json::from_slice(&change.content).map_err(|error| error.to_string())?;
            let policy = source.compile(schema).map_err(|error| error.to_string())?;
            if policy.digest() != change.digest {
                return Err(format!("its digest was {}, compiled here it is {}", change.digest, policy.digest()));
            }
            Ok(Some(force.with_policy(Arc::new(policy), Arc::new(source))))
        }
        "calibration" => {
            let (model, version) = model_and_version(change)?;
            let table = table_from_json(&change.content)?;
            let bundle = force.bundle.with_calibration(model, version, table).map_err(|error| error.to_string())?;
            Ok(Some(force.with_bundle(bundle)))
        }
        "profile" => {
            let (model, version) = model_and_version(change)?;
            if half_space::digest(&change.content) != change.digest {
                return Err(format!("its digest was {}, that of its content is another", change.digest));
            }
            let bundle = force.bundle.with_profile(model, version, change.content.to_vec().into()).map_err(|error| error.to_string())?;
            Ok(Some(force.with_bundle(bundle)))
        }
        "model" => {
            let loader = force.loader.as_ref().ok_or("there is no model repository here")?;
            let state = ModelState::from_json(&change.content).map_err(|error| error.to_string())?;
            if force.bundle.states().any(|(model, known)| model == change.name && *known == state) {
                return Ok(None);
            }
            let bundle = loader.apply(&force.bundle, &change.name, &state).map_err(|error| error.to_string())?;
            Ok(Some(force.with_bundle(bundle)))
        }
        "schema" if change.digest != schema.digest() => {
            Err(format!("its digest was {}, the schema here has {}", change.digest, schema.digest()))
        }
        _ => Ok(None),
    }
}

fn model_and_version(change: &Changed) -> Result<(&str, u32), String> {
    let (model, version) = change.name.split_once(':').ok_or_else(|| format!("`{}` is no `model:version`", change.name))?;
    Ok((model, version.parse().map_err(|_| format!("`{version}` is no version"))?))
}

fn table_from_json(content: &[u8]) -> Result<CalibrationTable, String> {
    let text = std::str::from_utf8(content).map_err(|error| error.to_string())?;
    CalibrationTable::from_json(text).map_err(|error| error.to_string())
}

/// Overrides after a recorded change of one; denials by rules are no overrides and change nothing.
///
/// # Errors
/// When the record is damaged or names an entity type that the schema does not have.
pub fn override_change(overrides: &Overrides, change: &DecisionChanged, schema: &Schema) -> Result<Overrides, ConvertError> {
    let Some(decision) = &change.decision else { return Ok(overrides.clone()) };
    if decision.origin != v1::DecisionOrigin::Override as i32 {
        return Ok(overrides.clone());
    }
    let ruling = convert::override_from_proto(decision, schema)?;
    Ok(if change.removed { overrides.without(ruling.entity) } else { overrides.with(ruling) })
}

/// Templates after a recorded change of one.
///
/// # Errors
/// When the record is damaged.
pub fn template_change(templates: &Templates, change: &TemplateChanged) -> Result<Templates, ConvertError> {
    let wire = change.template.clone().unwrap_or_default();
    let template = convert::template_from_proto(&wire, "template")?;
    let in_force = wire.state() == v1::TemplateState::InForce;
    Ok(if in_force { templates.with(template) } else { templates.without(&template) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_that_only_the_policy_knows_are_counted_once() {
        let schema = Schema::shipped();
        let risk = "risk:\n  alert: 40\n  probability: [[0.0, 0]]\n  p_value: [[0.0, 60]]\n";
        let named = "  weights: {abuse: 0.5}\n  models: {abuse: {when: 'true'}, unusal: {when: 'true'}}\n";
        let unknown = |text: String| {
            let source = PolicySource { mode: None, files: vec![("test.yaml".to_owned(), text)] };
            let policy = source.compile(&schema).unwrap();
            InForce::new(policy, source, Bundle::none(), &schema).warn_of_unknown_models()
        };
        assert_eq!((unknown(format!("{risk}{named}")), unknown(risk.to_owned())), (2, 0));
    }
}
