//! `telltale templates`: endpoint templates beside the configured ones, over the admin listener of a running scorer.

use telltale_features::schema::Template;
use telltale_proto::v1;

use super::Shape;
use super::entities::{connect, refused, with_token};
use crate::convert;
use crate::error::CommandError;

/// What a template in force does to rules.
const HINT: &str = "rules that compare `http.route` with a path that a template in force takes in do not match any more";

/// Arguments of `telltale templates`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  telltale templates list
  telltale templates add '/blog/{slug}' --service shop --method GET --reason 'one page a post'
  telltale templates remove '/blog/{slug}' --service shop --method GET")]
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
    /// Those in force, those that traffic suggests, and those that were refused.
    List {
        #[command(flatten)]
        shape: Shape,
    },
    /// Puts a template in force, suggested or not.
    Add {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        shape: Shape,
    },
    /// Takes a template out of force, or refuses a suggested one; it is not suggested again.
    Remove {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        shape: Shape,
    },
}

/// Which template, and why.
#[derive(Debug, Clone, clap::Args)]
struct Which {
    /// Path with `{name}` as a whole segment for what differs.
    path: String,
    /// Service; absent: every one.
    #[arg(long, default_value = "")]
    service: String,
    /// Method; absent: every one.
    #[arg(long, default_value = "")]
    method: String,
    /// Why.
    #[arg(long, default_value = "")]
    reason: String,
}

impl Which {
    fn split(self) -> (Option<v1::Template>, String) {
        let Self { path, service, method, reason } = self;
        (Some(v1::Template { service, method, path, ..v1::Template::default() }), reason)
    }
}

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
    let mut client = v1::templates_client::TemplatesClient::new(channel);
    match args.command {
        Command::List { shape } => {
            let request = with_token(v1::ListTemplatesRequest {}, token.as_deref())?;
            let answer = client.list_templates(request).await.map_err(refused)?.into_inner();
            shape.print(&answer, || match answer.templates.as_slice() {
                [] => "no templates beside the configured ones".to_owned(),
                templates => templates.iter().map(line).chain([format!("({HINT})")]).collect::<Vec<_>>().join("\n"),
            })
        }
        Command::Add { which, shape } => {
            let (template, reason) = which.split();
            let request = with_token(v1::AddTemplateRequest { template, reason }, token.as_deref())?;
            let answer = client.add_template(request).await.map_err(refused)?.into_inner();
            shape.print(&answer, || answer.template.as_ref().map_or_else(String::new, |template| format!("{}\n({HINT})", line(template))))
        }
        Command::Remove { which, shape } => {
            let (template, reason) = which.split();
            let request = with_token(v1::RemoveTemplateRequest { template, reason }, token.as_deref())?;
            let answer = client.remove_template(request).await.map_err(refused)?.into_inner();
            shape.print(&answer, || answer.template.as_ref().map_or_else(|| "there is no such template".to_owned(), line))
        }
    }
}

/// A template in one line.
fn line(template: &v1::Template) -> String {
    let v1::Template { service, method, path, author, reason, .. } = template;
    let id = Template { service: service.clone(), method: method.clone(), path: path.clone() }.id();
    format!("{:<9} {id}  by {author}: {reason}", convert::template_state(template.state()))
}
