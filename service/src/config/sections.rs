//! The sections of the configuration file with their keys and defaults. No value is checked here; `service/telltale.toml` says what each
//! key means.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

macro_rules! section {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $kind:ty = $default:expr,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name { $($(#[$field_meta])* pub $field: $kind,)* }
        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }
    };
}

section! {
    /// All of it; see `service/telltale.toml` for what each key means.
    Config {
        /// Data directory.
        data: PathBuf = PathBuf::from("data"),
        /// Scoring listener.
        scoring: Scoring = Scoring::default(),
        /// Admin listener.
        admin: Admin = Admin::default(),
        /// Metrics listener.
        metrics: Metrics = Metrics::default(),
        /// TLS and tokens.
        access: Access = Access::default(),
        /// Entity state.
        store: StoreSection = StoreSection::default(),
        /// Schema.
        schema: SchemaSection = SchemaSection::default(),
        /// Policy.
        policy: PolicySection = PolicySection::default(),
        /// Models.
        models: Models = Models::default(),
        /// Reasons.
        reasons: ReasonsSection = ReasonsSection::default(),
        /// Models that are asked directly.
        inference: InferenceSection = InferenceSection::default(),
        /// Journal.
        journal: JournalSection = JournalSection::default(),
        /// What is remembered of transactions.
        idempotency: Idempotency = Idempotency::default(),
        /// Name dictionary.
        names: NamesSection = NamesSection::default(),
        /// Endpoint templates.
        endpoints: EndpointsSection = EndpointsSection::default(),
        /// Places of addresses.
        geo: GeoSection = GeoSection::default(),
        /// Log lines.
        log: Log = Log::default(),
    }
}

section! {
    /// `[scoring]`
    Scoring {
        /// Listener.
        listen: String = "127.0.0.1:7410".to_owned(),
        /// Transactions scored at once.
        max_concurrent: usize = 1024,
        /// Share from which on ordinary routes are shed.
        shed_from: f64 = 0.8,
        /// Parts of paths that are shed last.
        shed_last: Vec<String> = ["login", "signin", "auth", "token", "checkout", "pay", "reset", "password"].map(str::to_owned).to_vec(),
        /// Longest time of a call without its own deadline, milliseconds.
        deadline_ms: u64 = 1000,
        /// Time that accepted calls get to end when the scorer stops, milliseconds.
        drain_ms: u64 = 10_000,
        /// Threads that score; 0: one a core.
        threads: usize = 0,
    }
}

section! {
    /// `[admin]`
    Admin {
        /// Listener.
        listen: String = "127.0.0.1:7411".to_owned(),
    }
}

section! {
    /// `[metrics]`
    Metrics {
        /// Listener.
        listen: String = "127.0.0.1:7412".to_owned(),
    }
}

section! {
    /// `[access]`
    Access {
        /// Server certificate, PEM.
        certificate: Option<PathBuf> = None,
        /// Its key, PEM.
        key: Option<PathBuf> = None,
        /// Authority of client certificates, PEM.
        client_ca: Option<PathBuf> = None,
        /// Role of a client that has only a certificate.
        certificate_role: String = "scorer".to_owned(),
        /// Token file.
        tokens: Option<PathBuf> = None,
    }
}

section! {
    /// `[store]`
    StoreSection {
        /// Where state lives.
        kind: String = "embedded".to_owned(),
        /// Memory, MiB.
        max_mb: u64 = 1024,
        /// Minutes between snapshots; 0: none.
        snapshot_minutes: f64 = 5.0,
        /// How Redis is reached.
        redis: RedisSection = RedisSection::default(),
    }
}

section! {
    /// `[store.redis]`
    RedisSection {
        /// How the servers stand to each other.
        topology: String = "single".to_owned(),
        /// Server, Sentinels, or nodes of the Cluster.
        addresses: Vec<String> = vec!["127.0.0.1:6379".to_owned()],
        /// Name of the master that the Sentinels watch.
        master: String = "mymaster".to_owned(),
        /// ACL user.
        username: Option<String> = None,
        /// File with its password.
        password_file: Option<PathBuf> = None,
        /// User of the Sentinels.
        sentinel_username: Option<String> = None,
        /// File with its password.
        sentinel_password_file: Option<PathBuf> = None,
        /// Whether connections are encrypted.
        tls: bool = false,
        /// Authority of the servers' certificates, PEM.
        ca: Option<PathBuf> = None,
        /// Client certificate, PEM.
        certificate: Option<PathBuf> = None,
        /// Its key, PEM.
        key: Option<PathBuf> = None,
        /// Database number.
        database: i64 = 0,
        /// First part of every key.
        prefix: String = "tt".to_owned(),
        /// Secret of names.
        names_key: Option<PathBuf> = None,
        /// The one that comes after it.
        names_key_next: Option<PathBuf> = None,
        /// The one before it, or `unkeyed`.
        names_key_before: Option<PathBuf> = None,
        /// Longest wait for stored state before an answer, microseconds.
        read_deadline_us: u64 = 1000,
        /// Interval of writes, milliseconds.
        flush_ms: u64 = 100,
        /// Longest wait for a write's answer, milliseconds.
        flush_deadline_ms: u64 = 2000,
        /// A hot entity is read from memory while its copy is younger than this, milliseconds.
        lag_ms: u64 = 500,
        /// Whether the answer waits for the write.
        acknowledge: String = "async".to_owned(),
        /// Redis replicas that must have it.
        replicas: u32 = 0,
        /// Whether a transaction that several scorers are given counts once.
        idempotency: String = "local".to_owned(),
    }
}

section! {
    /// `[schema]`
    SchemaSection {
        /// File or folder.
        path: Option<PathBuf> = None,
    }
}

section! {
    /// `[policy]`
    PolicySection {
        /// File or folder.
        path: Option<PathBuf> = None,
        /// Switch of every rule.
        mode: Option<String> = None,
    }
}

section! {
    /// `[models]`
    Models {
        /// Repository.
        path: Option<PathBuf> = None,
        /// Object store that the repository is followed from.
        repository: Option<String> = None,
        /// File with the store's options, `KEY=VALUE` a line.
        repository_options: Option<PathBuf> = None,
        /// How often the store is looked at, seconds.
        repository_seconds: u64 = 30,
        /// ONNX Runtime library.
        runtime: Option<PathBuf> = None,
        /// Transactions that calibrate a model.
        calibration_rows: u64 = 20_000,
        /// Trust the calibration that came with a model.
        shipped_calibration: bool = false,
        /// Memory for model files times sessions, MiB.
        max_mb: u64 = 1024,
        /// Which ONNX models run in worker processes.
        contain: String = "foreign".to_owned(),
        /// Address space of a worker, MiB.
        worker_mb: u64 = 1024,
        /// Time that a contained model has for a row, milliseconds.
        deadline_ms: u64 = 50,
        /// How much longer than its champion's a version's 99th percentile may take, microseconds.
        slower_us: u64 = 1000,
        /// Program of the workers.
        worker: Option<PathBuf> = None,
        /// Public keys whose signatures are believed: `NAME=KEY`.
        trusted_keys: Vec<String> = Vec::new(),
        /// What must be signed.
        require_signature: String = "never".to_owned(),
        /// Minutes of traffic that are held against what a model learnt.
        drift_minutes: u64 = 1440,
        /// One row in so many is counted for that.
        drift_one_in: u64 = 10,
        /// Minutes of traffic that a new profile of an online model is made of at least.
        profile_minutes: u64 = 60,
        /// The share of the time that looks at the inbox's files may take.
        inbox_percent: u64 = 5,
        /// Transactions that are remembered until their label comes, while versions are compared.
        await_labels: u64 = 65_536,
    }
}

section! {
    /// `[reasons]`
    ReasonsSection {
        /// Whether the smallest change is searched that would have been allowed.
        counterfactual: bool = false,
        /// The longest time for which it is searched, microseconds.
        hint_us: u64 = 2000,
    }
}

impl ReasonsSection {
    /// For how long the smallest change is searched, where it is.
    pub fn hints(&self) -> Option<Duration> {
        self.counterfactual.then(|| Duration::from_micros(self.hint_us))
    }
}

section! {
    /// `[inference]`
    InferenceSection {
        /// Whether the Open Inference Protocol is served.
        enabled: bool = true,
        /// Rows of a call.
        max_rows: usize = 4096,
        /// Size of a call, MiB.
        max_mb: usize = 8,
        /// Calls that may wait.
        queue: usize = 16,
    }
}

section! {
    /// `[journal]`
    JournalSection {
        /// Whether there is one.
        enabled: bool = true,
        /// Size of a file, MiB.
        file_mb: u64 = 64,
        /// Size of all files, MiB.
        total_mb: u64 = 8192,
        /// Records that may wait.
        queue: usize = 65_536,
        /// Interval of syncs, milliseconds.
        sync_ms: u64 = 1000,
    }
}

section! {
    /// `[idempotency]`
    Idempotency {
        /// Transactions remembered.
        transactions: usize = 65_536,
        /// How long, seconds.
        seconds: u64 = 86_400,
        /// Outcomes that may come early.
        early_outcomes: usize = 10_000,
    }
}

section! {
    /// `[names]`
    NamesSection {
        /// Memory, MiB; 0: none.
        max_mb: usize = 64,
    }
}

section! {
    /// `[endpoints]`
    EndpointsSection {
        /// What becomes of templates that are learned.
        learn: String = "suggest".to_owned(),
        /// Different values that make a segment variable.
        distinct: usize = 50,
        /// Share of them that one client address may give.
        client_share: f64 = 0.1,
    }
}

section! {
    /// `[geo]`
    GeoSection {
        /// Databases in the MaxMind format.
        databases: Vec<PathBuf> = Vec::new(),
    }
}

section! {
    /// `[log]`
    Log {
        /// Filter.
        level: String = "info".to_owned(),
        /// JSON lines.
        json: bool = false,
    }
}
