//! Where tokens that prove nothing come from: so many in a row are listened to, then one a second.
//! The table is bounded, and whoever fills it with sources of his own does not wash himself clean.

use crate::guards::{TokenBucket, TokenBucketOptions};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// Sources whose failures are remembered.
pub const SOURCES_MAX: usize = 4096;
/// Failures in a row that one source may have, and how many it gets back in a second.
const FAILURES: TokenBucketOptions = TokenBucketOptions { capacity: 20, refill_per_second: 1 };
/// What one customer of a network has of IPv6: the upper half of an address.
const NETWORK: u128 = !0 << 64;

/// See the module.
#[derive(Debug, Default)]
pub struct Sources {
    failures: HashMap<IpAddr, TokenBucket>,
    forgotten: u64,
}

/// An address of IPv4, however it is written; of IPv6 its network of 64 bits.
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & NETWORK).into(),
        v4 => v4,
    }
}

impl Sources {
    /// How long this one must wait before it is listened to; zero: it is.
    pub fn wait(&mut self, address: IpAddr, now: Duration) -> Duration {
        let known = self.failures.get_mut(&source(address));
        known.map_or(Duration::ZERO, |bucket| bucket.wait(now))
    }

    /// One from there failed.
    pub fn failed(&mut self, address: IpAddr, now: Duration) {
        let source = source(address);
        if self.failures.len() >= SOURCES_MAX && !self.failures.contains_key(&source) {
            self.make_room(now);
        }
        self.failures.entry(source).or_insert_with(|| TokenBucket::new(FAILURES, now)).allow(now);
    }

    /// Whoever has not failed for a while is forgotten; where all have, it is the one that failed least.
    fn make_room(&mut self, now: Duration) {
        self.failures.retain(|_, bucket| bucket.tokens(now) < f64::from(FAILURES.capacity));
        if self.failures.len() < SOURCES_MAX {
            return;
        }
        let failed = self.failures.iter_mut().map(|(source, bucket)| (bucket.tokens(now), *source));
        if let Some((_, least)) = failed.max_by(|one, other| one.0.total_cmp(&other.0)) {
            self.failures.remove(&least);
            self.forgotten += 1;
        }
    }

    /// Sources that are remembered.
    pub fn remembered(&self) -> usize {
        self.failures.len()
    }

    /// Sources that were forgotten before their time, as there was no room.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn fail(sources: &mut Sources, address: &str, times: u32) {
        for _ in 0..times {
            sources.failed(address.parse().unwrap(), NOW);
        }
    }

    fn is_heard(sources: &mut Sources, address: &str) -> bool {
        sources.wait(address.parse().unwrap(), NOW).is_zero()
    }

    #[test]
    fn a_network_of_ipv6_is_one_source_and_an_address_of_ipv4_is() {
        let mut sources = Sources::default();
        for host in 0..FAILURES.capacity {
            assert!(is_heard(&mut sources, "2001:db8:0:1::ffff"));
            fail(&mut sources, &format!("2001:db8:0:1:{host:x}::1"), 1);
        }
        assert!(!is_heard(&mut sources, "2001:db8:0:1:dead:beef::"));
        assert!(is_heard(&mut sources, "2001:db8:0:2::1"), "another network");
        fail(&mut sources, "192.0.2.1", FAILURES.capacity);
        assert!(
            !is_heard(&mut sources, "::ffff:192.0.2.1"),
            "the same, as a socket of IPv6 has it"
        );
        assert!(is_heard(&mut sources, "192.0.2.2") && is_heard(&mut sources, "::ffff:192.0.2.2"));
        assert_eq!(sources.remembered(), 2);
        let later = sources.wait("192.0.2.1".parse().unwrap(), NOW + Duration::from_secs(1));
        assert!(later.is_zero(), "one comes back each second");
    }

    #[test]
    fn the_table_is_bounded_and_filling_it_does_not_wash_clean() {
        let mut sources = Sources::default();
        fail(&mut sources, "192.0.2.1", FAILURES.capacity);
        for i in 0..2 * SOURCES_MAX {
            fail(&mut sources, &format!("10.{}.{}.{}", i >> 16, (i >> 8) & 255, i & 255), 1);
        }
        assert_eq!(sources.remembered(), SOURCES_MAX);
        assert_eq!(sources.forgotten() as usize, SOURCES_MAX + 1);
        assert!(!is_heard(&mut sources, "192.0.2.1"));
        // All others have their tokens again: they make room by themselves.
        let later = NOW + Duration::from_secs(2);
        sources.failed("192.0.2.99".parse().unwrap(), later);
        assert_eq!(sources.remembered(), 2);
    }
}
