//! podman and CRI-O: a drop-in of ours next to what others wrote.

use crate::common::{Host, options, undo};
use pantala_setup::{Options, Runtime};
use proptest::prelude::*;

const OURS: &str = "/etc/containers/registries.conf.d/50-pantala.conf";
const MAIN: &str = "/etc/containers/registries.conf";
const P: Runtime = Runtime::Podman;

#[test]
fn a_drop_in_is_made_and_goes_again() {
    let both = options(&["hub.example", "registry.example"]);
    let between = Host::default().there_and_back(P, &both);
    let text = between.text(OURS);
    assert!(text.contains(
        "[[registry]]\nprefix = \"hub.example\"\nlocation = \"hub.example\"\n\n\
         [[registry.mirror]]\nlocation = \"127.0.0.1:65001/hub.example\"\ninsecure = true\n"
    ));
    assert!(text.contains("\"127.0.0.1:65001/registry.example\""));
    assert!(Host::default().ok(P, &both).next.is_empty());
    let crio = Host::default().ok(Runtime::Crio, &both);
    assert_eq!(crio.next, ["systemctl reload crio"]);
}

#[test]
fn registries_come_and_go_one_by_one() {
    let mut host = Host::default();
    host.ok(P, &options(&["hub.example"]));
    host.ok(P, &options(&["registry.example"]));
    assert!(host.text(OURS).contains("/hub.example") && host.text(OURS).contains("/registry."));
    let moved = Options {
        listen: "0.0.0.0:7000".parse().unwrap(),
        ..options(&["hub.example"])
    };
    host.ok(P, &moved);
    assert!(host.text(OURS).contains("\"127.0.0.1:7000/hub.example\""));
    assert!(!host.text(OURS).contains("65001/hub.example"));
    host.ok(P, &undo(&options(&["hub.example"])));
    assert!(!host.text(OURS).contains("hub.example"));
    // The user's own line keeps the file.
    let edited = format!("{}# mine\n", host.text(OURS));
    host.0.insert(OURS.into(), edited);
    host.ok(P, &undo(&options(&[])));
    assert_eq!(host.text(OURS), "# mine\n");
}

#[test]
fn nothing_works_without_a_name() {
    let error = Host::default().fails(P, &options(&[]));
    assert!(error.what().starts_with("--registry: podman"), "{error}");
    assert!(
        Host::default()
            .ok(P, &undo(&options(&[])))
            .changes
            .is_empty()
    );
}

#[test]
fn a_name_that_would_break_every_pull_is_refused() {
    for name in ["hub.example:5000", "[::1]", "Hub.example"] {
        let error = Host::default().fails(P, &options(&[name]));
        assert!(
            error.what().starts_with(&format!("--registry {name}: ")),
            "{error}"
        );
    }
}

#[test]
fn another_entry_for_the_same_registry_is_a_conflict() {
    let dropin = "/etc/containers/registries.conf.d/10-team.conf";
    for (path, text, line, words) in [
        (
            MAIN,
            "\n[[registry]]\nlocation = \"hub.example\"\n",
            3,
            "has an entry",
        ),
        (
            dropin,
            "[[registry]]\nlocation = \"x.example\"\nprefix = \"hub.example\"\n",
            3,
            "has an entry",
        ),
        (
            dropin,
            "registry = [{ location = \"hub.example\" }]\n",
            1,
            "has an entry",
        ),
        (
            OURS,
            "[[registry]]\nlocation = \"hub.example\"\n",
            2,
            "has an entry",
        ),
        (
            MAIN,
            "[[registry]]\nprefix = \"hub.example/\"\nblocked = true\n",
            2,
            "has an entry",
        ),
        (
            MAIN,
            "[[registry]]\nprefix = \"*.example\"\nblocked = true\n",
            2,
            "*.example is blocked here, and an entry for hub.example would lift that",
        ),
        (
            dropin,
            "registry = [{ prefix = \"*.example\", insecure = true }]\n",
            1,
            "the entry for *.example is for hub.example too",
        ),
        (MAIN, "[[registry", 1, "not TOML"),
    ] {
        let error = Host::with(&[(path, text)]).fails(P, &options(&["hub.example"]));
        assert!(
            error.what().starts_with(&format!("{path}:{line}: ")),
            "{error}"
        );
        assert!(error.what().contains(words), "{error}");
    }
    let first = Host::with(&[(
        MAIN,
        "[registries.search]\nregistries = [\"hub.example\"]\n",
    )]);
    assert!(
        first
            .fails(P, &options(&["hub.example"]))
            .what()
            .contains("version 1")
    );
    // Neighbours are no conflict.
    let host = Host::with(&[
        (MAIN, "unqualified-search-registries = [\"hub.example\"]\n"),
        (
            dropin,
            "[[registry]]\nprefix = \"hub.example/team\"\nlocation = \"hub.example\"\n\
             [[registry]]\nprefix = \"*.hub.example\"\nblocked = true\n\
             [[registry]]\nprefix = \"*.ample\"\nblocked = true\n",
        ),
        (
            "/etc/containers/registries.conf.d/README",
            "not TOML at all",
        ),
    ]);
    host.there_and_back(P, &options(&["hub.example"]));
}

proptest! {
    #[test]
    fn undoing_gives_back_what_was_there(
        parts in prop::option::of(prop::sample::subsequence(
            &["# mine\n", "\n", "[[registry]]\nlocation = \"a.example\"\n", "[[registry.mirror]]\nlocation = \"b.example\"\n"][..],
            0..=4,
        )),
        ended in any::<bool>(),
        names in prop::sample::subsequence(&["hub.example", "x.example", "y-z.example"][..], 1..=3),
    ) {
        let mut host = Host::default();
        if let Some(parts) = parts {
            let mut text = parts.concat();
            prop_assume!(!text.contains("mirror") || text.contains("[[registry]]"));
            if !ended {
                text.truncate(text.trim_end().len());
            }
            host.0.insert(OURS.into(), text);
        }
        host.there_and_back(P, &options(&names));
    }
}
