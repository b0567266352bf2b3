//! Forgetting an entity on request, under every name that it has in Redis.

use std::sync::Arc;

use crate::entity::EntityId;
use crate::kernel::Flush;
use crate::time::Timestamp;

use super::entry::lives;
use super::sole::Token;
use super::value::{self, Write, Written};
use super::{RedisStore, Shared, shard_of};

impl RedisStore {
    /// Forgets an entity: what happened up to `at` is gone here at once and in Redis with the next flush, and no delta that began
    /// before brings it back.
    pub fn forget(&self, entity: EntityId, at: Timestamp) {
        if let Some(shard) = self.shared.shards.get(shard_of(entity)) {
            shard.lock().happen(entity, at, |entry, _| entry.bury(at));
        }
        self.shared.wanted.notify_one();
        if self.shared.options.names.are_changing()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(empty(Arc::clone(&self.shared), entity));
        }
    }
}

/// A name of before that was closed with its history in it, by a scorer that was killed before it took that away, is emptied. What is not
/// closed yet is overwritten by the flush that closes it.
async fn empty(shared: Arc<Shared>, entity: EntityId) {
    let standing = shared.options.names.standing();
    let keys = [shared.key(entity, standing)];
    let asked = tokio::time::timeout(shared.options.flush_deadline, shared.reads.get(&keys, None)).await;
    let found = asked.ok().and_then(Result::ok).and_then(|(found, _)| found.into_iter().next().flatten());
    let Some(found) = found.filter(|found| value::is_closed(found) && !value::is_emptied(found)) else { return };
    let (Some(closed), Some(layout)) = (value::version(&found), shared.layouts.get(entity.kind.index())) else { return };
    let write = Write {
        entity,
        standing,
        flush: Flush { writer: shared.options.writer, sequence: 0, at: shared.now() },
        expected: Some(closed),
        value: closed.bytes().into(),
        lives: Some(lives(layout)),
        token: Token::NONE,
    };
    let written = shared.writes.write(&[write], |write| shared.key(write.entity, write.standing)).await;
    if !matches!(written.as_slice(), [(Written::Stored, _)]) {
        tracing::error!("what a forgotten entity had under its name of before could not be taken away; ask for it again");
    }
}
