//! dockerd: one entry in a JSON file whose every other byte stays.

use crate::common::{Host, options, undo};
use pantala_setup::{Options, Runtime, backup_path};
use proptest::prelude::*;

const CONFIG: &str = "/etc/docker/daemon.json";
const D: Runtime = Runtime::Docker;

fn after(text: &str) -> String {
    let host = Host::with(&[(CONFIG, text)]);
    host.there_and_back(D, &options(&[]))
        .text(CONFIG)
        .to_owned()
}

/// Undoes without the backup.
fn by_value(text: &str) -> String {
    let mut host = Host::with(&[(CONFIG, text)]);
    host.ok(D, &undo(&options(&[])));
    host.text(CONFIG).to_owned()
}

#[test]
fn a_file_is_made_and_goes_again() {
    let between = Host::default().there_and_back(D, &options(&[]));
    assert_eq!(
        between.text(CONFIG),
        "{\n  \"registry-mirrors\": [\"http://127.0.0.1:65001\"]\n}\n"
    );
    let plan = Host::default().ok(D, &options(&[]));
    assert_eq!(plan.next, ["systemctl restart docker"]);
    assert!(plan.advice[0].contains("default registry only"));
}

#[test]
fn the_entry_looks_like_its_neighbours() {
    for (before, expected) in [
        (
            "{\n    \"debug\": true,\n    \"log-driver\": \"local\"\n}\n",
            "{\n    \"debug\": true,\n    \"log-driver\": \"local\",\n    \
             \"registry-mirrors\": [\"http://127.0.0.1:65001\"]\n}\n",
        ),
        (
            "{\"registry-mirrors\":[\"https://a.example\"],\"debug\":1.50}",
            "{\"registry-mirrors\":[\"http://127.0.0.1:65001\", \"https://a.example\"],\"debug\":1.50}",
        ),
        (
            "{\r\n\t\"registry-mirrors\": [\r\n\t\t\"https://a.example/\"\r\n\t]\r\n}",
            "{\r\n\t\"registry-mirrors\": [\r\n\t\t\"http://127.0.0.1:65001\",\r\n\t\t\"https://a.example/\"\r\n\t]\r\n}",
        ),
        (
            "{ \"a\": {} }",
            "{ \"a\": {}, \"registry-mirrors\": [\"http://127.0.0.1:65001\"] }",
        ),
        (
            "\u{feff}{}",
            "\u{feff}{\n  \"registry-mirrors\": [\"http://127.0.0.1:65001\"]\n}",
        ),
    ] {
        assert_eq!(after(before), expected);
    }
    after("");
    after("\n");
    after("{\"registry-mirrors\": [ ]}");
    after("{\"registry-mirrors\": []}");
}

#[test]
fn the_users_later_edits_stay() {
    let mut host = Host::with(&[(CONFIG, "{\n  \"debug\": true\n}\n")]);
    host.ok(D, &options(&[]));
    let edited = host.text(CONFIG).replace("true", "false").replace(
        "65001\"]",
        "65001\", \"https://b.example\"],\n  \"mtu\": 1400",
    );
    host.0.insert(CONFIG.into(), edited);
    host.ok(D, &undo(&options(&[])));
    assert_eq!(
        host.text(CONFIG),
        "{\n  \"debug\": false,\n  \"registry-mirrors\": [\"https://b.example\"],\n  \"mtu\": 1400\n}\n"
    );
    assert_eq!(
        host.text(backup_path(CONFIG.as_ref()).to_str().unwrap()),
        "{\n  \"debug\": true\n}\n"
    );
    assert!(host.ok(D, &undo(&options(&[]))).changes.is_empty());
}

#[test]
fn without_its_backup_the_value_is_found() {
    let ours = "\"registry-mirrors\": [\"http://127.0.0.1:65001/\"]";
    assert_eq!(by_value(&format!("{{{ours}, \"a\": 1}}")), "{\"a\": 1}");
    assert_eq!(
        by_value(&format!("{{\"b\": 2, {ours}, \"a\": 1}}")),
        "{\"b\": 2, \"a\": 1}"
    );
    assert_eq!(by_value(&format!("{{{ours}}}")), "{}");
}

#[test]
fn what_was_there_before_is_not_ours() {
    let own = "{\"registry-mirrors\": [\"https://a.example\", \"http://127.0.0.1:65001/\"]}";
    let mut host = Host::with(&[(CONFIG, own)]);
    let plan = host.ok(D, &options(&[]));
    assert!(plan.changes.is_empty());
    assert!(
        plan.advice[0].contains("https://a.example before"),
        "{:?}",
        plan.advice
    );
    // With the backup of a setup that had something else to do.
    host.0.insert(backup_path(CONFIG.as_ref()), own.into());
    assert!(host.ok(D, &undo(&options(&[]))).changes.is_empty());
}

#[test]
fn another_address_is_pointed_at() {
    let mut host = Host::default();
    let other = Options {
        listen: "127.0.0.1:7000".parse().unwrap(),
        ..options(&[])
    };
    host.ok(D, &other);
    let plan = host.ok(D, &undo(&options(&[])));
    assert!(plan.changes.is_empty());
    assert!(
        plan.advice[0].contains("--undo --listen 127.0.0.1:7000"),
        "{:?}",
        plan.advice
    );
    host.ok(D, &undo(&other));
    assert_eq!(host, Host::default());
}

#[test]
fn what_dockerd_would_not_read_is_refused_with_its_place() {
    for (text, place, words) in [
        ("{\n  \"a\": 1,\n}", "2:9", "not json"),
        ("{\n  // x\n  \"a\": 1\n}", "2:3", "not json"),
        ("{\"a\" 1}", "1:", "not json"),
        ("{'a': 1}", "1:2", "not json"),
        ("[]", "1", "not a json object"),
        ("{\n\"registry-mirrors\": \"x\"}", "2", "is not a list"),
        (
            "{\"registry-mirrors\": [],\n\"registry-mirrors\": []}",
            "2",
            "is there twice",
        ),
    ] {
        for options in [options(&[]), undo(&options(&[]))] {
            let error = Host::with(&[(CONFIG, text)]).fails(D, &options);
            assert!(
                error.what().starts_with(&format!("{CONFIG}:{place}")),
                "{error}"
            );
            assert!(error.what().to_lowercase().contains(words), "{error}");
        }
    }
}

fn space() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&["", " ", "\n", "\n  ", "\r\n\t", "\n\n    "][..])
}

/// A list or object of such parts, with white space wherever it may be.
fn joined(
    open: char,
    close: char,
    parts: impl Strategy<Value = String>,
) -> impl Strategy<Value = String> {
    let part = (space(), parts, space()).prop_map(|(a, part, b)| format!("{a}{part}{b}"));
    (prop::collection::vec(part, 0..4), space()).prop_map(move |(parts, inside)| {
        let inside = if parts.is_empty() {
            inside.to_owned()
        } else {
            parts.join(",")
        };
        format!("{open}{inside}{close}")
    })
}

fn json() -> impl Strategy<Value = String> {
    let url = prop::sample::select(
        &[
            "\"https://a.example\"",
            "\"http://b.example/\"",
            "\"\\u00e4\"",
        ][..],
    );
    let mirrors = prop::option::of((joined('[', ']', url.prop_map(str::to_owned)), space()));
    let others = prop::sample::subsequence(
        &[
            "\"a\": {\"x\": [1, 2.50]}",
            "\"ü\" :\"\\\"\"",
            "\"c\":null",
            "\"d\":[ ]",
        ][..],
        0..=4,
    );
    (
        mirrors,
        others,
        any::<prop::sample::Index>(),
        prop::collection::vec(space(), 10),
    )
        .prop_map(|(mirrors, others, at, spaces)| {
            let mut all: Vec<String> = others.into_iter().map(str::to_owned).collect();
            if let Some((list, gap)) = mirrors {
                all.insert(
                    at.index(all.len() + 1),
                    format!("\"registry-mirrors\"{gap}:{gap}{list}"),
                );
            }
            let mut text = format!("{}{{", spaces[8]);
            if all.is_empty() {
                text += spaces[9];
            }
            for (at, part) in all.iter().enumerate() {
                let comma = if at == 0 { "" } else { "," };
                text += &format!("{comma}{}{part}{}", spaces[at % 4], spaces[4 + at % 4]);
            }
            text + "}" + spaces[9]
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn undoing_gives_back_what_was_there(text in json(), keep_backup in any::<bool>()) {
        let host = Host::with(&[(CONFIG, &text)]);
        host.there_and_back(D, &options(&[]));
        // Something else in between that changes the file: the value is looked for.
        let mut host = host;
        host.ok(D, &options(&[]));
        let edited = format!("{}\n", host.text(CONFIG));
        host.0.insert(CONFIG.into(), edited);
        // Without a backup nobody can tell an empty list or object from none.
        let squeezed: String = text.split_whitespace().collect();
        let empty = squeezed.contains("mirrors\":[]") || squeezed == "{}";
        if !keep_backup && !empty {
            host.0.remove(&backup_path(CONFIG.as_ref()));
        }
        host.ok(D, &undo(&options(&[])));
        let undone = host.text(CONFIG);
        if squeezed == "{}" {
            prop_assert_eq!(undone.split_whitespace().collect::<String>(), squeezed);
        } else {
            prop_assert_eq!(undone, format!("{text}\n"));
        }
    }
}
