//! The secret of the names in Redis is changed under load, one scorer after another, as the configuration says: first all know the new
//! one, then all use it, then the former one goes. No call fails, every transaction counts once, a bucket stays spent, who is forgotten
//! is forgotten under either name, and in the end everything can be taken out under the new names alone.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use telltale_proto::v1::{Action, Entity, ForgetEntityRequest, GetEntityRequest, Transaction};
use telltale_tests::redis::Redis;
use telltale_tests::stand::Scorer;
use telltale_tests::traffic::Traffic;
use tokio::task::JoinSet;

use crate::recovery::seen;
use crate::rolling::{quiet, roll, somewhere};
use crate::shared_state::{beside, metric, of_client, sections_with};
use crate::stage::{ACTING, score, telltale, telltale_ok, within};

const CALLERS: u64 = 4;
/// Clients 1 to 12: the address of number 0 is that of number 1.
const CLIENTS: u32 = 12;
/// Whose history ends before everything begins, and of whom nothing comes meanwhile.
const QUIET: u32 = 40;
const FORGOTTEN: u32 = 41;

fn limited(traffic: &mut Traffic) -> Transaction {
    let mut transaction = of_client(traffic, 2);
    transaction.http.as_mut().unwrap().path = "/act/limit".to_owned();
    transaction
}

/// Callers of all clients until `stop`; how often each client was scored.
fn load(scorers: [std::net::SocketAddr; 2], stop: &Arc<AtomicBool>, counts: &Arc<Vec<AtomicU64>>) -> JoinSet<()> {
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let (stop, counts) = (Arc::clone(stop), Arc::clone(counts));
        callers.spawn(async move {
            let mut traffic = Traffic::new(190 + caller, 50);
            for number in 0_usize.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let client = number % CLIENTS as usize;
                let transaction = of_client(&mut traffic, u32::try_from(client + 1).unwrap());
                somewhere(&scorers, number + caller as usize, &transaction).await;
                counts[client].fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    callers
}

/// Names in Redis of addresses, and those of them under a secret of that number.
fn names(redis: &Redis, id: &str) -> usize {
    let found = redis.command(&["--scan", "--pattern", &format!("tt:{{address:{id}*")]).unwrap();
    found.lines().filter(|line| !line.trim().is_empty()).count()
}

fn keys(folder: &Path) -> [PathBuf; 2] {
    let [one, two] = [folder.join("names-1.key"), folder.join("names-2.key")];
    let made = telltale_ok(&["state", "new-names-key", one.to_str().unwrap(), "--output", "json"]);
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&made).unwrap()["id"], 1);
    telltale_ok(&["state", "new-names-key", two.to_str().unwrap(), "--after", one.to_str().unwrap()]);
    let again = telltale(&["state", "new-names-key", two.to_str().unwrap()]);
    assert_eq!(again.status.code(), Some(64), "a secret is never overwritten");
    [one, two]
}

fn entity(address: &str) -> Entity {
    Entity { r#type: "address".to_owned(), id: address.to_owned(), ..Default::default() }
}

async fn forget(scorer: &Scorer, address: &str) {
    let request = ForgetEntityRequest { entity: Some(entity(address)), reason: "asked for it".to_owned() };
    scorer.entities().await.forget_entity(request).await.unwrap();
}

/// How often an address was seen, without counting this look.
async fn known(scorer: &Scorer, address: &str) -> u64 {
    let request = GetEntityRequest { entity: Some(entity(address)) };
    let answer = scorer.entities().await.get_entity(request).await.unwrap().into_inner();
    let found = answer.features.iter().find(|feature| feature.name == "address.requests_10m");
    found.and_then(|feature| feature.value).unwrap_or(0.0) as u64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_change_their_secret_under_load_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start(folder.path(), &[]).unwrap();
    let [one, two] = keys(folder.path());
    let more = |names: String| {
        let more = format!("lag_ms = 0\nidempotency = \"strict\"\n{names}");
        let sections = sections_with(folder.path(), redis.address, Duration::from_millis(500), &more);
        // One token an hour: what is spent is spent for the whole test.
        std::fs::write(folder.path().join("acting.yaml"), ACTING.replace("rate: 2, period: 1m, burst: 2", "rate: 1, period: 1h, burst: 1"))
            .unwrap();
        sections
    };
    let steps = [
        more(String::new()),
        more(format!("names_key_next = {one:?}")),
        more(format!("names_key = {one:?}\nnames_key_before = \"unkeyed\"")),
        more(format!("names_key = {one:?}\nnames_key_next = {two:?}")),
        more(format!("names_key = {two:?}\nnames_key_before = {one:?}")),
    ];
    let folders = [folder.path().join("first"), folder.path().join("second")];
    folders.iter().for_each(|own| std::fs::create_dir_all(own).unwrap());
    let mut first = Scorer::start(&folders[0], &steps[0]).unwrap();
    let mut second = beside(&first, &folders[1], &steps[0]);
    let mut traffic = Traffic::new(91, 50);
    let client = first.client().await;
    for number in 1..=20 {
        for who in [QUIET, FORGOTTEN] {
            assert_eq!(seen(&score(&client, of_client(&mut traffic, who)).await.unwrap()), number);
        }
    }
    assert_ne!(score(&client, limited(&mut traffic)).await.unwrap().action(), Action::RateLimit);
    quiet(&[&first]).await;

    let stop = Arc::new(AtomicBool::new(false));
    let counts: Arc<Vec<AtomicU64>> = Arc::new((0..CLIENTS).map(|_| AtomicU64::new(0)).collect());
    let callers = load([first.scoring, second.scoring], &stop, &counts);
    let mut quiet_seen = 20;
    let [address, quiet_one] = [FORGOTTEN, QUIET].map(|client| of_client(&mut traffic, client).source.unwrap().ip);
    for (step, sections) in steps.iter().enumerate().skip(1) {
        tokio::time::sleep(Duration::from_secs(1)).await;
        second = roll(second, &folders[1], sections).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        if step == 2 {
            // By one that knows both names, while the other still uses those of before.
            forget(&second, &address).await;
        }
        first = roll(first, &folders[0], sections).await;
        if step == 2 {
            // Before a second change everything that counts must have come over from the first one.
            for scorer in [&first, &second] {
                quiet_seen += 1;
                assert_eq!(seen(&score(&scorer.client().await, of_client(&mut traffic, QUIET)).await.unwrap()), quiet_seen);
                let known = || async { known(&first, &quiet_one).await == quiet_seen && known(&second, &quiet_one).await == quiet_seen };
                within(Duration::from_secs(20), "both scorers know of it", known).await;
            }
        }
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    stop.store(true, Ordering::Relaxed);
    callers.join_all().await;
    quiet(&[&first, &second]).await;

    let mut counted: Vec<u64> = counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
    assert!(counted.iter().all(|count| *count > 20), "{counted:?}");
    let asked = counted.get_mut(1).unwrap();
    *asked += 1;
    for scorer in [&first, &second] {
        let client = scorer.client().await;
        for (number, counted) in (1..=CLIENTS).zip(&mut counted) {
            *counted += 1;
            assert_eq!(seen(&score(&client, of_client(&mut traffic, number)).await.unwrap()), *counted, "client {number}");
        }
        assert_eq!(score(&client, limited(&mut traffic)).await.unwrap().action(), Action::RateLimit, "the bucket was lost");
        *counted.get_mut(1).unwrap() += 1;
        assert_eq!(seen(&score(&client, of_client(&mut traffic, QUIET)).await.unwrap()), quiet_seen + 1);
        quiet_seen += 1;
        quiet(&[&first, &second]).await;
    }
    assert!(metric(&first, "names_moved").await + metric(&second, "names_moved").await > 0);
    let missed = score(&first.client().await, of_client(&mut traffic, FORGOTTEN)).await.unwrap();
    assert_eq!(seen(&missed), 1, "who was forgotten begins anew");
    quiet(&[&first]).await;
    assert!(names(&redis, "2.") >= CLIENTS as usize);
}
