//! The demo shop and account API as a pure state machine: a request and the time enter, an answer leaves.
//!
//! The same code answers simulated traffic in memory and real traffic behind the proxy. It never defends itself: that is Telltale's work.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;

use super::dice::{Dice, mix, mix_text};
use super::http::{Body, Request, Response};
use super::people;

/// Products on sale.
pub const PRODUCTS: u32 = 4_000;
/// Products on a page.
pub const PAGE: u32 = 24;
/// Number of the first order.
pub const FIRST_ORDER: u32 = 381_204;
/// A session ends this long after it began, microseconds.
const SESSION_US: i64 = 30 * 86_400_000_000;
/// The largest body that is read, bytes.
const BODY_LIMIT: usize = 64 * 1024;

/// Who may see what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Sees its own orders.
    Customer,
    /// Sees all orders but those of the archive.
    Staff,
}

#[derive(Debug)]
struct Account {
    password: String,
    role: Role,
    orders: Vec<u32>,
    logins: u32,
}

#[derive(Debug)]
struct Session {
    user: String,
    until: i64,
}

/// The shop.
#[derive(Debug)]
pub struct Shop {
    seed: u64,
    accounts: HashMap<String, Account>,
    sessions: HashMap<String, Session>,
    placed: u32,
    partners: HashSet<String>,
    swept: i64,
}

#[derive(Deserialize)]
struct Credentials {
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    code: String,
}

#[derive(Deserialize)]
struct Checkout {
    card: PresentedCard,
    amount: f64,
}

#[derive(Deserialize)]
struct PresentedCard {
    number: String,
    cvv: String,
    #[serde(default)]
    expiry: String,
}

/// The order numbers that each person owns when the simulation begins.
pub fn first_orders(seed: u64, people: usize) -> Vec<Vec<u32>> {
    let mut owned = vec![Vec::new(); people];
    for order in 0..initial_orders(people) {
        if let Some(list) = owned.get_mut(initial_owner(seed, people, order)) {
            list.push(FIRST_ORDER + order);
        }
    }
    owned
}

fn initial_orders(people: usize) -> u32 {
    u32::try_from(people * 3).unwrap_or(u32::MAX / 2)
}

fn initial_owner(seed: u64, people: usize, order: u32) -> usize {
    (mix(mix(seed, 21), u64::from(order)) % people.max(1) as u64) as usize
}

/// The key of a partner.
pub fn partner_key(seed: u64, partner: usize) -> String {
    let mut dice = Dice::new(mix(seed, 22), partner as u64);
    format!("pk_{}", dice.hex32())
}

impl Shop {
    /// A shop with `people` accounts, the last of which (`staff` many) belong to its support, and `partners` API keys.
    pub fn new(seed: u64, people: usize, staff: usize, partners: usize) -> Self {
        let mut accounts = HashMap::with_capacity(people);
        for (person, orders) in first_orders(seed, people).into_iter().enumerate() {
            let works = person + staff >= people;
            if people::joins(seed, person, works) {
                continue;
            }
            let role = if works { Role::Staff } else { Role::Customer };
            let account = Account { password: people::password(seed, person, 0), role, orders, logins: 0 };
            accounts.insert(people::username(seed, person), account);
        }
        let partners = (0..partners).map(|partner| partner_key(seed, partner)).collect();
        Self { seed, accounts, sessions: HashMap::new(), placed: initial_orders(people), partners, swept: 0 }
    }

    /// How many orders there are.
    pub const fn orders(&self) -> u32 {
        self.placed
    }

    /// Answers one request at `now`, microseconds since the epoch.
    pub fn handle(&mut self, request: &Request, now: i64) -> Response {
        self.sweep(now);
        let segments: Vec<&str> = request.path.split('/').filter(|part| !part.is_empty()).collect();
        match (request.method, segments.as_slice()) {
            ("GET", []) => Response::filler("text/html; charset=utf-8", 8_412),
            ("GET", ["assets", rest @ ..]) => asset(rest),
            ("GET", ["robots.txt"]) => Response {
                body: Body::Text("User-agent: *\nCrawl-delay: 5\nDisallow: /api/\n".into()),
                ..Response::filler("text/plain", 0)
            },
            ("POST", ["api", "login"]) => self.login(request, now),
            ("POST", ["api", "signup"]) => self.signup(request, now),
            ("POST", ["api", "password-reset"]) => self.reset(request),
            ("GET", ["api", "products"]) => listing(request),
            ("GET", ["api", "products", id]) => product(id),
            ("GET", ["api", "search"]) => search(request),
            ("POST", ["api", "cart"]) => Response::json(201, "{\"items\":1}"),
            ("POST", ["api", "checkout"]) => self.checkout(request, now),
            ("GET", ["api", "orders"]) => self.with_user(request, now, |shop, user| shop.own_orders(user)),
            ("GET", ["api", "orders", id]) => self.with_user(request, now, |shop, user| shop.order(user, id)),
            ("GET", ["api", "account"]) => {
                self.with_user(request, now, |_, user| Response::json(200, format!("{{\"username\":{user:?}}}")))
            }
            ("POST", ["api", "account", "email"]) => self.with_user(request, now, |_, _| Response::json(200, "{\"changed\":true}")),
            ("GET", ["partner", "v1", "stock"]) => self.stock(request),
            (_, ["api", ..]) => Response::json(404, "{\"error\":\"no such operation\"}"),
            _ => Response { status: 404, ..Response::filler("text/html; charset=utf-8", 512) },
        }
    }

    /// Forgets ended sessions once a day.
    fn sweep(&mut self, now: i64) {
        if now - self.swept > 86_400_000_000 {
            self.swept = now;
            self.sessions.retain(|_, session| session.until > now);
        }
    }

    fn login(&mut self, request: &Request, now: i64) -> Response {
        let Some(given) = body::<Credentials>(request) else { return unreadable() };
        let name = given.username.trim().to_lowercase();
        match self.accounts.get(&name) {
            Some(account) if account.password == given.password => self.open_session(&name, now),
            _ => Response::json(401, "{\"error\":\"wrong user name or password\"}"),
        }
    }

    fn open_session(&mut self, name: &str, now: i64) -> Response {
        let Some(account) = self.accounts.get_mut(name) else { return unreadable() };
        account.logins += 1;
        let token = Dice::new(mix(self.seed, 23), mix_text(u64::from(account.logins), name)).hex32();
        self.sessions.insert(token.clone(), Session { user: name.to_owned(), until: now + SESSION_US });
        let mut response = Response::json(200, format!("{{\"username\":{name:?}}}"));
        response.set_cookies.push(format!("sid={token}; Path=/; Max-Age=2592000; HttpOnly; SameSite=Lax"));
        response
    }

    fn signup(&mut self, request: &Request, now: i64) -> Response {
        let Some(given) = body::<Credentials>(request) else { return unreadable() };
        let name = given.username.trim().to_lowercase();
        if name.is_empty() || self.accounts.contains_key(&name) {
            return Response::json(409, "{\"error\":\"that name is taken\"}");
        }
        self.accounts.insert(name.clone(), Account { password: given.password, role: Role::Customer, orders: Vec::new(), logins: 0 });
        Response { status: 201, ..self.open_session(&name, now) }
    }

    fn reset(&mut self, request: &Request) -> Response {
        let Some(given) = body::<Credentials>(request) else { return unreadable() };
        let name = given.username.trim().to_lowercase();
        if given.code.is_empty() {
            return Response::json(202, "{\"sent\":true}");
        }
        match self.accounts.get_mut(&name) {
            Some(account) if given.code == people::reset_code(self.seed, &name) => {
                account.password = given.password;
                Response::json(200, "{\"changed\":true}")
            }
            _ => Response::json(403, "{\"error\":\"wrong code\"}"),
        }
    }

    fn checkout(&mut self, request: &Request, now: i64) -> Response {
        let Some(given) = body::<Checkout>(request) else { return unreadable() };
        let approved = given.card.cvv == people::security_code(self.seed, &given.card.number)
            && !given.card.expiry.is_empty()
            && people::bank_approves(self.seed, &given.card.number)
            && !self.bank_is_out(now)
            && !self.short_of_money(&given.card.number, now)
            && given.amount > 0.0;
        if !approved {
            return Response::json(402, "{\"error\":\"card declined\"}");
        }
        let order = FIRST_ORDER + self.orders();
        self.placed += 1;
        let user = self.user(request, now);
        if let Some(account) = user.and_then(|name| self.accounts.get_mut(&name)) {
            account.orders.push(order);
        }
        Response::json(200, format!("{{\"order\":{order}}}"))
    }

    /// About every fourth day a bank is out for three quarters of an hour and two payments in three fail.
    fn bank_is_out(&self, now: i64) -> bool {
        let slot = now.div_euclid(2_700_000_000);
        mix(mix(self.seed, 24), slot as u64).is_multiple_of(128) && !mix(mix(self.seed, 25), now as u64).is_multiple_of(3)
    }

    fn short_of_money(&self, number: &str, now: i64) -> bool {
        mix_text(mix(mix(self.seed, 26), now.div_euclid(86_400_000_000) as u64), number) % 100 < 3
    }

    fn own_orders(&self, user: &str) -> Response {
        let orders = self.accounts.get(user).map_or(0, |account| account.orders.len());
        Response { content_type: "application/json", ..Response::filler("application/json", 40 + 118 * orders) }
    }

    fn order(&self, user: &str, id: &str) -> Response {
        let index = id.parse::<u32>().ok().and_then(|id| id.checked_sub(FIRST_ORDER)).filter(|index| *index < self.orders());
        let (Some(index), Some(account)) = (index, self.accounts.get(user)) else {
            return Response::json(404, "{\"error\":\"no such order\"}");
        };
        let archived = account.role == Role::Staff && index % 16 == 0;
        let own = account.orders.contains(&(FIRST_ORDER + index));
        if own || (account.role == Role::Staff && !archived) {
            return Response::filler("application/json", 640 + (mix(u64::from(index), 3) % 900) as usize);
        }
        Response::json(403, "{\"error\":\"not your order\"}")
    }

    fn stock(&self, request: &Request) -> Response {
        let key = request.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
        if key.is_some_and(|key| self.partners.contains(key)) {
            Response::filler("application/json", 18_240)
        } else {
            Response::json(401, "{\"error\":\"unknown key\"}")
        }
    }

    fn user(&self, request: &Request, now: i64) -> Option<String> {
        let token = request.cookie("sid")?;
        self.sessions.get(token).filter(|session| session.until > now).map(|session| session.user.clone())
    }

    fn with_user(&self, request: &Request, now: i64, answer: impl FnOnce(&Self, &str) -> Response) -> Response {
        self.user(request, now).map_or_else(|| Response::json(401, "{\"error\":\"log in first\"}"), |user| answer(self, &user))
    }
}

fn body<T: for<'a> Deserialize<'a>>(request: &Request) -> Option<T> {
    request.body.get(..request.body.len().min(BODY_LIMIT)).and_then(|bytes| serde_json::from_slice(bytes).ok())
}

fn unreadable() -> Response {
    Response::json(400, "{\"error\":\"the body is not what this operation takes\"}")
}

fn asset(rest: &[&str]) -> Response {
    match rest.last() {
        Some(name) if name.ends_with(".js") => Response::filler("text/javascript", 148_220),
        Some(name) if name.ends_with(".css") => Response::filler("text/css", 31_904),
        Some(name) if name.ends_with(".webp") || name.ends_with(".svg") => {
            Response::filler("image/webp", 6_000 + (mix_text(1, name) % 30_000) as usize)
        }
        _ => Response { status: 404, ..Response::filler("text/html; charset=utf-8", 512) },
    }
}

fn listing(request: &Request) -> Response {
    let page: u32 = request.parameter("page").and_then(|page| page.parse().ok()).unwrap_or(1);
    let shown = if page >= 1 && page <= PRODUCTS.div_ceil(PAGE) { PAGE as usize } else { 0 };
    Response::filler("application/json", 60 + shown * 212)
}

fn product(id: &str) -> Response {
    match id.parse::<u32>() {
        Ok(id) if (1..=PRODUCTS).contains(&id) => Response::filler("application/json", 900 + (mix(u64::from(id), 2) % 2_000) as usize),
        _ => Response::json(404, "{\"error\":\"no such product\"}"),
    }
}

fn search(request: &Request) -> Response {
    let found = request.parameter("q").map_or(0, |query| mix_text(4, query) % 25);
    Response::filler("application/json", 60 + found as usize * 212)
}
