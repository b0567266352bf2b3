//! How values are written: by the script that compares versions, or by plain commands where nobody else can have changed anything.
//!
//! Writes enter, what became of each leaves, with the token that stood then.

use std::sync::atomic::Ordering;

use ::redis::aio::MultiplexedConnection;
use ::redis::{Pipeline, RedisError, RedisResult, Value, cmd};
use tokio::time::Instant;

use super::cluster::{self, Call};
use super::link::{self, Connection, Link, timed_out};
use super::names::Standing;
use super::options::Acknowledge;
use super::sole::{Claim, SHARED, Token};
use super::value::{SCRIPT, Write, Written};

/// Writes in one call of the script, where one node has all keys: a call costs a server about as much as the write in it.
const TOGETHER: usize = 32;
/// Commands of a transaction beside its writes: `MULTI` before them, `EXEC`, `WATCH` and `GET` after.
const FRAME: usize = 4;

/// A connection on which Redis watches the key of a token: an `EXEC` there does nothing unless that token still stands.
pub(super) struct Watch {
    token: Token,
    node: MultiplexedConnection,
}

/// A write, and the token that stood when it was done.
type Fate = (Written, Token);

impl Link {
    /// Writes all of them, in one pipeline a node.
    pub(super) async fn write(&self, writes: &[Write], key: impl Fn(&Write) -> String) -> Vec<Fate> {
        let mut fates = self.overwrite(writes, &key).await;
        let rest: Vec<&Write> = writes.iter().zip(&fates).filter(|(_, fate)| fate.is_none()).map(|(write, _)| write).collect();
        let mut compared = self.compare(&rest, &key).await.into_iter();
        fates.iter_mut().filter(|fate| fate.is_none()).for_each(|fate| *fate = compared.next());
        fates.into_iter().map(|fate| fate.unwrap_or((Written::Unknown, Token::NONE))).collect()
    }

    /// Writes without a look what was seen under the token that stands; nothing of the others, and nothing at all when it stands no more.
    async fn overwrite(&self, writes: &[Write], key: impl Fn(&Write) -> String) -> Vec<Option<Fate>> {
        // One transaction at a time: each is sent when it is known that Redis watches for it.
        let mut watch = self.watch.lock().await;
        let standing = self.token();
        let known = watch.take().filter(|watch| watch.token == standing);
        let watching = if known.is_some() { known } else { self.begin_watch().await };
        let Some(Watch { token, mut node }) = watching else { return vec![None; writes.len()] };
        let fits = |write: &&Write| write.token == token && write.standing == Standing::Settled;
        let count = writes.iter().filter(fits).count();
        if count == 0 {
            *watch = Some(Watch { token, node });
            return vec![None; writes.len()];
        }
        let mut transaction = Pipeline::with_capacity(count + FRAME);
        transaction.cmd("MULTI");
        for write in writes.iter().filter(fits) {
            // A key that was there may have been evicted; one that was not, imported.
            let condition = if write.expected.is_some() { "XX" } else { "NX" };
            let set = transaction.cmd("SET").arg(key(write)).arg(&*write.value).arg(condition);
            match write.lives {
                Some(seconds) => set.arg("EX").arg(seconds),
                None => set.arg("KEEPTTL"),
            };
        }
        transaction.cmd("EXEC");
        self.add_watch(&mut transaction);
        let answers = match transaction.ignore_errors().query_async::<Vec<RedisResult<Value>>>(&mut node).await {
            Ok(answers) => answers,
            Err(error) => {
                self.sole.lock().end();
                self.note(&error);
                return writes.iter().map(|write| fits(&write).then_some((Written::Unknown, Token::NONE))).collect();
            }
        };
        if self.is_watched(&answers, token) {
            *watch = Some(Watch { token, node });
        } else {
            self.sole.lock().end();
        }
        let stored = match answers.into_iter().nth(count + 1) {
            Some(Ok(Value::Array(stored))) => stored,
            // Nothing was executed. The script says of each write why, or finds what another writer did.
            refused => {
                if refused.is_some_and(|answer| answer.is_err_and(|error| error.code() != Some("EXECABORT"))) {
                    // Whether the connection is still within the transaction is not known.
                    self.drop_connection();
                }
                return vec![None; writes.len()];
            }
        };
        self.sole_writes.fetch_add(count as u64, Ordering::Relaxed);
        let mut stored = stored.into_iter();
        writes.iter().map(|write| fits(&write).then(|| (self.overwritten(write, stored.next()), token))).collect()
    }

    /// What became of a write without a look.
    fn overwritten(&self, write: &Write, answer: Option<Value>) -> Written {
        match answer {
            Some(Value::Okay) => Written::Stored,
            Some(Value::Nil) if write.expected.is_some() => Written::Missing,
            Some(Value::Nil) => Written::Refused("PRESENT".to_owned()),
            Some(other) => self.answer(Ok(other)),
            None => Written::Unknown,
        }
    }

    /// Has Redis watch the token's key, once the token has stood for long enough. A user who may not run transactions goes on with the
    /// script: without `MULTI` the writes after it would be done at once.
    async fn begin_watch(&self) -> Option<Watch> {
        let token = self.sole.lock().calm(Instant::now()).filter(|_| self.may_be_sole() && self.server() != 0)?;
        let Ok(Connection::Node(mut node)) = self.connection() else { return None };
        let mut trial = Pipeline::new();
        trial.cmd("MULTI").cmd("EXEC");
        self.add_watch(&mut trial);
        let answers = trial.ignore_errors().query_async::<Vec<RedisResult<Value>>>(&mut node).await;
        let answers = answers.inspect_err(|error| self.note(error)).unwrap_or_default();
        if self.is_watched(&answers, token) && !answers.iter().any(Result::is_err) {
            return Some(Watch { token, node });
        }
        if answers.iter().flat_map(|answer| answer.as_ref().err()).any(|error| !is_passing(error)) {
            self.forget_server();
        }
        self.sole.lock().end();
        None
    }

    /// Whether this scorer ever writes without a look: not where answers wait for writes, which are few then and must not queue.
    fn may_be_sole(&self) -> bool {
        self.options.acknowledge == Acknowledge::Asynchronous && !self.options.names.are_changing()
    }

    fn add_watch(&self, pipeline: &mut Pipeline) {
        let key = link::token_key(&self.options);
        pipeline.cmd("WATCH").arg(&key).cmd("GET").arg(&key);
    }

    /// Whether that token stands while its key is watched, by the last two answers.
    fn is_watched(&self, answers: &[RedisResult<Value>], token: Token) -> bool {
        let stands = |found: &[u8]| Token::of(self.options.writer, found) == Some(token);
        matches!(answers, [.., Ok(Value::Okay), Ok(Value::BulkString(found))] if stands(found))
    }

    /// Runs the script for all of them, in one pipeline a node.
    async fn compare(&self, writes: &[&Write], key: impl Fn(&Write) -> String) -> Vec<Fate> {
        if writes.is_empty() {
            return Vec::new();
        }
        let Ok(connection) = self.connection() else {
            return writes.iter().map(|_| (Written::Refused("AWAY".to_owned()), Token::NONE)).collect();
        };
        // The keys of a Cluster stand in different slots.
        let together = if matches!(connection, Connection::Node(_)) { TOGETHER } else { 1 };
        let groups: Vec<&[&Write]> = writes.chunks(together).collect();
        let mut fates = self.run(&connection, ("EVALSHA", &self.digest), &groups, &key).await;
        let is_unknown = |fates: &&mut Vec<Fate>| fates.iter().any(is_unknown_script);
        let (again, missed): (Vec<&[&Write]>, Vec<_>) = groups.iter().zip(&mut fates).filter(|(_, fates)| is_unknown(fates)).unzip();
        if !again.is_empty() {
            // The first flush after a server's start: the text itself, which also teaches it the digest.
            let in_full = self.run(&connection, ("EVAL", SCRIPT), &again, &key).await;
            missed.into_iter().zip(in_full).for_each(|(to, fates)| *to = fates);
        }
        fates.into_iter().flatten().collect()
    }

    /// One call of the script a group; an answer a write.
    async fn run(
        &self,
        connection: &Connection,
        (name, script): (&str, &str),
        groups: &[&[&Write]],
        key: impl Fn(&Write) -> String,
    ) -> Vec<Vec<Fate>> {
        let is_node = matches!(connection, Connection::Node(_));
        let claims: Vec<Claim> = groups.iter().map(|_| self.sole.lock().claim()).collect();
        let call = |(group, claim): (&&[&Write], &Claim)| {
            let keys: Vec<String> = group.iter().map(|write| key(write)).collect();
            let slot = keys.first().map_or(0, |key| cluster::slot(key.as_bytes()));
            let mut call = cmd(name);
            call.arg(script);
            if is_node {
                let bytes = |token: Token| if self.may_be_sole() { token.bytes(self.options.writer) } else { SHARED };
                call.arg(keys.len() + 1).arg(link::token_key(&self.options)).arg(keys);
                call.arg(&bytes(claim.standing)[..]).arg(&bytes(claim.next)[..]);
            } else {
                call.arg(keys.len()).arg(keys).arg("").arg("");
            }
            for write in *group {
                let expected = write.expected.as_ref().map_or(&[][..], |version| version.bytes());
                call.arg(expected).arg(&*write.value).arg(write.lives.map_or_else(String::new, |seconds| seconds.to_string()));
            }
            (slot, call)
        };
        let (answers, replicated) = self.send(connection, groups.iter().zip(&claims).map(call).collect()).await;
        let fates = |((answer, group), claim): ((RedisResult<Value>, &&[&Write]), Claim)| {
            let (mut written, token) = self.answers(answer, group.len());
            if let Some(token) = token {
                self.sole.lock().told(claim, token, Instant::now());
            }
            // A write that too few replicas have is repeated: the script finds it stored and the wait begins anew.
            if !replicated {
                written.iter_mut().filter(|written| matches!(written, Written::Stored)).for_each(|written| *written = Written::Unknown);
            }
            written.into_iter().map(|written| (written, token.unwrap_or_default())).collect()
        };
        answers.into_iter().zip(groups).zip(claims).map(fates).collect()
    }

    /// The answers, and whether as many replicas as asked for have what was written.
    async fn send(&self, connection: &Connection, calls: Vec<Call>) -> (Vec<RedisResult<Value>>, bool) {
        let count = calls.len();
        let mut node = match connection.clone() {
            Connection::Node(node) => node,
            Connection::Cluster(cluster) => return (cluster.call(&calls).await, true),
        };
        let mut pipeline = ::redis::Pipeline::with_capacity(count + 1);
        for (_, call) in calls {
            pipeline.add_command(call);
        }
        let replicas = match self.options.acknowledge {
            Acknowledge::Synchronous { replicas } if replicas > 0 => Some(replicas),
            _ => None,
        };
        if let Some(replicas) = replicas {
            let patience = u64::try_from(self.options.flush_deadline.as_millis() / 2).unwrap_or(1).max(1);
            pipeline.cmd("WAIT").arg(replicas).arg(patience);
        }
        match pipeline.ignore_errors().query_async::<Vec<RedisResult<Value>>>(&mut node).await {
            Ok(mut answers) => {
                let has = |replicas| matches!(answers.pop(), Some(Ok(Value::Int(have))) if have >= i64::from(replicas));
                let replicated = replicas.is_none_or(has);
                (answers, replicated)
            }
            Err(error) => {
                self.note(&error);
                ((0..count).map(|_| Err(timed_out())).collect(), true)
            }
        }
    }

    /// What became of each write of a call, and the token that stood then; an answer that is not one a write is all of theirs.
    fn answers(&self, answer: RedisResult<Value>, count: usize) -> (Vec<Written>, Option<Token>) {
        match answer {
            Ok(Value::Array(mut answers)) if answers.len() == count + 1 => {
                let token = match answers.pop() {
                    Some(Value::BulkString(token)) => Token::of(self.options.writer, &token),
                    _ => None,
                };
                (answers.into_iter().map(|answer| self.answer(Ok(answer))).collect(), token)
            }
            other => (vec![self.answer(other); count], None),
        }
    }

    fn answer(&self, answer: RedisResult<Value>) -> Written {
        let error = match answer {
            Ok(Value::Int(1)) => return Written::Stored,
            Ok(Value::Int(_)) => return Written::Missing,
            Ok(Value::BulkString(value)) => return Written::Other(value),
            Ok(Value::ServerError(error)) => RedisError::from(error),
            Ok(_) => return Written::Refused("ANSWER".to_owned()),
            Err(error) => error,
        };
        self.note(&error);
        match error.code() {
            Some(code) => Written::Refused(code.to_owned()),
            None => Written::Unknown,
        }
    }
}

/// An error that says nothing about what this user may do.
fn is_passing(error: &RedisError) -> bool {
    matches!(error.code(), Some("BUSY" | "LOADING" | "MASTERDOWN" | "READONLY" | "EXECABORT"))
}

fn is_unknown_script((written, _): &Fate) -> bool {
    matches!(written, Written::Refused(code) if code == "NOSCRIPT")
}
