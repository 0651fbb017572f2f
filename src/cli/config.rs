//! `duramen config`: what the settings are, where they came from, and whether they are sound.

use super::{Failure, stdout};
use crate::ops::settings::fields::{self, FIELDS};
use crate::ops::settings::{Loaded, Sources, sample_file};
use clap::{Args, Subcommand};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Arguments of `duramen config`.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print every setting as a node started here would have it, as TOML.
    Show {
        /// The configuration file (default: what DURAMEN_CONFIG names).
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Say where each value came from.
        #[arg(long)]
        origin: bool,
    },
    /// Check a configuration file and the environment; says everything that is wrong.
    Check {
        /// The configuration file (default: what DURAMEN_CONFIG names).
        #[arg(value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Print a configuration file with every setting at its default, and what it means.
    Sample,
}

/// Does what the arguments ask for.
pub fn run(args: ConfigArgs) -> Result<(), Failure> {
    match args.command {
        ConfigCommand::Show { config, origin } => {
            let loaded = load(config.as_deref())?;
            stdout::write(show(&loaded, origin).as_bytes())
        }
        ConfigCommand::Check { config } => {
            let loaded = load(config.as_deref())?;
            let file = loaded.file.as_ref();
            let file = file.map_or("no file".into(), |file| file.display().to_string());
            stdout::write(format!("the configuration is valid ({file})\n").as_bytes())
        }
        ConfigCommand::Sample => stdout::write(sample_file().as_bytes()),
    }
}

fn load(config: Option<&Path>) -> Result<Loaded, Failure> {
    let loaded = Sources::gather(Vec::new(), config)?.layer()?;
    for warning in &loaded.warnings {
        eprintln!("warning: {warning}");
    }
    Ok(loaded)
}

/// The settings as TOML; with `origin`, each with where it came from as a comment.
fn show(loaded: &Loaded, origin: bool) -> String {
    let mut text = String::new();
    let mut section = "";
    for field in &FIELDS {
        let (its_section, name) = field.section_and_name();
        if its_section != section {
            section = its_section;
            write!(text, "\n[{section}]\n").expect("a string takes any text");
        }
        let mut line = format!("{name} = {}", field.show_toml(&loaded.settings));
        // It could be read on a screen; a comment still reads back, as a file without the key.
        if fields::is_secret(field.key) && !line.ends_with("\"none\"") {
            line = format!("# {name} is set (not shown)");
        }
        if origin {
            line = format!("{line:<40} # {}", loaded.origin(field.key));
        }
        text.push_str(&line);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_reads_back_as_the_same_settings() {
        let text = "[log]\ndurability = \"os\"\n[logger]\nspec = \"info,a/*:trace\"\n";
        let file = Some(("node.toml".into(), text.to_owned()));
        let loaded = Sources { file, ..Sources::default() }.layer().unwrap();
        for origin in [false, true] {
            let shown = show(&loaded, origin);
            let file = Some(("shown.toml".into(), shown));
            let again = Sources { file, ..Sources::default() }.layer().unwrap();
            assert_eq!(again.settings, loaded.settings);
        }
        let shown = show(&loaded, true);
        let line = shown.lines().find(|line| line.starts_with("durability")).unwrap();
        assert!(line.ends_with("# node.toml:2"), "{line}");
    }
}
