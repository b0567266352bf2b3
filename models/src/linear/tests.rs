use super::file::{decode, encode};
use super::*;
use crate::scale::{LIMIT, compress};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Parts of each kind with random numbers.
pub(crate) fn random(seed: u64, inputs: usize) -> Vec<Parts> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let scales: Vec<Scale> =
        (0..inputs).map(|_| Scale { centre: rng.random_range(-2.0..2.0), width: rng.random_range(0.1..3.0) }).collect();
    let mut numbers = |count: usize| (0..count).map(|_| rng.random_range(-1.0..1.0)).collect::<Vec<f32>>();
    let rank = inputs.div_ceil(2);
    let basis = Basis { mean: numbers(inputs), directions: (0..rank).map(|_| numbers(inputs)).collect(), noise: 0.5 };
    let component = |numbers: &mut dyn FnMut(usize) -> Vec<f32>| Component {
        mean: numbers(rank),
        precision: numbers(rank * (rank + 1) / 2),
        offset: numbers(1)[0],
    };
    let components = (0..3).map(|_| component(&mut numbers)).collect();
    let heads = vec![
        Head::Pca(basis.clone()),
        Head::Gmm(basis, components),
        Head::KMeans((0..4).map(|_| numbers(inputs)).collect()),
        Head::Logistic { weights: numbers(inputs), bias: numbers(1)[0] },
    ];
    heads.into_iter().map(|head| Parts { scales: scales.clone(), head }).collect()
}

/// The definitions, written out with whole matrices and the system's functions.
fn reference(parts: &Parts, row: &[f32]) -> f64 {
    let wide = |numbers: &[f32]| numbers.iter().map(|number| f64::from(*number)).collect::<Vec<f64>>();
    let z: Vec<f64> = parts
        .scales
        .iter()
        .zip(row)
        .map(|(scale, x)| ((compress(f64::from(*x)) - f64::from(scale.centre)) / f64::from(scale.width)).clamp(-LIMIT, LIMIT))
        .collect();
    let inner = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let minus = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<f64>>();
    let split = |basis: &Basis| {
        let centred = minus(&z, &wide(&basis.mean));
        let y: Vec<f64> = basis.directions.iter().map(|direction| inner(&centred, &wide(direction))).collect();
        let rebuilt = |at: usize| y.iter().zip(&basis.directions).map(|(y, direction)| y * f64::from(direction[at])).sum::<f64>();
        let rest: f64 = (0..z.len()).map(|at| (centred[at] - rebuilt(at)).powi(2)).sum();
        (y, rest)
    };
    match &parts.head {
        Head::Pca(basis) => split(basis).1 / z.len() as f64,
        Head::Gmm(basis, components) => {
            let (y, rest) = split(basis);
            let distance = |component: &Component| {
                let (rank, away) = (y.len(), minus(&y, &wide(&component.mean)));
                let lower = |row: usize, column: usize| {
                    if column > row { 0.0 } else { f64::from(component.precision[row * (row + 1) / 2 + column]) }
                };
                let precision = |a: usize, b: usize| (0..rank).map(|k| lower(a, k) * lower(b, k)).sum::<f64>();
                let form: f64 =
                    (0..rank).flat_map(|a| (0..rank).map(move |b| (a, b))).map(|(a, b)| away[a] * precision(a, b) * away[b]).sum();
                form + f64::from(component.offset)
            };
            components.iter().map(distance).fold(f64::INFINITY, f64::min) + rest / f64::from(basis.noise)
        }
        Head::KMeans(centroids) => {
            let distance = |centroid: &Vec<f32>| minus(&z, &wide(centroid)).iter().map(|part| part * part).sum::<f64>().sqrt();
            centroids.iter().map(distance).fold(f64::INFINITY, f64::min)
        }
        Head::Logistic { weights, bias } => 1.0 / (1.0 + (-inner(&z, &wide(weights)) - f64::from(*bias)).exp()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn scores_equal_the_definitions(seed: u64, row in prop::collection::vec(-50.0_f32..50.0, 7)) {
        for parts in random(seed, 7) {
            let (model, expected) = (Linear::new(parts.clone()).unwrap(), reference(&parts, &row));
            let score = model.score(&row);
            prop_assert!((score - expected).abs() < 1e-9 * (1.0 + expected.abs()), "{}: {score} {expected}", model.name());
        }
    }

    #[test]
    fn a_probability_never_falls_as_the_margin_rises(a in -2_000.0_f64..2_000.0, b in -2_000.0_f64..2_000.0, apart in 0.0_f64..1e-3) {
        for (low, high) in [(a.min(b), a.max(b)), (a, a + apart), (a, 1e9), (-1e9, a)] {
            prop_assert!(logistic(low) <= logistic(high), "{low} {high}: {} {}", logistic(low), logistic(high));
        }
        // The last place of e^x has an error of |x| units and a few of the series.
        let (found, exact) = (logistic(a), 1.0 / (1.0 + (-a.clamp(-690.0, 690.0)).exp()));
        prop_assert!((found / exact - 1.0).abs() < 1e-12, "{a}: {found} {exact}");
    }

    #[test]
    fn files_come_back_equal_and_any_cut_is_refused(seed: u64, inputs in 1_usize..9) {
        for parts in random(seed, inputs) {
            let bytes = encode(&parts).unwrap();
            prop_assert_eq!(&decode(&bytes).unwrap(), &parts);
            let cut = usize::try_from(seed % bytes.len() as u64).unwrap();
            prop_assert!(decode(&bytes[..cut]).is_err());
            prop_assert!(decode(&[bytes.as_slice(), &[0]].concat()).unwrap_err().contains("1 bytes follow"));
        }
    }

    #[test]
    fn foreign_bytes_never_panic_and_every_score_is_finite(
        kind in 0_u8..6,
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        changed in prop::collection::vec((any::<u16>(), any::<u8>()), 0..6),
        row in prop::collection::vec(any::<f32>(), 0..12),
    ) {
        let mut framed = [b"TTLN\x01", &[kind, 2, 0][..], &bytes].concat();
        let mut right = encode(&random(1, 5)[usize::from(kind % 4)]).unwrap();
        for (at, byte) in changed {
            let at = usize::from(at) % right.len();
            right[at] = byte;
        }
        for bytes in [&mut framed, &mut right] {
            if let Ok(model) = decode(bytes).map_err(ModelError::Data).and_then(Linear::new) {
                prop_assert!(model.score(&row).is_finite() && model.margin(&row).is_finite());
            }
        }
    }
}

#[test]
fn the_largest_numbers_that_are_allowed_overflow_nothing() {
    let (inputs, most) = (9, MOST);
    let full = |count: usize| vec![most; count];
    let basis = Basis { mean: full(inputs), directions: vec![full(inputs); inputs], noise: LEAST_NOISE };
    let component = Component { mean: vec![-most; inputs], precision: full(45), offset: most };
    let heads = [
        Head::Pca(basis.clone()),
        Head::Gmm(basis, vec![component]),
        Head::KMeans(vec![full(inputs)]),
        Head::Logistic { weights: full(inputs), bias: most },
    ];
    for head in heads {
        let model = Linear::new(Parts { scales: vec![Scale { centre: most, width: 1e-6 }; inputs], head }).unwrap();
        for row in [[f32::MAX; 9], [f32::MIN; 9], [f32::NAN; 9], [f32::NEG_INFINITY; 9]] {
            assert!(model.score(&row).is_finite(), "{} of {row:?}", model.name());
        }
    }
}

#[test]
fn a_probability_that_is_one_still_has_log_odds() {
    let parts = |bias| Parts { scales: vec![Scale { centre: 0.0, width: 1.0 }], head: Head::Logistic { weights: vec![10.0], bias } };
    let model = Linear::new(parts(0.0)).unwrap();
    assert_eq!((model.score(&[1e6]), model.score(&[0.0])), (1.0, 0.5));
    assert!(model.margin(&[1e6]) > model.margin(&[500.0]) && model.score(&[-1e6]) > 0.0);
    assert_eq!(Linear::new(parts(1e6)).unwrap().score(&[0.0]), 1.0);
}

#[test]
fn what_is_not_allowed_is_refused_with_its_place() {
    let kinds = random(3, 4);
    let message = |change: &dyn Fn(&mut Parts), kind: usize| {
        let mut parts = kinds[kind].clone();
        change(&mut parts);
        Linear::new(parts).err().unwrap().to_string()
    };
    assert!(message(&|parts| parts.scales.clear(), 0).contains("0 inputs, allowed are 1 to 4096"));
    assert!(message(&|parts| parts.scales[1].width = 0.0, 2).contains("input 1 has the centre"));
    assert!(message(&|parts| parts.scales.truncate(3), 3).contains("weights: 4 numbers, allowed are 3"));
    let first = |parts: &mut Parts, number: f32| match &mut parts.head {
        Head::Pca(basis) | Head::Gmm(basis, _) => basis.directions[0][2] = number,
        Head::KMeans(centroids) => centroids[0][2] = number,
        Head::Logistic { bias, .. } => *bias = number,
    };
    for (kind, place) in ["direction 0", "direction 0", "centroid 0", "bias"].into_iter().enumerate() {
        for number in [f32::NAN, f32::INFINITY, 2e6] {
            assert!(message(&|parts| first(parts, number), kind).starts_with(place));
        }
    }
    let noise = |parts: &mut Parts| {
        if let Head::Pca(basis) = &mut parts.head {
            basis.noise = 0.0
        }
    };
    assert!(message(&noise, 0).contains("the noise is 0"));
    let many = |inputs: usize, head| Linear::new(Parts { scales: vec![kinds[0].scales[0]; inputs], head }).err().unwrap().to_string();
    let centroids = Head::KMeans(vec![vec![0.0; 2048]; 129]);
    assert!(many(2048, centroids).contains("129 centroids of 2048 numbers each, allowed are 128"));
    let basis = Basis { mean: vec![0.0; 64], directions: vec![vec![0.0; 64]; 64], noise: 1.0 };
    let component = Component { mean: vec![0.0; 64], precision: vec![0.0; 2080], offset: 0.0 };
    assert!(many(64, Head::Gmm(basis, vec![component; 127])).contains("127 components of 2080 numbers each, allowed are 126"));
    assert!(decode(b"TTLN\x02").is_err() && decode(b"TTLN\x02\x01").unwrap_err().contains("format 2, this build reads 1"));
}
