// What every kernel uses: types, the image's records, and sums by the rule of eight.
//
// All kernels of the exact path compute the bits of rwkv-core: floats are added and multiplied one
// rounded operation at a time, in the order of the book's chapter Arithmetic. They are compiled
// without fused multiply-add (--fmad=false). A vector of a token lies at `scratch + token * stride`;
// weights are read from the words of the image as they are.

typedef unsigned char u8;
typedef signed char i8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int i32;

#ifndef RWKV_EMULATED
#define KERNEL_OF(threads, name, ...) \
    extern "C" __global__ void __launch_bounds__(threads) name __VA_ARGS__
#define DEVICE static __device__ __forceinline__
#define METHOD __device__ __forceinline__
#define SHARED __shared__
#endif

// Threads of a block, at most.
#define THREADS 256
#define KERNEL(name, ...) KERNEL_OF(THREADS, name, __VA_ARGS__)

// Weights that share a sub-scale; inputs of integer products are padded to whole groups.
#define GROUP 32

#define FULL_WARP 0xffffffffu

// Formats of weights, by their codes in the image.
enum Format { F32 = 0, F16 = 1, INT8 = 2, INT4 = 3 };

DEVICE float to_float(u32 bits) { return __uint_as_float(bits); }
DEVICE u32 to_bits(float x) { return __float_as_uint(x); }

DEVICE u32 ceil_div(u32 n, u32 by) { return (n + by - 1) / by; }
DEVICE u32 smaller(u32 a, u32 b) { return a < b ? a : b; }

// The value of a binary16 number, which is exact.
DEVICE float half_to_float(u32 half) {
    const u32 magnitude = half & 0x7fff;
    // Times 2^112 the exponent's bias is that of binary32, also for a subnormal number.
    const float value = to_float(magnitude << 13) * to_float(0x77800000);
    const u32 bits = magnitude >= 0x7c00 ? magnitude << 13 | 0x7f800000 : to_bits(value);
    return to_float(bits | (half & 0x8000) << 16);
}

// The float at `index` of a group of vectors. `tile` is the floats of a block, each led by a
// checksum.
DEVICE float parameter(const u32* vectors, u32 tile, u32 index) {
    return to_float(vectors[index + index / tile + 1]);
}

DEVICE bool is_finite(float x) { return (to_bits(x) & 0x7fffffff) < 0x7f800000; }

// The end of the rule of eight: eight neighbouring lanes hold the accumulators, and all of them
// get the sum.
DEVICE float fold(float accumulator) {
    accumulator += __shfl_xor_sync(FULL_WARP, accumulator, 4);
    accumulator += __shfl_xor_sync(FULL_WARP, accumulator, 2);
    accumulator += __shfl_xor_sync(FULL_WARP, accumulator, 1);
    return accumulator;
}

// What follows a product, element by element.
enum Activation { IDENTITY, SIGMOID, TANH, SQUARED_RELU, DECAY, SILU, EXP_NEG_EXP, ADD };
