//! Transactions for load: a bounded, seeded mix over many entities with a Zipf head, as a busy API sees it.

use std::time::{SystemTime, UNIX_EPOCH};

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use telltale_proto::v1::{Header, HttpRequest, Source, Transaction};

const AGENT: &str = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.0.0 Safari/537.36";

/// Makes transactions of a population of clients.
#[derive(Debug)]
pub struct Traffic {
    rng: ChaCha8Rng,
    clients: u32,
    made: u64,
    run: u64,
}

impl Traffic {
    /// A population of that many clients; equal seeds give equal traffic apart from times and the run's identifiers.
    pub fn new(seed: u64, clients: u32) -> Self {
        Self { rng: ChaCha8Rng::seed_from_u64(seed), clients: clients.max(1), made: 0, run: seed }
    }

    /// The next transaction, with the present time.
    pub fn next_transaction(&mut self) -> Transaction {
        let client = self.zipf();
        self.of_client(client)
    }

    /// The next transaction of that client.
    pub fn of_client(&mut self, client: u32) -> Transaction {
        self.made += 1;
        let kind = self.rng.random_range(0..10u32);
        let (method, path, body) = match kind {
            0 => ("POST", "/api/login".to_owned(), format!(r#"{{"username":"user{client}","password":"pw-{client}"}}"#)),
            1 => ("POST", "/api/cart".to_owned(), r#"{"product":17,"quantity":1}"#.to_owned()),
            2..=4 => ("GET", format!("/api/orders/{}", self.rng.random_range(1_000..9_000u32)), String::new()),
            _ => ("GET", format!("/api/products/{}", self.rng.random_range(1..500u32)), String::new()),
        };
        Transaction {
            id: format!("{:016x}{:016x}", self.run, self.made),
            time: Some(present()),
            source: Some(Source { ip: address(client), port: 40_000, ..Source::default() }),
            http: Some(HttpRequest {
                method: method.to_owned(),
                scheme: "http".to_owned(),
                host: "shop.example".to_owned(),
                path,
                headers: headers(client),
                body_size: body.len() as u64,
                body: body.into(),
                version: "1.1".to_owned(),
                ..HttpRequest::default()
            }),
            service: "shop".to_owned(),
            ..Transaction::default()
        }
    }

    /// A client number with density proportional to 1/rank (log-uniform): a Zipf law of exponent 1.
    fn zipf(&mut self) -> u32 {
        let span = f64::from(self.clients).ln();
        let unit: f64 = f64::from(self.rng.next_u32()) / f64::from(u32::MAX);
        ((unit * span).exp() as u32).min(self.clients) - 1
    }
}

fn headers(client: u32) -> Vec<Header> {
    let cookie = format!("sid=s{client:08x}; did=d{client:08x}");
    let lines = [
        ("host", "shop.example"),
        ("user-agent", AGENT),
        ("accept", "application/json"),
        ("accept-language", "en-GB,en;q=0.8"),
        ("accept-encoding", "gzip, deflate, br"),
        ("cookie", cookie.as_str()),
    ];
    lines.into_iter().map(|(name, value)| Header { name: name.to_owned(), value: value.to_owned() }).collect()
}

fn address(client: u32) -> String {
    let [_, b, c, d] = client.to_be_bytes();
    format!("127.{b}.{c}.{}", d.max(1))
}

#[expect(clippy::disallowed_methods, reason = "load is sent in the present")]
fn present() -> pbjson_types::Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    pbjson_types::Timestamp { seconds: since.as_secs().cast_signed(), nanos: since.subsec_nanos().cast_signed() }
}
