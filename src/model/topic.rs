//! Names of topics: they become directories, paths of actors and labels of metrics, so they are
//! checked against an allow-list before anything else looks at them.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

const NAME_BYTES_MAX: usize = 249;

/// The topic that every node has from its first start.
pub const FIRST_TOPIC: &str = "log";

/// A checked name: 1 to 249 of the characters `A-Z a-z 0-9 . _ -`, neither `.` nor `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TopicName(Arc<str>);

/// The name can never be a topic's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the topic name is not valid; a name is 1 to 249 of the characters A-Z a-z 0-9 . _ - (and \
     neither . nor ..)"
)]
pub struct TopicNameError;

impl TopicName {
    /// Checks a name.
    ///
    /// # Errors
    /// It is not on the allow-list.
    pub fn new(name: &str) -> Result<Self, TopicNameError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let length_fits = (1..=NAME_BYTES_MAX).contains(&name.len());
        if !length_fits || !name.bytes().all(allowed) || matches!(name, "." | "..") {
            return Err(TopicNameError);
        }
        Ok(Self(name.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A table by name is asked with what a request holds, before it is known to be a name.
impl Borrow<str> for TopicName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for TopicName {
    type Error = TopicNameError;

    fn try_from(name: String) -> Result<Self, TopicNameError> {
        Self::new(&name)
    }
}

impl From<TopicName> for String {
    fn from(name: TopicName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_outside_the_allow_list_are_refused() {
        let long = "x".repeat(250);
        for name in ["", ".", "..", "../log", "log/", "lög", "log\0", "a b", long.as_str()] {
            assert_eq!(TopicName::new(name), Err(TopicNameError), "{name:?}");
        }
        for name in ["log", "Orders_2.v-1", "x", &long[..249]] {
            assert_eq!(TopicName::new(name).map(String::from).as_deref(), Ok(name));
        }
    }
}
