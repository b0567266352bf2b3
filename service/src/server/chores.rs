//! What a running server does beside answering: a signal or a second enters, files that changed are read again, what is unsaved is written.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;

use super::Service;
use super::reload::{PolicyWatch, reload_geo};
use crate::config::Config;
use crate::geo::Geo;

/// How often new names are written: what a killed scorer had learnt since is learnt again from its journal.
const NAMES_EVERY: Duration = Duration::from_secs(30);

/// Once a second: the files of policy and places, ended decisions, unsaved denials.
pub async fn chores(service: Arc<Service>, config: Config, mut hangup: Signal) {
    let mut watch = PolicyWatch::new(config.policy.path.clone(), config.policy.mode.clone());
    let mut every = tokio::time::interval(Duration::from_secs(1));
    let mut dictionary = tokio::time::interval(NAMES_EVERY);
    dictionary.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = dictionary.tick() => {
                let service = Arc::clone(&service);
                tokio::task::spawn_blocking(move || save_names(&service));
            }
            _ = hangup.recv() => {
                watch.has_changed();
                watch.reload(&service, "SIGHUP");
                if let Some(geo) = service.engine.geo() {
                    geo.has_changed();
                    reload_geo(&service);
                }
            }
            _ = every.tick() => {
                if watch.has_changed() {
                    watch.reload(&service, "file change");
                }
                if service.engine.geo().is_some_and(Geo::has_changed) {
                    reload_geo(&service);
                }
                if let Err(error) = service.decisions.tick(service.engine.clock().now()) {
                    tracing::error!(%error, "the standing decisions could not be saved");
                }
            }
        }
    }
}

/// Writes the names that were learnt since the last time.
pub fn save_names(service: &Service) {
    if let Err(error) = service.names.save() {
        tracing::error!(%error, "the name dictionary could not be saved");
    }
}
