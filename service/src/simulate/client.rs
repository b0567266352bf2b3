//! What clients look like on the wire: header names, their order and their values, by family and version.
//!
//! Enters a client and what it wants, leaves a request. Imitators use the same code with a slip of their tool's own.

use super::dice::Dice;
use super::http::{HOST, Headers, Request};

/// A family of software, which fixes the order of its headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Family {
    /// Chrome, Edge and everything built on Chromium.
    #[default]
    Chromium,
    /// Firefox.
    Firefox,
    /// Safari on a Mac or a telephone.
    Safari,
    /// The shop's own app on Android.
    AndroidApp,
    /// The shop's own app on a telephone of Apple.
    AppleApp,
    /// Python's requests.
    Python,
    /// Go's net/http.
    Go,
    /// curl.
    Curl,
    /// axios on Node.
    Node,
    /// A declared crawler.
    Crawler,
}

/// How an imitation of a browser differs from the browser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Slip {
    /// It does not: a real browser, driven by hand or by script.
    #[default]
    None,
    /// The client hints are missing.
    NoHints,
    /// The fetch metadata are missing.
    NoMetadata,
    /// Two neighbours are in the wrong order.
    Swapped,
    /// The languages come before the encodings, as a proxy library writes them.
    Sorted,
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetch {
    /// A document that the person navigates to.
    Page,
    /// A script, style or picture of a page.
    Asset,
    /// A call of the page's script.
    Api,
}

/// One program on one device.
#[derive(Clone, Debug, Default)]
pub struct Client {
    /// Its family.
    pub family: Family,
    /// Its User-Agent.
    pub agent: String,
    /// Chromium's brand list.
    pub brands: String,
    /// Platform as Chromium's hint names it.
    pub platform: &'static str,
    /// Accept-Language.
    pub language: &'static str,
    /// How it differs from what it says it is.
    pub slip: Slip,
    /// The long-lived device cookie.
    pub device: Option<String>,
    /// The session cookie.
    pub session: Option<String>,
    /// A bearer token.
    pub bearer: Option<String>,
}

const LANGUAGES: [&str; 8] = [
    "en-US,en;q=0.9",
    "en-US,en;q=0.9",
    "en-GB,en;q=0.9",
    "nb-NO,nb;q=0.9,no;q=0.8,nn;q=0.7,en-US;q=0.6,en;q=0.5",
    "de-DE,de;q=0.9,en-US;q=0.8,en;q=0.7",
    "sv-SE,sv;q=0.9,en-US;q=0.8,en;q=0.7",
    "da-DK,da;q=0.9,en-US;q=0.8,en;q=0.7",
    "fr-FR,fr;q=0.9,en-US;q=0.8,en;q=0.7",
];
const MODELS: [&str; 14] = [
    "SM-A546B",
    "SM-S911B",
    "SM-A346B",
    "Pixel 7",
    "Pixel 8a",
    "SM-G991B",
    "M2101K6G",
    "2201117TG",
    "CPH2461",
    "SM-A135F",
    "moto g(60)",
    "XQ-CC54",
    "VOG-L29",
    "SM-T500",
];

/// A browser or app as customers have them: a few versions are common, many are rare.
pub fn ordinary(dice: &mut Dice) -> Client {
    let language = dice.pick(&LANGUAGES);
    let client = match dice.weighted(&[34.0, 10.0, 20.0, 9.0, 6.0, 15.0, 6.0, 5.0]) {
        0 => chromium(dice, "Windows"),
        1 => chromium(dice, "macOS"),
        2 => chromium(dice, "Android"),
        3 => edge(dice),
        4 => firefox(dice),
        5 => safari(dice),
        6 => android_app(dice),
        _ => apple_app(dice),
    };
    Client { language, ..client }
}

/// A desktop browser or a telephone's browser, no app.
pub fn browser(dice: &mut Dice) -> Client {
    let client = match dice.weighted(&[45.0, 15.0, 15.0, 10.0, 15.0]) {
        0 => chromium(dice, "Windows"),
        1 => chromium(dice, "macOS"),
        2 => chromium(dice, "Android"),
        3 => firefox(dice),
        _ => safari(dice),
    };
    Client { language: dice.pick(&LANGUAGES), ..client }
}

/// A bare tool that says what it is.
pub fn tool(dice: &mut Dice, family: Family) -> Client {
    let agent = match family {
        Family::Python => format!("python-requests/2.{}.{}", dice.whole(28, 32), dice.below(4)),
        Family::Go => "Go-http-client/1.1".to_owned(),
        Family::Curl => format!("curl/8.{}.0", dice.whole(1, 11)),
        Family::Node => format!("axios/1.{}.{}", dice.whole(4, 7), dice.below(9)),
        _ => format!("okhttp/4.{}.0", dice.whole(9, 12)),
    };
    Client { family, agent, language: "en", ..Client::default() }
}

/// A recent version, most people on the newest.
fn version(dice: &mut Dice, newest: usize, oldest: usize) -> usize {
    if dice.chance(0.62) { newest } else { newest - dice.zipf(newest - oldest + 1) }
}

fn chromium(dice: &mut Dice, platform: &'static str) -> Client {
    let version = version(dice, 142, 118);
    let system = match platform {
        "Windows" => "Windows NT 10.0; Win64; x64".to_owned(),
        "macOS" => "Macintosh; Intel Mac OS X 10_15_7".to_owned(),
        // Chrome froze the model to `K`; embedded web views and older versions still name it.
        _ if dice.chance(0.75) => "Linux; Android 10; K".to_owned(),
        _ => format!("Linux; Android {}; {}", dice.whole(10, 15), dice.pick(&MODELS)),
    };
    let mobile = if platform == "Android" { " Mobile" } else { "" };
    let agent = format!("Mozilla/5.0 ({system}) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{version}.0.0.0{mobile} Safari/537.36");
    let brands = format!("\"Chromium\";v=\"{version}\", \"Google Chrome\";v=\"{version}\", \"Not_A Brand\";v=\"99\"");
    Client { family: Family::Chromium, agent, brands, platform, ..Client::default() }
}

fn edge(dice: &mut Dice) -> Client {
    let version = version(dice, 142, 130);
    let agent = format!(
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{version}.0.0.0 Safari/537.36 Edg/{version}.0.0.0"
    );
    let brands = format!("\"Chromium\";v=\"{version}\", \"Microsoft Edge\";v=\"{version}\", \"Not_A Brand\";v=\"99\"");
    Client { family: Family::Chromium, agent, brands, platform: "Windows", ..Client::default() }
}

fn firefox(dice: &mut Dice) -> Client {
    let version = version(dice, 145, 128);
    let system =
        dice.pick(&["Windows NT 10.0; Win64; x64", "Windows NT 10.0; Win64; x64", "X11; Linux x86_64", "Macintosh; Intel Mac OS X 10.15"]);
    Client {
        family: Family::Firefox,
        agent: format!("Mozilla/5.0 ({system}; rv:{version}.0) Gecko/20100101 Firefox/{version}.0"),
        ..Client::default()
    }
}

fn safari(dice: &mut Dice) -> Client {
    let (major, minor) = (version(dice, 18, 15), dice.below(7));
    let agent = if dice.chance(0.7) {
        format!(
            "Mozilla/5.0 (iPhone; CPU iPhone OS {major}_{minor} like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/{major}.{minor} Mobile/15E148 Safari/604.1"
        )
    } else {
        format!(
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/{major}.{minor} Safari/605.1.15"
        )
    };
    Client { family: Family::Safari, agent, ..Client::default() }
}

fn android_app(dice: &mut Dice) -> Client {
    let build = version(dice, 48, 20);
    let agent = format!("Shop/6.{build} (Android {}; {}) okhttp/4.12.0", dice.whole(11, 15), dice.pick(&MODELS));
    Client { family: Family::AndroidApp, agent, ..Client::default() }
}

fn apple_app(dice: &mut Dice) -> Client {
    let build = version(dice, 48, 20);
    let agent = format!(
        "Shop/6.{build} CFNetwork/{} Darwin/2{}.{}.0",
        dice.pick(&["1490.0.4", "1568.200.51", "3826.500.111"]),
        dice.whole(2, 5),
        dice.below(7)
    );
    Client { family: Family::AppleApp, agent, ..Client::default() }
}

impl Client {
    /// Whether it is an app or a tool: no pages, no assets.
    pub const fn headless(&self) -> bool {
        !matches!(self.family, Family::Chromium | Family::Firefox | Family::Safari)
    }

    /// A request for `path`, which may carry a query.
    pub fn get(&self, fetch: Fetch, path: &str, referer: Option<&str>) -> Request {
        self.request("GET", fetch, (path, referer), Vec::new())
    }

    /// A JSON call.
    pub fn post(&self, path: &str, referer: Option<&str>, body: String) -> Request {
        self.request("POST", Fetch::Api, (path, referer), body.into_bytes())
    }

    fn request(&self, method: &'static str, fetch: Fetch, (path, referer): (&str, Option<&str>), body: Vec<u8>) -> Request {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let length = (method == "POST").then_some(body.len());
        let mut headers = self.headers(fetch, referer, length);
        self.slip(&mut headers);
        Request { method, path: path.to_owned(), query: query.to_owned(), headers, body }
    }

    fn cookie(&self) -> Option<String> {
        match (&self.device, &self.session) {
            (Some(device), Some(session)) => Some(format!("did={device}; sid={session}")),
            (Some(device), None) => Some(format!("did={device}")),
            (None, Some(session)) => Some(format!("sid={session}")),
            (None, None) => None,
        }
    }

    fn headers(&self, fetch: Fetch, referer: Option<&str>, length: Option<usize>) -> Headers {
        let mut lines = Lines(Vec::with_capacity(20));
        lines.add("host", HOST);
        let referer = referer.map(|path| format!("http://{HOST}{path}"));
        let values = Values { client: self, fetch, referer, length };
        let order: &[&'static str] = match self.family {
            Family::Chromium => CHROMIUM,
            Family::Firefox => FIREFOX,
            Family::Safari => SAFARI,
            Family::AndroidApp => ANDROID,
            Family::AppleApp => APPLE,
            Family::Python => PYTHON,
            Family::Go => GO,
            Family::Curl => CURL,
            Family::Node => NODE,
            Family::Crawler => CRAWLER,
        };
        for name in order {
            if let Some(value) = values.value(name) {
                lines.0.push((name, value));
            }
        }
        lines.0
    }

    fn slip(&self, headers: &mut Headers) {
        match self.slip {
            Slip::None => {}
            Slip::NoHints => headers.retain(|(name, _)| !name.starts_with("sec-ch-")),
            Slip::NoMetadata => headers.retain(|(name, _)| !name.starts_with("sec-fetch-")),
            Slip::Swapped => {
                let at = |wanted: &str| headers.iter().position(|(name, _)| *name == wanted);
                if let (Some(one), Some(two)) = (at("accept"), at("user-agent")) {
                    headers.swap(one, two);
                }
            }
            Slip::Sorted => headers.sort_by_key(|(name, _)| (*name != "host", *name)),
        }
    }
}

struct Lines(Headers);

impl Lines {
    fn add(&mut self, name: &'static str, value: &str) {
        self.0.push((name, value.to_owned()));
    }
}

const CHROMIUM: &[&str] = &[
    "content-length",
    "sec-ch-ua-platform",
    "user-agent",
    "accept",
    "sec-ch-ua",
    "content-type",
    "sec-ch-ua-mobile",
    "upgrade-insecure-requests",
    "origin",
    "sec-fetch-site",
    "sec-fetch-mode",
    "sec-fetch-user",
    "sec-fetch-dest",
    "referer",
    "accept-encoding",
    "accept-language",
    "cookie",
];
const FIREFOX: &[&str] = &[
    "user-agent",
    "accept",
    "accept-language",
    "accept-encoding",
    "referer",
    "content-type",
    "content-length",
    "origin",
    "cookie",
    "upgrade-insecure-requests",
    "sec-fetch-dest",
    "sec-fetch-mode",
    "sec-fetch-site",
    "sec-fetch-user",
    "priority",
];
const SAFARI: &[&str] = &[
    "accept",
    "content-type",
    "origin",
    "sec-fetch-site",
    "cookie",
    "sec-fetch-dest",
    "content-length",
    "accept-language",
    "sec-fetch-mode",
    "user-agent",
    "referer",
    "accept-encoding",
];
const ANDROID: &[&str] =
    &["accept", "x-app-platform", "content-type", "content-length", "accept-encoding", "cookie", "authorization", "user-agent"];
const APPLE: &[&str] =
    &["accept", "content-type", "cookie", "authorization", "user-agent", "content-length", "accept-language", "accept-encoding"];
const PYTHON: &[&str] = &["user-agent", "accept-encoding", "accept", "cookie", "authorization", "content-length", "content-type"];
const GO: &[&str] = &["user-agent", "content-length", "authorization", "content-type", "cookie", "accept-encoding"];
const CURL: &[&str] = &["user-agent", "accept", "cookie", "authorization", "content-type", "content-length"];
const NODE: &[&str] = &["accept", "content-type", "authorization", "cookie", "user-agent", "content-length", "accept-encoding"];
const CRAWLER: &[&str] = &["accept", "from", "user-agent", "accept-encoding"];

struct Values<'a> {
    client: &'a Client,
    fetch: Fetch,
    referer: Option<String>,
    length: Option<usize>,
}

impl Values<'_> {
    fn value(&self, name: &str) -> Option<String> {
        let client = self.client;
        let page = self.fetch == Fetch::Page;
        let text = |text: &str| Some(text.to_owned());
        match name {
            "user-agent" => Some(client.agent.clone()),
            "accept" => text(self.accept()),
            "accept-language" => text(client.language),
            "accept-encoding" => text(match client.family {
                Family::Go | Family::AndroidApp => "gzip",
                Family::Crawler | Family::Safari | Family::AppleApp => "gzip, deflate",
                Family::Node => "gzip, compress, deflate, br",
                _ => "gzip, deflate",
            }),
            "content-type" => self.length.and_then(|_| text("application/json")),
            "content-length" => self.length.map(|length| length.to_string()),
            "origin" => self.length.map(|_| format!("http://{HOST}")),
            "referer" => self.referer.clone(),
            "cookie" => client.cookie(),
            "authorization" => client.bearer.as_ref().map(|key| format!("Bearer {key}")),
            "sec-ch-ua" if !client.brands.is_empty() => text(&client.brands),
            "sec-ch-ua-mobile" => text(if client.platform == "Android" { "?1" } else { "?0" }),
            "sec-ch-ua-platform" => Some(format!("\"{}\"", client.platform)),
            "upgrade-insecure-requests" if page => text("1"),
            "sec-fetch-user" if page => text("?1"),
            "sec-fetch-site" => text(if self.referer.is_none() { "none" } else { "same-origin" }),
            "sec-fetch-mode" => text(match self.fetch {
                Fetch::Page => "navigate",
                Fetch::Asset => "no-cors",
                Fetch::Api => "cors",
            }),
            "sec-fetch-dest" => text(match self.fetch {
                Fetch::Page => "document",
                Fetch::Asset => "image",
                Fetch::Api => "empty",
            }),
            "priority" => text(if page { "u=0, i" } else { "u=4" }),
            "x-app-platform" => text("android"),
            "from" => text("crawler@example.net"),
            _ => None,
        }
    }

    const fn accept(&self) -> &'static str {
        match (self.client.family, self.fetch) {
            (Family::Python | Family::Curl, _) => "*/*",
            (Family::Chromium, Fetch::Page) => {
                "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7"
            }
            (_, Fetch::Page) => "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            (Family::Chromium, Fetch::Asset) => "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8",
            (_, Fetch::Asset) => "image/avif,image/webp,*/*",
            (_, Fetch::Api) => "application/json, text/plain, */*",
        }
    }
}
