//! Modules of a Debian kernel, in an order in which they can be loaded.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The modules of a kernel: files by name.
pub type Modules = BTreeMap<String, PathBuf>;

/// A module to load.
#[derive(Debug)]
pub struct Module {
    /// Its name.
    pub name: String,
    /// Its file's content.
    pub content: Vec<u8>,
}

/// All modules below `directory`.
pub fn find(directory: &Path) -> Result<Modules> {
    let mut modules = Modules::new();
    add_all(directory, &mut modules)?;
    Ok(modules)
}

fn add_all(directory: &Path, into: &mut Modules) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("{}", directory.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            add_all(&path, into)?;
        } else if let Some(name) = path.file_name().and_then(|name| name.to_str())
            && let Some(name) = name.strip_suffix(".ko")
        {
            into.insert(canonical(name), path);
        }
    }
    Ok(())
}

/// The modules of these names and what they depend on, dependencies first.
pub fn with_dependencies(modules: &Modules, names: &[&str]) -> Result<Vec<Module>> {
    let mut ordered = Vec::new();
    for name in names {
        add(modules, name, &mut ordered)?;
    }
    Ok(ordered)
}

fn add(modules: &Modules, name: &str, to: &mut Vec<Module>) -> Result<()> {
    let name = canonical(name);
    if to.iter().any(|module| module.name == name) {
        return Ok(());
    }
    let path = modules.get(&name);
    let path = path.with_context(|| format!("the kernel has no module {name}"))?;
    let content = fs::read(path).with_context(|| format!("{}", path.display()))?;
    for dependency in dependencies(&content) {
        add(modules, &dependency, to)?;
    }
    to.push(Module { name, content });
    Ok(())
}

/// What a module's file says it depends on: a field of its information, each of which ends with a
/// zero.
fn dependencies(content: &[u8]) -> Vec<String> {
    const FIELD: &[u8] = b"\0depends=";
    let Some(at) = content
        .windows(FIELD.len())
        .position(|window| window == FIELD)
    else {
        return Vec::new();
    };
    let field = content[at + FIELD.len()..].split(|byte| *byte == 0).next();
    let field = String::from_utf8_lossy(field.unwrap_or_default()).into_owned();
    let names = field.split(',').filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

/// Files have dashes where names have underscores, as it happens.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_come_first_and_once() {
        let place = tempfile::tempdir().expect("a directory is made");
        let module = |name: &str, depends: &str| {
            let content = format!("ELF\0license=GPL\0depends={depends}\0name={name}\0");
            fs::write(place.path().join(format!("{name}.ko")), content).expect("it is written");
        };
        module("ring", "");
        module("bus", "ring");
        module("net-card", "bus,ring");
        let found = find(place.path()).expect("they are there");
        let ordered = with_dependencies(&found, &["net-card", "bus"]).expect("all are there");
        let names: Vec<&str> = ordered.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["ring", "bus", "net_card"]);
        assert!(with_dependencies(&found, &["disk"]).is_err());
    }
}
