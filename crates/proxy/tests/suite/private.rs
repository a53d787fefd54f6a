//! Content that is not for everybody.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::support::{Daemon, Origin, Reply, Seen, content, get};

/// A file for whoever sends the right credentials, of each kind.
async fn guarded(file: Vec<u8>, open: Arc<AtomicBool>) -> Origin {
    Origin::new(move |seen| {
        let by_header = seen.header("authorization") == Some("Bearer good")
            || seen.header("cookie") == Some("session=good");
        let by_url = seen.target.contains("X-Amz-Signature=good");
        match open.load(Ordering::SeqCst) && (by_header || by_url) {
            true => Reply::file(seen, &file),
            false => Reply::new("401 Unauthorized", "no")
                .header("WWW-Authenticate", "Bearer realm=\"x\""),
        }
    })
    .await
}

fn gets(origin: &Origin) -> usize {
    let is_whole = |seen: &&Seen| seen.method == "GET" && seen.header("range").is_none();
    origin.seen().iter().filter(is_whole).count()
}

#[tokio::test]
async fn a_reader_without_credentials_gets_not_a_byte() {
    let file = content(3_000_000);
    let origin = guarded(file.clone(), Arc::new(true.into())).await;
    let daemon = Daemon::start().await;
    let url = origin.url("/f");
    let warm = get(daemon.addr, url.as_str(), "Authorization: Bearer good").await;
    assert!(warm.complete && warm.body == file);
    for headers in ["", "Authorization: Bearer bad", "Cookie: session=bad"] {
        let denied = get(daemon.addr, url.as_str(), headers).await;
        assert_eq!(
            (denied.status, denied.text().as_str()),
            (401, "no"),
            "{headers}"
        );
        assert_eq!(
            denied.header("www-authenticate"),
            Some("Bearer realm=\"x\"")
        );
    }
    // Who has them, of whatever kind, takes it from memory: one question each.
    let cookie = get(daemon.addr, url.as_str(), "Cookie: session=good").await;
    assert!(cookie.complete && cookie.body == file);
    let again = get(daemon.addr, url.as_str(), "Cookie: session=good").await;
    assert!(again.complete && again.body == file);
    // Beside the content there are refusals at most, of two bytes each.
    let received = daemon.node.totals().origin_received;
    assert!((3_000_000..=3_000_006).contains(&received), "{received}");
    let cookies = origin
        .seen()
        .iter()
        .filter(|seen| seen.header("cookie") == Some("session=good"))
        .count();
    assert_eq!(cookies, 1);
    daemon.stop().await;
}

#[tokio::test]
async fn signed_urls_of_one_content_share_it() {
    let file = content(3_000_000);
    let origin = guarded(file.clone(), Arc::new(true.into())).await;
    let daemon = Daemon::start().await;
    for date in ["1", "2", "3"] {
        let path = format!("/f?X-Amz-Date={date}&X-Amz-Signature=good");
        let answer = get(daemon.addr, origin.url(&path).as_str(), "").await;
        assert!(answer.complete && answer.body == file);
    }
    let forged = origin.url("/f?X-Amz-Date=4&X-Amz-Signature=bad");
    assert_eq!(get(daemon.addr, forged.as_str(), "").await.status, 401);
    assert_eq!(
        gets(&origin),
        2,
        "one for the content, one for the refusal's own words"
    );
    daemon.stop().await;
}

#[tokio::test]
async fn access_that_was_revoked_is_lost_in_time() {
    let open = Arc::new(AtomicBool::new(true));
    let file = content(1_000_000);
    let origin = guarded(file.clone(), open.clone()).await;
    // Each request is asked for: revoked at once.
    let daemon = Daemon::of(|node| node.remember_admission = Duration::ZERO, |_| {}).await;
    let url = origin.url("/f");
    let credentials = "Authorization: Bearer good";
    for _ in 0..2 {
        assert!(get(daemon.addr, url.as_str(), credentials).await.body == file);
    }
    open.store(false, Ordering::SeqCst);
    assert_eq!(
        get(daemon.addr, url.as_str(), credentials).await.status,
        401
    );
    daemon.stop().await;
}

#[tokio::test]
async fn what_differs_by_reader_is_told_apart() {
    // No word of it in the headers but the entity tag.
    let origin = Origin::new(|seen| {
        let who = seen.header("authorization").unwrap_or("nobody").to_owned();
        let tag = format!("\"{who}\"");
        Reply::new("200 OK", who).header("ETag", &tag)
    })
    .await;
    let daemon = Daemon::start().await;
    for who in ["Bearer a", "Bearer b", "Bearer a"] {
        let answer = get(
            daemon.addr,
            origin.url("/f").as_str(),
            &format!("Authorization: {who}"),
        )
        .await;
        assert_eq!(answer.text(), who);
    }
    daemon.stop().await;
}

#[tokio::test]
async fn what_cannot_be_told_apart_is_not_shared() {
    let origin = Origin::new(|seen| {
        let who = seen.header("cookie").unwrap_or("nobody").to_owned();
        Reply::new("200 OK", who)
    })
    .await;
    let daemon = Daemon::start().await;
    for who in ["a=1", "a=2", "a=1"] {
        let answer = get(
            daemon.addr,
            origin.url("/f").as_str(),
            &format!("Cookie: {who}"),
        )
        .await;
        assert_eq!(answer.text(), who);
    }
    assert_eq!(origin.seen().len(), 3);
    assert_eq!(daemon.node.streams().await.len(), 0);
    daemon.stop().await;
}
