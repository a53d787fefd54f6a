//! The command line: made from the flags, read by clap, its errors in our words.

use std::ffi::OsString;

use clap::{
    Arg, ArgAction, Command,
    builder::ValueParser,
    error::{ContextKind, ContextValue, ErrorKind},
};

use pantala_core::display_url;

use crate::{
    exit::Exit,
    flag::{AnyFlag, Arity, Spec},
    sources::{Given, Layer, Source, bad_input, split},
};

/// A program: its words and its flags, in the order of its help.
pub(crate) struct Program {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) usage: &'static str,
    /// What its help ends with.
    pub(crate) after: &'static str,
    pub(crate) flags: &'static [&'static dyn AnyFlag],
    /// Whether its file may hold tables besides.
    pub(crate) tables: bool,
}

impl Program {
    /// The command line as clap knows it.
    pub(crate) fn command(&self) -> Command {
        let help = Arg::new("help")
            .short('h')
            .long("help")
            .action(ArgAction::Help)
            .help("Print this help")
            .help_heading("Other");
        let version = Arg::new("version")
            .short('V')
            .long("version")
            .action(ArgAction::Version)
            .help("Print the version")
            .help_heading("Other");
        Command::new(self.name)
            .version(env!("CARGO_PKG_VERSION"))
            .about(self.about)
            .override_usage(self.usage)
            .after_help(self.after)
            .max_term_width(100)
            .args_override_self(true)
            .disable_help_flag(true)
            .disable_version_flag(true)
            .help_template("{about}\n\nUsage: {usage}\n\n{all-args}{after-help}")
            .args(
                (0..)
                    .zip(self.flags)
                    .map(|(at, flag)| arg(flag.spec()).display_order(at)),
            )
            .args([help, version])
    }

    /// What the command line says. `args` begins with the program's own name.
    pub(crate) fn parse(&self, args: impl IntoIterator<Item = OsString>) -> Result<Layer, Exit> {
        let mut matches = self
            .command()
            .try_get_matches_from(args)
            .map_err(|error| self.exit(&error))?;
        let mut layer = Layer::new();
        for flag in self.flags {
            let spec = flag.spec();
            let raw = match spec.arity {
                Arity::Switch if matches.get_flag(spec.name) => vec!["true".into()],
                Arity::Switch => continue,
                arity => match matches.remove_many::<OsString>(spec.name) {
                    Some(raw) => raw.flat_map(|raw| split(arity, &raw)).collect(),
                    None => continue,
                },
            };
            let source = Source::CommandLine;
            layer.insert(spec.name, Given { source, raw });
        }
        Ok(layer)
    }

    /// clap's error as ours: one line that says what and what to do.
    fn exit(&self, error: &clap::Error) -> Exit {
        let context = |kind| match error.get(kind) {
            Some(ContextValue::String(text)) => Some(text.clone()),
            Some(ContextValue::Strings(texts)) => texts.first().cloned(),
            _ => None,
        };
        let see = format!("see {} --help", self.name);
        let named = context(ContextKind::InvalidArg).unwrap_or_else(|| "the command line".into());
        let (what, hint) = match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                return Exit::Text(error.render().to_string());
            }
            ErrorKind::MissingRequiredArgument => {
                let missing = named.trim_matches(['<', '>']);
                (format!("{missing}: it is missing"), see)
            }
            ErrorKind::UnknownArgument if !named.starts_with('-') => {
                let mut specs = self.flags.iter().map(|flag| flag.spec());
                let hint = match specs.find(|spec| spec.arity == Arity::Positional) {
                    Some(one) => format!("{} takes one {}; {see}", self.name, one.name),
                    None => see,
                };
                (
                    format!("{}: one argument too many", display_url(&named)),
                    hint,
                )
            }
            ErrorKind::UnknownArgument => {
                let hint = match context(ContextKind::SuggestedArg) {
                    Some(near) => format!("did you mean {near}?"),
                    None => see,
                };
                (format!("{named}: unknown flag"), hint)
            }
            ErrorKind::InvalidValue => {
                let flag = named.split(' ').next().unwrap_or_default();
                (
                    format!("{flag}: its value is missing"),
                    format!("write {named}"),
                )
            }
            ErrorKind::TooManyValues => (format!("{named}: it takes no value"), see),
            _ => (error.render().to_string().trim().replace('\n', " "), see),
        };
        Exit::Error(bad_input(what, hint))
    }
}

fn arg(spec: &Spec) -> Arg {
    let help = match spec.shown_default() {
        "" => spec.help.to_owned(),
        default => format!("{} [default: {default}]", spec.help),
    };
    let arg = Arg::new(spec.name)
        .help(help)
        .help_heading(spec.group.heading())
        .hide(spec.advanced);
    let arg = match spec.arity {
        Arity::Positional => {
            return arg.value_parser(ValueParser::os_string()).required(true);
        }
        Arity::Switch => arg.action(ArgAction::SetTrue),
        arity => arg
            .value_name(spec.value)
            .value_parser(ValueParser::os_string())
            // A value may begin with a dash (--range -1024); it is judged as a value then.
            .allow_hyphen_values(spec.name == "range")
            .allow_negative_numbers(true)
            .action(match arity.is_list() {
                true => ArgAction::Append,
                false => ArgAction::Set,
            }),
    };
    let arg = arg.long(spec.name);
    match spec.short {
        Some(short) => arg.short(short),
        None => arg,
    }
}
