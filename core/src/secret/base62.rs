//! Big-endian, zero-padded base62 over `0-9A-Za-z`, of fixed widths: 6 characters for 32 bits, 22 for
//! 128, 43 for 256. Every number has exactly one spelling; a number too large for its bits is rejected.
//! Works on the stack, in chunks of ten characters, since every Verify uses it; its buffers for 256
//! bits, which are secret, are erased.

#![expect(clippy::cast_possible_truncation, reason = "limbs and remainders are cut on purpose")]

use zeroize::Zeroizing;

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Each byte's value as a digit, or `NO_DIGIT`.
const VALUES: [u8; 256] = {
    let mut values = [NO_DIGIT; 256];
    let mut value = 0;
    while value < DIGITS.len() {
        values[DIGITS[value] as usize] = value as u8;
        value += 1;
    }
    values
};
const NO_DIGIT: u8 = u8::MAX;

/// Ten digits are below 2^60: the most that leaves space in a `u64` for the sums.
const CHUNK: usize = 10;
const CHUNK_RADIX: u64 = 62_u64.pow(CHUNK as u32);

/// Decodes at most ten digits.
fn chunk(text: &[u8]) -> Option<u64> {
    text.iter().try_fold(0, |sum, byte| match VALUES[usize::from(*byte)] {
        NO_DIGIT => None,
        value => Some(sum * 62 + u64::from(value)),
    })
}

/// Encodes a number with the length of `text`.
fn write_chunk(mut number: u64, text: &mut [u8]) {
    for slot in text.iter_mut().rev() {
        *slot = DIGITS[(number % 62) as usize];
        number /= 62;
    }
}

/// Decodes 32 bits.
pub(super) fn decode_u32(text: [u8; 6]) -> Option<u32> {
    u32::try_from(chunk(&text)?).ok()
}

/// Encodes 32 bits.
pub(super) fn encode_u32(number: u32) -> [u8; 6] {
    let mut text = [0; 6];
    write_chunk(u64::from(number), &mut text);
    text
}

/// Decodes 128 bits.
pub(super) fn decode_u128(text: &[u8; 22]) -> Option<u128> {
    let head = u128::from(chunk(&text[..2])?);
    let middle = u128::from(chunk(&text[2..12])?);
    let tail = u128::from(chunk(&text[12..])?);
    let radix = u128::from(CHUNK_RADIX);
    // The head and middle are below 62^12, so only the last step can overflow.
    (head * radix + middle).checked_mul(radix)?.checked_add(tail)
}

/// Encodes 128 bits.
pub(super) fn encode_u128(number: u128) -> [u8; 22] {
    let radix = u128::from(CHUNK_RADIX);
    let mut text = [0; 22];
    write_chunk((number % radix) as u64, &mut text[12..]);
    write_chunk((number / radix % radix) as u64, &mut text[2..12]);
    write_chunk((number / radix / radix) as u64, &mut text[..2]);
    text
}

/// Decodes 256 bits, big-endian.
pub(super) fn decode_256(text: &[u8; 43]) -> Option<Zeroizing<[u8; 32]>> {
    // Least significant limb first.
    let mut limbs = Zeroizing::new([chunk(&text[..3])?, 0, 0, 0]);
    for digits in text[3..].chunks_exact(CHUNK) {
        let mut carry = u128::from(chunk(digits)?);
        for limb in limbs.iter_mut() {
            carry += u128::from(*limb) * u128::from(CHUNK_RADIX);
            *limb = carry as u64;
            carry >>= 64;
        }
        if carry != 0 {
            return None;
        }
    }
    let mut bytes = Zeroizing::new([0; 32]);
    for (slot, limb) in bytes.chunks_exact_mut(8).rev().zip(limbs.iter()) {
        slot.copy_from_slice(&limb.to_be_bytes());
    }
    Some(bytes)
}

/// Encodes 256 bits.
pub(super) fn encode_256(bytes: &[u8; 32], text: &mut [u8; 43]) {
    // Most significant limb first, for the long division.
    let mut limbs = Zeroizing::new([0_u64; 4]);
    for (limb, slot) in limbs.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *limb = u64::from_be_bytes(*slot);
    }
    let (head, rest) = text.split_at_mut(3);
    for digits in rest.chunks_exact_mut(CHUNK).rev() {
        write_chunk(divide(&mut limbs), digits);
    }
    write_chunk(limbs[3], head);
}

/// Divides the number by the chunk's radix and returns the remainder.
fn divide(limbs: &mut [u64; 4]) -> u64 {
    let mut remainder = 0;
    for limb in limbs {
        let dividend = u128::from(remainder) << 64 | u128::from(*limb);
        *limb = (dividend / u128::from(CHUNK_RADIX)) as u64;
        remainder = (dividend % u128::from(CHUNK_RADIX)) as u64;
    }
    remainder
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spelled<const N: usize>(bytes: &[u8; 32]) -> [u8; N] {
        let mut text = [0; 43];
        encode_256(bytes, &mut text);
        text[..N].try_into().unwrap()
    }

    #[test]
    fn the_largest_numbers_are_read_and_the_next_ones_refused() {
        // 2^32-1, 2^128-1 and 2^256-1 by an independent long division.
        assert_eq!(&encode_u32(u32::MAX), b"4gfFC3");
        assert_eq!(decode_u32(*b"4gfFC4"), None);
        assert_eq!(&encode_u128(u128::MAX), b"7n42DGM5Tflk9n8mt7Fhc7");
        assert_eq!(decode_u128(b"7n42DGM5Tflk9n8mt7Fhc8"), None);
        let largest: [u8; 43] = spelled(&[0xff; 32]);
        assert_eq!(decode_256(&largest).map(|bytes| *bytes), Some([0xff; 32]));
        let mut next = largest;
        *next.last_mut().unwrap() += 1;
        assert_eq!(decode_256(&next), None);
        assert_eq!(decode_256(&[b'z'; 43]), None);
        assert_eq!(decode_u128(&[b'z'; 22]), None);
        assert_eq!(decode_u32([b'z'; 6]), None);
    }

    #[test]
    fn zero_is_padded_to_its_width() {
        assert_eq!(encode_u128(0), [b'0'; 22]);
        assert_eq!(spelled::<43>(&[0; 32]), [b'0'; 43]);
    }

    proptest! {
        #[test]
        fn a_rendered_value_parses_back(a: u32, b: u128, c: [u8; 32]) {
            prop_assert_eq!(decode_u32(encode_u32(a)), Some(a));
            prop_assert_eq!(decode_u128(&encode_u128(b)), Some(b));
            prop_assert_eq!(decode_256(&spelled(&c)).map(|bytes| *bytes), Some(c));
        }

        #[test]
        fn a_parsed_text_renders_the_same(text in "[0-9A-Za-z]{43}") {
            let text: [u8; 43] = text.into_bytes().try_into().unwrap();
            if let Some(bytes) = decode_256(&text) {
                prop_assert_eq!(spelled::<43>(&bytes), text);
            }
        }
    }
}
