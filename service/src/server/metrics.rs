//! Prometheus metrics: counted here, written as text for `/metrics`. Labels come from closed sets only.

use parking_lot::Mutex;
use prometheus::{
    Encoder, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};
use telltale_features::store::Store;
use telltale_proto::v1;

use super::{Service, models};
use crate::journal::JournalStats;

/// All of them.
pub struct Metrics {
    registry: Registry,
    /// One scrape at a time: what is set for one must not be half set for another.
    scraping: Mutex<()>,
    /// Transactions decided, by action.
    pub decided: IntCounterVec,
    /// Transactions by the action that would be taken were every rule in force.
    pub would: IntCounterVec,
    /// Calls refused, by gRPC code.
    pub refused: IntCounterVec,
    /// Transactions shed at the door, by class.
    pub shed: IntCounterVec,
    /// Seconds from the arrival of a transaction to its verdict.
    pub seconds: Histogram,
    /// Transactions answered from memory.
    pub duplicates: IntCounter,
    /// Identifiers used for two different contents.
    pub id_conflicts: IntCounter,
    /// Transactions of which something was cut.
    pub cut: IntCounter,
    /// Transactions whose time was moved.
    pub clamped_times: IntCounter,
    /// Reports taken, by kind.
    pub reports: IntCounterVec,
    /// Reports whose transaction is not known.
    pub unmatched: IntCounter,
    /// Verdicts that lacked something.
    pub degraded: IntCounter,
    /// Policy reloads, by result.
    pub reloads: IntCounterVec,
    /// Reloads of the databases of places, by result.
    pub geo_reloads: IntCounterVec,
    /// Changes of models, by what was asked and its result.
    pub model_changes: IntCounterVec,
    /// Scores that a model was asked for and did not give.
    pub model_absent: IntCounter,
    /// Calls of models, by result.
    pub inferences: IntCounterVec,
    /// Rows that models were asked to score directly.
    pub inference_rows: IntCounter,
    templates: IntGaugeVec,
    lessons: IntCounterVec,
    geo_lookups: IntGaugeVec,
    geo_built: IntGauge,
    model_psi: GaugeVec,
    model_missing: GaugeVec,
    shadow_dropped: IntGauge,
    labels_dropped: IntGauge,
    standing: IntGaugeVec,
    remembered: IntGaugeVec,
    running: IntGauge,
    entities: IntGauge,
    entity_bytes: IntGauge,
    entities_of: IntGaugeVec,
    bytes_of: IntGaugeVec,
    evicted: IntGauge,
    warming: IntGauge,
    expired: IntGauge,
    shared: IntGaugeVec,
    probation: IntGauge,
    evicted_established: IntGauge,
    snapshot: IntGaugeVec,
    journal: IntGaugeVec,
}

impl Metrics {
    /// Registers all of them.
    ///
    /// # Errors
    /// Never in practice: names are fixed and differ.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| -> prometheus::Result<IntCounter> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let counters = |name: &str, help: &str, label: &str| -> prometheus::Result<IntCounterVec> {
            let counters = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(counters.clone()))?;
            Ok(counters)
        };
        let gauge = |name: &str, help: &str| -> prometheus::Result<IntGauge> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let gauges = |name: &str, help: &str, label: &str| -> prometheus::Result<IntGaugeVec> {
            let gauges = IntGaugeVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(gauges.clone()))?;
            Ok(gauges)
        };
        // Models and versions are those of the repository: an operator puts them there, nothing from outside does. No label names a feature.
        let floats = |name: &str, help: &str| -> prometheus::Result<GaugeVec> {
            let gauges = GaugeVec::new(Opts::new(name, help), &["model", "version", "what"])?;
            registry.register(Box::new(gauges.clone()))?;
            Ok(gauges)
        };
        let buckets = vec![25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 100e-3, 1.0];
        let options = HistogramOpts::new("telltale_score_seconds", "Time from a transaction's arrival to its verdict.");
        let seconds = Histogram::with_opts(options.buckets(buckets))?;
        registry.register(Box::new(seconds.clone()))?;
        Ok(Self {
            scraping: Mutex::new(()),
            decided: counters("telltale_transactions_total", "Transactions decided.", "action")?,
            would: counters("telltale_would_total", "Transactions by the action that every rule in force would take.", "action")?,
            refused: counters("telltale_refused_total", "Calls refused.", "code")?,
            shed: counters("telltale_shed_total", "Transactions shed at the door.", "class")?,
            seconds,
            duplicates: counter("telltale_duplicates_total", "Repeated transactions answered from memory.")?,
            id_conflicts: counter("telltale_id_conflicts_total", "Identifiers used for two different contents.")?,
            cut: counter("telltale_cut_total", "Transactions of which something was cut to the limits.")?,
            clamped_times: counter("telltale_clamped_times_total", "Transactions whose time was moved into the last hour.")?,
            reports: counters("telltale_reports_total", "Outcomes, labels and aggregates taken.", "kind")?,
            unmatched: counter("telltale_unmatched_total", "Reports whose transaction is not known.")?,
            degraded: counter("telltale_degraded_total", "Verdicts that lacked something.")?,
            reloads: counters("telltale_policy_reloads_total", "Policy reloads.", "result")?,
            geo_reloads: counters("telltale_geo_reloads_total", "Reloads of the databases of places.", "result")?,
            templates: gauges("telltale_templates", "Endpoint templates beside the configured ones.", "state")?,
            lessons: counters("telltale_template_lessons_total", "Answered paths that templates are learned of.", "what")?,
            geo_lookups: gauges("telltale_geo_lookups", "Client addresses looked up since the start.", "result")?,
            geo_built: gauge("telltale_geo_built_timestamp_seconds", "When the oldest database of places was built; 0: there is none.")?,
            model_changes: {
                let options = Opts::new("telltale_model_changes_total", "Changes of models.");
                let counters = IntCounterVec::new(options, &["what", "result"])?;
                registry.register(Box::new(counters.clone()))?;
                counters
            },
            model_absent: counter("telltale_model_absent_total", "Scores that a model was asked for and did not give.")?,
            inferences: counters("telltale_inferences_total", "Calls of ModelInfer.", "result")?,
            inference_rows: counter("telltale_inference_rows_total", "Rows scored by ModelInfer.")?,
            model_psi: floats(
                "telltale_model_psi",
                "Population stability index of a model in force: of its score, and of its input that has moved most.",
            )?,
            model_missing: floats(
                "telltale_model_missing_rate",
                "Share of a model's input values that are missing: in what it learnt, now, and now of the input with the largest rise.",
            )?,
            shadow_dropped: gauge("telltale_shadow_dropped", "Transactions that models in shadow did not see for want of room.")?,
            labels_dropped: gauge("telltale_shadow_labels_dropped", "Labels that no model in shadow saw for want of room.")?,
            standing: gauges("telltale_standing_decisions", "Standing decisions.", "origin")?,
            remembered: gauges("telltale_remembered", "What is remembered of transactions.", "what")?,
            running: gauge("telltale_running", "Transactions being scored.")?,
            entities: gauge("telltale_store_entities", "Entities held.")?,
            entity_bytes: gauge("telltale_store_bytes", "Bytes of entity state held.")?,
            entities_of: gauges("telltale_store_type_entities", "Entities held, by entity type.", "entity")?,
            bytes_of: gauges("telltale_store_type_bytes", "Bytes of entity state held, by entity type.", "entity")?,
            warming: gauge("telltale_features_warming", "Features whose window has not passed since they were added.")?,
            evicted: gauge("telltale_store_evicted", "Entities given up for want of room since the start.")?,
            probation: gauge("telltale_store_probation", "Entities held that were seen once or twice.")?,
            evicted_established: gauge("telltale_store_evicted_established", "Those given up that had been seen more often.")?,
            snapshot: gauges("telltale_snapshot", "Snapshots of the embedded store: the last one, and counts since the start.", "what")?,
            expired: gauge("telltale_store_expired", "Entities whose time to live had passed since the start.")?,
            shared: gauges("telltale_store_shared", "The shared store: counts since the start, and how it stands.", "what")?,
            journal: gauges("telltale_journal", "The journal since the start.", "what")?,
            registry,
        })
    }

    /// How far the models in force have moved; those that are not any more are gone.
    fn drift(&self, models: &[v1::ModelDrift]) {
        self.model_psi.reset();
        self.model_missing.reset();
        for model in models.iter().filter(|model| model.rows > 0) {
            let version = model.version.to_string();
            let psi = |what, value| self.model_psi.with_label_values(&[model.model.as_str(), &version, what]).set(value);
            let missing = |what, value| self.model_missing.with_label_values(&[model.model.as_str(), &version, what]).set(value);
            let inputs = model.features.len().max(1) as f64;
            psi("score", model.score_stability_index);
            psi("worst_input", model.features.iter().map(|feature| feature.stability_index).fold(0.0, f64::max));
            missing("learnt", model.features.iter().map(|feature| feature.missing_then).sum::<f64>() / inputs);
            missing("now", model.features.iter().map(|feature| feature.missing_now).sum::<f64>() / inputs);
            let rise = |feature: &v1::FeatureDrift| feature.missing_now - feature.missing_then;
            let risen = model.features.iter().max_by(|one, other| rise(one).total_cmp(&rise(other)));
            missing("most_risen_input", risen.map_or(0.0, |feature| feature.missing_now));
        }
    }

    /// All of them as text, the store's and the journal's present state included.
    ///
    /// # Errors
    /// When the text cannot be encoded.
    pub fn text(&self, service: &Service) -> prometheus::Result<String> {
        let _one_at_a_time = self.scraping.lock();
        let engine = &service.engine;
        let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.running.set(signed(service.admission.running() as u64));
        let (remembered, early) = service.memory.sizes();
        self.remembered.with_label_values(&["transactions"]).set(signed(remembered as u64));
        self.remembered.with_label_values(&["early_outcomes"]).set(signed(early as u64));
        self.remembered.with_label_values(&["names"]).set(signed(service.names.len() as u64));
        let (overrides, denials) = service.decisions.counts();
        self.standing.with_label_values(&["override"]).set(signed(overrides as u64));
        self.standing.with_label_values(&["rule"]).set(signed(denials as u64));
        self.shadow_dropped.set(signed(service.models.shadows.dropped()));
        self.labels_dropped.set(signed(service.models.shadows.labels_dropped()));
        self.drift(&models::drift_report(service, ""));
        let store = engine.store.stats();
        self.entities.set(signed(store.entities.iter().sum()));
        self.entity_bytes.set(signed(store.bytes.iter().sum()));
        for (kind, (entities, bytes)) in engine.schema.entity_types().iter().zip(store.entities.iter().zip(&store.bytes)) {
            self.entities_of.with_label_values(&[&kind.name]).set(signed(*entities));
            self.bytes_of.with_label_values(&[&kind.name]).set(signed(*bytes));
        }
        for (state, count) in service.templates.counts() {
            self.templates.with_label_values(&[state]).set(signed(count as u64));
        }
        for (what, value) in service.templates.lessons.figures() {
            let counter = self.lessons.with_label_values(&[what]);
            counter.inc_by(value.saturating_sub(counter.get()));
        }
        if let Some(geo) = engine.geo() {
            self.geo_built.set(signed(geo.built()));
            for (result, value) in geo.figures() {
                self.geo_lookups.with_label_values(&[result]).set(signed(value));
            }
        }
        self.warming.set(signed(service.warming.warming(engine.clock().now()).len() as u64));
        self.evicted.set(signed(store.evicted));
        self.expired.set(signed(store.expired));
        self.probation.set(signed(store.probation));
        self.evicted_established.set(signed(store.evicted_established));
        for (what, value) in service.snapshots.figures(engine.clock().now()) {
            self.snapshot.with_label_values(&[what]).set(signed(value));
        }
        for (what, value) in store.shared {
            self.shared.with_label_values(&[what]).set(signed(value));
        }
        if let Some(stats) = engine.journal().stats() {
            let JournalStats { written, lost, gaps, bytes, failures, file: _ } = stats;
            let all = [("written", written), ("lost", lost), ("gaps", gaps), ("bytes", bytes), ("failures", failures)];
            for (what, value) in all {
                let value = value.load(std::sync::atomic::Ordering::Relaxed);
                self.journal.with_label_values(&[what]).set(signed(value));
            }
        }
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}
