//! What decoders must hold for whatever bytes they are given: one function for each kind of bytes that
//! comes from a disk, a network or a person. `fuzz/` drives them by coverage, `tests/fuzz` on every
//! change with the inputs that are kept and with mutations of them. `docs/testing.md` has the guide.
//!
//! A target asks more than that nothing panics: what was taken is the same when it is written and
//! taken again, the same bytes always get the same answer, and memory stays within what the target
//! names. It panics where one of these does not hold.

mod batch;
mod catalogue;
mod certificate;
mod disk;
mod files;
mod frame;
mod http;
mod log;
mod peer;
mod policy;
mod settings;
mod token;

#[cfg(test)]
mod tests;

/// One kind of bytes.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name; that of its corpus below `fuzz/corpus`, too.
    pub name: &'static str,
    /// Gives the bytes to whoever reads them.
    ///
    /// # Panics
    /// When something does not hold that must.
    pub run: fn(&[u8]),
    /// Inputs to begin with: what is well formed, and a little of what is not.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// What one run may have allocated at a time, for an input of no bytes (unit: bytes).
    pub memory_bytes: usize,
    /// How much more for each byte of the input (unit: bytes).
    pub memory_per_byte: usize,
}

impl Target {
    /// What one run may have allocated at a time (unit: bytes).
    pub const fn memory_bytes_max(&self, input_bytes: usize) -> usize {
        self.memory_bytes + self.memory_per_byte * input_bytes
    }
}

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// All of them.
pub const TARGETS: &[Target] = &[
    Target {
        name: "batch",
        run: batch::run,
        seeds: batch::seeds,
        // The limits that the target sets: what a batch may decompress to, doubled as it grows, and
        // the records of that.
        memory_bytes: 8 * MIB,
        memory_per_byte: 0,
    },
    Target {
        name: "frame",
        run: frame::run,
        seeds: frame::seeds,
        memory_bytes: 4 * KIB,
        memory_per_byte: 2,
    },
    Target {
        name: "index",
        run: log::index,
        seeds: log::index_seeds,
        memory_bytes: 4 * MIB,
        memory_per_byte: 64,
    },
    Target {
        name: "recovery",
        run: log::recovery,
        seeds: log::recovery_seeds,
        memory_bytes: 4 * MIB,
        memory_per_byte: 64,
    },
    Target {
        name: "store",
        run: log::store,
        seeds: log::store_seeds,
        memory_bytes: 4 * MIB,
        memory_per_byte: 64,
    },
    Target {
        name: "catalogue",
        run: catalogue::run,
        seeds: catalogue::seeds,
        memory_bytes: 64 * KIB,
        memory_per_byte: 512,
    },
    Target {
        name: "placement",
        run: catalogue::placement,
        seeds: catalogue::placement_seeds,
        memory_bytes: 4 * MIB,
        memory_per_byte: 4 * KIB,
    },
    Target {
        name: "peer",
        run: peer::run,
        seeds: peer::seeds,
        memory_bytes: 16 * KIB,
        memory_per_byte: 512,
    },
    Target {
        name: "files",
        run: files::run,
        seeds: files::seeds,
        memory_bytes: 16 * KIB,
        memory_per_byte: 256,
    },
    Target {
        name: "http",
        run: http::run,
        seeds: http::seeds,
        memory_bytes: 64 * KIB,
        memory_per_byte: 256,
    },
    Target {
        name: "settings",
        run: settings::run,
        seeds: settings::seeds,
        // Aliases of YAML: the library resolves a hundred thousand nodes at most.
        memory_bytes: 64 * MIB,
        memory_per_byte: 4 * KIB,
    },
    Target {
        name: "policy",
        run: policy::run,
        seeds: policy::seeds,
        memory_bytes: 4 * MIB,
        memory_per_byte: 4 * KIB,
    },
    Target {
        name: "model",
        run: policy::model,
        seeds: policy::model_seeds,
        memory_bytes: 4 * MIB,
        memory_per_byte: 4 * KIB,
    },
    Target {
        name: "token",
        run: token::run,
        seeds: token::seeds,
        memory_bytes: 64 * KIB,
        memory_per_byte: 64,
    },
    Target {
        name: "certificate",
        run: certificate::run,
        seeds: certificate::seeds,
        memory_bytes: 64 * KIB,
        memory_per_byte: 512,
    },
];

/// The target of this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// An input that says what it is in its first byte: the kind, of so many, and the rest.
fn choice(bytes: &[u8], kinds: u8) -> Option<(u8, &[u8])> {
    bytes.split_first().map(|(kind, rest)| (kind % kinds, rest))
}

/// The same input for each of these kinds.
fn of_kind(kind: u8, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    [&[kind], bytes.as_ref()].concat()
}
