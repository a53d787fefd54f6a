//! podman, buildah, skopeo and CRI-O: a drop-in of ours for `registries.conf`.

use std::path::{Path, PathBuf};

use pantala_core::{Error, Kind, Result, Who};
use toml_edit::TableLike;

use crate::{
    Options, Plan, ReadFiles, Runtime,
    block::{self, Block},
    list, missing, read, refuse,
    toml::{line_of, parse},
};

const MAIN: &str = "/etc/containers/registries.conf";
const DIR: &str = "/etc/containers/registries.conf.d";
const OURS: &str = "50-pantala.conf";

pub(crate) fn plan(runtime: Runtime, options: &Options, files: &dyn ReadFiles) -> Result<Plan> {
    let mut plan = Plan::default();
    let path = Path::new(DIR).join(OURS);
    let before = read(files, &path)?;
    if options.undo {
        let text = before.clone().unwrap_or_default();
        let (after, directories) = take_out(&path, &text, &options.registries)?;
        let after = before.is_some().then_some(after).flatten();
        plan.change(path, before, after, directories);
    } else {
        if options.registries.is_empty() {
            let what = format!(
                "--registry: {} has no setting for all registries",
                runtime.name()
            );
            return Err(Error::new(Who::User, Kind::BadInput, what)
                .hint("name each one, like --registry registry.example"));
        }
        for name in &options.registries {
            check(name)?;
        }
        conflicts(options, files, &path, before.as_deref())?;
        let made = missing(files, Path::new(DIR))?;
        let after = put_in(&path, before.as_deref(), options, made)?;
        plan.change(path, before, Some(after), 0);
        plan.advice.push(
            "The file is for podman, buildah, skopeo and CRI-O alike. A user with a \
             registries.conf in ~/.config/containers does not see it."
                .into(),
        );
    }
    if runtime == Runtime::Crio && !plan.changes.is_empty() {
        plan.next.push("systemctl reload crio".into());
    }
    Ok(plan)
}

/// The registry's name becomes part of a path in the mirror's location. Where it cannot, these
/// clients refuse every image of the registry, so the mirror must not be put in.
fn check(name: &str) -> Result<()> {
    let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-".contains(c);
    if name.chars().all(letters) {
        return Ok(());
    }
    let what = format!("--registry {name}: no name for a mirror's path, which has no port");
    Err(Error::new(Who::User, Kind::BadInput, what).hint(
        "put it behind dfdaemon as a proxy, with HTTP_PROXY and HTTPS_PROXY, or give it a name in \
         small letters without a port",
    ))
}

fn put_in(path: &Path, text: Option<&str>, options: &Options, made: usize) -> Result<String> {
    let mut after = text.unwrap_or_default().to_owned();
    for name in &options.registries {
        let mut block = Block {
            name: Some(name.clone()),
            body: body(name, &options.address().to_string()),
            ..Block::default()
        };
        let all = block::find(path, &after)?;
        let there = all
            .iter()
            .find(|found| found.block.name.as_ref() == Some(name));
        let at = match there {
            Some(found) if found.block.body == block.body => continue,
            // For another address, from before.
            Some(found) => {
                block.made = found.block.made;
                after = block::remove(&after, found);
                found.span.start.min(after.len())
            }
            None => {
                // Who made the file is known as long as anything of it is left.
                let before = all.iter().find_map(|found| found.block.made);
                block.made = if text.is_none() { Some(made) } else { before };
                after.len()
            }
        };
        after = block::insert(&after, at, &block);
    }
    parse(path, &after)?;
    Ok(after)
}

fn body(name: &str, address: &str) -> String {
    format!(
        "[[registry]]\nprefix = \"{name}\"\nlocation = \"{name}\"\n\n[[registry.mirror]]\n\
         location = \"{address}/{name}\"\ninsecure = true\n"
    )
}

/// The file without these registries, or any of ours, and how many directories go with it.
fn take_out(path: &Path, text: &str, names: &[String]) -> Result<(Option<String>, usize)> {
    let mut rest = text.to_owned();
    let mut made = None;
    loop {
        let all = block::find(path, &rest)?;
        let next = all.iter().find(|found| {
            let name = found.block.name.as_ref();
            names.is_empty() || name.is_some_and(|name| names.contains(name))
        });
        let Some(found) = next else {
            break;
        };
        made = made.or(found.block.made);
        rest = block::remove(&rest, found);
    }
    Ok(match made {
        Some(directories) if rest.trim().is_empty() => (None, directories),
        _ => (Some(rest), 0),
    })
}

/// Two files with an entry for one registry: the later takes all, and the other's settings are
/// lost. That is for the user to sort out.
fn conflicts(
    options: &Options,
    files: &dyn ReadFiles,
    ours: &Path,
    text: Option<&str>,
) -> Result<()> {
    let mut paths: Vec<PathBuf> = vec![MAIN.into()];
    for name in list(files, Path::new(DIR))?.unwrap_or_default() {
        if name.ends_with(".conf") && name != OURS {
            paths.push(Path::new(DIR).join(name));
        }
    }
    for path in paths {
        if let Some(text) = read(files, &path)? {
            conflict(&path, &text, &options.registries)?;
        }
    }
    // What the user has put into our file, outside of what is ours.
    let mut rest = text.unwrap_or_default().to_owned();
    while let Some(found) = block::find(ours, &rest)?.first() {
        rest = block::remove(&rest, found);
    }
    conflict(ours, &rest, &options.registries)
}

/// Whether an entry with this prefix is for a registry and for others beside it.
fn covers(prefix: &str, name: &str) -> bool {
    let domain = prefix.strip_prefix("*.");
    let below = domain.and_then(|domain| name.strip_suffix(domain));
    below.is_some_and(|below| below.len() > 1 && below.ends_with('.'))
}

fn conflict(path: &Path, text: &str, names: &[String]) -> Result<()> {
    let document = parse(path, text)?;
    if let Some(registries) = document.get("registries").and_then(|it| it.as_table_like())
        && ["search", "insecure", "block"]
            .iter()
            .any(|key| registries.contains_key(key))
    {
        return Err(refuse(
            path,
            None,
            "written for version 1, which has no mirrors and cannot stand next to version 2",
            "write it as unqualified-search-registries and [[registry]] first",
        ));
    }
    let Some(registries) = document.get("registry") else {
        return Ok(());
    };
    let mut entries: Vec<&dyn TableLike> = Vec::new();
    if let Some(tables) = registries.as_array_of_tables() {
        entries.extend(tables.iter().map(|table| table as &dyn TableLike));
    } else if let Some(array) = registries.as_array() {
        let tables = array.iter().filter_map(|value| value.as_inline_table());
        entries.extend(tables.map(|table| table as &dyn TableLike));
    }
    for entry in entries {
        let texts = ["prefix", "location"].map(|key| {
            let (key, value) = entry.get_key_value(key)?;
            let text = value.as_str().filter(|text| !text.is_empty())?;
            Some((key.span().map_or(0, |span| span.start), text))
        });
        // Without a prefix the location is what images are matched against.
        let [prefix, location] = texts;
        let Some((at, written)) = prefix.or(location) else {
            continue;
        };
        // A slash at its end says nothing.
        let name = written.trim_end_matches('/');
        let covered = names.iter().find(|one| covers(name, one));
        if let Some(covered) = covered {
            let blocked = entry.get("blocked").and_then(|item| item.as_bool()) == Some(true);
            let (what, hint) = if blocked {
                (
                    format!(
                        "{written} is blocked here, and an entry for {covered} would lift that"
                    ),
                    format!("take the block out first if {covered} is to be pulled from"),
                )
            } else {
                (
                    format!(
                        "the entry for {written} is for {covered} too, and would no longer be with \
                         one for {covered} alone"
                    ),
                    format!(
                        "write an entry for {covered} with those settings and the mirror by hand"
                    ),
                )
            };
            return Err(refuse(path, Some(line_of(text, at)), what, hint));
        }
        if names.iter().any(|one| one == name) {
            return Err(refuse(
                path,
                Some(line_of(text, at)),
                format!("{name} has an entry here, and of two entries only one is used"),
                format!(
                    "take it out, or add to it by hand: [[registry.mirror]] with location = \
                     \"IP:PORT/{name}\" and insecure = true"
                ),
            ));
        }
    }
    Ok(())
}
