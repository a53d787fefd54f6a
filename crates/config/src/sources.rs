//! Gathers what the command line, the environment and the file say, and decides who is heard.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    io,
    path::{Path, PathBuf},
};

use pantala_core::{Error, Kind, Who};

use crate::{
    PROGRAMS,
    command::Program,
    file,
    flag::{AnyFlag, Arity, Bad, Flag, Reach, Spec},
    shared::CONFIG,
    tables::Tables,
};

/// Where a value came from, for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    CommandLine,
    Environment,
    File { path: PathBuf, line: usize },
}

/// What one source says of one flag.
#[derive(Debug, Clone)]
pub(crate) struct Given {
    pub(crate) source: Source,
    pub(crate) raw: Vec<OsString>,
}

/// One source, by the flags' names.
pub(crate) type Layer = BTreeMap<&'static str, Given>;

/// Who won for each flag. Every given value was read once already, also those that lost.
pub(crate) struct Values {
    program: &'static Program,
    given: Layer,
    /// What only a file can say.
    pub(crate) tables: Tables,
}

impl Values {
    /// Merges the three sources for `program`.
    pub(crate) fn gather(
        program: &'static Program,
        command_line: Layer,
        env: impl IntoIterator<Item = (OsString, OsString)>,
        read_file: impl FnOnce(&Path) -> io::Result<String>,
    ) -> Result<Self, Error> {
        let environment = environment(program, env)?;
        for layer in [&command_line, &environment] {
            check(program, layer)?;
        }
        let config = command_line.get("config").or(environment.get("config"));
        let (file, tables) = match config {
            Some(given) => {
                let path = given.raw.last().map(PathBuf::from).unwrap_or_default();
                let text = read_file(&path).map_err(|error| {
                    let place = place(&CONFIG.spec, Some(&given.source));
                    let shown = path.display();
                    Error::new(
                        Who::User,
                        Kind::BadInput,
                        format!("{place} {shown}: it cannot be read, {}", plain(&error)),
                    )
                    .hint("check the path")
                })?;
                file::parse(program, &path, &text)?
            }
            None => (Layer::new(), Tables::default()),
        };
        check(program, &file)?;
        let mut given = file;
        given.extend(environment);
        given.extend(command_line);
        Ok(Self {
            program,
            given,
            tables,
        })
    }

    /// How to name the flag in a message: by what the user wrote.
    pub(crate) fn place(&self, spec: &Spec) -> String {
        place(spec, self.given.get(spec.name).map(|given| &given.source))
    }

    /// The value, or the default's.
    pub(crate) fn maybe<T>(&self, flag: &Flag<T>) -> Result<Option<T>, Error> {
        let spec = &flag.spec;
        self.assert_listed(spec);
        let raw = match self.given.get(spec.name) {
            Some(given) => given.raw.last().map(OsString::as_os_str),
            None if spec.default.is_empty() => None,
            None => Some(OsStr::new(spec.default)),
        };
        raw.map(|raw| flag.read(raw).map_err(|bad| self.refuse(spec, raw, bad)))
            .transpose()
    }

    /// The value of a flag that has a default.
    pub(crate) fn one<T>(&self, flag: &Flag<T>) -> Result<T, Error> {
        self.maybe(flag)?.ok_or_else(|| {
            let what = format!("{} has no default", flag.spec.name);
            Error::new(Who::Us, Kind::Internal, what)
        })
    }

    /// Whether a switch is on.
    pub(crate) fn on(&self, flag: &Flag<bool>) -> Result<bool, Error> {
        Ok(self.maybe(flag)?.unwrap_or(false))
    }

    /// All values of a list, in the order given.
    pub(crate) fn list<T>(&self, flag: &Flag<T>) -> Result<Vec<T>, Error> {
        self.assert_listed(&flag.spec);
        let raw = self.given.get(flag.spec.name).map(|given| &given.raw[..]);
        raw.unwrap_or_default()
            .iter()
            .map(|raw| {
                flag.read(raw)
                    .map_err(|bad| self.refuse(&flag.spec, raw, bad))
            })
            .collect()
    }

    /// A flag that is not in its program's table would be its default for ever.
    fn assert_listed(&self, spec: &Spec) {
        let mut flags = self.program.flags.iter();
        debug_assert!(
            flags.any(|flag| flag.spec().name == spec.name),
            "{}",
            spec.name
        );
    }

    fn refuse(&self, spec: &Spec, raw: &OsStr, bad: Bad) -> Error {
        refuse(
            spec,
            self.given.get(spec.name).map(|given| &given.source),
            raw,
            bad,
        )
    }
}

/// Splits one text into a list's elements.
pub(crate) fn split(arity: Arity, raw: &OsStr) -> Vec<OsString> {
    match (arity, raw.to_str()) {
        (Arity::Commas, Some(text)) => text.split(',').map(|part| part.trim().into()).collect(),
        _ => vec![raw.to_owned()],
    }
}

/// Splits an environment variable, which can be given only once.
fn split_variable(arity: Arity, raw: &OsStr) -> Vec<OsString> {
    match (arity, raw.to_str()) {
        (Arity::Paths, _) => std::env::split_paths(raw).map(Into::into).collect(),
        (Arity::Lines, Some(text)) => {
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
            lines.map(Into::into).collect()
        }
        _ => split(arity, raw),
    }
}

/// The `PANTALA_…` variables. An empty one counts as not set.
fn environment(
    program: &'static Program,
    env: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Layer, Error> {
    let mut layer = Layer::new();
    // In order of name: the first error does not depend on the environment's order.
    let sorted: BTreeMap<OsString, OsString> = env.into_iter().collect();
    for (name, raw) in sorted {
        let Some(name) = name.to_str().filter(|name| name.starts_with("PANTALA_")) else {
            continue;
        };
        if raw.is_empty() {
            continue;
        }
        let of_this = |flag: &&&'static dyn AnyFlag| flag.spec().env() == name;
        match program.flags.iter().find(of_this) {
            Some(flag) if flag.spec().reach != Reach::CommandLine => {
                let spec = flag.spec();
                let raw = split_variable(spec.arity, &raw);
                let source = Source::Environment;
                layer.insert(spec.name, Given { source, raw });
            }
            Some(flag) => {
                let hint = format!("use {}", flag.spec().shown());
                return Err(bad_input(
                    format!("{name}: it is given on the command line only"),
                    hint,
                ));
            }
            None if known_elsewhere(name) || from_kubernetes(name) => {}
            None => return Err(unknown_variable(program, name)),
        }
    }
    Ok(layer)
}

fn known_elsewhere(name: &str) -> bool {
    let mut flags = PROGRAMS.iter().flat_map(|program| program.flags);
    flags.any(|flag| flag.spec().env() == name)
}

/// Kubernetes sets such variables in every pod next to a service whose name begins with
/// `pantala-`; they are nobody's mistake.
fn from_kubernetes(name: &str) -> bool {
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_PORT")
        || name.contains("_SERVICE_PORT")
        || ["_TCP", "_UDP", "_SCTP"].iter().any(|protocol| {
            name.rsplit_once(protocol).is_some_and(|(head, tail)| {
                head.contains("_PORT_") && matches!(tail, "" | "_PROTO" | "_PORT" | "_ADDR")
            })
        })
}

fn unknown_variable(program: &'static Program, name: &str) -> Error {
    let flags = program.flags.iter().map(|flag| flag.spec());
    let names: Vec<String> = flags
        .filter(|spec| spec.reach != Reach::CommandLine)
        .map(Spec::env)
        .collect();
    let hint = match nearest(name, names.iter().map(String::as_str)) {
        Some(near) => format!("did you mean {near}?"),
        None => format!(
            "unset it, or see {} --help for what can be set",
            program.name
        ),
    };
    bad_input(format!("{name}: unknown environment variable"), hint)
}

/// Reads every value once, so that a bad one is an error also where a better source overrides it.
fn check(program: &'static Program, layer: &Layer) -> Result<(), Error> {
    for flag in program.flags {
        let spec = flag.spec();
        let Some(given) = layer.get(spec.name) else {
            continue;
        };
        for raw in &given.raw {
            flag.check(raw)
                .map_err(|bad| refuse(spec, Some(&given.source), raw, bad))?;
        }
    }
    Ok(())
}

fn place(spec: &Spec, source: Option<&Source>) -> String {
    match source {
        None | Some(Source::CommandLine) => spec.shown(),
        Some(Source::Environment) => spec.env(),
        Some(Source::File { path, line }) => format!("{}:{line}: {}", path.display(), spec.name),
    }
}

/// Names the place and the value, says what is wrong and what is allowed.
fn refuse(spec: &Spec, source: Option<&Source>, raw: &OsStr, bad: Bad) -> Error {
    let text = raw.to_string_lossy();
    let quiet = text
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'"');
    let shown = match &*text {
        text if spec.value == "URL" || spec.value == "UPSTREAM_URL" => {
            pantala_core::display_url(text).escape_debug().to_string()
        }
        text if quiet && !text.is_empty() => text.to_owned(),
        text => format!("{text:?}"),
    };
    let place = place(spec, source);
    let named = match source {
        _ if spec.secret => place,
        None | Some(Source::CommandLine) => format!("{place} {shown}"),
        Some(Source::Environment) => format!("{place}={shown}"),
        Some(Source::File { .. }) => format!("{place} = {shown}"),
    };
    Error::new(Who::User, bad.kind, format!("{named}: {}", bad.what))
        .hint(bad.allowed)
        .retryable(false)
}

pub(crate) fn bad_input(what: impl Into<String>, hint: impl Into<String>) -> Error {
    Error::new(Who::User, Kind::BadInput, what).hint(hint)
}

/// The known name somebody who wrote `unknown` probably meant.
pub(crate) fn nearest<'a>(
    unknown: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let far = |name: &str| strsim::damerau_levenshtein(unknown, name);
    let near = known.into_iter().min_by_key(|name| far(name))?;
    (far(near) <= 2.max(unknown.len() / 4)).then_some(near)
}

/// An operating system's error in its own words, without its number.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let words = text.split(" (os error").next().unwrap_or_default();
    words.to_lowercase()
}
