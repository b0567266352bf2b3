//! Cases of our own: the subset's semantics, what is refused and with which words, and what differs from the specification.

use super::super::{Compared, Fault, NameKind, Number, Predicate, Program, Refusal, Row, Scope, Value};

/// Conformance cases that were right when this was last looked at; fewer is a step back.
pub const CONFORMANCE_RIGHT: usize = 602;

fn scope() -> Scope {
    let mut scope = Scope::new();
    scope.number("address.requests_1m");
    scope.number("address.failed_ratio_10m");
    scope.text("http.method");
    scope.text("http.path");
    scope.flag("proved.user");
    scope
}

fn row() -> Row<'static> {
    Row { numbers: &[120.0, f64::NAN], texts: &["POST", "/api/login"], flags: &[true] }
}

#[test]
fn values_and_faults() {
    let cases: [(&str, Result<Value, Fault>); 24] = [
        ("1 + 2 * 3", Ok(Value::Int(7))),
        ("9223372036854775807 + 1", Err(Fault::Overflow)),
        ("1 / 0", Err(Fault::DivideByZero)),
        ("1 % 0", Err(Fault::ModulusByZero)),
        ("1u - 2u", Err(Fault::Overflow)),
        ("1.0 / 0.0", Ok(Value::Double(f64::INFINITY))),
        ("1 / 0 > 1 || true", Ok(Value::Bool(true))),
        ("1 / 0 > 1 && false", Ok(Value::Bool(false))),
        ("1 / 0 > 1 || false", Err(Fault::DivideByZero)),
        ("'a' && false", Ok(Value::Bool(false))),
        ("1 + 1.0", Err(Fault::NoOverload)),
        ("1 == 1.0", Ok(Value::Bool(true))),
        ("1 == 1u", Ok(Value::Bool(true))),
        ("9007199254740993 == 9007199254740992.0", Ok(Value::Bool(true))),
        ("size('añb')", Ok(Value::Int(3))),
        ("[1, 2][2]", Err(Fault::OutOfRange)),
        ("{'a': 1}.b", Err(Fault::NoSuchKey)),
        ("{'a': 1, 'a': 2}", Err(Fault::RepeatedKey)),
        ("has({'a': 1}.b)", Ok(Value::Bool(false))),
        ("[1, 2, 3].filter(x, x > 1).map(x, x * 2) == [4, 6]", Ok(Value::Bool(true))),
        ("[0, 1].exists(x, 1 / x > 0)", Ok(Value::Bool(true))),
        ("[1, 2, 1].exists_one(x, x == 1)", Ok(Value::Bool(false))),
        ("int('12') + int(3.9)", Ok(Value::Int(15))),
        ("string(12) + 'a'", Ok(Value::from("12a"))),
    ];
    for (source, wanted) in cases {
        assert_eq!(Program::compile(source, &Scope::new()).unwrap().eval(&Row::default()), wanted, "{source}");
    }
}

#[test]
fn rows() {
    let cases = [
        ("address.requests_1m > 100", true),
        ("100 < address.requests_1m", true),
        ("address.requests_1m * 2 >= 240 && http.method == 'POST'", true),
        ("address.requests_1m / 2 == 60", true),
        ("http.method in ['PUT', 'POST'] && http.path.startsWith('/api/')", true),
        ("http.path.matches('^/api/(login|signup)$')", true),
        ("['/api/login', '/x'].exists(p, http.path == p)", true),
        ("proved.user ? address.requests_1m > 100 : false", true),
        ("address.failed_ratio_10m > 0.5", false),
        ("address.failed_ratio_10m <= 0.5", false),
        ("address.failed_ratio_10m != 0.5", false),
        ("address.failed_ratio_10m + 1 != address.requests_1m", false),
        ("has(address.failed_ratio_10m)", false),
        ("!has(address.failed_ratio_10m) || address.failed_ratio_10m > 0.5", true),
        ("has(address.requests_1m) && has(http.path)", true),
        ("size(http.path) == 10", true),
        ("address.requests_1m == size(http.path) * 12", true),
    ];
    for (source, wanted) in cases {
        assert_eq!(Predicate::compile(source, &scope()).unwrap().holds(&row()), wanted, "{source}");
    }
    let number = Number::compile("address.requests_1m * 0.5 + 1", &scope()).unwrap();
    assert_eq!(number.eval(&row()), 61.0);
    assert!(Number::compile("address.failed_ratio_10m + 1", &scope()).unwrap().eval(&row()).is_nan());
}

#[test]
fn refusals_say_what_and_where() {
    let cases = [
        ("address.request_1m > 1", Refusal::UnknownName, "`address.requests_1m`"),
        ("http.method == 'GET' && nobody", Refusal::UnknownName, "unknown name `nobody`"),
        ("http.path.matches('(')", Refusal::Pattern, "unclosed group"),
        ("http.path.matches(http.method)", Refusal::Pattern, "literal pattern"),
        ("http.path > 5", Refusal::WrongType, "cannot compare string with int"),
        ("http.path == 5", Refusal::WrongType, "cannot compare string with int"),
        ("address.requests_1m", Refusal::WrongType, "must be true or false"),
        ("address.requests_1m + http.path > 1.0", Refusal::WrongType, "has no meaning for double and string"),
        ("address.requests_1m && true", Refusal::WrongType, "truth value"),
        ("http.path.lowerAscii() == ''", Refusal::UnknownFunction, "startsWith"),
        ("b'a' == b'a'", Refusal::Bytes, "bytes"),
        ("type(1) == int", Refusal::TypeValue, "types as values"),
        ("google.protobuf.Int32Value{value: 1} == 1", Refusal::Message, "messages"),
        ("http.path ==", Refusal::Syntax, "not a CEL expression"),
        ("[1].all(a, [1].all(b, [1].all(c, [1].all(d, true))))", Refusal::TooLarge, "nested 3 deep"),
    ];
    for (source, reason, part) in cases {
        let error = Predicate::compile(source, &scope()).expect_err(source);
        assert_eq!(error.reason, reason, "{source}: {error}");
        assert!(error.to_string().contains(part), "{source}: {error}");
    }
    let error = Predicate::compile("proved.user &&\n  nobody", &scope()).unwrap_err();
    assert_eq!((error.line, error.column), (2, 3));
    let long = format!("true{}", " || true".repeat(2000));
    assert_eq!(Predicate::compile(&long, &scope()).unwrap_err().reason, Refusal::TooLarge);
    let deep = format!("{}true{}", "(".repeat(200), ")".repeat(200));
    assert!(Predicate::compile(&deep, &scope()).is_err());
}

#[test]
fn loops_end() {
    let numbers = (0..60).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    let source = format!("[{numbers}].all(a, [{numbers}].all(b, [{numbers}].all(c, a + b + c >= 0)))");
    assert_eq!(Program::compile(&source, &Scope::new()).unwrap().eval(&Row::default()), Err(Fault::Budget));
}

#[test]
fn reads_name_the_literal_beside_them() {
    let predicate = Predicate::compile("http.method == 'GET' && 30 < address.requests_1m", &scope()).unwrap();
    let read = predicate.reads().iter().find(|read| read.kind == NameKind::Number).unwrap();
    assert_eq!((&*read.name, read.compared), ("address.requests_1m", Some(Compared { operator: ">", literal: 30.0 })));
    assert_eq!(predicate.reads().len(), 2);
}

#[test]
fn texts_are_listed_with_what_they_are_compared_with() {
    let source = "http.path == '/a' || '/b' != http.path || http.path in ['/c', '/d'] || http.path.startsWith('/e') \
                  || http.method == 'GET'";
    let predicate = Predicate::compile(source, &scope()).unwrap();
    let mut literals = predicate.literals("http.path").collect::<Vec<_>>();
    literals.sort_unstable();
    assert_eq!(literals, ["/a", "/b", "/c", "/d", "/e"]);
    assert_eq!(predicate.literals("http.method").collect::<Vec<_>>(), ["GET"]);
    assert_eq!(predicate.literals("http.host").count(), 0);
}

#[test]
fn a_constant_list_is_a_name() {
    let mut scope = scope();
    scope.constant("lists.login", Value::List([Value::from("/api/login")].into()));
    assert!(Predicate::compile("http.path in lists.login", &scope).unwrap().holds(&row()));
}
