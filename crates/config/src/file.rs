//! Reads the configuration file: TOML, the flags' names as keys, and the tables of dfdaemon.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::File,
    io::{self, Read as _},
    ops::Range,
    path::Path,
};

use pantala_core::Error;
use toml::{Spanned, Value};

use crate::{
    PROGRAMS,
    command::Program,
    flag::{Arity, Reach, Spec},
    sources::{Given, Layer, Source, bad_input, nearest, split},
    tables::{self, TABLES, Tables},
};

/// What the file at `path`, whose content is `text`, says to `program`.
pub(crate) fn parse(
    program: &'static Program,
    path: &Path,
    text: &str,
) -> Result<(Layer, Tables), Error> {
    let line_of = |span: Range<usize>| {
        1 + text
            .bytes()
            .take(span.start)
            .filter(|b| *b == b'\n')
            .count()
    };
    let table: BTreeMap<Spanned<String>, Spanned<Value>> =
        toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, line_of);
            let what = error.message().replace('\n', ", ");
            bad_input(
                format!("{}:{line}: not TOML, {what}", path.display()),
                "write lines like memory = \"512MiB\"",
            )
        })?;
    let mut entries: Vec<_> = table.into_iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    let mut layer = Layer::new();
    for (key, value) in entries {
        let line = line_of(key.span());
        let name = key.into_inner();
        if program.tables && TABLES.contains(&name.as_str()) {
            continue;
        }
        let of_key = program.flags.iter().map(|flag| flag.spec());
        let Some(spec) = of_key
            .filter(|spec| spec.reach == Reach::Everywhere)
            .find(|spec| spec.name == name)
        else {
            return Err(unknown_key(program, path, line, &name));
        };
        let raw = raw_values(spec, value.into_inner()).map_err(|(what, hint)| {
            bad_input(format!("{}:{line}: {name}: {what}", path.display()), hint)
        })?;
        let path = path.to_owned();
        let source = Source::File { path, line };
        layer.insert(spec.name, Given { source, raw });
    }
    let tables = match program.tables {
        true => tables::read(text, tables::in_file(path, text))?,
        false => Tables::default(),
    };
    Ok((layer, tables))
}

/// The texts a TOML value stands for.
fn raw_values(spec: &Spec, value: Value) -> Result<Vec<OsString>, (String, String)> {
    match value {
        Value::Array(items) if spec.arity.is_list() => {
            let texts = items.into_iter().map(|item| scalar(spec, item));
            texts
                .map(|text| text.map(|text| split(spec.arity, text.as_ref())))
                .collect::<Result<Vec<_>, _>>()
                .map(|parts| parts.concat())
        }
        value => scalar(spec, value).map(|text| split(spec.arity, text.as_ref())),
    }
}

fn scalar(spec: &Spec, value: Value) -> Result<String, (String, String)> {
    match value {
        Value::String(text) => Ok(text),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Float(number) => Ok(number.to_string()),
        Value::Boolean(switch) => Ok(switch.to_string()),
        other => {
            let name = spec.name;
            let hint = match spec.arity {
                Arity::Switch => format!("write {name} = true or false"),
                arity if arity.is_list() => format!("write {name} = [\"…\", \"…\"]"),
                _ => format!("write {name} = \"…\""),
            };
            Err((format!("a TOML {} is not its type", other.type_str()), hint))
        }
    }
}

fn unknown_key(program: &'static Program, path: &Path, line: usize, name: &str) -> Error {
    let what = |words: &str| format!("{}:{line}: {name}: {words}", path.display());
    let of = |program: &'static Program| program.flags.iter().map(|flag| flag.spec());
    if of(program).any(|spec| spec.name == name) {
        let hint = match name {
            "config" => "leave it out; a file names no other file".to_owned(),
            _ => format!("give it to {} itself", program.name),
        };
        return bad_input(what("not a setting of the file"), hint);
    }
    let keys = of(program).filter(|spec| spec.reach == Reach::Everywhere);
    let mut keys: Vec<&str> = keys.map(|spec| spec.name).collect();
    keys.sort_unstable();
    if let Some(near) = nearest(name, keys.iter().copied()) {
        return bad_input(what("unknown key"), format!("did you mean {near}?"));
    }
    let others = PROGRAMS
        .iter()
        .find(|other| of(other).any(|spec| spec.name == name));
    match others {
        Some(other) => bad_input(
            what(&format!("a key of {}, not of {}", other.name, program.name)),
            "give each program a file of its own",
        ),
        None => bad_input(
            what("unknown key"),
            format!("the keys are {}", keys.join(", ")),
        ),
    }
}

/// The longest file that is read; no honest one comes near.
const LONGEST: u64 = 1 << 20;

/// Reads a configuration file of this machine.
pub(crate) fn read_config(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?
        .take(LONGEST + 1)
        .read_to_string(&mut text)?;
    if read as u64 > LONGEST {
        return Err(io::Error::other("longer than 1 MiB"));
    }
    Ok(text)
}
