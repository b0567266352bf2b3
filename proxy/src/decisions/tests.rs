//! Keys equal to the scorer's, however the client writes the identifier.

use super::*;

#[test]
fn keys_are_normalised_before_they_are_hashed() {
    use telltale_proto::v1::{Location, Normalization, location::Place};
    let secret = [7; 32];
    let headers = HeaderMap::new();
    let table = [("203.0.113.9", "203.0.113.9"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"), ("::ffff:1.2.3.4", "1.2.3.4")];
    let place = Location { place: Some(Place::Address(true)) };
    let selector = EntitySelector { r#type: "address".to_owned(), locations: vec![place], normalization: Normalization::Address.into() };
    for (address, normal) in table {
        let clues = Clues { client: address.parse().unwrap(), headers: &headers, query: "" };
        assert_eq!(identify::key(&selector, &clues, &secret), Some(identify::hash("address", normal, &secret)), "{address}");
    }
}

#[test]
fn another_spelling_of_an_identifier_gives_the_same_key() {
    use telltale_proto::v1::{Location, location::Place};
    let secret = [7; 32];
    let at =
        |place| EntitySelector { r#type: "t".to_owned(), locations: vec![Location { place: Some(place) }], ..EntitySelector::default() };
    let cookie = at(Place::Cookie("sid".to_owned()));
    let query = at(Place::Query("card".to_owned()));
    let lines: [&[u8]; 5] = [b"sid=s 9", b"a=b;  sid = s 9 ", b"sid=\"s 9\"", b"x=\xe9; sid=s 9", b"a=\"; sid=s 9"];
    let queries = ["card=s+9", "card=%20s%209%20", "&&a&c%61rd=s%209", "card=s 9&card=other", "card=+s+9"];
    let wanted = Some(identify::hash("t", "s 9", &secret));
    for line in lines {
        let mut headers = HeaderMap::new();
        headers.insert("cookie", http::HeaderValue::from_bytes(line).unwrap());
        let clues = Clues { client: "1.2.3.4".parse().unwrap(), headers: &headers, query: "" };
        assert_eq!(identify::key(&cookie, &clues, &secret), wanted, "{}", String::from_utf8_lossy(line));
    }
    let headers = HeaderMap::new();
    for text in queries {
        let clues = Clues { client: "1.2.3.4".parse().unwrap(), headers: &headers, query: text };
        assert_eq!(identify::key(&query, &clues, &secret), wanted, "{text}");
    }
    let blank = Clues { client: "1.2.3.4".parse().unwrap(), headers: &headers, query: "card=%20" };
    assert_eq!(identify::key(&query, &blank, &secret), None);
}
