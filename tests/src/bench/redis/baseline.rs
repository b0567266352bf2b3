//! The two other ways to keep the same accumulators in Redis: a script that reads, changes and writes one value an entity inside the
//! server, and hashes with HyperLogLogs.
//!
//! Events enter, Redis's processor time leaves. Both count less than the kernel does (no gaps, no ring, every kind of number as a
//! count), so what they cost is a lower bound.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use telltale_features::event::{EntityEvents, Event};
use telltale_features::kernel::plan::{Accumulator, AccumulatorKind, EntityPlan};

use super::Failure;
use crate::redis::Redis;

/// Tiles of a window.
const TILES: i64 = 12;
/// Cells of a distinct count, as many as a page has.
const CELLS: u64 = 512;
const SECOND: i64 = 1_000_000;

/// One way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Design {
    /// One call of [`SCRIPT`] an entity.
    Script,
    /// HINCRBY, PFADD, and the reads of every window.
    Commands,
}

/// Keeps the accumulators of one entity in one packed value.
///
/// - `KEYS[1]`: the entity's key.
/// - `ARGV[1]`, `ARGV[2]`: second of the event, seconds to live.
/// - then three for each accumulator: `n` (numbers in tiles) or `d` (cells with the second they were last seen), its window, and what
///   is added: a number, or a cell; empty when the event does not pass.
///
/// Returns the reading of each accumulator after the event.
const SCRIPT: &str = "\
local raw = redis.call('GET', KEYS[1]) \
local state = raw and cmsgpack.unpack(raw) or {} \
local now, out, slot = tonumber(ARGV[1]), {}, 1 \
for at = 3, #ARGV, 3 do \
  local window, add, part = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), state[slot] \
  if not part then part = {} state[slot] = part end \
  local sum = 0 \
  if ARGV[at] == 'd' then \
    if add then part[add] = now end \
    for _, seen in pairs(part) do if seen > now - window then sum = sum + 1 end end \
  else \
    local tile, last = math.floor(now * 12 / window), part[13] \
    if not last or tile - last >= 12 then for i = 1, 12 do part[i] = 0 end \
    else for i = last + 1, tile do part[i % 12 + 1] = 0 end end \
    part[13] = tile \
    if add then part[tile % 12 + 1] = part[tile % 12 + 1] + add end \
    for i = 1, 12 do sum = sum + part[i] end \
  end \
  out[slot] = sum slot = slot + 1 \
end \
redis.call('SET', KEYS[1], cmsgpack.pack(state), 'EX', ARGV[2]) \
return out";

/// Redis's processor time a transaction, microseconds.
///
/// # Errors
/// When a command fails.
pub fn cost(redis: &Redis, folder: &Path, plans: &[EntityPlan], (sample, design): (&[EntityEvents], Design)) -> Result<f64, Failure> {
    let digest = redis.command(&["SCRIPT", "LOAD", SCRIPT])?.trim().to_owned();
    let mut text = String::new();
    for (entity, event) in sample.iter().flat_map(|events| &events.events) {
        let Some(plan) = plans.get(entity.kind.index()) else { continue };
        let key = format!("other:{{{}:{:?}}}:{}", plan.name, entity.key, u8::from(design == Design::Script));
        match design {
            Design::Script => write_command(&call(&digest, &key, plan, event), &mut text)?,
            Design::Commands => commands(&key, plan, event).iter().try_for_each(|command| write_command(command, &mut text))?,
        }
    }
    let path = folder.join("commands.resp");
    std::fs::write(&path, text)?;
    let before = redis.cpu_us()?;
    let mut pipe = Command::new("redis-cli");
    pipe.args(["-p", &redis.address.port().to_string(), "--pipe"]).stdin(Stdio::from(std::fs::File::open(&path)?));
    let said = String::from_utf8_lossy(&pipe.output()?.stdout).into_owned();
    if !said.contains("errors: 0") {
        return Err(format!("the commands of the other design failed: {said}").into());
    }
    Ok((redis.cpu_us()? - before) / sample.len() as f64)
}

/// Over how long an accumulator goes, seconds; whether the event is in it; its cell where it counts distinct members.
fn read(accumulator: &Accumulator, plan: &EntityPlan, event: &Event) -> (i64, bool, Option<Option<u64>>) {
    let mut cell = None;
    let (filter, window) = match accumulator.kind {
        AccumulatorKind::Count { filter, window }
        | AccumulatorKind::Sum { filter, window, .. }
        | AccumulatorKind::Interarrival { filter, window }
        | AccumulatorKind::Extreme { filter, window, .. }
        | AccumulatorKind::Moments { filter, window, .. }
        | AccumulatorKind::Histogram { filter, window, .. }
        | AccumulatorKind::Matured { filter, window, .. } => (filter, window),
        AccumulatorKind::Distinct { filter, member, horizon } => {
            cell = Some(event.members.get(usize::from(member)).copied().flatten().map(|member| member % CELLS));
            (filter, horizon)
        }
        AccumulatorKind::Seen { filter } | AccumulatorKind::Latest { filter, .. } | AccumulatorKind::Position { filter, .. } => {
            (filter, plan.ttl)
        }
    };
    (i64::try_from(window.as_secs()).unwrap_or(i64::MAX).max(1), event.filters >> filter & 1 == 1, cell)
}

/// One call of the script.
fn call(digest: &str, key: &str, plan: &EntityPlan, event: &Event) -> Vec<String> {
    let now = event.time.micros() / SECOND;
    let mut words = vec!["EVALSHA".to_owned(), digest.to_owned(), "1".to_owned(), key.to_owned(), now.to_string()];
    words.push(plan.ttl.as_secs().to_string());
    for accumulator in &plan.accumulators {
        let (window, passes, cell) = read(accumulator, plan, event);
        let add = match cell {
            Some(cell) => cell.filter(|_| passes).map(|cell| cell.to_string()),
            None => passes.then(|| "1".to_owned()),
        };
        words.extend([if cell.is_some() { "d" } else { "n" }.to_owned(), window.to_string(), add.unwrap_or_default()]);
    }
    words
}

/// What one event does to one entity with hashes and HyperLogLogs: count, and read every window. A window of distinct members is asked
/// of two sketches as long as itself, not of twelve: the least that slides at all.
fn commands(key: &str, plan: &EntityPlan, event: &Event) -> Vec<Vec<String>> {
    let words = |all: &[&str]| all.iter().map(|word| (*word).to_owned()).collect::<Vec<String>>();
    let lives = plan.ttl.as_secs().to_string();
    let (mut writes, mut fields, mut counts) = (Vec::new(), words(&["HMGET", key]), Vec::new());
    for accumulator in &plan.accumulators {
        let (window, passes, cell) = read(accumulator, plan, event);
        let now = event.time.micros() / SECOND;
        if let Some(cell) = cell {
            let sketch = |back: i64| format!("{key}:{:x}:{}", accumulator.tag, now / window - back);
            if let Some(cell) = cell.filter(|_| passes) {
                writes.push(words(&["PFADD", &sketch(0), &cell.to_string()]));
                writes.push(words(&["EXPIRE", &sketch(0), &lives]));
            }
            counts.push(words(&["PFCOUNT", &sketch(0), &sketch(1)]));
            continue;
        }
        let field = |back: i64| format!("{:x}:{}", accumulator.tag, now * TILES / window - back);
        if passes {
            writes.push(words(&["HINCRBY", key, &field(0), "1"]));
        }
        fields.extend((0..=TILES).map(field));
    }
    writes.push(words(&["EXPIRE", key, &lives]));
    writes.push(fields);
    writes.extend(counts);
    writes
}

/// One command as the protocol has it.
fn write_command(words: &[String], out: &mut String) -> Result<(), Failure> {
    write!(out, "*{}\r\n", words.len())?;
    for word in words {
        write!(out, "${}\r\n{word}\r\n", word.len())?;
    }
    Ok(())
}
