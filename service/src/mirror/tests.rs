use super::*;
use std::fs;
use telltale_models::Repository;
use telltale_models::repository::{Author, ModelPolicy};
use telltale_models::trust::SigningKey;

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/default/unusual");

/// A repository in one folder, an object store in another, a mirror of that in a third.
struct Site {
    folder: tempfile::TempDir,
}

impl Site {
    /// With a version of the shipped forest, promoted.
    fn new() -> Self {
        let site = Self { folder: tempfile::tempdir().unwrap() };
        let version = site.own().join("unusual/versions/1");
        fs::create_dir_all(&version).unwrap();
        fs::create_dir(site.folder.path().join("store")).unwrap();
        for entry in fs::read_dir(Path::new(SHIPPED).join("versions/1")).unwrap() {
            let from = entry.unwrap().path();
            fs::copy(&from, version.join(from.file_name().unwrap())).unwrap();
        }
        fs::write(site.own().join("unusual/policy.toml"), "[aliases]\nchampion = 1\n").unwrap();
        site
    }

    fn own(&self) -> PathBuf {
        self.folder.path().join("own")
    }

    fn cache(&self) -> PathBuf {
        self.folder.path().join("data/models")
    }

    fn url(&self) -> String {
        format!("file://{}/store/models", self.folder.path().display())
    }

    fn there(&self, file: &str) -> PathBuf {
        self.folder.path().join("store/models/unusual").join(file)
    }

    fn push(&self, version: Option<u32>) -> Result<Vec<String>, MirrorError> {
        push(&self.url(), None, &self.own(), ("unusual", version))
    }

    fn pull(&self) -> Result<Vec<String>, MirrorError> {
        pull(&self.url(), None, &self.cache())
    }

    fn versions(&self) -> Vec<u32> {
        Repository::open(self.cache()).unwrap().versions("unusual").unwrap_or_default()
    }
}

fn author() -> Author {
    Author { who: "a test".to_owned(), why: String::new(), time_us: 0 }
}

#[test]
fn what_is_pushed_is_pulled_whole_once_and_followed_from_then_on() {
    let site = Site::new();
    assert_eq!(site.push(Some(1)).unwrap(), ["unusual version 1", "unusual policy, revision 0"]);
    assert_eq!(site.pull().unwrap(), ["unusual version 1", "unusual policy, revision 0"]);
    assert_eq!(site.pull().unwrap(), [""; 0]);
    let (own, cache) = (Repository::open(site.own()).unwrap(), Repository::open(site.cache()).unwrap());
    assert_eq!(own.files("unusual", 1).unwrap(), cache.files("unusual", 1).unwrap());
    // A guard's step here holds until the policy changes there.
    let revised = |repository: &Repository, revision: u64| {
        repository.change("unusual", |policy| Ok(ModelPolicy { revision, ..policy.clone() })).unwrap();
    };
    revised(&cache, 3);
    assert_eq!(site.pull().unwrap(), [""; 0]);
    assert_eq!(cache.policy("unusual").unwrap().revision, 3);
    revised(&own, 5);
    assert_eq!(site.push(None).unwrap(), ["unusual policy, revision 5"]);
    assert_eq!(site.pull().unwrap(), ["unusual policy, revision 5"]);
    assert_eq!(cache.policy("unusual").unwrap().revision, 5);
    // A signature that comes later comes too.
    own.sign("unusual", 1, &SigningKey::from_seed([1; 32]).unwrap(), &author()).unwrap();
    site.push(Some(1)).unwrap();
    site.pull().unwrap();
    assert!(site.cache().join("unusual/versions/1/signature.json").is_file());
}

#[test]
fn a_version_that_is_not_complete_or_was_changed_there_never_becomes_visible() {
    let site = Site::new();
    site.push(Some(1)).unwrap();
    let manifest = fs::read(site.there("versions/1/manifest.toml")).unwrap();
    // As in the middle of a push: the manifest comes last.
    fs::remove_file(site.there("versions/1/manifest.toml")).unwrap();
    fs::remove_file(site.there("policy.toml")).unwrap();
    assert_eq!((site.pull().unwrap(), site.versions()), (vec![], vec![]));
    // The manifest is there, a part is not.
    fs::write(site.there("versions/1/manifest.toml"), &manifest).unwrap();
    let model = fs::read(site.there("versions/1/model.bin")).unwrap();
    fs::remove_file(site.there("versions/1/model.bin")).unwrap();
    assert_eq!((site.pull().unwrap(), site.versions()), (vec![], vec![]));
    // It is there and is another one.
    fs::write(site.there("versions/1/model.bin"), &model[1..]).unwrap();
    let error = site.pull().unwrap_err().to_string();
    assert!(error.contains("model.bin: its digest is") && site.versions().is_empty(), "{error}");
    fs::write(site.there("versions/1/model.bin"), &model).unwrap();
    assert_eq!((site.pull().unwrap(), site.versions()), (vec!["unusual version 1".to_owned()], vec![1]));
    // A policy of a version that nobody brought is refused, what stands here stays.
    fs::write(site.there("policy.toml"), "[aliases]\nchampion = 7\n").unwrap();
    assert!(site.pull().unwrap_err().to_string().contains("version 7 is not in the repository"));
}

#[test]
fn a_version_there_is_never_replaced_and_a_store_that_is_gone_leaves_what_was_brought() {
    let site = Site::new();
    site.push(Some(1)).unwrap();
    let manifest = site.own().join("unusual/versions/1/manifest.toml");
    fs::write(&manifest, fs::read_to_string(&manifest).unwrap() + "\n# another\n").unwrap();
    let error = site.push(Some(1)).unwrap_err().to_string();
    assert!(error.contains("versions never change"), "{error}");

    let mut config = Config { data: site.folder.path().join("data"), ..Config::default() };
    config.models.repository = Some(site.url());
    assert_eq!(folder(&config).unwrap(), Some(site.cache()));
    fs::write(site.there("policy.toml"), "nonsense").unwrap();
    assert_eq!(folder(&config).unwrap(), Some(site.cache()), "what was brought serves");
    assert_eq!(site.versions(), [1]);
    for (url, part) in
        [("ftp://host/x", "allowed: s3://"), ("s3://key:secret@bucket/x", "holds a user or password"), ("nothing", "relative URL")]
    {
        config.models.repository = Some(url.to_owned());
        let error = folder(&config).unwrap_err().to_string();
        assert!(error.contains(part) && !error.contains("secret"), "{error}");
    }
}
