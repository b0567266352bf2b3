//! `telltale entities`: what a running scorer knows of entities, and what people decide about them, over its admin listener.

use std::time::Duration;

use telltale_proto::{json, v1};
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};

use super::{Shape, profile};
use crate::convert;
use crate::error::CommandError;

/// Arguments of `telltale entities`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  telltale entities show address 192.0.2.7
  telltale entities top user --by bytes_out_24h --limit 20
  telltale entities forget user anna --reason 'request of 2026-11-26'
  telltale entities override address 192.0.2.7 deny --for 1h --reason 'scans us'
  telltale entities override user anna allow --reason 'penetration test'
  telltale entities override address 192.0.2.7 remove
  telltale entities decisions --output json")]
pub struct Args {
    /// Admin listener of the scorer.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7411", global = true)]
    admin: String,
    /// File that holds a bearer token.
    #[arg(long, value_name = "FILE", global = true)]
    token_file: Option<std::path::PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// All that is held of one entity: its features with their windows, its threat level, decisions about it.
    Show {
        #[command(flatten)]
        who: Who,
        /// Shows features without evidence too.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        shape: Shape,
    },
    /// The entities of one type that have the most of something.
    Top {
        /// Entity type: address, user, session, …
        kind: String,
        /// Feature to go by; absent: bytes held.
        #[arg(long, value_name = "FEATURE", default_value = "")]
        by: String,
        /// How many, at most 1,000.
        #[arg(long, default_value_t = 10)]
        limit: u32,
        #[command(flatten)]
        shape: Shape,
    },
    /// Erases what is held of an entity: state, name, decisions and journal records, here and at every replica.
    Forget {
        #[command(flatten)]
        who: Who,
        /// Why; goes into the audit log, so do not name them.
        #[arg(long, default_value = "")]
        reason: String,
        #[command(flatten)]
        shape: Shape,
    },
    /// Denies or exempts an entity, or takes that back.
    Override {
        /// Entity type: address, user, session, …
        kind: String,
        /// Its identifier in clear.
        id: String,
        /// What is ruled.
        #[arg(value_enum)]
        ruling: RulingArg,
        /// How long: `90s`, `15m`, `12h`, `7d`; absent: until removed.
        #[arg(long = "for", value_name = "TIME", value_parser = lasting)]
        lasts: Option<Duration>,
        /// Why.
        #[arg(long, default_value = "")]
        reason: String,
        #[command(flatten)]
        shape: Shape,
    },
    /// Lists standing decisions.
    Decisions {
        #[command(flatten)]
        shape: Shape,
    },
}

/// Which entity.
#[derive(Debug, Clone, clap::Args)]
struct Who {
    /// Entity type: address, user, session, …
    kind: String,
    /// Its identifier in clear, or with `--key` its keyed hash as verdicts and lists show it.
    id: String,
    /// The identifier is a keyed hash, 32 hexadecimal digits.
    #[arg(long)]
    key: bool,
}

impl Who {
    fn entity(self) -> Result<v1::Entity, CommandError> {
        if !self.key {
            return Ok(v1::Entity { r#type: self.kind, id: self.id, ..Default::default() });
        }
        let wrong = || CommandError::usage(format!("`{}` is no key; allowed: 32 hexadecimal digits", self.id));
        let key = convert::unhex(&self.id).filter(|key| key.len() == 16).ok_or_else(wrong)?;
        Ok(v1::Entity { r#type: self.kind, key: key.into(), ..Default::default() })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum RulingArg {
    Deny,
    Allow,
    Remove,
}

type Client = v1::entities_client::EntitiesClient<Channel>;

/// Runs the command.
///
/// # Errors
/// When the scorer cannot be reached or refuses.
pub fn run(args: Args) -> Result<(), CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CommandError::failed)?;
    runtime.block_on(call(args))
}

async fn call(args: Args) -> Result<(), CommandError> {
    let channel = connect(&args.admin).await?;
    let token = args.token_file.as_deref().map(std::fs::read_to_string).transpose().map_err(CommandError::usage)?;
    let mut client = Client::new(channel);
    match args.command {
        Command::Show { who, all, shape } => {
            let request = v1::GetEntityRequest { entity: Some(who.entity()?) };
            let answer = client.get_entity(with_token(request, token.as_deref())?).await.map_err(refused)?.into_inner();
            shape.print(&answer, || profile::table(&answer, all))
        }
        Command::Top { kind, by, limit, shape } => {
            let request = v1::TopEntitiesRequest { r#type: kind, feature: by, limit };
            let answer = client.top_entities(with_token(request, token.as_deref())?).await.map_err(refused)?.into_inner();
            shape.print(&answer, || profile::ranking(&answer))
        }
        Command::Forget { who, reason, shape } => {
            let request = v1::ForgetEntityRequest { entity: Some(who.entity()?), reason };
            let answer = client.forget_entity(with_token(request, token.as_deref())?).await.map_err(refused)?.into_inner();
            shape.print(&answer, || profile::forgotten(&answer))
        }
        Command::Override { kind, id, ruling, lasts, reason, shape } => {
            let action = match ruling {
                RulingArg::Deny => v1::Action::Block,
                RulingArg::Allow => v1::Action::Allow,
                RulingArg::Remove => v1::Action::Unspecified,
            };
            let request = v1::OverrideRequest {
                entity: Some(v1::Entity { r#type: kind, id, ..Default::default() }),
                action: action.into(),
                duration: lasts
                    .map(|lasts| pbjson_types::Duration { seconds: i64::try_from(lasts.as_secs()).unwrap_or(i64::MAX), nanos: 0 }),
                reason,
            };
            let answer = client.r#override(with_token(request, token.as_deref())?).await.map_err(refused)?.into_inner();
            shape.print(&answer, || answer.decision.as_ref().map_or("removed".to_owned(), line))
        }
        Command::Decisions { shape } => {
            let request = with_token(v1::ListDecisionsRequest {}, token.as_deref())?;
            let answer = client.list_decisions(request).await.map_err(refused)?.into_inner();
            shape.print(&answer, || match answer.decisions.as_slice() {
                [] => "no standing decisions".to_owned(),
                decisions => decisions.iter().map(line).collect::<Vec<_>>().join("\n"),
            })
        }
    }
}

/// A connection to an admin listener.
///
/// # Errors
/// When the address is none, or nobody answers there.
pub(super) async fn connect(admin: &str) -> Result<Channel, CommandError> {
    let endpoint = Endpoint::from_shared(format!("http://{admin}")).map_err(CommandError::usage)?;
    endpoint.connect().await.map_err(|error| {
        let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        CommandError::failed(format!("no scorer answers at `{admin}`: {cause}"))
    })
}

/// A request with the caller's token.
///
/// # Errors
/// When the token cannot stand in a header.
pub(super) fn with_token<T>(message: T, token: Option<&str>) -> Result<tonic::Request<T>, CommandError> {
    let mut request = tonic::Request::new(message);
    if let Some(token) = token {
        let value = MetadataValue::try_from(format!("Bearer {}", token.trim())).map_err(CommandError::usage)?;
        request.metadata_mut().insert("authorization", value);
    }
    Ok(request)
}

/// What the scorer says no to.
pub(super) fn refused(status: tonic::Status) -> CommandError {
    match status.code() {
        tonic::Code::InvalidArgument => CommandError::usage(status.message()),
        _ => CommandError::failed(format!("{}: {}", status.code(), status.message())),
    }
}

/// A standing decision in one line.
pub(super) fn line(decision: &v1::Decision) -> String {
    let action = convert::action_from_proto(decision.action).map_or("none", telltale_policy::Action::name);
    let entity = decision.entity.as_ref();
    let (kind, who) = entity.map_or((String::new(), String::new()), |entity| {
        let who = if entity.id.is_empty() { convert::hex(&entity.key) } else { entity.id.clone() };
        (entity.r#type.clone(), who)
    });
    let until = decision.until.as_ref().and_then(|until| json::write(until).ok()).unwrap_or_else(|| "removed by hand".to_owned());
    format!("{action:<11} {kind} {who}  until {until}  by {}: {}", decision.author, decision.reason)
}

fn lasting(text: &str) -> Result<Duration, String> {
    let allowed = || format!("`{text}` is no time; allowed: a number and s, m, h or d, such as 90s or 7d");
    let (digits, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(allowed)?;
    let amount: u64 = digits.parse().map_err(|_| allowed())?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(allowed()),
    };
    amount.checked_mul(seconds).map(Duration::from_secs).ok_or_else(allowed)
}
