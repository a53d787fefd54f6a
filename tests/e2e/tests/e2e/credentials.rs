//! What counts as a credential, and where credentials go.

use pantala_e2e::{Answer, Content, Dfdaemon, MIB, Origin, Page, Script, Site, Swarm, ask};

fn get(daemon: &Dfdaemon, url: &str, headers: &[(&str, &str)]) -> Answer {
    ask(daemon.addr(), "GET", url, headers, b"")
}

/// An origin for those who send `name: hush`.
fn demanding(content: &Content, name: &str) -> Origin {
    let script = Script {
        wants: Some((name.to_owned(), "hush".to_owned())),
        ..Script::default()
    };
    Origin::start(content, script)
}

#[test]
fn a_header_of_any_name_may_be_a_credential() {
    let daemon = Dfdaemon::start_alone(&[]);
    for (seed, name) in (900..).zip([
        "x-auth-key",
        "x-access-key",
        "x-session-id",
        "ocp-apim-subscription-key",
        "x-whatever",
        "x-forwarded-user",
    ]) {
        let content = Content::new(seed, 300_000);
        let origin = demanding(&content, name);
        let url = origin.blob_url();
        let theirs = get(&daemon, &url, &[(name, "hush")]);
        assert_eq!(theirs.status, 200, "{name}");
        content.assert_bytes(&theirs.body);
        for headers in [&[][..], &[(name, "guessed")], &[("Authorization", "hush")]] {
            let answer = get(&daemon, &url, headers);
            assert_eq!(answer.status, 403, "{name} {headers:?}");
            assert!(answer.body.is_empty(), "{name} {headers:?}");
        }
        // Of the content nothing was read twice, and who may read it still does.
        let again = get(&daemon, &url, &[(name, "hush")]);
        assert_eq!(again.status, 200, "{name}");
        content.assert_bytes(&again.body);
        assert_eq!(origin.sent(), content.len(), "{name}");
    }
}

#[test]
fn a_header_that_the_operator_calls_harmless_is_none() {
    let daemon = Dfdaemon::start_alone(&["--harmless-header", "X-Build,X-Rack"]);
    let content = Content::new(910, 300_000);
    let origin = Origin::start(&content, Script::default());
    for build in ["1", "2"] {
        let headers = [
            ("X-Build", build),
            ("X-Rack", "r1"),
            ("X-Request-Id", build),
        ];
        let answer = get(&daemon, &origin.blob_url(), &headers);
        assert_eq!(answer.status, 200);
        content.assert_bytes(&answer.body);
    }
    // Nobody had to be admitted.
    assert_eq!(origin.asked().len(), 1, "{:?}", origin.asked());
}

#[test]
fn no_credential_follows_to_another_host() {
    let daemon = Dfdaemon::start_alone(&["--harmless-header", "X-Build"]);
    let content = Content::new(920, 300_000);
    let there = Origin::start(&content, Script::default());
    let script = Script {
        redirect: Some(there.url()),
        ..Script::default()
    };
    let here = Origin::start(&content, script);
    let secrets = ["authorization", "x-session-id", "x-auth-key", "x-whatever"];
    let mut headers: Vec<(&str, &str)> = secrets.iter().map(|name| (*name, "hush")).collect();
    headers.extend([("X-Build", "7"), ("Accept", "*/*"), ("X-Request-Id", "1")]);
    let answer = get(&daemon, &here.blob_url(), &headers);
    assert_eq!(answer.status, 200);
    content.assert_bytes(&answer.body);
    for asked in there.asked() {
        for name in secrets {
            assert!(here.asked()[0].headers.contains_key(name), "{name}");
            assert!(!asked.headers.contains_key(name), "{name}");
        }
        for name in ["x-build", "accept", "x-request-id"] {
            assert!(asked.headers.contains_key(name), "{name}");
        }
    }
}

#[test]
fn what_a_header_of_any_name_opened_is_for_nobody_else_on_any_host() {
    let site = Site::new();
    let two = Swarm::start(2, &[]);
    for (seed, name) in (1500..).zip([
        "X-Auth-Key",
        "X-Access-Key",
        "X-Session-Id",
        "Ocp-Apim-Subscription-Key",
        "X-Anything",
        "Remote-User",
        "Client-Cert",
    ]) {
        let content = Content::new(seed, 2 * MIB);
        let path = format!("/{seed}");
        let reader = (name, "of-alice");
        site.serve(&path, Page::unauthorized());
        let page = Page::of(&content).etag("\"v1\"").max_age(3600);
        site.serve_to(reader, &path, page);
        let url = site.url(&path);
        two.daemons[0].get(&url, &[reader]).assert_is(&content);
        for daemon in &two.daemons {
            let answer = daemon.get(&url, &[]);
            answer.assert_nothing_of(&content);
            assert_eq!(answer.status, 401, "without {name}");
            let answer = daemon.get(&url, &[(name, "of-bob")]);
            answer.assert_nothing_of(&content);
            assert_eq!(answer.status, 401, "with another {name}");
            daemon.get(&url, &[reader]).assert_is(&content);
        }
        assert_eq!(site.sent_of(&content), content.len(), "{name}");
    }
}

#[test]
fn what_the_operator_calls_harmless_makes_nothing_private_on_any_host() {
    let content = Content::new(1520, 2 * MIB);
    let site = Site::new();
    site.serve("/f", Page::of(&content).etag("\"v1\"").max_age(3600));
    let flags = ["X-Build-Id", "X-Build-Node"].map(|name| ["--harmless-header", name]);
    let two = Swarm::start(2, flags.as_flattened());
    let url = site.url("/f");
    for (build, daemon) in (0..4).zip(two.daemons.iter().cycle()) {
        let build = build.to_string();
        let headers = [("X-Build-Id", build.as_str()), ("X-Build-Node", "n")];
        daemon.get(&url, &headers).assert_is(&content);
        daemon.get(&url, &[]).assert_is(&content);
    }
    // Nobody needed to be admitted.
    assert_eq!(site.hits().len(), 1, "{:?}", site.hits());
    let hit = &site.hits()[0];
    assert_eq!(hit.headers.get("x-build-id").map(String::as_str), Some("0"));
}
