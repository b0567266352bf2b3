//! Steps of a population: exact under merge, rare where few go, bounded whatever a client invents.

use super::*;
use crate::kernel::plan::Scale;

fn observe(state: &mut EntityState, layout: &Layout, event: &Event) -> Vec<f64> {
    let mut reads = Vec::new();
    state.observe(layout, event, &mut reads);
    reads
}

/// Steps that others made: one histogram of pairs over an hour.
fn population() -> Layout {
    let window = Duration::from_secs(3600);
    Layout::new(EntityPlan {
        values: vec![205],
        members: Vec::new(),
        accumulators: vec![Accumulator {
            tag: 3000,
            kind: AccumulatorKind::Histogram { filter: ANY, value: 0, window, scale: Scale::Pairs },
        }],
        reads: vec![Read::StepRarity(0)],
        ..plan(&[3600])
    })
}

fn stepped(time: i64, from: u8, to: u8) -> Event {
    Event { values: smallvec::smallvec![crate::kernel::step(from.into(), to.into())], members: smallvec::smallvec![], ..event(time) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Steps of a population add up exactly, however many writers saw them and in whatever order their states meet.
    #[test]
    fn steps_of_a_population_merge_exactly(events in prop::collection::vec((0..7200 * SECOND, 0..5_u8, 0..5_u8, 0..3_u8, any::<bool>()), 0..200)) {
        let layout = population();
        let made = |of: Option<u8>| {
            let events = events.iter().filter(move |(.., part, _)| of.is_none_or(|of| of == *part));
            let events: Vec<Event> = events.map(|(time, from, to, _, back)| Event { sign: if *back { -1 } else { 1 }, ..stepped(START + time, *from, *to) }).collect();
            applied(&layout, &events)
        };
        let mut merged = made(Some(2));
        merged.merge(&layout, &made(Some(0)));
        merged.merge(&layout, &made(Some(1)));
        let whole = made(None);
        prop_assert!(merged == whole, "{merged:?}\n{whole:?}");
        let blob = whole.encode(&layout);
        prop_assert_eq!(EntityState::decode(&layout, &blob).unwrap(), whole);
    }
}

#[test]
fn what_few_of_a_population_do_next_is_rare() {
    let layout = population();
    let mut state = EntityState::default();
    // On 1 follows 2 nine times in ten, else 3; other steps lie between.
    for step in 0..300 {
        observe(&mut state, &layout, &stepped(START + step * 10 * SECOND, 1, if step % 10 == 0 { 3 } else { 2 }));
        observe(&mut state, &layout, &stepped(START + step * 10 * SECOND + SECOND, 7, 3));
    }
    let rarity = |from, to| observe(&mut state.clone(), &layout, &stepped(START + 3001 * SECOND, from, to))[0];
    assert!((rarity(1, 2) - 0.105).abs() < 0.02, "{}", rarity(1, 2));
    assert!((rarity(1, 3) - 2.3).abs() < 0.1, "{}", rarity(1, 3));
    assert!(rarity(1, 9) > 6.0, "{}", rarity(1, 9));
    assert!(rarity(40, 2).is_nan(), "nothing followed on it yet");
}

/// A client that invents paths makes ever new steps: the section stays within its bound, and what is known stays known.
#[test]
fn invented_steps_fill_no_memory() {
    for scale in [Scale::Pairs, Scale::Successions] {
        let mut rng = seeded(6);
        let window = Duration::from_secs(3600);
        let kind = AccumulatorKind::Histogram { filter: ANY, value: 0, window, scale };
        let layout =
            Layout::new(EntityPlan { accumulators: vec![Accumulator { tag: 3000, kind }], reads: vec![], ..population().plan().clone() });
        let mut state = EntityState::default();
        for step in 0..60_000 {
            state.apply(
                &layout,
                &Event { values: smallvec::smallvec![f64::from(rng.random_range(0..4096_u32))], ..event(START + step * 1000) },
            );
        }
        let most = crate::kernel::histogram_cells(scale);
        let cells = state.histograms.as_ref().unwrap()[0].cells.len();
        assert!(cells <= most && cells > most / 2, "{cells} of {most}");
        let blob = state.encode(&layout);
        assert!(blob.len() <= crate::schema::worst_case(layout.plan()), "{}", blob.len());
        assert_eq!(EntityState::decode(&layout, &blob).unwrap(), state);
    }
}
