use super::file::{decode, encode};
use super::*;
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};

/// A random tree whose leaves hold `rows` rows together.
pub(crate) fn grow(rng: &mut rand_chacha::ChaCha8Rng, inputs: usize, rows: u32, depth: usize) -> Branch {
    if rows < 2 || depth == 0 {
        return Branch::Leaf { rows };
    }
    let few = rng.random_range(1..rows);
    Branch::Split {
        input: u8::try_from(rng.random_range(0..inputs)).unwrap(),
        threshold: rng.random_range(-1.0..1.0),
        below: Box::new(grow(rng, inputs, few, depth - 1)),
        above: Box::new(grow(rng, inputs, rows - few, depth - 1)),
    }
}

fn random(seed: u64, inputs: usize, count: usize) -> Trees {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    Trees { inputs, sample: 256, trees: (0..count).map(|_| grow(&mut rng, inputs, 256, 8)).collect() }
}

/// The paper's definition, straightforward.
fn reference(trees: &Trees, row: &[f32]) -> f64 {
    fn c(n: u32) -> f64 {
        if n < 2 { 0.0 } else { 2.0 * (1..n).map(|k| 1.0 / f64::from(k)).sum::<f64>() - 2.0 * f64::from(n - 1) / f64::from(n) }
    }
    fn path(branch: &Branch, row: &[f32]) -> f64 {
        match branch {
            Branch::Leaf { rows } => c(*rows),
            Branch::Split { input, threshold, below, above } => {
                1.0 + path(if row[usize::from(*input)] <= *threshold { below } else { above }, row)
            }
        }
    }
    let mean = trees.trees.iter().map(|tree| path(tree, row)).sum::<f64>() / trees.trees.len() as f64;
    (-mean / c(trees.sample)).exp2()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_flat_walk_equals_the_definition(seed: u64, count in 1_usize..40, row in prop::collection::vec(-1.2_f32..1.2, 12)) {
        let trees = random(seed, 12, count);
        let forest = Forest::new(&trees).unwrap();
        let score = forest.score(&Row::new(&row));
        prop_assert!((score - reference(&trees, &row)).abs() < 1e-6, "{score} against {}", reference(&trees, &row));
        prop_assert!(score > 0.0 && score <= 1.0);
    }

    #[test]
    fn files_come_back_equal_and_any_cut_is_refused(seed: u64, count in 1_usize..5) {
        let trees = random(seed, 5, count);
        let bytes = encode(&trees).unwrap();
        prop_assert_eq!(&decode(&bytes).unwrap(), &trees);
        let cut = usize::try_from(seed % bytes.len() as u64).unwrap();
        prop_assert!(decode(&bytes[..cut]).is_err());
    }

    #[test]
    fn foreign_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut framed = b"TTIF\x01\x05\x00\x01\x00\x00\x02\x00\x00\x00".to_vec();
        framed.extend(&bytes);
        if let Ok(trees) = decode(&framed) {
            let _ = Forest::new(&trees).map(|forest| forest.score(&Row::new(&[0.5; 5])));
        }
    }

    #[test]
    fn powers_of_a_half_are_right(x in 0.0_f64..40.0) {
        prop_assert!((half_to_the(x) / (-x).exp2() - 1.0).abs() < 1e-14);
    }
}

#[test]
fn attribution_sums_to_the_shortening_of_the_path() {
    let trees = random(7, 12, 50);
    let forest = Forest::new(&trees).unwrap();
    let row = Row::new(&[0.3; 12]);
    let sum: f64 = forest.attribution(&row).iter().sum();
    let roots: f64 = forest.roots.iter().map(|root| f64::from(forest.length(root.at))).sum();
    let mean = -forest.score(&row).log2() * forest.normal;
    assert!((roots - mean * 50.0 - sum).abs() < 1e-3, "{sum}");
}

#[test]
fn what_is_not_allowed_is_refused_with_its_place() {
    let bad = |branch: Branch| Forest::new(&Trees { inputs: 2, sample: 8, trees: vec![Branch::Leaf { rows: 8 }, branch] });
    let leaf = || Box::new(Branch::Leaf { rows: 4 });
    let split = |input, threshold| Branch::Split { input, threshold, below: leaf(), above: leaf() };
    let message = |branch| bad(branch).err().unwrap().to_string();
    assert_eq!(message(split(2, 0.0)), "tree 1: node 0 reads input 2, allowed are 0 to 1");
    assert!(message(split(0, f32::NAN)).contains("threshold NaN"));
    assert!(message(Branch::Leaf { rows: 9 }).contains("9 rows, allowed are 1 to 8"));
    assert!(Forest::new(&Trees { inputs: 300, sample: 8, trees: vec![] }).err().unwrap().to_string().contains("300 inputs"));
}
