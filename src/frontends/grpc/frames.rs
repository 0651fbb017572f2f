//! Follows the frames of HTTP/2 in what is read of a connection, as far as they carry bodies (RFC 9113, 4.1).

/// The kind of frame that bodies are in.
const DATA: u8 = 0;

/// Of bodies, in frames.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bodies {
    /// How many.
    pub frames: u64,
    /// Of so many bytes together.
    pub bytes: u64,
}

impl Bodies {
    /// With those of others.
    pub fn add(&mut self, other: Self) {
        self.frames += other.frames;
        self.bytes += other.bytes;
    }
}

/// Follows the frames of HTTP/2 in what is read.
#[derive(Debug)]
pub struct Frames {
    head: [u8; 9],
    /// What is there of it.
    filled: usize,
    /// To be passed over before the next one.
    rest: usize,
}

impl Default for Frames {
    /// A connection begins with its preface (RFC 9113, 3.4).
    fn default() -> Self {
        Self { head: [0; 9], filled: 0, rest: 24 }
    }
}

impl Frames {
    /// What bodies begin in these bytes, which come after those before.
    pub fn pass(&mut self, mut bytes: &[u8]) -> Bodies {
        let mut bodies = Bodies::default();
        loop {
            let passed = self.rest.min(bytes.len());
            self.rest -= passed;
            bytes = &bytes[passed..];
            let part = bytes.len().min(self.head.len() - self.filled);
            if part == 0 {
                return bodies;
            }
            self.head[self.filled..][..part].copy_from_slice(&bytes[..part]);
            self.filled += part;
            bytes = &bytes[part..];
            if self.filled == self.head.len() {
                self.filled = 0;
                let [a, b, c, kind, ..] = self.head;
                let length = u32::from_be_bytes([0, a, b, c]);
                self.rest = length as usize;
                if kind == DATA && length > 0 {
                    bodies.add(Bodies { frames: 1, bytes: length.into() });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_found_in_what_is_read_in_whatever_pieces_it_comes() {
        let frame = |kind: u8, length: usize| {
            let mut frame = (length as u32).to_be_bytes()[1..].to_vec();
            frame.extend([kind, 0, 0, 0, 0, 1]);
            frame.resize(9 + length, 0);
            frame
        };
        let mut all = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        for (kind, length) in [
            (4, 6),
            (1, 50),
            (DATA, 300),
            (0xfa, 16 << 10),
            (DATA, 0),
            (DATA, 1),
            (8, 4),
            (DATA, 70_000),
        ] {
            all.extend(frame(kind, length));
        }
        for piece in [1, 2, 9, 10, 1_000, all.len()] {
            let (mut frames, mut bodies) = (Frames::default(), Bodies::default());
            for piece in all.chunks(piece) {
                bodies.add(frames.pass(piece));
            }
            assert_eq!((bodies.frames, bodies.bytes), (3, 70_301), "in pieces of {piece}");
        }
    }
}
