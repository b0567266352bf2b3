//! Expressions of the documented subset from seeded dice, typed from the outside in; now and then an operand of a wrong type.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Names that the scope of the test has.
pub const NUMBERS: [&str; 3] = ["n1", "n2", "n3"];
pub const TEXTS: [&str; 2] = ["s1", "s2"];
pub const FLAGS: [&str; 2] = ["f1", "f2"];

/// Operators and functions may nest so deep; each doubles the size.
const DEPTH: u32 = 4;
/// Of a hundred operands so many have a type that does not fit: a truth value or a text, since a whole number beside a number of
/// the row is a double by intent.
const WRONG: u32 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Bool,
    Int,
    Uint,
    Double,
    Text,
    Ints,
    Texts,
    Table,
}

const KINDS: [Kind; 8] = [Kind::Bool, Kind::Int, Kind::Uint, Kind::Double, Kind::Text, Kind::Ints, Kind::Texts, Kind::Table];
const SCALARS: [Kind; 5] = [Kind::Bool, Kind::Int, Kind::Uint, Kind::Double, Kind::Text];

pub struct Generator {
    dice: ChaCha8Rng,
    /// Macro variables in sight.
    locals: Vec<(String, Kind)>,
}

impl Generator {
    pub fn new(seed: u64) -> Self {
        Self { dice: ChaCha8Rng::seed_from_u64(seed), locals: Vec::new() }
    }

    /// One expression of any type.
    pub fn expression(&mut self) -> String {
        self.locals.clear();
        let kind = if self.below(3) == 0 { *self.pick(&KINDS) } else { Kind::Bool };
        self.of(kind, DEPTH)
    }

    fn below(&mut self, end: u32) -> u32 {
        self.dice.random_range(0..end)
    }

    fn pick<'t, T>(&mut self, from: &'t [T]) -> &'t T {
        &from[self.below(from.len() as u32) as usize]
    }

    fn of(&mut self, kind: Kind, depth: u32) -> String {
        let kind = if self.below(100) < WRONG { *self.pick(&[Kind::Bool, Kind::Text]) } else { kind };
        let local = self.locals.iter().rposition(|(_, known)| *known == kind);
        if let Some(at) = local
            && self.below(3) == 0
        {
            return self.locals[at].0.clone();
        }
        if depth == 0 || self.below(5) == 0 {
            return self.leaf(kind);
        }
        let depth = depth - 1;
        match kind {
            Kind::Bool => self.truth(depth),
            Kind::Int => self.int(depth),
            Kind::Uint => self.uint(depth),
            Kind::Double => self.double(depth),
            Kind::Text => self.text(depth),
            Kind::Ints => self.list(Kind::Int, Kind::Ints, depth),
            Kind::Texts => self.list(Kind::Text, Kind::Texts, depth),
            Kind::Table => self.leaf(kind),
        }
    }

    fn leaf(&mut self, kind: Kind) -> String {
        match kind {
            Kind::Bool => (*self.pick(&["true", "false", "f1", "f2"])).to_owned(),
            Kind::Int => {
                (*self.pick(&["0", "1", "2", "3", "7", "-1", "-4", "60", "100", "9223372036854775807", "-9223372036854775808"])).to_owned()
            }
            Kind::Uint => (*self.pick(&["0u", "1u", "2u", "5u", "100u", "18446744073709551615u"])).to_owned(),
            Kind::Double => (*self.pick(&["n1", "n2", "n3", "n1", "n2", "0.0", "0.5", "1.0", "2.5", "-3.25", "100.0", "1e30"])).to_owned(),
            Kind::Text => {
                (*self.pick(&["s1", "s2", "s1", "''", "'a'", "'ab'", "'ñ'", "\"/api/login\"", "'7'", "'true'", "'x y'"])).to_owned()
            }
            Kind::Ints => {
                let many = self.below(4);
                let items: Vec<_> = (0..many).map(|_| self.leaf(Kind::Int)).collect();
                format!("[{}]", items.join(", "))
            }
            Kind::Texts => {
                let many = self.below(4);
                let items: Vec<_> = (0..many).map(|_| self.leaf(Kind::Text)).collect();
                format!("[{}]", items.join(", "))
            }
            Kind::Table => (*self.pick(&["{'a': 1, 'b': 2}", "{'a': 7}", "{'ab': 0, 'a': -1, '': 3}", "{}"])).to_owned(),
        }
    }

    fn operator(&mut self, kind: Kind, operators: &[&str], depth: u32) -> String {
        let operator = *self.pick(operators);
        let (left, right) = (self.of(kind, depth), self.of(kind, depth));
        format!("({left} {operator} {right})")
    }

    fn conditional(&mut self, kind: Kind, depth: u32) -> String {
        let (test, yes, no) = (self.of(Kind::Bool, depth), self.of(kind, depth), self.of(kind, depth));
        format!("({test} ? {yes} : {no})")
    }

    fn truth(&mut self, depth: u32) -> String {
        match self.below(16) {
            0..=2 => self.comparison(depth),
            3 | 4 => self.operator(Kind::Bool, &["&&", "||"], depth),
            5 => format!("!{}", self.of(Kind::Bool, depth)),
            6 => self.conditional(Kind::Bool, depth),
            7 => {
                let (kind, list) = *self.pick(&[(Kind::Int, Kind::Ints), (Kind::Text, Kind::Texts), (Kind::Text, Kind::Table)]);
                let (item, container) = (self.of(kind, depth), self.of(list, depth));
                format!("({item} in {container})")
            }
            8 | 9 => {
                let test = *self.pick(&["startsWith", "endsWith", "contains"]);
                let (text, part) = (self.of(Kind::Text, depth), self.of(Kind::Text, depth));
                format!("{text}.{test}({part})")
            }
            10 => {
                let pattern = *self.pick(&["'^/api/'", "'a+b?'", "'[0-9]'", "'^$'", "'(x|y) ?'"]);
                format!("{}.matches({pattern})", self.of(Kind::Text, depth))
            }
            11 | 12 => self.quantifier(depth),
            13 => {
                let key = *self.pick(&["a", "b", "zz"]);
                format!("has({}.{key})", self.leaf(Kind::Table))
            }
            14 => {
                let text = *self.pick(&["'true'", "'false'", "'t'", "'T'", "'1'", "'0'", "'False'", "'yes'", "''"]);
                format!("bool({text})")
            }
            _ => format!("(dyn({}) == {})", self.of(Kind::Int, depth), self.of(Kind::Int, depth)),
        }
    }

    /// Both sides of one type, or numbers of two types.
    fn comparison(&mut self, depth: u32) -> String {
        const ORDERS: [&str; 6] = ["<", "<=", ">", ">=", "==", "!="];
        match self.below(6) {
            0 | 1 => self.operator(Kind::Double, &ORDERS, depth),
            2 => {
                const NUMBERS: [Kind; 3] = [Kind::Int, Kind::Uint, Kind::Double];
                let (left, right) = (*self.pick(&NUMBERS), *self.pick(&NUMBERS));
                let operator = *self.pick(&ORDERS);
                format!("({} {operator} {})", self.of(left, depth), self.of(right, depth))
            }
            3 => {
                // What rules are made of: a number of the row beside a whole number.
                let (name, operator, literal) = (*self.pick(&NUMBERS), *self.pick(&ORDERS), self.below(200));
                if self.below(2) == 0 { format!("({name} {operator} {literal})") } else { format!("({literal} {operator} {name})") }
            }
            4 => {
                let kind = *self.pick(&SCALARS);
                self.operator(kind, &ORDERS, depth)
            }
            _ => {
                let kind = *self.pick(&KINDS);
                self.operator(kind, &["==", "!="], depth)
            }
        }
    }

    fn quantifier(&mut self, depth: u32) -> String {
        let (item, list) = *self.pick(&[(Kind::Int, Kind::Ints), (Kind::Text, Kind::Texts), (Kind::Text, Kind::Table)]);
        let range = self.of(list, depth);
        let name = *self.pick(&["all", "exists", "exists_one"]);
        let (variable, body) = self.within(item, Kind::Bool, depth);
        format!("{range}.{name}({variable}, {body})")
    }

    /// A body that sees one more variable.
    fn within(&mut self, item: Kind, body: Kind, depth: u32) -> (String, String) {
        let variable = format!("v{}", self.locals.len());
        self.locals.push((variable.clone(), item));
        let body = if self.locals.len() > 2 { self.leaf(body) } else { self.of(body, depth) };
        self.locals.pop();
        (variable, body)
    }

    fn int(&mut self, depth: u32) -> String {
        match self.below(10) {
            0..=3 => self.operator(Kind::Int, &["+", "-", "*", "/", "%"], depth),
            4 => {
                let of = *self.pick(&[Kind::Text, Kind::Ints, Kind::Texts, Kind::Table]);
                let value = self.of(of, depth);
                if self.below(2) == 0 { format!("size({value})") } else { format!("{value}.size()") }
            }
            5 => self.conditional(Kind::Int, depth),
            6 => {
                let of = *self.pick(&[Kind::Double, Kind::Uint, Kind::Int, Kind::Text]);
                format!("int({})", self.of(of, depth))
            }
            7 => format!("{}[{}]", self.of(Kind::Ints, depth), self.below(3)),
            8 => format!("{}.{}", self.leaf(Kind::Table), self.pick(&["a", "b"])),
            _ => format!("-({})", self.of(Kind::Int, depth)),
        }
    }

    fn uint(&mut self, depth: u32) -> String {
        match self.below(4) {
            0 | 1 => self.operator(Kind::Uint, &["+", "-", "*", "/", "%"], depth),
            2 => {
                let of = *self.pick(&[Kind::Int, Kind::Double, Kind::Uint, Kind::Text]);
                format!("uint({})", self.of(of, depth))
            }
            _ => self.conditional(Kind::Uint, depth),
        }
    }

    fn double(&mut self, depth: u32) -> String {
        match self.below(6) {
            0 | 1 => self.operator(Kind::Double, &["+", "-", "*"], depth),
            // Never by nothing: what comes of that is pinned.
            2 => format!("({} / {})", self.of(Kind::Double, depth), self.pick(&["0.5", "2.5", "-3.25", "8.0"])),
            3 => {
                let of = *self.pick(&[Kind::Int, Kind::Uint, Kind::Double, Kind::Text]);
                format!("double({})", self.of(of, depth))
            }
            4 => self.conditional(Kind::Double, depth),
            _ => format!("-({})", self.of(Kind::Double, depth)),
        }
    }

    fn text(&mut self, depth: u32) -> String {
        match self.below(5) {
            0 | 1 => self.operator(Kind::Text, &["+"], depth),
            2 => self.conditional(Kind::Text, depth),
            3 => {
                let of = *self.pick(&[Kind::Int, Kind::Uint, Kind::Bool, Kind::Text]);
                format!("string({})", self.of(of, depth))
            }
            _ => format!("{}[{}]", self.of(Kind::Texts, depth), self.below(3)),
        }
    }

    fn list(&mut self, item: Kind, list: Kind, depth: u32) -> String {
        match self.below(4) {
            0 => self.operator(list, &["+"], depth),
            1 => {
                let (from, range) = *self.pick(&[(Kind::Int, Kind::Ints), (Kind::Text, Kind::Texts)]);
                let range = self.of(range, depth);
                let (variable, body) = self.within(from, item, depth);
                format!("{range}.map({variable}, {body})")
            }
            2 => {
                let range = self.of(list, depth);
                let (variable, body) = self.within(item, Kind::Bool, depth);
                format!("{range}.filter({variable}, {body})")
            }
            _ => {
                let many = self.below(3);
                let items: Vec<_> = (0..many).map(|_| self.of(item, depth)).collect();
                format!("[{}]", items.join(", "))
            }
        }
    }
}
