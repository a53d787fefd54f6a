use std::{
    collections::HashSet,
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use tempfile::TempDir;

/// The service that a registry's tokens are for.
const SERVICE: &str = "registry.example";
/// Who gives them out.
const ISSUER: &str = "tokens.example";

/// A registry's token service: it gives everybody whose name and password it knows what they ask
/// for, and nobody else anything.
pub struct TokenService {
    addr: SocketAddr,
    shared: Arc<Shared>,
    directory: TempDir,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    key: EcdsaKeyPair,
    certificate: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// `NAME:PASSWORD` of those it knows.
    users: HashSet<String>,
    given: Vec<String>,
    refused: usize,
    stopped: bool,
}

impl TokenService {
    /// Starts one that knows this `NAME:PASSWORD`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(user: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate");
        std::fs::write(directory.path().join("tokens.pem"), certificate.pem())
            .expect("a file for a certificate");
        let key = EcdsaKeyPair::from_private_key_der(
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            key.serialized_der(),
        )
        .expect("a key of the kind that was made");
        let shared = Arc::new(Shared {
            key,
            certificate: STANDARD.encode(certificate.der()),
            state: Mutex::default(),
        });
        shared.state().users.insert(user.to_owned());
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port for tokens");
        let addr = listener.local_addr().expect("the address for tokens");
        let serving = shared.clone();
        let acceptor = thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if serving.state().stopped {
                    return;
                }
                // A client that breaks off gets no token.
                let _ = serving.answer(stream);
            }
        });
        Self {
            addr,
            shared,
            directory,
            acceptor: Some(acceptor),
        }
    }

    /// What a registry is to be told of it, as the value of `auth`.
    pub fn settings(&self) -> String {
        let bundle = self.directory.path().join("tokens.pem");
        format!(
            "{{token: {{realm: 'http://{}/token', service: {SERVICE}, issuer: {ISSUER}, \
             rootcertbundle: '{}'}}}}",
            self.addr,
            bundle.display()
        )
    }

    /// The tokens it gave out so far.
    pub fn given(&self) -> Vec<String> {
        self.shared.state().given.clone()
    }

    /// How often it refused.
    pub fn refused(&self) -> usize {
        self.shared.state().refused
    }

    /// A token for pulls, as a client with good credentials gets it, that ends at this time: a
    /// registry takes it for a minute more, for the sake of clocks.
    pub fn token(&self, repository: &str, end: SystemTime) -> String {
        self.shared.token("reader", repository, "pull", end)
    }

    /// Knows nobody any more.
    pub fn forget(&self) {
        self.shared.state().users.clear();
    }
}

impl Drop for TokenService {
    fn drop(&mut self) {
        self.shared.state().stopped = true;
        // Wakes the acceptor.
        let _ = TcpStream::connect(self.addr);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `GET /token?service=…&scope=repository:NAME:pull,push`, with Basic credentials.
    fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let first = lines.next().transpose()?.unwrap_or_default();
        let mut credentials = None;
        for line in lines {
            let line = line?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(": ").unwrap_or_default();
            if name.eq_ignore_ascii_case("authorization") {
                let decoded = value
                    .strip_prefix("Basic ")
                    .map(|text| STANDARD.decode(text));
                credentials = decoded.and_then(|bytes| String::from_utf8(bytes.ok()?).ok());
            }
        }
        let known = credentials.filter(|user| self.state().users.contains(user));
        let (status, body) = match known {
            Some(user) if first.starts_with("GET /token?") => {
                let user = user.split(':').next().unwrap_or_default();
                ("200 OK", self.grant(user, &first))
            }
            _ => {
                self.state().refused += 1;
                let details = r#"{"details":"incorrect username or password"}"#;
                ("401 Unauthorized", details.to_owned())
            }
        };
        write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            body.len()
        )
    }

    fn grant(&self, user: &str, request: &str) -> String {
        let target = request.split(' ').nth(1).unwrap_or_default();
        let query = target.split_once('?').map_or("", |(_, query)| query);
        let scope = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("scope="))
            .unwrap_or_default()
            .replace("%3A", ":")
            .replace("%2F", "/")
            .replace("%2C", ",");
        let mut words = scope.split(':').skip(1);
        let (name, actions) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let end = SystemTime::now() + Duration::from_secs(300);
        let token = self.token(user, name, actions, end);
        let body = format!(r#"{{"token":"{token}","access_token":"{token}","expires_in":300}}"#);
        self.state().given.push(token);
        body
    }

    /// A JSON web token (RFC 7519) with its certificate in the header.
    fn token(&self, user: &str, name: &str, actions: &str, end: SystemTime) -> String {
        let seconds = |time: SystemTime| {
            let since = time.duration_since(UNIX_EPOCH);
            since.map_or(0, |since| since.as_secs())
        };
        let now = seconds(SystemTime::now());
        let actions: Vec<&str> = actions.split(',').collect();
        let header = serde_json::json!({
            "typ": "JWT", "alg": "ES256", "x5c": [self.certificate],
        });
        let claims = serde_json::json!({
            "iss": ISSUER, "aud": SERVICE, "sub": user, "jti": format!("{now}-{name}"),
            "iat": now - 600, "nbf": now - 600, "exp": seconds(end),
            "access": [{"type": "repository", "name": name, "actions": actions}],
        });
        let encode = |json: serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!("{}.{}", encode(header), encode(claims));
        let signature = self
            .key
            .sign(&SystemRandom::new(), signed.as_bytes())
            .expect("a signature");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}
