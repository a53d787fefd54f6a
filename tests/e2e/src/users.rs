use std::{
    fs,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use tempfile::TempDir;

/// A name and a password that tests log in with.
pub const READER: (&str, &str) = ("reader", "correct-horse-7");
/// bcrypt of the reader's password, at the least cost there is.
const READER_HASH: &str = "$2b$04$abcdefghijklmnopqrstuuSQyLzxZtaUFpi/q2P5wWap0qvqIvC5q";
/// Another one, who keeps access when the reader loses it.
pub const WRITER: (&str, &str) = ("writer", "battery-staple-9");
const WRITER_HASH: &str = "$2b$04$abcdefghijklmnopqrstuuKFF7/7Jfww8jvm/3ZyEOzK5D2s.qzhG";

/// The file of a registry's users.
pub struct Htpasswd {
    directory: TempDir,
}

impl Htpasswd {
    /// One that has [`READER`] and [`WRITER`] in it.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = Self { directory };
        file.write(&format!(
            "{}:{READER_HASH}\n{}:{WRITER_HASH}\n",
            READER.0, WRITER.0
        ));
        file
    }

    /// Takes [`READER`] out.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn revoke_reader(&self) {
        self.write(&format!("{}:{WRITER_HASH}\n", WRITER.0));
        // The registry reads it again when it has another date, to the second.
        let later = SystemTime::now() + Duration::from_secs(10);
        let file = fs::File::options().write(true).open(self.path());
        let dated = file.and_then(|file| file.set_modified(later));
        dated.expect("another date for the users");
    }

    /// What a registry is to be told of it, as the value of `auth`.
    pub fn settings(&self) -> String {
        let path = self.path();
        format!("{{htpasswd: {{realm: tests, path: '{}'}}}}", path.display())
    }

    fn write(&self, text: &str) {
        fs::write(self.path(), text).expect("a file of users");
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("htpasswd")
    }
}

impl Default for Htpasswd {
    fn default() -> Self {
        Self::new()
    }
}

/// `NAME:PASSWORD`, as clients take it.
pub fn login(user: (&str, &str)) -> String {
    format!("{}:{}", user.0, user.1)
}
