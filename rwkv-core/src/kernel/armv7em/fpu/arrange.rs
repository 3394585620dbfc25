//! Quantises inputs and arranges them as pairs.

use core::arch::naked_asm;

use crate::{
    error::Error,
    image::GROUP,
    kernel::{Arranged, room_words},
    op::Quantiser,
};

/// For rows of bytes.
pub(crate) fn arrange_i8(bits: u8, room: &mut [f32], len: usize) -> Result<Arranged, Error> {
    arrange(bits, room, len, store_i8)
}

/// For rows of nibbles.
pub(crate) fn arrange_i4(bits: u8, room: &mut [f32], len: usize) -> Result<Arranged, Error> {
    arrange(bits, room, len, store_i4)
}

/// What quantises and arranges: see [`store_i8`].
type Store = unsafe extern "C" fn(*mut f32, usize, u32) -> i32;

fn arrange(bits: u8, room: &mut [f32], len: usize, store: Store) -> Result<Arranged, Error> {
    let groups = len.div_ceil(GROUP);
    let room = room.get_mut(..room_words(len)).unwrap_or_default();
    if room.is_empty() {
        return Ok(Arranged { scale: 0.0, sum: 0, groups: 0, bits });
    }
    room.iter_mut().take(groups * GROUP).skip(len).for_each(|x| *x = 0.0);
    // SAFETY: the room holds the groups, of which there is at least one.
    let peak = unsafe { peak(room.as_ptr(), groups) };
    let quantiser = Quantiser::from_peak(peak, bits)?;
    // SAFETY: as above.
    let sum = unsafe { store(room.as_mut_ptr(), groups, quantiser.factor().to_bits()) };
    Ok(Arranged { scale: quantiser.scale(), sum, groups, bits })
}

/// The greatest magnitude, as an integer: without the sign, magnitudes keep their order.
///
/// # Safety
/// `x` has `groups` groups, at least one.
#[unsafe(naked)]
unsafe extern "C" fn peak(x: *const f32, groups: usize) -> u32 {
    macro_rules! look {
        ($($x:literal)*) => {
            lines!($("cmp r2, " $x ", lsl #1"; "it lo"; "lsllo r2, " $x ", #1";)*)
        };
    }
    naked_asm!(
        "push {{r4-r10, lr}}",
        "mov r2, #0",
        "add r1, r0, r1, lsl #7",
        "2:",
        "ldm r0!, {{r3-r10}}",
        look!("r3" "r4" "r5" "r6" "r7" "r8" "r9" "r10"),
        "cmp r0, r1",
        "bne 2b",
        "lsr r0, r2, #1",
        "pop {{r4-r10, pc}}",
    )
}

/// Loads eight elements, multiplies them by s8 and adds s9: the low halves of s0 to s7 are then the
/// quantised values, as in [`round_half_even`](crate::math::round_half_even).
macro_rules! quantise {
    () => {
        concat!(
            "vldmia r0!, {{s0-s7}}\n",
            quantise!("s0" "s1" "s2" "s3" "s4" "s5" "s6" "s7"),
        )
    };
    ($($x:literal)*) => {
        lines!(
            $("vmul.f32 " $x ", " $x ", s8";)*
            $("vadd.f32 " $x ", " $x ", s9";)*
        )
    };
}

/// s8 the factor in r2, s9 what rounds; r0 from, r1 the end, r3 where to: it stays behind. lr a
/// pair of ones, r12 zero.
macro_rules! constants {
    () => {
        lines!(
            "vmov s8, r2";
            "movw r2, #0";
            "movt r2, #0x4b40";
            "vmov s9, r2";
            "add r1, r0, r1, lsl #7";
            "mov r3, r0";
            "mov lr, #0x00010001";
            "mov r12, #0";
        )
    };
}

/// Stores four pairs, and adds their elements to r12.
macro_rules! store {
    () => {
        lines!(
            "smlad r12, r4, lr, r12";
            "smlad r12, r5, lr, r12";
            "smlad r12, r6, lr, r12";
            "smlad r12, r7, lr, r12";
            "stm r3!, {{r4-r7}}";
        )
    };
}

/// Returns the sum of all elements.
///
/// # Safety
/// `room` begins with `groups` groups of floats, at least one, and is overwritten.
#[unsafe(naked)]
unsafe extern "C" fn store_i8(room: *mut f32, groups: usize, factor: u32) -> i32 {
    naked_asm!(
        fpu!(),
        "push {{r4-r11, lr}}",
        constants!(),
        "2:",
        quantise!(),
        "vmov r4, r5, s0, s1",
        "vmov r6, r7, s2, s3",
        "pkhbt r4, r4, r6, lsl #16",
        "pkhbt r5, r5, r7, lsl #16",
        "vmov r6, r7, s4, s5",
        "vmov r8, r9, s6, s7",
        "pkhbt r6, r6, r8, lsl #16",
        "pkhbt r7, r7, r9, lsl #16",
        store!(),
        "cmp r0, r1",
        "bne 2b",
        "mov r0, r12",
        "pop {{r4-r11, pc}}",
    )
}

/// As [`store_i8`], with -8 times its sum in front of every group.
///
/// # Safety
/// As [`store_i8`].
#[unsafe(naked)]
unsafe extern "C" fn store_i4(room: *mut f32, groups: usize, factor: u32) -> i32 {
    // As in `store_i8`, but r12 is the sum of a group. r2 eights left; the sum is on the stack.
    naked_asm!(
        fpu!(),
        "push {{r4-r11, lr}}",
        constants!(),
        "str r12, [sp, #-4]!",
        "2:",
        "mov r12, #0",
        "mov r2, #4",
        "add r3, r3, #4",
        "3:",
        quantise!(),
        "vmov r4, r5, s0, s1",
        "vmov r6, r7, s2, s3",
        "vmov r8, r9, s4, s5",
        "vmov r10, r11, s6, s7",
        "pkhbt r4, r4, r8, lsl #16",
        "pkhbt r5, r5, r9, lsl #16",
        "pkhbt r6, r6, r10, lsl #16",
        "pkhbt r7, r7, r11, lsl #16",
        store!(),
        "subs r2, r2, #1",
        "bne 3b",
        "ldr r4, [sp]",
        "add r4, r4, r12",
        "str r4, [sp]",
        "rsb r12, r12, #0",
        "lsl r12, r12, #3",
        "str r12, [r3, #-68]",
        "cmp r0, r1",
        "bne 2b",
        "pop {{r0}}",
        "pop {{r4-r11, pc}}",
    )
}
