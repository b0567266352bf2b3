//! A flood of random ids does not push out what is known of real clients. The figure is printed; `TELLTALE_SIZE=full` sends ten million.

use telltale_tests::bench::flood::{Size, flood};

#[test]
fn a_flood_of_random_ids_leaves_real_history_alone() {
    let size = Size::asked();
    let found = flood(size).unwrap();
    println!("flood: {size:?}: {found:?}");
    assert!(found.stats.evicted > u64::from(size.ids), "the flood did not fill the store: {found:?}");
    for (all, whole) in [found.real, found.newcomers] {
        assert!(all > 0 && whole * 100 >= all * 99, "{whole} of {all} whole: {found:?}");
    }
    // An epoch of 1,024 operations may stand above the bound.
    assert!(found.most_bytes <= size.max_bytes + (6 << 20), "{found:?}");
}
