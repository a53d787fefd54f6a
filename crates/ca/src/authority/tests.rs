//! What needs to set the clock, or to see what is kept.

use time::Duration;

use super::*;

fn authority() -> (tempfile::TempDir, Authority) {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::init(dir.path(), "Test CA").unwrap();
    (dir, authority)
}

#[test]
fn a_leaf_serves_until_it_nears_its_end() {
    let (_dir, authority) = authority();
    let now = OffsetDateTime::now_utc();
    let at = |days| {
        authority
            .server_config_at("hub.example", now + Duration::days(days))
            .unwrap()
    };
    let first = at(0);
    assert!(Arc::ptr_eq(&first, &at(19)));
    let second = at(21);
    assert!(!Arc::ptr_eq(&first, &second));
    assert!(Arc::ptr_eq(&second, &at(22)));
    // A clock that was set back far: clients would say that the leaf has not begun.
    assert!(!Arc::ptr_eq(&second, &at(0)));
}

#[test]
fn the_last_leaves_end_with_their_issuer_and_are_kept() {
    let (_dir, authority) = authority();
    let late = authority.end - Duration::days(3);
    let first = authority.server_config_at("hub.example", late).unwrap();
    let again = authority
        .server_config_at("hub.example", late + Duration::days(1))
        .unwrap();
    assert!(Arc::ptr_eq(&first, &again));
    let ended = Authority::load_at(&authority.dir, authority.end).unwrap_err();
    assert!(ended.what().contains("it has ended"), "{ended}");
}

#[test]
fn what_is_kept_is_bounded_and_the_oldest_goes() {
    let (_dir, authority) = authority();
    let first = authority.server_config("first.example").unwrap();
    for at in 0..HOSTS {
        authority.server_config(&format!("h{at}.example")).unwrap();
    }
    assert_eq!(authority.issued.lock().len(), HOSTS);
    assert!(!Arc::ptr_eq(
        &first,
        &authority.server_config("first.example").unwrap()
    ));
}

#[test]
fn one_host_has_one_leaf_however_it_is_written() {
    let (_dir, authority) = authority();
    let one = |a: &str, b: &str| {
        let (a, b) = (authority.server_config(a), authority.server_config(b));
        assert!(Arc::ptr_eq(&a.unwrap(), &b.unwrap()));
    };
    one("hub.example", "HUB.Example.");
    one("[::1]", "::1");
    one("::1", "0:0:0:0:0:0:0:1");
    for bad in [
        "",
        ".",
        "*.example",
        "a b",
        "ümlaut.example",
        "[hub.example]",
        "[::1",
        "a\r\nb",
    ] {
        let error = authority.server_config(bad).unwrap_err();
        assert_eq!(error.who(), pantala_core::Who::Reader, "{bad}");
    }
    assert!(authority.server_config(&"a.".repeat(140)).is_err());
}

#[test]
fn a_key_for_everybody_is_worth_a_warning() {
    use std::{fs, os::unix::fs::PermissionsExt as _};
    let (dir, authority) = authority();
    assert_eq!(files::too_open(&authority.key_path()), None);
    fs::set_permissions(authority.key_path(), fs::Permissions::from_mode(0o640)).unwrap();
    let warning = files::too_open(&authority.key_path()).unwrap();
    assert!(
        warning.contains("ca-key.pem") && warning.contains("640"),
        "{warning}"
    );
    // It is used all the same.
    Authority::load(dir.path()).unwrap();
}
