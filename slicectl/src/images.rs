//! Where images and the monitor are: in a source tree, or installed beside this program.

use std::path::{Path, PathBuf};

use crate::problem::Problem;
use crate::source_tree::SourceTree;
use crate::text::shell_word;

/// What an IMAGE argument means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// This file.
    File(PathBuf),
    /// This example of the source tree.
    Example(String),
}

/// The places to look in.
#[derive(Debug, Clone)]
pub struct Places {
    tree: Option<SourceTree>,
    /// The directory that this program is in.
    beside: Option<PathBuf>,
}

impl Places {
    /// The places of this program.
    pub fn here() -> Self {
        let executable = std::env::current_exe().ok();
        Self {
            tree: SourceTree::find(),
            beside: executable.and_then(|path| Some(path.parent()?.to_owned())),
        }
    }

    /// The source tree, if there is one.
    pub fn tree(&self) -> Option<&SourceTree> {
        self.tree.as_ref()
    }

    /// Finds out what `text` names: an example or installed image, or a file. With a slash in it,
    /// it is a file.
    pub fn find(&self, text: &str) -> Result<Wanted, Problem> {
        if !text.contains('/') {
            if self.examples().iter().any(|name| name == text) {
                return Ok(Wanted::Example(text.to_owned()));
            }
            if let Some(installed) = self.installed(text) {
                return Ok(Wanted::File(installed));
            }
        }
        let path = Path::new(text);
        let problem = |why: &str| Problem::new(format!("image {text}"), why);
        match path.metadata() {
            Ok(metadata) if metadata.is_dir() => Err(problem("is a directory, not an image file")
                .mend(format!(
                    "build it first: slicectl run \"$(slicectl build {})\"",
                    shell_word(path)
                ))),
            Ok(_) => match std::path::absolute(path) {
                Ok(path) => Ok(Wanted::File(path)),
                Err(error) => Err(problem(&error.to_string())),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(problem("not found").mend(self.suggestion()))
            }
            Err(error) => Err(problem(&format!("cannot be read: {error}"))),
        }
    }

    /// The file of an image, built first if it is an example and `build` is set.
    pub fn image(&self, wanted: &Wanted, build: bool) -> Result<PathBuf, Problem> {
        match (wanted, &self.tree) {
            (Wanted::Example(name), Some(tree)) => tree.example(name, build),
            (Wanted::Example(name), None) => Err(Problem::new(name, "is not in a source tree")),
            (Wanted::File(path), _) => Ok(path.clone()),
        }
    }

    /// The monitor, built first if it is in a source tree and `build` is set.
    pub fn monitor(&self, build: bool) -> Result<PathBuf, Problem> {
        if let Some(tree) = &self.tree {
            return tree.monitor(build);
        }
        let places: Vec<PathBuf> = self
            .beside
            .iter()
            .flat_map(|dir| {
                [
                    dir.join("slicevmm"),
                    dir.join("../libexec/slicevisor/slicevmm"),
                ]
            })
            .collect();
        places
            .iter()
            .find(|path| path.is_file())
            .cloned()
            .ok_or_else(|| {
                let looked: Vec<String> = places
                    .iter()
                    .map(|path| path.display().to_string())
                    .collect();
                Problem::new(
                    "slicevmm",
                    format!("the monitor is not at {}", looked.join(" or ")),
                )
                .mend("install slicectl and slicevmm together")
            })
    }

    fn examples(&self) -> Vec<String> {
        self.tree
            .as_ref()
            .map(SourceTree::examples)
            .unwrap_or_default()
    }

    fn installed_dir(&self) -> Option<PathBuf> {
        Some(self.beside.as_ref()?.join("../share/slicevisor/images"))
    }

    fn installed(&self, name: &str) -> Option<PathBuf> {
        let path = self.installed_dir()?.join(name).canonicalize().ok()?;
        (!name.starts_with('.') && path.is_file()).then_some(path)
    }

    /// What could have been meant.
    fn suggestion(&self) -> String {
        let mut names = self.examples();
        if let Some(entries) = self.installed_dir().and_then(|dir| dir.read_dir().ok()) {
            names.extend(
                entries
                    .flatten()
                    .filter_map(|entry| entry.file_name().into_string().ok()),
            );
        }
        names.sort();
        names.dedup();
        match names.is_empty() {
            true => "give the path of an image file".to_owned(),
            false => format!(
                "give the path of an image file, or an example: {}",
                names.join(", ")
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn installed() -> (tempfile::TempDir, Places) {
        let dir = tempfile::tempdir().expect("a directory");
        for path in [
            "bin/slicevmm",
            "share/slicevisor/images/hello",
            "libexec/slicevisor/slicevmm",
        ] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(path, "").expect("written");
        }
        let places = Places {
            tree: None,
            beside: Some(dir.path().join("bin")),
        };
        (dir, places)
    }

    #[test]
    fn an_installed_image_is_found_by_its_name() {
        let (_dir, places) = installed();
        match places.find("hello") {
            Ok(Wanted::File(path)) => assert!(path.ends_with("share/slicevisor/images/hello")),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_name_that_is_nothing_is_answered_with_the_names_there_are() {
        let (_dir, places) = installed();
        let told = places.find("helo").expect_err("absent").to_string();
        assert_eq!(
            told,
            "image helo: not found; give the path of an image file, or an example: hello"
        );
        let told = places.find("./hello").expect_err("absent").to_string();
        assert!(told.starts_with("image ./hello: not found"), "{told}");
    }

    #[test]
    fn a_directory_is_answered_with_how_to_build_it() {
        let (dir, places) = installed();
        let told = places
            .find(&dir.path().display().to_string())
            .expect_err("no file");
        assert!(told.to_string().contains("slicectl build"), "{told}");
    }

    #[test]
    fn the_monitor_is_beside_the_program_or_in_libexec() {
        let (dir, places) = installed();
        assert!(
            places
                .monitor(true)
                .expect("found")
                .ends_with("bin/slicevmm")
        );
        fs::remove_file(dir.path().join("bin/slicevmm")).expect("removed");
        assert!(
            places
                .monitor(true)
                .expect("found")
                .ends_with("libexec/slicevisor/slicevmm")
        );
        fs::remove_file(dir.path().join("libexec/slicevisor/slicevmm")).expect("removed");
        let told = places.monitor(true).expect_err("gone").to_string();
        assert!(told.contains("is not at"), "{told}");
    }
}
