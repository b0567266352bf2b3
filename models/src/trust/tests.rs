use super::*;
use crate::ModelError;
use crate::calibration::conformal;
use crate::repository::tests::{draft, index};
use crate::repository::{Author, Repository};
use crate::{Loader, RuntimeOptions, State};
use std::fs;
use std::path::PathBuf;

pub(crate) fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed([seed; 32]).unwrap()
}

fn author() -> Author {
    Author { who: "a test".into(), why: String::new(), time_us: 0 }
}

/// A repository with one version of `odd`, and where its files are.
struct Site {
    folder: tempfile::TempDir,
    repository: Repository,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let repository = Repository::create(folder.path()).unwrap();
        assert_eq!(repository.publish("odd", draft(1)).unwrap(), 1);
        repository.promote("odd", 1).unwrap();
        Self { folder, repository }
    }

    fn signed() -> Self {
        let site = Self::new();
        site.repository.sign("odd", 1, &key(1), &author()).unwrap();
        site
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join("odd/versions/1").join(name)
    }

    fn edit(&self, file: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.file(file)).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(self.file(file), text.replace(from, to)).unwrap();
    }

    fn loader(&self, trust: Trust) -> Loader {
        Loader::new(self.repository.clone(), index(), RuntimeOptions { trust, ..RuntimeOptions::default() })
    }

    /// Why the version is refused; it is then in the state FAILED and says the same there.
    fn failure(&self, trust: Trust) -> String {
        let loader = self.loader(trust);
        let error = loader.verify("odd", 1).unwrap_err().to_string();
        let status = loader.statuses().remove(0);
        assert_eq!((status.state, &status.reason, status.signer), (State::Failed, &error, Signer::Nobody));
        assert_eq!(loader.bundle().unwrap().models().count(), 0, "it serves all the same");
        error
    }
}

/// `release` is the key of seed 1.
fn trust(require: Require) -> Trust {
    Trust::new(&[format!("release={}", key(1).public().to_base64())], require).unwrap()
}

#[test]
fn a_signed_version_serves_and_says_who_signed_it() {
    let site = Site::signed();
    for require in [Require::Never, Require::Foreign, Require::Always] {
        let loader = site.loader(trust(require));
        assert_eq!(loader.verify("odd", 1).unwrap(), Signer::Trusted("release".into()));
        assert_eq!(loader.statuses()[0].signer, Signer::Trusted("release".into()));
        assert_eq!(loader.bundle().unwrap().models().collect::<Vec<_>>(), [("odd", 1)]);
    }
    // Without any configured key nobody vouches for it, and that is what is said.
    let unknown = site.loader(Trust::default()).verify("odd", 1).unwrap();
    assert_eq!(unknown, Signer::Unknown(key(1).public().to_base64()));
    assert!(unknown.to_string().contains("`models.trusted_keys` is empty"), "{unknown}");
    assert_eq!(site.repository.audit().unwrap()[0].what, "sign");
}

#[test]
fn what_must_be_signed_and_is_not_fails_and_names_the_keys() {
    let site = Site::new();
    assert_eq!(site.loader(trust(Require::Never)).verify("odd", 1).unwrap(), Signer::Nobody);
    assert_eq!(site.loader(trust(Require::Foreign)).verify("odd", 1).unwrap(), Signer::Nobody, "it was made here");
    let always = site.failure(trust(Require::Always));
    assert!(always.contains("not signed") && always.contains("`models.require_signature` is `always`") && always.contains("`release`"));
    site.edit("manifest.toml", "licence =", "origin = \"published\"\nlicence =");
    let foreign = site.failure(trust(Require::Foreign));
    assert!(foreign.contains("`models.require_signature` is `foreign`"), "{foreign}");
}

#[test]
fn where_everything_must_be_signed_a_calibration_on_disk_counts_for_nothing() {
    let site = Site::signed();
    let table = conformal(&(0..500).map(|n| f64::from(n) / 1000.0).collect::<Vec<_>>()).unwrap();
    site.repository.store_calibration("odd", 1, &table).unwrap();
    assert_eq!(site.loader(trust(Require::Foreign)).bundle().unwrap().calibration("odd"), Some(&table));
    let loader = site.loader(trust(Require::Always));
    let bundle = loader.bundle().unwrap();
    assert_eq!((bundle.models().count(), bundle.calibration("odd")), (1, None));
    // One that was journalled stays through every change.
    let known = bundle.with_calibration("odd", 1, table.clone()).unwrap();
    let changed = loader.apply(&known, "odd", &loader.state("odd").unwrap()).unwrap();
    assert_eq!(changed.calibration("odd"), Some(&table));
}

#[test]
fn each_way_to_tamper_fails_with_its_own_reason() {
    let manifest = Site::signed();
    manifest.edit("manifest.toml", "odd rows", "even rows");
    let reason = manifest.failure(trust(Require::Never));
    assert!(reason.contains("signature.json: manifest.toml was changed after `release` signed it"), "{reason}");

    let file = Site::signed();
    let bytes = fs::read(file.file("model.bin")).unwrap();
    fs::write(file.file("model.bin"), [&bytes[..], b"x"].concat()).unwrap();
    assert!(file.failure(trust(Require::Never)).contains("model.bin: its digest is"), "the manifest holds the digests");

    // The file and its digest in the manifest: what a digest alone does not notice.
    let both = Site::signed();
    let (old, new) = (blake3::hash(&bytes).to_hex().to_string(), blake3::hash(b"x").to_hex().to_string());
    fs::write(both.file("model.bin"), b"x").unwrap();
    both.edit("manifest.toml", &old, &new);
    assert!(both.failure(trust(Require::Never)).contains("was changed after `release` signed it"));

    // And the digest in the signature too.
    let all = Site::signed();
    let digest = |site: &Site| blake3::hash(&fs::read(site.file("manifest.toml")).unwrap()).to_hex().to_string();
    let before = digest(&all);
    all.edit("manifest.toml", "odd rows", "even rows");
    let after = digest(&all);
    all.edit("signature.json", &before, &after);
    let reason = all.failure(trust(Require::Never));
    assert!(reason.contains("its signature is not one of the key of `release`"), "{reason}");

    let other = Site::new();
    other.repository.sign("odd", 1, &key(2), &author()).unwrap();
    let reason = other.failure(trust(Require::Never));
    let stranger = key(2).public().to_base64();
    assert!(reason.contains(&stranger) && reason.contains("not trusted here") && reason.contains("has `release`"), "{reason}");

    // Signed by another, and called the trusted one's.
    other.edit("signature.json", &stranger, &key(1).public().to_base64());
    assert!(other.failure(trust(Require::Never)).contains("damaged or forged"));

    for broken in ["", "{}", "{\"signs\": \"manifest\", \"more\": 1}", &" ".repeat(5_000)] {
        let site = Site::new();
        fs::write(site.file(SIGNATURE), broken).unwrap();
        let reason = site.failure(Trust::default());
        assert!(reason.contains("signature.json: ") && reason.contains("signature"), "{reason}");
    }
}

#[test]
fn a_signature_is_for_one_model_and_a_manifest_is_no_file() {
    let site = Site::signed();
    let copy = site.folder.path().join("even/versions/1");
    fs::create_dir_all(&copy).unwrap();
    for entry in fs::read_dir(site.file("")).unwrap() {
        let from = entry.unwrap().path();
        fs::copy(&from, copy.join(from.file_name().unwrap())).unwrap();
    }
    let reason = site.loader(trust(Require::Never)).verify("even", 1).unwrap_err().to_string();
    assert!(reason.contains("`release` signed it for the model `odd`, not for `even`"), "{reason}");

    let manifest = key(1).sign(Signs::Manifest, "odd", b"bytes");
    let reason = trust(Require::Never).file("odd", b"bytes", Some(manifest.to_json().as_bytes())).unwrap_err();
    assert!(reason.contains("over a manifest"), "{reason}");
    // What was signed as a manifest is not genuine as a file.
    let passed_off = Signature { signs: Signs::File, ..manifest };
    assert!(trust(Require::Never).file("odd", b"bytes", Some(passed_off.to_json().as_bytes())).unwrap_err().contains("forged"));
    let file = key(1).sign(Signs::File, "odd", b"bytes").to_json();
    assert_eq!(trust(Require::Always).file("odd", b"bytes", Some(file.as_bytes())), Ok(Signer::Trusted("release".into())));
    let reason = trust(Require::Always).file("odd", b"other", Some(file.as_bytes())).unwrap_err();
    assert!(reason.contains("the file was changed after `release` signed it"), "{reason}");
    // A file's signature vouches for no forest's manifest: that came from nowhere else.
    let own = Site::new();
    let bytes = fs::read(own.file("model.bin")).unwrap();
    fs::write(own.file(SIGNATURE), key(1).sign(Signs::File, "odd", &bytes).to_json()).unwrap();
    assert!(own.failure(trust(Require::Never)).contains("signature.json"));
}

#[test]
fn a_damaged_version_is_not_signed_and_one_that_serves_is_checked_again() {
    let site = Site::signed();
    let loader = site.loader(trust(Require::Always));
    let bundle = loader.bundle().unwrap();
    assert_eq!(bundle.models().count(), 1);
    fs::write(site.file("report.json"), "{ }").unwrap();
    assert!(loader.verify("odd", 1).unwrap_err().to_string().contains("report.json"), "it is in memory, its files are damaged");
    let refused = site.repository.sign("odd", 1, &key(2), &author()).unwrap_err();
    assert!(matches!(refused, ModelError::Invalid { .. }), "{refused}");
}

#[test]
fn a_status_says_who_signed_it_as_of_the_last_check() {
    let site = Site::new();
    let loader = site.loader(trust(Require::Never));
    let bundle = loader.bundle().unwrap();
    let signer = || loader.statuses()[0].signer.clone();
    assert_eq!(signer(), Signer::Nobody);
    // Signed and checked while it serves, then damaged and checked again.
    site.repository.sign("odd", 1, &key(1), &author()).unwrap();
    loader.verify("odd", 1).unwrap();
    assert_eq!(signer(), Signer::Trusted("release".into()));
    site.edit("manifest.toml", "odd rows", "even rows");
    assert!(loader.verify("odd", 1).is_err());
    assert_eq!((signer(), loader.statuses()[0].state), (Signer::Nobody, State::Champion));
    // The same of one that fails after it has left memory.
    site.edit("manifest.toml", "even rows", "odd rows");
    loader.verify("odd", 1).unwrap();
    assert_eq!(signer(), Signer::Trusted("release".into()));
    drop(bundle);
    site.edit("manifest.toml", "odd rows", "even rows");
    assert!(loader.verify("odd", 1).is_err());
    assert_eq!((signer(), loader.statuses()[0].state), (Signer::Nobody, State::Failed));
}

#[test]
fn keys_are_written_and_read_as_openssl_does_and_tell_nothing_in_errors() {
    // RFC 8032, section 7.1, test 1.
    let seed = blake3::Hash::from_hex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").unwrap();
    let key = SigningKey::from_seed(*seed.as_bytes()).unwrap();
    let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    assert_eq!(key.public(), PublicKey::parse(public).unwrap());
    assert_eq!(PublicKey::parse(&key.public().to_base64()).unwrap(), key.public());
    let pem = key.to_pem();
    // As `openssl pkey -in` prints the key of this seed.
    assert_eq!(pem.lines().nth(1), Some("MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g"));
    assert_eq!(SigningKey::from_pem(&pem).unwrap().public(), key.public());
    for bad in ["", "secret", &pem.replace("MC4C", "MC5C"), &pem.replace("PRIVATE", "PUBLIC")] {
        let error = SigningKey::from_pem(bad).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("telltale models keygen") && !error.contains("nWGx"), "{error}");
    }
}

#[test]
fn trusted_keys_are_checked() {
    let public = key(1).public().to_base64();
    let hex = blake3::Hash::from_bytes(key(2).public().0).to_hex();
    let both = [format!("release={public}"), format!("ci={hex}")];
    assert_eq!(Trust::new(&both, Require::Always).unwrap().names(), "`release`, `ci`");
    for (entry, part) in [
        ("release".to_owned(), "NAME=KEY"),
        (format!("={public}"), "1 to 64 letters"),
        (format!("a b={public}"), "1 to 64 letters"),
        ("release=AAAA".to_owned(), "32 bytes"),
        (format!("release={}", "g".repeat(64)), "32 bytes"),
    ] {
        let error = Trust::new(&[entry], Require::Never).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
    let twice = [both[0].clone(), format!("other={public}")];
    assert!(Trust::new(&twice, Require::Never).unwrap_err().contains("twice"));
    assert!(Trust::new(&[], Require::Foreign).unwrap_err().contains("nothing could serve"));
}
