//! Inputs, quantised and arranged in the room that they came in.

use super::{Core, LANE_BITS, Nibbles};
use crate::{
    error::Error,
    image::{Format, GROUP},
    kernel::Arranged,
    op::Quantiser,
};

/// As [`crate::kernel::Kernel::arrange`].
pub(in crate::kernel) fn arrange<C: Core>(
    format: Format,
    bits: u8,
    room: &mut [f32],
    len: usize,
) -> Result<Arranged, Error> {
    // A room that is too small holds a shorter input.
    let len = len.min(room.len() / (GROUP + 1) * GROUP);
    let groups = len.div_ceil(GROUP);
    let quantiser = Quantiser::new(room.get(..len).unwrap_or_default(), bits)?;
    room.get_mut(len..groups * GROUP).unwrap_or_default().fill(0.0);
    let words: &mut [u32] = bytemuck::cast_slice_mut(room);
    C::quantise(words.get_mut(..groups * GROUP).unwrap_or_default(), quantiser);
    let sum = match format {
        Format::Int4Lanes if bits <= LANE_BITS => {
            spread(words, groups, 0x1_0001, |[x, y]| [C::lane_inputs(x), C::lane_inputs(y)])
        }
        Format::Int4Lanes => spread(words, groups, 1, |x| x.map(|x| differences(x, 0, 4))),
        Format::Int4 => {
            spread(words, groups, 1, |[x, y]| [differences(x, 0, 4), differences(y, x[3], 4)])
        }
        _ => bytes(words, groups),
    };
    Ok(Arranged { scale: quantiser.scale(), sum: sum as i32, groups, bits })
}

/// The differences between `x` and `base` times what comes before each.
#[inline(always)]
fn differences(x: [u32; 4], before: u32, base_bits: u32) -> [u32; 4] {
    let [a, b, c, d] = x;
    let less = |x: u32, before: u32| x.wrapping_sub(before << base_bits);
    [less(a, before), less(b, a), less(c, b), less(d, c)]
}

/// Makes differences of bytes in place, and returns the sum of the elements.
fn bytes(words: &mut [u32], groups: usize) -> u32 {
    let mut sum = 0u32;
    for x in words.as_chunks_mut().0.iter_mut().take(groups * GROUP / 4) {
        sum = x.iter().fold(sum, |sum, x| sum.wrapping_add(*x));
        *x = differences(*x, 0, 8);
    }
    sum
}

/// Moves groups apart by a word each, which takes eight times the group's sum from zero, times
/// `lanes`; has `f` arrange eight elements at a time, and returns the sum of them all.
#[inline(always)]
fn spread(
    words: &mut [u32],
    groups: usize,
    lanes: u32,
    f: impl Fn([[u32; 4]; 2]) -> [[u32; 4]; 2],
) -> u32 {
    let mut total = 0u32;
    // From behind, so that nothing is written over before it has been read.
    for group in (0..groups).rev() {
        let mut sum = 0u32;
        for k in (0..GROUP / 8).rev() {
            let Some(x) = words.get(group * GROUP + 8 * k..).and_then(<[u32]>::first_chunk::<8>)
            else {
                continue;
            };
            sum = x.iter().fold(sum, |sum, x| sum.wrapping_add(*x));
            let arranged = f(bytemuck::cast(*x));
            let place = words.get_mut(group * size_of::<Nibbles>() / 4 + 1 + 8 * k..);
            if let Some(place) = place.and_then(<[u32]>::first_chunk_mut::<8>) {
                *place = bytemuck::cast(arranged);
            }
        }
        if let Some(start) = words.get_mut(group * size_of::<Nibbles>() / 4) {
            *start = sum.wrapping_mul(8).wrapping_neg().wrapping_mul(lanes);
        }
        total = total.wrapping_add(sum);
    }
    total
}
