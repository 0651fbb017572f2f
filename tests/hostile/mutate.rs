//! Changes to valid bytes, as somebody makes them who looks for what breaks.

use duramen::testing::Chance;

/// Numbers at which something may break.
const ODD: [u64; 14] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0xff_ffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    u64::MAX,
];

pub fn odd(chance: &mut Chance) -> u64 {
    ODD[chance.below(ODD.len() as u64) as usize]
}

pub fn random(chance: &mut Chance, count: usize) -> Vec<u8> {
    (0..count).map(|_| chance.next_u64() as u8).collect()
}

pub fn pick<'t, T>(chance: &mut Chance, from: &'t [T]) -> &'t T {
    &from[chance.below(from.len() as u64) as usize]
}

/// The same bytes with one to five changes; never much longer.
pub fn mutated(bytes: &[u8], chance: &mut Chance) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=chance.below(5) {
        let at = chance.below(bytes.len() as u64) as usize;
        let few = (chance.below(16) as usize).min(bytes.len() - at.min(bytes.len()));
        match chance.below(9) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..at + few)),
            2 => {
                let again = bytes[at..at + few].to_vec();
                bytes.splice(at..at, again);
            }
            3 => {
                let noise = random(chance, few);
                bytes.splice(at..at, noise);
            }
            4 => overwrite(&mut bytes, at, &odd(chance).to_be_bytes()[4..]),
            5 => overwrite(&mut bytes, at, &odd(chance).to_be_bytes()),
            6 => {
                let number = varint(odd(chance));
                bytes.splice(at..at + few.min(1), number);
            }
            7 => overwrite(&mut bytes, at, &[odd(chance) as u8]),
            _ => {
                let bit = 1 << chance.below(8);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= bit;
                }
            }
        }
    }
    bytes
}

fn overwrite(bytes: &mut [u8], at: usize, by: &[u8]) {
    bytes[at..].iter_mut().zip(by).for_each(|(byte, by)| *byte = *by);
}

/// A number as protobuf writes it.
pub fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}
