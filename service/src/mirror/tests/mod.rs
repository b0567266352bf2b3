//! Mirrors of folders and of stores that speak the protocols of the clouds: followed, whole or not at all, and alone in what is wrong.

pub(crate) mod cloud;

use std::fs;
use std::path::Path;

use cloud::{Cloud, Kind};
use telltale_features::time::Clock;
use telltale_models::repository::{Author, ModelPolicy};
use telltale_models::trust::SigningKey;

use super::*;
use crate::setup::SystemClock;

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/default/unusual/versions/1");

/// A repository in one folder and a mirror in another; what is between them.
struct Site {
    folder: tempfile::TempDir,
    cloud: Option<Cloud>,
    options: Option<PathBuf>,
}

impl Site {
    /// With a version of the shipped forest, promoted.
    fn new(kind: Option<Kind>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("store")).unwrap();
        let cloud = kind.map(Cloud::start);
        let options = cloud.as_ref().map(|cloud| cloud.options(folder.path()));
        let site = Self { folder, cloud, options };
        site.version(1);
        site.policy("[aliases]\nchampion = 1\n");
        site
    }

    fn own(&self) -> PathBuf {
        self.folder.path().join("own")
    }

    fn config(&self) -> Config {
        let mut config = Config { data: self.folder.path().join("data"), ..Config::default() };
        config.models.repository = Some(self.url());
        config.models.repository_options.clone_from(&self.options);
        config
    }

    fn cache(&self) -> Repository {
        Repository::create(mirrored(&self.config())).unwrap()
    }

    fn cloud(&self) -> &Cloud {
        self.cloud.as_ref().unwrap()
    }

    fn url(&self) -> String {
        let folder = || format!("file://{}/store/models", self.folder.path().display());
        self.cloud.as_ref().map_or_else(folder, Cloud::url)
    }

    /// Another version in the own repository: the same forest, with a manifest of its own.
    fn version(&self, number: u32) {
        copy(&self.own().join(format!("unusual/versions/{number}")), number);
    }

    fn policy(&self, text: &str) {
        fs::write(self.own().join("unusual/policy.toml"), text).unwrap();
    }

    fn push(&self, version: Option<u32>) -> Result<Vec<String>, MirrorError> {
        push(&self.url(), self.options.as_deref(), &self.own(), ("unusual", version))
    }

    fn pull(&self) -> Result<Pulled, MirrorError> {
        pull(&self.url(), self.options.as_deref(), &mirrored(&self.config()))
    }

    /// What was brought; nothing else was to be said.
    fn brought(&self) -> Vec<String> {
        let pulled = self.pull().unwrap();
        assert_eq!((pulled.waiting, pulled.refused), (vec![], vec![]));
        pulled.brought
    }

    fn versions(&self) -> Vec<u32> {
        self.cache().versions("unusual").unwrap_or_default()
    }
}

fn copy(to: &Path, number: u32) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(SHIPPED).unwrap() {
        let from = entry.unwrap().path();
        fs::copy(&from, to.join(from.file_name().unwrap())).unwrap();
    }
    let manifest = to.join("manifest.toml");
    fs::write(&manifest, format!("# Version {number}.\n{}", fs::read_to_string(&manifest).unwrap())).unwrap();
}

fn author() -> Author {
    Author { who: "a test".to_owned(), why: String::new(), time_us: 0 }
}

#[test]
fn what_is_pushed_is_pulled_whole_once_and_followed_from_then_on() {
    for kind in [None, Some(Kind::S3), Some(Kind::Google), Some(Kind::Azure)] {
        let site = Site::new(kind);
        assert_eq!(site.push(Some(1)).unwrap(), ["unusual version 1", "unusual policy, revision 0"], "{kind:?}");
        assert_eq!(site.brought(), ["unusual version 1", "unusual policy, revision 0"], "{kind:?}");
        assert_eq!(site.brought(), [""; 0]);
        let (own, cache) = (Repository::open(site.own()).unwrap(), site.cache());
        assert_eq!(own.files("unusual", 1).unwrap(), cache.files("unusual", 1).unwrap());
        // A guard's step here holds until the policy changes there.
        let revised = |repository: &Repository, revision: u64| {
            repository.change("unusual", |policy| Ok(ModelPolicy { revision, ..policy.clone() })).unwrap();
        };
        revised(&cache, 3);
        assert_eq!(site.brought(), [""; 0]);
        assert_eq!(cache.policy("unusual").unwrap().revision, 3);
        // The same once more is no change.
        assert_eq!(site.push(Some(1)).unwrap(), ["unusual version 1"]);
        assert_eq!(site.brought(), [""; 0]);
        assert_eq!(cache.policy("unusual").unwrap().revision, 3);
        for revision in [5, 6] {
            revised(&own, revision);
            assert_eq!(site.push(None).unwrap(), [format!("unusual policy, revision {revision}")], "{kind:?}");
            assert_eq!(site.brought(), [format!("unusual policy, revision {revision}")]);
            assert_eq!(cache.policy("unusual").unwrap().revision, revision);
        }
        // A signature that comes later comes too; it must be over this version.
        own.sign("unusual", 1, &SigningKey::from_seed([1; 32]).unwrap(), &author()).unwrap();
        site.push(Some(1)).unwrap();
        assert_eq!(site.brought(), [""; 0]);
        assert_eq!(own.files("unusual", 1).unwrap(), cache.files("unusual", 1).unwrap());
        let audit: Vec<String> = cache.audit().unwrap().iter().map(|line| format!("{} {:?}", line.what, line.version)).collect();
        assert_eq!(audit, ["adopt Some(1)", "adopt None", "adopt None", "adopt None", "sign Some(1)"]);
    }
}

#[test]
fn two_who_push_do_not_overwrite_each_other() {
    for kind in [Some(Kind::S3), Some(Kind::Google), Some(Kind::Azure)] {
        let (site, other) = (Site::new(kind), tempfile::tempdir().unwrap());
        site.push(Some(1)).unwrap();
        pull(&site.url(), site.options.as_deref(), other.path()).unwrap();
        let theirs = Repository::open(other.path()).unwrap();
        theirs.change("unusual", |policy| Ok(ModelPolicy { revision: 1, ..policy.clone() })).unwrap();
        push(&site.url(), site.options.as_deref(), other.path(), ("unusual", None)).unwrap();
        site.policy("revision = 2\n[aliases]\nchampion = 1\n");
        let error = site.push(None).unwrap_err().to_string();
        assert!(error.contains("changed in the store; pull it first"), "{kind:?}: {error}");
        assert!(String::from_utf8(site.cloud().take("unusual/policy.toml")).unwrap().contains("revision = 1"));
        // A version that stands there is never replaced.
        let manifest = site.own().join("unusual/versions/1/manifest.toml");
        fs::write(&manifest, fs::read_to_string(&manifest).unwrap() + "\n# another\n").unwrap();
        let error = site.push(Some(1)).unwrap_err().to_string();
        assert!(error.contains("versions never change"), "{error}");
        // A policy comes with the last version that it names.
        site.version(2);
        site.policy("revision = 3\n[aliases]\nchampion = 2\nprevious = 3\n");
        assert!(site.push(None).unwrap_err().to_string().contains("names version 2, which is not in the store"));
        let done = site.push(Some(2)).unwrap();
        assert!(done[1].contains("not yet, version 3"), "{done:?}");
    }
}

#[test]
fn a_version_that_is_not_complete_or_was_changed_there_never_becomes_visible() {
    let site = Site::new(Some(Kind::S3));
    site.push(Some(1)).unwrap();
    let cloud = site.cloud();
    let nothing = |pulled: Pulled, waits: &str| {
        assert!(pulled.brought.is_empty() && site.versions().is_empty() && site.cache().policy("unusual").is_err(), "{pulled:?}");
        assert!(pulled.waiting.iter().any(|what| what.contains(waits)), "{pulled:?}");
        assert!(
            pulled.waiting.iter().any(|what| what.contains("policy, revision 0: version 1, which it names, is not here")),
            "{pulled:?}"
        );
        pulled.refused
    };
    // As in the middle of a push: the manifest comes last.
    let manifest = cloud.take("unusual/versions/1/manifest.toml");
    assert_eq!(nothing(site.pull().unwrap(), "`manifest.toml` is not there yet"), [""; 0]);
    // As some other program uploads: a part comes last.
    cloud.put("unusual/versions/1/manifest.toml", manifest);
    let model = cloud.take("unusual/versions/1/model.bin");
    assert_eq!(nothing(site.pull().unwrap(), "`model.bin` is not there yet"), [""; 0]);
    // It is there and is another one.
    cloud.put("unusual/versions/1/model.bin", &model[1..]);
    let refused = nothing(site.pull().unwrap(), "policy");
    assert!(
        refused.len() == 1 && refused[0].contains("unusual version 1: ") && refused[0].contains("model.bin: its digest is"),
        "{refused:?}"
    );
    // It is not fetched again and again, and the reason is still said.
    let reads = cloud.reads("model.bin");
    assert_eq!((site.pull().unwrap().refused, cloud.reads("model.bin")), (refused, reads));
    cloud.put("unusual/versions/1/model.bin", model);
    assert_eq!(site.brought(), ["unusual version 1", "unusual policy, revision 0"]);
    assert_eq!(site.versions(), [1]);
    // A policy of a version that is nowhere waits, one that is none is refused; what stands here stays.
    for (text, why) in [("[aliases]\nchampion = 7\n", "version 7, which it names"), ("nonsense", "policy.toml: ")] {
        cloud.put("unusual/policy.toml", text);
        let pulled = site.pull().unwrap();
        let said: Vec<_> = pulled.waiting.into_iter().chain(pulled.refused).collect();
        assert!(said.len() == 1 && said[0].contains(why), "{said:?}");
        assert_eq!(site.cache().policy("unusual").unwrap().aliases.champion, Some(1));
    }
}

#[test]
fn what_is_wrong_fails_alone() {
    let site = Site::new(Some(Kind::S3));
    let cloud = site.cloud();
    for version in 1..=4 {
        site.version(version);
        site.push(Some(version)).unwrap();
    }
    let right = cloud.take("unusual/versions/2/model.bin");
    cloud.put("unusual/versions/2/model.bin", "not a forest");
    // A manifest that names a way out, and keys that are one, or another number for the same folder.
    let manifest = String::from_utf8(cloud.take("unusual/versions/4/manifest.toml")).unwrap();
    cloud.put("unusual/versions/4/manifest.toml", manifest.replace("\"model.bin\"", "\"../../../evil\""));
    cloud.put("unusual/versions/4/evil", "evil");
    cloud.put("unusual/versions/03/model.bin", "another");
    cloud.put("unusual/versions/5/a/b", "nothing of a version");
    cloud.put("way/versions/1/../../../../evil/policy.toml", "");
    cloud.put("Loud/policy.toml", "");
    cloud.put(".quarantine/x/policy.toml", "");
    cloud.put("inbox/mine.onnx", "");
    cloud.put("unusual/policy.toml", "revision = 1\n[aliases]\nchampion = 3\nprevious = 1\n");
    let pulled = site.pull().unwrap();
    assert_eq!(pulled.brought, ["unusual version 1", "unusual version 3", "unusual policy, revision 1"]);
    let reasons = ["Loud: model name `Loud` is not allowed", "unusual version 2: ", "unusual version 4: ", "way: "];
    for (refused, reason) in pulled.refused.iter().zip(reasons) {
        assert!(refused.starts_with(reason), "{pulled:?}");
    }
    assert!(pulled.refused.len() == 4 && pulled.refused[2].contains("`../../../evil` is not allowed"), "{pulled:?}");
    assert!(pulled.refused[3].contains("..") && pulled.waiting.is_empty(), "{pulled:?}");
    let mut all = Vec::new();
    let mut folders = vec![site.folder.path().to_path_buf()];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() { folders.push(path) } else { all.push(path) }
        }
    }
    assert!(!all.iter().any(|path| path.to_string_lossy().contains("evil")), "{all:?}");
    // It is brought once it is right.
    cloud.put("unusual/versions/2/model.bin", right);
    assert_eq!(site.pull().unwrap().brought, ["unusual version 2"]);
    assert_eq!(site.versions(), [1, 2, 3]);
    // A way out beside the models: the store cannot be listed, and what is here stays.
    cloud.put("../evil/policy.toml", "");
    assert!(site.pull().unwrap_err().to_string().contains(".."));
    assert_eq!(folder(&site.config()).unwrap(), Some(mirrored(&site.config())));
    assert_eq!(site.versions(), [1, 2, 3]);
}

#[test]
fn another_version_under_the_same_number_is_never_taken_for_it() {
    let site = Site::new(Some(Kind::S3));
    site.push(Some(1)).unwrap();
    site.brought();
    // As an inbox or `publish` here gives the next number, and somebody else gave it there.
    let here = site.cache().root().join("unusual/versions/2");
    copy(&here, 22);
    let policy = "revision = 1\n[aliases]\nchampion = 2\nprevious = 1\n";
    // The policy is there before the version that it means.
    let known = site.cloud().take("unusual/policy.toml");
    site.cloud().put("unusual/policy.toml", policy.to_owned());
    let waiting = site.pull().unwrap().waiting;
    assert!(waiting.len() == 1 && waiting[0].contains("version 2, which it names"), "{waiting:?}");
    assert_eq!(site.cache().policy("unusual").unwrap().aliases.champion, Some(1));
    site.cloud().put("unusual/policy.toml", known);
    site.version(2);
    site.policy(policy);
    site.push(Some(2)).unwrap();
    let pulled = site.pull().unwrap();
    assert!(pulled.refused.len() == 1 && pulled.refused[0].contains("unusual version 2: the one here is another version"), "{pulled:?}");
    assert!(pulled.waiting.len() == 1 && pulled.waiting[0].contains("version 2, which it names"), "{pulled:?}");
    assert_eq!(site.cache().policy("unusual").unwrap().aliases.champion, Some(1));
    // What may speak of the one that was here must not mean the other one.
    site.cache().remove("unusual", 2, &author()).unwrap();
    let refused = site.pull().unwrap().refused;
    assert!(refused.len() == 1 && refused[0].contains("another version's here, which was removed"), "{refused:?}");
    site.version(3);
    site.policy("revision = 2\n[aliases]\nchampion = 3\nprevious = 1\n");
    site.push(Some(3)).unwrap();
    assert_eq!(site.pull().unwrap().brought, ["unusual version 3", "unusual policy, revision 2"]);
    // A signature over something else changes nothing.
    let signature = SigningKey::from_seed([1; 32]).unwrap().sign(telltale_models::trust::Signs::Manifest, "unusual", b"something else");
    site.cloud().put("unusual/versions/3/signature.json", signature.to_json());
    let refused = site.pull().unwrap().refused;
    assert!(refused.len() == 2 && refused[1].contains("was changed after"), "{refused:?}");
    assert!(!here.with_file_name("3").join("signature.json").exists());
}

#[test]
fn a_store_that_is_away_leaves_what_was_brought() {
    let mut site = Site::new(Some(Kind::S3));
    site.push(Some(1)).unwrap();
    site.cloud().set_away(true);
    let error = folder(&site.config()).unwrap_err().to_string();
    assert!(error.contains("object store, listing: ") && !error.contains("hush"), "nothing is here yet: {error}");
    site.cloud().set_away(false);
    assert_eq!(folder(&site.config()).unwrap(), Some(mirrored(&site.config())));
    assert_eq!(site.versions(), [1]);
    let files = site.cache().files("unusual", 1).unwrap();
    site.cloud().set_away(true);
    assert!(matches!(site.pull().unwrap_err(), MirrorError::Store { .. }));
    assert_eq!(folder(&site.config()).unwrap(), Some(mirrored(&site.config())), "what was brought serves");
    // Emptied there: nothing is taken away here.
    site.cloud().set_away(false);
    let objects = std::mem::take(&mut *site.cloud().inside.objects.lock());
    assert_eq!(site.brought(), [""; 0]);
    assert_eq!(site.cache().files("unusual", 1).unwrap(), files);
    // It is back, and is followed again; then nobody listens any more.
    *site.cloud().inside.objects.lock() = objects;
    site.version(2);
    site.push(Some(2)).unwrap();
    assert_eq!(site.brought(), ["unusual version 2"]);
    site.cloud = None;
    let url = "s3://bucket/models";
    let now = || SystemClock.now().micros();
    let started = now();
    assert!(matches!(pull(url, site.options.as_deref(), site.cache().root()).unwrap_err(), MirrorError::Store { .. }));
    let mut config = site.config();
    config.models.repository = Some(url.to_owned());
    assert_eq!(folder(&config).unwrap(), Some(mirrored(&config)), "what was brought serves");
    let took = now() - started;
    assert!(took < 3_000_000 * START_SECONDS as i64, "{took} µs");
    assert_eq!(site.versions(), [1, 2]);
}

#[test]
fn one_process_at_a_time_brings_models_into_a_folder() {
    let site = Site::new(None);
    site.push(Some(1)).unwrap();
    let held = Mirror::open(&site.url(), None, site.cache().root()).unwrap();
    assert!(matches!(site.pull().unwrap_err(), MirrorError::Busy { .. }));
    drop(held);
    assert_eq!(site.brought().len(), 2);
}

#[test]
fn addresses_and_options_that_are_wrong_are_refused_without_their_secrets() {
    let site = Site::new(None);
    let mut config = site.config();
    for (url, part) in [
        ("ftp://host/x", "allowed: s3://"),
        ("memory:///x", "no object store that is known here"),
        ("https://dav.example/x", "no object store that is known here"),
        ("s3://key:secret@bucket/x", "`s3://bucket/x`: it holds a user"),
        ("az://container/x?sig=secret", "`az://container/x`: it holds a user"),
        ("nothing", "relative URL"),
    ] {
        config.models.repository = Some(url.to_owned());
        let error = folder(&config).unwrap_err().to_string();
        assert!(error.contains(part) && !error.contains("secret"), "{error}");
    }
    let options = site.folder.path().join("wrong.options");
    config.models.repository_options = Some(options.clone());
    for (url, text, part) in [
        ("s3://bucket/x", "aws_secret_acess_key=secret", "this store has no option `aws_secret_acess_key`"),
        ("s3://bucket/x", "secret", "allowed is KEY=VALUE a line"),
        ("file:///x", "aws_region=secret", "a folder has no options"),
        ("gs://bucket/x", "google_service_account_key=secret", "gs://bucket/x"),
        ("az://bucket/x", "azure_storage_account_key=secret", "az://bucket/x"),
    ] {
        fs::write(&options, text).unwrap();
        config.models.repository = Some(url.to_owned());
        let error = folder(&config).unwrap_err().to_string();
        assert!(error.contains(part) && !error.contains("=secret"), "{error}");
    }
}
