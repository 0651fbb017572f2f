//! Follows the frames of HTTP/2 in what is read of a connection, as far as they carry bodies (RFC 9113, 4.1).

/// The kind of frame that bodies are in.
const DATA: u8 = 0;

/// See the module.
#[derive(Debug)]
pub struct Frames {
    head: [u8; 9],
    /// What is there of it.
    filled: usize,
    /// To be passed over before the next one.
    rest: usize,
    /// Whether that is of a body.
    is_body: bool,
}

impl Default for Frames {
    /// A connection begins with its preface (RFC 9113, 3.4).
    fn default() -> Self {
        Self { head: [0; 9], filled: 0, rest: 24, is_body: false }
    }
}

impl Frames {
    /// What the frame that has begun still needs (unit: bytes).
    pub fn rest(&self) -> usize {
        self.rest
    }

    /// How many frames of bodies end in these bytes, which come after those before.
    pub fn pass(&mut self, mut bytes: &[u8]) -> u64 {
        let mut bodies = 0;
        loop {
            let passed = self.rest.min(bytes.len());
            self.rest -= passed;
            bytes = &bytes[passed..];
            if self.rest == 0 {
                bodies += u64::from(std::mem::take(&mut self.is_body));
            }
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
                self.rest = u32::from_be_bytes([0, a, b, c]) as usize;
                self.is_body = kind == DATA && self.rest > 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_bodies_count_when_they_are_whole_in_whatever_pieces_they_come() {
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
            let mut frames = Frames::default();
            let (last, before) = all.split_last().unwrap();
            let bodies: u64 = before.chunks(piece).map(|piece| frames.pass(piece)).sum();
            assert_eq!((bodies, frames.rest()), (2, 1), "in pieces of {piece}: one is not whole");
            assert_eq!((frames.pass(&[*last]), frames.rest()), (1, 0));
        }
    }
}
