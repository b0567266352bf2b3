//! One transaction, outcome or label as a row of named values: what filters and rules read.

use super::layout::{in_label, in_outcome, in_request};
use super::names::CARRIED_METHOD;
use super::routes::{Routes, object_id, segments};
use super::spec::{FieldKind, FieldSpec};
use crate::domain::{Context, LabelKind, Value, Values};
use crate::door::{Admitted, AdmittedOutcome};
use crate::expr::Row;
use crate::time::Timestamp;

/// Request-phase field values in the order of [`super::Schema::scope`]'s event fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fields<'a> {
    /// Numbers; NaN stands for missing.
    pub numbers: Vec<f64>,
    /// Texts; empty stands for missing.
    pub texts: Vec<&'a str>,
    /// Truth values.
    pub flags: Vec<bool>,
}

/// Room for a row: reused between transactions.
#[derive(Clone, Debug, Default)]
pub struct RowBuffers {
    /// Event numbers, then one a feature; whoever extends the scope appends here in the order of its own names.
    pub numbers: Vec<f64>,
    /// Event flags; whoever extends the scope appends here.
    pub flags: Vec<bool>,
}

impl RowBuffers {
    /// The row as it now stands.
    pub fn row<'a>(&'a self, fields: &'a Fields<'_>) -> Row<'a> {
        Row { numbers: &self.numbers, texts: &fields.texts, flags: &self.flags }
    }
}

/// Where the hour of day stands among the numbers of a request; the day of week follows.
// INVARIANT: as in `Layout::new` and `push_http`; a test moves a transaction in time and compares.
const HOUR: usize = 8;

impl<'a> Fields<'a> {
    /// The fields of a request as they are at another time: the store may clamp what a transaction says of its own.
    pub fn move_to(&mut self, time: Timestamp) {
        let (hour, weekday) = clock(time);
        for (number, value) in self.numbers.iter_mut().skip(HOUR).zip([hour, weekday]) {
            *number = value;
        }
    }

    /// The row of the event fields alone, as values of [`Schema::event_scope`](super::Schema::event_scope).
    pub fn row(&self) -> Row<'_> {
        Row { numbers: &self.numbers, texts: &self.texts, flags: &self.flags }
    }

    // INVARIANT: the order is that of `Layout::new`.
    pub(super) fn of_request(admitted: &'a Admitted, declared: &[FieldSpec], routes: &'a Routes) -> Self {
        let mut fields = Self { numbers: Vec::with_capacity(64), texts: Vec::with_capacity(32), flags: Vec::with_capacity(16) };
        fields.push_http(admitted, routes);
        let declared = declared.iter().filter(|field| in_request(field));
        fields.push_declared(declared, &admitted.fields, None);
        fields
    }

    pub(super) fn of_outcome(context: &'a Context, outcome: &'a AdmittedOutcome, declared: &[FieldSpec], routes: &'a Routes) -> Self {
        let mut fields = Self::default();
        let response = outcome.outcome.response.as_ref();
        fields.numbers.push(response.map_or(f64::NAN, |response| f64::from(response.status)));
        fields.numbers.push(response.map_or(f64::NAN, |response| response.body_size as f64));
        fields.numbers.push(response.map_or(f64::NAN, |response| response.duration_us as f64 / 1e3));
        fields.push_carried(context, routes);
        let succeeded = outcome.outcome.succeeded();
        fields.flags.extend([succeeded == Some(true), succeeded == Some(false)]);
        let declared = declared.iter().filter(|field| in_outcome(field));
        fields.push_declared(declared, &context.carried, Some(&outcome.outcome.attributes));
        fields
    }

    pub(super) fn of_label(context: &'a Context, label: LabelKind, declared: &[FieldSpec], routes: &'a Routes) -> Self {
        let mut fields = Self::default();
        fields.push_carried(context, routes);
        fields.texts.push(label_name(label));
        let declared = declared.iter().filter(|field| in_label(field));
        fields.push_declared(declared, &context.carried, None);
        fields
    }

    fn push_http(&mut self, admitted: &'a Admitted, routes: &'a Routes) {
        let tx = &admitted.tx;
        let http = tx.http.as_ref();
        let header = |name: &str| http.and_then(|http| http.header(name));
        let number = |value: Option<usize>| value.map_or(f64::NAN, |value| value as f64);
        let cookies = header("cookie");
        let (hour, weekday) = clock(tx.time);
        self.numbers.extend([
            http.map_or(f64::NAN, |http| http.body_size as f64),
            number(http.map(|http| segments(&http.path).filter(|segment| !segment.is_empty()).count())),
            number(http.map(|http| http.path.len())),
            number(http.map(|http| http.query.len())),
            number(http.map(|http| http.headers.len())),
            number(http.map(|_| cookies.map_or(0, |cookies| cookies.split(';').count()))),
            if tx.source.port == 0 { f64::NAN } else { f64::from(tx.source.port) },
            if tx.source.asn == 0 { f64::NAN } else { f64::from(tx.source.asn) },
            hour,
            weekday,
        ]);
        match http {
            Some(_) => self.numbers.extend_from_slice(admitted.signals.as_slice()),
            None => self.numbers.extend(admitted.signals.as_slice().iter().map(|_| f64::NAN)),
        }
        let method = http.map_or("", |http| http.method.as_str());
        let path = http.map_or("", |http| http.path.as_str());
        let tls = tx.source.tls.as_ref();
        self.texts.extend([
            method,
            admitted.route.as_str(),
            routes.operation(method, &admitted.route),
            path,
            http.map_or("", |http| http.query.as_str()),
            http.map_or("", |http| http.host.as_str()),
            http.map_or("", |http| http.scheme.as_str()),
            http.map_or("", |http| http.version.as_str()),
            header("user-agent").unwrap_or_default(),
            header("content-type").unwrap_or_default(),
            header("referer").unwrap_or_default(),
            object_id(path, &admitted.route),
            tx.source.ip.as_str(),
            tx.source.country.as_str(),
            tls.map_or("", |tls| tls.ja3.as_str()),
            tls.map_or("", |tls| tls.ja4.as_str()),
            tx.service.as_str(),
            tx.tenant.as_str(),
        ]);
        self.flags.extend([
            http.is_some(),
            cookies.is_some(),
            header("authorization").is_some(),
            header("referer").is_some(),
            header("accept-language").is_some(),
            http.is_some_and(|http| http.truncated),
            tx.identity.verified,
        ]);
    }

    fn push_carried(&mut self, context: &'a Context, routes: &'a Routes) {
        let method = match context.carried.get(CARRIED_METHOD) {
            Some(Value::Text(method)) => method.as_str(),
            _ => "",
        };
        self.texts.extend([method, context.route.as_str(), routes.operation(method, &context.route)]);
    }

    fn push_declared<'s>(&mut self, declared: impl Iterator<Item = &'s FieldSpec>, values: &'a Values, later: Option<&'a Values>) {
        for field in declared {
            let value = match later {
                Some(later) if field.from_outcome => field.places.iter().find_map(|place| match place {
                    super::spec::Place::Outcome(name) => later.get(name),
                    _ => None,
                }),
                _ => values.get(&field.name),
            };
            match (field.kind, value) {
                (FieldKind::Number, Some(Value::Number(number))) => self.numbers.push(*number),
                (FieldKind::Number, _) => self.numbers.push(f64::NAN),
                (FieldKind::Text, Some(Value::Text(text))) => self.texts.push(text),
                (FieldKind::Text, _) => self.texts.push(""),
                (FieldKind::Flag, value) => self.flags.push(matches!(value, Some(Value::Flag(true)))),
            }
        }
    }
}

/// A label in one word.
pub(super) const fn label_name(kind: LabelKind) -> &'static str {
    match kind {
        LabelKind::Benign => "benign",
        LabelKind::Fraud => "fraud",
        LabelKind::Abuse => "abuse",
    }
}

/// Hour of day with its fraction, and day of week with Monday 0, both UTC.
fn clock(time: Timestamp) -> (f64, f64) {
    const DAY: i64 = 86_400_000_000;
    let of_day = time.micros().rem_euclid(DAY) as f64 / 3.6e9;
    // 1970-01-01 was a Thursday.
    let weekday = (time.micros().div_euclid(DAY) + 3).rem_euclid(7) as f64;
    (of_day, weekday)
}
