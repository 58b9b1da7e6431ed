//! Consistent probability sampling: a threshold of 56 bits against as many bits of randomness, which
//! everybody that decides on a trace shares
//! (<https://opentelemetry.io/docs/specs/otel/trace/tracestate-probability-sampling/>). Comes in:
//! probabilities, trace ids and their text forms; goes out: thresholds that compare.
#![forbid(unsafe_code)]

pub mod sampler;
#[cfg(test)]
mod tests;
pub mod tracestate;

/// 2^56: so many values has randomness.
pub const MOST: u64 = 1 << 56;

/// Hex digits of 56 bits.
pub const DIGITS: usize = 14;

/// The smallest probability that a threshold can tell.
pub const SMALLEST: f64 = 1.0 / MOST as f64;

/// So many of 2^56 are left out: an item is sampled if this is at most its randomness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Threshold(u64);

/// 56 bits of an item's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Randomness(u64);

/// Why a text is neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// `th`.
    #[error("t-value exceeds 14 hex digits")]
    ThresholdSize,
    /// `rv`.
    #[error("r-value must have 14 hex digits")]
    RandomnessSize,
    /// Something other than hex digits, or no `tracestate`.
    #[error("invalid syntax")]
    Syntax,
    /// A `tracestate` beyond its limits.
    #[error("invalid tracestate size")]
    Size,
}

impl Threshold {
    /// All are sampled.
    pub const ALWAYS: Self = Self(0);
    /// None is.
    pub const NEVER: Self = Self(MOST);

    /// So many of 2^56; at most that.
    pub fn of(left_out: u64) -> Self {
        Self(left_out.min(MOST))
    }

    /// Of a probability, in `precision` significant hex digits (1 to 14; 0: all); `None` where it is not
    /// within [[`SMALLEST`], 1]. Near 0 and 1, where digits are spent on leading `f` and `0`, there are
    /// more of them.
    pub fn of_probability(probability: f64, precision: usize) -> Option<Self> {
        if !(SMALLEST..=1.0).contains(&probability) {
            return None;
        }
        if probability == 1.0 {
            return Some(Self::ALWAYS);
        }
        let precision = if precision == 0 { DIGITS } else { precision };
        let leading = |number: f64| exponent(number).unsigned_abs() as usize / 4;
        let more = leading(probability).max(leading(1.0 - probability));
        let precision = (precision + more).min(DIGITS);
        let kept = (probability * MOST as f64).round() as u64;
        let left_out = MOST - kept.min(MOST);
        let shift = 4 * (DIGITS - precision);
        if shift == 0 {
            return Some(Self(left_out));
        }
        Some(Self((left_out + (1 << (shift - 1))) >> shift << shift))
    }

    /// Reads 1 to 14 hex digits; zeros at their end may be left out.
    pub fn read(text: &str) -> Result<Self, Malformed> {
        if text.len() > DIGITS {
            return Err(Malformed::ThresholdSize);
        }
        Ok(Self(hex(text)? << (4 * (DIGITS - text.len()))))
    }

    /// The shortest text; none for [`Self::NEVER`].
    pub fn text(self) -> String {
        match self {
            Self::ALWAYS => "0".to_owned(),
            Self::NEVER => String::new(),
            Self(left_out) => format!("{left_out:014x}").trim_end_matches('0').to_owned(),
        }
    }

    /// Whether an item of this randomness is sampled.
    pub const fn samples(self, randomness: Randomness) -> bool {
        self.0 <= randomness.0
    }

    /// The share that is sampled.
    pub fn probability(self) -> f64 {
        (MOST - self.0) as f64 / MOST as f64
    }
}

impl Randomness {
    /// What every threshold but [`Threshold::NEVER`] samples.
    pub const HIGHEST: Self = Self(MOST - 1);

    /// So many of 2^56; what is above is cut off.
    pub const fn of(number: u64) -> Self {
        Self(number & (MOST - 1))
    }

    /// That of a trace: the last 7 bytes of its id (W3C Trace Context level 2).
    pub fn of_trace(trace_id: &[u8; 16]) -> Self {
        Self::of(trace_id.last_chunk().map_or(0, |low| u64::from_be_bytes(*low)))
    }

    /// Reads 14 hex digits.
    pub fn read(text: &str) -> Result<Self, Malformed> {
        if text.len() != DIGITS {
            return Err(Malformed::RandomnessSize);
        }
        hex(text).map(Self)
    }

    /// Its 14 hex digits.
    pub fn text(self) -> String {
        format!("{:014x}", self.0)
    }
}

fn hex(text: &str) -> Result<u64, Malformed> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Malformed::Syntax);
    }
    u64::from_str_radix(text, 16).map_err(|_| Malformed::Syntax)
}

/// The exponent of a positive number at most 1 as C's `frexp` has it: the mantissa is in [0.5, 1).
fn exponent(number: f64) -> i32 {
    // Normal numbers only: 2^-56 is one.
    (number.to_bits() >> 52) as i32 - 1022
}

/// FNV-1a of 32 bits.
pub fn fnv32(parts: [&[u8]; 2]) -> u32 {
    let bytes = parts.into_iter().flatten();
    bytes.fold(0x811c_9dc5, |hash: u32, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// FNV-1a of 64 bits.
pub fn fnv64(parts: [&[u8]; 2]) -> u64 {
    let bytes = parts.into_iter().flatten();
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
