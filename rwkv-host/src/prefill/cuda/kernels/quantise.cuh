// Inputs of integer products: the token shift, the largest magnitude and the rounding in one go.

// Writes elements of 8 to 15 bits as two bytes each, low + 256 * high, both signed: four to a word,
// one plane of words for the low bytes of all tokens and one for the high bytes, which inputs of
// 8 bits do not have. A block per token.
KERNEL(quantise,
       (u32 blend, const u32* mix, u32 tile, const float* carry, const float* x, u32 stride,
        u32 len, u32 bits, u32* q, u32 plane, float* scales, u32* failed)) {
    const Shifted input = {blend, mix, tile, carry, x, stride};
    const u32 token = blockIdx.x;
    u32 peak = 0;
    for (u32 i = threadIdx.x; i < len; i += blockDim.x) {
        peak = max(peak, to_bits(input.at(token, i)) & 0x7fffffff);
    }
    for (u32 lanes = 16; lanes > 0; lanes /= 2) {
        peak = max(peak, __shfl_xor_sync(FULL_WARP, peak, lanes));
    }
    SHARED u32 peaks[THREADS / 32];
    if (threadIdx.x % 32 == 0) peaks[threadIdx.x / 32] = peak;
    __syncthreads();
    for (u32 warp = 0; warp < blockDim.x / 32; warp++) peak = max(peak, peaks[warp]);

    const bool finite = peak < 0x7f800000;
    if (!finite && threadIdx.x == 0) atomicOr(failed, 1u);
    const float m = to_float(peak), limit = (float)((1 << (bits - 1)) - 1);
    const bool tiny = !finite || m < to_float((127 - 100) << 23);
    const float factor = tiny ? 0.0f : limit / m;
    if (threadIdx.x == 0) scales[token] = tiny ? 0.0f : m / limit;

    const u32 words = ceil_div(len, GROUP) * (GROUP / 4);
    u32* const low = q + (u64)token * words;
    for (u32 word = threadIdx.x; word < words; word += blockDim.x) {
        u32 lows = 0, highs = 0;
        for (u32 byte = 0; byte < 4; byte++) {
            const u32 i = 4 * word + byte;
            const bool rounds = i < len && !tiny;
            const i32 value = rounds ? math::round_half_even(input.at(token, i) * factor) : 0;
            const i32 high = (value - (i8)value) >> 8;
            lows |= (value & 0xff) << 8 * byte;
            highs |= (high & 0xff) << 8 * byte;
        }
        low[word] = lows;
        if (bits > 8) low[plane + word] = highs;
    }
}
