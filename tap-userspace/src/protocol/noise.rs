//! Deterministic noise for tests of raw input: the same bytes in each run, so that a failure can
//! be repeated by its seed.

/// xorshift64*, good enough to stir bytes.
pub struct Noise(u64);

impl Noise {
    /// Noise that follows from `seed`, which is not zero.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    /// A number below `bound`, which is not zero.
    pub fn below(&mut self, bound: u32) -> u32 {
        u32::try_from(self.next() % u64::from(bound)).unwrap_or(0)
    }

    /// Any byte.
    pub fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    /// Changes a few bytes of `bytes`, and sometimes its length.
    pub fn stir(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(8) {
            let Ok(len) = u32::try_from(bytes.len()) else { return };
            if len == 0 {
                bytes.push(self.byte());
                continue;
            }
            let at = self.below(len) as usize;
            match self.below(8) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, self.byte()),
                2 => bytes[at] = [0, 0xff, 0x7f, 0x80, 1, 2, 3, 22][self.below(8) as usize],
                3 => bytes[at] ^= 1 << self.below(8),
                _ => bytes[at] = self.byte(),
            }
        }
    }
}
