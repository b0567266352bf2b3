//! Commands on a repository's folder. A running scorer that serves it follows within a second.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use telltale_models::Repository;
use telltale_models::intake::draft;
use telltale_models::repository::{AuditLine, Author, Draft, ModelPolicy, Origin, Step};
use telltale_models::trust::Signature;

use super::{Change, ConfigArgs, Shape, keys};
use crate::error::CommandError;
use crate::setup::{self, SystemClock};

/// Kind, origin, number of inputs and description of a version, or what is wrong with its manifest.
type About = Result<(&'static str, &'static str, usize, String), String>;

/// Models with their versions and the one in force.
pub fn list(config: &ConfigArgs, shape: Shape) -> Result<(), CommandError> {
    let (_, path) = repository(config)?;
    let repository = Repository::open(&path).map_err(CommandError::usage)?;
    let mut rows: Vec<(String, Vec<u32>, Option<u32>, String)> = Vec::new();
    for model in repository.models().map_err(CommandError::failed)? {
        let versions = repository.versions(&model).map_err(CommandError::failed)?;
        let champion = repository.policy(&model).map_err(CommandError::failed)?.aliases.champion;
        let manifest = champion.map(|version| repository.manifest(&model, version)).transpose().map_err(CommandError::failed)?;
        rows.push((model, versions, champion, manifest.map(|manifest| manifest.description).unwrap_or_default()));
    }
    let value: Vec<Value> = rows
        .iter()
        .map(|(model, versions, champion, description)| {
            json!({ "model": model, "versions": versions, "champion": champion, "description": description })
        })
        .collect();
    shape.print(&value, || {
        let line = |(model, versions, champion, description): &(String, Vec<u32>, Option<u32>, String)| {
            let champion = champion.map_or("none".to_owned(), |version| version.to_string());
            format!("{model:<24} champion {champion:<6} of {versions:?}  {description}")
        };
        if rows.is_empty() { format!("no model in `{}`", path.display()) } else { rows.iter().map(line).collect::<Vec<_>>().join("\n") }
    })
}

/// One model: its policy and the manifests of its versions.
pub fn show(config: &ConfigArgs, model: &str, shape: Shape) -> Result<(), CommandError> {
    let (_, path) = repository(config)?;
    let repository = Repository::open(&path).map_err(CommandError::usage)?;
    let policy = repository.policy(model).map_err(CommandError::usage)?;
    let manifests = repository.versions(model).map_err(CommandError::failed)?.into_iter().map(|version| {
        let manifest = repository.manifest(model, version);
        let about = manifest.map(|manifest| (manifest.kind.name(), manifest.origin.name(), manifest.inputs.len(), manifest.description));
        (version, about.map_err(|error| error.to_string()))
    });
    let manifests: Vec<_> = manifests.collect();
    let versions: Vec<Value> = manifests
        .iter()
        .map(|(version, about)| match about {
            Ok((kind, origin, inputs, description)) => {
                json!({ "version": version, "kind": kind, "origin": origin, "inputs": inputs, "description": description })
            }
            Err(problem) => json!({ "version": version, "problem": problem }),
        })
        .collect();
    shape.print(&json!({ "model": model, "policy": policy, "versions": versions }), || {
        let line = |(version, about): &(u32, About)| match about {
            Ok((kind, origin, inputs, description)) => format!("  {version:<5} {kind:<7} {origin:<10} {inputs:>4} inputs  {description}"),
            Err(problem) => format!("  {version:<5} {problem}"),
        };
        let versions = manifests.iter().map(line).collect::<Vec<_>>().join("\n");
        format!("{model}  {}\n{versions}", parts(&policy))
    })
}

/// Loads every champion, or one version.
pub fn verify(config: &ConfigArgs, which: (Option<String>, Option<u32>), shape: Shape) -> Result<(), CommandError> {
    let (config, path) = repository(config)?;
    let schema = setup::schema(config.schema.path.as_deref()).map_err(CommandError::usage)?;
    let loader = setup::loader(&config, &schema, 1).map_err(CommandError::usage)?;
    let loader = loader.ok_or_else(|| CommandError::usage("no model repository"))?;
    let (mut usable, mut failed) = (Vec::new(), Vec::new());
    if let (Some(model), version) = which {
        let version = match version {
            Some(version) => version,
            None => champion(loader.repository(), &model)?,
        };
        match loader.verify(&model, version) {
            Ok(signer) => usable.push((format!("{model}:{version}"), signer.to_string())),
            Err(error) => failed.push((format!("{model}:{version}"), error.to_string())),
        }
    } else {
        let bundle = loader.bundle().map_err(CommandError::usage)?;
        let statuses = loader.statuses();
        let signer = |model: &str, version| statuses.iter().find(|status| &*status.model == model && status.version == version);
        let signer = |model: &str, version| signer(model, version).map(|status| status.signer.to_string()).unwrap_or_default();
        usable.extend(bundle.models().map(|(model, version)| (format!("{model}:{version}"), signer(model, version))));
        failed.extend(bundle.failures().iter().map(|failure| (failure.model.to_string(), failure.reason.clone())));
    }
    let problems: Vec<Value> = failed.iter().map(|(model, reason)| json!({ "model": model, "reason": reason })).collect();
    let names: Vec<&String> = usable.iter().map(|(name, _)| name).collect();
    let signers: BTreeMap<&String, &String> = usable.iter().map(|(name, signer)| (name, signer)).collect();
    shape.print(&json!({ "usable": names, "signers": signers, "failed": problems }), || {
        let mut lines: Vec<String> = usable.iter().map(|(model, signer)| format!("{model:<32} usable, {signer}")).collect();
        lines.extend(failed.iter().map(|(model, reason)| format!("{model:<32} {reason}")));
        lines.join("\n")
    })?;
    match failed.len() {
        0 => Ok(()),
        count => Err(CommandError::failed(format!("{count} models of `{}` cannot be used", path.display()))),
    }
}

/// Judges and probes a file and adds it as a version.
pub fn publish(
    folder: &Path,
    (model, file, schema): (&str, &Path, Option<PathBuf>),
    key: Option<&Path>,
    change: &Change,
) -> Result<(), CommandError> {
    let args = ConfigArgs { models: Some(folder.to_path_buf()), schema, ..ConfigArgs::default() };
    let mut config = args.read()?;
    // Workers run in an empty folder; nothing of it stays.
    let work = tempfile::tempdir().map_err(CommandError::failed)?;
    config.data = work.path().to_path_buf();
    Repository::create(folder).map_err(CommandError::usage)?;
    let schema = setup::schema(config.schema.path.as_deref()).map_err(CommandError::usage)?;
    let loader = setup::loader(&config, &schema, 1).map_err(CommandError::usage)?;
    let loader = loader.ok_or_else(|| CommandError::usage("no model repository"))?;
    let repository = loader.repository();
    repository.check_name(model).map_err(CommandError::usage)?;
    let bytes = std::fs::read(file).map_err(|error| CommandError::usage(format!("cannot read `{}`: {error}", file.display())))?;
    let key = key.map(keys::read).transpose()?;
    // A version can be signed as a whole; what came beside the file is over the file.
    let signature = if key.is_none() { keys::of_file(None, (model, file, &bytes))? } else { None };
    let stored = signature.as_ref().map(Signature::to_json);
    let trust = &loader.options().trust;
    trust
        .file(model, &bytes, stored.as_deref().map(str::as_bytes))
        .map_err(|problem| CommandError::failed(format!("signature: {problem}")))?;
    let draft = draft(bytes, Origin::Published, loader.index(), loader.options());
    let draft = draft.map_err(|refusal| CommandError::failed(format!("{}: {}", refusal.class, refusal.reason)))?;
    let inputs = draft.manifest.inputs.len();
    let version = repository.publish(model, Draft { signature, ..draft }).map_err(CommandError::failed)?;
    if let Some(key) = key {
        repository.sign(model, version, &key, &author(change)).map_err(CommandError::failed)?;
    }
    repository.record(&AuditLine::new(&author(change), "publish", model, Some(version))).map_err(CommandError::failed)?;
    let value = json!({ "model": model, "version": version, "inputs": inputs });
    change.shape.print(&value, || format!("{model} version {version} is published; it reads {inputs} features"))
}

/// One step of a model's policy.
pub fn step(folder: &Path, model: &str, step: Step, change: &Change) -> Result<(), CommandError> {
    let repository = Repository::open(folder).map_err(CommandError::usage)?;
    let policy = repository.step(model, step, &author(change)).map_err(CommandError::usage)?;
    change.shape.print(&json!({ "model": model, "policy": policy }), || format!("{model}  {}", parts(&policy)))
}

/// Deletes a version that plays no part.
pub fn remove(folder: &Path, model: &str, version: u32, change: &Change) -> Result<(), CommandError> {
    let repository = Repository::open(folder).map_err(CommandError::usage)?;
    repository.remove(model, version, &author(change)).map_err(CommandError::usage)?;
    change.shape.print(&json!({ "model": model, "removed": version }), || format!("{model} version {version} is deleted"))
}

/// Which version plays which part, in one line.
fn parts(policy: &ModelPolicy) -> String {
    let mut parts = vec![policy.aliases.champion.map_or("no champion".to_owned(), |version| format!("champion {version}"))];
    parts.extend(policy.aliases.previous.map(|version| format!("previous {version}")));
    parts.extend(policy.canary.map(|canary| format!("canary {} for {} %", canary.version, canary.percent)));
    parts.extend(policy.shadow.iter().map(|version| format!("shadow {version}")));
    parts.join(", ")
}

pub fn author(change: &Change) -> Author {
    let now = telltale_features::time::Clock::now(&SystemClock);
    Author { who: "command line".to_owned(), why: change.reason.clone(), time_us: now.micros() }
}

fn champion(repository: &Repository, model: &str) -> Result<u32, CommandError> {
    let policy = repository.policy(model).map_err(CommandError::usage)?;
    policy.aliases.champion.ok_or_else(|| CommandError::usage(format!("model `{model}` has no champion: name a version")))
}

fn repository(config: &ConfigArgs) -> Result<(crate::config::Config, PathBuf), CommandError> {
    let mut config = config.read()?;
    let Some(path) = crate::mirror::folder(&config).map_err(super::not_brought)? else {
        return Err(CommandError::usage("no model repository: give `--models FOLDER` or set `models.path`"));
    };
    // What is in an object store was brought just now.
    config.models.repository = None;
    config.models.path = Some(path.clone());
    Ok((config, path))
}
