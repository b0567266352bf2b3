//! A moment of fuzzing for every parser, always with the same seed; `make fuzz` goes on for longer.

use std::time::Duration;

use telltale_tests::fuzz;

#[test]
fn parsers_bear_mutated_input() {
    for target in fuzz::all() {
        match target.fuzz(1, Duration::from_millis(700)) {
            Ok(inputs) => assert!(inputs > 20, "{}: only {inputs} inputs in 0.7 s", target.name),
            Err(finding) => panic!("{}: {} on {:?}", finding.target, finding.what, String::from_utf8_lossy(&finding.input)),
        }
    }
}

#[test]
fn a_panicking_parser_is_found() {
    let run = |bytes: &[u8]| assert!(!bytes.contains(&b'!'), "an exclamation mark");
    let target = fuzz::Target { name: "planted", seeds: vec![b"hello".to_vec()], run: Box::new(run) };
    let finding = target.fuzz(1, Duration::from_secs(20)).unwrap_err();
    assert!(finding.what.contains("exclamation") && finding.input.contains(&b'!'));
}
