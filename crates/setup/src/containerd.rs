//! containerd: a `hosts.toml` per registry, and the setting that makes its CRI plugin read them.

use std::path::{Path, PathBuf};

use pantala_core::Result;
use toml_edit::TableLike;

use crate::{
    Options, Plan, ReadFiles,
    block::{self, Block},
    hosts, imports, list, missing, read, refuse,
    toml::{by_hand, is_blank, item, line_of, line_start, parse},
};

const CONFIG: &str = "/etc/containerd/config.toml";
const HOSTS_DIR: &str = "/etc/containerd/certs.d";
const HOSTS_FILE: &str = "hosts.toml";

/// The directory that stands for every registry without one of its own.
const ALL: &str = "_default";

/// The key of the CRI plugin's registry settings in each version of the file, and the plugin as
/// `disabled_plugins` has it.
const VERSION_2: &str = "io.containerd.grpc.v1.cri";
const VERSION_3: &str = "io.containerd.cri.v1.images";

const RESTART: &str = "systemctl restart containerd";

pub(crate) fn plan(options: &Options, files: &dyn ReadFiles) -> Result<Plan> {
    match options.undo {
        false => put_in(options, files),
        true => take_out(options, files),
    }
}

fn put_in(options: &Options, files: &dyn ReadFiles) -> Result<Plan> {
    let mut plan = Plan::default();
    let path = Path::new(CONFIG);
    let before = read(files, path)?;
    let (dir, after) = match effective(files, path, before.as_deref())? {
        Cri::Reads(dir) => (dir, before.clone()),
        Cri::Disabled => {
            plan.advice.push(format!(
                "The CRI plugin is disabled in {CONFIG}, so that file stays as it is. nerdctl reads \
                 {HOSTS_DIR} by itself, ctr with --hosts-dir {HOSTS_DIR}."
            ));
            (HOSTS_DIR.into(), before.clone())
        }
        Cri::Silent(place) => {
            let made = missing(files, Path::new("/etc/containerd"))?;
            let after = put_config(path, before.as_deref(), place, made)?;
            (HOSTS_DIR.into(), Some(after))
        }
    };
    // Whichever of ours goes last takes the directory with it, if that was made for the first.
    let above = made_above(files, &dir)?;
    for name in names(options) {
        let path = dir.join(&name).join(HOSTS_FILE);
        let before = read(files, &path)?;
        let made = missing(files, &dir.join(&name))?.max(above);
        let after = hosts::put_in(&path, before.as_deref(), &options.url(), made)?;
        plan.change(path, before, Some(after), 0);
    }
    if before != after {
        plan.change(path.into(), before, after, 0);
        plan.next.push(RESTART.into());
    }
    if options.registries.is_empty() {
        plan.advice.push(
            "This is for every registry: start dfdaemon without --mirror, or with --upstream NAME=URL \
             beside it. With --mirror alone it answers for every name from that one registry."
                .to_owned(),
        );
        let mut own = with_hosts(files, &dir)?;
        own.retain(|name| name != ALL);
        if !own.is_empty() {
            plan.advice.push(format!(
                "{} in {}, so {ALL} is not for it: name it with --registry to put it behind \
                 dfdaemon as well.",
                has_own(&own),
                dir.display()
            ));
        }
    }
    Ok(plan)
}

fn has_own(names: &[String]) -> String {
    match names {
        [one] => format!("{one} has a directory of its own"),
        _ => format!("{}: each has a directory of its own", names.join(", ")),
    }
}

fn take_out(options: &Options, files: &dyn ReadFiles) -> Result<Plan> {
    let mut plan = Plan::default();
    let path = Path::new(CONFIG);
    let before = read(files, path)?;
    // Where setup put them; elsewhere too if the setting has been changed since.
    let mut dirs = vec![PathBuf::from(HOSTS_DIR)];
    match effective(files, path, before.as_deref()) {
        Ok(Cri::Reads(dir)) if dir != dirs[0] => dirs.push(dir),
        _ => {}
    }
    let (mut left, mut others) = (false, Vec::new());
    for dir in &dirs {
        for name in with_hosts(files, dir)? {
            let path = dir.join(&name).join(HOSTS_FILE);
            let Some(text) = read(files, &path)? else {
                continue;
            };
            let chosen = options.registries.is_empty() || options.registries.contains(&name);
            match hosts::take_out(&path, &text)? {
                Some(_) if !chosen => left = true,
                Some((after, directories)) => {
                    if after.is_some() {
                        others.push(name);
                    }
                    plan.change(path, Some(text), after, directories);
                }
                None => others.push(name),
            }
        }
    }
    // What is still behind dfdaemon still needs the setting.
    if left {
        return Ok(plan);
    }
    let Some(text) = before else {
        return Ok(plan);
    };
    let Some(found) = block::find(path, &text)?.into_iter().next() else {
        return Ok(plan);
    };
    let ours = body(&found.block.body);
    if !ours {
        let after = block::keep(&text, &found);
        plan.advice.push(format!(
            "What setup put into {CONFIG} was changed since, so it stays, as yours."
        ));
        plan.change(path.into(), Some(text), Some(after), 0);
        return Ok(plan);
    }
    let rest = rest(&text, &found);
    match found.block.made {
        Some(directories) if rest.trim().is_empty() => {
            plan.change(path.into(), Some(text), None, directories);
        }
        _ => plan.change(path.into(), Some(text), Some(rest), 0),
    }
    plan.next.push(RESTART.into());
    if !others.is_empty() {
        plan.advice.push(format!(
            "{} in {}, which the CRI plugin no longer reads: it was setup that made it do so.",
            has_own(&others),
            HOSTS_DIR
        ));
    }
    Ok(plan)
}

/// The file without the block. The `version` that came with it stays where settings of that
/// version have been added since.
fn rest(text: &str, found: &block::Found) -> String {
    let rest = block::remove(text, found);
    let versioned = found.block.body.starts_with("version");
    match versioned && !is_blank(&rest) {
        true => format!("version = 2\n{rest}"),
        false => rest,
    }
}

/// Whether a block of the configuration file is still as setup wrote it.
fn body(body: &str) -> bool {
    body.lines().all(|line| {
        let line = line.trim();
        line == setting()
            || line == "version = 2"
            || line == header(VERSION_2)
            || line == header(VERSION_3)
    })
}

fn names(options: &Options) -> Vec<String> {
    match options.registries.is_empty() {
        true => vec![ALL.to_owned()],
        false => options.registries.clone(),
    }
}

/// How many directories were made for those of our files that are there.
fn made_above(files: &dyn ReadFiles, dir: &Path) -> Result<usize> {
    let mut most = 0;
    for name in with_hosts(files, dir)? {
        let path = dir.join(&name).join(HOSTS_FILE);
        let found = block::find(&path, &read(files, &path)?.unwrap_or_default())?;
        let made = found.iter().filter_map(|found| found.block.made);
        most = made.chain([most]).max().unwrap_or_default();
    }
    Ok(most)
}

/// The names in the directory that have a `hosts.toml`.
fn with_hosts(files: &dyn ReadFiles, dir: &Path) -> Result<Vec<String>> {
    let mut with = Vec::new();
    for name in list(files, dir)?.unwrap_or_default() {
        let inside = files.list(&dir.join(&name)).ok().flatten();
        if inside.is_some_and(|names| names.iter().any(|name| name == HOSTS_FILE)) {
            with.push(name);
        }
    }
    Ok(with)
}

fn setting() -> String {
    format!("config_path = \"{HOSTS_DIR}\"")
}

fn header(plugin: &str) -> String {
    format!("[plugins.\"{plugin}\".registry]")
}

/// What the configuration says about directories of hosts.
enum Cri {
    /// They are read from here.
    Reads(PathBuf),
    /// Nothing: it has to be said.
    Silent(Place),
    /// Nobody would read it.
    Disabled,
}

/// Where in the file it can be said.
enum Place {
    /// In a table of its own, after everything else; with the file's version where it has none.
    End { plugin: &'static str, version: bool },
    /// In the table whose header is on the line before this place.
    In(usize),
    /// On the line that begins here, and says nothing now.
    Line(usize),
}

/// What counts: the main file, unless it imports one that says something of the CRI plugin.
fn effective(files: &dyn ReadFiles, path: &Path, text: Option<&str>) -> Result<Cri> {
    let mut counts = look(path, text)?;
    for (path, text) in imports::all(files, path, text.unwrap_or_default())? {
        match (&counts, imported(&path, &text)?) {
            // What one file disables no other enables.
            (Cri::Disabled, _) | (_, None) => {}
            (_, Some(says)) => counts = says,
        }
    }
    Ok(counts)
}

/// What an imported file says of the CRI plugin, if anything.
fn imported(path: &Path, text: &str) -> Result<Option<Cri>> {
    let document = parse(path, text)?;
    let table = document.as_table();
    if disabled(table, &["cri", VERSION_2, VERSION_3]) {
        return Ok(Some(Cri::Disabled));
    }
    let of_plugin = |plugin: &&str| item(table, &["plugins", plugin]).is_some();
    let Some(plugin) = [VERSION_3, VERSION_2].into_iter().find(of_plugin) else {
        return Ok(None);
    };
    let at = text.find(plugin).map(|at| line_of(text, at));
    let registry = item(table, &["plugins", plugin, "registry"]);
    let settings = registry.and_then(|registry| registry.as_table_like());
    if let Some(settings) = settings {
        deprecated(path, text, settings)?;
    }
    let value = settings.and_then(|settings| settings.get("config_path")?.as_str());
    let mut dirs = value.unwrap_or_default().split(':').map(str::trim);
    match dirs.find(|dir| !dir.is_empty()) {
        Some(dir) => Ok(Some(Cri::Reads(dir.into()))),
        None => Err(refuse(
            path,
            at,
            "it is imported, and its settings of the CRI plugin replace those of config.toml",
            format!("put this in by hand: {} {}", header(plugin), setting()),
        )),
    }
}

fn look(path: &Path, text: Option<&str>) -> Result<Cri> {
    let text = text.unwrap_or_default();
    let document = parse(path, text)?;
    let table = document.as_table();
    let version = table.get("version").map(|item| item.as_integer());
    let plugin = match version {
        Some(Some(2)) => VERSION_2,
        Some(Some(3)) => VERSION_3,
        None if table.is_empty() => {
            return Ok(Cri::Silent(Place::End {
                plugin: VERSION_2,
                version: true,
            }));
        }
        None if disabled(table, &["cri", VERSION_2]) => return Ok(Cri::Disabled),
        None | Some(Some(1)) => {
            return Err(refuse(
                path,
                None,
                "written for version 1, which has no such setting",
                "bring it to version 2: containerd config migrate shows how",
            ));
        }
        _ => {
            return Err(refuse(
                path,
                None,
                "its version is none that setup knows",
                format!("set config_path = \"{HOSTS_DIR}\" for the CRI plugin's registry by hand"),
            ));
        }
    };
    if disabled(table, &["cri", plugin]) {
        return Ok(Cri::Disabled);
    }
    let Some(registry) = item(table, &["plugins", plugin, "registry"]) else {
        return Ok(Cri::Silent(Place::End {
            plugin,
            version: false,
        }));
    };
    let Some(settings) = registry.as_table_like() else {
        return Err(by_hand(path, &block_for(plugin, false)));
    };
    deprecated(path, text, settings)?;
    match settings.get_key_value("config_path") {
        Some((key, value)) => {
            let Some(value) = value.as_str() else {
                let at = key.span().map(|span| line_of(text, span.start));
                return Err(refuse(
                    path,
                    at,
                    "config_path is not a text",
                    "correct it first",
                ));
            };
            let first = value.split(':').map(str::trim).find(|dir| !dir.is_empty());
            match (first, key.span()) {
                (Some(dir), _) => Ok(Cri::Reads(dir.into())),
                (None, Some(span)) => Ok(Cri::Silent(Place::Line(line_start(text, span.start)))),
                (None, None) => Err(by_hand(path, &block_for(plugin, false))),
            }
        }
        None => Ok(Cri::Silent(match registry.as_table() {
            Some(table) if !table.is_implicit() && !table.is_dotted() => {
                let end = table.span().map_or(text.len(), |span| span.end);
                let line = text[end..].find('\n').map_or(text.len(), |at| end + at + 1);
                Place::In(line)
            }
            _ => Place::End {
                plugin,
                version: false,
            },
        })),
    }
}

fn disabled(table: &dyn TableLike, names: &[&str]) -> bool {
    let list = table
        .get("disabled_plugins")
        .and_then(|item| item.as_array());
    list.is_some_and(|list| {
        list.iter()
            .any(|name| name.as_str().is_some_and(|name| names.contains(&name)))
    })
}

/// containerd does not start with both these and a `config_path`. Credentials in `configs` it
/// takes next to one.
fn deprecated(path: &Path, text: &str, registry: &dyn TableLike) -> Result<()> {
    let tables = |name| registry.get(name).and_then(|item| item.as_table_like());
    let mirrors = tables("mirrors").is_some_and(|table| !table.is_empty());
    let tls = tables("configs").is_some_and(|configs| {
        configs.iter().any(|(_, host)| {
            host.as_table_like()
                .is_some_and(|host| host.contains_key("tls"))
        })
    });
    for (there, name, what) in [
        (mirrors, "mirrors", "registry.mirrors"),
        (tls, "configs", "registry.configs with tls"),
    ] {
        if there {
            let at = text
                .find(&format!("registry.{name}"))
                .map(|at| line_of(text, at));
            return Err(refuse(
                path,
                at,
                format!("{what} is set, which containerd refuses together with config_path"),
                format!(
                    "move each registry of it into {HOSTS_DIR}/NAME/{HOSTS_FILE}, take it out here, \
                     and run setup again"
                ),
            ));
        }
    }
    Ok(())
}

fn block_for(plugin: &str, version: bool) -> Block {
    let version = if version { "version = 2\n" } else { "" };
    let (header, setting) = (header(plugin), setting());
    Block {
        body: format!("{version}{header}\n  {setting}\n"),
        ..Block::default()
    }
}

fn put_config(path: &Path, text: Option<&str>, place: Place, made: usize) -> Result<String> {
    let whole = text.unwrap_or_default();
    let only_setting = |indent: &str| Block {
        body: format!("{indent}{}\n", setting()),
        ..Block::default()
    };
    let (at, mut block) = match place {
        Place::End { plugin, version } => (whole.len(), block_for(plugin, version)),
        Place::In(at) => (at, only_setting("  ")),
        Place::Line(at) => {
            let line = whole[at..].split(['\r', '\n']).next().unwrap_or_default();
            let indent = &line[..line.len() - line.trim_start().len()];
            let instead = Some(line.to_owned());
            // Nothing else may stand there, for it would go with the line.
            let bare = line.trim_start();
            let alone = bare.starts_with("config_path") || bare.starts_with("\"config_path\"");
            let block = Block {
                instead,
                ..only_setting(indent)
            };
            if !alone {
                return Err(by_hand(path, &block));
            }
            (at, block)
        }
    };
    if text.is_none() {
        block.made = Some(made);
    }
    let after = block::insert(whole, at, &block);
    match look(path, Some(&after)) {
        Ok(Cri::Reads(dir)) if dir == Path::new(HOSTS_DIR) => Ok(after),
        _ => Err(by_hand(path, &block)),
    }
}
