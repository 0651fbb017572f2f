//! The configuration file, TOML or YAML by its ending, as a flat list of what it says and where.
//! What the keys mean is not known here.

use super::error::Fault;
use super::fields::FIELDS;
use saphyr::{LoadableYamlNode, MarkedYaml, Scalar, YamlData};
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One value that a file gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    /// The dotted key.
    pub key: String,
    /// Counted from 1.
    pub line: usize,
    /// The value.
    pub value: Given,
}

/// A value as files have it.
#[derive(Debug, Clone, PartialEq)]
pub enum Given {
    /// A string.
    Text(String),
    /// A whole number, as written.
    Integer(String),
    /// Another number, as written.
    Float(String),
    /// True or false.
    Boolean(bool),
    /// A list of strings.
    List(Vec<String>),
    /// Anything else, by the name of its type.
    Other(&'static str),
}

/// What a file says, in its order.
pub fn read(file: &Path, text: &str) -> Result<Vec<Said>, Fault> {
    let ending = file.extension().unwrap_or_default();
    let is_yaml = ending == "yaml" || ending == "yml";
    let read = if is_yaml { from_yaml(text) } else { from_toml(text) };
    read.map_err(|(line, message)| Fault::Syntax { file: file.to_owned(), line, message })
}

/// An unknown section is one fault at its name, not one per key in it.
fn is_section(key: &str) -> bool {
    FIELDS.iter().any(|field| field.section_and_name().0 == key)
}

fn dotted(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}

fn from_toml(text: &str) -> Result<Vec<Said>, (usize, String)> {
    let line_of = |at: usize| 1 + text[..at.min(text.len())].matches('\n').count();
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        (line_of(at), error.message().to_owned())
    })?;
    let mut found = Vec::new();
    flatten_toml("", table.get_ref(), &line_of, &mut found);
    // By line, so that faults are told in the order of the file.
    found.sort_by_key(|said| said.line);
    Ok(found)
}

fn flatten_toml(
    prefix: &str,
    table: &DeTable<'_>,
    line_of: &impl Fn(usize) -> usize,
    found: &mut Vec<Said>,
) {
    for (name, value) in table {
        let key = dotted(prefix, name.get_ref());
        let value = match Spanned::get_ref(value) {
            DeValue::Table(inner) if is_section(&key) => {
                flatten_toml(&key, inner, line_of, found);
                continue;
            }
            DeValue::String(text) => Given::Text(text.to_string()),
            DeValue::Integer(number) => Given::Integer(number.as_str().to_owned()),
            DeValue::Float(number) => Given::Float(number.as_str().to_owned()),
            DeValue::Boolean(truth) => Given::Boolean(*truth),
            DeValue::Array(parts) => {
                let texts = parts.iter().map(|part| part.get_ref().as_str().map(str::to_owned));
                texts.collect::<Option<_>>().map_or(Given::Other("array"), Given::List)
            }
            other => Given::Other(other.type_str()),
        };
        found.push(Said { key, line: line_of(name.span().start), value });
    }
}

/// Indentation, and marks of nesting, that a line of YAML may begin with (unit: bytes). Settings need a
/// few; each costs whoever lets go of the document a part of its stack.
const YAML_DEPTH_MAX: usize = 100;

fn from_yaml(text: &str) -> Result<Vec<Said>, (usize, String)> {
    let depth_of = |line: &str| line.bytes().take_while(|byte| b" -?:".contains(byte)).count();
    if let Some(line) = text.lines().position(|line| depth_of(line) > YAML_DEPTH_MAX) {
        return Err((line + 1, "nested deeper than any setting".into()));
    }
    let documents = MarkedYaml::load_from_str(text)
        .map_err(|error| (error.marker().line(), error.info().to_owned()))?;
    let mut found = Vec::new();
    match documents.as_slice() {
        [] => {}
        [document] => flatten_yaml("", document, &mut found)?,
        [_, second, ..] => {
            return Err((second.span.start.line(), "a second document: one is read".into()));
        }
    }
    Ok(found)
}

fn flatten_yaml(
    prefix: &str,
    node: &MarkedYaml<'_>,
    found: &mut Vec<Said>,
) -> Result<(), (usize, String)> {
    let YamlData::Mapping(mapping) = &node.data else {
        // A file of comments only is one that says nothing.
        let is_empty = matches!(&node.data, YamlData::Value(Scalar::Null));
        let wrong = (node.span.start.line(), "expected keys with values".to_owned());
        return if is_empty { Ok(()) } else { Err(wrong) };
    };
    for (name, value) in mapping {
        let line = name.span.start.line();
        let YamlData::Value(Scalar::String(name)) = &name.data else {
            return Err((line, "a key must be a text".into()));
        };
        let key = dotted(prefix, name);
        let value = match &value.data {
            YamlData::Mapping(_) if is_section(&key) => {
                flatten_yaml(&key, value, found)?;
                continue;
            }
            // In YAML that is how to say nothing.
            YamlData::Value(Scalar::Null) => continue,
            YamlData::Value(scalar) => of_scalar(scalar),
            YamlData::Sequence(parts) => {
                let texts = parts.iter().map(|part| match &part.data {
                    YamlData::Value(Scalar::String(text)) => Some(text.to_string()),
                    _ => None,
                });
                texts.collect::<Option<_>>().map_or(Given::Other("sequence"), Given::List)
            }
            _ => Given::Other("mapping"),
        };
        found.push(Said { key, line, value });
    }
    Ok(())
}

fn of_scalar(scalar: &Scalar<'_>) -> Given {
    match scalar {
        Scalar::Null => Given::Other("null"),
        Scalar::Boolean(truth) => Given::Boolean(*truth),
        Scalar::Integer(number) => Given::Integer(number.to_string()),
        Scalar::FloatingPoint(number) => Given::Float(number.to_string()),
        Scalar::String(text) => Given::Text(text.to_string()),
    }
}
