//! Three hundred generated rules over the schema's own features, of which two fifths are asked about every transaction.

use std::fmt::Write as _;

use telltale_features::schema::Schema;

/// Rules in the pack.
pub const RULES: usize = 300;
/// Of five rules, this many have no guard of method, route or operation: they reach their feature test whatever comes.
const UNGUARDED_OF_FIVE: usize = 2;

/// Share of the rules that reach their feature test, percent.
pub fn reached() -> f64 {
    100.0 * UNGUARDED_OF_FIVE as f64 / 5.0
}

/// The pack as YAML. Thresholds lie where hardly a rule matches, as in life; each rule reads two or three features.
pub fn pack(schema: &Schema) -> String {
    let mut text = "version: 1\nmode: monitor\nrules:\n".to_owned();
    let names: Vec<&str> = schema.features().iter().map(|feature| feature.name.as_str()).collect();
    let pick = |at: usize| names.get(at % names.len().max(1)).copied().unwrap_or("risk");
    for rule in 0..RULES {
        let guard = match rule % 5 {
            2 => "    methods: [POST]\n",
            3 => "    routes: [\"/api/orders/{id}\"]\n",
            4 => "    operations: [login]\n",
            _ => "",
        };
        let (first, second, third) = (pick(rule * 7), pick(rule * 11 + 3), pick(rule * 13 + 5));
        let written = write!(
            text,
            "  - id: BENCH-{rule:03}\n    name: Generated rule {rule}\n{guard}    when: {first} > 1000000000000.5 || ({second} < -1.0 && {third} > {rule}.5)\n    score: 10\n    action: log\n    reason: \"{{{first}}} is much\"\n",
        );
        debug_assert!(written.is_ok());
    }
    text
}
