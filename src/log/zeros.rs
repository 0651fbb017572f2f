//! Zeros to write, without memory of that size.

static PIECE: [u8; 64 << 10] = [0; 64 << 10];

/// `bytes` zeros as the parts of a vectored write.
pub(super) fn parts(bytes: u64) -> Vec<&'static [u8]> {
    let piece = PIECE.len() as u64;
    let mut parts: Vec<&'static [u8]> = vec![&PIECE; (bytes / piece) as usize];
    let rest = (bytes % piece) as usize;
    if rest > 0 {
        parts.push(&PIECE[..rest]);
    }
    parts
}
