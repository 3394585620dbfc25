//! The recurrence of versions 5 and 6 over the keys of a head.

use core::arch::asm;

use super::{BLOCK, fits};
use crate::kernel::floats::scalar::{Keys5, from};

/// See [`crate::kernel::Kernel::wkv5`].
pub(crate) fn wkv5(keys: Keys5<'_>, v: &[f32], state: &mut [f32], y: &mut [f32]) {
    let n = v.len();
    let mut first = 0;
    if [keys.w, keys.k, keys.r].iter().all(|x| x.len() == n) && fits(v, state, y) {
        let blocks = v.as_chunks::<BLOCK>().0.iter().zip(y.as_chunks_mut::<BLOCK>().0);
        for (v, y) in blocks {
            // SAFETY: all vectors have `n` elements and the state has `n` rows of `n`, of which
            // the columns from `first` to `first + BLOCK` are this block's.
            unsafe { update(keys, v, state.as_mut_ptr().add(first), n, y) };
            first += BLOCK;
        }
    }
    if first < n {
        from::<4>(first, keys, v, state, y);
    }
}

/// The output of a block of columns, and its new state.
///
/// # Safety
/// The vectors have `n` elements, `n` is a positive multiple of 4, and `column` leads `n` rows of a
/// block that lie `n` elements apart.
unsafe fn update(
    keys: Keys5<'_>,
    v: &[f32; BLOCK],
    column: *mut f32,
    n: usize,
    y: &mut [f32; BLOCK],
) {
    macro_rules! key {
        () => {
            key!(["s0" "s8" "s16"] ["s1" "s9" "s17"] ["s2" "s10" "s18"] ["s3" "s11" "s19"]
                ["s4" "s12" "s20"] ["s5" "s13" "s21"] ["s6" "s14" "s22"] ["s7" "s15" "s23"])
        };
        ($([$s:literal $v:literal $y:literal])+) => {
            concat!(
                "vldmia {w}!, {{s24}}\n",
                "vldmia {k}!, {{s25}}\n",
                "vldmia {r}!, {{s26}}\n",
                "vldmia {s}, {{s0-s7}}\n",
                $("vmla.f32 ", $y, ", ", $s, ", s26\n",)+
                $("vmul.f32 ", $s, ", ", $s, ", s24\n",)+
                $("vmla.f32 ", $s, ", ", $v, ", s25\n",)+
                "vstmia {s}, {{s0-s7}}\n",
                "add {s}, {s}, {row}\n",
            )
        };
    }
    // SAFETY: reads and writes what the caller promises.
    unsafe {
        asm!(
            "vldmia {v}, {{s8-s15}}",
            "vmov d8, {zero}, {zero}",
            "vmov d9, {zero}, {zero}",
            "vmov d10, {zero}, {zero}",
            "vmov d11, {zero}, {zero}",
            "2:",
            key!(),
            key!(),
            key!(),
            key!(),
            "subs {left}, {left}, #4",
            "bne 2b",
            "vstmia {y}, {{s16-s23}}",
            zero = in(reg) 0,
            row = in(reg) 4 * n,
            v = in(reg) v,
            y = in(reg) y,
            w = inout(reg) keys.w.as_ptr() => _,
            k = inout(reg) keys.k.as_ptr() => _,
            r = inout(reg) keys.r.as_ptr() => _,
            s = inout(reg) column => _,
            left = inout(reg) n => _,
            out("d0") _, out("d1") _, out("d2") _, out("d3") _, out("d4") _, out("d5") _,
            out("d6") _, out("d7") _, out("d8") _, out("d9") _, out("d10") _, out("d11") _,
            out("d12") _, out("d13") _,
            options(nostack),
        );
    }
}
