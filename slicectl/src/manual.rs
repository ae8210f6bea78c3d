//! `slicectl completions` and `slicectl man`: made from the definition of the command line.

use std::fs;

use clap::{Command, CommandFactory};

use crate::cli::{Cli, CompletionsArgs, ManArgs};
use crate::problem::{Failure, Problem};
use crate::report::print;

/// Prints a completion script.
pub fn completions(args: &CompletionsArgs) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut visible(), "slicectl", &mut script);
    print_page(&script)
}

/// Prints the manual page, or writes all of them into a directory.
pub fn man(args: &ManArgs) -> Result<u8, Failure> {
    match &args.dir {
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command())
                .render(&mut page)
                .map_err(|error| Problem::new("man", error.to_string()))?;
            print_page(&page)
        }
        Some(dir) => {
            let what = format!("man --dir {}", dir.display());
            fs::create_dir_all(dir)
                .and_then(|()| clap_mangen::generate_to(Cli::command(), dir))
                .map_err(|error| Problem::new(what, error.to_string()))?;
            Ok(0)
        }
    }
}

/// The command line without what is hidden: completions would offer that.
fn visible() -> Command {
    let whole = Cli::command();
    let shown = whole.get_subcommands().filter(|part| !part.is_hide_set());
    Command::new("slicectl")
        .version(env!("CARGO_PKG_VERSION"))
        .propagate_version(true)
        .subcommands(shown.cloned())
}

fn print_page(page: &[u8]) -> Result<u8, Failure> {
    print(String::from_utf8_lossy(page))?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;
    use clap_complete::Shell;

    use super::*;

    #[test]
    fn no_shell_offers_what_is_hidden() {
        for shell in Shell::value_variants() {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut visible(), "slicectl", &mut script);
            let script = String::from_utf8(script).expect("text");
            assert!(script.contains("inspect"), "{shell}");
            assert!(!script.contains(crate::backtrace::COMMAND), "{shell}");
        }
    }

    #[test]
    fn there_is_a_page_for_every_visible_command() {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path().join("man1");
        man(&ManArgs {
            dir: Some(dir.clone()),
        })
        .expect("written");
        for command in Cli::command()
            .get_subcommands()
            .filter(|command| !command.is_hide_set())
        {
            let page = dir.join(format!("slicectl-{}.1", command.get_name()));
            assert!(page.is_file(), "{}", page.display());
        }
    }
}
