//! The sample configuration file, written from the list of fields, so that it cannot go stale.

use super::Settings;
use super::fields::FIELDS;

/// A TOML file that holds every setting at its default, with sentence, limits and variable.
pub fn sample_file() -> String {
    let mut text = String::from(
        "# Every setting of a duramen node, with its default. A line may be left out.\n\
         # A flag or an environment variable wins over this file: `duramen config show --origin`.\n\
         # Durations and sizes carry their unit: \"500ms\", \"10s\", \"7d\"; \"64KiB\", \"16MiB\".\n",
    );
    let mut section = "";
    for field in &FIELDS {
        let (its_section, name) = field.section_and_name();
        if its_section != section {
            section = its_section;
            text.push_str(&format!("\n[{section}]\n"));
        }
        text.push('\n');
        for line in wrapped(field.sentence) {
            text.push_str(&format!("# {line}\n"));
        }
        let default = field.show_toml(&Settings::default());
        let limits =
            (field.limits)().map_or_else(String::new, |limits| format!(" Allowed: {limits}."));
        text.push_str(&format!("# Default: {default}.{limits}\n"));
        text.push_str(&format!("# Variable: {}\n{name} = {default}\n", field.variable()));
    }
    text
}

fn wrapped(sentence: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in sentence.split_whitespace() {
        let line = lines.last_mut().expect("there is a first line");
        if !line.is_empty() && line.len() + word.len() > 96 {
            lines.push(word.into());
        } else {
            *line = format!("{line} {word}").trim().into();
        }
    }
    lines
}
