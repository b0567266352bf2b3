//! The answer to a transaction: plain data.

use std::sync::Arc;

use telltale_features::entity::EntityId;
use telltale_features::time::Timestamp;

/// What is done with a transaction, from mild to severe; the order is the precedence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Let it through.
    #[default]
    Allow,
    /// Let it through and record it.
    Log,
    /// Refuse what exceeds the rate.
    RateLimit,
    /// Ask for a proof.
    Challenge,
    /// Answer plausibly and do nothing.
    Deceive,
    /// Refuse it.
    Block,
}

impl Action {
    /// As written in a policy.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Log => "log",
            Self::RateLimit => "rate-limit",
            Self::Challenge => "challenge",
            Self::Deceive => "deceive",
            Self::Block => "block",
        }
    }

    /// Whether a client feels it: everything above `log`.
    pub fn is_enforcing(self) -> bool {
        self > Self::Log
    }
}

/// Whether a rule only watches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Not evaluated.
    Off,
    /// Evaluated and reported, never acted on.
    #[default]
    Monitor,
    /// Acted on.
    Enforce,
}

/// What to do about one transaction.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// What is done.
    pub action: Action,
    /// What would be done were every rule enforced.
    pub would: Action,
    /// 0 to 100: models combined plus rule scores, capped.
    pub risk: f64,
    /// Points of each model, in the order of `Scores::parts`.
    pub contributions: Vec<f64>,
    /// The rules that matched, enforced ones first, then by severity.
    pub rules: Vec<RuleMatch>,
    /// Why, the weightiest first.
    pub reasons: Vec<Reason>,
    /// How `action` is performed.
    pub mitigation: Mitigation,
    /// Threat level of each subject that has one.
    pub threats: Vec<Threat>,
    /// Denials that this decision starts; to be pushed to enforcement points.
    pub denials: Vec<NewDenial>,
}

/// A rule that matched.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleMatch {
    /// Identifier.
    pub id: Arc<str>,
    /// Name in words.
    pub name: Arc<str>,
    /// What it asks for.
    pub action: Action,
    /// Points it adds to the risk.
    pub score: f64,
    /// Whether it is enforced here.
    pub enforced: bool,
    /// OWASP and CAPEC tags.
    pub tags: Arc<[String]>,
}

/// One observation that weighed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reason {
    /// The feature or field; empty when it is none.
    pub feature: Arc<str>,
    /// Its value.
    pub value: Option<f64>,
    /// What it usually is, by the model's training window or the rule's threshold.
    pub usual: Option<f64>,
    /// Points of risk that it explains.
    pub contribution: f64,
    /// The thought in plain words.
    pub text: String,
    /// `rule ATO-01`, `model forest`, `override`, `denial ATO-01`.
    pub origin: String,
}

/// Parameters of an action; only those of the chosen action are set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mitigation {
    /// Rate-limit: requests in `period_ms`.
    pub rate: u32,
    /// Rate-limit: period, milliseconds.
    pub period_ms: u32,
    /// Rate-limit: how many may come at once.
    pub burst: u32,
    /// When it is worth trying again, milliseconds.
    pub retry_after_ms: u32,
    /// Hold the answer back, milliseconds, at most 10,000.
    pub delay_ms: u32,
    /// Block: status of the answer; 0 when not set.
    pub status: u16,
    /// Deceive: name of the template; empty when not set.
    pub template: Arc<str>,
    /// Whose bucket or denial it is; `None`: this transaction alone.
    pub entity: Option<EntityId>,
    /// Until when it holds for that entity.
    pub until: Option<Timestamp>,
}

/// How dangerous a subject is held to be, after this transaction.
#[derive(Clone, Debug, PartialEq)]
pub struct Threat {
    /// The subject.
    pub entity: EntityId,
    /// Hostile evidence, 0 to 100.
    pub level: f64,
    /// How much it is being attacked, 0 to 100: never a reason to act against it.
    pub targeted: f64,
    /// Which evidence raised it last.
    pub origin: Arc<str>,
}

/// A standing denial that begins.
#[derive(Clone, Debug, PartialEq)]
pub struct NewDenial {
    /// Whom it is about.
    pub entity: EntityId,
    /// What is done with everything they do.
    pub action: Action,
    /// How.
    pub mitigation: Mitigation,
    /// When it ends.
    pub until: Timestamp,
    /// Which rule.
    pub rule: Arc<str>,
    /// Why, in words.
    pub reason: String,
}
