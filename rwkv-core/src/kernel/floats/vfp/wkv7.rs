//! The recurrence of version 7 over the keys of a head.

use core::arch::asm;

use super::{BLOCK, fits};
use crate::kernel::floats::scalar::{Keys7, from};

/// See [`crate::kernel::Kernel::wkv7`].
pub(crate) fn wkv7(keys: Keys7<'_>, v: &[f32], state: &mut [f32], y: &mut [f32]) {
    let n = v.len();
    let vectors = [keys.w, keys.k, keys.kk, keys.b, keys.r];
    let mut first = 0;
    if vectors.iter().all(|x| x.len() == n) && fits(v, state, y) {
        let blocks = v.as_chunks::<BLOCK>().0.iter().zip(y.as_chunks_mut::<BLOCK>().0);
        for (v, y) in blocks {
            // SAFETY: all vectors have `n` elements and the state has `n` rows of `n`, of which
            // the columns from `first` to `first + BLOCK` are this block's.
            unsafe {
                let column = state.as_mut_ptr().add(first);
                removals(keys.kk.as_ptr(), column, n, y);
                update(keys, v, column, n, y);
            }
            first += BLOCK;
        }
    }
    if first < n {
        from::<4>(first, keys, v, state, y);
    }
}

/// `sa[j] = Σ S[i][j]·kk[i]` for a block of columns.
///
/// # Safety
/// `kk` has `n` elements, `n` is a positive multiple of 4, and `column` leads `n` rows of a block
/// that lie `n` elements apart.
unsafe fn removals(kk: *const f32, column: *const f32, n: usize, sa: &mut [f32; BLOCK]) {
    macro_rules! key {
        ($kk:literal) => {
            concat!(
                "vldmia {s}, {{s8-s15}}\n",
                "add {s}, {s}, {row}\n",
                "vmla.f32 s0, s8, ",
                $kk,
                "\n",
                "vmla.f32 s1, s9, ",
                $kk,
                "\n",
                "vmla.f32 s2, s10, ",
                $kk,
                "\n",
                "vmla.f32 s3, s11, ",
                $kk,
                "\n",
                "vmla.f32 s4, s12, ",
                $kk,
                "\n",
                "vmla.f32 s5, s13, ",
                $kk,
                "\n",
                "vmla.f32 s6, s14, ",
                $kk,
                "\n",
                "vmla.f32 s7, s15, ",
                $kk,
                "\n",
            )
        };
    }
    // SAFETY: reads what the caller promises and writes the block.
    unsafe {
        asm!(
            "vmov d0, {zero}, {zero}",
            "vmov d1, {zero}, {zero}",
            "vmov d2, {zero}, {zero}",
            "vmov d3, {zero}, {zero}",
            "2:",
            "vldmia {kk}!, {{s16-s19}}",
            key!("s16"),
            key!("s17"),
            key!("s18"),
            key!("s19"),
            "subs {left}, {left}, #4",
            "bne 2b",
            "vstmia {sa}, {{s0-s7}}",
            zero = in(reg) 0,
            row = in(reg) 4 * n,
            sa = in(reg) sa,
            kk = inout(reg) kk => _,
            s = inout(reg) column => _,
            left = inout(reg) n => _,
            out("d0") _, out("d1") _, out("d2") _, out("d3") _, out("d4") _,
            out("d5") _, out("d6") _, out("d7") _, out("d8") _, out("d9") _,
            options(nostack),
        );
    }
}

/// The new state of a block of columns, and its output in place of the removals in `y`.
///
/// # Safety
/// As [`removals`], for all of `keys`.
unsafe fn update(
    keys: Keys7<'_>,
    v: &[f32; BLOCK],
    column: *mut f32,
    n: usize,
    y: &mut [f32; BLOCK],
) {
    macro_rules! half {
        ($([$s:literal $sa:literal $v:literal $y:literal])*) => {
            concat!(
                "vldmia {s}, {{s24-s27}}\n",
                $("vmul.f32 ", $s, ", ", $s, ", s28\n",)*
                $("vmls.f32 ", $s, ", ", $sa, ", s30\n",)*
                $("vmla.f32 ", $s, ", ", $v, ", s29\n",)*
                "vstmia {s}!, {{s24-s27}}\n",
                $("vmla.f32 ", $y, ", ", $s, ", s31\n",)*
            )
        };
    }
    macro_rules! key {
        () => {
            concat!(
                "vldmia {w}!, {{s28}}\n",
                "vldmia {k}!, {{s29}}\n",
                "vldmia {b}!, {{s30}}\n",
                "vldmia {r}!, {{s31}}\n",
                half!(["s24" "s0" "s8" "s16"] ["s25" "s1" "s9" "s17"]
                    ["s26" "s2" "s10" "s18"] ["s27" "s3" "s11" "s19"]),
                half!(["s24" "s4" "s12" "s20"] ["s25" "s5" "s13" "s21"]
                    ["s26" "s6" "s14" "s22"] ["s27" "s7" "s15" "s23"]),
                "add {s}, {s}, {gap}\n",
            )
        };
    }
    // SAFETY: reads and writes what the caller promises.
    unsafe {
        asm!(
            "vldmia {y}, {{s0-s7}}",
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
            gap = in(reg) 4 * (n - BLOCK),
            v = in(reg) v,
            y = in(reg) y,
            w = inout(reg) keys.w.as_ptr() => _,
            k = inout(reg) keys.k.as_ptr() => _,
            b = inout(reg) keys.b.as_ptr() => _,
            r = inout(reg) keys.r.as_ptr() => _,
            s = inout(reg) column => _,
            left = inout(reg) n => _,
            out("d0") _, out("d1") _, out("d2") _, out("d3") _, out("d4") _, out("d5") _,
            out("d6") _, out("d7") _, out("d8") _, out("d9") _, out("d10") _, out("d11") _,
            out("d12") _, out("d13") _, out("d14") _, out("d15") _,
            options(nostack),
        );
    }
}
