use super::file::{decode, decode_profile, encode, encode_profile};
use super::*;
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

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
    assert!(refused(Shape { window: 32, ..right.clone() }, &profile).contains("a profile of 64 rows, allowed are 1 to 32"));
    let mut wrong = profile.clone();
    wrong.masses[1] += 1;
    assert!(refused(right.clone(), &wrong).contains("the two below it"), "{}", refused(right.clone(), &wrong));
    assert!(refused(Shape { trees: 19, ..right.clone() }, &profile).contains("follow the last tree"));
    assert!(refused(Shape { trees: 21, ..right.clone() }, &profile).contains("masses are missing"));
    assert!(Profile::of::<Vec<f32>>(&right, &[]).unwrap_err().to_string().contains("a profile of 0 rows"));
}
