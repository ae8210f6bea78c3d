//! Whether something that cargo built is still up to date, told without running cargo.
//!
//! Asking cargo costs a hundred milliseconds and a line on stderr, which would be most of the
//! time of starting a sliver. After each successful build a stamp is left that holds how it was
//! built and what came out. The build is fresh while that is how it would be built now, what came
//! out is still the same file, and no source file that cargo lists is younger than the stamp.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The stamp of one product.
#[derive(Debug)]
pub struct Stamp {
    path: PathBuf,
}

impl Stamp {
    /// The stamp at `path`, which need not exist.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The path of the product, if it is fresh. `also` are files that matter beside those that
    /// cargo lists.
    pub fn fresh(&self, recipe: &str, also: &[PathBuf]) -> Option<PathBuf> {
        let since = modified(&self.path)?;
        let text = fs::read_to_string(&self.path).ok()?;
        let (output, rest) = text.split_once('\n')?;
        let (identity, built_by) = rest.split_once('\n')?;
        let output = PathBuf::from(output);
        if built_by != recipe || self::identity(&output).as_deref() != Some(identity) {
            return None;
        }
        let listed = fs::read_to_string(output.with_extension("d")).ok()?;
        let sources = dependencies(&listed)?;
        let untouched = |path: &PathBuf| modified(path).is_some_and(|time| time < since);
        (sources.iter().all(untouched) && also.iter().filter(|path| path.exists()).all(untouched))
            .then_some(output)
    }

    /// Leaves the stamp of a build that began at `began`: what was edited since then is younger.
    pub fn leave(&self, began: SystemTime, output: &Path, recipe: &str) -> io::Result<()> {
        if let Some(dir) = self.path.parent() {
            fs::create_dir_all(dir)?;
        }
        let mut file =
            tempfile::NamedTempFile::new_in(self.path.parent().unwrap_or(Path::new(".")))?;
        let identity = identity(output).unwrap_or_default();
        write!(file, "{}\n{identity}\n{recipe}", output.display())?;
        file.as_file().set_modified(began)?;
        file.persist(&self.path)?;
        Ok(())
    }
}

/// What changes when somebody else builds the same thing in another way.
fn identity(path: &Path) -> Option<String> {
    let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    let modified = metadata.modified().ok()?;
    let since = modified.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(format!("{} {}", metadata.len(), since.as_nanos()))
}

fn modified(path: &Path) -> Option<SystemTime> {
    File::open(path).ok()?.metadata().ok()?.modified().ok()
}

/// The prerequisites in a makefile rule `output: a b\ c`.
fn dependencies(rule: &str) -> Option<Vec<PathBuf>> {
    let (_, list) = rule.lines().next()?.split_once(": ")?;
    let mut paths = Vec::new();
    let mut path = String::new();
    let mut chars = list.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' if chars.peek() == Some(&' ') => {
                path.push(' ');
                chars.next();
            }
            ' ' => paths.push(PathBuf::from(std::mem::take(&mut path))),
            _ => path.push(c),
        }
    }
    paths.push(PathBuf::from(path));
    paths.retain(|path| !path.as_os_str().is_empty());
    Some(paths)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    struct Built {
        dir: tempfile::TempDir,
        stamp: Stamp,
        source: PathBuf,
    }

    fn built() -> Built {
        let dir = tempfile::tempdir().expect("a directory");
        let source = dir.path().join("a b.rs");
        let output = dir.path().join("hello");
        fs::write(&source, "").expect("written");
        fs::write(&output, "").expect("written");
        let escaped = source.display().to_string().replace(' ', "\\ ");
        let rule = format!("{}: {escaped}\n", output.display());
        fs::write(dir.path().join("hello.d"), rule).expect("written");
        let stamp = Stamp::new(dir.path().join("stamps/hello"));
        let began = SystemTime::now() + Duration::from_secs(1);
        stamp.leave(began, &output, "recipe").expect("left");
        Built { dir, stamp, source }
    }

    #[test]
    fn what_was_just_built_is_fresh() {
        let built = built();
        let output = built.dir.path().join("hello");
        assert_eq!(built.stamp.fresh("recipe", &[]), Some(output));
    }

    #[test]
    fn an_edited_or_missing_source_another_recipe_or_no_output_is_stale() {
        let stale = |change: &dyn Fn(&Built)| {
            let built = built();
            change(&built);
            built.stamp.fresh("recipe", &[]).is_none()
        };
        let later = SystemTime::now() + Duration::from_secs(60);
        assert!(stale(&|built| {
            let file = File::options()
                .write(true)
                .open(&built.source)
                .expect("opened");
            file.set_modified(later).expect("touched");
        }));
        assert!(stale(
            &|built| fs::remove_file(&built.source).expect("removed")
        ));
        assert!(stale(&|built| fs::remove_file(
            built.dir.path().join("hello")
        )
        .expect("removed")));
        assert!(stale(&|built| fs::remove_file(
            built.dir.path().join("hello.d")
        )
        .expect("removed")));
        assert!(built().stamp.fresh("another recipe", &[]).is_none());
    }

    #[test]
    fn further_files_count_if_they_exist() {
        let built = built();
        assert!(
            built
                .stamp
                .fresh("recipe", &[built.dir.path().join("absent")])
                .is_some()
        );
        let manifest = built.dir.path().join("Cargo.toml");
        fs::write(&manifest, "").expect("written");
        let file = File::options().write(true).open(&manifest).expect("opened");
        file.set_modified(SystemTime::now() + Duration::from_secs(60))
            .expect("touched");
        assert!(built.stamp.fresh("recipe", &[manifest]).is_none());
    }
}
