//! Who may call what: bearer tokens and client certificates become an identity with a role, and each RPC has its roles.
//!
//! Requests enter, requests with a [`Caller`] leave, or an answer that says what is missing. Secrets never reach a log.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::{Either, Ready, ready};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

use crate::token::equal_in_constant_time;

/// What a caller may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Sends transactions: gateways and proxies.
    Scorer,
    /// Looks.
    Viewer,
    /// Looks and overrides.
    Analyst,
    /// Everything but scoring.
    Operator,
}

impl Role {
    /// By name.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "scorer" => Some(Self::Scorer),
            "viewer" => Some(Self::Viewer),
            "analyst" => Some(Self::Analyst),
            "operator" => Some(Self::Operator),
            _ => None,
        }
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scorer => "scorer",
            Self::Viewer => "viewer",
            Self::Analyst => "analyst",
            Self::Operator => "operator",
        }
    }
}

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// For the audit.
    pub name: Arc<str>,
    /// Role; `None`: every role (loopback without tokens or certificates).
    pub role: Option<Role>,
}

impl Caller {
    /// Who sent a request that was let in.
    pub fn of<T>(request: &tonic::Request<T>) -> Self {
        request.extensions().get().cloned().unwrap_or_else(|| Self { name: "local".into(), role: None })
    }
}

/// Why the access file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// Cannot be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A line is wrong.
    #[error("{}:{line}: {problem}; allowed: `role name token` with role scorer, viewer, analyst or operator and a token of 16 bytes or more", path.display())]
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line.
        line: usize,
        /// What is wrong with it; never the token.
        problem: String,
    },
}

/// A caller and the digest of its token.
type Known = (Caller, [u8; 32]);

/// How callers are known.
#[derive(Clone, Default)]
pub struct Access {
    tokens: Option<Arc<[Known]>>,
    certificate_role: Option<Role>,
}

/// Roles of each RPC; `None`: anybody who is known. What is not listed is refused.
const RULES: &[(&str, Option<&[Role]>)] = &[
    ("/telltale.v1.Scorer/", Some(&[Role::Scorer])),
    ("/telltale.v1.Decisions/", Some(&[Role::Scorer, Role::Viewer, Role::Analyst, Role::Operator])),
    ("/telltale.v1.Entities/ListDecisions", Some(&[Role::Viewer, Role::Analyst, Role::Operator])),
    ("/telltale.v1.Entities/GetEntity", Some(&[Role::Viewer, Role::Analyst, Role::Operator])),
    ("/telltale.v1.Entities/TopEntities", Some(&[Role::Viewer, Role::Analyst, Role::Operator])),
    ("/telltale.v1.Entities/ForgetEntity", Some(&[Role::Operator])),
    ("/telltale.v1.Entities/Override", Some(&[Role::Analyst, Role::Operator])),
    ("/telltale.v1.Models/ListModels", Some(&[Role::Viewer, Role::Analyst, Role::Operator])),
    ("/telltale.v1.Models/CompareModel", Some(&[Role::Viewer, Role::Analyst, Role::Operator])),
    ("/telltale.v1.Models/Drift", Some(&[Role::Viewer, Role::Analyst, Role::Operator])),
    ("/telltale.v1.Models/", Some(&[Role::Operator])),
    ("/telltale.v1.Templates/ListTemplates", Some(&[Role::Viewer, Role::Analyst, Role::Operator])),
    ("/telltale.v1.Templates/", Some(&[Role::Operator])),
    ("/inference.GRPCInferenceService/ModelInfer", Some(&[Role::Scorer, Role::Analyst, Role::Operator])),
    ("/inference.GRPCInferenceService/", None),
    ("/grpc.reflection.", None),
];
/// Open to everybody: load balancers have no token.
const OPEN: &str = "/grpc.health.v1.Health/";

impl Access {
    /// From the configured files.
    ///
    /// # Errors
    /// When the token file cannot be read or a line in it is wrong.
    pub fn new(tokens: Option<&Path>, certificate_role: Option<Role>) -> Result<Self, AccessError> {
        let tokens = tokens.map(read_tokens).transpose()?.map(Into::into);
        Ok(Self { tokens, certificate_role })
    }

    /// Who calls, by the `authorization` header or, without tokens, by the verified certificate.
    fn caller(&self, authorization: Option<&[u8]>, certified: bool) -> Result<Caller, Status> {
        let presented = authorization.and_then(|value| value.strip_prefix(b"Bearer "));
        match (&self.tokens, presented) {
            (Some(tokens), Some(presented)) => {
                let digest = *blake3::hash(presented).as_bytes();
                let known = tokens.iter().find(|(_, token)| equal_in_constant_time(token, &digest));
                known.map(|(caller, _)| caller.clone()).ok_or_else(|| Status::unauthenticated("the bearer token is not known"))
            }
            _ if certified && self.certificate_role.is_some() => Ok(Caller { name: "certificate".into(), role: self.certificate_role }),
            (Some(_), None) => Err(Status::unauthenticated("a header `authorization: Bearer <token>` is needed")),
            (None, _) if self.certificate_role.is_some() => Err(Status::unauthenticated("a client certificate is needed")),
            (None, _) => Ok(Caller { name: "local".into(), role: None }),
        }
    }

    /// Whether the caller may call that path.
    fn permit(caller: &Caller, path: &str) -> Result<(), Status> {
        let Some((_, roles)) = RULES.iter().find(|(prefix, _)| path.starts_with(prefix)) else {
            return Err(Status::new(Code::Unimplemented, format!("there is no `{path}` here")));
        };
        match (caller.role, roles) {
            (None, _) | (_, None) => Ok(()),
            (Some(role), Some(roles)) if roles.contains(&role) => Ok(()),
            (Some(role), Some(roles)) => {
                let allowed: Vec<&str> = roles.iter().map(|role| role.name()).collect();
                let text = format!("`{path}` is not open to role `{}`; allowed: {}", role.name(), allowed.join(", "));
                Err(Status::permission_denied(text))
            }
        }
    }
}

fn read_tokens(path: &Path) -> Result<Vec<Known>, AccessError> {
    let text = std::fs::read_to_string(path).map_err(|source| AccessError::Read { path: path.to_path_buf(), source })?;
    let mut tokens = Vec::new();
    for (at, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |problem: String| AccessError::Line { path: path.to_path_buf(), line: at + 1, problem };
        let mut words = line.split_whitespace();
        let (Some(role), Some(name), Some(token), None) = (words.next(), words.next(), words.next(), words.next()) else {
            return Err(wrong("not three words".to_owned()));
        };
        let role = Role::parse(role).ok_or_else(|| wrong(format!("role `{role}` does not exist")))?;
        if token.len() < 16 {
            return Err(wrong(format!("the token of `{name}` is {} bytes long", token.len())));
        }
        tokens.push((Caller { name: name.into(), role: Some(role) }, *blake3::hash(token.as_bytes()).as_bytes()));
    }
    Ok(tokens)
}

impl<S> Layer<S> for Access {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { inner, access: self.clone() }
    }
}

/// A service behind the access rules.
#[derive(Clone)]
pub struct Guarded<S> {
    inner: S,
    access: Access,
}

impl<S, B> Service<http::Request<B>> for Guarded<S>
where
    S: Service<http::Request<B>, Response = http::Response<Body>>,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Self::Response, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        let path = request.uri().path();
        if path.starts_with(OPEN) {
            return Either::Left(self.inner.call(request));
        }
        let authorization = request.headers().get(http::header::AUTHORIZATION).map(http::HeaderValue::as_bytes);
        // With `client_ca` set, the TLS layer has refused every connection without a valid certificate.
        let certified = self.access.certificate_role.is_some();
        let caller = self.access.caller(authorization, certified).and_then(|caller| {
            Access::permit(&caller, path)?;
            Ok(caller)
        });
        match caller {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
                Either::Left(self.inner.call(request))
            }
            Err(status) => Either::Right(ready(Ok(status.into_http()))),
        }
    }
}
