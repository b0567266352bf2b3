//! What is taken over from elsewhere: whole, right, under a free number, and no file that does not belong to it.

use super::tests::draft;
use super::*;
use crate::trust::{SIGNATURE, Signature, SigningKey, Signs};

fn author() -> Author {
    Author { who: "a test".to_owned(), why: String::new(), time_us: 0 }
}

fn repository() -> (tempfile::TempDir, Repository) {
    let folder = tempfile::tempdir().unwrap();
    let repository = Repository::create(folder.path().join("repository")).unwrap();
    (folder, repository)
}

/// Every file of a version that was published elsewhere.
fn files() -> Vec<(String, Vec<u8>)> {
    let (_folder, other) = repository();
    let version = other.publish("odd", draft(1)).unwrap();
    other.sign("odd", version, &SigningKey::from_seed([3; 32]).unwrap(), &author()).unwrap();
    other.files("odd", version).unwrap()
}

#[test]
fn a_version_comes_whole_under_its_own_number() {
    let (_folder, here) = repository();
    let files = files();
    here.adopt("odd", 7, &files, &author()).unwrap();
    assert_eq!((here.versions("odd").unwrap(), here.files("odd", 7).unwrap()), (vec![7], files.clone()));
    assert!(here.adopt("odd", 7, &files, &author()).unwrap_err().to_string().contains("versions never change"));
    // A policy comes only with the versions that it names.
    let policy = |text: &str| ModelPolicy::parse(Path::new("policy.toml"), text).unwrap();
    assert!(here.adopt_policy("odd", &policy("[aliases]\nchampion = 8\n"), &author()).unwrap_err().to_string().contains("version 8"));
    here.adopt_policy("odd", &policy("revision = 4\n[aliases]\nchampion = 7\n"), &author()).unwrap();
    assert_eq!((here.policy("odd").unwrap().revision, here.models().unwrap()), (4, vec!["odd".to_owned()]));
    let audit: Vec<_> = here.audit().unwrap().into_iter().map(|line| (line.what, line.version, line.policy.is_some())).collect();
    assert_eq!(audit, [("adopt".to_owned(), Some(7), false), ("adopt".to_owned(), None, true)]);
    // A removed version may come back, another one not under its number.
    here.adopt("odd", 6, &files, &author()).unwrap();
    here.remove("odd", 6, &author()).unwrap();
    here.adopt("odd", 6, &files, &author()).unwrap();
    assert_eq!(here.publish("odd", draft(3)).unwrap(), 8);
    here.remove("odd", 8, &author()).unwrap();
    assert!(here.adopt("odd", 8, &files, &author()).unwrap_err().to_string().contains("another version's here, which was removed"));
    // What is published here afterwards gets the next number, if there is one.
    assert_eq!(here.publish("odd", draft(2)).unwrap(), 9);
    here.adopt("odd", u32::MAX, &files, &author()).unwrap();
    assert!(here.publish("odd", draft(2)).unwrap_err().to_string().contains("no free version number"));
}

#[test]
fn what_is_not_whole_or_not_its_own_is_refused_and_leaves_nothing() {
    let (folder, here) = repository();
    let signature = |text: &[u8]| SigningKey::from_seed([3; 32]).unwrap().sign(Signs::Manifest, "odd", text).to_json().into_bytes();
    let with = |name: &str, bytes: &[u8]| {
        let mut files = files();
        files.retain(|(other, _)| other != name);
        files.push((name.to_owned(), bytes.to_vec()));
        files
    };
    let without = |name: &str| files().into_iter().filter(|(other, _)| other != name).collect::<Vec<_>>();
    let cases = [
        (with("model.bin", b"another"), "model.bin: its digest is"),
        (without("model.bin"), "cannot read"),
        (without(MANIFEST), "it has no `manifest.toml`"),
        (with(MANIFEST, b"\xff\xfe"), "manifest.toml: "),
        (with("../../evil", b"evil"), "`../../evil` is no file of it"),
        (with("/tmp/evil", b"evil"), "`/tmp/evil` is no file of it"),
        (with("policy.toml", b""), "`policy.toml` is no file of it"),
        (with(SIGNATURE, b"{}"), "no signature as"),
        (with(SIGNATURE, &signature(b"another manifest")), "was changed after"),
    ];
    for (files, why) in cases {
        let error = here.adopt("odd", 1, &files, &author()).unwrap_err().to_string();
        assert!(error.contains(why), "{why}: {error}");
        assert_eq!((here.versions("odd").unwrap(), here.audit().unwrap().len()), (vec![], 0));
    }
    for model in ["../odd", "inbox", ""] {
        assert!(here.adopt(model, 1, &files(), &author()).unwrap_err().to_string().contains("is not allowed"));
    }
    assert!(here.adopt("odd", 0, &files(), &author()).is_err());
    let beside: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(beside, ["repository"]);
    // A signature that comes later is held against the version too.
    here.adopt("odd", 1, &without(SIGNATURE), &author()).unwrap();
    let wrong = Signature::parse(&signature(b"another manifest")).unwrap();
    assert!(here.put_signature("odd", 1, &wrong, &author()).unwrap_err().to_string().contains("was changed after"));
    assert_eq!(here.files("odd", 1).unwrap(), without(SIGNATURE));
    let right = files().into_iter().find(|(name, _)| name == SIGNATURE).unwrap().1;
    here.put_signature("odd", 1, &Signature::parse(&right).unwrap(), &author()).unwrap();
    assert_eq!(here.files("odd", 1).unwrap(), files());
    // A genuine one by another key does not take its place.
    let manifest = files().into_iter().find(|(name, _)| name == MANIFEST).unwrap().1;
    let other = SigningKey::from_seed([4; 32]).unwrap().sign(Signs::Manifest, "odd", &manifest);
    assert!(here.put_signature("odd", 1, &other, &author()).unwrap_err().to_string().contains("another key"));
    assert_eq!(here.files("odd", 1).unwrap(), files());
}
