use super::*;
use crate::v1::Record;

#[test]
fn an_unknown_field_is_refused_with_its_path() {
    let line = r#"{"transaction":{"id":"a","http":{"method":"GET","colour":"red"}}}"#;
    let error = parse::<Record>(line, Unknown::Refuse).unwrap_err();
    assert_eq!(error.to_string(), "unknown field `transaction.http.colour`; allowed are the fields of `proto/telltale/v1`");
    let (record, ignored) = parse::<Record>(line, Unknown::Report).unwrap();
    assert_eq!(ignored, ["transaction.http.colour"]);
    assert!(record.kind.is_some());
}

#[test]
fn a_wrong_kind_is_refused_with_its_path() {
    let error = parse::<Record>(r#"{"transaction":{"http":{"method":7}}}"#, Unknown::Report).unwrap_err();
    assert!(error.to_string().starts_with("at `transaction.http.method`"), "{error}");
}

#[test]
fn golden_lines_round_trip() {
    for line in include_str!("../../golden/records.ndjson").lines() {
        let (record, _) = parse::<Record>(line, Unknown::Refuse).unwrap();
        assert_eq!(write(&record).unwrap(), line);
        use prost::Message;
        let again = Record::decode(record.encode_to_vec().as_slice()).unwrap();
        assert_eq!(record, again);
    }
}
