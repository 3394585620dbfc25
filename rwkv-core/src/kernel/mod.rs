//! The inner loops: one contract, one implementation per instruction set.
//!
//! [`Kernel`] says what each loop computes, bit for bit; [`Generic`] is the scalar reference that
//! every other implementation is tested against. Kernels check nothing and cannot panic: slices
//! whose lengths disagree are cut to the shorter.

mod generic;
#[cfg(test)]
mod suite;

pub use generic::Generic;

/// The implementation for the target this crate is compiled for.
pub type Native = Generic;

/// [`Native`], ready to use.
pub const fn native() -> Native {
    Generic
}

/// The inner loops of a token.
///
/// A kernel is a value that proves that the core it runs on has what it needs: the constructor of
/// an implementation for optional instructions looks and may refuse.
///
/// Implementations return the same bits for the same input. Integer sums wrap, so their order is
/// free; float sums follow the rule of eight (see [`crate::op::sum`]) or, by column, natural order.
pub trait Kernel: Copy + Send + Sync {
    /// `out[r] = Σ w[r][i] · x[i]` with the rule of eight. `w` holds `out.len()` rows of
    /// `x.len()`.
    fn rows_f32(self, w: &[f32], x: &[f32], out: &mut [f32]);

    /// `out[r] = f32(Σ w[r][i] · x[i]) · (x_scale · scales[r])`, the sum in wrapping `i32`.
    /// `w` holds `out.len()` rows of `x.len()`, which is a multiple of 32.
    fn rows_i8(self, w: &[i8], scales: &[f32], x: &[i16], x_scale: f32, out: &mut [f32]);

    /// `acc[r] += w[r] · x` in f32.
    fn column_f32(self, w: &[f32], x: f32, acc: &mut [f32]);

    /// `acc[r] += w[r] · x` in wrapping `i32`.
    fn column_i8(self, w: &[i8], x: i16, acc: &mut [i32]);
}
