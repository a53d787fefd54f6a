//! What needs credentials goes to those who have them, and to nobody else.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use pantala_e2e::{
    Answer, Certificates, Containerd, Content, Dfdaemon, Htpasswd, Image, MIB, Need, Podman,
    READER, Registry, Setup, Supernode, TokenService, WRITER, ask, login, needs, until,
};

const REGISTRY: Need = Need::Program("docker-registry");
const SKOPEO: Need = Need::Program("skopeo");
const NAME: &str = "team/private:v1";
const REFERENCE: &str = "registry.example/team/private:v1";

fn blob_target(blob: &Content) -> String {
    format!("/v2/team/private/blobs/sha256:{}", blob.sha256())
}

fn basic(user: (&str, &str)) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    format!("Basic {}", STANDARD.encode(login(user)))
}

/// A registry with an image, and two hosts in front of it that log all they can.
struct Private {
    image: Image,
    registry: Registry,
    supernode: Supernode,
    daemons: Vec<Dfdaemon>,
    _certificates: Option<Certificates>,
}

impl Private {
    fn start(seed: u64, auth: String, certificates: Option<Certificates>) -> Self {
        let registry = Registry::start_with(&Setup {
            tls: certificates.as_ref(),
            auth: Some(auth),
        });
        let image = Image::new(seed, &[5 * MIB, 30_000]);
        let creds = ["--dest-creds", &login(READER)];
        Registry::push_to(registry.addr(), &image, NAME, &creds);
        let supernode = Supernode::start_with(&["--log", "trace"]);
        let (url, ca) = (registry.url(), certificates.as_ref());
        let ca = ca.map(|certificates| certificates.authority().display().to_string());
        let mut flags = vec!["--mirror", &url, "--remember-auth", "1s", "--log", "trace"];
        if let Some(ca) = &ca {
            flags.extend(["--ca", ca]);
        }
        let daemons = (0..2).map(|_| Dfdaemon::start(&supernode, &flags));
        Self {
            daemons: daemons.collect(),
            image,
            registry,
            supernode,
            _certificates: certificates,
        }
    }

    /// Asks a host for a blob.
    fn blob(&self, host: usize, blob: &Content, authorization: Option<&str>) -> Answer {
        let target = blob_target(blob);
        let headers = authorization.map(|value| ("Authorization", value));
        let headers: Vec<(&str, &str)> = headers.into_iter().collect();
        ask(self.daemons[host].addr(), "GET", &target, &headers, b"")
    }

    /// A host pulls with skopeo, all of it.
    fn pull(&self, host: usize) {
        let directory = tempfile::tempdir().unwrap();
        let creds = ["--src-creds", &login(READER)];
        let from = self.daemons[host].addr();
        let done = Registry::start_pull_with(from, NAME, directory.path(), &creds).wait();
        assert_eq!(done.code, 0, "{}", done.stderr);
        self.image.assert_pulled(directory.path());
    }

    /// Who may not have it gets the registry's refusal and nothing else, whichever way they ask.
    fn assert_refused(&self, host: usize, authorization: Option<&str>) {
        for blob in self.image.blobs() {
            assert_refusal(&self.blob(host, blob, authorization));
            let (addr, target) = (self.daemons[host].addr(), blob_target(blob));
            let headers: Vec<(&str, &str)> = authorization
                .map(|value| ("Authorization", value))
                .into_iter()
                .collect();
            let head = ask(addr, "HEAD", &target, &headers, b"");
            assert_eq!((head.status, head.header("etag")), (401, None));
            let part = [headers.as_slice(), &[("Range", "bytes=5-9")]].concat();
            assert_refusal(&ask(addr, "GET", &target, &part, b""));
        }
        let manifest = self.image.manifest();
        for reference in ["v1".to_owned(), format!("sha256:{}", manifest.sha256())] {
            let target = format!("/v2/team/private/manifests/{reference}");
            let headers = authorization.map(|value| ("Authorization", value));
            let headers: Vec<(&str, &str)> = headers.into_iter().collect();
            let addr = self.daemons[host].addr();
            assert_refusal(&ask(addr, "GET", &target, &headers, b""));
            assert_eq!(ask(addr, "HEAD", &target, &headers, b"").status, 401);
        }
    }

    /// None of the programs has written down any of these.
    fn assert_unsaid(&self, secrets: &[String]) {
        let programs = self.daemons.iter().map(Dfdaemon::process);
        for process in programs.chain([self.supernode.process()]) {
            let said = process.stderr();
            assert!(said.contains("TRACE") || said.contains("DEBUG"), "{said}");
            for secret in secrets {
                let line = said.lines().find(|line| line.contains(secret.as_str()));
                assert_eq!(line, None, "{secret}");
            }
        }
    }
}

/// The answer is a registry's list of errors, and there is not a byte besides.
#[track_caller]
fn assert_refusal(answer: &Answer) {
    assert_eq!(answer.status, 401);
    assert!(answer.whole);
    assert_eq!(answer.all("www-authenticate").len(), 1, "{answer:?}");
    let text = answer.text();
    let told: serde_json::Value = serde_json::from_str(&text).expect(&text);
    assert_eq!(told["errors"][0]["code"], "UNAUTHORIZED", "{text}");
    assert_eq!(told.as_object().unwrap().len(), 1, "{text}");
}

#[test]
fn a_private_image_is_for_those_with_a_password() {
    needs!(REGISTRY, SKOPEO);
    let users = Htpasswd::new();
    let private = Private::start(300, users.settings(), None);
    private.pull(0);
    let manifests = |private: &Private| private.registry.requests().len();
    assert!(manifests(&private) > 0);

    let wrong = basic((READER.0, "wrong-horse-8"));
    let nobody = basic(("nobody", READER.1));
    for host in 0..2 {
        private.assert_refused(host, None);
        private.assert_refused(host, Some(&wrong));
        private.assert_refused(host, Some(&nobody));
    }
    // Who has one shares what the other host holds.
    private.pull(1);
    private.registry.assert_read_once(&private.image, 2);
    private.assert_refused(1, None);

    let encoded = |user| basic(user).replace("Basic ", "");
    private.assert_unsaid(&[
        READER.1.to_owned(),
        encoded(READER),
        wrong.replace("Basic ", ""),
    ]);
}

#[test]
fn who_loses_access_at_the_registry_loses_it_here() {
    needs!(REGISTRY, SKOPEO);
    let users = Htpasswd::new();
    let private = Private::start(310, users.settings(), None);
    private.pull(0);
    private.pull(1);
    let (reader, writer) = (basic(READER), basic(WRITER));
    let blobs = private.image.blobs();
    for host in 0..2 {
        for user in [&reader, &writer] {
            let answer = private.blob(host, &blobs[0], Some(user));
            assert_eq!(answer.status, 200, "{}", answer.text());
            blobs[0].assert_bytes(&answer.body);
        }
    }
    users.revoke_reader();
    for host in 0..2 {
        for blob in blobs {
            until("a refusal", || {
                let answer = private.blob(host, blob, Some(&reader));
                if answer.status == 200 {
                    blob.assert_bytes(&answer.body);
                }
                (answer.status == 401).then_some(())
            });
        }
        private.assert_refused(host, Some(&reader));
        let answer = private.blob(host, &blobs[0], Some(&writer));
        assert_eq!(answer.status, 200, "{}", answer.text());
        blobs[0].assert_bytes(&answer.body);
    }
    private.registry.assert_read_once(&private.image, 2);
}

#[test]
fn tokens_are_the_clients_own() {
    needs!(REGISTRY, SKOPEO);
    let tokens = TokenService::start(&login(READER));
    let private = Private::start(320, tokens.settings(), Some(Certificates::new()));
    private.pull(0);
    private.pull(1);
    private.registry.assert_read_once(&private.image, 2);
    // The challenge is the registry's own, and so the client finds the service.
    let blob = &private.image.blobs()[0];
    let challenge = private.blob(1, blob, None);
    let said = challenge.header("www-authenticate").unwrap_or_default();
    for part in [
        "Bearer realm=",
        "/token",
        "scope=\"repository:team/private:pull\"",
    ] {
        assert!(said.contains(part), "{said}");
    }
    private.assert_refused(1, None);
    let other = format!("Bearer {}", tokens.token("team/other", soon()));
    private.assert_refused(1, Some(&other));
    private.assert_refused(0, Some("Bearer not.a.token"));

    let token = tokens.token("team/private", soon());
    let answer = private.blob(1, blob, Some(&format!("Bearer {token}")));
    assert_eq!(answer.status, 200, "{}", answer.text());
    blob.assert_bytes(&answer.body);

    let given = tokens.given();
    assert!(given.len() >= 2, "each client asks for its own: {given:?}");
    let mut secrets: Vec<String> = given.iter().map(|token| signature(token)).collect();
    secrets.extend([signature(&token), READER.1.to_owned()]);
    private.assert_unsaid(&secrets);
}

/// Of a token only this is worth anything.
fn signature(token: &str) -> String {
    token.rsplit('.').next().unwrap_or_default().to_owned()
}

fn soon() -> SystemTime {
    SystemTime::now() + Duration::from_secs(300)
}

#[test]
fn a_token_that_ends_lets_nobody_in() {
    needs!(REGISTRY, SKOPEO);
    let tokens = TokenService::start(&login(READER));
    let private = Private::start(330, tokens.settings(), None);
    private.pull(0);
    // The registry forgives a minute.
    let nearly = SystemTime::now() - Duration::from_secs(57);
    let token = format!("Bearer {}", tokens.token("team/private", nearly));
    let blob = &private.image.blobs()[0];
    let answer = private.blob(1, blob, Some(&token));
    assert_eq!(answer.status, 200, "{}", answer.text());
    blob.assert_bytes(&answer.body);
    until("the end of the token", || {
        let answer = private.blob(1, blob, Some(&token));
        (answer.status == 401).then_some(())
    });
    private.assert_refused(1, Some(&token));

    tokens.forget();
    let directory = tempfile::tempdir().unwrap();
    let creds = ["--src-creds", &login(READER)];
    let from = private.daemons[0].addr();
    let done = Registry::start_pull_with(from, NAME, directory.path(), &creds).wait();
    assert_ne!(done.code, 0);
    assert!(tokens.refused() > 0);
}

/// A dfdaemon with credentials of its own pulls for clients that have none.
fn own_credentials(seed: u64, auth: String, token_service: Option<&TokenService>) {
    let certificates = Certificates::new();
    let registry = Registry::start_with(&Setup {
        tls: Some(&certificates),
        auth: Some(auth),
    });
    let image = Image::new(seed, &[3 * MIB, 30_000]);
    let creds = ["--dest-creds", &login(READER)];
    Registry::push_to(registry.addr(), &image, NAME, &creds);
    let directory = tempfile::tempdir().unwrap();
    let password = directory.path().join("password");
    fs::write(&password, READER.1).unwrap();
    let file = directory.path().join("dfdaemon.toml");
    let table = format!(
        "[upstream.\"registry.example\"]\nurl = \"{}\"\nca = [\"{}\"]\n\
         username = \"{}\"\npassword-file = \"{}\"\n",
        registry.url(),
        certificates.authority().display(),
        READER.0,
        password.display()
    );
    fs::write(&file, table).unwrap();
    let file = file.display().to_string();
    let daemon = Dfdaemon::start_alone(&["--config", &file, "--log", "trace"]);
    let to = directory.path().join("image");
    let name = format!("registry.example/{NAME}");
    let done = Registry::start_pull(daemon.addr(), &name, &to).wait();
    assert_eq!(done.code, 0, "{}", done.stderr);
    image.assert_pulled(&to);
    registry.assert_read_once(&image, 1);
    let mut secrets = vec![READER.1.to_owned(), basic(READER).replace("Basic ", "")];
    let given = token_service.map(TokenService::given).unwrap_or_default();
    secrets.extend(given.iter().map(|token| signature(token)));
    let said = daemon.process().stderr();
    for secret in secrets {
        assert!(!said.contains(&secret), "{secret} stands in the log");
    }
}

#[test]
fn a_host_has_a_password_of_its_own() {
    needs!(REGISTRY, SKOPEO);
    let users = Htpasswd::new();
    own_credentials(360, users.settings(), None);
}

#[test]
fn a_host_has_tokens_of_its_own() {
    needs!(REGISTRY, SKOPEO);
    let tokens = TokenService::start(&login(READER));
    own_credentials(370, tokens.settings(), Some(&tokens));
}

/// `registries.conf` with a mirror.
fn registries(daemon: &Dfdaemon) -> String {
    format!(
        "[[registry]]\nlocation = \"registry.example\"\n\
         [[registry.mirror]]\nlocation = \"{}\"\ninsecure = true\n",
        daemon.addr()
    )
}

/// Runtimes log in with what they are given, as at the registry itself.
fn runtimes_log_in(private: &Private) {
    let containerd = Containerd::start();
    containerd.set_mirror("registry.example", private.daemons[0].addr());
    let refused = containerd.start_pull(REFERENCE, &[]).wait();
    assert_ne!(refused.code, 0, "without credentials");
    let user = ["--user", &login(READER)];
    let done = containerd.start_pull(REFERENCE, &user).wait();
    assert_eq!(done.code, 0, "{}", done.stderr);
    containerd.assert_pulled(&private.image);

    let podman = Podman::new(&registries(&private.daemons[1]));
    let mirror = private.daemons[1].addr().to_string();
    podman.log_in(&mirror, &login((READER.0, "wrong-horse-8")));
    assert_ne!(podman.start_pull(REFERENCE, &[]).wait().code, 0);
    podman.log_in(&mirror, &login(READER));
    let done = podman.start_pull(REFERENCE, &[]).wait();
    assert_eq!(done.code, 0, "{}", done.stderr);
    podman.assert_pulled(&private.image, REFERENCE);
    private.registry.assert_read_once(&private.image, 2);
    private.assert_unsaid(&[READER.1.to_owned(), basic(READER).replace("Basic ", "")]);
}

#[test]
fn runtimes_log_in_with_a_password() {
    needs!(REGISTRY, SKOPEO, Need::Root, Need::Mounts);
    needs!(
        Need::Program("containerd"),
        Need::Program("ctr"),
        Need::Program("podman")
    );
    let users = Htpasswd::new();
    let private = Private::start(340, users.settings(), Some(Certificates::new()));
    runtimes_log_in(&private);
}

#[test]
fn runtimes_log_in_with_a_token() {
    needs!(REGISTRY, SKOPEO, Need::Root, Need::Mounts);
    needs!(
        Need::Program("containerd"),
        Need::Program("ctr"),
        Need::Program("podman")
    );
    let tokens = TokenService::start(&login(READER));
    let private = Private::start(350, tokens.settings(), Some(Certificates::new()));
    runtimes_log_in(&private);
}
