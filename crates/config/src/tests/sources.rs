//! Who is heard, and how what nobody knows is refused.

use super::*;
use crate::PROGRAMS;

#[test]
fn flag_before_environment_before_file_before_default() {
    let text = "memory = \"5MiB\"\nuploads = 5\nretries = 5";
    let env = [("PANTALA_MEMORY", "6MiB"), ("PANTALA_UPLOADS", "6")];
    let args = ["--config", "f.toml", "--memory", "7MiB"];
    let config = dfdaemon_with(&args, &env, text).unwrap();
    assert_eq!(config.memory, 7 << 20);
    assert_eq!(config.uploads, 6);
    assert_eq!(config.retries, 5);
    assert_eq!(config.read_timeout, Duration::from_secs(15));
}

#[test]
fn the_environment_can_name_the_file_and_the_flag_goes_before_it() {
    let read = |path: &Path| match path.to_str() {
        Some("flag.toml") => Ok("retries = 1".to_owned()),
        Some("env.toml") => Ok("retries = 2".to_owned()),
        _ => Err(io::ErrorKind::NotFound.into()),
    };
    let env = vars(&[("PANTALA_CONFIG", "env.toml")]);
    let parse =
        |args: &[&str]| DfdaemonConfig::parse_from(words("dfdaemon", args), env.clone(), read);
    assert_eq!(parse(&[]).unwrap().retries, 2);
    assert_eq!(parse(&["--config", "flag.toml"]).unwrap().retries, 1);
    let missing = refusal(parse(&["--config", "none.toml"]));
    assert!(
        missing.contains("--config none.toml: it cannot be read"),
        "{missing}"
    );
}

#[test]
fn an_empty_variable_is_not_set() {
    let config = dfdaemon_with(&[], &[("PANTALA_MEMORY", ""), ("PANTALA_NONSENSE", "")], "");
    assert_eq!(config.unwrap().memory, 512 << 20);
}

#[test]
fn unknown_names_are_named_with_the_nearest_known_one() {
    let text = "listen = \"127.0.0.1:1\"\n\nmemmory = 1\n";
    assert_eq!(
        refusal(dfdaemon_with(&["--config", "/etc/d.toml"], &[], text)),
        "usage: /etc/d.toml:3: memmory: unknown key; did you mean memory?"
    );
    assert_eq!(
        refusal(dfdaemon_with(&[], &[("PANTALA_MEMROY", "1")], "")),
        "usage: PANTALA_MEMROY: unknown environment variable; did you mean PANTALA_MEMORY?"
    );
    assert_eq!(
        refusal(dfdaemon(&["--memry", "1"])),
        "usage: --memry: unknown flag; did you mean --memory?"
    );
    let far = refusal(dfdaemon_with(&["--config", "f"], &[], "zzzzzzzz = 1"));
    assert!(
        far.contains("the keys are advertise, allow-host, ca, "),
        "{far}"
    );
    let underscored = refusal(dfdaemon_with(
        &["--config", "f"],
        &[],
        "peer_listen = \"x\"",
    ));
    assert!(
        underscored.ends_with("did you mean peer-listen?"),
        "{underscored}"
    );
}

#[test]
fn what_belongs_elsewhere_is_said_so() {
    let of_daemon = refusal(dfget_with(&[URL, "--config", "f"], &[], "mirror = \"x\""));
    assert!(
        of_daemon.contains("f:1: mirror: a key of dfdaemon, not of dfget"),
        "{of_daemon}"
    );
    let nested = refusal(dfdaemon_with(&["--config", "f"], &[], "config = \"g\""));
    assert!(
        nested.contains("config: not a setting of the file"),
        "{nested}"
    );
    let once = refusal(dfget_with(&[URL], &[("PANTALA_OUTPUT", "x")], ""));
    assert!(
        once.contains("PANTALA_OUTPUT: it is given on the command line only"),
        "{once}"
    );
}

#[test]
fn variables_of_other_programs_and_of_kubernetes_are_left_alone() {
    let env = [
        ("PANTALA_MIRROR", "https://registry.example"),
        ("PANTALA_SUPERNODE_SERVICE_HOST", "10.0.0.1"),
        ("PANTALA_SUPERNODE_SERVICE_PORT", "8002"),
        ("PANTALA_SUPERNODE_SERVICE_PORT_GRPC", "8002"),
        ("PANTALA_SUPERNODE_PORT", "tcp://10.0.0.1:8002"),
        ("PANTALA_SUPERNODE_PORT_8002_TCP", "tcp://10.0.0.1:8002"),
        ("PANTALA_SUPERNODE_PORT_8002_TCP_PROTO", "tcp"),
        ("PATH", "/bin"),
    ];
    assert!(dfget_with(&[URL], &env, "").is_ok());
}

#[test]
fn bad_values_are_named_wherever_they_stand() {
    assert_eq!(
        refusal(dfget(&["--memory", "1MiB"])),
        "usage: --memory 1MiB: below one window; give at least 4 MiB"
    );
    assert_eq!(
        refusal(dfget_with(&[URL], &[("PANTALA_READ_TIMEOUT", "15")], "")),
        "usage: PANTALA_READ_TIMEOUT=15: a duration without its unit; write 15s or 15ms"
    );
    assert_eq!(
        refusal(dfget_with(
            &[URL, "--config", "g.toml"],
            &[],
            "\ndaemon = \"maybe\""
        )),
        "usage: g.toml:2: daemon = maybe: not a choice; give auto, only or never"
    );
    // Also where a better source overrides them.
    let args = ["--config", "f", "--uploads", "3"];
    let overridden = refusal(dfdaemon_with(&args, &[], "uploads = \"many\""));
    assert!(
        overridden.contains("f:1: uploads = many: not a number"),
        "{overridden}"
    );
    let typed = refusal(dfdaemon_with(&["--config", "f"], &[], "[memory]\nsize = 1"));
    assert!(
        typed.contains("f:1: memory: a TOML table is not its type"),
        "{typed}"
    );
    let broken = refusal(dfdaemon_with(
        &["--config", "f"],
        &[],
        "retries = 1\nmemory = = 2",
    ));
    assert!(broken.contains("f:2: not TOML"), "{broken}");
    let twice = refusal(dfdaemon_with(
        &["--config", "f"],
        &[],
        "retries = 1\nretries = 2",
    ));
    assert!(twice.contains("f:2: not TOML"), "{twice}");
}

#[test]
fn the_command_line_s_own_errors_are_one_line() {
    assert_eq!(
        refusal(dfget_with(&[], &[], "")),
        "usage: URL: it is missing; see dfget --help"
    );
    assert_eq!(
        refusal(dfget(&["--memory"])),
        "usage: --memory: its value is missing; write --memory <SIZE>"
    );
    let two = refusal(dfget(&["https://origin.example/b?secret=1"]));
    assert!(
        two.contains("https://origin.example/b: one argument too many"),
        "{two}"
    );
    assert!(!two.contains("secret"));
    let switch = refusal(dfget(&["--quiet=yes"]));
    assert!(switch.contains("--quiet: it takes no value"), "{switch}");
    assert!(refusal(dfdaemon(&["extra"])).contains("extra: one argument too many"));
}

#[test]
fn help_and_version_are_no_errors() {
    for (args, part) in [
        (["--help"], "Examples:"),
        (["-h"], "Examples:"),
        (["-V"], "dfget 0."),
    ] {
        match dfget_with(&args, &[], "") {
            Err(Exit::Text(text)) => assert!(text.contains(part), "{text}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(Exit::Text(String::new()).code(), 0);
}

#[test]
fn the_last_of_a_flag_counts_and_lists_add_up() {
    let args = [
        "--retries",
        "1",
        "--retries",
        "2",
        "--ca",
        "a.pem",
        "--ca",
        "b.pem",
    ];
    let config = dfdaemon(&args).unwrap();
    assert_eq!(config.retries, 2);
    assert_eq!(config.ca, [Path::new("a.pem"), Path::new("b.pem")]);
}

#[test]
fn lists_are_the_same_from_every_source() {
    let shown = |config: DfdaemonConfig| {
        let supernode: Vec<String> = config.supernode.iter().map(ToString::to_string).collect();
        (
            supernode.join(" "),
            config.filter_query,
            config.labels,
            config.ca,
        )
    };
    let flags = dfdaemon(&[
        "--supernode",
        "a.example:1, [::1]:2",
        "--supernode",
        "10.0.0.1:3",
        "--filter-query",
        "sig,token",
        "--label",
        "rack=r1",
        "--label",
        "zone=z",
        "--ca",
        "a.pem",
        "--ca",
        "b.pem",
    ]);
    let env = [
        ("PANTALA_SUPERNODE", "a.example:1,[::1]:2,10.0.0.1:3"),
        ("PANTALA_FILTER_QUERY", "sig,token"),
        ("PANTALA_LABEL", "zone=z,rack=r1"),
        ("PANTALA_CA", "a.pem:b.pem"),
    ];
    let text = "
        supernode = [\"a.example:1\", \"[::1]:2\", \"10.0.0.1:3\"]
        filter-query = \"sig,token\"
        label = [\"rack=r1\", \"zone=z\"]
        ca = [\"a.pem\", \"b.pem\"]";
    let flags = shown(flags.unwrap());
    assert_eq!(flags.0, "a.example:1 [::1]:2 10.0.0.1:3");
    assert_eq!(flags.1, ["sig", "token"]);
    assert_eq!(flags.2["rack"], "r1");
    assert_eq!(flags, shown(dfdaemon_with(&[], &env, "").unwrap()));
    assert_eq!(
        flags,
        shown(dfdaemon_with(&["--config", "f"], &[], text).unwrap())
    );
    let twice = refusal(dfdaemon(&["--label", "rack=a,rack=b"]));
    assert!(twice.contains("rack is given twice"), "{twice}");
}

#[test]
fn switches_from_every_source() {
    let quiet = |env: Env, text| dfget_with(&[URL, "--config", "f"], env, text).map(|c| c.quiet);
    assert!(dfget(&["-q"]).unwrap().quiet);
    assert!(quiet(&[("PANTALA_QUIET", "1")], "").unwrap());
    assert!(quiet(&[], "quiet = true").unwrap());
    assert!(!quiet(&[("PANTALA_QUIET", "false")], "quiet = true").unwrap());
    assert!(refusal(quiet(&[("PANTALA_QUIET", "yes")], "")).contains("write true or false"));
}

#[test]
fn the_definitions_are_sound() {
    for program in PROGRAMS {
        program.command().debug_assert();
        for flag in program.flags {
            let spec = flag.spec();
            if !spec.default.is_empty() {
                assert!(flag.check(spec.default.as_ref()).is_ok(), "{}", spec.name);
            }
        }
    }
}
