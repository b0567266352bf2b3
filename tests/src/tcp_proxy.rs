//! A TCP proxy in front of a server, in the test's own process: it delays what the server answers, or loses it after the server has
//! done what it was asked. It never changes a byte.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// What a [`TcpProxy`] does to what passes.
#[derive(Debug, Default)]
struct Mischief {
    /// Microseconds that an answer is held back.
    delay_us: AtomicU64,
    /// One answer in so many is lost, with its connection; 0: none.
    lose_one_in: AtomicU64,
    answers: AtomicU64,
    lost: AtomicU64,
}

/// A TCP proxy in front of a server.
#[derive(Debug)]
pub struct TcpProxy {
    /// Where it listens.
    pub address: SocketAddr,
    mischief: Arc<Mischief>,
    task: JoinHandle<()>,
}

impl TcpProxy {
    /// Starts one in this process's runtime.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn start(to: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let mischief = Arc::new(Mischief::default());
        let task = {
            let mischief = Arc::clone(&mischief);
            tokio::spawn(async move {
                let mut passing = JoinSet::new();
                while let Ok((client, _)) = listener.accept().await {
                    passing.spawn(pass(client, to, Arc::clone(&mischief)));
                }
            })
        };
        Ok(Self { address, mischief, task })
    }

    /// Holds every answer back for that long.
    pub fn delay(&self, delay: Duration) {
        self.mischief.delay_us.store(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Loses one answer in so many after the server has done what it was asked; 0: none.
    pub fn lose_one_in(&self, answers: u64) {
        self.mischief.lose_one_in.store(answers, Ordering::Relaxed);
    }

    /// Answers lost so far.
    pub fn lost(&self) -> u64 {
        self.mischief.lost.load(Ordering::Relaxed)
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One connection, both ways, until either end closes or an answer is lost.
async fn pass(client: TcpStream, to: SocketAddr, mischief: Arc<Mischief>) {
    let Ok(server) = TcpStream::connect(to).await else { return };
    if client.set_nodelay(true).and_then(|()| server.set_nodelay(true)).is_err() {
        return;
    }
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let asks = async { tokio::io::copy(&mut from_client, &mut to_server).await.map(drop) };
    let answers = async {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let read = from_server.read(&mut buffer).await?;
            let Some(answer) = buffer.get(..read).filter(|answer| !answer.is_empty()) else { return Ok(()) };
            let number = mischief.answers.fetch_add(1, Ordering::Relaxed) + 1;
            let delay = mischief.delay_us.load(Ordering::Relaxed);
            if delay > 0 {
                tokio::time::sleep(Duration::from_micros(delay)).await;
            }
            let one_in = mischief.lose_one_in.load(Ordering::Relaxed);
            if one_in > 0 && number.is_multiple_of(one_in) {
                mischief.lost.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            to_client.write_all(answer).await?;
        }
    };
    // Whatever ends first ends both; an error is an end as well.
    let _: io::Result<()> = tokio::select! {
        ended = asks => ended,
        ended = answers => ended,
    };
}
