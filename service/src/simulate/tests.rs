//! What the simulator promises: the same bytes for the same seed, records in order, machines' own marks nowhere.

use std::collections::HashMap;

use super::attack::{Attack, Intensity, Variants};
use super::network::Addresses;
use super::shop::Shop;
use super::stream::{Item, Stream, StreamOptions, Truth};
use super::world::{World, WorldOptions};
use super::{DEFAULT_START, people};
use telltale_proto::v1::{Record, record::Kind};

const DAY: i64 = 86_400_000_000;

fn options(seed: u64, days: i64, attacks: &[Attack]) -> WorldOptions {
    WorldOptions {
        seed,
        customers: 200,
        start: DEFAULT_START,
        end: DEFAULT_START + days * DAY,
        attacks: attacks.to_vec(),
        intensities: vec![Intensity::Medium],
        variants: Variants::Train,
        campaigns: 1,
    }
}

fn stream(options: &WorldOptions) -> (Vec<Truth>, Vec<Record>) {
    let wanted = StreamOptions { seed: options.seed, until: options.end, addresses: Addresses::Public, labels: true };
    let (mut truths, mut records) = (Vec::new(), Vec::new());
    for item in Stream::new(World::new(options), wanted) {
        match item {
            Item::Truth(truth) => truths.push(*truth),
            Item::Record(record) => records.push(*record),
        }
    }
    (truths, records)
}

#[test]
fn the_same_seed_gives_the_same_records_and_another_does_not() {
    let first = stream(&options(5, 1, &Attack::ALL));
    assert_eq!(first, stream(&options(5, 1, &Attack::ALL)));
    assert_ne!(first.1, stream(&options(6, 1, &Attack::ALL)).1);
}

#[test]
fn records_come_in_the_order_of_their_times_and_all_are_answered() {
    let (truths, records) = stream(&options(7, 2, &[Attack::BruteForce, Attack::Scanner]));
    let mut last = 0;
    let mut open: HashMap<String, u8> = HashMap::new();
    for record in &records {
        let (time, id, step) = match record.kind.as_ref().unwrap() {
            Kind::Transaction(tx) => (tx.time.unwrap(), &tx.id, 1),
            Kind::Outcome(outcome) => (outcome.time.unwrap(), &outcome.transaction_id, 2),
            Kind::Label(label) => (label.time.unwrap(), &label.transaction_id, 4),
            Kind::Aggregate(_) => panic!("the simulator writes no aggregates"),
        };
        let micros = time.seconds * 1_000_000 + i64::from(time.nanos) / 1_000;
        assert!(micros >= last, "{micros} after {last}");
        last = micros;
        *open.entry(id.clone()).or_default() += step;
    }
    assert_eq!(open.len(), truths.len());
    assert!(open.values().all(|steps| *steps == 7));
}

#[test]
fn every_attack_comes_at_every_intensity_and_its_evaluation_variants_are_others() {
    for variants in [Variants::Train, Variants::Eval] {
        let (truths, _) = stream(&WorldOptions { variants, intensities: Intensity::ALL.to_vec(), ..options(8, 2, &Attack::ALL) });
        for attack in Attack::ALL {
            for intensity in Intensity::ALL {
                let start = format!("{}/{}/", attack.name(), intensity.name());
                let mark = if variants == Variants::Train { "t" } else { "e" };
                let found = truths.iter().find(|truth| truth.attack.starts_with(&start)).unwrap_or_else(|| panic!("no {start}"));
                assert!(found.attack.strip_prefix(&start).unwrap().starts_with(mark), "{}", found.attack);
            }
        }
    }
}

#[test]
fn customers_sign_up_log_in_mistype_and_pay() {
    let (truths, records) = stream(&options(9, 4, &[]));
    let mut statuses: HashMap<(String, u16), usize> = HashMap::new();
    let paths: HashMap<&str, &str> = records
        .iter()
        .filter_map(|record| match record.kind.as_ref() {
            Some(Kind::Transaction(tx)) => Some((tx.id.as_str(), tx.http.as_ref().unwrap().path.as_str())),
            _ => None,
        })
        .collect();
    for truth in &truths {
        *statuses.entry((paths[truth.transaction_id.as_str()].to_owned(), truth.status)).or_default() += 1;
    }
    for expected in [
        ("/api/signup", 201),
        ("/api/login", 200),
        ("/api/login", 401),
        ("/api/checkout", 200),
        ("/api/checkout", 402),
        ("/partner/v1/stock", 200),
    ] {
        assert!(statuses.contains_key(&(expected.0.to_owned(), expected.1)), "no {expected:?} in {statuses:?}");
    }
}

#[test]
fn a_shop_lets_nobody_see_the_orders_of_others() {
    let mut shop = Shop::new(3, 50, 1, 1);
    let client = super::client::tool(&mut super::dice::Dice::new(1, 1), super::client::Family::Curl);
    let login = super::intent::Intent::Login { username: people::username(3, 4), password: people::password(3, 4, 0) };
    let opened = shop.handle(&login.request(&client), 0);
    let client = super::client::Client { session: opened.session().map(str::to_owned), ..client };
    let owned = &super::shop::first_orders(3, 50)[4];
    for order in super::shop::FIRST_ORDER..super::shop::FIRST_ORDER + 150 {
        let answer = shop.handle(&super::intent::Intent::Order(order).request(&client), 1);
        assert_eq!(answer.status, if owned.contains(&order) { 200 } else { 403 }, "order {order}");
    }
}
