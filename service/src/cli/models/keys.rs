//! Keys and signatures: a private key is made or read from its file, signatures beside versions and files leave. No key is ever printed.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ring::rand::{SecureRandom, SystemRandom};
use serde_json::json;
use telltale_features::file::{self, Readers};
use telltale_models::Repository;
use telltale_models::trust::{Signature, SigningKey, Signs, check_name};

use super::folder::author;
use super::{Change, Shape};
use crate::error::CommandError;

/// Makes a key: the private half in a file that only its owner reads, the public half for the configuration.
pub fn keygen(out: &Path, name: Option<String>, shape: Shape) -> Result<(), CommandError> {
    let name = name.unwrap_or_else(|| out.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default());
    // What the configuration would refuse must not be printed for it.
    check_name(&name)
        .map_err(|allowed| CommandError::usage(format!("`{name}` cannot name a key: {allowed}; say another with `--name`")))?;
    let mut seed = [0; 32];
    SystemRandom::new().fill(&mut seed).map_err(|_| CommandError::failed("the system gives no random numbers"))?;
    let key = SigningKey::from_seed(seed).map_err(CommandError::failed)?;
    let written = File::options().write(true).create_new(true).mode(0o600).open(out);
    let written = written.and_then(|mut file| file.write_all(key.to_pem().as_bytes()).and_then(|()| file.sync_all()));
    // One that is there may be the only one of its kind.
    written.map_err(|error| CommandError::usage(format!("cannot write a new key to `{}`: {error}", out.display())))?;
    let entry = format!("{name}={}", key.public().to_base64());
    shape.print(&json!({ "file": out, "trusted_key": entry }), || {
        format!("`{}` holds the private key: keep it away from the scorer. In the scorer's configuration:\n[models]\ntrusted_keys = [\"{entry}\"]", out.display())
    })
}

/// Signs a version of a repository.
pub fn version(key: &Path, (model, version): (&str, u32), folder: &Path, change: &Change) -> Result<(), CommandError> {
    let repository = Repository::open(folder).map_err(CommandError::usage)?;
    let signature = repository.sign(model, version, &read(key)?, &author(change)).map_err(CommandError::usage)?;
    let value = json!({ "model": model, "version": version, "key": signature.key });
    change.shape.print(&value, || format!("{model} version {version} is signed with the key {}", signature.key))
}

/// Signs a bare file, before it is a version of anything.
pub fn file(key: &Path, (model, path): (&str, &Path), shape: Shape) -> Result<(), CommandError> {
    let bytes = std::fs::read(path).map_err(|error| CommandError::usage(format!("cannot read `{}`: {error}", path.display())))?;
    let (signature, out) = (signed(key, model, &bytes)?, beside(path));
    file::replace(&out, signature.to_json().as_bytes(), Readers::Umask)
        .map_err(|error| CommandError::failed(format!("cannot write `{}`: {error}", out.display())))?;
    shape.print(&json!({ "model": model, "signature": out, "key": signature.key }), || {
        format!("`{}` holds the signature: put it into the inbox before `{}`", out.display(), path.display())
    })
}

/// The signature that a file is published with: a new one, else the one beside it.
pub fn of_file(key: Option<&Path>, (model, path, bytes): (&str, &Path, &[u8])) -> Result<Option<Signature>, CommandError> {
    let beside = beside(path);
    match key {
        Some(key) => signed(key, model, bytes).map(Some),
        None if !beside.exists() => Ok(None),
        None => {
            let wrong = |problem: String| CommandError::usage(format!("`{}`: {problem}", beside.display()));
            let bytes = std::fs::read(&beside).map_err(|error| wrong(error.to_string()))?;
            Signature::parse(&bytes).map(Some).map_err(wrong)
        }
    }
}

fn beside(path: &Path) -> PathBuf {
    path.with_added_extension("sig")
}

fn signed(key: &Path, model: &str, bytes: &[u8]) -> Result<Signature, CommandError> {
    Ok(read(key)?.sign(Signs::File, model, bytes))
}

/// The private key of a file.
pub fn read(path: &Path) -> Result<SigningKey, CommandError> {
    let text = std::fs::read_to_string(path).map_err(|error| CommandError::usage(format!("cannot read `{}`: {error}", path.display())))?;
    SigningKey::from_pem(&text).map_err(|error| CommandError::usage(format!("`{}`: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_name_that_the_configuration_refuses_makes_no_key() {
        let folder = tempfile::tempdir().unwrap();
        for (file, name) in [("my key.key", None), ("release.key", Some("build server")), ("release.key", Some(""))] {
            let out = folder.path().join(file);
            let error = keygen(&out, name.map(str::to_owned), Shape::default()).unwrap_err();
            assert!(error.code() == 64 && error.to_string().contains("1 to 64 letters"), "{error}");
            assert!(!out.exists(), "{file}");
        }
        keygen(&folder.path().join("my key.key"), Some("build-server".to_owned()), Shape::default()).unwrap();
    }

    #[test]
    fn a_new_key_is_its_owners_alone_signs_and_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let (key, model) = (folder.path().join("release.key"), folder.path().join("mine.onnx"));
        keygen(&key, None, Shape::default()).unwrap();
        assert_eq!(key.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let again = keygen(&key, None, Shape::default()).unwrap_err();
        assert!(again.code() == 64 && again.to_string().contains("release.key"), "{again}");
        std::fs::write(&model, b"bytes").unwrap();
        assert_eq!(of_file(None, ("mine", &model, b"bytes")).unwrap(), None);
        file(&key, ("mine", &model), Shape::default()).unwrap();
        let beside = of_file(None, ("mine", &model, b"bytes")).unwrap().unwrap();
        assert_eq!((beside.signs, beside.model.as_str()), (Signs::File, "mine"));
        assert_eq!(of_file(Some(&key), ("mine", &model, b"bytes")).unwrap().unwrap(), beside, "Ed25519 gives one signature of a text");
        let wrong = read(&model).map(|_| ()).unwrap_err();
        assert!(wrong.to_string().contains("telltale models keygen"), "{wrong}");
    }
}
