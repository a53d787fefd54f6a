//! A host in memory.
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
};

use pantala_core::Error;
use pantala_setup::{Options, Plan, ReadFiles, Runtime, backup_path, plan};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host(pub BTreeMap<PathBuf, String>);

impl ReadFiles for Host {
    fn read(&self, path: &Path) -> io::Result<Option<String>> {
        Ok(self.0.get(path).cloned())
    }

    fn list(&self, dir: &Path) -> io::Result<Option<Vec<String>>> {
        let below = self.0.keys().filter_map(|path| path.strip_prefix(dir).ok());
        let names: BTreeSet<String> = below
            .filter_map(|rest| rest.iter().next())
            .map(|name| name.to_string_lossy().into_owned())
            .collect();
        Ok((!names.is_empty()).then(|| names.into_iter().collect()))
    }
}

impl Host {
    pub fn with(files: &[(&str, &str)]) -> Self {
        let owned = files
            .iter()
            .map(|(path, text)| (path.into(), (*text).into()));
        Self(owned.collect())
    }

    pub fn text(&self, path: &str) -> &str {
        self.0
            .get(Path::new(path))
            .unwrap_or_else(|| panic!("{path} is not there"))
    }

    /// Plans and does it, as the real one does.
    pub fn run(&mut self, runtime: Runtime, options: &Options) -> Result<Plan, Error> {
        let plan = plan(runtime, options, self)?;
        for change in &plan.changes {
            assert_eq!(self.0.get(&change.path), change.before.as_ref());
            assert_ne!(change.before, change.after);
            let backup = backup_path(&change.path);
            if let (Some(before), false) = (&change.before, options.undo) {
                self.0.entry(backup.clone()).or_insert(before.clone());
            }
            match &change.after {
                Some(after) => self.0.insert(change.path.clone(), after.clone()),
                None => self.0.remove(&change.path),
            };
            if options.undo && self.0.get(&backup).cloned() == change.after {
                self.0.remove(&backup);
            }
        }
        Ok(plan)
    }

    pub fn ok(&mut self, runtime: Runtime, options: &Options) -> Plan {
        self.run(runtime, options).unwrap()
    }

    pub fn fails(&self, runtime: Runtime, options: &Options) -> Error {
        let error = plan(runtime, options, self).unwrap_err();
        assert!(error.advice().is_some(), "{error}");
        error
    }

    /// Puts it in twice and takes it out twice; every second time changes nothing. Returns how it
    /// was in between.
    pub fn there_and_back(&self, runtime: Runtime, options: &Options) -> Self {
        let mut host = self.clone();
        host.ok(runtime, options);
        let between = host.clone();
        assert!(host.ok(runtime, options).changes.is_empty());
        assert_eq!(host, between);
        host.ok(runtime, &undo(options));
        assert_eq!(&host, self, "between: {between:#?}");
        assert!(host.ok(runtime, &undo(options)).changes.is_empty());
        between
    }
}

pub fn options(registries: &[&str]) -> Options {
    Options {
        listen: "127.0.0.1:65001".parse().unwrap(),
        registries: registries.iter().map(|name| (*name).into()).collect(),
        undo: false,
    }
}

pub fn undo(options: &Options) -> Options {
    Options {
        undo: true,
        ..options.clone()
    }
}
