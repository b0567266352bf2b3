//! Signed models while traffic flows: what was tampered with fails alone, an unsigned file waits outside, a signed one is taken.

use telltale_models::Repository;
use telltale_models::repository::Author;
use telltale_models::trust::{Signature, SigningKey, Signs};

use super::models::{models, promote, unusual, with_models, within};
use super::*;

const EXPORT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/fixtures/exports/named_columns.onnx");

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed([seed; 32]).unwrap()
}

/// Models that must be signed by `release`, the key of seed 1; version 1 is.
fn signed(folder: &Path, require: &str) -> Config {
    let mut config = with_models(folder, true);
    config.models.trusted_keys = vec![format!("release={}", key(1).public().to_base64())];
    config.models.require_signature = require.to_owned();
    // In this process: a test program is no worker.
    config.models.contain = "none".to_owned();
    config.models.runtime = std::env::var_os("ORT_DYLIB_PATH").map(Into::into);
    sign(folder, 1, 1);
    config
}

fn sign(folder: &Path, version: u32, seed: u8) {
    let author = Author { who: "a test".to_owned(), why: String::new(), time_us: 0 };
    Repository::open(folder.join("models")).unwrap().sign("unusual", version, &key(seed), &author).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_versions_signed_by_whom_this_site_trusts_come_into_force() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(signed(folder.path(), "always")).await;
    let mut admin = models(&running).await;
    let mut scorer = client(&running).await;
    let before = score(&mut scorer, login("t1", "192.0.2.1", "anna")).await.unwrap();
    assert_eq!(before.degraded, [""; 0]);
    let unsigned = admin.promote_model(promote(2)).await.unwrap_err();
    assert_eq!(unsigned.code(), tonic::Code::FailedPrecondition);
    assert!(unsigned.message().contains("not signed") && unsigned.message().contains("`release`"), "{unsigned}");
    sign(folder.path(), 2, 2);
    let stranger = admin.promote_model(promote(2)).await.unwrap_err();
    assert!(stranger.message().contains("not trusted here"), "{stranger}");
    sign(folder.path(), 3, 1);
    let manifest = folder.path().join("models/unusual/versions/3/manifest.toml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, format!("{text}\n# one line more\n")).unwrap();
    let tampered = admin.promote_model(promote(3)).await.unwrap_err();
    assert!(tampered.message().contains("was changed after `release` signed it"), "{tampered}");
    let model = unusual(&mut admin).await;
    let states: Vec<_> = model.versions.iter().map(|version| version.state()).collect();
    assert_eq!((model.champion, states), (1, vec![v1::ModelState::Champion, v1::ModelState::Failed, v1::ModelState::Failed]));
    assert_eq!(model.versions[0].signer, "signed by `release`");
    // Right again, and signed by the right one.
    sign(folder.path(), 2, 1);
    let verified = admin.verify_model(v1::VerifyModelRequest { model: "unusual".to_owned(), version: 2 }).await.unwrap().into_inner();
    assert_eq!((verified.usable, verified.signer.as_str()), (true, "signed by `release`"));
    admin.promote_model(promote(2)).await.unwrap();
    let after = score(&mut scorer, login("t2", "192.0.2.1", "anna")).await.unwrap();
    assert!(after.degraded.is_empty() && after.models.iter().all(|model| model.version == 2), "{after:?}");
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_inbox_takes_what_is_signed_and_quarantines_what_was_changed_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(signed(folder.path(), "foreign")).await;
    let root = folder.path().join("models");
    let inbox = root.join("inbox");
    std::fs::create_dir(&inbox).unwrap();
    let bytes = std::fs::read(EXPORT).unwrap();
    let mut changed = bytes.clone();
    *changed.last_mut().unwrap() ^= 1;
    let drop = |name: &str, bytes: &[u8], signature: Option<Signature>| {
        if let Some(signature) = signature {
            std::fs::write(inbox.join(format!("{name}.onnx.sig")), signature.to_json()).unwrap();
        }
        std::fs::write(inbox.join(format!("{name}.onnx")), bytes).unwrap();
    };
    drop("right", &bytes, Some(key(1).sign(Signs::File, "right", &bytes)));
    drop("unsigned", &bytes, None);
    drop("tampered", &changed, Some(key(1).sign(Signs::File, "tampered", &bytes)));
    drop("stranger", &bytes, Some(key(2).sign(Signs::File, "stranger", &bytes)));
    drop("borrowed", &bytes, Some(key(1).sign(Signs::File, "right", &bytes)));
    within("the inbox is empty", || std::future::ready(std::fs::read_dir(&inbox).unwrap().count() == 0)).await;
    let mut admin = models(&running).await;
    let verify = v1::VerifyModelRequest { model: "right".to_owned(), version: 1 };
    let verified = admin.verify_model(verify.clone()).await.unwrap().into_inner();
    assert_eq!((verified.usable, verified.signer.as_str()), (true, "signed by `release`"), "{}", verified.reason);
    let reasons: Vec<String> = std::fs::read_dir(root.join(".quarantine"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(".reason.txt"))
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    assert_eq!(reasons.len(), 4, "{reasons:?}");
    for part in
        ["it is not signed", "the file was changed after `release`", "not trusted here", "for the model `right`, not for `borrowed`"]
    {
        assert!(reasons.iter().any(|reason| reason.starts_with("signature: ") && reason.contains(part)), "{part}: {reasons:?}");
    }
    // The signature is over the file; what was made of it cannot be changed either.
    let manifest = root.join("right/versions/1/manifest.toml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(root.join("right/versions/1/profile.json"), "{}").unwrap();
    let with_profile = format!("[files]\n\"profile.json\" = \"{}\"\n", blake3::hash(b"{}").to_hex());
    for (from, to, part) in [
        ("usual = 0.0", "usual = 9.0", "`inputs` of the manifest"),
        ("origin = \"inbox\"", "origin = \"own\"", "`origin`"),
        ("[files]\n", with_profile.as_str(), "`files` of the manifest"),
    ] {
        assert!(text.contains(from), "{text}");
        std::fs::write(&manifest, text.replacen(from, to, 1)).unwrap();
        let refused = admin.verify_model(verify.clone()).await.unwrap().into_inner();
        assert!(!refused.usable && refused.reason.contains(part), "{refused:?}");
    }
    running.stop().await.unwrap();
}
