//! Patterns over paths of actors, as on the command line: `partitions/*/log`.

use std::fmt;

/// A pattern. `*` stands for any characters within one step of a path, `**` for any steps. It
/// matches a path's end as well as the whole of it, and everything below what it matches:
/// `partitions/*` covers `node/partitions/log/0/raft`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Box<str>);

impl Pattern {
    /// The pattern of this text; `None` where there is nothing in it.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim_matches('/');
        (!text.is_empty()).then(|| Self(text.into()))
    }

    /// Whether it matches the path, a tail of it, or a place above it.
    pub fn covers(&self, path: &str) -> bool {
        covers(&self.0, path)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn covers(pattern: &str, path: &str) -> bool {
    let pattern: Vec<&str> = pattern.split('/').collect();
    let path: Vec<&str> = path.split('/').collect();
    (0..path.len()).any(|start| is_prefix(&pattern, &path[start..]))
}

/// Whether the pattern's steps match the first steps of the path.
fn is_prefix(pattern: &[&str], path: &[&str]) -> bool {
    match (pattern, path) {
        ([], _) => true,
        (["**", rest @ ..], _) => (0..=path.len()).any(|skip| is_prefix(rest, &path[skip..])),
        ([step, pattern @ ..], [name, path @ ..]) => {
            step_matches(step.as_bytes(), name.as_bytes()) && is_prefix(pattern, path)
        }
        (_, []) => false,
    }
}

/// Whether one step matches, `*` standing for any characters. Linear in time: only the last star
/// is ever tried again.
fn step_matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(byte) if *byte == name[n] => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((star_at, taken)) = star else { return false };
                star = Some((star_at, taken + 1));
                (p, n) = (star_at + 1, taken + 1);
            }
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_covers_a_path_its_tail_and_what_lies_below() {
        let raft = "node/partitions/log/0/raft";
        for pattern in ["node", "raft", "partitions/*", "**/raft", "log/0/*", "r*t", "/log/0/"] {
            assert!(Pattern::new(pattern).unwrap().covers(raft), "{pattern}");
        }
        for pattern in ["rafts", "log/1", "partitions/*/raft", "*/*/*/*/*/*"] {
            assert!(!Pattern::new(pattern).unwrap().covers(raft), "{pattern}");
        }
        assert_eq!((Pattern::new(""), Pattern::new("//")), (None, None));
    }

    #[test]
    fn stars_match_any_characters_of_one_step() {
        for (pattern, name, matches) in [
            ("*", "anything", true),
            ("a*c", "abbbc", true),
            ("a*c*e", "axcxcxe", true),
            ("a*c", "abbbd", false),
            ("", "", true),
            ("*a", "", false),
        ] {
            assert_eq!(step_matches(pattern.as_bytes(), name.as_bytes()), matches, "{pattern}");
        }
    }
}
