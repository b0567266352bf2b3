//! How an entity comes from the name that it had to the newest one, while the secret of names is changed.
//!
//! What was found under both names, and answers to writes, enter; what is to be written where leaves. The name of before is closed
//! first, by one more flush whose version says so; only then is the newest name made with the same content. A writer that was about to
//! write under the closed name finds out by the version and brings its delta after. So of any number of scorers each delta counts once,
//! and a scorer that is killed in between leaves the history where the next one finds it.

use std::sync::Arc;

use super::super::sole::Token;
use super::super::value::{self, Version, Write};
use super::{Entry, Outcome, Standing, Unreadable, join};
use crate::kernel::{EntityState, Flush, Layout};
use crate::time::Timestamp;

impl Standing {
    /// The value of a state that was stamped with that flush, and is written under the name of this standing.
    pub(super) fn pack(self, flush: Flush, state: &EntityState, layout: &Layout) -> Arc<[u8]> {
        match self {
            Self::Moves => value::pack_as(Version::closing(flush), state, layout),
            Self::Settled | Self::Follows => value::pack(flush, state, layout),
        }
    }
}

impl Entry {
    /// [`Entry::learn`], where the entity may stand under two names.
    pub(in super::super) fn learn_either(
        &mut self,
        layout: &Layout,
        asked: u32,
        (newest, before): (Option<&[u8]>, Option<&[u8]>),
        now: Timestamp,
    ) -> Result<(), Unreadable> {
        if self.standing == Standing::Settled || asked != self.generation {
            return self.learn(layout, asked, newest, now);
        }
        if newest.is_some() {
            self.settle();
            return self.learn(layout, self.generation, newest, now);
        }
        let Some(closed) = before.filter(|found| value::is_closed(found)) else {
            return self.learn(layout, asked, before, now);
        };
        let state = value::unpack(layout, closed).map_err(|_| Unreadable)?;
        self.settle();
        if value::is_emptied(closed) {
            return self.learn(layout, self.generation, None, now);
        }
        self.adopt(layout, None, state, now);
        Ok(())
    }

    /// From now on it stands under its newest name; nothing is known of what stands there.
    fn settle(&mut self) {
        self.standing = Standing::Settled;
        self.rebase(None);
        self.generation = self.generation.wrapping_add(1);
    }

    /// The name of before is closed, with the sealed delta in it: the newest name is made from it.
    pub(super) fn carry_over(&mut self, layout: &Layout) -> Outcome {
        let Some(sealed) = self.sealed.as_mut() else { return Outcome::Stale };
        sealed.closed = Some(Version::closing(sealed.flush));
        sealed.value = value::renamed(&sealed.value, Version::of(sealed.flush));
        (sealed.standing, sealed.expected, sealed.unknown) = (Standing::Settled, None, false);
        if self.standing != Standing::Settled {
            self.settle();
        }
        self.again(layout)
    }

    /// The name of before is closed by another scorer: the sealed delta goes under the newest one, unless it is in there.
    pub(super) fn redirect(&mut self, layout: &Layout, found: &[u8], mut state: EntityState, now: Timestamp) -> Outcome {
        let Some(sealed) = self.sealed.as_mut() else { return Outcome::Stale };
        let held = state.holds(sealed.flush);
        // Of an emptied name the newest one tells.
        let lost = !value::is_emptied(found) && sealed.may_be_in(&state, now);
        if !held && !lost {
            join(&mut state, layout, &sealed.delta);
            state.stamp(sealed.flush);
            (sealed.standing, sealed.expected) = (Standing::Settled, None);
            sealed.value = value::pack(sealed.flush, &state, layout);
        }
        if lost {
            self.sealed = None;
        }
        if self.standing != Standing::Settled {
            self.settle();
            if value::is_emptied(found) {
                // The history stands under the newest name: the next read or write brings it.
                self.known = false;
            } else {
                self.adopt(layout, None, state, now);
            }
        }
        if lost {
            return Outcome::Ambiguous;
        }
        if held {
            self.forget_sealed();
            return Outcome::Done;
        }
        self.again(layout)
    }

    /// The sealed delta was for the name of before, which is gone while the newest is known.
    pub(super) fn pass_on(&mut self, layout: &Layout) -> Outcome {
        let Some(sealed) = self.sealed.as_mut() else { return Outcome::Stale };
        let mut state = EntityState::default();
        join(&mut state, layout, &sealed.delta);
        state.stamp(sealed.flush);
        sealed.value = value::pack(sealed.flush, &state, layout);
        (sealed.standing, sealed.expected) = (Standing::Settled, None);
        self.again(layout)
    }

    /// The sealed delta is stored. Where it closed the name of before, what still stands there is taken away: the version alone stays,
    /// for writers that know no better, until its time to live has passed.
    pub(super) fn stored(&mut self, layout: &Layout) -> Outcome {
        let Some((flush, closed)) = self.sealed.as_ref().map(|sealed| (sealed.flush, sealed.closed)) else { return Outcome::Stale };
        self.forget_sealed();
        let Some(closed) = closed else { return Outcome::Done };
        Outcome::Again(Write {
            entity: self.id,
            standing: Standing::Moves,
            flush,
            expected: Some(closed),
            value: closed.bytes().into(),
            lives: Some(super::lives(layout)),
            token: Token::NONE,
        })
    }
}
