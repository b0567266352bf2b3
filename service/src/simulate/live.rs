//! The world as live HTTP traffic: the same engine, real sockets, true concurrency, one connection an actor.
//!
//! Enters an engine and a target, leave exchanges. Client addresses are bound in 127/8, or named in a header that the proxy's trusted
//! hop may set. Bounded in time, in requests and in how many are under way.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::engine::{Due, Engine};
use super::http::{Body, Request, Response};
use super::network::{self, Addresses};

/// An answer is waited for so long.
const PATIENCE: Duration = Duration::from_secs(15);
/// The largest answer that is read.
const ANSWER_LIMIT: usize = 4 << 20;

/// How the client address is made known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The connection comes from the address itself, in 127/8.
    Bound,
    /// Through a header, as a trusted hop adds it.
    Header(&'static str),
}

/// Bounds of a live run.
#[derive(Clone, Copy, Debug)]
pub struct LiveOptions {
    /// Where the requests go.
    pub target: SocketAddr,
    /// How the client address is made known.
    pub source: Source,
    /// The simulated time at which the run begins, microseconds since the epoch.
    pub from: i64,
    /// How long it lasts.
    pub lasts: Duration,
    /// Simulated seconds in a second; absent: no waiting at all, every answer is heard at the simulated time of its request, and with
    /// one request under way the run is the very sequence that the stream of records has.
    pub speed: Option<f64>,
    /// Most requests.
    pub requests: u64,
    /// Most requests under way.
    pub in_flight: usize,
}

/// A request and what became of it.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// Whose.
    pub actor: usize,
    /// Number of the actor's session.
    pub session: u32,
    /// The request.
    pub request: Request,
    /// The answer; absent when the connection failed.
    pub response: Option<Response>,
    /// Whether the shop itself answered (else somebody before it did).
    pub reached: bool,
    /// When it was sent, since the beginning of the run.
    pub sent: Duration,
    /// How long the answer took.
    pub took: Duration,
}

type Connection = SendRequest<Full<Bytes>>;

struct Done {
    at: i64,
    exchange: Exchange,
    connection: Option<(IpAddr, Connection)>,
}

/// Runs until the time, the requests or the actors are at their end; every exchange goes to `hear`.
pub async fn drive(engine: &mut Engine, options: &LiveOptions, hear: &mut dyn FnMut(&Engine, &Exchange)) -> u64 {
    let began = Instant::now();
    let speed = options.speed.unwrap_or(1.0);
    let until = options.from + (options.lasts.as_secs_f64() * 1e6 * speed) as i64;
    let reached = || match options.speed {
        Some(speed) => options.from + (began.elapsed().as_secs_f64() * 1e6 * speed) as i64,
        None => until,
    };
    let (report, mut reports) = mpsc::unbounded_channel::<Done>();
    let mut connections: HashMap<usize, (IpAddr, Connection)> = HashMap::new();
    let (mut sent, mut under_way) = (0_u64, 0_usize);
    loop {
        let over = began.elapsed() >= options.lasts || sent >= options.requests;
        if over && under_way == 0 {
            return sent;
        }
        let free = !over && under_way < options.in_flight;
        if free && let Some(due) = engine.next(reached().min(until)) {
            let connection = connections.remove(&due.actor);
            tokio::spawn(exchange(due, connection, (*options, began), report.clone()));
            sent += 1;
            under_way += 1;
            continue;
        }
        let wakes = if free { engine.wakes().unwrap_or(until) } else { until };
        let idle = free && under_way == 0;
        if idle && (engine.wakes().is_none() || options.speed.is_none()) {
            return sent;
        }
        let pause = Duration::from_secs_f64(((wakes - options.from).max(0) as f64 / 1e6 / speed).min(1e6));
        tokio::select! {
            done = reports.recv() => {
                let Some(Done { at, exchange, connection }) = done else { return sent };
                under_way -= 1;
                if let Some(connection) = connection {
                    connections.insert(exchange.actor, connection);
                }
                let now = if options.speed.is_some() { reached() } else { at };
                hear(engine, &exchange);
                let lost = Response::json(503, "");
                engine.answer(exchange.actor, now, exchange.response.as_ref().unwrap_or(&lost));
            }
            () = sleep_until(began + pause), if free => {}
        }
    }
}

async fn exchange(
    due: Due,
    kept: Option<(IpAddr, Connection)>,
    (options, began): (LiveOptions, Instant),
    report: mpsc::UnboundedSender<Done>,
) {
    let sent = began.elapsed();
    let address = network::shown(due.sent.address, if options.source == Source::Bound { Addresses::Loopback } else { Addresses::Public });
    let kept = kept.filter(|(bound, connection)| *bound == address && connection.is_ready());
    let attempt = timeout(PATIENCE, async {
        let mut connection = match kept {
            Some((_, connection)) => connection,
            None => connect(&options, address).await?,
        };
        let answer = ask(&mut connection, &due.sent.request, (address, options.source)).await?;
        Some((answer, connection))
    });
    let (answer, connection) = match attempt.await.ok().flatten() {
        Some(((response, reached), connection)) => (Some((response, reached)), Some((address, connection))),
        None => (None, None),
    };
    let (response, reached) = answer.map_or((None, false), |(response, reached)| (Some(response), reached));
    let took = began.elapsed().saturating_sub(sent);
    let exchange = Exchange { actor: due.actor, session: due.sent.session, request: due.sent.request, response, reached, sent, took };
    // The run has ended when nobody listens any more.
    let _listening = report.send(Done { at: due.at, exchange, connection });
}

async fn connect(options: &LiveOptions, address: IpAddr) -> Option<Connection> {
    let socket = tokio::net::TcpSocket::new_v4().ok()?;
    if options.source == Source::Bound {
        socket.bind(SocketAddr::new(address, 0)).ok()?;
    }
    let stream = socket.connect(options.target).await.ok()?;
    stream.set_nodelay(true).ok()?;
    let (connection, driver) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(driver);
    Some(connection)
}

async fn ask(connection: &mut Connection, request: &Request, (address, source): (IpAddr, Source)) -> Option<(Response, bool)> {
    let target = if request.query.is_empty() { request.path.clone() } else { format!("{}?{}", request.path, request.query) };
    let mut builder = http::Request::builder().method(request.method).uri(target);
    for (name, value) in &request.headers {
        builder = builder.header(*name, value);
    }
    if let Source::Header(name) = source {
        builder = builder.header(name, address.to_string());
    }
    let request = builder.body(Full::new(Bytes::from(request.body.clone()))).ok()?;
    connection.ready().await.ok()?;
    let answer = connection.send_request(request).await.ok()?;
    let (parts, body) = answer.into_parts();
    let bytes = Limited::new(body, ANSWER_LIMIT).collect().await.ok()?.to_bytes();
    let reached = parts.headers.contains_key(super::serve::MARK);
    let set_cookies = parts.headers.get_all("set-cookie").iter().filter_map(|value| value.to_str().ok().map(str::to_owned)).collect();
    let body = Body::Text(String::from_utf8_lossy(bytes.get(..bytes.len().min(2_048)).unwrap_or_default()).into_owned());
    Some((Response { status: parts.status.as_u16(), content_type: "", set_cookies, body }, reached))
}
