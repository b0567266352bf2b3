//! `inbox/` of the repository: a bare `.onnx` is picked up once it is complete, judged, probed, published and put in shadow; what is not
//! taken goes to `.quarantine/` with the reason beside it. `x.onnx.sig` is the signature of `x.onnx`.
//!
//! Runs on a thread of its own: a model that takes its time holds up nothing. After each look it rests for many times as long, since starting
//! and ending a worker is felt by whoever scores at that moment.

mod files;
mod patience;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use telltale_models::intake::{Refusal, draft};
use telltale_models::repository::{AuditLine, Draft, ModelPolicy, Origin, Step};
use telltale_models::trust::{MOST_BYTES, Signature};
use telltale_models::{Loader, ModelError};

use super::{Asker, LOOK, change, loader, yield_to_scoring};
use crate::server::Service;
use crate::server::api::present;
use crate::server::errors::CallError;
use files::{Found, Stamp};
use patience::{Patience, Ready};

/// The longest rest after a look.
const LONGEST_REST: Duration = Duration::from_secs(10);

/// What became of a file.
enum Taken {
    /// It is a version, and out of the inbox.
    Done,
    /// Something failed that has nothing to do with the file: it stays.
    Later(String),
}

/// Looks at the inbox until the server drains. It rests after each look, so that looks take that share of the time, long ones more.
pub fn run(service: &Weak<Service>, percent: u64) {
    yield_to_scoring(10);
    let (mut patience, mut recovered) = (Patience::default(), false);
    loop {
        std::thread::sleep(LOOK);
        let Some(service) = service.upgrade() else { return };
        if *service.draining.borrow() {
            return;
        }
        if let Ok(loader) = loader(&service) {
            let inbox = loader.repository().root().join("inbox");
            if !std::mem::replace(&mut recovered, true) {
                files::recover(&inbox);
            }
            look(&service, &loader, (&inbox, percent), &mut patience);
        }
    }
}

fn look(service: &Service, loader: &Arc<Loader>, (inbox, percent): (&Path, u64), patience: &mut Patience) {
    // No inbox: nothing to do.
    let Ok(entries) = std::fs::read_dir(inbox) else { return };
    let files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| is_model(path)).collect();
    patience.keep(&files);
    for path in files {
        if *service.draining.borrow() {
            return;
        }
        let Ok(metadata) = path.symlink_metadata() else { continue };
        let ready = patience.look(&path, Stamp::of(&metadata));
        if ready == Ready::No {
            continue;
        }
        let begun = present();
        let taken = match take(service, loader, &path) {
            Err(refusal) if refusal.maybe_incomplete && ready != Ready::Last => None,
            Err(refusal) => Some(quarantine(service, loader, &path, &refusal)),
            Ok(taken) => Some(taken),
        };
        if let Some(Taken::Later(why)) = taken
            && patience.failed(&path)
        {
            tracing::error!(file = shown(&path), why, "a file stays in the inbox; it is tried again less and less often");
        }
        rest(service, rest_after(present().duration_since(begun), percent));
    }
}

/// How long to rest after a look of that length, so that looks take that share of the time.
fn rest_after(looked: Duration, percent: u64) -> Duration {
    let percent = u32::try_from(percent.clamp(1, 100)).unwrap_or(100);
    (looked * (100 - percent) / percent).min(LONGEST_REST)
}

/// Does nothing for a while, or until the server drains.
fn rest(service: &Service, long: Duration) {
    let end = present() + long;
    while let Some(left) = end.checked_duration_since(present()).filter(|left| !left.is_zero()) {
        if *service.draining.borrow() {
            return;
        }
        std::thread::sleep(left.min(LOOK));
    }
}

fn is_model(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("onnx"))
}

fn refusal(class: &'static str, reason: impl Into<String>) -> Refusal {
    Refusal { class, reason: reason.into(), maybe_incomplete: false }
}

/// Takes one file: publishes it and removes it from the inbox.
fn take(service: &Service, loader: &Arc<Loader>, path: &Path) -> Result<Taken, Refusal> {
    let limit = loader.options().limits.bytes;
    let (bytes, stamp) = match files::read(path, limit) {
        Ok(Found::Plain(bytes, stamp)) => (bytes, stamp),
        Ok(Found::TooLarge(size)) => {
            let text = format!("the file has {size} bytes, allowed are {limit}: prune the model or use fewer trees");
            return Err(refusal("too-large", text));
        }
        Ok(Found::Other) => {
            return Err(refusal("name", "it is no plain file: copy the model itself into the inbox, no link and no folder"));
        }
        Err(error) => return Ok(Taken::Later(format!("it cannot be read: {error}"))),
    };
    let signature = match signature(path) {
        Ok(signature) => signature,
        Err(error) => return Ok(Taken::Later(format!("its signature cannot be read: {error}"))),
    };
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    let asker = Asker { who: "inbox".to_owned(), role: "operator", why: format!("`{}` was dropped", shown(path)) };
    // A server that was killed between publishing a file and clearing the inbox finds it again: it is the same version.
    let version = match loader.repository().holding(&stem, &bytes) {
        Some(version) => version,
        None => admit(service, loader, (&stem, bytes, Origin::Inbox, signature.as_deref()), &asker)?,
    };
    if !put_in_shadow(service, &stem, version, asker) {
        return Ok(Taken::Later("the server ends, or too many changes of models wait".to_owned()));
    }
    tracing::info!(model = stem, version, "a model was taken from the inbox");
    // Last, so that a killed server has lost nothing; a file that came under the same name meanwhile is another model.
    Ok(match files::remove(path, stamp) {
        Ok(true) => {
            std::fs::remove_file(beside(path)).ok();
            Taken::Done
        }
        Ok(false) => Taken::Done,
        Err(error) => Taken::Later(format!("it is version {version} and cannot be removed: {error}")),
    })
}

/// Where the signature of a file is looked for.
fn beside(path: &Path) -> PathBuf {
    path.with_added_extension("sig")
}

/// The signature beside a file, if there is one; nothing that is no plain file, and never more than a signature has.
fn signature(path: &Path) -> std::io::Result<Option<Vec<u8>>> {
    match files::read(&beside(path), MOST_BYTES) {
        Ok(Found::Plain(bytes, _)) => Ok(Some(bytes)),
        // As an empty one: it is there, and it is none.
        Ok(Found::TooLarge(_) | Found::Other) => Ok(Some(Vec::new())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Has a version put in shadow by the models' thread and waits for that; a version that plays a part keeps it. False when it was not tried.
fn put_in_shadow(service: &Service, model: &str, version: u32, asker: Asker) -> bool {
    let (done, tried) = std::sync::mpsc::sync_channel(1);
    let model = model.to_owned();
    let left = service.models.leave(move |service| {
        let known = |policy: &ModelPolicy| policy.versions().contains(&version);
        if !service.engine.in_force().bundle.policy(&model).is_some_and(known)
            && let Err(error) = change::step(service, &model, Step::Shadow(version, true), false, &asker)
        {
            tracing::warn!(model, version, %error, "a new version is published and not put in shadow");
        }
        // Nobody waits any more when the inbox's thread has ended.
        done.send(()).ok();
    });
    left && tried.recv().is_ok()
}

/// Judges, probes and publishes a file. Returns the number of the new version.
pub fn admit(
    service: &Service,
    loader: &Arc<Loader>,
    (model, bytes, origin, signature): (&str, Vec<u8>, Origin, Option<&[u8]>),
    asker: &Asker,
) -> Result<u32, Refusal> {
    let said = |error: ModelError| refusal("name", error.to_string());
    // The name first: nothing is run for a model that could not be stored.
    loader.repository().check_name(model).map_err(said)?;
    let signed = signed(loader, (model, &bytes), signature);
    let draft = signed.and_then(|signature| Ok(Draft { signature, ..draft(bytes, origin, loader.index(), loader.options())? }));
    let draft = draft.inspect_err(|refusal| {
        service.metrics.model_changes.with_label_values(&["publish", "refused"]).inc();
        tracing::warn!(model, class = refusal.class, reason = refusal.reason, "a foreign model is refused");
    })?;
    let version = loader.repository().publish(model, draft).map_err(said)?;
    let line = AuditLine::new(&asker.author(service), "publish", model, Some(version));
    loader.repository().record(&line).map_err(said)?;
    service.metrics.model_changes.with_label_values(&["publish", "changed"]).inc();
    change::audit(service, asker, "publish", &format!("{model}:{version}"));
    Ok(version)
}

/// The signature of a file, if whoever signed it is believed: before anything of the file is looked at.
fn signed(loader: &Loader, (model, bytes): (&str, &[u8]), signature: Option<&[u8]>) -> Result<Option<Signature>, Refusal> {
    // It may be copied after the file, or not be there completely.
    let refused = |reason| Refusal { maybe_incomplete: true, ..refusal("signature", reason) };
    loader.options().trust.file(model, bytes, signature).map_err(refused)?;
    signature.map(Signature::parse).transpose().map_err(refused)
}

/// Moves a file out of the inbox, the reason beside it.
fn quarantine(service: &Service, loader: &Loader, path: &Path, refusal: &Refusal) -> Taken {
    let folder = loader.repository().root().join(".quarantine");
    let time = service.engine.clock().now().micros();
    let name: String = shown(path).chars().filter(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(*letter)).take(80).collect();
    let place = folder.join(format!("{time}-{name}"));
    let reason = place.with_extension("reason.txt");
    let moved = std::fs::create_dir_all(&folder)
        .and_then(|()| std::fs::write(&reason, format!("{}: {}\n", refusal.class, refusal.reason)))
        .and_then(|()| std::fs::rename(path, &place));
    if moved.is_ok() {
        std::fs::rename(beside(path), beside(&place)).ok();
    }
    if let Err(error) = moved {
        // A reason without its file would tell of nothing; it may not be there either.
        std::fs::remove_file(&reason).ok();
        let (class, reason) = (refusal.class, &refusal.reason);
        return Taken::Later(format!("it is refused ({class}: {reason}) and cannot be moved to `{}`: {error}", folder.display()));
    }
    tracing::warn!(file = name, class = refusal.class, reason = refusal.reason, place = %place.display(), "quarantined");
    let asker = Asker { who: "inbox".to_owned(), role: "operator", why: format!("{}: {}", refusal.class, refusal.reason) };
    let line = AuditLine::new(&asker.author(service), "quarantine", &name, None);
    if let Err(error) = loader.repository().record(&line) {
        tracing::error!(%error, "the repository's audit cannot be written");
    }
    Taken::Done
}

/// A file's name, for messages.
fn shown(path: &Path) -> String {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    name.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).take(120).collect()
}

/// Publishes what came over the wire and puts it in shadow.
///
/// # Errors
/// Why it is not taken.
pub fn publish(service: &Service, model: &str, (bytes, signature): (Vec<u8>, &[u8]), asker: &Asker) -> Result<u32, CallError> {
    let loader = loader(service)?;
    let refused = |refusal: Refusal| CallError::from(ModelError::Data(format!("{}: {}", refusal.class, refusal.reason)));
    admit(service, &loader, (model, bytes, Origin::Published, (!signature.is_empty()).then_some(signature)), asker).map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_leave_looks_their_share_and_end() {
        let look = Duration::from_millis(100);
        assert_eq!(rest_after(look, 5), Duration::from_millis(1_900));
        assert_eq!(rest_after(look, 50), look);
        assert_eq!(rest_after(look, 100), Duration::ZERO);
        assert_eq!(rest_after(Duration::from_secs(30), 1), LONGEST_REST);
    }
}
