//! What somebody wants of the shop, in the shop's own terms, and the request that says it.
//!
//! Customers and attackers share these: an attack differs by what it asks, how often and for whom, not by secret wire marks.

use super::client::{Client, Fetch};
use super::dice::Dice;
use super::http::Request;
use super::people::Card;

/// One wish.
#[derive(Clone, Debug, PartialEq)]
pub enum Intent {
    /// The start page.
    Home,
    /// A part of a page.
    Asset(String),
    /// A page of the catalogue.
    Listing(u32),
    /// One product.
    Product(u32),
    /// A search for words.
    Search(String),
    /// A login.
    Login {
        /// As whom.
        username: String,
        /// With what.
        password: String,
    },
    /// A new account.
    Signup {
        /// Its name.
        username: String,
        /// Its password.
        password: String,
    },
    /// Asks for a reset code.
    AskReset(String),
    /// Sets a new password with the code.
    DoReset {
        /// Whose.
        username: String,
        /// The mailed code.
        code: String,
        /// The new password.
        password: String,
    },
    /// The list of one's orders.
    Orders,
    /// One order.
    Order(u32),
    /// Puts a product in the cart.
    Cart(u32),
    /// Pays.
    Checkout {
        /// With which card.
        card: Card,
        /// How much, in hundredths.
        cents: u32,
    },
    /// The account's page.
    Account,
    /// A new mail address.
    Email(String),
    /// The partner's stock list.
    Stock,
    /// Anything else, as a scanner asks.
    Probe(String),
}

impl Intent {
    /// The request of that client.
    pub fn request(&self, client: &Client) -> Request {
        let home = (!client.headless()).then_some("/");
        let api = |path: String| client.get(Fetch::Api, &path, home);
        match self {
            Self::Home => client.get(Fetch::Page, "/", None),
            Self::Asset(path) => client.get(Fetch::Asset, path, home),
            Self::Listing(page) => api(format!("/api/products?page={page}")),
            Self::Product(id) => api(format!("/api/products/{id}")),
            Self::Search(words) => api(format!("/api/search?q={}", words.replace(' ', "+"))),
            Self::Login { username, password } => client.post("/api/login", home, credentials(username, password)),
            Self::Signup { username, password } => client.post("/api/signup", home, credentials(username, password)),
            Self::AskReset(username) => client.post("/api/password-reset", home, format!("{{\"username\":\"{username}\"}}")),
            Self::DoReset { username, code, password } => {
                let body = format!("{{\"username\":\"{username}\",\"code\":\"{code}\",\"password\":\"{password}\"}}");
                client.post("/api/password-reset", home, body)
            }
            Self::Orders => api("/api/orders".to_owned()),
            Self::Order(id) => api(format!("/api/orders/{id}")),
            Self::Cart(product) => client.post("/api/cart", home, format!("{{\"product\":{product},\"quantity\":1}}")),
            Self::Checkout { card, cents } => client.post("/api/checkout", home, payment(card, *cents)),
            Self::Account => api("/api/account".to_owned()),
            Self::Email(address) => client.post("/api/account/email", home, format!("{{\"email\":\"{address}\"}}")),
            Self::Stock => api("/partner/v1/stock".to_owned()),
            Self::Probe(path) => client.get(Fetch::Page, path, None),
        }
    }

    /// Whether a page loads it by itself.
    pub const fn automatic(&self) -> bool {
        matches!(self, Self::Asset(_))
    }
}

fn credentials(username: &str, password: &str) -> String {
    format!("{{\"username\":\"{username}\",\"password\":\"{password}\"}}")
}

fn payment(card: &Card, cents: u32) -> String {
    let Card { number, cvv, expiry } = card;
    let (whole, part) = (cents / 100, cents % 100);
    format!("{{\"card\":{{\"number\":\"{number}\",\"cvv\":\"{cvv}\",\"expiry\":\"{expiry}\"}},\"amount\":{whole}.{part:02}}}")
}

/// What people search for.
pub fn words(dice: &mut Dice) -> String {
    const THINGS: [&str; 20] = [
        "rain jacket",
        "tent",
        "wool socks",
        "headlamp",
        "boots",
        "kids jacket",
        "thermos",
        "backpack 30l",
        "sleeping bag",
        "gloves",
        "ski poles",
        "bike light",
        "running shoes",
        "cap",
        "fleece",
        "trousers men",
        "water bottle",
        "stove",
        "hammock",
        "sunglasses",
    ];
    dice.pick(&THINGS).to_owned()
}

/// The pictures that come with a product.
pub fn pictures(dice: &mut Dice, product: u32) -> Vec<Intent> {
    (0..dice.whole(1, 3)).map(|index| Intent::Asset(format!("/assets/img/p{product}-{index}.webp"))).collect()
}

/// The parts of the first page, as a browser with an empty cache asks for them.
pub fn page_parts(dice: &mut Dice) -> Vec<Intent> {
    let mut parts =
        vec![Intent::Asset("/assets/app.css".into()), Intent::Asset("/assets/app.js".into()), Intent::Asset("/assets/logo.svg".into())];
    parts.extend((0..dice.whole(1, 5)).map(|_| Intent::Asset(format!("/assets/img/banner{}.webp", dice.below(12)))));
    parts
}
