//! The Huffman code of HPACK (RFC 7541 appendix B). In: a coded string. Out: its bytes.
//!
//! The code is canonical: codes of one length are consecutive numbers in the order of their
//! symbols, so the lengths alone define it. What is short (8 bits or less, all of ordinary header
//! text) is found by one look-up, the rest by a walk over the lengths.
#![forbid(unsafe_code)]

/// The string is not a whole number of codes and a padding of ones, or holds EOS (RFC 7541 §5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

const SYMBOLS: usize = 257;
const EOS: u16 = 256;
const SHORT: u32 = 8;
const LONGEST: usize = 30;

/// Code lengths of the bytes and of EOS.
#[rustfmt::skip]
const LENGTHS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

/// What the lengths define.
struct Code {
    /// Symbols by length, then by number.
    symbols: [u16; SYMBOLS],
    /// By length: its first code, its number of codes, where its symbols begin.
    lengths: [(u32, u32, usize); LONGEST + 1],
    /// Symbol and length by the next 8 bits; length 0 where the code is longer.
    short: [(u8, u8); 1 << SHORT],
}

static CODE: Code = build();

const fn build() -> Code {
    let mut code = Code {
        symbols: [0; SYMBOLS],
        lengths: [(0, 0, 0); LONGEST + 1],
        short: [(0, 0); 1 << SHORT],
    };
    let (mut next, mut placed, mut length) = (0u32, 0, 1);
    while length <= LONGEST {
        next <<= 1;
        let (first, begin) = (next, placed);
        let mut symbol = 0;
        while symbol < SYMBOLS {
            if LENGTHS[symbol] as usize == length {
                code.symbols[placed] = symbol as u16;
                if length <= SHORT as usize {
                    let spare = SHORT - length as u32;
                    let mut at = next << spare;
                    while at < (next + 1) << spare {
                        code.short[at as usize] = (symbol as u8, length as u8);
                        at += 1;
                    }
                }
                placed += 1;
                next += 1;
            }
            symbol += 1;
        }
        code.lengths[length] = (first, next - first, begin);
        length += 1;
    }
    code
}

/// Adds the bytes that `coded` stands for to `out`: at most 8/5 as many.
pub fn decode(coded: &[u8], out: &mut Vec<u8>) -> Result<(), Broken> {
    // The shortest code has 5 bits.
    out.reserve(coded.len() / 5 * 8 + 8);
    // The bits at hand, from the top; those below are zero.
    let (mut bits, mut held) = (0u64, 0u32);
    let mut coded = coded.iter();
    loop {
        while held <= 56 {
            let Some(byte) = coded.next() else { break };
            bits |= u64::from(*byte) << (56 - held);
            held += 8;
        }
        let (symbol, length) = CODE.short[(bits >> 56) as usize];
        if length == 0 {
            let Some((symbol, length)) = long(bits) else { return Err(Broken) };
            if length > held {
                return padding(bits, held);
            }
            if symbol == EOS {
                return Err(Broken);
            }
            out.push(symbol as u8);
            bits <<= length;
            held -= length;
            continue;
        }
        let length = u32::from(length);
        if length > held {
            return padding(bits, held);
        }
        out.push(symbol);
        bits <<= length;
        held -= length;
    }
}

/// The code of more than 8 bits at the top of `bits`.
#[cold]
fn long(bits: u64) -> Option<(u16, u32)> {
    CODE.lengths.iter().zip(0u32..).skip(SHORT as usize + 1).find_map(
        |(&(first, count, begin), length)| {
            let offset = ((bits >> (64 - length)) as u32).checked_sub(first)?;
            let symbol = CODE.symbols.get(begin + offset as usize)?;
            (offset < count).then_some((*symbol, length))
        },
    )
}

/// Fewer than 8 bits may be left, all ones.
const fn padding(bits: u64, held: u32) -> Result<(), Broken> {
    if held < 8 && bits.leading_ones() >= held { Ok(()) } else { Err(Broken) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packs codes, made from the definition and not from the decoder's tables.
    fn encode(symbols: &[u16]) -> Vec<u8> {
        let code = |symbol: u16| {
            let mut order: Vec<u16> = (0..SYMBOLS as u16).collect();
            order.sort_by_key(|symbol| (LENGTHS[*symbol as usize], *symbol));
            let (mut code, mut before) = (0u32, 0);
            for other in order {
                let length = u32::from(LENGTHS[other as usize]);
                code <<= length - before;
                before = length;
                if other == symbol {
                    return (code, length);
                }
                code += 1;
            }
            unreachable!("each symbol has a code")
        };
        let mut bits = String::new();
        for symbol in symbols {
            let (code, length) = code(*symbol);
            bits.push_str(&format!("{code:0width$b}", width = length as usize));
        }
        while !bits.len().is_multiple_of(8) {
            bits.push('1');
        }
        bits.as_bytes()
            .chunks(8)
            .map(|byte| u8::from_str_radix(std::str::from_utf8(byte).unwrap(), 2).unwrap())
            .collect()
    }

    #[test]
    fn each_byte_has_a_code() {
        for symbol in 0..256u16 {
            for pair in [vec![symbol], vec![symbol, 255 - symbol, symbol]] {
                let mut out = vec![];
                assert_eq!(decode(&encode(&pair), &mut out), Ok(()), "{pair:?}");
                let want: Vec<u8> = pair.iter().map(|symbol| *symbol as u8).collect();
                assert_eq!(out, want);
            }
        }
    }

    #[test]
    fn appendix_b_names_these_codes() {
        // RFC 7541 appendix B: NUL is 11111111|11000, `0` is 00000, `~` is 11111111|11101.
        assert_eq!(encode(&[0]), [0xff, 0b1100_0111]);
        assert_eq!(encode(&[u16::from(b'0')]), [0b0000_0111]);
        assert_eq!(encode(&[u16::from(b'~')]), [0xff, 0b1110_1111]);
        // Appendix C.4.1.
        let mut out = vec![];
        let wire = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(decode(&wire, &mut out), Ok(()));
        assert_eq!(out, b"www.example.com");
    }

    #[test]
    fn padding_and_end_of_string_are_checked() {
        let cases: [(&[u8], Result<(), Broken>); 7] = [
            (&[], Ok(())),
            (&[0b0000_0111], Ok(())),
            (&[0b0000_0110], Err(Broken)),
            (&[0b0000_0000], Err(Broken)),
            (&[0xff], Err(Broken)),
            (&[0b0000_0111, 0xff], Err(Broken)),
            (&[0xff, 0xff, 0xff, 0xff], Err(Broken)),
        ];
        for (wire, want) in cases {
            assert_eq!(decode(wire, &mut vec![]), want, "{wire:x?}");
        }
    }
}
