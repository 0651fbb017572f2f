//! What the operating system knows of this process, from `/proc/self`.

#[allow(clippy::disallowed_methods, reason = "the edge where the system's own files are read")]
fn read(name: &str) -> Option<String> {
    std::fs::read_to_string(format!("/proc/self/{name}")).ok()
}

/// What a process uses. What cannot be read is not there.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ProcessUsage {
    /// Memory in RAM.
    pub resident_bytes: Option<u64>,
    /// CPU time, in user and system mode.
    pub cpu_seconds: Option<f64>,
    /// Files and sockets.
    pub open_fds: Option<u64>,
}

/// What this process uses now.
pub fn usage() -> ProcessUsage {
    let fds = std::fs::read_dir("/proc/self/fd").ok();
    ProcessUsage {
        resident_bytes: resident_bytes(),
        cpu_seconds: read("stat").and_then(|text| cpu_seconds(&text)),
        // The listing itself has one open.
        open_fds: fds.map(|fds| (fds.count() as u64).saturating_sub(1)),
    }
}

/// How much of its memory is in RAM now.
pub fn resident_bytes() -> Option<u64> {
    let pages = read("statm")?.split(' ').nth(1)?.parse::<u64>().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Fields 14 and 15. The second one, in parentheses, may hold anything.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let (user, system) = (ticks()?, ticks()?);
    Some((user + system) as f64 / rustix::param::clock_ticks_per_second() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something_of_each() {
        let ProcessUsage { resident_bytes, cpu_seconds, open_fds } = usage();
        assert!(resident_bytes.unwrap() > 1 << 16 && open_fds.unwrap() > 2);
        assert!(cpu_seconds.unwrap() >= 0.0);
    }

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let stat = "1 (a b) c) S 1 1 1 0 -1 4194560 1 0 0 0 300 200 0 0 20 0 1 0 5 0 0";
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        assert_eq!(cpu_seconds(stat), Some(500.0 / ticks));
        assert_eq!(cpu_seconds("nonsense"), None);
    }
}
