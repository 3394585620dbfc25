//! Integer rows, over products that a module provides as `add_bytes` and `add_nibbles`.

macro_rules! rows {
    ($features:literal) => {
        use super::super::{
            Input, Lines,
            vector::{self, Line, Planes},
        };

        /// Rows that are computed at once.
        const ROWS: usize = 4;

        #[inline]
        #[target_feature(enable = "neon")]
        fn load(words: &[u32; 4]) -> uint8x16_t {
            // SAFETY: an array of 16 bytes.
            vreinterpretq_u8_u32(unsafe { vld1q_u32(words.as_ptr()) })
        }

        /// Words of a plane; zeros where there are none.
        #[inline]
        #[target_feature(enable = "neon")]
        fn load_plane(plane: &[u32], i: usize) -> int8x16_t {
            match plane.as_chunks().0.get(i) {
                Some(words) => vreinterpretq_s8_u8(load(words)),
                None => vdupq_n_s8(0),
            }
        }

        /// `low + 128·high`, the lanes summed.
        #[inline]
        #[target_feature(enable = "neon")]
        fn join<const PLANES: usize>(acc: [[int32x4_t; PLANES]; ROWS]) -> [i32; ROWS] {
            let mut joined = [vdupq_n_s32(0); ROWS];
            for (joined, acc) in joined.iter_mut().zip(acc) {
                for plane in acc.iter().rev() {
                    *joined = vaddq_s32(vshlq_n_s32::<7>(*joined), *plane);
                }
            }
            let [a, b, c, d] = joined;
            let sums = vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d));
            let mut array = [0; ROWS];
            // SAFETY: an array of 16 bytes.
            unsafe { vst1q_s32(array.as_mut_ptr(), sums) };
            array
        }

        #[target_feature(enable = $features)]
        pub(super) fn rows_i8(lines: Lines<'_>, x: Input<'_>, out: &mut [f32]) {
            match Planes::wide(&x.arranged) {
                true => rows_i8_planes::<2>(lines, x, out),
                false => rows_i8_planes::<1>(lines, x, out),
            }
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn rows_i8_planes<const PLANES: usize>(lines: Lines<'_>, x: Input<'_>, out: &mut [f32]) {
            let words = (0, 8 * x.arranged.groups);
            let Some(planes) = Planes::of(x) else { return };
            let sign = vdupq_n_u8(128);
            vector::integer_blocks::<ROWS, ROWS>(words, lines, x.arranged.scale, out, |lines| {
                let mut acc = [[vdupq_n_s32(0); PLANES]; ROWS];
                for i in 0..words.1 / 4 {
                    let mut x = [vdupq_n_s8(0); PLANES];
                    x.iter_mut().zip(planes.bytes).for_each(|(x, p)| *x = load_plane(p, i));
                    for (acc, (_, row)) in acc.iter_mut().zip(&lines) {
                        let Some(w) = row.as_chunks().0.get(i) else { break };
                        let w = vreinterpretq_s8_u8(veorq_u8(load(w), sign));
                        for (acc, x) in acc.iter_mut().zip(x) {
                            *acc = add_bytes(*acc, w, x);
                        }
                    }
                }
                join(acc)
            });
        }

        /// A group of an input for int4: of the planes in use.
        struct Group<const PLANES: usize> {
            /// Even and odd elements.
            x: [[int8x16_t; 2]; PLANES],
            /// What a lane starts at: together, -8 times the sum of the group.
            start: [int32x4_t; PLANES],
        }

        impl<const PLANES: usize> Group<PLANES> {
            #[inline]
            #[target_feature(enable = "neon")]
            fn new(planes: &Planes<'_>, i: usize) -> Self {
                let sums =
                    planes.sums.get(i).map_or([0; 2], |sum| bytemuck::cast::<_, [i16; 2]>(*sum));
                let mut group =
                    Self { x: [[vdupq_n_s8(0); 2]; PLANES], start: [vdupq_n_s32(0); PLANES] };
                let parts = planes.parts().into_iter().zip(sums);
                for ((x, start), ([even, odd], sum)) in
                    group.x.iter_mut().zip(&mut group.start).zip(parts)
                {
                    *x = [load_plane(even, i), load_plane(odd, i)];
                    *start = vdupq_n_s32(2 * i32::from(sum));
                }
                group
            }

            /// Adds a group of weights times its sub-scale.
            #[inline]
            #[target_feature(enable = $features)]
            fn add(&self, w: uint8x16_t, sub: u8, acc: &mut [int32x4_t; PLANES]) {
                let even = vreinterpretq_s8_u8(vandq_u8(w, vdupq_n_u8(15)));
                let odd = vreinterpretq_s8_u8(vshrq_n_u8::<4>(w));
                for ((acc, x), start) in acc.iter_mut().zip(self.x).zip(self.start) {
                    let sum = add_nibbles(start, [even, odd], x);
                    *acc = vmlaq_n_s32(*acc, sum, sub.into());
                }
            }
        }

        #[target_feature(enable = $features)]
        pub(super) fn rows_i4(lines: Lines<'_>, x: Input<'_>, out: &mut [f32]) {
            match Planes::wide(&x.arranged) {
                true => rows_i4_planes::<2>(lines, x, out),
                false => rows_i4_planes::<1>(lines, x, out),
            }
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn rows_i4_planes<const PLANES: usize>(lines: Lines<'_>, x: Input<'_>, out: &mut [f32]) {
            let groups = x.arranged.groups;
            let words = (groups.div_ceil(4), 4 * groups);
            let Some(planes) = Planes::of(x) else { return };
            vector::integer_blocks::<ROWS, ROWS>(words, lines, x.arranged.scale, out, |lines| {
                let mut acc = [[vdupq_n_s32(0); PLANES]; ROWS];
                for i in 0..groups {
                    let x = Group::<PLANES>::new(&planes, i);
                    for (acc, (subs, row)) in acc.iter_mut().zip(&lines) {
                        let subs = bytemuck::cast_slice::<_, u8>(subs);
                        let (Some(sub), Some(w)) = (subs.get(i), row.as_chunks().0.get(i)) else {
                            break;
                        };
                        x.add(load(w), *sub, acc);
                    }
                }
                join(acc)
            });
        }

        #[target_feature(enable = $features)]
        pub(super) fn rows_i4_lanes(lines: Lines<'_>, x: Input<'_>, out: &mut [f32]) {
            match Planes::wide(&x.arranged) {
                true => rows_i4_lanes_planes::<2>(lines, x, out),
                false => rows_i4_lanes_planes::<1>(lines, x, out),
            }
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn rows_i4_lanes_planes<const PLANES: usize>(
            lines: Lines<'_>,
            x: Input<'_>,
            out: &mut [f32],
        ) {
            let groups = x.arranged.groups;
            let words = (2 * groups.div_ceil(4), 8 * groups);
            let Some(planes) = Planes::of(x) else { return };
            vector::integer_blocks::<{ ROWS / 2 }, ROWS>(
                words,
                lines,
                x.arranged.scale,
                out,
                |pairs: [Line<'_>; ROWS / 2]| {
                    let mut acc = [[vdupq_n_s32(0); PLANES]; ROWS];
                    for i in 0..groups {
                        let x = Group::<PLANES>::new(&planes, i);
                        for ([a, b], (subs, pair)) in
                            acc.as_chunks_mut::<2>().0.iter_mut().zip(&pairs)
                        {
                            let subs = bytemuck::cast_slice::<_, [u8; 2]>(subs).get(i);
                            let (Some(subs), Some(w)) = (subs, pair.as_chunks::<8>().0.get(i))
                            else {
                                break;
                            };
                            // The halves of words, apart, are two groups of pairs.
                            let [first, second]: &[[u32; 4]; 2] = bytemuck::cast_ref(w);
                            let first = vreinterpretq_u16_u8(load(first));
                            let second = vreinterpretq_u16_u8(load(second));
                            let low = vreinterpretq_u8_u16(vuzp1q_u16(first, second));
                            let high = vreinterpretq_u8_u16(vuzp2q_u16(first, second));
                            x.add(low, subs[0], a);
                            x.add(high, subs[1], b);
                        }
                    }
                    join(acc)
                },
            );
        }
    };
}
pub(super) use rows;
