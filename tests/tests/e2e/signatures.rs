//! Files that were tampered with after they were signed: a class of the hostile corpus that needs a key.

use std::collections::BTreeMap;
use std::path::Path;

use telltale_models::trust::{SigningKey, Signs};

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed([seed; 32]).unwrap()
}

/// The configuration that trusts the key these files should be signed with.
pub fn section() -> String {
    format!("trusted_keys = [\"release={}\"]\n", key(1).public().to_base64())
}

/// Writes them, each with its signature beside it: the guard that must stop each file.
pub fn corpus(folder: &Path) -> BTreeMap<String, String> {
    let bytes = std::fs::read(folder.join("harmless.onnx")).unwrap();
    let mut changed = bytes.clone();
    *changed.last_mut().unwrap() ^= 1;
    let by_release = |model: &str| key(1).sign(Signs::File, model, &bytes).to_json();
    let forged = by_release("t3-forged").replacen("\"signature\": \"", "\"signature\": \"AAAA", 1);
    let cases = [
        ("t0-tampered", &changed, by_release("t0-tampered")),
        ("t1-stranger", &bytes, key(2).sign(Signs::File, "t1-stranger", &bytes).to_json()),
        ("t2-borrowed", &bytes, by_release("harmless")),
        ("t3-forged", &bytes, forged),
        ("t4-manifest", &bytes, key(1).sign(Signs::Manifest, "t4-manifest", &bytes).to_json()),
        ("t5-empty", &bytes, String::new()),
    ];
    let write = |(name, bytes, signature): (&str, &Vec<u8>, String)| {
        std::fs::write(folder.join(format!("{name}.onnx")), bytes).unwrap();
        std::fs::write(folder.join(format!("{name}.onnx.sig")), signature).unwrap();
        (format!("{name}.onnx"), "signature".to_owned())
    };
    cases.into_iter().map(write).collect()
}
