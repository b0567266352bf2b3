//! Closures beside the `cel` interpreter: on generated expressions and rows both give the same value, or both a fault.
//!
//! The dice leave out what is known to differ: where the interpreter departs from the specification, and where the subset does so by
//! intent. All of that is pinned below with its reason: when either side changes, the pin fails.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use cel::objects::Key;

use super::super::{Fault, Program, Row, Scope, Value};
use super::generate::{FLAGS, Generator, NUMBERS, TEXTS};

const EXPRESSIONS: u64 = 30_000;

fn scope() -> Scope {
    let mut scope = Scope::new();
    for name in NUMBERS {
        scope.number(name);
    }
    for name in TEXTS {
        scope.text(name);
    }
    for name in FLAGS {
        scope.flag(name);
    }
    scope
}

const ROWS: [Row<'static>; 4] = [
    Row { numbers: &[0.0, 0.5, 3.0], texts: &["", "/api/login"], flags: &[true, false] },
    Row { numbers: &[100.0, 60.0, 1e9], texts: &["ab", "x y"], flags: &[false, false] },
    Row { numbers: &[-2.0, 0.25, 7.0], texts: &["7", "ña"], flags: &[true, true] },
    Row { numbers: &[2.0, 199.0, 1.5], texts: &["true", "aab"], flags: &[false, true] },
];

fn context(row: &Row<'_>) -> cel::Context<'static, 'static> {
    let mut context = cel::Context::default();
    for (name, value) in NUMBERS.iter().zip(row.numbers) {
        context.add_variable_from_value(*name, cel::Value::Float(*value));
    }
    for (name, value) in TEXTS.iter().zip(row.texts) {
        context.add_variable_from_value(*name, *value);
    }
    for (name, value) in FLAGS.iter().zip(row.flags) {
        context.add_variable_from_value(*name, cel::Value::Bool(*value));
    }
    // Built without its own: the same function over the same regular expressions.
    let matches = |cel::extractors::This(text): cel::extractors::This<Arc<String>>, pattern: Arc<String>| {
        regex::Regex::new(&pattern).is_ok_and(|pattern| pattern.is_match(&text))
    };
    context.add_function("matches", matches).unwrap();
    context
}

/// What the interpreter gives; `None` where it panics.
fn interpreted(source: &str, row: &Row<'_>) -> Option<Result<Value, String>> {
    let run = || -> Result<Value, String> {
        let program = cel::Program::compile(source).map_err(|error| error.to_string())?;
        ours(program.execute(&context(row)).map_err(|error| error.to_string())?)
    };
    std::panic::catch_unwind(AssertUnwindSafe(run)).ok()
}

fn ours(value: cel::Value) -> Result<Value, String> {
    Ok(match value {
        cel::Value::Null => Value::Null,
        cel::Value::Bool(value) => Value::Bool(value),
        cel::Value::Int(value) => Value::Int(value),
        cel::Value::UInt(value) => Value::Uint(value),
        cel::Value::Float(value) => Value::Double(value),
        cel::Value::String(value) => Value::from(value.as_str()),
        cel::Value::List(items) => Value::List(items.iter().cloned().map(ours).collect::<Result<Vec<_>, _>>()?.into()),
        cel::Value::Map(map) => {
            let entry = |(key, value): (&Key, &cel::Value)| {
                let key = match key {
                    Key::Int(key) => Value::Int(*key),
                    Key::Uint(key) => Value::Uint(*key),
                    Key::Bool(key) => Value::Bool(*key),
                    Key::String(key) => Value::from(key.as_str()),
                };
                Ok((key, ours(value.clone())?))
            };
            Value::Map(map.map.iter().map(entry).collect::<Result<Vec<_>, String>>()?.into())
        }
        other => return Err(format!("{other:?} is outside the subset")),
    })
}

fn agree(compiled: &Result<Value, Fault>, interpreted: &Result<Value, String>) -> bool {
    match (compiled, interpreted) {
        (Ok(ours), Ok(theirs)) => super::conformance::same(ours, theirs),
        (Err(_), Err(_)) => true,
        _ => false,
    }
}

#[test]
fn closures_equal_the_interpreter_on_generated_expressions() {
    let scope = scope();
    let (mut values, mut faults) = (0_u64, 0_u64);
    let mut refused = BTreeMap::<&str, u64>::new();
    let mut wrong = Vec::new();
    for seed in 0..EXPRESSIONS {
        let source = Generator::new(seed).expression();
        let row = &ROWS[seed as usize % ROWS.len()];
        let program = match Program::compile(&source, &scope) {
            Ok(program) => program,
            Err(error) => {
                *refused.entry(error.reason.name()).or_default() += 1;
                continue;
            }
        };
        let compiled = program.eval(row);
        match interpreted(&source, row) {
            Some(theirs) if agree(&compiled, &theirs) => {
                values += u64::from(compiled.is_ok());
                faults += u64::from(compiled.is_err());
            }
            theirs => wrong.push(format!("{source}\n    ours {compiled:?}\n    theirs {theirs:?}")),
        }
    }
    println!("cel interpreter: {values} equal values, {faults} faults in both, refused {refused:?}, different {}", wrong.len());
    wrong.sort_by_key(String::len);
    wrong.dedup();
    assert!(wrong.is_empty(), "{}", wrong.into_iter().take(60).collect::<Vec<_>>().join("\n"));
}

/// What the closures give, and what the interpreter gives.
type Apart = (Result<Value, Fault>, Option<Value>);

/// What differs: an expression, what the closures give, what the interpreter gives (`None`: an error), and why.
const DIFFERENT: [(&str, Apart, &str); 4] = [
    ("size([1] + {'a': 1})", (Err(Fault::NoOverload), Some(Value::Int(2))), "the specification adds only lists to lists"),
    ("0.0 / 0.0 < 1.0", (Ok(Value::Bool(false)), None), "the specification orders doubles as IEEE 754 does: false beside NaN"),
    (
        "(n1 - n1) / (n1 - n1) != 1.0",
        (Ok(Value::Bool(false)), Some(Value::Bool(true))),
        "by intent: a missing number fails every comparison",
    ),
    ("n1 + 1 > 0.0", (Ok(Value::Bool(true)), None), "by intent: an integer literal beside a number of the row is a double"),
];

#[test]
fn what_differs_from_the_interpreter_is_pinned() {
    for (source, (ours, theirs), why) in DIFFERENT {
        assert_eq!(Program::compile(source, &scope()).unwrap().eval(&ROWS[1]), ours, "{source}: {why}");
        let found = interpreted(source, &ROWS[1]).unwrap_or_else(|| panic!("{source}: the interpreter panics"));
        assert_eq!(found.ok(), theirs, "{source}: {why}");
    }
}
