//! From syntax tree to code: names resolved, types checked, everything outside the subset refused.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue, SelectExpr, SourceInfo};
use cel::parser::Parser;

use super::code::{Compiled, Frame, Text};
use super::compare::find;
use super::error::{CompileError, Fault, Refusal};
use super::functions::ALLOWED;
use super::operators;
use super::scope::{NameKind, NameRef, Scope};
use super::value::{Type, Value, common};

/// Longest expression, bytes.
const SOURCE_BYTES: usize = 8 * 1024;
/// Deepest nesting of operators and calls.
const DEPTH: usize = 64;

/// Code and what it reads.
pub(super) struct Output {
    pub code: Compiled,
    pub reads: Vec<NameRef>,
    /// Texts of the row, by place, with the literals that they are compared with.
    pub literals: Vec<(u16, Arc<str>)>,
}

/// Compiles an expression. `strict` refuses types that can never meet; otherwise they are faults of the run.
pub(super) fn compile(source: &str, scope: &Scope, strict: bool) -> Result<Output, CompileError> {
    if source.len() > SOURCE_BYTES {
        let message = format!("the expression has {} bytes, at most {SOURCE_BYTES} are allowed", source.len());
        return Err(CompileError { line: 1, column: 1, reason: Refusal::TooLarge, message });
    }
    let (tree, info) = parse(source)?;
    let mut compiler = Compiler { scope, info, locals: Vec::new(), reads: Vec::new(), literals: Vec::new(), problem: None, depth: 0 };
    let code = compiler.expression(&tree)?;
    match compiler.problem {
        Some(problem) if strict => Err(problem),
        _ => Ok(Output { code, reads: compiler.reads, literals: compiler.literals }),
    }
}

fn parse(source: &str) -> Result<(IdedExpr, SourceInfo), CompileError> {
    let syntax = |line: isize, column: isize, message: String| CompileError {
        line: u32::try_from(line).unwrap_or(1).max(1),
        column: u32::try_from(column).unwrap_or(1).max(1),
        reason: Refusal::Syntax,
        message,
    };
    // The generated parser may panic on text that it does not expect; a policy file must not take the process with it.
    let parsed = std::panic::catch_unwind(AssertUnwindSafe(|| Parser::default().parse_with_source_info(source)));
    match parsed {
        Ok(Ok(parsed)) => Ok(parsed),
        Ok(Err(errors)) => Err(match errors.errors.first() {
            Some(error) => syntax(error.pos.0, error.pos.1, format!("not a CEL expression: {}", error.msg)),
            None => syntax(1, 1, "not a CEL expression".to_owned()),
        }),
        Err(_) => Err(syntax(1, 1, "not a CEL expression".to_owned())),
    }
}

/// The walk over one expression.
pub(super) struct Compiler<'s> {
    pub(super) scope: &'s Scope,
    info: SourceInfo,
    /// Macro variables, the outermost first.
    pub(super) locals: Vec<(String, Type)>,
    pub(super) reads: Vec<NameRef>,
    pub(super) literals: Vec<(u16, Arc<str>)>,
    problem: Option<CompileError>,
    depth: usize,
}

impl Compiler<'_> {
    pub(super) fn expression(&mut self, node: &IdedExpr) -> Result<Compiled, CompileError> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(self.refuse(node.id, Refusal::TooLarge, format!("nested deeper than {DEPTH} levels")));
        }
        let compiled = match &node.expr {
            Expr::Literal(literal) => self.literal(node.id, literal),
            Expr::Ident(name) => self.name(node.id, name),
            Expr::Select(select) => self.select(node, select),
            Expr::Call(call) => self.call(node.id, call),
            Expr::List(list) => self.list(node.id, list),
            Expr::Map(map) => self.map(node.id, &map.entries),
            Expr::Comprehension(macro_call) => self.comprehension(node.id, macro_call),
            Expr::Struct(message) => {
                let text = format!("`{}{{…}}` builds a protobuf message; messages are outside the subset", message.type_name);
                Err(self.refuse(node.id, Refusal::Message, text))
            }
            Expr::Unspecified => Err(self.refuse(node.id, Refusal::Syntax, "empty expression".to_owned())),
        };
        self.depth -= 1;
        compiled
    }

    /// A refusal at that node.
    pub(super) fn refuse(&self, id: u64, reason: Refusal, message: String) -> CompileError {
        let offset = self.info.offset_for(id).map_or(0, |(start, _)| start as usize);
        let before: String = self.info.source.chars().take(offset).collect();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let whole = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        CompileError { line: whole(line), column: whole(column), reason, message }
    }

    /// Types that can never meet: an error for rules, a fault of the run for programs.
    pub(super) fn mismatch(&mut self, id: u64, message: String) -> Compiled {
        let error = self.refuse(id, Refusal::WrongType, message);
        self.problem.get_or_insert(error);
        Compiled::fault()
    }

    /// Notes a type problem without replacing the code.
    pub(super) fn note(&mut self, id: u64, message: String) {
        let error = self.refuse(id, Refusal::WrongType, message);
        self.problem.get_or_insert(error);
    }

    fn literal(&self, id: u64, literal: &LiteralValue) -> Result<Compiled, CompileError> {
        Ok(Compiled::constant(match literal {
            LiteralValue::Boolean(value) => Value::Bool(*value.inner()),
            LiteralValue::Int(value) => Value::Int(*value.inner()),
            LiteralValue::UInt(value) => Value::Uint(*value.inner()),
            LiteralValue::Double(value) => Value::Double(*value.inner()),
            LiteralValue::String(value) => Value::Text(value.inner().into()),
            LiteralValue::Null => Value::Null,
            LiteralValue::Bytes(_) => {
                return Err(self.refuse(id, Refusal::Bytes, "bytes are outside the subset; use a string".to_owned()));
            }
        }))
    }

    /// A name, dotted or not: a macro variable, then a name of the scope.
    fn name(&mut self, id: u64, name: &str) -> Result<Compiled, CompileError> {
        if let Some(found) = self.local(name) {
            return Ok(found);
        }
        let plain = name.strip_prefix('.').unwrap_or(name);
        match self.scope.resolve(plain) {
            Some((kind, place)) => Ok(self.row_name(plain, kind, place)),
            None => Err(self.unknown(id, plain)),
        }
    }

    fn local(&self, name: &str) -> Option<Compiled> {
        let at = self.locals.iter().rposition(|(known, _)| known == name)?;
        let depth = self.locals.len() - 1 - at;
        let kind = self.locals.get(at)?.1.clone();
        Some(match kind {
            Type::String => Compiled::new(
                super::code::Code::Text(Box::new(move |frame| match frame.local(depth)? {
                    Value::Text(text) => Ok(Text::Row(text)),
                    _ => Err(Fault::NoOverload),
                })),
                kind,
            ),
            kind => Compiled::any(Box::new(move |frame: &Frame<'_>| frame.local(depth).cloned()), kind),
        })
    }

    fn row_name(&mut self, name: &str, kind: NameKind, place: u16) -> Compiled {
        if kind == NameKind::Constant {
            return Compiled::constant(self.scope.constant_value(place).cloned().unwrap_or(Value::Null));
        }
        if !self.reads.iter().any(|read| read.kind == kind && read.place == place) {
            self.reads.push(NameRef { name: name.into(), kind, place, compared: None });
        }
        let mut compiled = match kind {
            NameKind::Number => Compiled::double(Box::new(move |frame| Ok(frame.row.number(place))), true),
            NameKind::Text => {
                Compiled::new(super::code::Code::Text(Box::new(move |frame| Ok(Text::Row(frame.row.text(place))))), Type::String)
            }
            NameKind::Flag | NameKind::Constant => Compiled::bool(Box::new(move |frame| Ok(frame.row.flag(place)))),
        };
        compiled.name = Some((kind, place));
        compiled
    }

    pub(super) fn unknown(&self, id: u64, name: &str) -> CompileError {
        const TYPES: [&str; 11] =
            ["bool", "int", "uint", "double", "string", "bytes", "list", "map", "null_type", "type", "google.protobuf.Timestamp"];
        if TYPES.contains(&name) {
            return self.refuse(id, Refusal::TypeValue, format!("`{name}` is a type; types as values are outside the subset"));
        }
        let closest = self.scope.closest(name, 3);
        let hint = match closest.is_empty() {
            true => "no names are declared here".to_owned(),
            false => format!("closest allowed: {}", closest.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")),
        };
        self.refuse(id, Refusal::UnknownName, format!("unknown name `{name}`; {hint}"))
    }

    /// `a.b.c`: the longest name of the scope that it spells, then fields of a map; or a presence test of either.
    fn select(&mut self, node: &IdedExpr, select: &SelectExpr) -> Result<Compiled, CompileError> {
        if let Some(segments) = spelled(node)
            && self.local(segments.split('.').next().unwrap_or_default()).is_none()
        {
            let plain = segments.strip_prefix('.').unwrap_or(&segments);
            if let Some((kind, place)) = self.scope.resolve(plain) {
                let value = self.row_name(plain, kind, place);
                return Ok(if select.test { presence(value) } else { value });
            }
            let root = plain.split('.').next().unwrap_or_default();
            let is_map = self.scope.resolve(root).is_some_and(|(kind, _)| kind == NameKind::Constant);
            if !is_map || self.scope.has_prefix(plain) {
                return Err(self.unknown(node.id, plain));
            }
        }
        let operand = self.expression(&select.operand)?;
        let given = match &operand.kind {
            Type::Map(_, value) => Some((**value).clone()),
            Type::Dyn => Some(Type::Dyn),
            _ => None,
        };
        let Some(given) = given else {
            let text = format!("`.{}` needs a map, found {}", select.field, operand.kind);
            return Ok(self.mismatch(node.id, text));
        };
        let key = Value::Text(select.field.as_str().into());
        let operand = operand.into_any();
        if select.test {
            return Ok(Compiled::bool(Box::new(move |frame| match operand(frame)? {
                Value::Map(entries) => Ok(find(&entries, &key).is_some()),
                _ => Err(Fault::NoOverload),
            })));
        }
        Ok(Compiled::any(
            Box::new(move |frame| match operand(frame)? {
                Value::Map(entries) => find(&entries, &key).cloned().ok_or(Fault::NoSuchKey),
                _ => Err(Fault::NoOverload),
            }),
            given,
        ))
    }

    fn list(&mut self, id: u64, list: &cel::common::ast::ListExpr) -> Result<Compiled, CompileError> {
        if !list.optional_indices.is_empty() {
            return Err(self.refuse(id, Refusal::Optional, "optional values are outside the subset".to_owned()));
        }
        let items = list.elements.iter().map(|item| self.expression(item)).collect::<Result<Vec<_>, _>>()?;
        let constants: Option<Vec<Value>> = items.iter().map(|item| item.constant.clone()).collect();
        if let Some(constants) = constants {
            return Ok(Compiled::constant(Value::List(constants.into())));
        }
        let kind = Type::List(Box::new(common(items.iter().map(|item| item.kind.clone()))));
        let items: Vec<_> = items.into_iter().map(Compiled::into_any).collect();
        Ok(Compiled::any(Box::new(move |frame| Ok(Value::List(items.iter().map(|item| item(frame)).collect::<Result<_, _>>()?))), kind))
    }

    fn map(&mut self, id: u64, entries: &[cel::common::ast::IdedEntryExpr]) -> Result<Compiled, CompileError> {
        let mut compiled = Vec::with_capacity(entries.len());
        for entry in entries {
            let EntryExpr::MapEntry(entry) = &entry.expr else {
                return Err(self.refuse(id, Refusal::Message, "protobuf messages are outside the subset".to_owned()));
            };
            if entry.optional {
                return Err(self.refuse(id, Refusal::Optional, "optional values are outside the subset".to_owned()));
            }
            compiled.push((self.expression(&entry.key)?, self.expression(&entry.value)?));
        }
        let constants: Option<Vec<(Value, Value)>> =
            compiled.iter().map(|(key, value)| Some((key.constant.clone()?, value.constant.clone()?))).collect();
        if let Some(Ok(constant)) = constants.map(operators::map) {
            return Ok(Compiled::constant(constant));
        }
        let kind = Type::Map(
            Box::new(common(compiled.iter().map(|(key, _)| key.kind.clone()))),
            Box::new(common(compiled.iter().map(|(_, value)| value.kind.clone()))),
        );
        let entries: Vec<_> = compiled.into_iter().map(|(key, value)| (key.into_any(), value.into_any())).collect();
        Ok(Compiled::any(
            Box::new(move |frame| {
                let entries = entries.iter().map(|(key, value)| Ok((key(frame)?, value(frame)?)));
                operators::map(entries.collect::<Result<_, Fault>>()?)
            }),
            kind,
        ))
    }

    /// What is refused when a function is not in the subset.
    pub(super) fn unknown_function(&self, id: u64, name: &str) -> CompileError {
        let (reason, why) = match name {
            "type" => (Refusal::TypeValue, "types as values are outside the subset".to_owned()),
            "bytes" => (Refusal::Bytes, "bytes are outside the subset".to_owned()),
            _ => (Refusal::UnknownFunction, format!("allowed are {ALLOWED}")),
        };
        self.refuse(id, reason, format!("unknown function `{name}`; {why}"))
    }
}

/// `has(name)` of a name of the row.
fn presence(value: Compiled) -> Compiled {
    match value.name {
        Some((NameKind::Number, place)) => Compiled::bool(Box::new(move |frame| Ok(!frame.row.number(place).is_nan()))),
        Some((NameKind::Text, place)) => Compiled::bool(Box::new(move |frame| Ok(!frame.row.text(place).is_empty()))),
        _ => Compiled::constant(Value::Bool(true)),
    }
}

/// The dotted name that a chain of selections spells.
fn spelled(node: &IdedExpr) -> Option<String> {
    match &node.expr {
        Expr::Ident(name) => Some(name.clone()),
        Expr::Select(select) => match &select.operand.expr {
            Expr::Select(inner) if inner.test => None,
            _ => Some(format!("{}.{}", spelled(&select.operand)?, select.field)),
        },
        _ => None,
    }
}
