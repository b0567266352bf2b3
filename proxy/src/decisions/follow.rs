//! Follows the scorer's decisions for as long as the proxy lives, over a connection of its own.

use std::sync::Arc;

use telltale_proto::v1::StreamRequest;
use telltale_proto::v1::decisions_client::DecisionsClient;

use super::Decisions;
use crate::config::ScorerSettings;
use crate::metrics::Metrics;
use crate::scorer::{Backoff, call, chain, connect};

/// Never returns: connects, takes what comes, and connects again.
pub async fn follow(decisions: Arc<Decisions>, settings: ScorerSettings, metrics: Arc<Metrics>) {
    let mut backoff = Backoff::new();
    loop {
        match run(&decisions, &settings, &metrics, &mut backoff).await {
            Ok(()) => tracing::info!("the scorer ended the stream of decisions; those held stay in force"),
            Err(why) => tracing::debug!(%why, "no stream of decisions; those held stay in force"),
        }
        backoff.wait().await;
    }
}

async fn run(decisions: &Decisions, settings: &ScorerSettings, metrics: &Metrics, backoff: &mut Backoff) -> Result<(), String> {
    let channel = connect(settings).await.map_err(|error| chain(&error))?;
    let mut client = DecisionsClient::new(channel).max_decoding_message_size(64 << 20);
    let request = call(StreamRequest { version: decisions.version() }, settings);
    let mut messages = client.stream(request).await.map_err(|status| chain(&status))?.into_inner();
    while let Some(message) = messages.message().await.map_err(|status| chain(&status))? {
        backoff.reset();
        tracing::debug!(version = message.version, snapshot = message.snapshot, changes = message.decisions.len(), "decisions received");
        decisions.apply(message);
        metrics.decisions.set(i64::try_from(decisions.len()).unwrap_or(i64::MAX));
    }
    Ok(())
}
