//! Counters and histograms of one proxy, and their Prometheus text. Labels come from closed enums only.

use prometheus::{Encoder, Histogram, HistogramOpts, IntCounter, IntGauge, Opts, Registry, TextEncoder};
use telltale_proto::v1::Action;

/// A closed set of label values.
pub trait Label: Copy + 'static {
    /// All of them, in the order of [`Label::index`].
    const ALL: &'static [Self];
    /// Position in `ALL`.
    fn index(self) -> usize;
    /// The value as printed.
    fn name(self) -> &'static str;
}

/// Declares an enum whose variants are label values.
macro_rules! labels {
    ($(#[$meta:meta])* $enum:ident { $($(#[$variant_meta:meta])* $variant:ident => $name:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $enum { $($(#[$variant_meta])* $variant),+ }
        impl $crate::metrics::Label for $enum {
            const ALL: &'static [Self] = &[$(Self::$variant),+];
            fn index(self) -> usize { self as usize }
            fn name(self) -> &'static str { match self { $(Self::$variant => $name),+ } }
        }
    };
}
pub(crate) use labels;

labels! {
    /// What was done with a request.
    Done {
        /// It went on to the upstream.
        Allow => "allow",
        /// It went on and was written to the log.
        Log => "log",
        /// It was answered with 429.
        RateLimit => "rate_limit",
        /// It was answered with a plain 403 that asks for a proof.
        Challenge => "challenge",
        /// It was answered with a decoy.
        Deceive => "deceive",
        /// It was refused.
        Block => "block",
        /// It was refused because no verdict could be had and its route fails closed.
        FailClosed => "fail_closed",
    }
}

impl From<Action> for Done {
    fn from(action: Action) -> Self {
        match action {
            Action::Unspecified | Action::Allow => Self::Allow,
            Action::Log => Self::Log,
            Action::RateLimit => Self::RateLimit,
            Action::Challenge => Self::Challenge,
            Action::Deceive => Self::Deceive,
            Action::Block => Self::Block,
        }
    }
}

labels! {
    /// Why a request has no verdict.
    Unscored {
        /// It did not come in time.
        Deadline => "deadline",
        /// No stream to the scorer stands, or it broke while waiting.
        Absent => "absent",
        /// Too many verdicts are awaited already.
        Full => "full",
        /// The scorer answered with an error.
        Refused => "refused",
    }
}

labels! {
    /// What went wrong with the upstream.
    UpstreamError {
        /// No connection could be made.
        Connect => "connect",
        /// It did not answer in time.
        Timeout => "timeout",
        /// It broke off or spoke no HTTP.
        Broken => "broken",
    }
}

labels! {
    /// What became of an outcome or aggregate.
    Report {
        /// Handed to the stream.
        Sent => "sent",
        /// No stream or no room.
        Dropped => "dropped",
        /// The scorer answered with an error.
        Refused => "refused",
    }
}

/// One counter for each value of a label.
#[derive(Debug)]
pub struct Family<L> {
    counters: Vec<IntCounter>,
    label: std::marker::PhantomData<fn(L)>,
}

impl<L: Label> Family<L> {
    fn new(registry: &Registry, name: &str, label: &str, help: &str) -> Result<Self, prometheus::Error> {
        let one = |value: &L| {
            let counter = IntCounter::with_opts(Opts::new(name, help).const_label(label, value.name()))?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        Ok(Self { counters: L::ALL.iter().map(one).collect::<Result<_, prometheus::Error>>()?, label: std::marker::PhantomData })
    }

    /// Counts one.
    pub fn count(&self, label: L) {
        if let Some(counter) = self.counters.get(label.index()) {
            counter.inc();
        }
    }

    /// How many were counted.
    pub fn get(&self, label: L) -> u64 {
        self.counters.get(label.index()).map_or(0, IntCounter::get)
    }
}

/// Everything one proxy counts.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Requests by what was done with them on a verdict or for want of one.
    pub actions: Family<Done>,
    /// Requests answered by a standing decision or a held rate limit, without the scorer.
    pub local: Family<Done>,
    /// Requests refused for their form or size.
    pub refused: Family<crate::hygiene::Reason>,
    /// Requests that have no verdict.
    pub unscored: Family<Unscored>,
    /// Failures of the upstream.
    pub upstream_errors: Family<UpstreamError>,
    /// Outcomes and aggregates.
    pub reports: Family<Report>,
    /// Time that scoring added to a request, seconds.
    pub added: Histogram,
    /// Requests from their head to the end of their answer, seconds.
    pub duration: Histogram,
    /// Alerts about unscored answers.
    pub alerts: IntCounter,
    /// Delays that were asked for and not given because too many were held.
    pub undelayed: IntCounter,
    /// Client connections open now.
    pub connections: IntGauge,
    /// Streams to the scorer that stand now.
    pub links: IntGauge,
    /// Standing decisions held now.
    pub decisions: IntGauge,
}

const ADDED_BUCKETS: &[f64] = &[
    0.000_025, 0.000_05, 0.000_075, 0.000_1, 0.000_125, 0.000_15, 0.000_2, 0.000_25, 0.000_3, 0.000_4, 0.000_5, 0.000_75, 0.001, 0.001_5,
    0.002, 0.003, 0.004, 0.005, 0.006, 0.008, 0.01, 0.025, 0.05, 0.1,
];
const DURATION_BUCKETS: &[f64] = &[0.000_25, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];

impl Metrics {
    /// A fresh set, all zero.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?;
            registry.register(Box::new(histogram.clone()))?;
            Ok::<_, prometheus::Error>(histogram)
        };
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        Ok(Self {
            actions: Family::new(&registry, "telltale_proxy_requests_total", "action", "Requests by what was done with them.")?,
            local: Family::new(
                &registry,
                "telltale_proxy_local_total",
                "action",
                "Requests answered by a standing decision or a held rate limit, without the scorer.",
            )?,
            refused: Family::new(&registry, "telltale_proxy_refused_total", "reason", "Requests refused for their form or size.")?,
            unscored: Family::new(&registry, "telltale_proxy_unscored_total", "reason", "Requests that have no verdict.")?,
            upstream_errors: Family::new(&registry, "telltale_proxy_upstream_errors_total", "kind", "Failures of the upstream.")?,
            reports: Family::new(&registry, "telltale_proxy_reports_total", "result", "Outcomes and aggregates for the scorer.")?,
            added: histogram("telltale_proxy_added_seconds", "Time that scoring added to a request.", ADDED_BUCKETS)?,
            duration: histogram("telltale_proxy_request_seconds", "Requests, from head to end of answer.", DURATION_BUCKETS)?,
            alerts: counter("telltale_proxy_alerts_total", "Alerts: bursts of unscored answers.")?,
            undelayed: counter("telltale_proxy_undelayed_total", "Delays not given because too many were held.")?,
            connections: gauge("telltale_proxy_connections", "Client connections open.")?,
            links: gauge("telltale_proxy_scorer_streams", "Streams to the scorer that stand.")?,
            decisions: gauge("telltale_proxy_decisions", "Standing decisions held.")?,
            registry,
        })
    }

    /// Prometheus text format.
    pub fn text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics cannot be printed");
        }
        text
    }
}
