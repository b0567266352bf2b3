//! Chains, honest and forged.

use super::*;

fn client(trusted: &[&str], peer: &str, chain: &[&str]) -> String {
    let trusted: Vec<String> = trusted.iter().map(|text| (*text).to_owned()).collect();
    let mut headers = HeaderMap::new();
    for line in chain {
        headers.append(FORWARDED_FOR, line.parse().unwrap());
    }
    TrustedHops::parse(&trusted).unwrap().client(peer.parse().unwrap(), &headers).to_string()
}

#[test]
fn the_right_most_untrusted_address_is_the_client() {
    let ten: &[&str] = &["10.0.0.0/8", "2001:db8::/32"];
    let table: [(&[&str], &str, &[&str], &str); 12] = [
        (&[], "10.0.0.1", &["1.1.1.1"], "10.0.0.1"),
        (ten, "9.9.9.9", &["1.1.1.1"], "9.9.9.9"),
        (ten, "10.0.0.1", &[], "10.0.0.1"),
        (ten, "10.0.0.1", &["1.1.1.1"], "1.1.1.1"),
        (ten, "10.0.0.1", &["6.6.6.6, 1.1.1.1"], "1.1.1.1"),
        (ten, "10.0.0.1", &["6.6.6.6", "1.1.1.1, 10.0.0.2"], "1.1.1.1"),
        (ten, "10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        (ten, "10.0.0.1", &["1.1.1.1, nonsense"], "10.0.0.1"),
        (ten, "10.0.0.1", &["1.1.1.1, nonsense, 10.0.0.2"], "10.0.0.2"),
        (ten, "::ffff:10.0.0.1", &["1.1.1.1:443"], "1.1.1.1"),
        (ten, "2001:db8::1", &["[2001:db9::5]:80"], "2001:db9::5"),
        (&["0.0.0.0/0"], "10.0.0.1", &["2001:db9::5"], "2001:db9::5"),
    ];
    for (trusted, peer, chain, wanted) in table {
        assert_eq!(client(trusted, peer, chain), wanted, "{trusted:?} {peer} {chain:?}");
    }
}

#[test]
fn what_is_no_network_is_named() {
    for text in ["10.0.0.0/33", "a", "", "1.2.3.4/-1", "::/129"] {
        assert_eq!(TrustedHops::parse(&[text.to_owned()]).unwrap_err(), text);
    }
}
