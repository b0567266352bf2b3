//! The policy in force: compiled once from YAML, asked for every transaction.

use std::collections::HashMap;

use telltale_features::door::Admitted;
use telltale_features::expr::Predicate;
use telltale_features::hash::definition;
use telltale_features::schema::{Fields, Schema};
use telltale_features::store::Moment;
use telltale_features::vector::FeatureVector;
use telltale_features::yaml::{Problem, Problems, parse};
use telltale_models::{Attribution, Scores};

use crate::compile::{Checker, levels, members, risk};
use crate::decision::Mode;
use crate::ensemble::Member;
use crate::levels::Levels;
use crate::overrides::Overrides;
use crate::risk::{Combined, Risk};
use crate::row::{Extension, mentioned_models};
use crate::rule::{Index, Rule};
use crate::source::{RawPolicy, RawRoute};

/// The packs that are built in: file name and text.
pub const PACKS: &[(&str, &str)] = &[("default.yaml", include_str!("../packs/default.yaml"))];

/// Everything that a decision may depend on, policy state apart.
#[derive(Clone, Copy)]
pub struct Situation<'a> {
    /// The schema that made the vector.
    pub schema: &'a Schema,
    /// The transaction behind the door.
    pub admitted: &'a Admitted,
    /// Its fields, as [`Schema::fields`] reads them.
    pub fields: &'a Fields<'a>,
    /// Its features.
    pub vector: &'a FeatureVector,
    /// What models said.
    pub scores: &'a Scores,
    /// What [`Policy::combine`] made of it.
    pub combined: &'a Combined,
    /// Why models said it; empty below the alert threshold.
    pub attributions: &'a [Attribution],
    /// What people ruled.
    pub overrides: &'a Overrides,
    /// When.
    pub moment: Moment,
}

/// A compiled policy. Immutable; shared as `Arc<Policy>`.
pub struct Policy {
    digest: String,
    sources: String,
    pub(crate) mode: Mode,
    routes: Vec<RawRoute>,
    pub(crate) risk: Risk,
    /// The models that count only somewhere.
    pub(crate) members: Vec<Member>,
    pub(crate) levels: Levels,
    pub(crate) rules: Vec<Rule>,
    /// The condition of each rule, apart from what else a rule is: all of them are asked, few match.
    pub(crate) conditions: Vec<Predicate>,
    pub(crate) index: Index,
    pub(crate) extension: Extension,
}

/// A rule as a list shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleSummary {
    /// Identifier.
    pub id: String,
    /// Name in words.
    pub name: String,
    /// What it asks for.
    pub action: crate::decision::Action,
    /// Points it adds to the risk.
    pub score: f64,
    /// The mode in force for it where no route says otherwise.
    pub mode: Mode,
    /// OWASP and CAPEC tags.
    pub tags: Vec<String>,
}

impl Policy {
    /// The pack that is built in.
    ///
    /// # Errors
    /// When that schema lacks what the pack names.
    pub fn shipped(schema: &Schema) -> Result<Self, Problems> {
        let files: Vec<_> = PACKS.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        Self::from_sources(&files, schema)
    }

    /// A policy of several files, each given with its name; rules add up, an identifier may stand only once. Of `mode`, `risk`
    /// and `levels` the last file that has them counts.
    ///
    /// # Errors
    /// Everything that is wrong, with file, line and what is allowed.
    pub fn from_sources(files: &[(String, String)], schema: &Schema) -> Result<Self, Problems> {
        let mut problems = Vec::new();
        let mut raws: Vec<(&str, RawPolicy)> = Vec::new();
        for (file, text) in files {
            match parse(file, text) {
                Ok(raw) => raws.push((file, raw)),
                Err(problem) => problems.push(problem),
            }
        }
        let mut scope = schema.scope();
        let models = mentioned_models(raws.iter().flat_map(|(_, raw)| raw.rules.iter().map(|rule| rule.when.value.as_str())));
        let extension = Extension::new(schema, &mut scope, models);
        let mut policy = Self {
            digest: String::new(),
            sources: files.iter().map(|(file, text)| format!("{file}\n{text}\n")).collect(),
            mode: Mode::Monitor,
            routes: Vec::new(),
            risk: Risk::default(),
            members: Vec::new(),
            levels: Levels::standard(schema),
            rules: Vec::new(),
            conditions: Vec::new(),
            index: Index::default(),
            extension,
        };
        for (file, raw) in &raws {
            policy.mode = raw.mode.unwrap_or(policy.mode);
            policy.routes.extend(raw.routes.iter().cloned());
            if let Some(raw) = &raw.risk {
                policy.risk = risk(raw, file, &mut problems);
                policy.members = members(raw, file, schema, &mut problems);
            }
            if let Some(raw) = &raw.levels {
                policy.levels = levels(raw, file, schema, &scope, &mut problems);
            }
        }
        let mut known = HashMap::new();
        for (file, raw) in &raws {
            let mut checker = Checker { file, schema, scope: &scope, levels: &policy.levels, problems: &mut problems };
            let rules: (Vec<Rule>, Vec<Predicate>) = raw.rules.iter().filter_map(|rule| checker.rule(rule, &mut known)).unzip();
            policy.rules.extend(rules.0);
            policy.conditions.extend(rules.1);
        }
        if policy.rules.len() > usize::from(u16::MAX) {
            problems.push(Problem { file: "policy".to_owned(), line: 0, message: "more than 65535 rules".to_owned() });
        }
        if !problems.is_empty() {
            return Err(Problems { problems });
        }
        policy.index = Index::new(&policy.rules);
        Ok(policy.sealed())
    }

    /// The same policy with another global mode: the switch from watching to enforcing. A rule or route with a mode of its own
    /// keeps it.
    #[must_use]
    pub fn with_mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self.sealed()
    }

    fn sealed(mut self) -> Self {
        self.digest = format!("{:016x}", definition(&format!("{:?}\n{}", self.mode, self.sources)));
        self
    }

    /// 16 hexadecimal digits over everything that changes a decision.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The global mode.
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// The rules in the order of the files.
    pub fn rules(&self) -> impl Iterator<Item = RuleSummary> + '_ {
        self.rules.iter().map(|rule| RuleSummary {
            id: rule.id.to_string(),
            name: rule.name.to_string(),
            action: rule.action,
            score: rule.score,
            mode: rule.mode.unwrap_or(self.mode),
            tags: rule.tags.to_vec(),
        })
    }

    /// The routes that rules and modes are for, and the texts that rules compare `http.route` with: what no longer matches once such a
    /// path has another route.
    pub fn named_routes(&self) -> impl Iterator<Item = &str> {
        let compared = self.conditions.iter().flat_map(|condition| condition.literals("http.route"));
        let listed = self.rules.iter().flat_map(|rule| rule.routes.iter().map(String::as_str));
        compared.chain(listed).chain(self.routes.iter().map(|known| known.route.value.as_str()))
    }

    /// The mode of a rule for a route: its own, else the route's, else the policy's. `Off` of the whole policy is final.
    pub(crate) fn mode_of(&self, rule: &Rule, route: &str, method: &str) -> Mode {
        if self.mode == Mode::Off {
            return Mode::Off;
        }
        let for_route = || {
            let here = |known: &&RawRoute| {
                known.route.value == route && (known.methods.is_empty() || known.methods.iter().any(|known| known == method))
            };
            self.routes.iter().rev().find(here).map(|known| known.mode)
        };
        rule.mode.or_else(for_route).unwrap_or(self.mode)
    }
}
