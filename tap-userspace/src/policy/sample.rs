//! The head sampler (`OTEL_TRACES_SAMPLER`): a trace id in, kept or not out. Both ends of a
//! connection share the trace id, so taps on both hosts decide alike.

/// How traces are chosen. A `Connection` span has no parent, so the `parentbased_…` samplers are
/// their root samplers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sampler {
    /// `always_on`.
    AlwaysOn,
    /// `always_off`.
    AlwaysOff,
    /// `traceidratio`: this share of all traces.
    TraceIdRatio(f64),
}

impl Sampler {
    /// Whether the trace is kept. The rule of the OpenTelemetry SDK for Rust (and Go): the lower 64
    /// bits of the id without their last one, below the ratio's share of 2^63.
    pub fn keeps(self, trace_id: &[u8; 16]) -> bool {
        match self {
            Self::AlwaysOn => true,
            Self::AlwaysOff => false,
            Self::TraceIdRatio(ratio) if ratio >= 1.0 => true,
            Self::TraceIdRatio(ratio) => {
                let bound = (ratio.max(0.0) * (1u64 << 63) as f64) as u64;
                // 16 bytes have a lower half.
                let low = trace_id.last_chunk().map_or(0, |low| u64::from_be_bytes(*low));
                low >> 1 < bound
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanKind, TraceId};
    use opentelemetry_sdk::trace::{self, SamplingDecision, ShouldSample as _};

    use super::*;

    #[test]
    fn decides_as_the_sdk_does() {
        let ratios = [-1.0, 0.0, f64::MIN_POSITIVE, 1e-9, 0.1, 0.25, 0.5, 0.999_999, 1.0, 2.0];
        // Ids around every bound, and a spread of others.
        let mut halves = vec![0, 1, u64::MAX, u64::MAX - 1];
        for ratio in ratios {
            let bound = (ratio * 2f64.powi(63)) as u64;
            for near in bound.saturating_sub(2)..=bound.saturating_add(2) {
                halves.extend([near << 1, near << 1 | 1]);
            }
        }
        halves.extend((0..10_000u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        for ratio in ratios {
            let theirs = trace::Sampler::TraceIdRatioBased(ratio);
            for &low in &halves {
                let id = u128::from(low) | 7 << 64;
                let trace_id = TraceId::from(id);
                let kind = SpanKind::Internal;
                let result = theirs.should_sample(None, trace_id, "Connection", &kind, &[], &[]);
                let kept = result.decision == SamplingDecision::RecordAndSample;
                let ours = Sampler::TraceIdRatio(ratio);
                assert_eq!(ours.keeps(&id.to_be_bytes()), kept, "{ratio} {id:x}");
            }
        }
    }

    #[test]
    fn always_is_always() {
        for id in [[0; 16], [0xff; 16]] {
            assert!(Sampler::AlwaysOn.keeps(&id));
            assert!(!Sampler::AlwaysOff.keeps(&id));
        }
    }
}
