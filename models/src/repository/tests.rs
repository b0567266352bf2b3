use super::*;
use crate::calibration::conformal;
use crate::forest::{self, Branch, Forest, Row, Trees};
use crate::what_if::tests::alarm;
use crate::{Asked, Calibrated, Lane, Role};
use rand::{RngExt, SeedableRng};
use std::fs;
use std::sync::Arc;
use telltale_features::vector::FeatureVector;

pub(crate) const NAMES: [&str; 4] = ["address.requests_1m", "address.failed_logins_10m", "user.age", "session.paths_1h"];

pub(crate) fn index() -> FeatureIndex {
    FeatureIndex::new(NAMES.iter().enumerate().map(|(at, name)| (*name, 0xabc0 + at as u64)))
}

pub(crate) fn vector(values: [f64; 4]) -> FeatureVector {
    FeatureVector { values: Arc::new(values) }
}

/// A forest grown on standard uniform rows, and the rows.
fn grown(seed: u64) -> (Trees, Vec<[f32; 4]>) {
    fn grow(rng: &mut rand_chacha::ChaCha8Rng, rows: &[[f32; 4]], depth: usize) -> Branch {
        let input = rng.random_range(0..4_usize);
        let (low, high) = rows.iter().fold((f32::MAX, f32::MIN), |(low, high), row| (low.min(row[input]), high.max(row[input])));
        if rows.len() < 2 || depth == 0 || low >= high {
            return Branch::Leaf { rows: u32::try_from(rows.len()).unwrap() };
        }
        let threshold = rng.random_range(low..high);
        let (below, above): (Vec<_>, Vec<_>) = rows.iter().copied().partition(|row| row[input] <= threshold);
        let part = |rng: &mut _, rows: &[_]| Box::new(grow(rng, rows, depth - 1));
        Branch::Split { input: u8::try_from(input).unwrap(), threshold, below: part(rng, &below), above: part(rng, &above) }
    }
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let rows: Vec<[f32; 4]> = (0..4000).map(|_| std::array::from_fn(|_| rng.random())).collect();
    let trees = (0..100).map(|tree| grow(&mut rng, &rows[tree * 32..tree * 32 + 256], 8)).collect();
    (Trees { inputs: 4, sample: 256, trees }, rows)
}

pub(crate) fn draft(seed: u64) -> Draft {
    let (trees, rows) = grown(seed);
    let forest = Forest::new(&trees).unwrap();
    let inputs = NAMES.iter().enumerate().map(|(at, name)| Input {
        name: name.to_string(),
        hash: format!("{:016x}", 0xabc0 + at),
        usual: 0.5,
        spread: 0.25,
        missing: Missing::default(),
    });
    let manifest = Manifest {
        kind: Kind::Forest,
        description: "odd rows".into(),
        licence: "Apache-2.0".into(),
        origin: Origin::Own,
        output: Output::default(),
        training: Training::default(),
        files: Default::default(),
        metrics: Default::default(),
        inputs: inputs.collect(),
    };
    let raw = rows.iter().map(|row| forest.score(&Row::new(row))).collect::<Vec<_>>();
    let golden = GoldenRows {
        inputs: (0..4).map(|at| rows.iter().take(8).map(|row| f64::from(row[at])).collect()).collect(),
        raw: raw[..8].to_vec(),
    };
    Draft {
        manifest,
        model: forest::file::encode(&trees).unwrap(),
        calibration: conformal(&raw).ok(),
        golden,
        report: "{}".into(),
        profile: None,
        signature: None,
    }
}

struct Site {
    folder: tempfile::TempDir,
    repository: Repository,
}

/// A repository with one promoted forest `odd`.
fn site() -> Site {
    let folder = tempfile::tempdir().unwrap();
    let repository = Repository::create(folder.path().join("models")).unwrap();
    let version = repository.publish("odd", draft(1)).unwrap();
    repository.promote("odd", version).unwrap();
    Site { folder, repository }
}

impl Site {
    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join("models/odd").join(file)
    }

    fn load(&self, shipped_calibration: bool) -> Bundle {
        self.repository.load_with(&index(), &RuntimeOptions { shipped_calibration, ..RuntimeOptions::default() }).unwrap()
    }

    /// Why `odd` fails to load.
    fn failure(&self) -> String {
        let bundle = self.load(true);
        let [failure] = bundle.failures() else { panic!("{:?}", bundle.failures()) };
        assert_eq!(bundle.score(&vector([0.5; 4]), Lane(0)).degraded, ["model `odd` is not loaded"]);
        failure.reason.clone()
    }

    fn edit(&self, file: &str, from: &str, to: &str) {
        let path = self.path(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(path, text.replace(from, to)).unwrap();
    }
}

impl Bundle {
    pub(crate) fn of_forest(name: &str, version: u32, need: u64) -> Bundle {
        let folder = tempfile::tempdir().unwrap();
        let repository = Repository::create(folder.path()).unwrap();
        assert_eq!(repository.publish(name, draft(1)).unwrap(), version);
        repository.promote(name, version).unwrap();
        repository.load_with(&index(), &RuntimeOptions { calibration_rows: need, ..RuntimeOptions::default() }).unwrap()
    }
}

#[test]
fn a_published_forest_scores_and_counts_only_once_calibrated() {
    let site = site();
    let odd = vector([40.0, -3.0, 9.0, -2.0]);
    let part = |bundle: &Bundle, row: &FeatureVector| bundle.score(row, Lane(0)).parts.remove(0);
    let fresh = part(&site.load(false), &odd);
    assert_eq!((fresh.calibrated, fresh.role), (Calibrated::Calibrating { have: 0, need: 20_000 }, Role::Shadow));
    let bundle = site.load(true);
    assert_eq!(bundle.failures(), []);
    let shipped = part(&bundle, &odd);
    let Calibrated::PValue(p) = shipped.calibrated else { panic!("{shipped:?}") };
    assert!(p < 0.02 && shipped.role == Role::Champion && shipped.raw == fresh.raw, "{shipped:?}");
    let Calibrated::PValue(p) = part(&bundle, &vector([0.5; 4])).calibrated else { panic!() };
    assert!(p > 0.2, "{p}");
    // A missing value stands at its usual one.
    assert_eq!(part(&bundle, &vector([0.5; 4])).raw, part(&bundle, &vector([f64::NAN, 0.5, 0.5, 0.5])).raw);
}

#[test]
fn a_calibration_of_this_site_is_kept_and_used() {
    let site = site();
    let table = conformal(&(0..500).map(|n| f64::from(n) / 1000.0).collect::<Vec<_>>()).unwrap();
    let digest = site.repository.store_calibration("odd", 1, &table).unwrap();
    assert_eq!(site.repository.calibration("odd", 1, &digest).unwrap(), table);
    assert_eq!(site.load(false).calibration("odd"), Some(&table));
    site.edit(&format!("site/1/{digest}.json"), "500", "501");
    assert!(site.failure_of_site().contains("damaged or was changed"));
    let absent = site.repository.calibration("odd", 1, "../../../etc/passwd").unwrap_err().to_string();
    assert!(absent.contains("is not in the repository"), "{absent}");
}

impl Site {
    fn failure_of_site(&self) -> String {
        self.load(false).failures()[0].reason.clone()
    }
}

#[test]
fn a_version_that_was_changed_fails_alone_and_says_how() {
    let model = site();
    fs::write(model.path("versions/1/model.bin"), b"TTIF").unwrap();
    assert!(model.failure().contains("model.bin: its digest is"), "{}", model.failure());

    let absent = site();
    fs::remove_file(absent.path("versions/1/golden.parquet")).unwrap();
    assert!(absent.failure().contains("cannot read") && absent.failure().contains("golden.parquet"), "{}", absent.failure());

    let hash = site();
    hash.edit("versions/1/manifest.toml", "000000000000abc2", "000000000000abcd");
    assert!(hash.failure().contains("input `user.age` was trained with the definition 000000000000abcd, the schema's is 000000000000abc2"));

    let name = site();
    name.edit("versions/1/manifest.toml", "\"user.age\"", "\"user.agee\"");
    assert!(name.failure().contains("no feature of the schema (closest: `user.age`)"), "{}", name.failure());

    let key = site();
    key.edit("versions/1/manifest.toml", "licence", "license");
    assert!(key.failure().contains("manifest.toml") && key.failure().contains("unknown field `license`"), "{}", key.failure());

    let path = site();
    path.edit("versions/1/manifest.toml", "\"report.json\"", "\"../../x\"");
    assert!(path.failure().contains("`../../x` is not allowed") || path.failure().contains("TOML"), "{}", path.failure());

    let champion = site();
    champion.edit("policy.toml", "champion = 1", "champion = 7");
    assert!(champion.failure().contains("`odd` version 7 is not in the repository"), "{}", champion.failure());
}

#[test]
fn golden_rows_that_differ_in_the_last_bit_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let repository = Repository::create(folder.path()).unwrap();
    let mut wrong = draft(1);
    wrong.golden.raw[3] = f64::from_bits(wrong.golden.raw[3].to_bits() + 1);
    for (name, draft) in [("wrong", wrong), ("right", draft(2))] {
        let version = repository.publish(name, draft).unwrap();
        repository.promote(name, version).unwrap();
    }
    let bundle = repository.load_with(&index(), &RuntimeOptions::default()).unwrap();
    assert_eq!(bundle.models().collect::<Vec<_>>(), [("right", 1)]);
    assert!(bundle.failures()[0].reason.contains("row 3: the model scores"), "{:?}", bundle.failures());
}

#[test]
fn names_cannot_leave_the_repository() {
    let site = site();
    for name in ["../odd", "", "a/b", ".staging", "Ödd", "-x", &"x".repeat(65)] {
        let error = site.repository.publish(name, draft(1)).unwrap_err().to_string();
        assert!(error.contains("is not allowed: use 1 to 64"), "{error}");
    }
    assert!(Repository::open(site.folder.path().join("nothing")).unwrap_err().to_string().contains("open the model repository"));
}

#[test]
fn promotion_remembers_what_was_before() {
    let site = site();
    assert_eq!(site.repository.publish("odd", draft(2)).unwrap(), 2);
    site.repository.promote("odd", 2).unwrap();
    assert_eq!(site.repository.policy("odd").unwrap().aliases, Aliases { champion: Some(2), challenger: None, previous: Some(1) });
    assert!(site.repository.promote("odd", 9).unwrap_err().to_string().contains("version 9"));
    assert_eq!(site.load(true).models().collect::<Vec<_>>(), [("odd", 2)]);
}

#[test]
fn publishing_twice_gives_the_same_bytes() {
    let (one, two) = (site(), site());
    let manifest = |site: &Site| fs::read_to_string(site.path("versions/1/manifest.toml")).unwrap();
    assert_eq!(manifest(&one), manifest(&two));
}

#[test]
fn reasons_are_true() {
    let site = site();
    let bundle = site.load(true);
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(9);
    let (mut alerts, mut explained) = (0, 0);
    for _ in 0..600 {
        let mut row: [f64; 4] = std::array::from_fn(|_| rng.random());
        for _ in 0..rng.random_range(1..4) {
            row[rng.random_range(0..4)] = rng.random_range(-1.0..3.0);
        }
        let scores = bundle.score(&vector(row), Lane(0));
        if !matches!(scores.parts[0].calibrated, Calibrated::PValue(p) if p < 0.05) {
            continue;
        }
        alerts += 1;
        let reasons = bundle.explain(&vector(row), &scores, &Asked::default(), &alarm).0;
        assert!(reasons.len() <= 5 && reasons.iter().all(|reason| reason.share > 0.0));
        let Some(top) = reasons.first() else { continue };
        assert!((reasons.iter().map(|reason| reason.share).sum::<f64>() - 1.0).abs() < 1e-9);
        assert_eq!(top.value, row[top.feature.index()]);
        row[top.feature.index()] = top.usual;
        assert!(alarm(&bundle.score(&vector(row), Lane(0))) < alarm(&scores), "a reason is true or is none");
        explained += 1;
    }
    // Each reason was just seen to lower the risk; this is how many alerts have one.
    assert!(alerts > 100 && f64::from(explained) >= 0.9 * f64::from(alerts), "{explained} of {alerts} alerts have a reason");
}
