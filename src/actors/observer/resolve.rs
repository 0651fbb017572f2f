//! Which place a person means: a whole path, a tail of it, or something near. Pure.

use super::ObserveError;
use crate::observe::Pattern;

/// Less alike than this is no guess worth telling.
const LIKENESS_MIN: f64 = 0.75;
/// Nobody means a name by a longer text; comparing takes time by its square.
const GUESS_BYTES_MAX: usize = 256;

/// The place meant by a path or an unambiguous tail of it.
pub fn place(paths: &[String], text: &str) -> Result<String, ObserveError> {
    let wanted = text.trim_matches('/');
    if let Some(exact) = paths.iter().find(|path| path.as_str() == wanted) {
        return Ok(exact.clone());
    }
    let is_tail = |path: &&String| {
        path.strip_suffix(wanted).is_some_and(|before| !wanted.is_empty() && before.ends_with('/'))
    };
    let found: Vec<&String> = paths.iter().filter(is_tail).collect();
    // Of a node with one partition `raft` is that partition's: the controller's has to be named.
    let is_own = |path: &&&String| !path.starts_with("node/controller/");
    let own: Vec<&String> = found.iter().filter(is_own).copied().collect();
    let found = if own.is_empty() { found } else { own };
    match found[..] {
        [one] => Ok(one.clone()),
        [] => Err(unknown(paths, text)),
        _ => Err(ObserveError::AmbiguousPlace {
            path: text.into(),
            candidates: found.into_iter().cloned().collect(),
        }),
    }
}

/// Refuses a pattern that covers nothing.
pub fn check_pattern(pattern: &Pattern, paths: &[String]) -> Result<(), ObserveError> {
    if paths.iter().any(|path| pattern.covers(path)) {
        return Ok(());
    }
    Err(unknown(paths, &pattern.to_string()))
}

fn unknown(paths: &[String], text: &str) -> ObserveError {
    // Held against every tail: people give as much of a path as they remember.
    let tails = paths.iter().flat_map(|path| {
        let starts = path.match_indices('/').map(|(at, _)| at + 1);
        std::iter::once(0).chain(starts).map(|start| &path[start..])
    });
    let nearest = nearest(text, tails).map(|tail| {
        let whole = paths.iter().find(|path| path.ends_with(tail));
        whole.map_or_else(|| tail.to_owned(), Clone::clone)
    });
    ObserveError::UnknownPlace { path: text.into(), nearest }
}

/// The candidate that is most like the text, if any is like it at all.
pub fn nearest<'a>(text: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if text.len() > GUESS_BYTES_MAX {
        return None;
    }
    let text = text.to_lowercase();
    let scored = candidates.map(|candidate| {
        let alike = strsim::jaro_winkler(&text, &candidate.to_lowercase());
        (alike, candidate)
    });
    let best = scored.max_by(|(a, _), (b, _)| a.total_cmp(b));
    best.filter(|(alike, _)| *alike >= LIKENESS_MIN).map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths() -> Vec<String> {
        [
            "node",
            "node/partitions/log/0",
            "node/partitions/log/0/raft",
            "node/partitions/log/1/raft",
            "node/controller/group/raft",
            "node/controller/group/log",
            "node/partitions/log/0/log",
        ]
        .map(String::from)
        .to_vec()
    }

    #[test]
    fn a_path_or_a_tail_that_only_one_has_is_enough() {
        for (text, found) in [
            ("node", "node"),
            ("/log/0/", "node/partitions/log/0"),
            ("0/raft", "node/partitions/log/0/raft"),
            ("log", "node/partitions/log/0/log"),
            ("group/raft", "node/controller/group/raft"),
        ] {
            assert_eq!(place(&paths(), text).as_deref(), Ok(found));
        }
        let Err(ObserveError::AmbiguousPlace { candidates, .. }) = place(&paths(), "raft") else {
            panic!("two places end in raft");
        };
        assert_eq!(candidates.len(), 2);
        assert!(place(&paths(), "aft").is_err(), "only whole steps count");
        assert!(place(&paths(), "").is_err());
    }

    #[test]
    fn a_name_misspelt_is_answered_with_the_nearest_and_nonsense_with_none() {
        let told = |text| place(&paths(), text).unwrap_err().to_string();
        assert!(told("log/0/rapt").contains("did you mean node/partitions/log/0/raft?"));
        assert!(!told("zzz").contains("did you mean"), "{}", told("zzz"));
    }

    #[test]
    fn a_pattern_must_cover_somebody() {
        assert!(check_pattern(&Pattern::new("log/*").unwrap(), &paths()).is_ok());
        let error = check_pattern(&Pattern::new("logs/*").unwrap(), &paths()).unwrap_err();
        assert!(error.to_string().contains("there is no logs/*"), "{error}");
    }

    #[test]
    fn messages_are_told_apart_without_regard_to_case() {
        assert_eq!(nearest("append", ["Append", "Attach"].into_iter()), Some("Append"));
        assert_eq!(nearest("xyz", ["Append", "Attach"].into_iter()), None);
        let (longest, long) = ("x".repeat(256), "x".repeat(257));
        assert!(nearest(&longest, std::iter::once(&*longest)).is_some());
        assert_eq!(nearest(&long, std::iter::once(&*longest)), None, "too long for a guess");
    }
}
