//! An object store on loopback that speaks as much of S3, Google Cloud Storage and Azure as a mirror asks for: real requests, in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Bytes;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Objects of one page of a listing: few, so that there are several.
const PAGE: usize = 3;
const DATE: &str = "Thu, 01 Jan 2026 00:00:00 GMT";

/// Whose protocol a URL and options ask for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    S3,
    Google,
    Azure,
}

/// What is in the store and what was asked of it.
#[derive(Default)]
pub struct Inside {
    pub objects: Mutex<BTreeMap<String, Vec<u8>>>,
    /// Keys that were read.
    pub read: Mutex<Vec<String>>,
    /// Answers everything with 503.
    pub away: AtomicBool,
}

/// A running store; it ends when dropped.
pub struct Cloud {
    pub inside: Arc<Inside>,
    pub at: SocketAddr,
    kind: Kind,
    _stop: oneshot::Sender<()>,
}

impl Cloud {
    pub fn start(kind: Kind) -> Self {
        let inside = Arc::new(Inside::default());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let at = listener.local_addr().unwrap();
        let router = axum::Router::new().fallback(answer).with_state((Arc::clone(&inside), kind));
        let (stop, stopped) = oneshot::channel::<()>();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let _ = tokio::select! {
                    served = axum::serve(listener, router) => served,
                    _ = stopped => Ok(()),
                };
            });
        });
        Self { inside, at, kind, _stop: stop }
    }

    pub fn url(&self) -> String {
        let scheme = match self.kind {
            Kind::S3 => "s3",
            Kind::Google => "gs",
            Kind::Azure => "az",
        };
        format!("{scheme}://bucket/models")
    }

    /// Writes the options that lead here.
    pub fn options(&self, folder: &Path) -> PathBuf {
        let at = self.at;
        let text = match self.kind {
            Kind::S3 => format!(
                "# Not the real one.\naws_endpoint=http://{at}\naws_allow_http = true\naws_region=eu-central-1\naws_access_key_id=reader\n\
                 aws_secret_access_key=hush\n"
            ),
            Kind::Google => format!("google_base_url=http://{at}\ngoogle_bearer_token=hush\n"),
            Kind::Azure => format!(
                "azure_storage_endpoint=http://{at}\nazure_allow_http=true\nazure_storage_account_name=reader\nazure_storage_account_key=aHVzaA==\n"
            ),
        };
        let path = folder.join("store.options");
        std::fs::write(&path, text).unwrap();
        path
    }

    pub fn put(&self, key: &str, bytes: impl Into<Vec<u8>>) {
        self.inside.objects.lock().insert(format!("models/{key}"), bytes.into());
    }

    pub fn take(&self, key: &str) -> Vec<u8> {
        self.inside.objects.lock().remove(&format!("models/{key}")).unwrap()
    }

    pub fn set_away(&self, away: bool) {
        self.inside.away.store(away, Ordering::SeqCst);
    }

    /// How often keys that contain it were read until now.
    pub fn reads(&self, part: &str) -> usize {
        self.inside.read.lock().iter().filter(|key| key.contains(part)).count()
    }
}

async fn answer(
    State((inside, kind)): State<(Arc<Inside>, Kind)>,
    Query(asked): Query<BTreeMap<String, String>>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    if inside.away.load(Ordering::SeqCst) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let authorised = parts.headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let right = match kind {
        Kind::S3 => authorised.starts_with("AWS4-HMAC-SHA256 Credential=reader/"),
        Kind::Google => authorised == "Bearer hush",
        Kind::Azure => authorised.starts_with("SharedKey reader:"),
    };
    if !right {
        return StatusCode::FORBIDDEN.into_response();
    }
    let path = decoded(parts.uri.path());
    let key = path.trim_start_matches('/').strip_prefix("bucket").unwrap().trim_start_matches('/').to_owned();
    match parts.method {
        Method::GET if key.is_empty() => list(&inside, kind, &asked),
        Method::GET => {
            inside.read.lock().push(key.clone());
            match inside.objects.lock().get(&key) {
                Some(bytes) => (state(bytes), bytes.clone()).into_response(),
                None => StatusCode::NOT_FOUND.into_response(),
            }
        }
        Method::PUT => put(&inside, (kind, key), &parts.headers, &axum::body::to_bytes(body, usize::MAX).await.unwrap()),
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}

fn put(inside: &Inside, (kind, key): (Kind, String), headers: &HeaderMap, bytes: &Bytes) -> Response {
    let mut objects = inside.objects.lock();
    let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let there = objects.get(&key).map(|there| (format!("\"{}\"", tag(there)), generation(there)));
    let holds = match (header("if-none-match"), header("if-match"), header("x-goog-if-generation-match")) {
        (Some(_), _, _) => there.is_none(),
        (_, Some(tag), _) => there.is_some_and(|there| there.0 == tag),
        (_, _, Some(generation)) => there.map_or("0".to_owned(), |there| there.1) == generation,
        (None, None, None) => true,
    };
    if !holds {
        return StatusCode::PRECONDITION_FAILED.into_response();
    }
    objects.insert(key, bytes.to_vec());
    (if kind == Kind::Azure { StatusCode::CREATED } else { StatusCode::OK }, state(bytes)).into_response()
}

fn list(inside: &Inside, kind: Kind, asked: &BTreeMap<String, String>) -> Response {
    let objects = inside.objects.lock();
    let of = |name: &str| asked.get(name).cloned().unwrap_or_default();
    let (prefix, delimited) = (of("prefix"), asked.contains_key("delimiter"));
    let after = of(if kind == Kind::Azure { "marker" } else { "continuation-token" });
    let mut keys: Vec<&String> = objects.keys().filter(|key| key.starts_with(&prefix) && **key > after).collect();
    let more = keys.len() > PAGE;
    keys.truncate(PAGE);
    let next = if more { keys.last().map(|key| key.to_string()).unwrap_or_default() } else { String::new() };
    let below = |key: &String| delimited.then(|| key[prefix.len()..].split_once('/').map(|(name, _)| format!("{prefix}{name}/"))).flatten();
    let folders: BTreeSet<String> = keys.iter().filter_map(|key| below(key)).collect();
    keys.retain(|key| below(key).is_none());
    let entry = |key: &&String| {
        let (size, tag) = (objects[*key].len(), tag(&objects[*key]));
        if kind == Kind::Azure {
            let properties = format!(
                "<Last-Modified>{DATE}</Last-Modified><Etag>{tag}</Etag><Content-Length>{size}</Content-Length>\
                 <Content-Type>application/octet-stream</Content-Type>"
            );
            return format!("<Blob><Name>{key}</Name><Properties>{properties}</Properties></Blob>");
        }
        let date = "<LastModified>2026-01-01T00:00:00.000Z</LastModified>";
        format!("<Contents><Key>{key}</Key><Size>{size}</Size>{date}<ETag>&quot;{tag}&quot;</ETag></Contents>")
    };
    let entries: String = keys.iter().map(entry).collect();
    let text = if kind == Kind::Azure {
        let folders: String = folders.iter().map(|folder| format!("<BlobPrefix><Name>{folder}</Name></BlobPrefix>")).collect();
        format!("<EnumerationResults><Blobs>{entries}{folders}</Blobs><NextMarker>{next}</NextMarker></EnumerationResults>")
    } else {
        let folders: String = folders.iter().map(|folder| format!("<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>")).collect();
        let next = if more { format!("<NextContinuationToken>{next}</NextContinuationToken>") } else { String::new() };
        format!("<ListBucketResult>{entries}{folders}{next}</ListBucketResult>")
    };
    ([("content-type", "application/xml")], text).into_response()
}

/// Google's clients write keys with every `/` as `%2F`.
fn decoded(path: &str) -> String {
    let mut parts = path.split('%');
    let first = parts.next().unwrap().to_owned();
    let letter = |part: &str| char::from(u8::from_str_radix(&part[..2], 16).unwrap());
    parts.fold(first, |text, part| format!("{text}{}{}", letter(part), &part[2..]))
}

fn state(bytes: &[u8]) -> [(&'static str, String); 3] {
    [("etag", format!("\"{}\"", tag(bytes))), ("last-modified", DATE.to_owned()), ("x-goog-generation", generation(bytes))]
}

fn tag(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex()[..32].to_owned()
}

fn generation(bytes: &[u8]) -> String {
    u32::from_be_bytes(blake3::hash(bytes).as_bytes()[..4].try_into().unwrap()).to_string()
}
