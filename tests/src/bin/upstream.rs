//! The service behind the proxy in tests and benches: answers with what it was sent, and does nothing else.
//!
//! The path `/status/<code>` is answered with that status; every answer is JSON with method, path and headers as received.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let bytes = body.collect().await.map_or(0, |body| body.to_bytes().len());
    let headers: Vec<(String, String)> =
        parts.headers.iter().map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())).collect();
    let status = parts.uri.path().strip_prefix("/status/").and_then(|code| code.parse::<u16>().ok()).unwrap_or(200);
    let echo = serde_json::json!({"method": parts.method.as_str(), "path": parts.uri.to_string(), "headers": headers, "body_bytes": bytes});
    let response = Response::builder().status(status).header("content-type", "application/json").header("x-upstream", "yes");
    Ok(response.body(Full::new(Bytes::from(echo.to_string()))).unwrap_or_default())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address: SocketAddr = std::env::args().nth(1).ok_or("usage: upstream ADDRESS")?.parse()?;
    let listener = tokio::net::TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            // A client that goes away in the middle is no fault of ours.
            drop(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)).await);
        });
    }
}
