//! Operators and function calls of one expression.

use std::sync::Arc;

use cel::common::ast::{CallExpr, Expr, IdedExpr, operators as names};

use super::code::{Code, Compiled, adapt};
use super::compile::Compiler;
use super::error::{CompileError, Fault, Refusal};
use super::fast::{Comparison, compare, into_double, text_in};
use super::flat::Truth;
use super::functions::{Conversion, TextTest, size};
use super::operators::{Arithmetic, arithmetic, contained, index, negate};
use super::scope::{Compared, NameKind};
use super::value::{Type, Value};

/// Largest compiled pattern, bytes.
const PATTERN_BYTES: usize = 1 << 20;

impl Compiler<'_> {
    pub(super) fn call(&mut self, id: u64, call: &CallExpr) -> Result<Compiled, CompileError> {
        if let (None, [left, right]) = (&call.target, call.args.as_slice()) {
            if let Some(operator) = comparison(&call.func_name) {
                return self.comparison(id, operator, left, right);
            }
            if let Some(operator) = arithmetic_operator(&call.func_name) {
                return self.arithmetic(id, operator, left, right);
            }
        }
        match (call.func_name.as_str(), &call.target, call.args.as_slice()) {
            (names::LOGICAL_AND, None, [_, _]) => self.logic(id, call, false),
            (names::LOGICAL_OR, None, [_, _]) => self.logic(id, call, true),
            (names::LOGICAL_NOT, None, [value]) => {
                let value = self.truth(value)?.into_bool();
                Ok(Compiled::bool(Box::new(move |frame| value(frame).map(|value| !value))))
            }
            (names::NEGATE, None, [value]) => self.negation(id, value),
            (names::CONDITIONAL, None, [test, yes, no]) => self.conditional(id, test, yes, no),
            (names::IN, None, [item, container]) => self.membership(id, item, container),
            (names::INDEX, None, [container, key]) => self.indexing(id, container, key),
            (names::OPT_INDEX | names::OPT_SELECT, ..) => {
                Err(self.refuse(id, Refusal::Optional, "optional values are outside the subset".to_owned()))
            }
            (name, target, args) => self.function(id, name, target.as_deref(), args),
        }
    }

    fn function(&mut self, id: u64, name: &str, target: Option<&IdedExpr>, args: &[IdedExpr]) -> Result<Compiled, CompileError> {
        match (name, target, args) {
            ("size", None, [value]) | ("size", Some(value), []) => {
                let value = self.expression(value)?;
                match &value.kind {
                    Type::String | Type::List(_) | Type::Map(..) | Type::Dyn => Ok(size(value)),
                    other => {
                        let text = format!("`size` takes a string, list or map, found {other}");
                        Ok(self.mismatch(id, text))
                    }
                }
            }
            ("matches", Some(text), [pattern]) | ("matches", None, [text, pattern]) => self.matches(id, text, pattern),
            (name, Some(text), [part]) if TextTest::named(name).is_some() => self.text_test(id, name, text, part),
            (name, None, [value]) if Conversion::named(name).is_some() => self.conversion(id, name, value),
            ("size" | "matches" | "startsWith" | "endsWith" | "contains", ..) => {
                let text = format!("`{name}` is called with the wrong number of arguments");
                Ok(self.mismatch(id, text))
            }
            _ => Err(self.unknown_function(id, name)),
        }
    }

    fn text_test(&mut self, id: u64, name: &str, text: &IdedExpr, part: &IdedExpr) -> Result<Compiled, CompileError> {
        let (text, part) = (self.expression(text)?, self.expression(part)?);
        let test = TextTest::named(name).unwrap_or(TextTest::Contains);
        if !text.kind.agrees(&Type::String) || !part.kind.agrees(&Type::String) {
            let text = format!("`{name}` takes strings, found {} and {}", text.kind, part.kind);
            return Ok(self.mismatch(id, text));
        }
        if name == "startsWith" {
            self.observe_text(&text, &part);
        }
        Ok(test.code(text.into_text(), part))
    }

    fn matches(&mut self, id: u64, text: &IdedExpr, pattern: &IdedExpr) -> Result<Compiled, CompileError> {
        let (text, pattern) = (self.expression(text)?, self.expression(pattern)?);
        let Some(Value::Text(pattern)) = pattern.constant else {
            let message = "`matches` takes a literal pattern, so that it is compiled once".to_owned();
            return Err(self.refuse(id, Refusal::Pattern, message));
        };
        let pattern = regex::RegexBuilder::new(&pattern).size_limit(PATTERN_BYTES).build().map_err(|error| {
            let why = error.to_string().lines().last().unwrap_or_default().trim().to_owned();
            self.refuse(id, Refusal::Pattern, format!("pattern `{pattern}` is not a regular expression (RE2 syntax): {why}"))
        })?;
        if !text.kind.agrees(&Type::String) {
            let text = format!("`matches` takes a string, found {}", text.kind);
            return Ok(self.mismatch(id, text));
        }
        let text = text.into_text();
        Ok(Compiled::bool(Box::new(move |frame| Ok(pattern.is_match(&text(frame)?)))))
    }

    fn conversion(&mut self, id: u64, name: &str, value: &IdedExpr) -> Result<Compiled, CompileError> {
        let conversion = Conversion::named(name).unwrap_or(Conversion::Dyn);
        let value = self.expression(value)?;
        if !conversion.takes(&value.kind) {
            let text = format!("`{name}()` does not convert {}", value.kind);
            // A text of a double depends on how it is printed; it is left out rather than nearly right.
            return match (conversion, &value.kind) {
                (Conversion::String, Type::Double) => Err(self.refuse(id, Refusal::UnknownFunction, text)),
                _ => Ok(self.mismatch(id, text)),
            };
        }
        Ok(conversion.code(value))
    }

    /// An operand that must be true or false.
    fn truth(&mut self, node: &IdedExpr) -> Result<Compiled, CompileError> {
        let value = self.expression(node)?;
        if !value.kind.agrees(&Type::Bool) {
            self.note(node.id, format!("a truth value is needed here, found {}", value.kind));
        }
        Ok(value)
    }

    fn logic(&mut self, id: u64, call: &CallExpr, deciding: bool) -> Result<Compiled, CompileError> {
        let _ = id;
        let mut operands = Vec::new();
        flatten(call, &mut operands);
        let terms = operands.into_iter().map(|node| Ok(self.truth(node)?.into_truth())).collect::<Result<Vec<_>, CompileError>>()?;
        Ok(Compiled::truth(if deciding { Truth::Any(terms) } else { Truth::All(terms) }))
    }

    fn comparison(&mut self, id: u64, operator: Comparison, left: &IdedExpr, right: &IdedExpr) -> Result<Compiled, CompileError> {
        let (left, right) = (self.expression(left)?, self.expression(right)?);
        self.observe(operator, &left, &right);
        if operator.is_equality() {
            self.observe_text(&left, &right);
            self.observe_text(&right, &left);
        }
        let (left, right) = adapt(left, right);
        let comparable = match (&left.kind, &right.kind) {
            (a, b) if a.is_number() && b.is_number() => true,
            (a, b) if operator.is_equality() => a.agrees(b) || *a == Type::Null || *b == Type::Null,
            (Type::Dyn | Type::Bool | Type::String, _) => left.kind.agrees(&right.kind),
            (a, Type::Dyn) => a.is_number(),
            _ => false,
        };
        if !comparable {
            let text = format!("`{}` cannot compare {} with {}", operator.symbol(), left.kind, right.kind);
            if !operator.is_equality() {
                return Ok(self.mismatch(id, text));
            }
            self.note(id, text);
        }
        Ok(Compiled::truth(compare(operator, left, right)))
    }

    /// Remembers which literal a name is compared to.
    fn observe(&mut self, operator: Comparison, left: &Compiled, right: &Compiled) {
        let (name, literal, operator) = match (left.name, right.name) {
            (Some(name), None) => (name, right.literal_number(), operator),
            (None, Some(name)) => (name, left.literal_number(), operator.mirrored()),
            _ => return,
        };
        let Some(literal) = literal else { return };
        if let Some(read) = self.reads.iter_mut().find(|read| (read.kind, read.place) == name) {
            read.compared.get_or_insert(Compared { operator: operator.symbol(), literal });
        }
    }

    /// Remembers which texts a text of the row is compared with.
    fn observe_text(&mut self, left: &Compiled, right: &Compiled) {
        let Some((NameKind::Text, place)) = left.name else { return };
        match &right.constant {
            Some(Value::Text(literal)) => self.literals.push((place, Arc::clone(literal))),
            Some(Value::List(items)) => self.literals.extend(items.iter().filter_map(|item| match item {
                Value::Text(literal) => Some((place, Arc::clone(literal))),
                _ => None,
            })),
            _ => {}
        }
    }

    fn arithmetic(&mut self, id: u64, operator: Arithmetic, left: &IdedExpr, right: &IdedExpr) -> Result<Compiled, CompileError> {
        let (left, right) = (self.expression(left)?, self.expression(right)?);
        let (left, right) = adapt(left, right);
        let joins = |kind: &Type| operator == Arithmetic::Add && matches!(kind, Type::String | Type::List(_));
        let kind = match (&left.kind, &right.kind) {
            (Type::Double, Type::Double) if operator != Arithmetic::Modulo => Some(Type::Double),
            (Type::Int, Type::Int) => Some(Type::Int),
            (Type::Uint, Type::Uint) => Some(Type::Uint),
            (Type::List(a), Type::List(b)) if operator == Arithmetic::Add => {
                Some(if a == b { left.kind.clone() } else { Type::List(Box::new(Type::Dyn)) })
            }
            (a, b) if a == b && joins(a) => Some(a.clone()),
            (a, b) if (*a == Type::Dyn && (b.is_number() || joins(b) || *b == Type::Dyn)) => Some(Type::Dyn),
            (a, b) if *b == Type::Dyn && (a.is_number() || joins(a)) => Some(Type::Dyn),
            _ => None,
        };
        match kind {
            Some(Type::Double) => {
                let from_row = left.from_row || right.from_row;
                let (left, right) = (into_double(left), into_double(right));
                Ok(Compiled::double(Box::new(move |frame| Ok(operator.on_doubles(left(frame)?, right(frame)?))), from_row))
            }
            Some(kind) => {
                let (left, right) = (left.into_any(), right.into_any());
                Ok(Compiled::any(Box::new(move |frame| arithmetic(operator, left(frame)?, right(frame)?)), kind))
            }
            None => {
                let text = format!(
                    "`{}` has no meaning for {} and {}; convert one side with int(), uint() or double()",
                    operator.symbol(),
                    left.kind,
                    right.kind
                );
                Ok(self.mismatch(id, text))
            }
        }
    }

    fn negation(&mut self, id: u64, value: &IdedExpr) -> Result<Compiled, CompileError> {
        let value = self.expression(value)?;
        if let Some(Ok(constant)) = value.constant.clone().map(negate) {
            return Ok(Compiled::constant(constant));
        }
        match value.kind {
            Type::Double => {
                let from_row = value.from_row;
                let value = into_double(value);
                Ok(Compiled::double(Box::new(move |frame| value(frame).map(|value| -value)), from_row))
            }
            Type::Int | Type::Dyn => {
                let kind = value.kind.clone();
                let value = value.into_any();
                Ok(Compiled::any(Box::new(move |frame| negate(value(frame)?)), kind))
            }
            ref other => {
                let text = format!("`-` needs an int or a double, found {other}");
                Ok(self.mismatch(id, text))
            }
        }
    }

    fn conditional(&mut self, id: u64, test: &IdedExpr, yes: &IdedExpr, no: &IdedExpr) -> Result<Compiled, CompileError> {
        let test = self.truth(test)?.into_bool();
        let (yes, no) = (self.expression(yes)?, self.expression(no)?);
        let (yes, no) = adapt(yes, no);
        if !yes.kind.agrees(&no.kind) {
            self.note(id, format!("the branches of `?:` must have one type, found {} and {}", yes.kind, no.kind));
        }
        let kind = if yes.kind == no.kind { yes.kind.clone() } else { Type::Dyn };
        if let (Code::Double(_), Code::Double(_)) = (&yes.code, &no.code) {
            let from_row = yes.from_row || no.from_row;
            let (yes, no) = (into_double(yes), into_double(no));
            return Ok(Compiled::double(Box::new(move |frame| if test(frame)? { yes(frame) } else { no(frame) }), from_row));
        }
        let (yes, no) = (yes.into_any(), no.into_any());
        Ok(Compiled::any(Box::new(move |frame| if test(frame)? { yes(frame) } else { no(frame) }), kind))
    }

    fn membership(&mut self, id: u64, item: &IdedExpr, container: &IdedExpr) -> Result<Compiled, CompileError> {
        let (item, container) = (self.expression(item)?, self.expression(container)?);
        self.observe_text(&item, &container);
        let of = match &container.kind {
            Type::List(of) => (**of).clone(),
            Type::Map(key, _) => (**key).clone(),
            Type::Dyn => Type::Dyn,
            other => {
                let text = format!("`in` needs a list or a map on its right, found {other}");
                return Ok(self.mismatch(id, text));
            }
        };
        if !(of.agrees(&item.kind) || of.is_number() && item.kind.is_number()) {
            self.note(id, format!("`in` cannot find {} among {of}", item.kind));
        }
        if let (Code::Text(_), Some(Value::List(items))) = (&item.code, &container.constant)
            && items.iter().all(|item| matches!(item, Value::Text(_)))
        {
            let items = Arc::clone(items);
            return Ok(Compiled::bool(text_in(item.into_text(), &items)));
        }
        let (item, container) = (item.into_any(), container.into_any());
        Ok(Compiled::bool(Box::new(move |frame| contained(&item(frame)?, &container(frame)?))))
    }

    fn indexing(&mut self, id: u64, container: &IdedExpr, key: &IdedExpr) -> Result<Compiled, CompileError> {
        let (container, key) = (self.expression(container)?, self.expression(key)?);
        let of = match &container.kind {
            Type::List(of) if key.kind.is_number() || key.kind == Type::Dyn => (**of).clone(),
            Type::Map(_, of) => (**of).clone(),
            Type::Dyn => Type::Dyn,
            other => {
                let text = format!("`[…]` cannot look up {} in {other}", key.kind);
                return Ok(self.mismatch(id, text));
            }
        };
        let (container, key) = (container.into_any(), key.into_any());
        let code = Compiled::any(Box::new(move |frame| index(&container(frame)?, &key(frame)?)), of.clone());
        Ok(match of {
            Type::String => Compiled::new(Code::Text(string_code(code)), of),
            _ => code,
        })
    }
}

fn string_code(code: Compiled) -> super::code::TextFn {
    let code = code.into_any();
    Box::new(move |frame| match code(frame)? {
        Value::Text(text) => Ok(super::code::Text::Shared(text)),
        _ => Err(Fault::NoOverload),
    })
}

/// The operands of nested calls of the same logical operator, in order.
fn flatten<'e>(call: &'e CallExpr, operands: &mut Vec<&'e IdedExpr>) {
    for argument in &call.args {
        match &argument.expr {
            Expr::Call(inner) if inner.func_name == call.func_name && inner.target.is_none() => flatten(inner, operands),
            _ => operands.push(argument),
        }
    }
}

fn comparison(name: &str) -> Option<Comparison> {
    Some(match name {
        names::EQUALS => Comparison::Equal,
        names::NOT_EQUALS => Comparison::NotEqual,
        names::LESS => Comparison::Less,
        names::LESS_EQUALS => Comparison::LessEqual,
        names::GREATER => Comparison::Greater,
        names::GREATER_EQUALS => Comparison::GreaterEqual,
        _ => return None,
    })
}

fn arithmetic_operator(name: &str) -> Option<Arithmetic> {
    Some(match name {
        names::ADD => Arithmetic::Add,
        names::SUBSTRACT => Arithmetic::Subtract,
        names::MULTIPLY => Arithmetic::Multiply,
        names::DIVIDE => Arithmetic::Divide,
        names::MODULO => Arithmetic::Modulo,
        _ => return None,
    })
}
