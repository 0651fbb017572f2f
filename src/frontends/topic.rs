//! Which topic and partition a request means: names are checked against an allow-list before
//! anything else looks at them.

/// The one topic that this version serves.
pub const TOPIC: &str = "log";

const NAME_BYTES_MAX: usize = 249;

/// Why a request's topic or partition is not served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// The name can never be a topic's.
    #[error(
        "the topic name is not valid; a name is 1 to 249 of the characters A-Z a-z 0-9 . _ - \
         (and neither . nor ..)"
    )]
    Name,
    /// There is no such topic.
    #[error("there is no topic {topic:?}; this node has one topic: {TOPIC:?}")]
    UnknownTopic {
        /// The name asked for; it has passed the allow-list.
        topic: String,
    },
    /// The topic has no such partition.
    #[error("topic {TOPIC:?} has no partition {partition}; its one partition is 0")]
    UnknownPartition {
        /// The partition asked for.
        partition: u32,
    },
}

/// Checks that a request means the topic and partition that are there.
///
/// # Errors
/// A name outside the allow-list, then an unknown topic, then an unknown partition.
pub fn check(topic: &str, partition: u32) -> Result<(), TopicError> {
    if topic == TOPIC {
        if partition == 0 {
            return Ok(());
        }
        return Err(TopicError::UnknownPartition { partition });
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let length_fits = (1..=NAME_BYTES_MAX).contains(&topic.len());
    if !length_fits || !topic.bytes().all(allowed) || matches!(topic, "." | "..") {
        return Err(TopicError::Name);
    }
    Err(TopicError::UnknownTopic { topic: topic.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_partition_0_of_the_topic_log_is_served() {
        assert_eq!(check("log", 0), Ok(()));
        assert_eq!(check("log", 1), Err(TopicError::UnknownPartition { partition: 1 }));
        let error = check("orders", 0).unwrap_err();
        assert_eq!(error, TopicError::UnknownTopic { topic: "orders".into() });
    }

    #[test]
    fn names_outside_the_allow_list_are_refused_before_anything_is_looked_up() {
        let long = "x".repeat(250);
        for name in ["", ".", "..", "../log", "log/", "lög", "log\0", "a b", long.as_str()] {
            assert_eq!(check(name, 0), Err(TopicError::Name), "{name:?}");
        }
    }
}
