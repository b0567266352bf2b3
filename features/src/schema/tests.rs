//! Compilation, hashes, refusals, events and extraction.

use super::*;

#[test]
fn shipped_schemas_compile() {
    let http = Schema::shipped();
    let names: Vec<&str> = http.entity_types().iter().map(|spec| spec.name.as_str()).collect();
    assert_eq!(names, ["address", "session", "user", "fingerprint", "credential", "card", "device", "endpoint", "service"]);
    assert!(http.features().len() >= 60, "{}", http.features().len());
    assert!(http.features().iter().all(|feature| !feature.meaning.is_empty() && !feature.meaning.contains('{')));
    for size in http.sizes() {
        eprintln!("{size:?}");
        assert!(size.worst_bytes <= size.max_bytes);
    }
    assert!(Schema::payments().features().len() >= 20);
}
