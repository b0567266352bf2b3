//! One GET without any client: for health and metrics of the demonstration's own processes on loopback.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Status and body of `GET path`; absent when nobody answers within a second.
pub async fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    timeout(Duration::from_secs(1), async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let head = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        stream.take(4 << 20).read_to_end(&mut answer).await.ok()?;
        let text = String::from_utf8_lossy(&answer).into_owned();
        let status = text.split(' ').nth(1)?.parse().ok()?;
        let (_, body) = text.split_once("\r\n\r\n")?;
        Some((status, body.to_owned()))
    })
    .await
    .ok()
    .flatten()
}

/// The quantiles of a Prometheus histogram, by linear interpolation within its buckets, in the histogram's unit.
pub fn quantiles(metrics: &str, name: &str, wanted: &[f64]) -> Vec<Option<f64>> {
    let start = format!("{name}_bucket{{");
    let mut buckets: Vec<(f64, f64)> = metrics
        .lines()
        .filter(|line| line.starts_with(&start))
        .filter_map(|line| {
            let bound = line.split("le=\"").nth(1)?.split('"').next()?;
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? };
            Some((bound, line.rsplit(' ').next()?.parse().ok()?))
        })
        .collect();
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    let total = buckets.last().map_or(0.0, |(_, count)| *count);
    wanted.iter().map(|share| quantile(&buckets, share * total)).collect()
}

fn quantile(buckets: &[(f64, f64)], rank: f64) -> Option<f64> {
    let (mut low, mut below) = (0.0, 0.0);
    for (high, count) in buckets {
        if *count >= rank && *count > 0.0 {
            let within = (rank - below) / (count - below).max(1e-12);
            return Some(if high.is_finite() { low + (high - low) * within } else { low });
        }
        (low, below) = (*high, *count);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::quantiles;

    #[test]
    fn quantiles_are_interpolated_within_their_bucket() {
        let text = "a_bucket{le=\"1\"} 50\na_bucket{le=\"2\"} 100\na_bucket{le=\"+Inf\"} 100\nb_bucket{le=\"1\"} 3\n";
        assert_eq!(quantiles(text, "a", &[0.25, 0.75, 1.0]), vec![Some(0.5), Some(1.5), Some(2.0)]);
        assert_eq!(quantiles(text, "none", &[0.5]), vec![None]);
    }
}
