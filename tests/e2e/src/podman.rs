use std::{fs, process::Command};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Image, Process, needs::find, process::with_own_mounts};

/// podman with storage of its own, and the registries it is told of.
pub struct Podman {
    directory: TempDir,
}

impl Podman {
    /// One that has pulled nothing yet. `registries` is its `registries.conf`.
    ///
    /// # Panics
    /// When its files cannot be written.
    pub fn new(registries: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let write = |name: &str, text: &str| {
            fs::write(directory.path().join(name), text).expect("a configuration");
        };
        write("registries.conf", registries);
        write(
            "policy.json",
            r#"{"default":[{"type":"insecureAcceptAnything"}]}"#,
        );
        // Nobody's login but what the test says.
        write("auth.json", "{}");
        // Locks in files: those in shared memory would stay when it is gone.
        let networks = directory.path().join("networks");
        let settings = format!(
            "[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\n\
             lock_type = \"file\"\n[network]\nnetwork_config_dir = \"{}\"\n",
            networks.display()
        );
        write("containers.conf", &settings);
        Self { directory }
    }

    /// Logs in, as `podman login` does. What a pull is given for the registry itself does not go
    /// to its mirrors.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn log_in(&self, host: &str, user: &str) {
        let auth = STANDARD.encode(user);
        let logins = json!({"auths": {host: {"auth": auth}}});
        fs::write(self.directory.path().join("auth.json"), logins.to_string()).expect("a login");
    }

    /// Starts `podman pull`.
    pub fn start_pull(&self, reference: &str, flags: &[&str]) -> Process {
        let policy = self.directory.path().join("policy.json");
        let mut command = self.podman(&["pull", "--quiet", "--signature-policy"]);
        command.arg(policy).args(flags).arg(reference);
        Process::start("podman", command)
    }

    fn podman(&self, arguments: &[&str]) -> Command {
        let at = |name: &str| self.directory.path().join(name);
        let mut command = Command::new(find("podman").expect("podman is installed"));
        command
            .arg("--root")
            .arg(at("root"))
            .arg("--runroot")
            .arg(at("run"))
            .arg("--tmpdir")
            .arg(at("tmp"))
            .args(["--storage-driver", "vfs"])
            .args(arguments)
            .env("CONTAINERS_CONF", at("containers.conf"))
            .env("CONTAINERS_REGISTRIES_CONF", at("registries.conf"))
            .env("REGISTRY_AUTH_FILE", at("auth.json"));
        with_own_mounts(&mut command);
        command
    }

    /// Holds what it keeps under a name against the image.
    ///
    /// # Panics
    /// When it keeps another.
    #[track_caller]
    pub fn assert_pulled(&self, image: &Image, name: &str) {
        let inspect = self.podman(&["image", "inspect", name]);
        let done = Process::start("podman", inspect).wait();
        assert_eq!(done.code, 0, "{}", done.stderr);
        let told: Value = serde_json::from_slice(&done.stdout).expect("JSON about an image");
        let id = told[0]["Id"].as_str().unwrap_or_default();
        assert_eq!(format!("sha256:{id}"), image.id(), "{told}");
        let layers: Vec<&str> = told[0]["RootFS"]["Layers"]
            .as_array()
            .expect("layers")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        assert_eq!(layers, image.diffs());
        let digest = format!("sha256:{}", image.manifest().sha256());
        assert_eq!(told[0]["Digest"], digest);
    }
}
