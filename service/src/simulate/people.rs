//! The people of the simulated world as the shop knows them: names, passwords, cards, orders, all drawn from the seed.
//!
//! Pure functions of (seed, number): the shop, the customers and whoever stole a list agree without sharing state.

use super::dice::{Dice, mix, mix_text};

/// Share of random card numbers that a bank would approve, percent. A customer's own cards are drawn among these.
const GOOD_CARDS_PERCENT: u64 = 22;
/// Share of the people who join while the world lasts, percent.
const NEWCOMERS_PERCENT: u64 = 12;

const FIRST: [&str; 48] = [
    "anna", "lars", "maria", "jonas", "ingrid", "ole", "sofia", "erik", "emma", "nils", "clara", "henrik", "julia", "magnus", "ida",
    "peter", "hanna", "oskar", "nora", "felix", "lea", "simon", "astrid", "paul", "frida", "david", "mia", "anders", "eva", "jakob",
    "lisa", "thomas", "karin", "martin", "elin", "johan", "sara", "mikkel", "alice", "daniel", "vera", "kristian", "olivia", "fredrik",
    "ella", "stefan", "greta", "tobias",
];
const LAST: [&str; 48] = [
    "hansen", "berg", "lund", "dahl", "moe", "holm", "vik", "strand", "haugen", "bakke", "nilsen", "larsen", "solberg", "lien", "aas",
    "myhre", "foss", "eide", "ruud", "krog", "wolff", "meyer", "koch", "becker", "vogel", "frank", "keller", "busch", "lorenz", "winter",
    "sommer", "brandt", "falk", "lind", "ek", "strom", "nyberg", "sand", "bergman", "engel", "ahlgren", "friis", "holst", "bruun", "dam",
    "juul", "krogh", "toft",
];
const WORDS: [&str; 32] = [
    "sommer", "fjord", "kaffe", "monkey", "dragon", "tiger", "blomst", "viking", "regnbue", "hund", "katt", "fotball", "ski", "troll",
    "sol", "stjerne", "pizza", "gitar", "sykkel", "hytte", "nordlys", "eple", "bil", "drage", "princess", "shadow", "hunter", "silver",
    "ocean", "maple", "rocket", "winter",
];
const POPULAR: [&str; 24] = [
    "123456",
    "password",
    "12345678",
    "qwerty",
    "123456789",
    "12345",
    "1234",
    "111111",
    "1234567",
    "dragon",
    "abc123",
    "football",
    "monkey",
    "letmein",
    "696969",
    "shadow",
    "master",
    "666666",
    "qwertyuiop",
    "123321",
    "mustang",
    "1234567890",
    "michael",
    "654321",
];
const DOMAINS: [&str; 5] = ["mail.example", "post.example", "web.example", "inbox.example", "fjordnet.example"];

/// Whether a person has no account when the world begins, and signs up on a visit. Staff has accounts.
pub fn joins(seed: u64, person: usize, works: bool) -> bool {
    !works && mix(mix(seed, 17), person as u64) % 100 < NEWCOMERS_PERCENT
}

/// The user name of a person.
pub fn username(seed: u64, person: usize) -> String {
    let mut dice = Dice::new(mix(seed, 11), person as u64);
    let (first, last) = (dice.pick(&FIRST), dice.pick(&LAST));
    match dice.below(4) {
        0 => format!("{first}.{last}{person}"),
        1 => format!("{first}{person}"),
        2 => format!("{last}_{first}_{person}"),
        _ => format!("{first}.{last}{person}@{}", dice.pick(&DOMAINS)),
    }
}

/// A name that nobody here has, as lists from elsewhere are full of.
pub fn stranger(dice: &mut Dice) -> String {
    let (first, last, number) = (dice.pick(&FIRST), dice.pick(&LAST), dice.whole(1, 99_999_999));
    match dice.below(3) {
        0 => format!("{first}.{last}{number}"),
        1 => format!("{first}{number}"),
        _ => format!("{first}.{last}{number}@{}", dice.pick(&DOMAINS)),
    }
}

/// The password of a person after `resets` resets.
pub fn password(seed: u64, person: usize, resets: u32) -> String {
    let mut dice = Dice::new(mix(seed, 12 + u64::from(resets) * 977), person as u64);
    any_password(&mut dice)
}

/// Some password, popular ones by Zipf's law.
pub fn any_password(dice: &mut Dice) -> String {
    if dice.chance(0.14) {
        let rank = dice.zipf(POPULAR.len());
        return POPULAR.get(rank).copied().unwrap_or_default().to_owned();
    }
    let (word, number) = (dice.pick(&WORDS), dice.below(10_000));
    match dice.below(4) {
        0 => format!("{word}{number}"),
        1 => format!("{}{word}!", number),
        2 => format!("{word}{}{}", dice.pick(&WORDS), number % 100),
        _ => format!("{word}-{number}-{}", dice.pick(&WORDS)),
    }
}

/// What a person types who meant `password` and missed.
pub fn mistyped(dice: &mut Dice, password: &str) -> String {
    let mut letters: Vec<char> = password.chars().collect();
    let at = dice.below(letters.len());
    match dice.below(4) {
        0 => {
            letters.remove(at.min(letters.len().saturating_sub(1)));
        }
        1 => letters.insert(at, dice.pick(&['a', 's', 'e', '1', 'k'])),
        2 if at + 1 < letters.len() => letters.swap(at, at + 1),
        _ => return password.to_uppercase() + if dice.chance(0.5) { "" } else { "1" },
    }
    letters.into_iter().collect()
}

/// The code that the shop mails for a reset.
pub fn reset_code(seed: u64, username: &str) -> String {
    format!("{:06}", mix_text(mix(seed, 13), username) % 1_000_000)
}

/// A card: number, security code, expiry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// 16 digits with a right check digit.
    pub number: String,
    /// Three digits.
    pub cvv: String,
    /// `MM/YY`.
    pub expiry: String,
}

/// The `index`th card of a person: one that its bank approves.
pub fn card(seed: u64, person: usize, index: usize) -> Card {
    let mut dice = Dice::new(mix(seed, 14 + index as u64), person as u64);
    loop {
        let card = any_card(&mut dice, seed);
        if bank_approves(seed, &card.number) {
            return card;
        }
    }
}

/// Some card of a stolen or guessed list: about one in five is good.
pub fn any_card(dice: &mut Dice, seed: u64) -> Card {
    let bin = dice.pick(&[411_773_u64, 424_631, 453_201, 492_915, 512_306, 528_544, 540_117, 557_843]);
    let stem = format!("{bin}{:09}", dice.bits() % 1_000_000_000);
    let number = format!("{stem}{}", check_digit(&stem));
    let cvv = security_code(seed, &number);
    Card { cvv, expiry: format!("{:02}/{}", dice.whole(1, 12), dice.whole(27, 31)), number }
}

/// The right security code of a number.
pub fn security_code(seed: u64, number: &str) -> String {
    format!("{:03}", mix_text(mix(seed, 15), number) % 1000)
}

/// Whether the bank knows the card and finds it good.
pub fn bank_approves(seed: u64, number: &str) -> bool {
    mix_text(mix(seed, 16), number) % 100 < GOOD_CARDS_PERCENT
}

/// The check digit of ISO/IEC 7812 (Luhn) for the digits before it.
fn check_digit(stem: &str) -> u32 {
    let sum: u32 = stem
        .bytes()
        .rev()
        .enumerate()
        .map(|(place, byte)| {
            let digit = u32::from(byte.saturating_sub(b'0'));
            let doubled = if place % 2 == 0 { digit * 2 } else { digit };
            doubled / 10 + doubled % 10
        })
        .sum();
    (10 - sum % 10) % 10
}
