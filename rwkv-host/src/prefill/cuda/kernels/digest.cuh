// Digests of states and logits, summed where the values are.

struct Digest {
    u32 first, second;

    METHOD void add(u32 position, u32 bits) {
        u32 h = bits ^ position * 0x9E3779B1;
        h = (h ^ h >> 16) * 0x85EBCA6B;
        h = (h ^ h >> 13) * 0xC2B2AE35;
        h = h ^ h >> 16;
        first += h;
        second += (h << 15 | h >> 17) * 0x27D4EB2F;
    }

    // The sum over a warp, added to what is there by one of its lanes.
    METHOD void into(u32* digest) {
        for (u32 lanes = 16; lanes > 0; lanes /= 2) {
            first += __shfl_xor_sync(FULL_WARP, first, lanes);
            second += __shfl_xor_sync(FULL_WARP, second, lanes);
        }
        if (threadIdx.x % 32 == 0) {
            atomicAdd(digest, first);
            atomicAdd(digest + 1, second);
        }
    }
};

// Adds vectors to digests that lie `apart` words from token to token: a row of blocks per token.
KERNEL(digest_vectors,
       (const float* values, u32 stride, u32 len, u32 position, u32* digests, u32 apart,
        u32* failed)) {
    const float* x = values + (u64)blockIdx.y * stride;
    Digest digest = {0, 0};
    bool finite = true;
    for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < len; i += gridDim.x * blockDim.x) {
        finite = finite && is_finite(x[i]);
        digest.add(position + i, to_bits(x[i]));
    }
    if (!finite) atomicOr(failed, 1u);
    digest.into(digests + (u64)blockIdx.y * apart);
}

// The digest of each token: those of its layers in order, then that of its logits.
KERNEL(digest_tokens,
       (const u32* states, const u32* logits, u32 layers, u32* digests, u32 tokens)) {
    const u32 token = blockIdx.x * blockDim.x + threadIdx.x;
    if (token >= tokens) return;
    Digest digest = {0, 0};
    const u32* state = states + (u64)token * layers * 2;
    for (u32 i = 0; i < 2 * layers; i++) digest.add(i, state[i]);
    for (u32 i = 0; i < 2; i++) digest.add(2 * layers + i, logits[2 * token + i]);
    digests[2 * token] = digest.first;
    digests[2 * token + 1] = digest.second;
}
