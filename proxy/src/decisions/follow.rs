//! Follows the scorer's decisions for as long as the proxy lives, over a connection of its own.

use std::sync::Arc;

use telltale_proto::v1::StreamRequest;
use telltale_proto::v1::decisions_client::DecisionsClient;
use tokio::sync::oneshot;

use super::Decisions;
use crate::config::ScorerSettings;
use crate::metrics::Metrics;
use crate::scorer::{Backoff, call, chain, connect};

/// Never returns: connects, takes what comes, and connects again. `first` is told once the stream stands, or could not be had.
pub async fn follow(decisions: Arc<Decisions>, settings: ScorerSettings, metrics: Arc<Metrics>, first: oneshot::Sender<()>) {
    let mut backoff = Backoff::new();
    let mut first = Some(first);
    loop {
        let ran = run(&decisions, &settings, &mut || {
            backoff.reset();
            metrics.decisions.set(i64::try_from(decisions.len()).unwrap_or(i64::MAX));
            tell(&mut first);
        })
        .await;
        tell(&mut first);
        match ran {
            Ok(()) => tracing::info!("the scorer ended the stream of decisions; those held stay in force"),
            Err(why) => tracing::debug!(%why, "no stream of decisions; those held stay in force"),
        }
        backoff.wait().await;
    }
}

fn tell(first: &mut Option<oneshot::Sender<()>>) {
    if let Some(first) = first.take() {
        // Who started the proxy may not have waited so long.
        let _gone = first.send(()).is_err();
    }
}

async fn run(decisions: &Decisions, settings: &ScorerSettings, current: &mut (impl FnMut() + Send)) -> Result<(), String> {
    let channel = connect(settings).await.map_err(|error| chain(&error))?;
    let mut client = DecisionsClient::new(channel).max_decoding_message_size(64 << 20);
    let request = call(StreamRequest { version: decisions.version() }, settings);
    let mut messages = client.stream(request).await.map_err(|status| chain(&status))?.into_inner();
    // Who holds the current table gets no message.
    current();
    while let Some(message) = messages.message().await.map_err(|status| chain(&status))? {
        tracing::debug!(version = message.version, snapshot = message.snapshot, changes = message.decisions.len(), "decisions received");
        decisions.apply(message);
        current();
    }
    Ok(())
}
