//! Every case of cel-spec's files: right inside the subset, refused when compiled outside it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::super::{CompileError, Fault, Program, Refusal, Row, Scope, Value};
use super::textproto::{self, Field, Message};

enum Expected {
    Value(Value),
    Error,
    /// A value of a kind that the subset does not have.
    Outside,
}

struct Case {
    name: String,
    source: String,
    bindings: Vec<(String, Option<Value>)>,
    expected: Expected,
}

fn directory() -> PathBuf {
    match std::env::var_os("TELLTALE_DATA") {
        Some(path) => PathBuf::from(path).join("cel_spec"),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/cel_spec"),
    }
}

fn value(message: &Message) -> Option<Value> {
    let (kind, field) = message.0.first()?;
    Some(match (kind.as_str(), field) {
        ("null_value", _) => Value::Null,
        ("bool_value", Field::Word(word)) => Value::Bool(word == "true"),
        ("int64_value", Field::Word(word)) => Value::Int(word.parse().ok()?),
        ("uint64_value", Field::Word(word)) => Value::Uint(word.parse().ok()?),
        ("double_value", Field::Word(word)) => Value::Double(double(word)?),
        ("string_value", Field::Text(bytes)) => Value::Text(std::str::from_utf8(bytes).ok()?.into()),
        ("list_value", Field::Message(list)) => Value::List(list.messages("values").map(value).collect::<Option<Vec<_>>>()?.into()),
        ("map_value", Field::Message(map)) => {
            let entry = |entry: &Message| Some((value(entry.message("key")?)?, value(entry.message("value")?)?));
            Value::Map(map.messages("entries").map(entry).collect::<Option<Vec<_>>>()?.into())
        }
        _ => return None,
    })
}

fn double(word: &str) -> Option<f64> {
    match word.to_ascii_lowercase().as_str() {
        "inf" | "infinity" => Some(f64::INFINITY),
        "-inf" | "-infinity" => Some(f64::NEG_INFINITY),
        word => word.parse().ok(),
    }
}

fn cases(file: &Message, path: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    for section in file.messages("section") {
        let section_name = section.text("name").unwrap_or_default();
        for test in section.messages("test") {
            let expected = if let Some(wanted) = test.message("value") {
                value(wanted).map_or(Expected::Outside, Expected::Value)
            } else if test.message("eval_error").is_some() {
                Expected::Error
            } else {
                Expected::Value(Value::Bool(true))
            };
            let bindings = test.messages("bindings").map(|binding| {
                let bound = binding.message("value").and_then(|bound| bound.message("value")).and_then(value);
                (binding.text("key").unwrap_or_default(), bound)
            });
            cases.push(Case {
                name: format!("{path}/{section_name}/{}", test.text("name").unwrap_or_default()),
                source: test.text("expr").unwrap_or_default(),
                bindings: bindings.collect(),
                expected,
            });
        }
    }
    cases
}

/// Bitwise for doubles, so that −0 and NaN are told apart; maps without order.
pub fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Double(a), Value::Double(b)) => a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan(),
        (Value::List(a), Value::List(b)) => a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| same(a, b)),
        (Value::Map(a), Value::Map(b)) => a.len() == b.len() && a.iter().all(|(k, v)| b.iter().any(|(l, w)| same(k, l) && same(v, w))),
        (a, b) => a == b,
    }
}

fn run(case: &Case) -> Result<Result<Value, Fault>, CompileError> {
    let mut scope = Scope::new();
    for (name, bound) in &case.bindings {
        if let Some(bound) = bound {
            scope.constant(name, bound.clone());
        }
    }
    Ok(Program::compile(&case.source, &scope)?.eval(&Row::default()))
}

#[test]
fn every_case_is_right_or_refused() {
    let directory = directory();
    let Ok(files) = std::fs::read_dir(&directory) else {
        println!("cel_spec: absent ({}): conformance is NOT measured here; only the pinned cases are", directory.display());
        return;
    };
    let mut right = BTreeMap::<String, usize>::new();
    let mut refused = BTreeMap::<Refusal, Vec<String>>::new();
    let mut wrong = Vec::new();
    for path in files.map(|file| file.unwrap().path()).filter(|path| path.extension().is_some_and(|ext| ext == "textproto")) {
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        for case in cases(&textproto::parse(&std::fs::read_to_string(&path).unwrap()), &stem) {
            match (&case.expected, run(&case)) {
                (Expected::Value(wanted), Ok(Ok(found))) if same(wanted, &found) => *right.entry(stem.clone()).or_default() += 1,
                (Expected::Error, Ok(Err(_))) => *right.entry(stem.clone()).or_default() += 1,
                // Faults that are certain are found before the first request: an unknown name is one.
                (Expected::Error, Err(error)) if error.reason == Refusal::UnknownName => {
                    *right.entry(stem.clone()).or_default() += 1;
                }
                (_, Err(error)) => refused.entry(error.reason).or_default().push(format!("{}: {}: {error}", case.name, case.source)),
                (_, Ok(found)) => wrong.push(format!("{}: `{}` gave {found:?}", case.name, case.source)),
            }
        }
    }
    let total: usize = right.values().sum();
    println!("cel_spec: right {total} {right:?}");
    for (reason, cases) in &refused {
        println!("cel_spec: refused for `{}`: {}", reason.name(), cases.len());
    }
    println!("cel_spec: wrong {}", wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let outside = [
        Refusal::Bytes,
        Refusal::Message,
        Refusal::TypeValue,
        Refusal::UnknownFunction,
        Refusal::UnknownName,
        Refusal::Pattern,
        Refusal::Syntax,
    ];
    assert!(refused.keys().all(|reason| outside.contains(reason)), "refused for a reason that is no boundary of the subset");
    assert!(total >= super::pinned::CONFORMANCE_RIGHT, "{total} right, {} were before", super::pinned::CONFORMANCE_RIGHT);
}
