//! The macros `all`, `exists`, `exists_one`, `map` and `filter`, told apart by how the parser expands them.
//!
//! Nothing else makes a comprehension, so a loop is always over a value that is at hand; nesting and the steps of one evaluation
//! are bounded.

use std::sync::Arc;

use cel::common::ast::{CallExpr, ComprehensionExpr, Expr, IdedExpr, LiteralValue, operators as names};

use super::code::{AnyFn, BoolFn, Compiled, Frame, Local};
use super::compile::Compiler;
use super::error::{CompileError, Fault, Refusal};
use super::value::{Type, Value};

/// How deep macros may stand in each other.
const NESTING: usize = 3;

/// A macro with the expressions it was given.
enum Macro<'e> {
    All(&'e IdedExpr),
    Exists(&'e IdedExpr),
    ExistsOne(&'e IdedExpr),
    Map { filter: Option<&'e IdedExpr>, body: &'e IdedExpr },
}

impl Compiler<'_> {
    pub(super) fn comprehension(&mut self, id: u64, given: &ComprehensionExpr) -> Result<Compiled, CompileError> {
        let Some(found) = recognise(given) else {
            let message = "unknown macro; allowed are all, exists, exists_one, map, filter".to_owned();
            return Err(self.refuse(id, Refusal::UnknownFunction, message));
        };
        if self.locals.len() >= NESTING {
            return Err(self.refuse(id, Refusal::TooLarge, format!("macros may be nested {NESTING} deep")));
        }
        let range = self.expression(&given.iter_range)?;
        let of = match &range.kind {
            Type::List(of) => (**of).clone(),
            Type::Map(key, _) => (**key).clone(),
            Type::Dyn => Type::Dyn,
            other => {
                let text = format!("a macro goes over a list or a map, found {other}");
                return Ok(self.mismatch(id, text));
            }
        };
        self.locals.push((given.iter_var.clone(), of));
        let compiled = self.body(found);
        self.locals.pop();
        Ok(compiled?.over(range.into_any()))
    }

    fn body(&mut self, found: Macro<'_>) -> Result<Body, CompileError> {
        Ok(match found {
            Macro::All(body) => Body::Quantifier { test: self.test(body)?, deciding: false },
            Macro::Exists(body) => Body::Quantifier { test: self.test(body)?, deciding: true },
            Macro::ExistsOne(body) => Body::ExistsOne(self.test(body)?),
            Macro::Map { filter, body } => {
                let filter = filter.map(|filter| self.test(filter)).transpose()?;
                let body = self.expression(body)?;
                let kind = body.kind.clone();
                Body::Map { filter, body: body.into_any(), kind }
            }
        })
    }

    fn test(&mut self, node: &IdedExpr) -> Result<BoolFn, CompileError> {
        let test = self.expression(node)?;
        if !test.kind.agrees(&Type::Bool) {
            self.note(node.id, format!("a truth value is needed here, found {}", test.kind));
        }
        Ok(test.into_bool())
    }
}

/// Compiled macro bodies.
enum Body {
    Quantifier { test: BoolFn, deciding: bool },
    ExistsOne(BoolFn),
    Map { filter: Option<BoolFn>, body: AnyFn, kind: Type },
}

impl Body {
    fn over(self, range: AnyFn) -> Compiled {
        match self {
            Self::Quantifier { test, deciding } => Compiled::bool(Box::new(move |frame| {
                let mut outcome = Ok(!deciding);
                for item in items(range(frame)?)? {
                    match within(frame, item, &test)? {
                        Ok(value) if value == deciding => return Ok(deciding),
                        Ok(_) => {}
                        Err(fault) => outcome = Err(fault),
                    }
                }
                outcome
            })),
            Self::ExistsOne(test) => Compiled::bool(Box::new(move |frame| {
                let mut found = 0_usize;
                for item in items(range(frame)?)? {
                    found += usize::from(within(frame, item, &test)??);
                }
                Ok(found == 1)
            })),
            Self::Map { filter, body, kind } => Compiled::any(
                Box::new(move |frame| {
                    let mut made = Vec::new();
                    for item in items(range(frame)?)? {
                        frame.step()?;
                        let local = Local { value: item, up: frame.local };
                        let inner = Frame { row: frame.row, local: Some(&local), steps: frame.steps };
                        if filter.as_ref().map_or(Ok(true), |filter| filter(&inner))? {
                            made.push(body(&inner)?);
                        }
                    }
                    Ok(Value::List(made.into()))
                }),
                Type::List(Box::new(kind)),
            ),
        }
    }
}

/// One visit. The outer error is the budget's, the inner one the body's.
fn within(frame: &Frame<'_>, item: Value, test: &BoolFn) -> Result<Result<bool, Fault>, Fault> {
    frame.step()?;
    let local = Local { value: item, up: frame.local };
    Ok(test(&Frame { row: frame.row, local: Some(&local), steps: frame.steps }))
}

/// What a macro visits: elements, or keys.
fn items(range: Value) -> Result<Vec<Value>, Fault> {
    match range {
        Value::List(items) => Ok(Arc::as_ref(&items).to_vec()),
        Value::Map(entries) => Ok(entries.iter().map(|(key, _)| key.clone()).collect()),
        _ => Err(Fault::NoOverload),
    }
}

fn recognise(given: &ComprehensionExpr) -> Option<Macro<'_>> {
    if given.iter_var2.is_some() {
        return None;
    }
    let Expr::Call(step) = &given.loop_step.expr else { return None };
    match (&given.accu_init.expr, step.func_name.as_str(), step.args.as_slice()) {
        (Expr::Literal(LiteralValue::Boolean(_)), names::LOGICAL_AND, [_, body]) => Some(Macro::All(body)),
        (Expr::Literal(LiteralValue::Boolean(_)), names::LOGICAL_OR, [_, body]) => Some(Macro::Exists(body)),
        (Expr::Literal(LiteralValue::Int(_)), names::CONDITIONAL, [body, ..]) => Some(Macro::ExistsOne(body)),
        (Expr::List(_), names::ADD, _) => Some(Macro::Map { filter: None, body: appended(step)? }),
        (Expr::List(_), names::CONDITIONAL, [filter, grown, _]) => match &grown.expr {
            Expr::Call(grown) => Some(Macro::Map { filter: Some(filter), body: appended(grown)? }),
            _ => None,
        },
        _ => None,
    }
}

/// The element of `@result + [element]`.
fn appended(call: &CallExpr) -> Option<&IdedExpr> {
    match call.args.as_slice() {
        [_, list] => match &list.expr {
            Expr::List(list) => list.elements.first(),
            _ => None,
        },
        _ => None,
    }
}
