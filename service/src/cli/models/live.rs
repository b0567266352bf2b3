//! Commands to a running scorer, over its admin listener.

use std::future::Future;
use std::path::{Path, PathBuf};

use telltale_models::repository::Step;
use telltale_proto::v1;
use tonic::transport::Channel;

use super::{Change, Shape, keys};
use crate::cli::entities::{connect, refused, with_token};
use crate::error::CommandError;

/// The scorer that is asked.
pub struct Live {
    /// Its admin listener.
    pub admin: String,
    /// File with a bearer token.
    pub token_file: Option<PathBuf>,
}

/// How often a scorer is asked that is waited for.
const LOOKS_A_SECOND: u64 = 4;

type Client = v1::models_client::ModelsClient<Channel>;

impl Live {
    /// Every model.
    pub fn list(&self, shape: Shape) -> Result<(), CommandError> {
        let answer = self.call(v1::ListModelsRequest {}, async |mut client, request| client.list_models(request).await)?;
        shape.print(&answer, || match answer.models.as_slice() {
            [] => "no models".to_owned(),
            models => models.iter().map(line).collect::<Vec<_>>().join("\n"),
        })
    }

    /// One model with its versions.
    pub fn show(&self, model: &str, shape: Shape) -> Result<(), CommandError> {
        let answer = self.call(v1::ListModelsRequest {}, async |mut client, request| client.list_models(request).await)?;
        let found = answer.models.into_iter().find(|known| known.name == model);
        let found =
            found.ok_or_else(|| CommandError::usage(format!("the scorer has no model `{model}`; see `telltale models list --live`")))?;
        shape.print(&found, || format!("{}\n{}", line(&found), found.versions.iter().map(version_line).collect::<Vec<_>>().join("\n")))
    }

    /// Loads a version aside.
    pub fn verify(&self, model: &str, version: Option<u32>, shape: Shape) -> Result<(), CommandError> {
        let version = version.ok_or_else(|| CommandError::usage("a running scorer verifies one version: name it"))?;
        let request = v1::VerifyModelRequest { model: model.to_owned(), version };
        let answer = self.call(request, async |mut client, request| client.verify_model(request).await)?;
        let name = format!("{model}:{version}");
        shape.print(&answer, || {
            format!("{name:<32} {}", if answer.usable { format!("usable, {}", answer.signer) } else { answer.reason.clone() })
        })?;
        if answer.usable { Ok(()) } else { Err(CommandError::failed(format!("`{name}` cannot be used"))) }
    }

    /// How a version differs from the champion; with `wait`, once it is calibrated or that many seconds have passed.
    pub fn compare(&self, model: &str, version: u32, wait: Option<u32>, shape: Shape) -> Result<(), CommandError> {
        let ask = || {
            let request = v1::CompareModelRequest { model: model.to_owned(), version };
            self.call(request, async |mut client, request| client.compare_model(request).await)
        };
        let mut answer = ask();
        for _ in 0..u64::from(wait.unwrap_or(0)) * LOOKS_A_SECOND {
            if answer.as_ref().is_ok_and(is_calibrated) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_secs(1) / LOOKS_A_SECOND as u32);
            answer = ask();
        }
        let answer = answer?;
        shape.print(&answer, || comparison(model, &answer))?;
        match wait.filter(|_| !is_calibrated(&answer)) {
            None => Ok(()),
            Some(seconds) => Err(CommandError::failed(format!("after {seconds} seconds it is still {}", answer.calibration))),
        }
    }

    /// How far the transactions have moved from those that the models in force learnt.
    pub fn drift(&self, model: Option<String>, most: usize, shape: Shape) -> Result<(), CommandError> {
        let request = v1::DriftRequest { model: model.unwrap_or_default() };
        let answer = self.call(request, async |mut client, request| client.drift(request).await)?;
        shape.print(&answer, || match answer.models.as_slice() {
            [] => "no model is in force".to_owned(),
            models => models.iter().map(|model| drift(model, most)).collect::<Vec<_>>().join("\n\n"),
        })
    }

    /// One step of a model's policy.
    pub fn step(&self, model: &str, step: Step, uncalibrated: bool, change: &Change) -> Result<(), CommandError> {
        let (model, reason) = (model.to_owned(), change.reason.clone());
        let answer = match step {
            Step::Promote(version) => {
                let request = v1::PromoteModelRequest { model, version, reason, uncalibrated };
                self.call(request, async |mut client, request| client.promote_model(request).await)?.change
            }
            Step::Rollback => {
                let request = v1::RollbackModelRequest { model, reason };
                self.call(request, async |mut client, request| client.rollback_model(request).await)?.change
            }
            Step::Canary(version, percent) => {
                let request = v1::SetCanaryRequest { model, version, percent, reason };
                self.call(request, async |mut client, request| client.set_canary(request).await)?.change
            }
            Step::Shadow(version, on) => {
                let request = v1::SetShadowRequest { model, version, remove: !on, reason };
                self.call(request, async |mut client, request| client.set_shadow(request).await)?.change
            }
        };
        let answer = answer.unwrap_or_default();
        change.shape.print(&answer, || {
            let model = answer.model.clone().unwrap_or_default();
            format!("{}\nin force after {:.1} ms", line(&model), answer.took_us as f64 / 1e3)
        })
    }

    /// Sends a file, which becomes a version in shadow.
    pub fn publish(&self, model: &str, (file, key): (&Path, Option<&Path>), change: &Change) -> Result<(), CommandError> {
        let onnx = std::fs::read(file).map_err(|error| CommandError::usage(format!("cannot read `{}`: {error}", file.display())))?;
        let signature = keys::of_file(key, (model, file, &onnx))?.map_or_else(String::new, |signature| signature.to_json());
        let (model_name, reason) = (model.to_owned(), change.reason.clone());
        let request = v1::PublishModelRequest { model: model_name, onnx: onnx.into(), reason, signature: signature.into() };
        let answer =
            self.call(request, async |client, request| client.max_encoding_message_size(usize::MAX).publish_model(request).await)?;
        change.shape.print(&answer, || {
            let found = answer.change.as_ref().and_then(|change| change.model.clone()).unwrap_or_default();
            format!("{model} version {} is published\n{}", answer.version, line(&found))
        })
    }

    /// Deletes a version.
    pub fn remove(&self, model: &str, version: u32, change: &Change) -> Result<(), CommandError> {
        let request = v1::RemoveModelRequest { model: model.to_owned(), version, reason: change.reason.clone() };
        let answer = self.call(request, async |mut client, request| client.remove_model(request).await)?;
        change.shape.print(&answer, || format!("{model} version {version} is deleted"))
    }

    fn call<Q, A, F>(&self, request: Q, ask: impl FnOnce(Client, tonic::Request<Q>) -> F) -> Result<A, CommandError>
    where
        F: Future<Output = Result<tonic::Response<A>, tonic::Status>>,
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CommandError::failed)?;
        runtime.block_on(async {
            let client = Client::new(connect(&self.admin).await?);
            let token = self.token_file.as_deref().map(std::fs::read_to_string).transpose().map_err(CommandError::usage)?;
            ask(client, with_token(request, token.as_deref())?).await.map_err(refused).map(tonic::Response::into_inner)
        })
    }
}

fn drift(model: &v1::ModelDrift, most: usize) -> String {
    let v1::ModelDrift { model: name, version, reference, reference_rows, rows, window_minutes, one_in, unseen, .. } = model;
    let mut lines = vec![
        format!("{name} version {version}: {rows} rows of the last {window_minutes} minutes, 1 transaction in {one_in}; {unseen} not seen"),
        format!("beside {reference} ({reference_rows} rows)"),
        format!("{:<40} {:>8} {:>13} {:>12}", "", "PSI", "missing then", "now"),
        format!("{:<40} {:>8.3} {:>13} {:>12}  {}", "score", model.score_stability_index, "", "", model.word),
    ];
    lines.extend(model.features.iter().take(most).map(|feature| {
        let v1::FeatureDrift { feature, stability_index, missing_then, missing_now, word } = feature;
        format!("{feature:<40} {stability_index:>8.3} {:>11.2} % {:>10.2} %  {word}", 100.0 * missing_then, 100.0 * missing_now)
    }));
    let left = model.features.len().saturating_sub(most);
    if left > 0 {
        lines.push(format!("and {left} more that have moved less"));
    }
    lines.join("\n")
}

fn is_calibrated(answer: &v1::CompareModelResponse) -> bool {
    answer.calibration == "calibrated"
}

fn line(model: &v1::Model) -> String {
    let mut parts = vec![if model.champion == 0 { "no champion".to_owned() } else { format!("champion {}", model.champion) }];
    if model.previous > 0 {
        parts.push(format!("previous {}", model.previous));
    }
    if model.canary > 0 {
        parts.push(format!("canary {} for {} %", model.canary, model.canary_percent));
    }
    parts.extend(model.shadow.iter().map(|version| format!("shadow {version}")));
    format!("{:<24} {}", model.name, parts.join(", "))
}

fn version_line(version: &v1::ModelVersion) -> String {
    let state = v1::ModelState::try_from(version.state).map_or("", |state| state.as_str_name());
    let state = state.trim_start_matches("MODEL_STATE_");
    let v1::ModelVersion { version, kind, origin, calibration, description, reason, .. } = version;
    let says = if reason.is_empty() { description } else { reason };
    format!("  {version:<5} {state:<9} {kind:<10} {origin:<10} {calibration:<26} {says}")
}

fn comparison(model: &str, answer: &v1::CompareModelResponse) -> String {
    let v1::CompareModelResponse { champion, version, transactions, dropped, errors, calibration, .. } = answer;
    let share = |count: u64| 100.0 * count as f64 / (*transactions).max(1) as f64;
    let mut lines = vec![
        format!(
            "{model} version {version} beside version {champion}: {transactions} transactions, {errors} without a score, {dropped} not seen; {calibration}"
        ),
        format!(
            "alerts: both or neither {:.2} %, only version {champion} {:.2} %, only version {version} {:.2} %; risk changes by {:.2} points on average",
            share(answer.agreed),
            share(answer.champion_alone),
            share(answer.version_alone),
            answer.mean_risk_change
        ),
        format!("stability index of the calibrated scores: {:.3} (more than 0.25 is another distribution)", answer.stability_index),
    ];
    let tenths = |counts: &[u64]| counts.iter().map(|count| format!("{count:>8}")).collect::<String>();
    lines.push(format!("scores in tenths, version {champion:<4}{}", tenths(&answer.champion_scores)));
    lines.push(format!("                  version {version:<4}{}", tenths(&answer.version_scores)));
    let of = |what: &str, name: &str, (all, more, fewer): (u64, u64, u64)| {
        format!("{what} {name:<12} {all:>8} transactions, {more} alerts more, {fewer} fewer")
    };
    lines.extend(answer.actions.iter().map(|row| of("action", &row.action, (row.transactions, row.alerts_more, row.alerts_fewer))));
    lines.extend(answer.labels.iter().map(|row| of("label ", &row.label, (row.transactions, row.alerts_more, row.alerts_fewer))));
    lines.join("\n")
}
