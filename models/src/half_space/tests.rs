use super::file::{decode, decode_profile, encode, encode_profile};
use std::time::Duration;

use super::*;
use crate::bundle::{Engine, Input, Model};
use crate::calibration::Meaning;
use crate::repository::tests::vector;
use crate::slot::{Loaded, Slot, Standing};
use crate::{Bundle, CalibrationTable, CalibratorOptions, ModelState};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use telltale_features::entity::{EntityId, EntityKey, EntityType, Subject, Subjects};
use telltale_features::time::Timestamp;
use telltale_features::vector::FeatureId;

pub(crate) fn shape(seed: u64, inputs: usize) -> Shape {
    Shape { scales: vec![Scale { centre: 0.0, width: 1.0 }; inputs], seed, trees: 20, depth: 12, window: 256 }
}

/// Rows around one half in every input.
fn rows(seed: u64, inputs: usize, count: usize) -> Vec<Vec<f32>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|_| (0..inputs).map(|_| (0..4).map(|_| rng.random::<f32>() / 4.0).sum()).collect()).collect()
}

fn trees(shape: &Shape, rows: &[Vec<f32>]) -> HalfSpace {
    HalfSpace::new(Arc::new(shape.clone()), &Profile::of(shape, rows).unwrap()).unwrap()
}

/// The paper's algorithm: whole trees are built, every row of the window is counted at each node of its path, a walk ends at `0.1·ψ` rows.
fn reference(shape: &Shape, window: &[Vec<f32>], row: &[f32]) -> f64 {
    enum Tree {
        Leaf { mass: u32 },
        Node { mass: u32, input: usize, threshold: f64, below: Box<Tree>, above: Box<Tree> },
    }
    fn build(shape: &Shape, tree: u64, node: u64, depth: u8, ranges: &mut [(f64, f64)]) -> Tree {
        if depth == shape.depth {
            return Tree::Leaf { mass: 0 };
        }
        let input = usize::try_from(drawn(shape.seed, tree, node << 1) % ranges.len() as u64).unwrap();
        let (low, high) = ranges[input];
        let threshold = (low + high) / 2.0;
        ranges[input] = (low, threshold);
        let below = Box::new(build(shape, tree, node * 2, depth + 1, ranges));
        ranges[input] = (threshold, high);
        let above = Box::new(build(shape, tree, node * 2 + 1, depth + 1, ranges));
        ranges[input] = (low, high);
        Tree::Node { mass: 0, input, threshold, below, above }
    }
    fn count(tree: &mut Tree, row: &[f64]) {
        match tree {
            Tree::Leaf { mass } => *mass += 1,
            Tree::Node { mass, input, threshold, below, above } => {
                *mass += 1;
                count(if row[*input] < *threshold { below } else { above }, row);
            }
        }
    }
    fn score(tree: &Tree, row: &[f64], depth: i32, limit: f64) -> f64 {
        match tree {
            Tree::Leaf { mass } => f64::from(*mass) * 2_f64.powi(depth),
            Tree::Node { mass, .. } if f64::from(*mass) <= limit => f64::from(*mass) * 2_f64.powi(depth),
            Tree::Node { input, threshold, below, above, .. } => {
                score(if row[*input] < *threshold { below } else { above }, row, depth + 1, limit)
            }
        }
    }
    let scaled = |row: &[f32]| shape.scales.iter().zip(row).map(|(scale, value)| scale.apply(*value)).collect::<Vec<f64>>();
    let sum: f64 = (0..shape.trees)
        .map(|number| {
            let mut ranges: Vec<(f64, f64)> = Cuts::new(shape, number).ranges;
            let mut tree = build(shape, u64::from(number), 1, 0, &mut ranges);
            window.iter().for_each(|row| count(&mut tree, &scaled(row)));
            score(&tree, &scaled(row), 0, window.len() as f64 / 10.0)
        })
        .sum();
    1.0 / (1.0 + sum / (window.len() as f64 * f64::from(shape.trees)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_pruned_profile_scores_as_the_paper_does(seed: u64, inputs in 1_usize..6, row in prop::collection::vec(-1.0_f32..3.0, 6)) {
        let shape = Shape { trees: 5, depth: 9, ..shape(seed, inputs) };
        let window = rows(seed ^ 1, inputs, 200);
        let score = trees(&shape, &window).score(&row);
        let expected = reference(&shape, &window, &row);
        prop_assert!((score - expected).abs() < 1e-12, "{score} {expected}");
        prop_assert!(score > 0.0 && score <= 1.0);
    }

    #[test]
    fn files_come_back_equal_and_any_cut_is_refused(seed: u64, inputs in 1_usize..6) {
        let shape = shape(seed, inputs);
        let profile = Profile::of(&shape, &rows(seed, inputs, 256)).unwrap();
        let bytes = encode(&shape, &profile).unwrap();
        prop_assert_eq!(decode(&bytes).unwrap(), (shape.clone(), profile.clone()));
        let cut = usize::try_from(seed % bytes.len() as u64).unwrap();
        prop_assert!(decode(&bytes[..cut]).is_err());
        prop_assert!(decode(&[bytes.as_slice(), &[0]].concat()).is_err());
        prop_assert_eq!(decode_profile(&shape, &encode_profile(&profile)).unwrap(), profile);
    }

    #[test]
    fn foreign_bytes_never_panic_and_every_score_is_finite(
        changed in prop::collection::vec((any::<u16>(), any::<u8>()), 0..6),
        row in prop::collection::vec(any::<f32>(), 0..5),
        free in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let shape = shape(3, 3);
        let mut bytes = encode(&shape, &Profile::of(&shape, &rows(3, 3, 64)).unwrap()).unwrap();
        for (at, byte) in changed {
            let at = usize::from(at) % bytes.len();
            bytes[at] = byte;
        }
        let free = [b"TTHS\x01\x05\x01\x00\x02\x00", free.as_slice()].concat();
        for bytes in [bytes, free] {
            if let Ok((shape, profile)) = decode(&bytes) {
                let score = HalfSpace::new(Arc::new(shape), &profile).unwrap().score(&row);
                prop_assert!(score > 0.0 && score <= 1.0);
            }
        }
    }
}

#[test]
fn what_the_window_never_held_scores_highest_and_a_new_window_changes_that() {
    let shape = shape(7, 4);
    let ordinary = rows(1, 4, 256);
    let moved: Vec<Vec<f32>> = ordinary.iter().map(|row| row.iter().map(|value| value + 1.5).collect()).collect();
    let trees = trees(&shape, &ordinary);
    let highest = rows(2, 4, 200).iter().map(|row| trees.score(row)).fold(0.0, f64::max);
    let lowest = moved.iter().map(|row| trees.score(row)).fold(1.0, f64::min);
    assert!(lowest > highest, "{lowest} {highest}");
    let later = HalfSpace::new(Arc::clone(trees.shape()), &Profile::of(&shape, &moved).unwrap()).unwrap();
    assert!(later.score(&moved[0]) < 0.2 && later.score(&ordinary[0]) > 0.5);
    // A window is counted, not remembered in order.
    let turned: Vec<Vec<f32>> = moved.iter().rev().cloned().collect();
    assert_eq!(Profile::of(&shape, &turned).unwrap(), Profile::of(&shape, &moved).unwrap());
}

#[test]
fn what_is_not_allowed_is_refused() {
    let right = shape(1, 2);
    let profile = Profile::of(&right, &rows(1, 2, 64)).unwrap();
    let refused = |shape: Shape, profile: &Profile| HalfSpace::new(Arc::new(shape), profile).err().unwrap().to_string();
    assert!(refused(Shape { depth: 33, ..right.clone() }, &profile).contains("20 trees of depth 33"));
    assert!(refused(Shape { window: 8, ..right.clone() }, &profile).contains("a window of 8 rows, allowed are 16 to 65536"));
    let wide = Shape { scales: vec![right.scales[0]; 257], window: 65_536, ..right.clone() };
    assert!(refused(wide, &profile).contains("257 inputs with a window of 65536 rows, allowed are 256"));
    let many = Shape { trees: 300, window: 65_536, ..right.clone() };
    assert!(refused(many, &profile).contains("300 trees with a window of 65536 rows, allowed are 256"));
    assert!(refused(Shape { window: 32, ..right.clone() }, &profile).contains("a profile of 64 rows, allowed are 1 to 32"));
    let mut wrong = profile.clone();
    wrong.masses[1] += 1;
    assert!(refused(right.clone(), &wrong).contains("the two below it"), "{}", refused(right.clone(), &wrong));
    assert!(refused(Shape { trees: 19, ..right.clone() }, &profile).contains("follow the last tree"));
    assert!(refused(Shape { trees: 21, ..right.clone() }, &profile).contains("masses are missing"));
    assert!(Profile::of::<Vec<f32>>(&right, &[]).unwrap_err().to_string().contains("a profile of 0 rows"));
}

#[test]
fn a_version_that_plays_two_parts_learns_every_row_once() {
    let shape = Shape { window: 16, trees: 4, ..shape(5, 4) };
    let engine = Engine::HalfSpace(Arc::new(trees(&shape, &rows(5, 4, 16))));
    let input = |at| Input { feature: FeatureId(at), usual: 0.5, spread: 0.25, fill: 0.5 };
    let model = Arc::new(Model { engine, inputs: (0..4).map(input).collect() });
    let table = CalibrationTable::new(Meaning::PValue, 100, vec![(0.0, 1.0), (1.0, 0.01)]).unwrap();
    let standing = Standing::Calibrated(Arc::new(table));
    let loaded = |version| Loaded { name: "odd".into(), version, model: Arc::clone(&model), standing: standing.clone(), renewed: None };
    let (champion, previous, shadows) = (Some(loaded(2)), Some(loaded(1)), vec![loaded(1)]);
    let slot = Slot { name: "odd".into(), state: ModelState::default(), champion, previous, canary: None, shadows };
    assert_eq!(slot.loaded().map(|loaded| loaded.version).collect::<Vec<_>>(), [2, 1]);
    let bundle = Bundle::new(vec![slot], Vec::new());
    let mut windows = Windows::new(CalibratorOptions { need: 1, actors: vec![EntityType(0)] }, Duration::ZERO);
    let mut completed = Vec::new();
    for at in 0..16_u8 {
        assert!(completed.is_empty(), "a window is full after {at} rows");
        let id = EntityId { kind: EntityType(0), key: EntityKey([at; 16]) };
        let subjects = Subjects::new([Subject { id, verified: false, name: None }]);
        completed = windows.offer(&bundle, &vector([f64::from(at) / 16.0; 4]), (&subjects, Timestamp::from_micros(i64::from(at))));
    }
    assert_eq!(completed.iter().map(|renewed| renewed.version).collect::<Vec<_>>(), [2, 1]);
    // A new profile is in force in both parts.
    let renewed = bundle.with_profile("odd", 1, Arc::clone(&completed[1].profile)).unwrap();
    assert!(renewed.slots()[0].previous.iter().chain(&renewed.slots()[0].shadows).all(|loaded| loaded.renewed.is_some()));
}
