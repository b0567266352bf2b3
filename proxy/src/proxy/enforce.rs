//! Does what a verdict or a standing decision says. The one place that picks fail-open or fail-closed.

use std::time::{Duration, SystemTime};

use http::Response;
use telltale_proto::v1::{Action, Entity, Mitigation, Verdict};

use super::{Asked, Course, Proxy};
use crate::aggregates::Denial;
use crate::config::Template;
use crate::decisions::{EntityKey, Standing};
use crate::download::Answer;
use crate::metrics::{Done, Label as _, Unscored};
use crate::transaction::{self, timestamp};
use crate::{answers, clock, decoy};

/// An action with its parameters and whose bucket it draws on.
#[derive(Clone, Copy)]
struct Order<'a> {
    action: Action,
    mitigation: &'a Mitigation,
    key: Option<EntityKey>,
}

impl Proxy {
    /// The answer to a request that a standing decision denies. It is not scored; what was denied is reported in bulk.
    pub(super) async fn deny(&self, standing: &Standing, asked: &Asked) -> Option<Response<Answer>> {
        let Standing::Denied(key, decision) = standing else { return None };
        let fallback = Mitigation::default();
        let mitigation = decision.mitigation.as_ref().unwrap_or(&fallback);
        let action = decision.action();
        let reference = crate::id::fresh();
        let response = self.perform(Order { action, mitigation, key: Some(*key) }, asked, &reference).await?;
        self.metrics.local.count(action.into());
        let time = timestamp(asked.arrival.wall);
        let sample = || {
            let mut sample = transaction::transaction(&asked.parts, &asked.clean, &self.settings.service, asked.arrival.wall);
            sample.id.clone_from(&reference);
            sample
        };
        let denial = Denial { entity: *key, decision: &decision.id, enforced: action, time };
        if !self.aggregates.add(denial, sample) {
            self.metrics.reports.count(crate::metrics::Report::Dropped);
        }
        tracing::debug!(decision = %decision.id, ?action, client = %asked.clean.client, "denied by a standing decision");
        Some(response)
    }

    /// Does what the verdict says, or what holds without one.
    pub(super) async fn enforce(&self, standing: &Standing, verdict: Result<Verdict, Unscored>, asked: &Asked, id: &str) -> Course {
        let exempt = matches!(standing, Standing::Exempt(_));
        let verdict = match verdict {
            Ok(verdict) => verdict,
            Err(reason) => return self.without_verdict(reason, exempt, asked, id),
        };
        log(&verdict);
        let action = if exempt { Action::Allow } else { verdict.action() };
        let fallback = Mitigation::default();
        let mitigation = verdict.mitigation.as_ref().unwrap_or(&fallback);
        let key = mitigation.entity.as_ref().and_then(|entity| EntityKey::from_wire(&entity.key));
        if let (Action::RateLimit, Some(key)) = (action, key) {
            self.buckets.hold(key, mitigation, clock::now(), remaining(mitigation, asked.arrival.wall));
        }
        let Some(response) = self.perform(Order { action, mitigation, key }, asked, id).await else {
            let done = if action == Action::Log { Action::Log } else { Action::Allow };
            self.metrics.actions.count(done.into());
            return Course::Onward(done);
        };
        self.metrics.actions.count(action.into());
        Course::Answered(action, response)
    }

    /// The answer that an action asks for; none lets the request go on.
    async fn perform(&self, order: Order<'_>, asked: &Asked, id: &str) -> Option<Response<Answer>> {
        let Order { action, mitigation, key } = order;
        let (response, delay) = match action {
            Action::Unspecified | Action::Allow | Action::Log => (None, Duration::ZERO),
            // The scorer has counted this one already and says when the next would pass.
            Action::RateLimit if mitigation.retry_after_ms > 0 => {
                let wait = Duration::from_millis(u64::from(mitigation.retry_after_ms));
                (Some(answers::rate_limited(asked.client, id, wait)), Duration::ZERO)
            }
            Action::RateLimit => match self.buckets.take(key, mitigation, clock::now()) {
                Ok(()) => (None, Duration::ZERO),
                Err(wait) => (Some(answers::rate_limited(asked.client, id, wait)), Duration::ZERO),
            },
            Action::Challenge => (Some(answers::challenged(asked.client, id)), Duration::ZERO),
            Action::Deceive => match self.template(&mitigation.template) {
                Some(template) => (Some(answers::decoy(template)), template.delay),
                None => (Some(answers::blocked(asked.client, id, mitigation)), Duration::ZERO),
            },
            Action::Block => (Some(answers::blocked(asked.client, id, mitigation)), Duration::ZERO),
        };
        self.hold_back(delay + Duration::from_millis(u64::from(mitigation.delay_ms))).await;
        response
    }

    fn template(&self, name: &str) -> Option<&Template> {
        self.settings.templates.get(name).or_else(|| {
            tracing::warn!(template = name, "no such template, the decoy is a failed login");
            self.settings.templates.get(decoy::FALLBACK)
        })
    }

    /// Waits, within the limit, if not too many wait already.
    async fn hold_back(&self, delay: Duration) {
        let delay = delay.min(self.settings.limits.delay);
        if delay.is_zero() {
            return;
        }
        match self.delays.try_acquire() {
            Ok(_held) => tokio::time::sleep(delay).await,
            Err(_) => self.metrics.undelayed.inc(),
        }
    }

    /// Fail-open or fail-closed: held rate limits first, then the route decides.
    fn without_verdict(&self, reason: Unscored, exempt: bool, asked: &Asked, id: &str) -> Course {
        self.metrics.unscored.count(reason);
        tracing::debug!(reason = reason.name(), path = asked.parts.uri.path(), "no verdict");
        if self.alarm.note(clock::now()) {
            self.metrics.alerts.inc();
            tracing::error!(reason = reason.name(), "ALERT: many requests go without a verdict; is the scorer up and fast enough?");
        }
        if exempt {
            self.metrics.actions.count(Done::Allow);
            return Course::Onward(Action::Allow);
        }
        if self.buckets.holds_any() {
            let keys = self.decisions.keys(&asked.clues());
            if let Err(wait) = self.buckets.take_held(keys.into_iter(), clock::now()) {
                self.metrics.local.count(Done::RateLimit);
                return Course::Answered(Action::RateLimit, answers::rate_limited(asked.client, id, wait));
            }
        }
        let path = asked.parts.uri.path();
        if self.settings.scorer.fail_closed.iter().any(|prefix| path.starts_with(prefix)) {
            self.metrics.actions.count(Done::FailClosed);
            return Course::Answered(Action::Block, answers::unscored(asked.client, id));
        }
        self.metrics.actions.count(Done::Allow);
        Course::Onward(Action::Allow)
    }
}

/// How long a mitigation still holds for its entity, if it says so.
fn remaining(mitigation: &Mitigation, now: SystemTime) -> Option<Duration> {
    let until = mitigation.until.as_ref()?;
    let now = timestamp(now);
    Some(Duration::from_secs(u64::try_from(until.seconds.saturating_sub(now.seconds)).unwrap_or_default()))
}

/// Writes what is worth reading to the log.
pub(super) fn log(verdict: &Verdict) {
    if matches!(verdict.action(), Action::Unspecified | Action::Allow) {
        return;
    }
    let entity = verdict.mitigation.as_ref().and_then(|mitigation| mitigation.entity.as_ref());
    tracing::info!(
        transaction = %verdict.transaction_id,
        action = verdict.action().as_str_name(),
        risk = verdict.risk,
        rule = verdict.rules.first().map_or("", |rule| rule.id.as_str()),
        reason = verdict.reasons.first().map_or("", |reason| reason.text.as_str()),
        entity = entity.map_or("", |entity: &Entity| entity.r#type.as_str()),
        "verdict"
    );
}
