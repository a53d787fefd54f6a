//! containerd: hosts in order, both versions of its configuration, and the way back.

use crate::common::{Host, options, undo};
use pantala_setup::{Options, Runtime};
use proptest::prelude::*;

const CONFIG: &str = "/etc/containerd/config.toml";
const ALL: &str = "/etc/containerd/certs.d/_default/hosts.toml";
const HUB: &str = "/etc/containerd/certs.d/hub.example/hosts.toml";
const C: Runtime = Runtime::Containerd;

const MIRROR: &str =
    "[host.\"http://127.0.0.1:65001\"]\n  capabilities = [\"pull\", \"resolve\"]\n";

/// As `containerd config default` writes it, shortened.
const VERSION_2: &str = r#"disabled_plugins = []
version = 2 # keep

[plugins]

  [plugins."io.containerd.grpc.v1.cri"]
    sandbox_image = "registry.example/pause:3.9"

    [plugins."io.containerd.grpc.v1.cri".registry]
      # where hosts.toml files are
      config_path = ""   # none

      [plugins."io.containerd.grpc.v1.cri".registry.auths]

      [plugins."io.containerd.grpc.v1.cri".registry.configs]

      [plugins."io.containerd.grpc.v1.cri".registry.mirrors]

[timeouts]
  "io.containerd.timeout.task.state" = "2s"
"#;

const VERSION_3: &str = r#"version = 3

[plugins.'io.containerd.cri.v1.images']
  snapshotter = 'overlayfs'

  [plugins.'io.containerd.cri.v1.images'.registry]

[plugins.'io.containerd.cri.v1.runtime']
  enable_selinux = false"#;

#[test]
fn a_bare_host_gets_two_files_and_loses_them_again() {
    let between = Host::default().there_and_back(C, &options(&[]));
    assert!(between.text(ALL).contains(MIRROR));
    let config = between.text(CONFIG);
    assert!(config.contains("version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n"));
    assert!(config.contains("config_path = \"/etc/containerd/certs.d\"\n"));
    let plan = Host::default().ok(C, &options(&[]));
    assert_eq!(plan.next, ["systemctl restart containerd"]);
    let undone = Host(between.0).ok(C, &undo(&options(&[])));
    assert!(undone.changes.iter().all(|change| change.after.is_none()));
    assert_eq!(undone.changes[0].directories, 3);
}

#[test]
fn an_empty_setting_is_replaced_and_comes_back_with_its_comment() {
    let host = Host::with(&[(CONFIG, VERSION_2)]);
    let between = host.there_and_back(C, &options(&[]));
    let text = between.text(CONFIG);
    assert!(
        text.contains("\n      config_path = \"/etc/containerd/certs.d\"\n"),
        "{text}"
    );
    assert_eq!(
        text.lines()
            .filter(|line| line.starts_with("      config_path"))
            .count(),
        1
    );
    // And with the line ends of another system.
    Host::with(&[(CONFIG, &VERSION_2.replace('\n', "\r\n"))]).there_and_back(C, &options(&[]));
}

#[test]
fn version_3_has_another_plugin() {
    let between = Host::with(&[(CONFIG, VERSION_3)]).there_and_back(C, &options(&["hub.example"]));
    let text = between.text(CONFIG);
    let header = text.find(".registry]").unwrap();
    let next = text
        .find("[plugins.'io.containerd.cri.v1.runtime']")
        .unwrap();
    let setting = text.find("config_path").unwrap();
    assert!(header < setting && setting < next, "{text}");
    assert!(between.text(HUB).contains(MIRROR));
    let bare = Host::with(&[(CONFIG, "version = 3\n")]).there_and_back(C, &options(&[]));
    assert!(
        bare.text(CONFIG)
            .contains("[plugins.\"io.containerd.cri.v1.images\".registry]")
    );
}

#[test]
fn a_directory_that_is_set_is_used() {
    let config = VERSION_2.replace(
        "config_path = \"\"",
        "config_path = \" /srv/hosts:/etc/other\"",
    );
    let host = Host::with(&[(CONFIG, &config)]);
    let between = host.there_and_back(C, &options(&["hub.example"]));
    assert_eq!(between.text(CONFIG), config);
    assert!(
        between
            .text("/srv/hosts/hub.example/hosts.toml")
            .contains(MIRROR)
    );
    let plan = host.clone().ok(C, &options(&["hub.example"]));
    assert!(plan.next.is_empty(), "hosts.toml is read at every pull");
}

#[test]
fn the_mirror_goes_before_other_hosts_and_comments_stay_with_theirs() {
    let text = "\
# ours since 2021
server = \"https://hub.example\"

# the cache in rack 2
# (slow)
[host.\"https://cache.example\"]
  capabilities = [\"pull\"]
  [host.\"https://cache.example\".header]
    x-rack = \"2\"

[host.\"https://other.example\".header]
  x = \"y\"
";
    let between = Host::with(&[(HUB, text)]).there_and_back(C, &options(&["hub.example"]));
    let after = between.text(HUB);
    let (first, rest) = after.split_once("\n# the cache in rack 2\n").unwrap();
    assert!(first.contains(MIRROR) && first.starts_with("# ours since 2021\nserver = "));
    assert!(rest.starts_with("# (slow)\n[host.\"https://cache.example\"]"));
    // Hosts before which there is nothing, and only a server, without an end of its line.
    for text in [
        "[host.\"https://a.example\"]\n",
        "server = \"https://a.example\"",
        "",
        "# x",
    ] {
        Host::with(&[(HUB, text)]).there_and_back(C, &options(&["hub.example"]));
    }
}

#[test]
fn imported_files_count() {
    let main = |imports: &str| format!("version = 2\nimports = {imports}\n");
    let dropin = "/etc/containerd/conf.d/10-team.toml";
    let section = "[plugins.\"io.containerd.grpc.v1.cri\"";
    let reads = format!("version = 2\n{section}.registry]\nconfig_path = \"/srv/hosts\"\n");
    for imports in [
        "[\"/etc/containerd/conf.d/*.toml\"]",
        "[\"conf.d/10-team.toml\"]",
        "[\"/etc/containerd/conf.d/1?-*.toml\", \"/nowhere/*.toml\", \"/none.toml\"]",
        "[\"first.toml\"]",
    ] {
        let files = [
            (CONFIG, main(imports)),
            (dropin, reads.clone()),
            // By way of another one, and in a circle.
            (
                "/etc/containerd/first.toml",
                "imports = [\"conf.d/*.toml\", \"config.toml\"]\n".to_owned(),
            ),
        ];
        let files = files.each_ref().map(|(path, text)| (*path, text.as_str()));
        let host = Host::with(&files);
        let between = host.there_and_back(C, &options(&["hub.example"]));
        assert!(
            between
                .text("/srv/hosts/hub.example/hosts.toml")
                .contains(MIRROR)
        );
        assert_eq!(between.text(CONFIG), host.text(CONFIG), "{imports}");
    }
    let with = |text: &str| {
        let text = (dropin, text);
        Host::with(&[(CONFIG, main("[\"conf.d/*.toml\"]").as_str()), text])
    };
    // One that says nothing of it is no matter, and neither is what nobody imports.
    let neighbours = [with("version = 2\n[grpc]\n  uid = 1\n"), {
        let sandbox = format!("version = 2\n{section}]\nsandbox_image = \"x\"\n");
        Host::with(&[(CONFIG, "version = 2\n"), (dropin, &sandbox)])
    }];
    for host in neighbours {
        let between = host.there_and_back(C, &options(&["hub.example"]));
        assert!(between.text(CONFIG).contains("config_path"));
    }
    // The whole of the plugin's settings in the main file would be replaced.
    for (text, line, words) in [
        (
            format!("{section}]\nsandbox_image = \"x\"\n"),
            1,
            "replace those of config.toml",
        ),
        (
            format!("version = 2\n{section}.registry]\nconfig_path = \"\"\n"),
            2,
            "replace those of config.toml",
        ),
        (
            "[plugins.'io.containerd.cri.v1.images']\nsnapshotter = 'overlayfs'\n".to_owned(),
            1,
            "replace those of config.toml",
        ),
        (
            format!("{section}.registry.mirrors.\"hub.example\"]\nendpoint = []\n"),
            1,
            "registry.mirrors",
        ),
        ("imports = 3\n".to_owned(), 1, "imports is not a list"),
        (
            "\nimports = [\"/etc/*/x.toml\"]\n".to_owned(),
            2,
            "a pattern that setup cannot",
        ),
        ("[[".to_owned(), 1, "not TOML"),
    ] {
        let error = with(&text).fails(C, &options(&["hub.example"]));
        let place = format!("{dropin}:{line}: ");
        assert!(error.what().starts_with(&place), "{text}: {error}");
        assert!(error.what().contains(words), "{text}: {error}");
    }
    let mut disabled = with("disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n");
    let plan = disabled.ok(C, &options(&["hub.example"]));
    assert!(plan.advice.iter().any(|note| note.contains("disabled")));
}

#[test]
fn a_new_address_replaces_the_old_one() {
    let mut host = Host::with(&[(HUB, "server = \"https://hub.example\"")]);
    let original = host.clone();
    host.ok(C, &options(&["hub.example"]));
    let moved = Options {
        listen: "[::]:7000".parse().unwrap(),
        ..options(&["hub.example"])
    };
    host.ok(C, &moved);
    assert!(host.text(HUB).contains("[host.\"http://[::1]:7000\"]"));
    assert!(!host.text(HUB).contains("127.0.0.1"));
    // The address need not be known to take it out.
    host.ok(C, &undo(&options(&[])));
    assert_eq!(host, original);
}

#[test]
fn what_the_user_adds_later_stays() {
    let mut host = Host::default();
    host.ok(C, &options(&["hub.example", "registry.example"]));
    let config = host.text(CONFIG).to_owned() + "\n[grpc]\n  address = \"/run/c.sock\"\n";
    host.0.insert(CONFIG.into(), config);
    let hosts = host.text(HUB).to_owned() + "[host.\"https://b.example\"]\n";
    host.0.insert(HUB.into(), hosts);

    // One of two: the other still needs the setting.
    let plan = host.ok(C, &undo(&options(&["registry.example"])));
    assert_eq!(plan.changes.len(), 1);
    assert!(host.text(CONFIG).contains("config_path"));

    let plan = host.ok(C, &undo(&options(&[])));
    assert_eq!(host.text(HUB), "[host.\"https://b.example\"]\n");
    assert_eq!(
        host.text(CONFIG),
        "version = 2\n\n[grpc]\n  address = \"/run/c.sock\"\n"
    );
    assert!(
        plan.advice.iter().any(|note| note.contains("hub.example")),
        "{:?}",
        plan.advice
    );
}

#[test]
fn a_setting_that_was_changed_since_is_the_users() {
    let mut host = Host::with(&[(CONFIG, VERSION_2)]);
    host.ok(C, &options(&[]));
    let changed = host.text(CONFIG).replace(
        "config_path = \"/etc/containerd/certs.d\"",
        "config_path = \"/srv/hosts\"",
    );
    host.0.insert(CONFIG.into(), changed);
    let plan = host.ok(C, &undo(&options(&[])));
    assert!(
        host.text(CONFIG)
            .contains("\n      config_path = \"/srv/hosts\"\n")
    );
    assert!(!host.text(CONFIG).contains("dfdaemon setup"));
    assert!(!host.0.contains_key(std::path::Path::new(ALL)));
    assert!(plan.advice[0].contains("changed since"));
    // The same for the table of a host.
    let mut host = Host::default();
    host.ok(C, &options(&[]));
    let tuned = host
        .text(ALL)
        .replace("capabilities", "dial_timeout = \"1s\"\n  capabilities");
    host.0.insert(ALL.into(), tuned);
    assert!(host.ok(C, &options(&[])).changes.is_empty());
}

#[test]
fn a_disabled_plugin_needs_no_setting() {
    let text = "disabled_plugins = [\"cri\"]\n\n#[grpc]\n#  uid = 0\n";
    let host = Host::with(&[(CONFIG, text)]);
    let between = host.there_and_back(C, &options(&["hub.example"]));
    assert_eq!(between.text(CONFIG), text);
    let plan = host.clone().ok(C, &options(&["hub.example"]));
    assert!(plan.advice[0].contains("disabled") && plan.next.is_empty());
    // Nothing but comments says nothing of any version.
    Host::with(&[(CONFIG, "#version = 2\n# x")]).there_and_back(C, &options(&[]));
}

#[test]
fn what_cannot_be_edited_is_refused_by_name() {
    let registry = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry";
    for (text, line, words) in [
        ("version = \n", Some(1), "not TOML"),
        ("a = 1\n[b\n", Some(2), "not TOML"),
        ("root = \"/x\"\n", None, "version 1"),
        ("version = 4\n", None, "none that setup knows"),
        (
            &format!("{registry}]\nconfig_path = 3\n"),
            Some(3),
            "not a text",
        ),
        (
            &format!("{registry}.mirrors.\"hub.example\"]\nendpoint = [\"x\"]\n"),
            Some(2),
            "registry.mirrors is set",
        ),
        (
            &format!("{registry}.configs.\"hub.example\".tls]\nca_file = \"x\"\n"),
            Some(2),
            "registry.configs with tls",
        ),
        (
            "version = 2\nplugins = { \"io.containerd.grpc.v1.cri\" = { registry = {} } }\n",
            None,
            "does not edit",
        ),
        (
            "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\nregistry.config_path = \"\"\n",
            None,
            "does not edit",
        ),
    ] {
        let error = Host::with(&[(CONFIG, text)]).fails(C, &options(&[]));
        let place = line.map_or(CONFIG.to_owned(), |line| format!("{CONFIG}:{line}:"));
        assert!(error.what().starts_with(&place), "{error}");
        assert!(error.what().contains(words), "{error}");
    }
    // Credentials may stand next to a config_path.
    let auth = format!("{registry}.configs.\"hub.example\".auth]\nusername = \"x\"\n");
    Host::with(&[(CONFIG, &auth)]).there_and_back(C, &options(&[]));

    for (text, words) in [
        ("[host", "not TOML"),
        ("host = { \"https://a.example\" = {} }\n", "does not edit"),
        ("[host]\n\"https://a.example\" = {}\n", "does not edit"),
        (
            "[host.\"https://a.example\"]\n[host.\"http://127.0.0.1:65001\"]\n",
            "not first",
        ),
    ] {
        let error = Host::with(&[(HUB, text)]).fails(C, &options(&["hub.example"]));
        assert!(
            error.what().contains(HUB) && error.what().contains(words),
            "{error}"
        );
    }
    // The user's own, and first.
    let own = Host::with(&[(HUB, "[host.\"http://127.0.0.1:65001\"]\n")]);
    assert_eq!(
        own.there_and_back(C, &options(&["hub.example"])).text(HUB),
        own.text(HUB)
    );
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    for name in [
        "",
        "..",
        "a/b",
        "../x",
        ".hidden",
        "https://hub.example",
        "a b",
        "a\"b",
    ] {
        let error = Host::default().fails(C, &options(&[name]));
        assert!(error.what().starts_with("--registry"), "{error}");
    }
    let nowhere = Options {
        listen: "127.0.0.1:0".parse().unwrap(),
        ..options(&[])
    };
    Host::default().fails(C, &nowhere);
}

#[test]
fn registries_past_the_default_are_named() {
    let plan = Host::with(&[(HUB, "server = \"https://hub.example\"\n")]).ok(C, &options(&[]));
    let named = "hub.example has a directory of its own";
    assert!(
        plan.advice.iter().any(|advice| advice.starts_with(named)),
        "{:?}",
        plan.advice
    );
}

fn pieces(all: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
    prop::sample::subsequence(all, 0..=all.len()).prop_shuffle()
}

const HOSTS: &[&str] = &[
    "\n",
    "# a comment\n",
    "[host.\"https://a.example\"]\n  capabilities = [\"pull\"]\n",
    "# about b\n[host.\"https://b.example\"] # b\n",
    "[host.\"https://c.example\".header]\n  x = \"y\"\n\n",
    "[header]\n  z = \"z\"\n",
    "  \n# two\n\n",
];

const SETTINGS: &[&str] = &[
    "\n",
    "# a comment\n\n",
    "[grpc]\n  uid = 0\n",
    "[plugins]\n",
    "[plugins.\"io.containerd.grpc.v1.cri\".registry.headers]\n",
    "[plugins.\"io.containerd.grpc.v1.cri\".registry] # here\n",
    "[plugins.\"io.containerd.cri.v1.images\".registry]\n  # none\n  config_path = '' # c\n",
    "[plugins.\"io.containerd.grpc.v1.cri\"]\n  sandbox_image = \"x\"\n",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn undoing_gives_back_what_was_there(
        hosts in prop::option::of(pieces(HOSTS)),
        settings in prop::option::of(pieces(SETTINGS)),
        version in 2..=3,
        server in any::<bool>(),
        windows in any::<bool>(),
        ended in any::<bool>(),
        all in any::<bool>(),
    ) {
        let finish = |head: String, parts: Vec<&str>| {
            let mut text = head + &parts.concat();
            if windows {
                text = text.replace('\n', "\r\n");
            }
            if !ended {
                text.truncate(text.trim_end_matches(['\r', '\n']).len());
            }
            text
        };
        let mut host = Host::default();
        if let Some(parts) = hosts {
            let head = if server { "server = \"https://hub.example\"\n" } else { "" };
            host.0.insert(HUB.into(), finish(head.into(), parts));
        }
        if let Some(parts) = settings {
            host.0.insert(CONFIG.into(), finish(format!("version = {version}\n"), parts));
        }
        host.there_and_back(C, &options(if all { &[] } else { &["hub.example", "x.example:5000"] }));
    }
}
