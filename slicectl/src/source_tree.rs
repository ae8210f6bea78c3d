//! The source tree that this program runs from, if it does: its examples, and building them and
//! the monitor when they are not up to date.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::cargo::{Build, Product, TARGET};
use crate::freshness::Stamp;
use crate::problem::Problem;

/// What tells the root of the tree.
const MARK: &str = "guest-shim/abi/Cargo.toml";

/// Files that matter to every build beside the sources that cargo lists.
const MANIFESTS: &[&str] = &[
    ".cargo/config.toml",
    "Cargo.lock",
    "Cargo.toml",
    "guest-shim/Cargo.toml",
    "guest-shim/abi/Cargo.toml",
    "rust-toolchain.toml",
    "vmm/Cargo.toml",
];

/// A source tree.
#[derive(Debug, Clone)]
pub struct SourceTree {
    root: PathBuf,
    /// Where cargo puts what it builds.
    target: PathBuf,
}

impl SourceTree {
    /// The tree that holds this executable, or else the package that `cargo run` runs.
    pub fn find() -> Option<Self> {
        let executable = std::env::current_exe().ok();
        let package = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let mut tree = [executable, package]
            .into_iter()
            .flatten()
            .find_map(|path| Self::around(&path))?;
        if let Some(dir) = std::env::var_os("CARGO_TARGET_DIR").filter(|dir| !dir.is_empty()) {
            tree.target = std::path::absolute(&dir).unwrap_or_else(|_| PathBuf::from(dir));
        }
        Some(tree)
    }

    /// The tree that `path` is in.
    fn around(path: &Path) -> Option<Self> {
        path.ancestors()
            .find(|dir| dir.join(MARK).is_file())
            .map(|root| Self {
                root: root.to_owned(),
                target: root.join("target"),
            })
    }

    /// Names of the example slices, sorted.
    pub fn examples(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.root.join("guest-shim/examples")) else {
            return Vec::new();
        };
        let mut names: Vec<String> = entries
            .flatten()
            .filter_map(|entry| {
                let path = entry.path();
                let source = path.extension().is_some_and(|extension| extension == "rs");
                (source || path.join("main.rs").is_file())
                    .then(|| path.file_stem()?.to_str().map(str::to_owned))?
            })
            .collect();
        names.sort();
        names
    }

    /// The monitor. If `build` is set it is built first, unless it is up to date.
    pub fn monitor(&self, build: bool) -> Result<PathBuf, Problem> {
        let product = Product::Bin("slicevmm".to_owned());
        let at = self.target.join(TARGET).join("release/slicevmm");
        let recipe = Build::release(self.root.join("vmm/Cargo.toml"), product.clone());
        self.make(&product, &recipe, at, build)
    }

    /// The image of an example, likewise.
    pub fn example(&self, name: &str, build: bool) -> Result<PathBuf, Problem> {
        let product = Product::Example(name.to_owned());
        let manifest = self.root.join("guest-shim/Cargo.toml");
        let target = image_target_dir(&self.target);
        let at = target.join(TARGET).join("slice/examples").join(name);
        let recipe = Build::image(manifest, product.clone(), &[], &target);
        self.make(&product, &recipe, at, build)
    }

    fn make(
        &self,
        product: &Product,
        recipe: &Build,
        usual_path: PathBuf,
        build: bool,
    ) -> Result<PathBuf, Problem> {
        if !build {
            return match usual_path.is_file() {
                true => Ok(usual_path),
                false => Err(Problem::new(
                    product.name(),
                    format!("is not built: {} is not there", usual_path.display()),
                )
                .mend("leave out --no-build")),
            };
        }
        let stamps = image_target_dir(&self.target).join("stamps");
        let stamp = Stamp::new(stamps.join(format!("{}-{}", product.kind(), product.name())));
        let manifests: Vec<PathBuf> = MANIFESTS.iter().map(|name| self.root.join(name)).collect();
        let text = recipe.recipe();
        if let Some(path) = stamp.fresh(&text, &manifests) {
            return Ok(path);
        }
        let began = SystemTime::now();
        let path = recipe.run()?;
        // Without a stamp the next run asks cargo again: slower, but right.
        let _ = stamp.leave(began, &path, &text);
        Ok(path)
    }
}

/// Where images are built, below the target directory of their workspace.
pub fn image_target_dir(target: &Path) -> PathBuf {
    target.join("slice")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        for path in [
            MARK,
            "guest-shim/examples/hello.rs",
            "guest-shim/examples/big/main.rs",
            "guest-shim/examples/notes.txt",
        ] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(path, "").expect("written");
        }
        dir
    }

    #[test]
    fn the_tree_is_found_from_anywhere_inside_and_lists_its_examples() {
        let dir = tree();
        let inside = dir
            .path()
            .join("target/x86_64-unknown-linux-gnu/release/slicectl");
        let tree = SourceTree::around(&inside).expect("found");
        assert_eq!(tree.root, dir.path());
        assert_eq!(tree.examples(), ["big", "hello"]);
    }

    #[test]
    fn there_is_no_tree_around_an_installed_program() {
        assert!(SourceTree::around(Path::new("/usr/bin/slicectl")).is_none());
    }

    #[test]
    fn what_may_not_be_built_and_is_not_there_is_told() {
        let dir = tree();
        let tree = SourceTree::around(dir.path()).expect("found");
        let problem = tree.example("hello", false).expect_err("not built");
        assert!(problem.to_string().contains("--no-build"), "{problem}");
    }
}
