//! `slicectl build`: a cargo package, built as a native image and checked.

use std::path::{Path, PathBuf};

use crate::cargo::{Build, Package, Product, package};
use crate::cli::BuildArgs;
use crate::inspect::inspect;
use crate::problem::{Failure, Problem};
use crate::report::print;
use crate::source_tree::{SourceTree, image_target_dir};

/// Runs the command; the exit code.
pub fn run(args: &BuildArgs) -> Result<u8, Failure> {
    let image = match (manifest(&args.path), SourceTree::find()) {
        (Some(manifest), _) => build_package(&manifest, args)?,
        (None, Some(tree)) if tree.examples().contains(&args.path) => {
            no_choice(args)?;
            tree.example(&args.path, true)?
        }
        (None, tree) => return Err(nothing_to_build(&args.path, tree.as_ref()).into()),
    };
    let told = inspect(&image)?;
    if !told.problems.is_empty() {
        let problem = |why: &String| {
            Problem::new(format!("image {}", image.display()), why)
                .mend("see: slicectl build --help")
        };
        return Err(Failure::new(1, told.problems.iter().map(problem).collect()));
    }
    print(format_args!("{}\n", image.display()))?;
    Ok(0)
}

/// The manifest that `path` means, if it means one.
fn manifest(path: &str) -> Option<PathBuf> {
    let path = Path::new(path);
    let manifest = match path.file_name() {
        Some(name) if name == "Cargo.toml" => path.to_owned(),
        _ => path.join("Cargo.toml"),
    };
    manifest
        .canonicalize()
        .ok()
        .filter(|manifest| manifest.is_file())
}

fn build_package(manifest: &Path, args: &BuildArgs) -> Result<PathBuf, Problem> {
    let package = package(manifest)?;
    let product = choose(&package, args)?;
    if let Some(missing) = args
        .features
        .iter()
        .find(|feature| !package.has_feature(feature))
    {
        return Err(Problem::new(
            format!("--features {missing}"),
            format!("{} has no such feature", package.name),
        )
        .mend(format!("it has: {}", list(&package.features))));
    }
    let target = image_target_dir(&package.target_directory);
    Build::image(manifest.to_owned(), product, &args.features, &target).run()
}

impl Package {
    /// Whether cargo will know this feature; those of dependencies are left to cargo.
    fn has_feature(&self, feature: &str) -> bool {
        feature.contains('/') || self.features.iter().any(|known| known == feature)
    }
}

/// What is to be built: what was named, or the only binary, or the only example.
fn choose(package: &Package, args: &BuildArgs) -> Result<Product, Problem> {
    let wanted = match (&args.bin, &args.example) {
        (Some(bin), _) => Some(Product::Bin(bin.clone())),
        (None, Some(example)) => Some(Product::Example(example.clone())),
        (None, None) => None,
    };
    let all = |kind: &str| -> Vec<&Product> {
        package
            .products
            .iter()
            .filter(|product| product.kind() == kind)
            .collect()
    };
    let (bins, examples) = (all("bin"), all("example"));
    if let Some(wanted) = wanted {
        if package.products.contains(&wanted) {
            return Ok(wanted);
        }
        let what = format!("--{} {}", wanted.kind(), wanted.name());
        let there = if wanted.kind() == "bin" {
            bins
        } else {
            examples
        };
        let names: Vec<String> = there
            .iter()
            .map(|product| product.name().to_owned())
            .collect();
        return Err(
            Problem::new(what, format!("{} has none of that name", package.name))
                .mend(format!("it has: {}", list(&names))),
        );
    }
    match (bins.as_slice(), examples.as_slice()) {
        ([only], _) | ([], [only]) => Ok((*only).clone()),
        ([], []) => Err(
            Problem::new(&package.name, "has neither a binary nor an example")
                .mend("add src/main.rs"),
        ),
        (several, _) => {
            let several = if several.is_empty() {
                &examples
            } else {
                several
            };
            let flags: Vec<String> = several
                .iter()
                .map(|product| format!("--{} {}", product.kind(), product.name()))
                .collect();
            Err(
                Problem::new(&package.name, "has more than one thing to build")
                    .mend(format!("add one of {}", list(&flags))),
            )
        }
    }
}

/// An example by its own name leaves nothing to choose.
fn no_choice(args: &BuildArgs) -> Result<(), Problem> {
    if args.bin.is_none() && args.example.is_none() && args.features.is_empty() {
        return Ok(());
    }
    Err(Problem::new(
        &args.path,
        "is an example: it takes no --bin, --example or --features",
    )
    .mend("name the package's directory to use them"))
}

fn nothing_to_build(path: &str, tree: Option<&SourceTree>) -> Problem {
    let problem = Problem::new(path, "is not a directory with a Cargo.toml");
    match tree.map(SourceTree::examples) {
        Some(names) if !names.is_empty() => problem.mend(format!(
            "name such a directory, or an example: {}",
            list(&names)
        )),
        _ => problem.mend("name such a directory"),
    }
}

fn list(names: &[String]) -> String {
    match names.is_empty() {
        true => "none".to_owned(),
        false => names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package_with(bins: &[&str], examples: &[&str]) -> Package {
        let bins = bins.iter().map(|name| Product::Bin((*name).to_owned()));
        let examples = examples
            .iter()
            .map(|name| Product::Example((*name).to_owned()));
        Package {
            name: "service".to_owned(),
            products: bins.chain(examples).collect(),
            features: vec!["desktop".to_owned()],
            target_directory: PathBuf::from("target"),
        }
    }

    fn args(bin: Option<&str>, example: Option<&str>) -> BuildArgs {
        BuildArgs {
            path: ".".to_owned(),
            example: example.map(str::to_owned),
            bin: bin.map(str::to_owned),
            features: Vec::new(),
        }
    }

    #[test]
    fn the_only_binary_needs_no_name_and_comes_before_examples() {
        let chosen = choose(&package_with(&["a"], &["x", "y"]), &args(None, None));
        assert_eq!(chosen, Ok(Product::Bin("a".to_owned())));
        let chosen = choose(&package_with(&[], &["x"]), &args(None, None));
        assert_eq!(chosen, Ok(Product::Example("x".to_owned())));
    }

    #[test]
    fn several_or_none_are_answered_with_what_there_is() {
        let told = |package, args| choose(&package, &args).expect_err("no choice").to_string();
        let several = told(package_with(&["a", "b"], &[]), args(None, None));
        assert!(
            several.ends_with("add one of --bin a, --bin b"),
            "{several}"
        );
        assert!(told(package_with(&[], &[]), args(None, None)).contains("neither"));
        let unknown = told(package_with(&["a"], &["x"]), args(None, Some("y")));
        assert_eq!(
            unknown,
            "--example y: service has none of that name; it has: x"
        );
    }

    #[test]
    fn a_named_product_is_taken() {
        let package = package_with(&["a", "b"], &["a"]);
        assert_eq!(
            choose(&package, &args(Some("b"), None)),
            Ok(Product::Bin("b".to_owned()))
        );
        assert_eq!(
            choose(&package, &args(None, Some("a"))),
            Ok(Product::Example("a".to_owned()))
        );
    }
}
