//! Scorers that take turns at being alone: what is written without a look never takes an event away, whatever is late, lost or doubled.
//!
//! The pretended server executes one command of one connection at a time, as Redis does, so others come between any two of them. A
//! connection that its scorer gave up may still be executed to its end, long after the scorer went on with a new one.

use tokio::time::Instant;

use super::super::sole::{Claim, Sole, Token};
use super::*;

const ENTITIES: u8 = 3;
/// Late enough that every token has stood for long.
const LATER: Duration = Duration::from_secs(3_600);

type Owned = (u64, Token);

/// A command on its way.
enum Command {
    Script { write: Write, claim: Claim },
    Execute(Token, Vec<Write>),
    Watch,
    Get,
}

/// What comes back.
enum Answer {
    Scripted { write: Write, claim: Claim, written: Written, token: Token },
    Executed(Token, Vec<Write>, Option<Vec<Written>>),
    Watched,
    Got(Option<Owned>),
}

#[derive(Default)]
struct Connection {
    commands: VecDeque<Command>,
    answers: VecDeque<Answer>,
    watches: bool,
    /// The watched key has changed; only an `EXEC` takes that away.
    spoilt: bool,
    /// Answers that nobody waits for any more.
    late: usize,
}

#[derive(Default)]
struct Server {
    keys: [Key; ENTITIES as usize],
    token: Option<Owned>,
    connections: Vec<Connection>,
}

fn index(write: &Write) -> usize {
    usize::from(write.entity.key.0[0])
}

impl Server {
    fn put(&mut self, token: Owned) {
        self.token = Some(token);
        self.connections.iter_mut().for_each(|connection| connection.spoilt |= connection.watches);
    }

    /// Executes the next command of a connection.
    fn step(&mut self, which: usize, writer: u64) {
        let Some(command) = self.connections[which].commands.pop_front() else { return };
        let answer = match command {
            Command::Script { write, claim } => {
                let mut token = claim.standing;
                if self.token != Some((writer, token)) {
                    token = claim.next;
                    self.put((writer, token));
                }
                let written = self.keys[index(&write)].run(&write);
                Answer::Scripted { write, claim, written, token }
            }
            Command::Execute(token, writes) => {
                let connection = &mut self.connections[which];
                let stands = !connection.spoilt;
                (connection.watches, connection.spoilt) = (false, false);
                let overwrite = |write: &Write| {
                    let key = &mut self.keys[index(write)];
                    match (&key.0, write.expected) {
                        (Some(_), Some(_)) | (None, None) => key.0 = Some(write.value.to_vec()),
                        (None, Some(_)) => return Written::Missing,
                        (Some(_), None) => return Written::Refused("PRESENT".to_owned()),
                    }
                    Written::Stored
                };
                let written = stands.then(|| writes.iter().map(overwrite).collect());
                Answer::Executed(token, writes, written)
            }
            Command::Watch => {
                self.connections[which].watches = true;
                Answer::Watched
            }
            Command::Get => Answer::Got(self.token),
        };
        self.connections[which].answers.push_back(answer);
    }
}

/// A question on its way: asked under which token and generation, and what was found once it was executed.
struct Question {
    entity: usize,
    generation: u32,
    token: Token,
    /// Entities that had been given up.
    evicted: u64,
    found: Option<Option<Vec<u8>>>,
}

struct Scorer {
    writer: u64,
    sequence: u64,
    entries: Vec<Entry>,
    sole: Sole,
    /// The connection on which its token is watched, and that token, once the server has said so.
    watch: Option<(usize, Token)>,
    /// Under which token a watch is on its way.
    watching: Option<Token>,
    connection: usize,
    question: Option<Question>,
    evicted: u64,
    overwritten: u64,
}

impl Scorer {
    fn new(writer: u64, server: &mut Server) -> Self {
        let id = |number| EntityId { kind: EntityType(0), key: EntityKey([number; 16]) };
        let entries = (0..ENTITIES).map(|number| Entry::new(id(number), at(0), Standing::Settled)).collect();
        let mut scorer = Self {
            writer,
            sequence: 0,
            entries,
            sole: Sole::default(),
            watch: None,
            watching: None,
            connection: 0,
            question: None,
            evicted: 0,
            overwritten: 0,
        };
        scorer.connect(server);
        scorer
    }

    fn connect(&mut self, server: &mut Server) {
        server.connections.push(Connection::default());
        self.connection = server.connections.len() - 1;
        self.lose();
    }

    fn lose(&mut self) {
        self.sole.end();
        (self.watch, self.watching) = (None, None);
    }

    /// The connection that it writes to, or now and then one of before.
    fn some_connection(&self, owners: &[u64], rng: &mut ChaCha8Rng) -> usize {
        let some = rng.random_range(0..owners.len());
        if rng.random_bool(0.2) && owners[some] == self.writer { some } else { self.connection }
    }

    /// Seals what is open and sends it: in one transaction what nobody else can have changed, each of the others to be compared.
    fn flush(&mut self, server: &mut Server, layout: &Layout, now: Timestamp) {
        let mut writes = Vec::new();
        for entry in &mut self.entries {
            self.sequence += 1;
            writes.extend(entry.next_write(layout, Flush { writer: self.writer, sequence: self.sequence, at: now }));
        }
        let known = self.watch.filter(|(_, token)| *token == self.sole.standing());
        let fits = |write: &Write| known.is_some_and(|(_, token)| write.token == token);
        let (unseen, compared): (Vec<_>, Vec<_>) = writes.into_iter().partition(fits);
        if let Some((connection, token)) = known.filter(|_| !unseen.is_empty()) {
            (self.watch, self.watching) = (None, Some(token));
            server.connections[connection].commands.extend([Command::Execute(token, unseen), Command::Watch, Command::Get]);
        }
        compared.into_iter().for_each(|write| self.compare(server, write));
    }

    fn compare(&mut self, server: &mut Server, write: Write) {
        let claim = self.sole.claim();
        server.connections[self.connection].commands.push_back(Command::Script { write, claim });
    }

    fn begin_watch(&mut self, server: &mut Server) {
        if self.watch.is_none() && self.watching.is_none() {
            self.watching = self.sole.calm(Instant::now() + LATER);
            if let Some(token) = self.watching {
                // Tried without a write, as the scorer does it.
                server.connections[self.connection].commands.extend([Command::Execute(token, Vec::new()), Command::Watch, Command::Get]);
            }
        }
    }

    fn fate(&mut self, server: &mut Server, layout: &Layout, (write, written): (Write, Written), (token, now): (Token, Timestamp)) {
        let entry = &mut self.entries[index(&write)];
        let outcome = entry.answered(layout, write.flush, written, now);
        entry.stored_under(write.flush, token);
        match outcome {
            Outcome::Again(write) => self.compare(server, write),
            Outcome::Ambiguous | Outcome::Unreadable => panic!("{outcome:?}"),
            Outcome::Done | Outcome::Later | Outcome::Stale => {}
        }
    }

    /// Takes in the next answer on a connection, which may be one of before.
    fn answer(&mut self, server: &mut Server, layout: &Layout, (which, now): (usize, Timestamp)) {
        let connection = &mut server.connections[which];
        let Some(answer) = connection.answers.pop_front() else { return };
        if connection.late > 0 {
            connection.late -= 1;
            return;
        }
        match answer {
            Answer::Scripted { write, claim, written, token } => {
                self.sole.told(claim, token, Instant::now());
                self.fate(server, layout, (write, written), (token, now));
            }
            Answer::Executed(_, writes, _) if writes.is_empty() => {}
            Answer::Executed(token, writes, Some(written)) => {
                self.overwritten += writes.len() as u64;
                writes.into_iter().zip(written).for_each(|fate| self.fate(server, layout, fate, (token, now)));
            }
            Answer::Executed(_, writes, None) => {
                self.lose();
                writes.into_iter().for_each(|write| self.compare(server, write));
            }
            Answer::Watched => {}
            Answer::Got(found) if which == self.connection => match self.watching.take() {
                Some(token) if found == Some((self.writer, token)) => self.watch = Some((which, token)),
                Some(_) => self.lose(),
                None => {}
            },
            Answer::Got(_) => {}
        }
    }

    /// Waits no longer for what is on its way on a connection: its fate is open, and it is executed later all the same.
    fn time_out(&mut self, server: &mut Server, layout: &Layout, (which, now): (usize, Timestamp)) {
        let connection = &mut server.connections[which];
        let (mut open, mut lost): (Vec<Write>, bool) = (Vec::new(), false);
        for answer in connection.answers.iter().skip(connection.late) {
            match answer {
                Answer::Scripted { write, .. } => open.push(write.clone()),
                Answer::Executed(_, writes, _) => {
                    open.extend(writes.iter().cloned());
                    lost = true;
                }
                Answer::Watched | Answer::Got(_) => lost = true,
            }
        }
        for command in connection.commands.iter().skip(connection.late.saturating_sub(connection.answers.len())) {
            match command {
                Command::Script { write, .. } => open.push(write.clone()),
                Command::Execute(_, writes) => {
                    open.extend(writes.iter().cloned());
                    lost = true;
                }
                Command::Watch | Command::Get => lost = true,
            }
        }
        connection.late = connection.answers.len() + connection.commands.len();
        if lost {
            self.lose();
        }
        open.into_iter().for_each(|write| self.fate(server, layout, (write, Written::Unknown), (Token::NONE, now)));
    }

    /// Goes on with a new connection. What is on its way on the others may still be executed and answered, or up to some point only.
    fn reconnect(&mut self, server: &mut Server, layout: &Layout, (keeps, now): (Option<usize>, Timestamp)) {
        let old = self.connection;
        self.connect(server);
        if let Some(keeps) = keeps {
            self.time_out(server, layout, (old, now));
            let connection = &mut server.connections[old];
            connection.commands.truncate(keeps);
            connection.late = connection.answers.len() + connection.commands.len();
        }
    }
}

/// Stored readings, readings of one scorer that saw everything, and how many writes went without a look.
fn simulate(seed: u64, count: u64) -> (Vec<f64>, Vec<f64>, u64) {
    let layout = layout();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut server = Server::default();
    let mut alone: Vec<EntityState> = (0..ENTITIES).map(|_| EntityState::default()).collect();
    let mut all: Vec<Scorer> = (0..count).map(|number| Scorer::new(900 + number, &mut server)).collect();
    let mut owners: Vec<u64> = all.iter().map(|scorer| scorer.writer).collect();
    // Where flushes are rare, what is to be repeated meets reads and tokens that came since.
    let often = [1.0, 0.3, 0.1][(seed % 3) as usize];
    let mut now = 0;
    for step in 0..1_500_u64 {
        now += i64::from(rng.random_bool(0.1));
        // Most of the time one of them has the store for itself.
        let which = if rng.random_bool(0.95) { (step as usize / 200) % all.len() } else { rng.random_range(0..all.len()) };
        let scorer = &mut all[which];
        let entity = rng.random_range(0..usize::from(ENTITIES));
        match rng.random_range(0..40) {
            0..=5 => {
                let event = event(now, step);
                alone[entity].apply(&layout, &event);
                scorer.entries[entity].observe(&layout, &event, at(now), &mut Vec::<f64>::new());
            }
            6..=9 if rng.random_bool(often) => scorer.flush(&mut server, &layout, at(now)),
            10..=22 => {
                let which = scorer.some_connection(&owners, &mut rng);
                server.step(which, scorer.writer);
            }
            23..=30 => {
                let which = scorer.some_connection(&owners, &mut rng);
                scorer.answer(&mut server, &layout, (which, at(now)));
            }
            31 => scorer.begin_watch(&mut server),
            32 => {
                let (generation, token) = (scorer.entries[entity].generation, scorer.sole.standing());
                scorer.question = Some(Question { entity, generation, token, evicted: scorer.evicted, found: None });
            }
            33 | 34 => {
                if let Some(question) = &mut scorer.question {
                    question.found.get_or_insert_with(|| server.keys[question.entity].0.clone());
                }
            }
            35 | 36 => {
                if let Some(Question { entity, generation, token, evicted, found: Some(found) }) = scorer.question.take() {
                    let entry = &mut scorer.entries[entity];
                    let is_newest = entry.generation == generation;
                    entry.learn(&layout, generation, found.as_deref(), at(now)).unwrap();
                    if is_newest {
                        entry.seen_under(if scorer.evicted == evicted { token } else { Token::NONE });
                    }
                }
            }
            37 if rng.random_bool(0.2) => {
                let keeps = rng.random_bool(0.5).then(|| rng.random_range(0..12));
                scorer.reconnect(&mut server, &layout, (keeps, at(now)));
                owners.push(scorer.writer);
            }
            37 if rng.random_bool(0.2) => {
                let which = scorer.some_connection(&owners, &mut rng);
                scorer.time_out(&mut server, &layout, (which, at(now)));
            }
            38 if !scorer.entries[entity].is_dirty() => {
                scorer.entries[entity] = Entry::new(scorer.entries[entity].id, at(now), Standing::Settled);
                scorer.evicted += 1;
            }
            _ => {}
        }
    }
    for _ in 0..20 {
        for (connection, owner) in owners.iter().enumerate() {
            while !server.connections[connection].commands.is_empty() {
                server.step(connection, *owner);
            }
        }
        for scorer in &mut all {
            let writer = scorer.writer;
            for (connection, _) in owners.iter().enumerate().filter(|(_, owner)| **owner == writer) {
                while !server.connections[connection].answers.is_empty() {
                    scorer.answer(&mut server, &layout, (connection, at(now)));
                }
            }
            scorer.flush(&mut server, &layout, at(now));
        }
    }
    assert!(all.iter().flat_map(|scorer| &scorer.entries).all(|entry| !entry.is_dirty()), "everything is stored in the end");
    let read = |state: &EntityState| state.read(&layout, None, at(now));
    let stored =
        server.keys.iter().map(|key| key.0.as_ref().map_or_else(EntityState::default, |value| value::unpack(&layout, value).unwrap()));
    let overwritten = all.iter().map(|scorer| scorer.overwritten).sum();
    (stored.flat_map(|state| read(&state)).collect(), alone.iter().flat_map(read).collect(), overwritten)
}

#[test]
fn what_is_written_without_a_look_takes_no_event_away() {
    for count in 1..=3 {
        let mut overwritten = 0;
        for seed in 0..400 {
            let (stored, alone, unseen) = simulate(seed, count);
            assert_eq!(stored, alone, "seed {seed}, {count} scorers");
            overwritten += unseen;
        }
        assert!(overwritten > 2_000, "{count} scorers wrote {overwritten} times without a look");
    }
}

#[test]
fn only_what_was_made_of_the_stored_state_goes_without_a_look() {
    let (layout, writer) = (layout(), 7);
    let token = |number: u8| Token::of(writer, &[7, 0, 0, 0, 0, 0, 0, 0, number, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    let mut entry = Entry::new(entity(), at(0), Standing::Settled);
    let flush = |entry: &mut Entry, sequence: u64| {
        entry.observe(&layout, &event(0, sequence), at(0), &mut Vec::<f64>::new());
        entry.next_write(&layout, Flush { writer, sequence, at: at(0) }).unwrap()
    };
    let end = |entry: &mut Entry, write: &Write, written: Written, token: Token| {
        let outcome = entry.answered(&layout, write.flush, written, at(0));
        entry.stored_under(write.flush, token);
        outcome
    };
    // Nothing is known of the store; then it was written under a token.
    let first = flush(&mut entry, 1);
    assert_eq!(first.token, Token::NONE);
    end(&mut entry, &first, Written::Stored, token(1));
    let second = flush(&mut entry, 2);
    assert_eq!(second.token, token(1));
    // Its fate is open, and a read under another token comes before the repetition, whose value is older than that read.
    end(&mut entry, &second, Written::Unknown, Token::NONE);
    entry.learn(&layout, entry.generation, Some(&first.value), at(0)).unwrap();
    entry.seen_under(token(2));
    let repeated = entry.next_write(&layout, Flush { writer, sequence: 3, at: at(0) }).unwrap();
    assert_eq!((repeated.flush.sequence, repeated.token), (2, Token::NONE));
    // Another writer was faster: what is merged into its value is compared, and so is what comes after, until it is stored.
    let mut state = EntityState::default();
    state.apply(&layout, &event(0, 9));
    let other = Flush { writer: 8, sequence: 1, at: at(0) };
    state.stamp(other);
    let found = value::pack(other, &state, &layout).to_vec();
    let Outcome::Again(merged) = end(&mut entry, &repeated, Written::Other(found), Token::NONE) else { panic!("it is merged") };
    assert_eq!(merged.token, Token::NONE);
    end(&mut entry, &merged, Written::Stored, token(3));
    assert_eq!(flush(&mut entry, 4).token, token(3));
}
