//! This module judges answers of the origin: whether other readers may have one, and whether it may join a
//! content that its name stands for already. It sends nothing and asks nobody.

use pantala_core::{Class, ContentDigest, ContentMeta};
use pantala_origin::OriginResponse;

use super::Stale;
use crate::{
    key,
    node::{
        ContentRequest, Node,
        admission::{Says, is_evidence},
    },
};

impl Node {
    /// Whether an answer may become part of the content that its name stands for here already, or at
    /// other peers (`stale`): only with the evidence that lets a reader in. A page that somebody answers
    /// with under the same name would lend its headers to the content's bytes. `None` where there is nothing
    /// to join.
    pub(super) fn joins(
        &self,
        response: &OriginResponse,
        stale: Option<&Stale>,
        request: &ContentRequest,
    ) -> Option<bool> {
        let task = key::content(request, &self.inner.config.filter_query)?;
        let says = Says::from(response);
        let here = self.inner.ports.tasks.get(&task);
        let here = here.map(|task| is_evidence(&says, &task.meta.read(), request));
        let there = stale.map(|(_, meta)| is_evidence(&says, meta, request));
        match (here, there) {
            (None, None) => None,
            (here, there) => Some(here.unwrap_or(true) && there.unwrap_or(true)),
        }
    }

    /// Whether others than who asked may have a response, and would want it. `named`: it is taken for the
    /// content that the request names by its digest.
    pub(super) fn is_shareable(
        &self,
        response: &OriginResponse,
        request: &ContentRequest,
        named: bool,
        class: Class,
    ) -> bool {
        let meta = &response.meta;
        if let Some(digest) = request.digest.as_ref().filter(|_| named) {
            return may_be(response, digest);
        }
        // Nothing would tell what is behind other credentials from this.
        let untold = meta.private && meta.validators.strong_etag().is_none();
        // It was let in by what nobody foresaw: it would be taken for everybody's.
        let unforeseen = meta.private && class == Class::Anonymous;
        let page = !request.share_pages && meta.fresh_for.is_none() && is_page(meta);
        response.shareable && !untold && !unforeseen && !page
    }
}

/// Whether an answer may be the content with this digest, as far as its head tells: a page that asks
/// for a password is not.
fn may_be(response: &OriginResponse, digest: &ContentDigest) -> bool {
    match response.digest() {
        Some(said) => said == *digest,
        None => !response.meta.content_type.as_deref().is_some_and(is_html),
    }
}

fn is_html(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("text/html") || kind.eq_ignore_ascii_case("application/xhtml+xml")
}

/// Whether a content is more likely a page that a program made for this request than a file.
fn is_page(meta: &ContentMeta) -> bool {
    const PAGE: u64 = 1 << 20;
    let Some(kind) = &meta.content_type else {
        return false;
    };
    let kind = kind
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    let of_pages = kind.ends_with("+json")
        || kind.ends_with("+xml")
        || matches!(
            kind.as_str(),
            "text/html"
                | "text/css"
                | "text/xml"
                | "text/javascript"
                | "text/event-stream"
                | "application/json"
                | "application/x-ndjson"
                | "application/javascript"
                | "application/xml"
        );
    of_pages && meta.length.is_none_or(|length| length < PAGE)
}
