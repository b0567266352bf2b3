//! One scale for all inputs of a native model: a raw value enters, a number of moderate size leaves. The same bits on every machine.
//!
//! Counts and amounts are heavy-tailed: on their own scale one visitor with a million requests would be the only thing that a sum of
//! squares sees. So a value is compressed to `sign(x) · log2(1 + |x|)` first, then centred and divided by a scale kept in the model's
//! file, and what is left is winsorised (Tukey 1962: extreme values are set to the limit, not dropped).
//!
//! The logarithm is Mitchell's, linear between powers of two (Mitchell: Computer Multiplication and Division Using Binary Logarithms,
//! IRE Trans. EC-11, 1962): continuous, rising, never more than 0.09 from the true one, and made of the number's own exponent and mantissa,
//! where the system's `log` may differ in its last digit between C libraries.

/// Most inputs of a linear or half-space model; a manifest names no more.
pub const MAX_INPUTS: usize = 4096;
/// How far from its centre a scaled value may be.
pub const LIMIT: f64 = 10.0;
/// Least scale: less than this apart, compressed values are as good as equal.
pub const LEAST: f32 = 1e-6;
/// Largest magnitude of any number in a model's file, so that no score overflows.
pub const MOST: f32 = 1e6;

/// Where the compressed values of one input lie.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// What becomes 0; finite, at most [`MOST`].
    pub centre: f32,
    /// What becomes 1, counted from the centre; [`LEAST`] to [`MOST`].
    pub width: f32,
}

impl Scale {
    /// The scaled value, within [`LIMIT`] of 0; that of NaN is 0.
    #[inline]
    pub fn apply(&self, value: f32) -> f64 {
        let scaled = (compress(f64::from(value)) - f64::from(self.centre)) / f64::from(self.width);
        if scaled.is_nan() { 0.0 } else { scaled.clamp(-LIMIT, LIMIT) }
    }

    /// What is wrong with it, if anything.
    pub(crate) fn check(&self, input: usize) -> Result<(), String> {
        if self.centre.abs() <= MOST && (LEAST..=MOST).contains(&self.width) {
            return Ok(());
        }
        let Self { centre, width } = self;
        Err(format!(
            "input {input} has the centre {centre} and the width {width}, allowed are -{MOST:e} to {MOST:e} and {LEAST:e} to {MOST:e}"
        ))
    }
}

/// `sign(x) · log2(1 + |x|)` with Mitchell's logarithm; NaN stays NaN.
#[inline]
pub fn compress(value: f64) -> f64 {
    const MANTISSA: u64 = (1 << 52) - 1;
    let bits = (1.0 + value.abs()).to_bits();
    let exponent = ((bits >> 52) & 0x7ff) as f64 - 1023.0;
    let mantissa = f64::from_bits((bits & MANTISSA) | 1.0_f64.to_bits());
    if value.is_nan() { value } else { (exponent + (mantissa - 1.0)).copysign(value) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn compression_rises_and_stays_near_the_logarithm(a in -1e30_f64..1e30, b in -100.0_f64..100.0) {
            for x in [a, b] {
                let exact = x.abs().ln_1p() / std::f64::consts::LN_2;
                prop_assert!((compress(x).abs() - exact).abs() < 0.0861, "{x}: {} {exact}", compress(x));
                prop_assert_eq!(compress(-x).to_bits(), (-compress(x)).to_bits());
            }
            prop_assert!(a.min(b) == a.max(b) || compress(a.min(b)) <= compress(a.max(b)));
        }

        #[test]
        fn a_scaled_value_is_moderate_whatever_comes(bits: u32, centre in -MOST..MOST, width in LEAST..MOST) {
            let scaled = Scale { centre, width }.apply(f32::from_bits(bits));
            prop_assert!(scaled.abs() <= LIMIT);
        }
    }

    #[test]
    fn powers_of_two_are_exact() {
        let found = [0.0, 1.0, 3.0, 1023.0, -7.0].map(compress);
        assert_eq!(found, [0.0, 1.0, 2.0, 10.0, -3.0]);
    }
}
