use std::path::PathBuf;

use pantala_core::{Error, Kind, Result, Who};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio::sync::OnceCell;
use url::Url;

use crate::OriginConfig;

/// What an origin may send of one HTTP/2 stream before it is read. A stalled reader pins as much.
const H2_STREAM_WINDOW: u32 = 1 << 20;
/// The same over all streams of a connection: wide, so that stalled streams do not hold up the
/// others, yet within what a process may use beside its memory budget.
const H2_CONNECTION_WINDOW: u32 = 16 << 20;

/// The connections: one pool for plain HTTP, and one for TLS that is built when it is first
/// needed, because reading the system's certificate authorities takes milliseconds.
pub(crate) struct Transport {
    config: OriginConfig,
    authorities: Vec<CertificateDer<'static>>,
    plain: reqwest::Client,
    secure: OnceCell<reqwest::Client>,
}

impl Transport {
    pub(crate) fn new(config: OriginConfig) -> Result<Self> {
        let mut authorities = Vec::new();
        for path in &config.ca {
            authorities.extend(read_authorities(path)?);
        }
        // No authority is trusted here, so that even a mistake could not speak TLS with this one.
        let plain = builder(&config)
            .tls_certs_only([])
            .build()
            .map_err(|error| cannot_build(&error))?;
        Ok(Self {
            config,
            authorities,
            plain,
            secure: OnceCell::new(),
        })
    }

    pub(crate) fn config(&self) -> &OriginConfig {
        &self.config
    }

    /// The pool for plain HTTP.
    pub(crate) fn plain(&self) -> &reqwest::Client {
        &self.plain
    }

    /// The pool that speaks the scheme of `url`.
    ///
    /// # Errors
    /// `BadInput` for a scheme other than http and https, `Tls` when there is no authority to
    /// trust.
    pub(crate) async fn for_url(&self, url: &Url) -> Result<&reqwest::Client> {
        match url.scheme() {
            "http" => Ok(&self.plain),
            "https" => self.secure.get_or_try_init(|| self.build_secure()).await,
            scheme => Err(Error::new(
                Who::User,
                Kind::BadInput,
                format!("cannot read from {scheme} URLs"),
            )
            .hint("use an http or https URL")),
        }
    }

    async fn build_secure(&self) -> Result<reqwest::Client> {
        let mut builder = builder(&self.config);
        let mut extra = Vec::new();
        for authority in &self.authorities {
            extra.push(
                reqwest::Certificate::from_der(authority).map_err(|error| cannot_build(&error))?,
            );
        }
        builder = builder.tls_certs_merge(extra);
        tokio::task::spawn_blocking(move || builder.build())
            .await
            .map_err(|error| Error::new(Who::Us, Kind::Internal, error.to_string()))?
            .map_err(|error| {
                let what = format!("cannot prepare TLS: {}", cause(&error));
                Error::new(Who::Us, Kind::Tls, what)
                    .hint("install the system's certificate authorities, or name one with --ca")
            })
    }
}

fn builder(config: &OriginConfig) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .no_proxy()
        // Redirects are followed by `exchange`, which knows what must not follow along.
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        // Bytes as they were sent, whatever features another crate turns on.
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .no_deflate()
        .tcp_nodelay(true)
        .connect_timeout(config.connect_timeout)
        // reqwest's own read timeout also runs while nobody reads: a paused reader would break it.
        .http2_initial_stream_window_size(H2_STREAM_WINDOW)
        .http2_initial_connection_window_size(H2_CONNECTION_WINDOW)
}

fn read_authorities(path: &PathBuf) -> Result<Vec<CertificateDer<'static>>> {
    let bad = |why: String| {
        let what = format!(
            "cannot use {} as a certificate authority: {why}",
            path.display()
        );
        Error::new(Who::User, Kind::BadInput, what)
            .hint("--ca takes a file with certificates in PEM form")
    };
    let pem = std::fs::read(path).map_err(|error| bad(error.to_string()))?;
    let authorities = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| bad(error.to_string()))?;
    if authorities.is_empty() {
        return Err(bad("it holds no certificate".to_owned()));
    }
    let mut store = RootCertStore::empty();
    for authority in &authorities {
        store
            .add(authority.clone())
            .map_err(|error| bad(error.to_string()))?;
    }
    Ok(authorities)
}

fn cannot_build(error: &reqwest::Error) -> Error {
    let what = format!("cannot set up the HTTP client: {}", cause(error));
    Error::new(Who::Us, Kind::Internal, what)
}

fn cause(error: &reqwest::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}
