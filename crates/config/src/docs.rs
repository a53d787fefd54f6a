//! Makes `docs/cli.md` and `docs/configuration.md`, and fails when they are stale.
//! `UPDATE_DOCS=1 cargo test -p pantala-config` rewrites them.

use std::{fmt::Write as _, fs, path::PathBuf};

use crate::{
    JOBS, PROGRAMS,
    command::Program,
    exit::EXIT_CODES,
    flag::{Arity, Reach, Spec},
};

#[test]
fn pages_are_what_the_flags_say() {
    for (name, made) in [("cli.md", cli()), ("configuration.md", configuration())] {
        let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs")).join(name);
        if std::env::var_os("UPDATE_DOCS").is_some() {
            fs::write(&path, &made).unwrap();
        }
        let there = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            there == made,
            "docs/{name} is stale: run UPDATE_DOCS=1 cargo test -p pantala-config"
        );
    }
}

#[test]
fn pages_have_every_flag() {
    let (cli, configuration) = (cli(), configuration());
    for program in PROGRAMS {
        for spec in program.flags.iter().map(|flag| flag.spec()) {
            let row = format!("| `{}", spec.shown());
            assert!(configuration.contains(&row), "{}", spec.name);
            assert_eq!(cli.contains(&spec.shown()), !spec.advanced, "{}", spec.name);
            assert!(!spec.help.is_empty(), "{}", spec.name);
        }
    }
}

#[test]
fn help_fits_a_terminal() {
    for program in PROGRAMS.into_iter().chain(JOBS) {
        for line in help(program).lines() {
            assert!(line.chars().count() <= 100, "{line}");
        }
    }
}

pub(crate) fn help(program: &'static Program) -> String {
    let command = program.command().term_width(100);
    let mut text = String::new();
    for line in command.clone().render_help().to_string().lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn cli() -> String {
    let mut page = String::from(
        "# Command line\n\nMade from the flags' definitions by `cargo test -p pantala-config`; \
         do not edit. Variables and\nfile keys: [configuration](configuration.md).\n",
    );
    let [dfget, dfdaemon, supernode] = PROGRAMS;
    let [setup, ca_init] = JOBS;
    for program in [dfget, dfdaemon, setup, ca_init, supernode] {
        let text = help(program);
        write!(
            page,
            "\n## {}\n\n```text\n{}\n```\n",
            program.name,
            text.trim_end()
        )
        .unwrap();
    }
    page.push_str("\n## Exit codes of dfget\n\n| code | meaning |\n| ---: | --- |\n");
    for row in EXIT_CODES {
        writeln!(page, "| {} | {} |", row.code, row.meaning).unwrap();
    }
    page.push_str(
        "\nAn error is one line on standard error that says who failed, at what, and what to do. \
         dfdaemon and\nsupernode end with 0 when stopped by SIGINT or SIGTERM, 2 when their \
         configuration cannot be used, 1 otherwise;\nthe same goes for dfdaemon setup and dfdaemon ca init.\n",
    );
    page
}

fn configuration() -> String {
    let mut page = String::from(INTRODUCTION);
    for program in PROGRAMS {
        write!(page, "\n## {}\n\n", program.name).unwrap();
        page.push_str("| flag | environment | key | default | meaning |\n");
        page.push_str("| --- | --- | --- | --- | --- |\n");
        for flag in program.flags {
            page.push_str(&row(flag.spec()));
        }
        if program.tables {
            page.push_str(TABLES);
        }
    }
    page
}

fn row(spec: &Spec) -> String {
    let code = |text: &str| format!("`{}`", text.replace('|', "\\|"));
    let short = spec.short.map(|short| format!(", `-{short}`"));
    let value = match spec.arity {
        Arity::Positional | Arity::Switch => String::new(),
        _ => format!(" {}", spec.value),
    };
    let flag = code(&format!("{}{value}", spec.shown())) + &short.unwrap_or_default();
    let env = match spec.reach {
        Reach::CommandLine => "–".to_owned(),
        _ => code(&spec.env()),
    };
    let key = match spec.reach {
        Reach::Everywhere => code(spec.name),
        _ => "–".to_owned(),
    };
    let default = match (spec.default_words, spec.default, spec.arity) {
        ("", "", Arity::Switch) => "off".to_owned(),
        ("", "", Arity::Positional) => "must be given".to_owned(),
        ("", "", _) => "none".to_owned(),
        ("", default, _) => code(default),
        (words, _, _) => words.to_owned(),
    };
    let help = format!("{}. {}", spec.help, spec.more).replace('|', "\\|");
    let help = help.trim_end();
    let advanced = if spec.advanced {
        " Not in `--help`."
    } else {
        ""
    };
    format!("| {flag} | {env} | {key} | {default} | {help}{advanced} |\n")
}

const INTRODUCTION: &str = "\
# Configuration

Made from the flags' definitions by `cargo test -p pantala-config`; do not edit.

Each setting has one name. It is a flag (`--read-timeout 15s`), an environment variable
(`PANTALA_READ_TIMEOUT=15s`) and a key of the TOML file that `--config` or `PANTALA_CONFIG` names
(`read-timeout = \"15s\"`). A flag goes before the environment, the environment before the file, the
file before the default. A list is replaced as a whole, never added to. An empty variable counts as
not set.

A key, variable or flag that nobody knows, and a value that cannot be used, ends the program with
exit code 2 and one line that names it, also where a better source overrides it. Variables that
begin with `PANTALA_` and belong to another of the three programs are left alone, and so are the
ones that Kubernetes makes for services.

| value | written |
| --- | --- |
| SIZE | bytes, or with KiB, MiB, GiB, TiB (powers of two), KB, MB, GB, TB (powers of ten): `512MiB` |
| DURATION | with its unit: `500ms`, `10s`, `2m`, `1h 30m` |
| IP:PORT | `127.0.0.1:8002`, `[::1]:8002`; a listener's port 0 is any free one |
| HOST:PORT,… | names or addresses, with commas between them |
| switch | `true` or `false` (in a variable also `1` or `0`) |
| list | flags: repeated; `ca` in a variable: `:` between files; `header` in a variable: one per line; all others: commas. In the file always an array of strings: `ca = [\"a.pem\", \"b.pem\"]` |

A file for dfdaemon:

```toml
supernode = [\"supernode-a.example:8002\", \"supernode-b.example:8002\"]
mirror = \"https://registry.example\"
memory = \"2GiB\"
label = [\"zone=z1\", \"rack=r12\"]
```
";

const TABLES: &str = r#"
### Tables of dfdaemon's file

Registries (and other HTTPS hosts) with settings of their own. The name is what clients call it; with a port
where they do.

```toml
[upstream."hub.example"]
url = "https://registry-1.hub.example"   # where it is; https://NAME when left out
ca = ["/etc/pantala/hub-ca.pem"]         # trusted for it besides the system's authorities
client-cert = "/etc/pantala/node.pem"    # this host's certificate for it, and its key
client-key = "/etc/pantala/node-key.pem"
username = "puller"                      # this host's own credentials; without them the client's are passed on
password-file = "/etc/pantala/hub-password"   # or password = "…"
anonymous = true                         # without credentials: fetch the tokens everybody may have
cleartext-credentials = true             # send the credentials over plain HTTP to another machine, too
```

A plain HTTP registry is one whose `url` begins with `http://`. There is no switch that turns the check of
certificates off. What dfdaemon fetches with credentials of its own goes to clients on this host only, and to
other peers' clients only after the registry has admitted them.

Rules say what happens to a request of the HTTP proxy; the first that matches counts. `*` in a host stands for
anything, in a path for anything but a slash; `**` stands for anything. URLs are compared in one spelling: hosts in
small letters without a dot at their end, addresses in their usual form, paths without needless escapes and empty
segments. What a lenient server might take for a path that is refused (`/x/..%2fsecret`, `/secret;v=1`) is refused too.

```toml
[[rule]]
host = "*.models.example"
path = "/**/*.safetensors"
action = "stream"                        # through the swarm, whatever its type

[[rule]]
host = "status.example"
action = "direct"                        # straight to the host

[[rule]]
host = "files.example"
action = "redirect"                      # the same path at another host
to = "https://files-mirror.example"

[[rule]]
host = "*.ads.example"
action = "refuse"                        # 403
```

Without a rule that matches, what a GET asks for goes through the swarm, unless its answer turns out to be a
page: HTML, JSON, XML, CSS, scripts, event streams, of less than 1 MiB and without a word of the origin on how
long it is fresh. Paths that look like content (`/blobs/sha256:…`, wheels, npm tarballs, weights, `.deb`, `.rpm`,
archives) go through the swarm whatever their type.
"#;
