//! What is learned of traffic, and what is not: objects collapse, resources stay, and who makes paths up teaches nothing.

use telltale_features::schema::Template;
use telltale_policy::Policy;

use super::learner::{Learner, Lesson, Options, Proposal};
use super::taken_in;

const OPTIONS: Options = Options { distinct: 50, client_share: 0.1 };

fn lesson(route: String, address: u64) -> Lesson {
    Lesson { service: "shop".to_owned(), method: "GET".to_owned(), route, address }
}

/// What is proposed after these routes, each from its address.
fn taught(lessons: impl IntoIterator<Item = (String, u64)>) -> Vec<Proposal> {
    let mut learner = Learner::new(OPTIONS);
    lessons.into_iter().filter_map(|(route, address)| learner.learn(&lesson(route, address))).collect()
}

fn paths(proposals: &[Proposal]) -> Vec<&str> {
    proposals.iter().map(|proposal| proposal.template.path.as_str()).collect()
}

/// A sequence of numbers that looks random and is always the same (SplitMix64).
fn scattered(number: u64) -> u64 {
    let mixed = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15)) ^ 0x6a09_e667_f3bc_c909;
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[test]
fn slugs_collapse_at_every_position_and_are_proposed_once() {
    let found = taught((0..2_000).map(|at| (format!("/blog/post-of-{}", scattered(at) % 900), at % 40)));
    assert_eq!(paths(&found), ["/blog/{id}"]);
    let Proposal { template, paths: seen, addresses } = &found[0];
    assert_eq!((template.service.as_str(), template.method.as_str()), ("shop", "GET"));
    assert!(*seen == 51 && *addresses >= 11, "{found:?}");
    // Below a variable segment resources stay apart, and a second variable is found.
    let routes = (0..20_000_u64).map(|at| {
        let (user, album) = (scattered(at) % 700, scattered(at + 77) % 900);
        let route = match at % 3 {
            0 => format!("/u/name-{user}/posts"),
            1 => format!("/u/name-{user}/likes"),
            _ => format!("/u/name-{user}/albums/summer-{album}"),
        };
        (route, at % 60)
    });
    let mut found = taught(routes).into_iter().map(|proposal| proposal.template.path).collect::<Vec<_>>();
    found.sort();
    assert_eq!(found, ["/u/{id}/albums/{id}", "/u/{id}/likes", "/u/{id}/posts"]);
}

#[test]
fn fixed_sets_of_resources_stay() {
    // Fewer than the threshold; a few more than it, all known after a while, evenly and unevenly asked for; and depth apart from depth.
    for resources in [20_u64, 49, 60, 90] {
        let even = taught((0..20_000).map(|at| (format!("/api/resource-{}", scattered(at) % resources), at % 50)));
        assert_eq!(paths(&even), [""; 0], "{resources} resources");
        let uneven = |at: u64| (scattered(at) % resources).min(scattered(at + 9) % resources);
        assert_eq!(paths(&taught((0..20_000).map(|at| (format!("/api/resource-{}", uneven(at)), at % 50)))), [""; 0]);
    }
    let deep = taught((0..4_000).map(|at| (format!("/api{}/end", "/x".repeat((at % 6) as usize)), at % 50)));
    assert_eq!(paths(&deep), [""; 0]);
    // One of them takes half of everything: what it is called says more than that there are others.
    let dominated = taught((0..20_000).map(|at| {
        let name = if at % 2 == 0 { "search".to_owned() } else { format!("thing-{}", scattered(at) % 5_000) };
        (format!("/items/{name}"), scattered(at + 5) % 50)
    }));
    assert_eq!(paths(&dominated), [""; 0]);
}

#[test]
fn who_makes_paths_up_teaches_nothing() {
    // One client, then nine of them: each gives at most a tenth of what is needed.
    for clients in [1, 9] {
        let made_up = taught((0..50_000).map(|at| (format!("/made-up-{}", scattered(at)), at % clients)));
        assert_eq!(paths(&made_up), [""; 0], "{clients} clients");
    }
    // A client that asks for two thousand resources does not keep those that many ask for from being learned.
    let mixed = (0..20_000_u64).map(|at| match at % 2 {
        0 => (format!("/blog/crawled-{}", scattered(at) % 2_000), 7),
        _ => (format!("/blog/post-{}", scattered(at) % 2_000), 100 + at % 60),
    });
    assert_eq!(paths(&taught(mixed)), ["/blog/{id}"]);
}

#[test]
fn what_would_take_in_a_path_that_the_policy_names_is_found() {
    let schema = telltale_features::schema::Schema::shipped();
    let rule = |id: &str, when: &str| format!("  - {{id: {id}, name: n, when: '{when}', action: log, score: 1, reason: r}}\n");
    let rules = rule("A", "http.route == \"/blog/about\"") + &rule("B", "http.route.startsWith(\"/admin\")");
    let policy = Policy::from_sources(&[("p.yaml".to_owned(), format!("version: 1\nrules:\n{rules}"))], &schema).unwrap();
    let named = |path: &str| taken_in(&policy, &Template::new("shop", "GET", path).unwrap());
    assert_eq!(named("/blog/{id}").as_deref(), Some("/blog/about"));
    assert_eq!(named("/{id}").as_deref(), Some("/admin"));
    assert_eq!((named("/shop/{id}"), named("/blog/{id}/likes")), (None, None));
}

#[test]
fn memory_is_bounded_whatever_is_asked_for() {
    let mut learner = Learner::new(OPTIONS);
    for at in 0..60_000_u64 {
        let route = format!("/{}/{}/{}", scattered(at) % 5_000, scattered(at + 1), scattered(at + 2));
        let _ = learner.learn(&Lesson { service: format!("s{}", at % 7), ..lesson(route, at) });
        let (positions, candidates) = learner.sizes();
        assert!(positions <= 2_048 && candidates <= 512, "{positions} {candidates}");
    }
}

#[test]
fn methods_and_services_are_learned_apart() {
    let mut learner = Learner::new(OPTIONS);
    let mut found = Vec::new();
    for at in 0..4_000_u64 {
        let route = format!("/blog/post-{}", scattered(at) % 900);
        for (service, method) in [("shop", "GET"), ("shop", "POST"), ("press", "GET")] {
            // Only a few are posted to.
            let route = if method == "POST" { format!("/blog/post-{}", at % 12) } else { route.clone() };
            let lesson = Lesson { service: service.to_owned(), method: method.to_owned(), route, address: at % 40 };
            found.extend(learner.learn(&lesson).map(|proposal| proposal.template.id()));
        }
    }
    found.sort();
    assert_eq!(found, ["press GET /blog/{id}", "shop GET /blog/{id}"]);
}
