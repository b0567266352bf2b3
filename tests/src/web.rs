//! Load on a web server: GETs of many clients over kept-alive connections, with a client of its own that costs as little as it can.
//!
//! It shares two cores with the processes that it measures: what a general client spends on a request would be taken from them.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::load::{Measured, Tally};
use crate::pacer::Pacer;

/// Connections of an open loop; beyond, sending waits while the latency counts on.
const CONNECTIONS: u32 = 256;
/// Longest answer that is read.
const ANSWER_BYTES: usize = 64 << 10;

/// GETs at a constant rate, each at its time whether earlier ones were answered or not.
///
/// # Errors
/// When the server cannot be reached or the kernel gives no timer.
pub async fn open_loop(server: SocketAddr, count: usize, rate: f64) -> io::Result<Measured> {
    let room = Arc::new(Semaphore::new(CONNECTIONS as usize));
    let idle = Arc::new(Mutex::new(VecDeque::new()));
    for _ in 0..16 {
        put(&idle, Connection::open(server).await?);
    }
    let (pacer, tally) = (Pacer::new()?, Tally::begin());
    for index in 0..count {
        let meant = tally.meant(index, rate);
        pacer.until(meant).await?;
        let permit = Arc::clone(&room).acquire_owned().await.map_err(io::Error::other)?;
        let (tally, idle) = (tally.clone(), Arc::clone(&idle));
        tokio::spawn(async move {
            let known = idle.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let answered = match known {
                Some(connection) => exchange(connection, index).await,
                None => match Connection::open(server).await {
                    Ok(connection) => exchange(connection, index).await,
                    Err(error) => Err(error),
                },
            };
            tally.note(answered.is_ok(), Some(meant));
            if let Ok(connection) = answered {
                put(&idle, connection);
            }
            drop(permit);
        });
    }
    let _all_answered = room.acquire_many(CONNECTIONS).await.map_err(io::Error::other)?;
    Ok(tally.end())
}

/// As many GETs as `workers` can make: the saturation of what stands behind.
///
/// # Errors
/// When the server cannot be reached.
pub async fn closed_loop(server: SocketAddr, count: usize, workers: usize) -> io::Result<Measured> {
    let mut connections = Vec::new();
    for _ in 0..workers {
        connections.push(Connection::open(server).await?);
    }
    let tally = Tally::begin();
    let mut callers = tokio::task::JoinSet::new();
    for (worker, mut connection) in connections.into_iter().enumerate() {
        let tally = tally.clone();
        callers.spawn(async move {
            for index in (worker..count).step_by(workers) {
                let answer = connection.get(index).await;
                tally.note(answer.is_ok(), None);
                if answer.is_err() {
                    return;
                }
            }
        });
    }
    while callers.join_next().await.is_some() {}
    Ok(tally.end())
}

async fn exchange(mut connection: Connection, index: usize) -> io::Result<Connection> {
    connection.get(index).await.map(|()| connection)
}

fn put(idle: &Mutex<VecDeque<Connection>>, connection: Connection) {
    idle.lock().unwrap_or_else(PoisonError::into_inner).push_back(connection);
}

/// One kept-alive connection.
struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(server: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(4_096) })
    }

    /// The request with that number and its whole answer, which must be a 200.
    async fn get(&mut self, index: usize) -> io::Result<()> {
        let client = index.wrapping_mul(2_654_435_761) % 5_000;
        let request = format!(
            "GET /api/products/{} HTTP/1.1\r\nhost: shop.example\r\nuser-agent: bench/1.0\r\naccept: application/json\r\n\
             x-forwarded-for: 127.9.{}.{}\r\n\r\n",
            index % 400,
            client / 250,
            client % 250 + 1
        );
        self.stream.write_all(request.as_bytes()).await?;
        self.buffer.clear();
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let size = answer_size(&self.buffer).transpose()?;
            if size == Some(self.buffer.len()) {
                return Ok(());
            }
            if self.buffer.len() > ANSWER_BYTES {
                return Err(io::Error::other("the answer is too long"));
            }
        }
    }
}

/// Size of the whole answer, once its head is complete.
fn answer_size(bytes: &[u8]) -> Option<io::Result<usize>> {
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let text = std::str::from_utf8(bytes.get(..head)?).unwrap_or_default();
    if !text.starts_with("HTTP/1.1 200 ") {
        return Some(Err(io::Error::other(text.lines().next().unwrap_or_default().to_owned())));
    }
    let length = text.lines().filter_map(|line| line.split_once(':')).find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|(_, value)| value.trim().parse::<usize>().ok());
    Some(length.map(|length| head + 4 + length).ok_or_else(|| io::Error::other("the answer has no Content-Length")))
}

#[cfg(test)]
mod tests {
    use super::answer_size;

    #[test]
    fn an_answer_ends_where_its_head_says() {
        assert!(answer_size(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n").is_none());
        assert_eq!(answer_size(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n").unwrap().unwrap(), 40);
        assert!(answer_size(b"HTTP/1.1 503 Busy\r\ncontent-length: 2\r\n\r\n").unwrap().is_err());
        assert!(answer_size(b"HTTP/1.1 200 OK\r\n\r\n").unwrap().is_err());
    }
}
