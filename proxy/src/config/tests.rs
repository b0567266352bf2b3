//! The sample is the defaults; what is refused says where, what and what is allowed.

use super::*;

#[test]
fn the_sample_holds_the_defaults() {
    let sample = Settings::parse(include_str!("../../telltale-proxy.toml"), "telltale-proxy.toml").unwrap();
    assert!(sample.templates.contains_key("maintenance"));
    let mut same = sample.clone();
    same.templates.remove("maintenance");
    let defaults = Settings::load(&Flags::default()).unwrap();
    assert_eq!(format!("{same:?}"), format!("{defaults:?}"));
}

#[test]
fn flags_win_over_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("proxy.toml");
    std::fs::write(&path, "listen = \"127.0.0.1:1\"\nservice = \"file\"\n").unwrap();
    let flags = Flags {
        config: Some(path),
        service: Some("flag".to_owned()),
        passive: true,
        scorer: Some("unix:/s".to_owned()),
        ..Flags::default()
    };
    let settings = Settings::load(&flags).unwrap();
    assert_eq!((settings.listen.port(), settings.service.as_str(), settings.passive), (1, "flag", true));
    assert_eq!(settings.scorer.address, ScorerAddress::Unix("/s".into()));
}

#[test]
fn refusals_name_file_key_value_and_what_is_allowed() {
    let table = [
        ("listne = \"x\"", "unknown field `listne`"),
        ("[scorer]\ndeadline = 5", "unknown field `deadline`"),
        ("[scorer]\ndeadline_ms = 0", "`scorer.deadline_ms` = `0`: allowed is 1 to 10000"),
        ("[scorer]\naddress = \"https://a\"", "`scorer.address` = `https://a`: allowed is http://host:port or unix:"),
        ("[scorer]\nfail_closed = [\"login\"]", "`scorer.fail_closed` = `login`"),
        ("listen = \"nowhere\"", "`listen` = `nowhere`: allowed is address and port"),
        ("upstream = \"http://a:1/path\"", "`upstream` = `http://a:1/path`"),
        ("upstream = \"https://a\"", "`upstream` = `https://a`"),
        ("trusted_hops = [\"10.0.0.0/33\"]", "`trusted_hops` = `10.0.0.0/33`"),
        ("[metrics]\nlisten = \"0.0.0.0:9464\"", "a loopback address"),
        ("[templates.x]\nstatus = 99\ncontent_type = \"a/b\"\nbody = \"\"", "`templates.x.status` = `99`"),
        ("[limits]\nheaders = 5000", "`limits.headers` = `5000`: allowed is 8 to 1000"),
        ("service = \"\"", "`service` = ``"),
    ];
    for (text, wanted) in table {
        let message = Settings::parse(text, "p.toml").unwrap_err().to_string();
        assert!(message.starts_with("p.toml: ") && message.contains(wanted), "{text}: {message}");
    }
}
