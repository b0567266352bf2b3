//! Changes of what is in force: a new snapshot enters, is journalled with its reason and put in force; one at a time.

use std::sync::Arc;

use telltale_features::store::{Order, Sequence, Store};
use telltale_features::time::Timestamp;
use telltale_models::Finished;
use telltale_models::half_space::Renewed;
use telltale_proto::journal::v1::journal_record::Kind;

use super::Engine;
use crate::in_force::{self, InForce};

impl<S: Store> Engine<S> {
    /// Makes a new snapshot from the one in force, journals why, and puts it in force. One at a time.
    pub fn change(&self, order: Order<'_>, change: impl FnOnce(&InForce, Timestamp) -> Option<(InForce, Kind)>) -> Option<Sequence> {
        self.change_all(order, |force, now| change(force, now).map(|(force, record)| (force, vec![record])))
    }

    /// As [`Engine::change`], for several reasons at once: each is journalled, all take effect together, under the number of the last.
    pub fn change_all(
        &self,
        order: Order<'_>,
        change: impl FnOnce(&InForce, Timestamp) -> Option<(InForce, Vec<Kind>)>,
    ) -> Option<Sequence> {
        let _one_at_a_time = self.changing.lock();
        let (mut force, records) = change(&self.in_force(), self.clock.now())?;
        for record in records {
            let moment = self.store.moment(order);
            force.epoch = moment.sequence;
            self.journal.append(moment, || record);
        }
        let epoch = force.epoch;
        self.put_in_force(force);
        Some(epoch)
    }

    /// Puts a snapshot in force as recorded, without journalling it: replay and warm-up.
    pub fn put_in_force(&self, force: InForce) {
        self.door.use_templates(Arc::clone(&force.templates));
        self.force.store(Arc::new(force));
    }

    /// A calibration has become complete: its model's scores count from now on.
    pub fn calibrated(&self, finished: &Finished, order: Order<'_>) {
        self.change(order, |force, _| {
            let (bundle, record) = calibration_change(force, finished)?;
            Some((force.with_bundle(bundle), record))
        });
    }

    /// A window of an online model is full: it scores by the new profile from now on.
    pub fn renewed(&self, renewed: &Renewed, order: Order<'_>) {
        let Renewed { model, version, profile } = renewed;
        self.change(order, |force, _| {
            let bundle = force.bundle.with_profile(model, *version, Arc::clone(profile));
            let bundle = bundle.inspect_err(|error| tracing::warn!(%model, %error, "profile dropped")).ok()?;
            tracing::info!(%model, version, bytes = profile.len(), "a new profile");
            Some((force.with_bundle(bundle), in_force::profile_record(model, *version, profile, "telltale")))
        });
    }

    /// Collects for the models of the bundle in force; what was collected of those that stay is kept.
    pub fn restart_calibration(&self) {
        self.calibrator.lock().follow(self.in_force().bundle.uncalibrated());
    }
}

/// The bundle with a finished calibration, and the record of the change; `None` when its model is gone.
fn calibration_change(force: &InForce, finished: &Finished) -> Option<(telltale_models::Bundle, Kind)> {
    let Finished { model, version, table } = finished;
    let bundle = force.bundle.with_calibration(model, *version, table.clone());
    let bundle = bundle.inspect_err(|error| tracing::warn!(%model, %error, "calibration dropped")).ok()?;
    tracing::info!(%model, version, digest = %table.digest(), "calibrated");
    let record = in_force::calibration_record(model, *version, table, "telltale");
    Some((bundle, record))
}
