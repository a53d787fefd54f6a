use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::{Certificates, Content, Process, free_port, http_get, needs::find, until};

/// nginx as an origin, with its own directory and configuration.
///
/// Below `/` are the files. The same below `/slow/`, at 16 MiB/s a connection; below `/moved/`, by
/// a redirect; below `/status/N`, only the status N.
pub struct Nginx {
    // Ends before its directory goes.
    process: Process,
    addr: SocketAddr,
    secure: SocketAddr,
    directory: TempDir,
}

/// One line of nginx's access log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// GET, HEAD, …
    pub method: String,
    /// The path as it was asked for.
    pub path: String,
    /// The response's status.
    pub status: u16,
    /// Bytes of the body that were handed to the connection.
    pub bytes: u64,
    /// The request's `Range`, where it had one.
    pub range: Option<String>,
}

impl Nginx {
    /// Starts it on a free port and waits until it serves.
    ///
    /// # Panics
    /// When it does not.
    pub fn start() -> Self {
        Self::start_with(None)
    }

    /// Starts one that serves the same over HTTPS as well.
    ///
    /// # Panics
    /// When it does not serve.
    pub fn start_secure(certificates: &Certificates) -> Self {
        Self::start_with(Some(certificates))
    }

    fn start_with(certificates: Option<&Certificates>) -> Self {
        // Somebody else may take the port first; then another one does.
        (0..5)
            .find_map(|_| Self::try_start(certificates))
            .expect("nginx on a free port")
    }

    fn try_start(certificates: Option<&Certificates>) -> Option<Self> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(directory.path().join("www")).expect("a directory for files");
        let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let secure = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let tls = certificates.map(|certificates| {
            let (certificate, key) = (certificates.certificate(), certificates.key());
            let (certificate, key) = (certificate.display(), key.display());
            format!(
                "listen {secure} ssl; ssl_certificate {certificate}; ssl_certificate_key {key};"
            )
        });
        let file = directory.path().join("nginx.conf");
        let tls = tls.unwrap_or_default();
        fs::write(&file, configuration(directory.path(), addr, &tls)).expect("a configuration");
        let mut command = Command::new(find("nginx").expect("nginx is installed"));
        command
            .arg("-p")
            .arg(directory.path())
            .arg("-e")
            .arg("stderr")
            .arg("-c")
            .arg(&file);
        let process = Process::start("nginx", command);
        let up = until("nginx", || {
            if !process.is_running() {
                return Some(false);
            }
            http_get(addr, "/connections").map(|_| true)
        });
        if !up {
            assert!(process.stderr().contains("in use"), "{}", process.stderr());
            return None;
        }
        Some(Self {
            process,
            addr,
            secure,
            directory,
        })
    }

    /// Puts a file there.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn put(&self, name: &str, content: &Content) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap_or(&path)).expect("a directory");
        fs::write(&path, content.bytes()).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("www").join(name)
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.addr)
    }

    /// The URL of a path over HTTPS, where it serves that: by a name, since some clients check the
    /// certificate of none but names behind a proxy.
    pub fn secure_url(&self, path: &str) -> String {
        format!("https://localhost:{}/{path}", self.secure.port())
    }

    /// The port for HTTPS.
    pub fn secure_port(&self) -> u16 {
        self.secure.port()
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// What was served so far, after every response under way has ended.
    ///
    /// # Panics
    /// When one does not end.
    pub fn served(&self) -> Vec<Served> {
        until("the end of nginx's transfers", || {
            let (_, body) = http_get(self.addr, "/connections")?;
            let busy = |name: &str| -> Option<u64> {
                let mut words = body.split_whitespace();
                words.find(|word| *word == name)?;
                words.next()?.parse().ok()
            };
            // This request is being answered itself.
            (busy("Writing:")? <= 1 && busy("Reading:")? == 0).then_some(())
        });
        let log = fs::read_to_string(self.directory.path().join("access.log")).unwrap_or_default();
        log.lines().filter_map(served).collect()
    }

    /// Bytes of this path that left so far.
    pub fn bytes_of(&self, path: &str) -> u64 {
        let served = self.served().into_iter();
        served
            .filter(|served| served.path == path && served.status < 300)
            .map(|served| served.bytes)
            .sum()
    }

    /// Bytes of bodies that left so far.
    pub fn bytes_served(&self) -> u64 {
        self.served().iter().map(|served| served.bytes).sum()
    }
}

fn configuration(directory: &Path, addr: SocketAddr, tls: &str) -> String {
    let directory = directory.display();
    let statuses: String = [401, 403, 404, 410, 416, 500, 503]
        .iter()
        .map(|status| format!("location = /status/{status} {{ return {status} \"no\\n\"; }}\n"))
        .collect();
    format!(
        "daemon off;
master_process off;
pid {directory}/pid;
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
    log_format served '$request_method $request_uri $status $body_bytes_sent $http_range';
    access_log {directory}/access.log served;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    default_type application/octet-stream;
    sendfile on;
    tcp_nopush on;
    server {{
        listen {addr};
        {tls}
        root {directory}/www;
        location /slow/ {{ alias {directory}/www/; limit_rate 16m; }}
        location /moved/ {{ rewrite ^/moved/(.*)$ /$1 redirect; }}
        location = /connections {{ stub_status; access_log off; }}
        {statuses}
    }}
}}
"
    )
}

fn served(line: &str) -> Option<Served> {
    let mut words = line.split(' ');
    Some(Served {
        method: words.next()?.to_owned(),
        path: words.next()?.to_owned(),
        status: words.next()?.parse().ok()?,
        bytes: words.next()?.parse().ok()?,
        range: words
            .next()
            .filter(|range| *range != "-")
            .map(str::to_owned),
    })
}
