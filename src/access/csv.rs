//! The text of a policy: casbin's CSV, read strictly. casbin's own reader passes over what it does
//! not understand; here a line that means nothing makes the whole text one that nobody can rely on.

use super::action::Actions;
use super::policy::{Effect, Membership, Policy, PolicyError, Rule, shown};
use std::str::FromStr;

/// The longest text of a policy that is read.
const TEXT_BYTES_MAX: usize = 1 << 20;
/// Lines with fields that one text may have.
const LINES_MAX: usize = 10_000;

/// The fields of each line that has any, with the line's number.
///
/// # Errors
/// [`PolicyError`]: the text is too long, or a line cannot be taken apart.
pub(super) fn lines(text: &str) -> Result<Vec<(usize, Vec<String>)>, PolicyError> {
    if text.len() > TEXT_BYTES_MAX {
        let bytes = text.len();
        let message = format!("the text has {bytes} bytes; at most {TEXT_BYTES_MAX} are read");
        return Err(PolicyError(message));
    }
    let mut found = Vec::new();
    for (at, line) in text.split('\n').enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let fields: Option<Vec<String>> = line.split(',').map(field).collect();
        let Some(fields) = fields else {
            return Err(PolicyError(format!(
                "line {}: a field is quoted in part, or holds a control character",
                at + 1
            )));
        };
        found.push((at + 1, fields));
    }
    if found.len() > LINES_MAX {
        return Err(PolicyError(format!("{} lines; at most {LINES_MAX} are read", found.len())));
    }
    Ok(found)
}

/// A field without the blanks around it, and without quotes where they are around all of it.
fn field(text: &str) -> Option<String> {
    let text = text.trim();
    let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let inner = inner.unwrap_or(text);
    let is_odd = |c: char| c.is_control() || c == '"';
    (!inner.contains(is_odd)).then(|| inner.to_owned())
}

impl FromStr for Policy {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let mut policy = Self::default();
        for (line, fields) in lines(text)? {
            let odd = |what: &str| PolicyError(format!("line {line}: {what}"));
            let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
            match fields.as_slice() {
                ["p", subject, object, action, rest @ ..] => {
                    let effect = match rest {
                        [] | ["allow"] => Effect::Allow,
                        ["deny"] => Effect::Deny,
                        _ => {
                            return Err(odd("the effect is allow or deny, and nothing follows it"));
                        }
                    };
                    let action: Actions = action
                        .parse()
                        .map_err(|()| odd(&format!("there is no action {:?}", shown(action))))?;
                    let (subject, object) = ((*subject).to_owned(), (*object).to_owned());
                    let rule = Rule { subject, object, action, effect };
                    rule.check().map_err(|error| odd(&error.0))?;
                    policy.rules.insert(rule);
                }
                ["g", subject, role] => {
                    let (subject, role) = ((*subject).to_owned(), (*role).to_owned());
                    let member = Membership { subject, role };
                    member.check().map_err(|error| odd(&error.0))?;
                    policy.members.insert(member);
                }
                _ => {
                    return Err(odd(
                        "expected \"p, SUBJECT, OBJECT, ACTION[, allow|deny]\" or \"g, SUBJECT, \
                         role:NAME\"",
                    ));
                }
            }
        }
        policy.check()?;
        Ok(policy)
    }
}
