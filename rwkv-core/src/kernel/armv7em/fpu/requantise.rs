//! From integer sums to floats.

use core::arch::naked_asm;

/// Rows of a turn.
const BLOCK: usize = 4;

/// `out[r] = f32(sum[r]) · (x_scale · scales[r])`, over the sums in `out`.
pub(crate) fn requantise(out: &mut [f32], scales: &[f32], x_scale: f32) {
    let rows = out.len().min(scales.len());
    let out = out.as_mut_ptr();
    let blocks = out.wrapping_add(rows / BLOCK * BLOCK);
    // SAFETY: as many sums as scales.
    unsafe {
        rows_in_blocks(out, scales.as_ptr(), x_scale.to_bits(), blocks, out.wrapping_add(rows))
    }
}

/// Blocks, and what is left over row by row.
///
/// # Safety
/// From `out` on there are whole blocks up to `blocks`, any number of sums from there to `end`, and
/// as many scales.
#[unsafe(naked)]
unsafe extern "C" fn rows_in_blocks(
    out: *mut f32,
    scales: *const f32,
    x_scale: u32,
    blocks: *mut f32,
    end: *mut f32,
) {
    macro_rules! convert {
        ($([$sum:literal $scale:literal])*) => {
            lines!(
                $("vmul.f32 " $scale ", " $scale ", s8";)*
                $("vcvt.f32.s32 " $sum ", " $sum;)*
                $("vmul.f32 " $sum ", " $sum ", " $scale;)*
            )
        };
    }
    naked_asm!(
        fpu!(),
        "vmov s8, r2",
        "cmp r0, r3",
        "beq 3f",
        "2:",
        "vldmia r0, {{s0-s3}}",
        "vldmia r1!, {{s4-s7}}",
        convert!(["s0" "s4"]["s1" "s5"]["s2" "s6"]["s3" "s7"]),
        "vstmia r0!, {{s0-s3}}",
        "cmp r0, r3",
        "bne 2b",
        "3:",
        "ldr r3, [sp]",
        "b 5f",
        "4:",
        "vldr s0, [r0]",
        "vldmia r1!, {{s4}}",
        convert!(["s0" "s4"]),
        "vstmia r0!, {{s0}}",
        "5:",
        "cmp r0, r3",
        "bne 4b",
        "bx lr",
    )
}
