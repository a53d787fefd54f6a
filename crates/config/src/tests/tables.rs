//! The tables that only dfdaemon's file has.

use super::*;
use crate::Action;

fn with(text: &str) -> Result<DfdaemonConfig, Exit> {
    dfdaemon_with(&["--config", "d.toml"], &[], text)
}

#[test]
fn upstreams_and_rules_are_read() {
    let config = with(
        r#"
memory = "64MiB"

[upstream."hub.example"]
url = "https://registry-1.hub.example"
ca = ["ca.pem"]
client-cert = "c.pem"
client-key = "k.pem"
username = "u"
password = "hush"

[upstream."registry.example:5000"]
anonymous = true

[[rule]]
host = "*.Models.example"
path = "/**/*.bin"
action = "stream"

[[rule]]
action = "redirect"
to = "https://other.example"
"#,
    )
    .unwrap();
    assert_eq!(config.memory, 64 << 20);
    let [hub, other] = &config.upstreams[..] else {
        panic!("{:?}", config.upstreams)
    };
    assert_eq!(hub.url.as_str(), "https://registry-1.hub.example/");
    assert_eq!(hub.credentials, Some(("u".into(), "hush".into())));
    assert!(!format!("{config:?}{hub:?}").contains("hush"));
    assert_eq!(other.url.as_str(), "https://registry.example:5000/");
    assert!(other.anonymous && !hub.anonymous);
    assert_eq!(config.rules[0].host.glob(), "*.models.example");
    let to = "https://other.example".parse().unwrap();
    assert_eq!(config.rules[1].action, Action::Redirect(to));
    assert_eq!(config.rules[1].host.glob(), "*");
}

#[test]
fn a_flag_says_where_an_upstream_of_the_file_is() {
    let text = "[upstream.\"hub.example\"]\nanonymous = true\n";
    let args = [
        "--config",
        "d.toml",
        "--upstream",
        "hub.example=http://127.0.0.1:5000,b.example=http://b.example",
    ];
    let config = dfdaemon_with(&args, &[], text).unwrap();
    assert_eq!(config.upstreams.len(), 2);
    assert!(config.upstreams[0].anonymous);
    assert_eq!(config.upstreams[0].url.as_str(), "http://127.0.0.1:5000/");
}

#[test]
fn what_cannot_be_meant_is_refused_with_its_line() {
    for (text, says) in [
        ("[upstream.\"a/b\"]\n", "d.toml:1: upstream \"a/b\": "),
        (
            "\n[upstream.\"a.example\"]\nurl = \"ftp://x\"\n",
            "d.toml:2: ",
        ),
        (
            "[upstream.\"a.example\"]\nurll = \"https://x\"\n",
            "d.toml:2: unknown field",
        ),
        (
            "[upstream.\"a.example\"]\nusername = \"u\"\n",
            "half of the credentials",
        ),
        (
            "[upstream.\"a.example\"]\nclient-key = \"k\"\n",
            "half of a client certificate",
        ),
        ("[[rule]]\nhost = \"x\"\n", "missing field `action`"),
        (
            "[[rule]]\naction = \"stop\"\n",
            "d.toml:2: rule: \"stop\" is not an action",
        ),
        ("[[rule]]\naction = \"redirect\"\n", "a redirect to nowhere"),
        (
            "[[rule]]\naction = \"direct\"\nto = \"http://x\"\n",
            "goes with action",
        ),
        (
            "[[rule]]\naction = \"direct\"\nhost = \"[\"\n",
            "is not a pattern",
        ),
        (
            "[[rule]]\naction = \"direct\"\npath = \"x\"\n",
            "matches nothing",
        ),
    ] {
        let refused = refusal(with(text));
        assert!(refused.contains(says), "{text}: {refused}");
    }
    let refused = refusal(dfdaemon(&["--upstream", "hub.example"]));
    assert!(refused.contains("a name without a URL"), "{refused}");
    let refused = refusal(dfdaemon(&["--intercept", "https://x"]));
    assert!(refused.contains("not a host's name"), "{refused}");
}
