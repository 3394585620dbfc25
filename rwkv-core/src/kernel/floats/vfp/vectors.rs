//! Element by element, eight or sixteen at a time; what is left over takes the scalar code.

use core::arch::asm;

use super::BLOCK;
use crate::kernel::floats::scalar;

/// A loop over blocks in assembly, whose body moves the pointers on.
macro_rules! blocks {
    ($blocks:expr, [$($before:literal)*] {$($body:literal)*} [$($after:literal)*] $($operands:tt)*) => {
        let blocks = $blocks;
        if blocks > 0 {
            // SAFETY: every pointer leads as many elements as all blocks have.
            unsafe {
                asm!(
                    $($before,)*
                    "2:",
                    $($body,)*
                    "subs {left}, {left}, #1",
                    "bne 2b",
                    $($after,)*
                    left = inout(reg) blocks => _,
                    $($operands)*,
                    out("d0") _, out("d1") _, out("d2") _, out("d3") _, out("d4") _,
                    out("d5") _, out("d6") _, out("d7") _, out("d8") _, out("d9") _,
                    out("d10") _, out("d11") _, out("d12") _,
                    options(nostack),
                );
            }
        }
    };
}

/// The first `n` elements, those of whole blocks apart.
fn cut<const B: usize>(x: &[f32], n: usize) -> (&[[f32; B]], &[f32]) {
    x.get(..n).unwrap_or_default().as_chunks()
}

/// As [`cut`], to write.
fn cut_mut<const B: usize>(x: &mut [f32], n: usize) -> (&mut [[f32; B]], &mut [f32]) {
    x.get_mut(..n).unwrap_or_default().as_chunks_mut()
}

/// `out = x`.
pub(crate) fn copy(x: &[f32], out: &mut [f32]) {
    let n = x.len().min(out.len());
    let (x, x_tail) = cut::<16>(x, n);
    let (out, out_tail) = cut_mut::<16>(out, n);
    blocks!(x.len().min(out.len()), [] {
        "vldmia {x}!, {{s0-s15}}"
        "vstmia {out}!, {{s0-s15}}"
    } []
        x = inout(reg) x.as_ptr() => _,
        out = inout(reg) out.as_mut_ptr() => _
    );
    scalar::copy(x_tail, out_tail);
}

/// `x += y`.
pub(crate) fn add(x: &mut [f32], y: &[f32]) {
    let n = x.len().min(y.len());
    let (x, x_tail) = cut_mut::<BLOCK>(x, n);
    let (y, y_tail) = cut::<BLOCK>(y, n);
    blocks!(x.len().min(y.len()), [] {
        "vldmia {x}, {{s0-s7}}"
        "vldmia {y}!, {{s8-s15}}"
        "vadd.f32 s0, s0, s8"
        "vadd.f32 s1, s1, s9"
        "vadd.f32 s2, s2, s10"
        "vadd.f32 s3, s3, s11"
        "vadd.f32 s4, s4, s12"
        "vadd.f32 s5, s5, s13"
        "vadd.f32 s6, s6, s14"
        "vadd.f32 s7, s7, s15"
        "vstmia {x}!, {{s0-s7}}"
    } []
        x = inout(reg) x.as_mut_ptr() => _,
        y = inout(reg) y.as_ptr() => _
    );
    scalar::add(x_tail, y_tail);
}

/// `x += (target - x)·weight`.
pub(crate) fn lerp(x: &mut [f32], target: &[f32], weight: &[f32]) {
    let n = x.len().min(target.len()).min(weight.len());
    let (x, x_tail) = cut_mut::<BLOCK>(x, n);
    let (target, target_tail) = cut::<BLOCK>(target, n);
    let (weight, weight_tail) = cut::<BLOCK>(weight, n);
    blocks!(x.len().min(target.len()).min(weight.len()), [] {
        "vldmia {x}, {{s0-s7}}"
        "vldmia {t}!, {{s8-s15}}"
        "vldmia {w}!, {{s16-s23}}"
        "vsub.f32 s8, s8, s0"
        "vsub.f32 s9, s9, s1"
        "vsub.f32 s10, s10, s2"
        "vsub.f32 s11, s11, s3"
        "vsub.f32 s12, s12, s4"
        "vsub.f32 s13, s13, s5"
        "vsub.f32 s14, s14, s6"
        "vsub.f32 s15, s15, s7"
        "vmla.f32 s0, s8, s16"
        "vmla.f32 s1, s9, s17"
        "vmla.f32 s2, s10, s18"
        "vmla.f32 s3, s11, s19"
        "vmla.f32 s4, s12, s20"
        "vmla.f32 s5, s13, s21"
        "vmla.f32 s6, s14, s22"
        "vmla.f32 s7, s15, s23"
        "vstmia {x}!, {{s0-s7}}"
    } []
        x = inout(reg) x.as_mut_ptr() => _,
        t = inout(reg) target.as_ptr() => _,
        w = inout(reg) weight.as_ptr() => _
    );
    scalar::lerp(x_tail, target_tail, weight_tail);
}

/// `x = (x - mean)·inverse·w + b`; `params` is `[w, b]` per channel.
pub(crate) fn normalise(x: &mut [f32], (mean, inverse): (f32, f32), params: &[f32]) {
    let n = x.len().min(params.len() / 2);
    let (x, x_tail) = cut_mut::<BLOCK>(x, n);
    let (params, params_tail) = cut::<{ 2 * BLOCK }>(params, 2 * n);
    blocks!(x.len().min(params.len()), ["vmov d12, {mean}, {inverse}"] {
        "vldmia {x}, {{s0-s7}}"
        "vldmia {p}!, {{s8-s23}}"
        "vsub.f32 s0, s0, s24"
        "vsub.f32 s1, s1, s24"
        "vsub.f32 s2, s2, s24"
        "vsub.f32 s3, s3, s24"
        "vsub.f32 s4, s4, s24"
        "vsub.f32 s5, s5, s24"
        "vsub.f32 s6, s6, s24"
        "vsub.f32 s7, s7, s24"
        "vmul.f32 s0, s0, s25"
        "vmul.f32 s1, s1, s25"
        "vmul.f32 s2, s2, s25"
        "vmul.f32 s3, s3, s25"
        "vmul.f32 s4, s4, s25"
        "vmul.f32 s5, s5, s25"
        "vmul.f32 s6, s6, s25"
        "vmul.f32 s7, s7, s25"
        "vmul.f32 s0, s0, s8"
        "vmul.f32 s1, s1, s10"
        "vmul.f32 s2, s2, s12"
        "vmul.f32 s3, s3, s14"
        "vmul.f32 s4, s4, s16"
        "vmul.f32 s5, s5, s18"
        "vmul.f32 s6, s6, s20"
        "vmul.f32 s7, s7, s22"
        "vadd.f32 s0, s0, s9"
        "vadd.f32 s1, s1, s11"
        "vadd.f32 s2, s2, s13"
        "vadd.f32 s3, s3, s15"
        "vadd.f32 s4, s4, s17"
        "vadd.f32 s5, s5, s19"
        "vadd.f32 s6, s6, s21"
        "vadd.f32 s7, s7, s23"
        "vstmia {x}!, {{s0-s7}}"
    } []
        x = inout(reg) x.as_mut_ptr() => _,
        p = inout(reg) params.as_ptr() => _,
        mean = in(reg) mean.to_bits(),
        inverse = in(reg) inverse.to_bits()
    );
    scalar::normalise(x_tail, (mean, inverse), params_tail);
}

/// `Σ x` with the rule of eight.
pub(crate) fn sum(x: &[f32]) -> f32 {
    let (eights, tail) = x.as_chunks::<BLOCK>();
    let mut acc = [0f32; BLOCK];
    blocks!(eights.len(), ["vldmia {acc}, {{s0-s7}}"] {
        "vldmia {x}!, {{s8-s15}}"
        "vadd.f32 s0, s0, s8"
        "vadd.f32 s1, s1, s9"
        "vadd.f32 s2, s2, s10"
        "vadd.f32 s3, s3, s11"
        "vadd.f32 s4, s4, s12"
        "vadd.f32 s5, s5, s13"
        "vadd.f32 s6, s6, s14"
        "vadd.f32 s7, s7, s15"
    } ["vstmia {acc}, {{s0-s7}}"]
        x = inout(reg) eights.as_ptr() => _,
        acc = in(reg) acc.as_mut_ptr()
    );
    scalar::add(&mut acc, tail);
    scalar::fold(&acc)
}

/// `Σ (x - mean)²` with the rule of eight.
pub(crate) fn squares(x: &[f32], mean: f32) -> f32 {
    let (eights, tail) = x.as_chunks::<BLOCK>();
    let mut acc = [0f32; BLOCK];
    blocks!(eights.len(), ["vldmia {acc}, {{s0-s7}}" "vmov s16, {mean}"] {
        "vldmia {x}!, {{s8-s15}}"
        "vsub.f32 s8, s8, s16"
        "vsub.f32 s9, s9, s16"
        "vsub.f32 s10, s10, s16"
        "vsub.f32 s11, s11, s16"
        "vsub.f32 s12, s12, s16"
        "vsub.f32 s13, s13, s16"
        "vsub.f32 s14, s14, s16"
        "vsub.f32 s15, s15, s16"
        "vmla.f32 s0, s8, s8"
        "vmla.f32 s1, s9, s9"
        "vmla.f32 s2, s10, s10"
        "vmla.f32 s3, s11, s11"
        "vmla.f32 s4, s12, s12"
        "vmla.f32 s5, s13, s13"
        "vmla.f32 s6, s14, s14"
        "vmla.f32 s7, s15, s15"
    } ["vstmia {acc}, {{s0-s7}}"]
        x = inout(reg) eights.as_ptr() => _,
        acc = in(reg) acc.as_mut_ptr(),
        mean = in(reg) mean.to_bits()
    );
    for (acc, x) in acc.iter_mut().zip(tail) {
        *acc += (x - mean) * (x - mean);
    }
    scalar::fold(&acc)
}
