//! Keys equal to the scorer's.

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
