//! Conditions laid flat against the same expressions as closures: whatever the nesting, the missing values and the faults.

use proptest::prelude::*;

use super::super::{Predicate, Program, Row, Scope, Value};

/// A condition over two numbers and a flag; `1 / 0 == 1` faults.
fn condition() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        ((0..2_usize), (0..6_usize), -2..3_i32).prop_map(|(name, operator, literal)| {
            format!("{} {} {literal}.0", ["a.x", "a.y"][name], ["==", "!=", "<", "<=", ">", ">="][operator])
        }),
        Just("c.z".to_owned()),
        Just("has(a.x)".to_owned()),
        Just("1 / 0 == 1".to_owned()),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            (prop::collection::vec(inner.clone(), 2..4), any::<bool>())
                .prop_map(|(terms, all)| format!("({})", terms.join(if all { " && " } else { " || " }))),
            inner.clone().prop_map(|term| format!("!({term})")),
            (inner.clone(), inner.clone(), inner).prop_map(|(test, yes, no)| format!("(({test}) ? ({yes}) : ({no}))")),
        ]
    })
}

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![Just(f64::NAN), (-2..3_i32).prop_map(f64::from)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn flat_conditions_hold_where_closures_say_true(source in condition(), x in number(), y in number(), z in any::<bool>()) {
        let mut scope = Scope::new();
        scope.number("a.x");
        scope.number("a.y");
        scope.flag("c.z");
        let row = Row { numbers: &[x, y], texts: &[], flags: &[z] };
        let holds = Program::compile(&source, &scope).unwrap().eval(&row) == Ok(Value::Bool(true));
        prop_assert_eq!(Predicate::compile(&source, &scope).unwrap().holds(&row), holds, "{}", source);
    }
}
