//! What a flag is. Everything else in this crate is made from these.

use std::ffi::OsStr;

use pantala_core::Kind;

/// Under which heading `--help` and the reference page show a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    What,
    Clients,
    Peers,
    Limits,
    Origin,
    Other,
}

impl Group {
    pub(crate) fn heading(self) -> &'static str {
        match self {
            Group::What => "What",
            Group::Clients => "Clients",
            Group::Peers => "Peers",
            Group::Limits => "Limits",
            Group::Origin => "Origin",
            Group::Other => "Other",
        }
    }
}

/// How many values a flag takes, and how several are written in one text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arity {
    /// One that stands without a name.
    Positional,
    /// No value: given or not.
    Switch,
    /// One.
    One,
    /// Several, with commas between them wherever they stand.
    Commas,
    /// Several; in the environment one per line.
    Lines,
    /// Several; in the environment with the separator of `PATH`.
    Paths,
}

impl Arity {
    pub(crate) fn is_list(self) -> bool {
        matches!(self, Arity::Commas | Arity::Lines | Arity::Paths)
    }
}

/// Where else than on the command line a flag may be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// In the environment and in the file.
    Everywhere,
    /// In the environment only.
    Environment,
    /// Nowhere: it belongs to one download.
    CommandLine,
}

/// Why a value cannot be used. Completes the sentence "`--flag value`: …; …".
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bad {
    pub(crate) what: String,
    pub(crate) allowed: String,
    pub(crate) kind: Kind,
}

impl Bad {
    pub(crate) fn new(what: impl Into<String>, allowed: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            allowed: allowed.into(),
            kind: Kind::BadInput,
        }
    }

    /// A budget that nothing can be done with: scripts may want to tell it from a typing error.
    pub(crate) fn too_little_memory(what: &str, allowed: String) -> Self {
        Self {
            kind: Kind::NoMemory,
            ..Self::new(what, allowed)
        }
    }
}

/// A flag without its type: its names and words.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spec {
    /// Long name without dashes; also the key in the file.
    pub(crate) name: &'static str,
    pub(crate) short: Option<char>,
    /// What stands for the value in the help.
    pub(crate) value: &'static str,
    pub(crate) arity: Arity,
    pub(crate) reach: Reach,
    pub(crate) group: Group,
    /// Read like a given value when nobody gave one; empty for none.
    pub(crate) default: &'static str,
    /// Shown instead of the default where the default is not a fixed value.
    pub(crate) default_words: &'static str,
    pub(crate) help: &'static str,
    /// What only the reference page says.
    pub(crate) more: &'static str,
    /// Left out of `--help`; the reference page has it.
    pub(crate) advanced: bool,
    /// The value may be a credential: errors do not repeat it.
    pub(crate) secret: bool,
}

impl Spec {
    /// The environment variable.
    pub(crate) fn env(&self) -> String {
        format!("PANTALA_{}", self.name.to_uppercase().replace('-', "_"))
    }

    /// As people write it.
    pub(crate) fn shown(&self) -> String {
        match self.arity {
            Arity::Positional => self.name.to_owned(),
            _ => format!("--{}", self.name),
        }
    }

    /// The default as the help and the reference page show it.
    pub(crate) fn shown_default(&self) -> &'static str {
        if self.default_words.is_empty() {
            self.default
        } else {
            self.default_words
        }
    }
}

/// How one value is read.
#[derive(Clone, Copy)]
pub(crate) enum Read<T> {
    Text(fn(&str) -> Result<T, Bad>),
    Path(fn(&OsStr) -> Result<T, Bad>),
}

/// The one definition of a flag whose values are `T`.
#[derive(Clone, Copy)]
pub(crate) struct Flag<T> {
    pub(crate) spec: Spec,
    read: Read<T>,
}

impl<T> Flag<T> {
    const fn with(name: &'static str, value: &'static str, group: Group, read: Read<T>) -> Self {
        Self {
            spec: Spec {
                name,
                short: None,
                value,
                arity: Arity::One,
                reach: Reach::Everywhere,
                group,
                default: "",
                default_words: "",
                help: "",
                more: "",
                advanced: false,
                secret: false,
            },
            read,
        }
    }

    /// A flag whose value is text.
    pub(crate) const fn text(
        name: &'static str,
        value: &'static str,
        group: Group,
        read: fn(&str) -> Result<T, Bad>,
    ) -> Self {
        Self::with(name, value, group, Read::Text(read))
    }

    /// A flag whose value is a path, which need not be Unicode.
    pub(crate) const fn path(
        name: &'static str,
        value: &'static str,
        group: Group,
        read: fn(&OsStr) -> Result<T, Bad>,
    ) -> Self {
        Self::with(name, value, group, Read::Path(read))
    }

    pub(crate) const fn short(mut self, short: char) -> Self {
        self.spec.short = Some(short);
        self
    }

    pub(crate) const fn arity(mut self, arity: Arity) -> Self {
        self.spec.arity = arity;
        self
    }

    pub(crate) const fn reach(mut self, reach: Reach) -> Self {
        self.spec.reach = reach;
        self
    }

    pub(crate) const fn default(mut self, default: &'static str) -> Self {
        self.spec.default = default;
        self
    }

    pub(crate) const fn default_words(mut self, words: &'static str) -> Self {
        self.spec.default_words = words;
        self
    }

    pub(crate) const fn help(mut self, help: &'static str) -> Self {
        self.spec.help = help;
        self
    }

    pub(crate) const fn more(mut self, more: &'static str) -> Self {
        self.spec.more = more;
        self
    }

    pub(crate) const fn advanced(mut self) -> Self {
        self.spec.advanced = true;
        self
    }

    pub(crate) const fn secret(mut self) -> Self {
        self.spec.secret = true;
        self
    }

    /// Reads one value.
    pub(crate) fn read(&self, raw: &OsStr) -> Result<T, Bad> {
        match self.read {
            Read::Path(read) => read(raw),
            Read::Text(read) => match raw.to_str() {
                Some(text) => read(text),
                None => Err(Bad::new("not UTF-8 text", "write it in UTF-8")),
            },
        }
    }
}

/// A flag whose type does not matter: what the tables of the programs hold.
pub(crate) trait AnyFlag: Sync {
    fn spec(&self) -> &Spec;
    fn check(&self, raw: &OsStr) -> Result<(), Bad>;
}

impl<T> AnyFlag for Flag<T> {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn check(&self, raw: &OsStr) -> Result<(), Bad> {
        self.read(raw).map(drop)
    }
}
