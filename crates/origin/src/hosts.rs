use pantala_core::{Error, Kind, Result, Who};
use url::{Host, Url};

use crate::{Credentials, HostConfig, asker::is_here};

/// What is set up for single hosts, found by who is asked.
pub(crate) struct Hosts(Vec<Entry>);

struct Entry {
    host: Host,
    /// Every port when `None`.
    port: Option<u16>,
    config: HostConfig,
}

impl Hosts {
    /// # Errors
    /// `BadInput` for what is no host, and for one that is named twice.
    pub(crate) fn new(configs: &[HostConfig]) -> Result<Self> {
        let mut entries: Vec<Entry> = Vec::new();
        for config in configs {
            let bad = |why: &str| {
                let what = format!("cannot use the settings of host {:?}: {why}", config.host);
                Error::new(Who::User, Kind::BadInput, what).hint("name it as HOST or HOST:PORT")
            };
            let (host, port) = parse(&config.host).ok_or_else(|| bad("that is no host"))?;
            let named = |ours: &Credentials| !ours.username.contains(':');
            if !config.credentials.as_ref().is_none_or(named) {
                return Err(bad("the user name has a colon in it"));
            }
            if config.ca_only && config.ca.is_empty() {
                return Err(bad("it would trust no certificate authority"));
            }
            if entries
                .iter()
                .any(|entry| entry.host == host && entry.port == port)
            {
                return Err(bad("it is named twice"));
            }
            entries.push(Entry {
                host,
                port,
                config: config.clone(),
            });
        }
        Ok(Self(entries))
    }

    pub(crate) fn configs(&self) -> impl Iterator<Item = &HostConfig> {
        self.0.iter().map(|entry| &entry.config)
    }

    /// The settings for who stands at `host` (as in a URL) and `port`, and their place among all.
    /// Those for the very port come before those for every port.
    pub(crate) fn find(&self, host: &str, port: u16) -> Option<(usize, &HostConfig)> {
        if self.0.is_empty() {
            return None;
        }
        let host = Host::parse(host).ok()?;
        let of = |wanted: Option<u16>| {
            let mut entries = self.0.iter();
            entries.position(|entry| entry.host == host && entry.port == wanted)
        };
        let index = of(Some(port)).or_else(|| of(None))?;
        Some((index, &self.0[index].config))
    }

    pub(crate) fn of(&self, url: &Url) -> Option<(usize, &HostConfig)> {
        self.find(url.host_str()?, url.port_or_known_default()?)
    }
}

/// Reads `HOST` or `HOST:PORT`; IPv6 addresses stand in brackets.
fn parse(text: &str) -> Option<(Host, Option<u16>)> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !text.ends_with(']') => (host, Some(port.parse().ok()?)),
        _ => (text, None),
    };
    Some((Host::parse(host).ok()?, port))
}

/// Whether what is sent there stays on this machine, as far as the URL tells: where a name of any other
/// form leads to is known only when a connection is made ([`Asker`](crate::Asker)).
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => is_here(address.into()),
        Some(Host::Ipv6(address)) => is_here(address.into()),
        Some(Host::Domain(name)) => {
            let name = name.strip_suffix('.').unwrap_or(name);
            name == "localhost" || name.ends_with(".localhost")
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(names: &[&str]) -> Result<Hosts> {
        let configs: Vec<HostConfig> = names
            .iter()
            .map(|name| HostConfig {
                host: (*name).to_owned(),
                ..HostConfig::default()
            })
            .collect();
        Hosts::new(&configs)
    }

    #[test]
    fn the_very_port_comes_before_every_port() {
        let hosts = hosts(&[
            "Registry.Example",
            "registry.example:5000",
            "[::1]:80",
            "10.0.0.1",
        ])
        .unwrap();
        for (url, index) in [
            ("https://registry.example/v2/", Some(0)),
            ("http://REGISTRY.example:5000/", Some(1)),
            ("http://[::1]/", Some(2)),
            ("https://[::1]/", None),
            ("http://10.0.0.1:8080/", Some(3)),
            ("http://hub.example/", None),
        ] {
            let found = hosts.of(&url.parse().unwrap()).map(|(index, _)| index);
            assert_eq!(found, index, "{url}");
        }
    }

    #[test]
    fn this_machine_has_many_names() {
        for (url, here) in [
            ("http://localhost:5000/", true),
            ("http://LOCALHOST./", true),
            ("http://x.localhost/", true),
            ("http://127.1:5000/", true),
            ("http://0x7f000001/", true),
            ("http://0/", true),
            ("http://[::1]/", true),
            ("http://[::]/", true),
            ("http://[::ffff:127.0.0.1]/", true),
            ("http://10.0.0.1/", false),
            ("http://notlocalhost/", false),
            ("http://localhost.example/", false),
        ] {
            assert_eq!(is_loopback(&url.parse().unwrap()), here, "{url}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for names in [
            &[""][..],
            &["https://registry.example"],
            &["registry.example/v2"],
            &["registry.example:port"],
            &["::1"],
            &["registry.example", "REGISTRY.example"],
        ] {
            assert!(hosts(names).is_err(), "{names:?}");
        }
    }
}
