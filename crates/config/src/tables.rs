//! What only the file of `dfdaemon` can say: its `[upstream."NAME"]` tables and `[[rule]]` list.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use globset::{Glob, GlobBuilder};
use pantala_core::Error;
use serde::Deserialize;
use toml::Spanned;
use url::Url;

use crate::{
    flag::Bad,
    sources::bad_input,
    types::{Action, Rule, Upstream},
    value,
};

/// The keys of the file that hold tables.
pub(crate) const TABLES: [&str; 2] = ["upstream", "rule"];

/// The tables of a file.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tables {
    pub(crate) upstreams: Vec<Upstream>,
    pub(crate) rules: Vec<Rule>,
}

/// Only the tables: the other keys are the flags'.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    upstream: BTreeMap<Spanned<String>, UpstreamTable>,
    #[serde(default)]
    rule: Vec<RuleTable>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct UpstreamTable {
    url: Option<Spanned<String>>,
    #[serde(default)]
    ca: Vec<PathBuf>,
    client_cert: Option<PathBuf>,
    client_key: Option<PathBuf>,
    username: Option<String>,
    password: Option<Secret>,
    password_file: Option<PathBuf>,
    #[serde(default)]
    anonymous: bool,
    #[serde(default)]
    cleartext_credentials: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RuleTable {
    host: Option<Spanned<String>>,
    path: Option<Spanned<String>>,
    action: Spanned<String>,
    to: Option<Spanned<String>>,
}

/// Never shown.
#[derive(Deserialize)]
struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// Reads the tables of `text`. `fail` makes an error of an offset in it, what is wrong, and what
/// is allowed.
pub(crate) fn read(
    text: &str,
    fail: impl Fn(usize, String, String) -> Error,
) -> Result<Tables, Error> {
    let file: File = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let what = error.message().trim().replace('\n', ", ");
        fail(at, what, "see docs/configuration.md".to_owned())
    })?;
    let mut tables = Tables::default();
    for (name, table) in file.upstream {
        let at = name.span().start;
        let name = name.into_inner();
        let upstream = upstream(&name, table).map_err(|bad| {
            let what = format!("upstream {name:?}: {}", bad.what);
            fail(at, what, bad.allowed)
        })?;
        tables.upstreams.push(upstream);
    }
    for table in file.rule {
        let at = table.action.span().start;
        let rule = rule(table).map_err(|bad| {
            let what = format!("rule: {}", bad.what);
            fail(at, what, bad.allowed)
        })?;
        tables.rules.push(rule);
    }
    Ok(tables)
}

fn upstream(name: &str, table: UpstreamTable) -> Result<Upstream, Bad> {
    let name = value::registry_name(name)?;
    let url = match table.url {
        Some(url) => value::upstream(url.as_ref())?,
        None => default_url(&name)?,
    };
    let client_cert = match (table.client_cert, table.client_key) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        _ => {
            return Err(Bad::new(
                "half of a client certificate",
                "give both client-cert and client-key",
            ));
        }
    };
    let password = match (table.password, table.password_file) {
        (Some(_), Some(_)) => {
            return Err(Bad::new(
                "two passwords",
                "give password or password-file, not both",
            ));
        }
        (Some(Secret(password)), None) => Some(password),
        (None, Some(path)) => Some(password_of(&path)?),
        (None, None) => None,
    };
    let credentials = match (table.username, password) {
        (Some(username), Some(password)) => Some((username, password)),
        (None, None) => None,
        _ => {
            return Err(Bad::new(
                "half of the credentials",
                "give both username and password (or password-file)",
            ));
        }
    };
    Ok(Upstream {
        name,
        url,
        ca: table.ca,
        client_cert,
        credentials,
        anonymous: table.anonymous,
        cleartext_credentials: table.cleartext_credentials,
    })
}

/// Where a registry that is known by its name alone is: what every client takes for granted.
pub(crate) fn default_url(name: &str) -> Result<Url, Bad> {
    value::upstream(&format!("https://{name}"))
}

fn password_of(path: &PathBuf) -> Result<String, Bad> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Bad::new(
            format!("password-file {} cannot be read, {error}", path.display()),
            "check the path and who may read it",
        )
    })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn rule(table: RuleTable) -> Result<Rule, Bad> {
    let host = table.host.as_ref().map_or("*", |host| host.as_ref());
    let path = table.path.as_ref().map_or("/**", |path| path.as_ref());
    let to = table.to.map(Spanned::into_inner);
    let action = match (table.action.as_ref().as_str(), to) {
        ("stream", None) => Action::Stream,
        ("direct", None) => Action::Direct,
        ("refuse", None) => Action::Refuse,
        ("redirect", Some(to)) => Action::Redirect(value::upstream(&to)?),
        ("redirect", None) => {
            return Err(Bad::new(
                "a redirect to nowhere",
                "give to = \"https://other.example\"",
            ));
        }
        ("stream" | "direct" | "refuse", Some(_)) => {
            return Err(Bad::new(
                "to = … goes with action = \"redirect\" only",
                "leave it out",
            ));
        }
        (other, _) => {
            return Err(Bad::new(
                format!("{other:?} is not an action"),
                "give stream, direct, redirect or refuse",
            ));
        }
    };
    if !path.starts_with('/') && !path.starts_with('*') {
        return Err(Bad::new(
            format!("the path {path:?} matches nothing"),
            "begin it with / or *",
        ));
    }
    Ok(Rule {
        host: pattern(&host.to_ascii_lowercase(), false)?,
        path: pattern(path, true)?,
        action,
    })
}

/// A pattern: `*` stands for anything but a slash in a path, `**` for anything.
pub(crate) fn pattern(text: &str, path: bool) -> Result<Glob, Bad> {
    GlobBuilder::new(text)
        .literal_separator(path)
        .backslash_escape(true)
        .build()
        .map_err(|error| {
            Bad::new(
                format!("{text:?} is not a pattern, {}", error.kind()),
                "write it like *.example or /models/**",
            )
        })
}

/// An error in the file at a line.
pub(crate) fn in_file(
    path: &std::path::Path,
    text: &str,
) -> impl Fn(usize, String, String) -> Error {
    let (path, text) = (path.display().to_string(), text.to_owned());
    move |at, what, allowed| {
        let line = 1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count();
        bad_input(format!("{path}:{line}: {what}"), allowed)
    }
}
