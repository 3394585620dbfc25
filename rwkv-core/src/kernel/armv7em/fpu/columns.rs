//! Columns of floats.

use core::arch::naked_asm;

/// Rows of a turn.
const BLOCK: usize = 16;

/// See [`Kernel::column_f32`](crate::kernel::Kernel::column_f32).
pub(crate) fn column_f32(w: &[f32], x: f32, acc: &mut [f32]) {
    let rows = acc.len().min(w.len());
    let acc = acc.as_mut_ptr();
    let blocks = acc.wrapping_add(rows / BLOCK * BLOCK);
    // SAFETY: as many sums as weights.
    unsafe { blocks_f32(acc, w.as_ptr(), x.to_bits(), blocks, acc.wrapping_add(rows)) }
}

/// See [`Kernel::column_f16`](crate::kernel::Kernel::column_f16).
pub(crate) fn column_f16(w: &[u16], x: f32, acc: &mut [f32]) {
    let rows = acc.len().min(w.len());
    let acc = acc.as_mut_ptr();
    // Blocks are loaded by words.
    let whole = if w.as_ptr().cast::<u32>().is_aligned() { rows / BLOCK * BLOCK } else { 0 };
    // SAFETY: as many sums as weights.
    unsafe {
        let (blocks, end) = (acc.wrapping_add(whole), acc.wrapping_add(rows));
        blocks_f16(acc, w.as_ptr(), x.to_bits(), blocks, end);
    }
}

/// The frame of both functions: `$eight` adds eight rows, and `$one` loads a weight into s8.
macro_rules! column {
    ($eight:expr, $one:expr) => {
        naked_asm!(
            fpu!(),
            "vpush {{d8}}",
            "vmov s16, r2",
            "cmp r0, r3",
            "beq 3f",
            "2:",
            $eight,
            $eight,
            "cmp r0, r3",
            "bne 2b",
            "3:",
            "ldr r3, [sp, #8]",
            "b 5f",
            "4:",
            $one,
            "vldr s0, [r0]",
            "vmla.f32 s0, s8, s16",
            "vstmia r0!, {{s0}}",
            "5:",
            "cmp r0, r3",
            "bne 4b",
            "vpop {{d8}}",
            "bx lr",
        )
    };
}

/// A column: blocks, and what is left over row by row.
///
/// # Safety
/// From `acc` on there are whole blocks up to `blocks`, any number of sums from there to `end`, and
/// as many weights from `w` on.
#[unsafe(naked)]
unsafe extern "C" fn blocks_f32(
    acc: *mut f32,
    w: *const f32,
    x: u32,
    blocks: *mut f32,
    end: *mut f32,
) {
    macro_rules! add {
        ($([$a:literal $w:literal])*) => {
            lines!(
                "vldmia r0, {{s0-s7}}";
                "vldmia r1!, {{s8-s15}}";
                $("vmla.f32 " $a ", " $w ", s16";)*
                "vstmia r0!, {{s0-s7}}";
            )
        };
    }
    column!(
        add!(["s0" "s8"]["s1" "s9"]["s2" "s10"]["s3" "s11"]
            ["s4" "s12"]["s5" "s13"]["s6" "s14"]["s7" "s15"]),
        "vldmia r1!, {{s8}}"
    )
}

/// As [`blocks_f32`]; weights of blocks are loaded by words.
///
/// # Safety
/// As [`blocks_f32`], and `w` is at a word if there are blocks.
#[unsafe(naked)]
unsafe extern "C" fn blocks_f16(
    acc: *mut f32,
    w: *const u16,
    x: u32,
    blocks: *mut f32,
    end: *mut f32,
) {
    macro_rules! add {
        ($([$w:literal $a:literal $b:literal])*) => {
            lines!(
                "vldmia r0, {{s0-s7}}";
                "vldmia r1!, {{s8-s11}}";
                $(
                    "vcvtb.f32.f16 s12, " $w;
                    "vcvtt.f32.f16 s13, " $w;
                    "vmla.f32 " $a ", s12, s16";
                    "vmla.f32 " $b ", s13, s16";
                )*
                "vstmia r0!, {{s0-s7}}";
            )
        };
    }
    column!(
        add!(["s8" "s0" "s1"]["s9" "s2" "s3"]["s10" "s4" "s5"]["s11" "s6" "s7"]),
        lines!("ldrh r2, [r1], #2"; "vmov s8, r2"; "vcvtb.f32.f16 s8, s8";)
    )
}
