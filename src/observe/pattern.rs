//! Patterns over paths of actors, as on the command line: `partitions/*/log`.

use std::fmt;

/// A pattern. Within a step of a path `*` stands for any characters. A step that is `*` alone
/// stands for one step or more: the name of a partition (`log/0`) is two. `**` stands for any
/// steps, or none. It matches a path's end as well as the whole of it, and everything below what
/// it matches: `partitions/*` covers `node/partitions/log/0/raft`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: Box<str>,
    steps: Box<[Step]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// `**`
    Any,
    /// `*`
    Some,
    One(Box<str>),
}

/// As many steps as fit a number, one bit each, and one more for the end.
const STEPS_MAX: usize = 63;

impl Pattern {
    /// The pattern of this text; `None` where there is nothing in it, or more than 63 steps.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim_matches('/');
        let step = |step: &str| match step {
            "**" => Step::Any,
            "*" => Step::Some,
            name => Step::One(name.into()),
        };
        let steps: Box<[Step]> = text.split('/').map(step).collect();
        let is_sound = !text.is_empty() && steps.len() <= STEPS_MAX;
        is_sound.then(|| Self { text: text.into(), steps })
    }

    /// Whether it matches the path, a tail of it, or a place above it. Allocates nothing.
    pub fn covers(&self, path: &str) -> bool {
        self.covers_steps(path.split('/'))
    }

    /// Whether it covers a message of this name at this path, as if it were the path's last step;
    /// where the name is empty, the path.
    pub fn covers_message(&self, path: &str, message: &str) -> bool {
        let message = (!message.is_empty()).then_some(message);
        self.covers_steps(path.split('/').chain(message))
    }

    /// Whether its first step is this name.
    pub fn begins_with(&self, name: &str) -> bool {
        matches!(self.steps.first(), Some(Step::One(step)) if **step == *name)
    }

    /// Follows all ways to match at once: bit n is set while the first n steps of the pattern have
    /// matched. So the time is bounded by the steps of both, whatever the pattern.
    fn covers_steps<'a>(&self, path: impl Iterator<Item = &'a str>) -> bool {
        let end = 1_u64 << self.steps.len();
        // Wherever the path is, a match may begin.
        let begin = self.past_any(1);
        let mut reached = begin;
        for name in path {
            if reached & end != 0 {
                return true;
            }
            let mut next = begin;
            for (at, step) in self.steps.iter().enumerate() {
                let here = 1_u64 << at;
                if reached & here == 0 {
                    continue;
                }
                next |= match step {
                    Step::Any => here,
                    Step::Some => here | here << 1,
                    Step::One(pattern) if step_matches(pattern.as_bytes(), name.as_bytes()) => {
                        here << 1
                    }
                    Step::One(_) => 0,
                };
            }
            reached = self.past_any(next);
        }
        reached & end != 0
    }

    /// Adds what is reached without a step of the path.
    fn past_any(&self, mut reached: u64) -> u64 {
        for (at, step) in self.steps.iter().enumerate() {
            if *step == Step::Any {
                reached |= (reached & (1 << at)) << 1;
            }
        }
        reached
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
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
        for pattern in
            ["node", "raft", "partitions/*", "**/raft", "log/0/*", "r*t", "/log/0/", "**", "*"]
        {
            assert!(Pattern::new(pattern).unwrap().covers(raft), "{pattern}");
        }
        for pattern in ["rafts", "log/1", "node/raft", "*/*/*/*/*/*", "raft/*", "0/*/raft"] {
            assert!(!Pattern::new(pattern).unwrap().covers(raft), "{pattern}");
        }
        assert_eq!((Pattern::new(""), Pattern::new("//")), (None, None));
        assert_eq!(Pattern::new(&"a/".repeat(64)), None, "too many steps");
    }

    #[test]
    fn a_star_alone_is_one_step_or_more_and_two_stars_any_or_none() {
        let log = "node/partitions/log/0/log";
        for (pattern, matches) in [
            ("partitions/*/log", true),
            ("node/*/log", true),
            ("node/*/partitions", false),
            ("node/**/partitions", true),
            ("**/node/**/log", true),
            ("partitions/**/log/**/log", true),
        ] {
            assert_eq!(Pattern::new(pattern).unwrap().covers(log), matches, "{pattern}");
        }
        // The name of the topic is a step too, and everything below it is covered.
        assert!(Pattern::new("partitions/**/log").unwrap().covers("node/partitions/log/0/raft"));
    }

    #[test]
    fn a_message_is_the_last_step_of_its_actors_path() {
        let covers = |pattern: &str, message| {
            Pattern::new(pattern).unwrap().covers_message("node/partitions/log/0/log", message)
        };
        for pattern in ["*/Append", "Append", "log/Append", "partitions/*/log", "node/**/App*"] {
            assert!(covers(pattern, "Append"), "{pattern}");
        }
        assert!(
            !covers("*/Append", "Attach")
                && !covers("*/Append", "")
                && !covers("raft/Append", "Append")
        );
    }

    #[test]
    fn a_malicious_pattern_takes_no_longer_than_another() {
        let pattern = Pattern::new(&"**/*/".repeat(31)).unwrap();
        assert!(!pattern.covers(&"a/".repeat(20)[..30]));
        assert!(pattern.covers(&["a"; 4000].join("/")));
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
