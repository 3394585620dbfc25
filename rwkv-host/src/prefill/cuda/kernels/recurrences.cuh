// The recurrences, token by token. A thread has one channel of version 4, and from version 5 on one
// value index of a head, whose column of the state it keeps in registers where the head size is a
// usual one.

// Where the digests of the states go, if anybody wants them: the layer's digest of token 0, and
// the words from one token to the next.
struct Digests {
    u32* first;
    u32 apart;
    u32 position;
    u32* failed;

    // Adds what a warp knows of a token's state.
    METHOD void add(Digest digest, bool finite, u32 token) const {
        if (!finite) atomicOr(failed, 1u);
        digest.into(first + (u64)token * apart);
    }
};

// The larger of both, then e^(a - q) and e^(b - q).
DEVICE float weights(float a, float b, float& e1, float& e2) {
    const float q = a > b ? a : b, e = math::exp_of_negative(a - b);
    const float one = 1.0f + 0.0f * q;
    e1 = a > b ? one : e;
    e2 = a > b ? e : one;
    return q;
}

KERNEL(wkv4,
       (const u32* params, u32 tile, float* scratch, u32 stride, u32 k, u32 v, u32 r,
        float* state, u32 dim, u32 tokens, u32* digests, u32 apart, u32* failed)) {
    const u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    const bool live = i < dim;
    const u32 c = live ? i : 0;
    const float w = parameter(params, tile, 2 * c), u = parameter(params, tile, 2 * c + 1);
    float a = state[c], b = state[dim + c], p = state[2 * dim + c];
    const Digests into = {digests, apart, 2 * dim, failed};
    for (u32 token = 0; token < tokens; token++) {
        float* const lane = scratch + (u64)token * stride + c;
        const float key = lane[k], value = lane[v];
        float e1, e2;
        weights(p, u + key, e1, e2);
        if (live) lane[r] *= (e1 * a + e2 * value) / (e1 * b + e2);
        const float q = weights(p + w, key, e1, e2);
        a = e1 * a + e2 * value;
        b = e1 * b + e2;
        p = q;
        if (digests) {
            Digest digest = {0, 0};
            if (live) {
                digest.add(into.position + c, to_bits(a));
                digest.add(into.position + dim + c, to_bits(b));
                digest.add(into.position + 2 * dim + c, to_bits(p));
            }
            into.add(digest, !live || (is_finite(a) && is_finite(b) && is_finite(p)), token);
        }
    }
    if (!live) return;
    state[c] = a;
    state[dim + c] = b;
    state[2 * dim + c] = p;
}

// The largest head whose state is not kept in registers.
#define WIDEST_HEAD 1024

// A column of a head's state: of `N` keys in registers, or of any number in memory if `N` is 0.
template <int N>
struct Column {
    float kept[N ? N : 1];
    float* memory;
    u32 n;

    METHOD Column(float* head, u32 value, u32 size) : memory(head + value), n(size) {
        if (N) {
#pragma unroll
            for (u32 i = 0; i < N; i++) kept[i] = memory[i * n];
        }
    }

    METHOD float get(u32 i) const { return N ? kept[i] : memory[i * n]; }

    METHOD void set(u32 i, float s) {
        if (N) {
            kept[i] = s;
        } else {
            memory[i * n] = s;
        }
    }

    METHOD void store() const {
        if (N) {
#pragma unroll
            for (u32 i = 0; i < N; i++) memory[i * n] = kept[i];
        }
    }

    // Adds the column to the digest of a token; `first` is its first index in the layer's.
    METHOD void add_to(const Digests& digests, u32 first, bool live, u32 token) const {
        Digest digest = {0, 0};
        bool finite = true;
        if (live) {
#pragma unroll
            for (u32 i = 0; i < (N ? N : n); i++) {
                finite = finite && is_finite(get(i));
                digest.add(digests.position + first + i * n, to_bits(get(i)));
            }
        }
        digests.add(digest, finite, token);
    }
};

// The sum of a vector in shared memory by the rule of eight, for all threads of the block.
DEVICE float sum_of(const float* x, u32 n) {
    float sum = 0.0f;
    for (u32 i = threadIdx.x % 8; i < n; i += 8) sum += x[i];
    return fold(sum);
}

DEVICE float squares_of(const float* x, u32 n, float mean) {
    float sum = 0.0f;
    for (u32 i = threadIdx.x % 8; i < n; i += 8) sum += (x[i] - mean) * (x[i] - mean);
    return fold(sum);
}

// Versions 5 and 6. A block per head; threads beyond the head take part in sums.
template <int N>
DEVICE void wkv5_head(const u32* params, float epsilon, float* scratch, u32 stride, u32 r, u32 w,
                      u32 k, u32 v, float* state, u32 size, u32 tokens, const Digests into) {
    enum { ROOM = N ? N : WIDEST_HEAD };
    SHARED float keys_r[ROOM], keys_w[ROOM], keys_k[ROOM], products[ROOM], outputs[ROOM];
    const u32 n = N ? N : size, first = blockIdx.x * n;
    const bool live = threadIdx.x < n;
    const u32 j = live ? threadIdx.x : 0, tile = 3 * n, at = 3 * (first + j);
    const float u = parameter(params, tile, at), weight = parameter(params, tile, at + 1);
    const float bias = parameter(params, tile, at + 2);
    Column<N> s(state + (u64)first * n, j, n);
    float* lane = scratch + first + j;
    float next_r = lane[r], next_w = lane[w], next_k = lane[k], next_v = lane[v];
    for (u32 token = 0; token < tokens; token++) {
        const float value = next_v;
        if (live) {
            keys_r[j] = next_r;
            keys_w[j] = next_w;
            keys_k[j] = next_k;
            products[j] = next_r * next_k * u;
        }
        float* const here = lane;
        if (token + 1 < tokens) {
            lane += stride;
            next_r = lane[r], next_w = lane[w], next_k = lane[k], next_v = lane[v];
        }
        __syncthreads();
        const float bonus = sum_of(products, n);
        float y = 0.0f;
        if (live) {
#pragma unroll
            for (u32 i = 0; i < (N ? N : n); i++) {
                const float old = s.get(i);
                y += old * keys_r[i];
                s.set(i, old * keys_w[i] + value * keys_k[i]);
            }
            y += bonus * value;
            outputs[j] = y;
        }
        __syncthreads();
        const float mean = sum_of(outputs, n) / (float)n;
        const float inverse = math::rsqrt(squares_of(outputs, n, mean) / (float)n + epsilon);
        if (live) here[r] = (y - mean) * inverse * weight + bias;
        if (into.first) s.add_to(into, first * n + j, live, token);
    }
    if (live) s.store();
}

// Version 7. A block per head; threads beyond the head take part in sums.
template <int N>
DEVICE void wkv7_head(const u32* params, float epsilon, float* scratch, u32 stride, u32 r, u32 w,
                      u32 k, u32 v, u32 a, u32 g, float* state, u32 size, u32 tokens,
                      const Digests into) {
    enum { ROOM = N ? N : WIDEST_HEAD };
    SHARED float keys_r[ROOM], keys_w[ROOM], keys_k[ROOM], removals[ROOM], rates[ROOM];
    SHARED float raw[ROOM], products[ROOM], outputs[ROOM];
    const u32 n = N ? N : size, first = blockIdx.x * n;
    const bool live = threadIdx.x < n;
    const u32 j = live ? threadIdx.x : 0, tile = 5 * n, at = 5 * (first + j);
    const float k_k = parameter(params, tile, at), k_a = parameter(params, tile, at + 1);
    const float r_k = parameter(params, tile, at + 2), weight = parameter(params, tile, at + 3);
    const float bias = parameter(params, tile, at + 4);
    Column<N> s(state + (u64)first * n, j, n);
    float* lane = scratch + first + j;
    float next_r = lane[r], next_w = lane[w], next_k = lane[k], next_v = lane[v];
    float next_a = lane[a], next_g = lane[g];
    for (u32 token = 0; token < tokens; token++) {
        const float value = next_v, gate = next_g;
        const float unscaled = next_k * k_k, key = next_k * (1.0f + (next_a - 1.0f) * k_a);
        const float rate = next_a;
        if (live) {
            raw[j] = unscaled;
            keys_r[j] = next_r;
            keys_w[j] = next_w;
            keys_k[j] = key;
            products[j] = next_r * key * r_k;
        }
        float* const here = lane;
        if (token + 1 < tokens) {
            lane += stride;
            next_r = lane[r], next_w = lane[w], next_k = lane[k], next_v = lane[v];
            next_a = lane[a], next_g = lane[g];
        }
        __syncthreads();
        const float norm = math::sqrt(squares_of(raw, n, 0.0f));
        const float removal = unscaled * (1.0f / (norm > 1e-12f ? norm : 1e-12f));
        if (live) {
            removals[j] = removal;
            rates[j] = rate * removal;
        }
        const float bonus = sum_of(products, n);
        __syncthreads();
        float y = 0.0f;
        if (live) {
            float removed = 0.0f;
#pragma unroll
            for (u32 i = 0; i < (N ? N : n); i++) removed += s.get(i) * removals[i];
#pragma unroll
            for (u32 i = 0; i < (N ? N : n); i++) {
                const float now = s.get(i) * keys_w[i] - removed * rates[i] + value * keys_k[i];
                s.set(i, now);
                y += now * keys_r[i];
            }
            outputs[j] = y;
        }
        __syncthreads();
        const float mean = sum_of(outputs, n) / (float)n;
        const float inverse = math::rsqrt(squares_of(outputs, n, mean) / (float)n + epsilon);
        if (live) here[r] = ((y - mean) * inverse * weight + bias + bonus * value) * gate;
        if (into.first) s.add_to(into, first * n + j, live, token);
    }
    if (live) s.store();
}

#define WKV5(name, N, threads)                                                                     \
    KERNEL_OF(threads, name,                                                                       \
              (const u32* params, float epsilon, float* scratch, u32 stride, u32 r, u32 w, u32 k,  \
               u32 v, float* state, u32 size, u32 dim, u32 tokens, u32* digests, u32 apart,        \
               u32* failed)) {                                                                     \
        const Digests into = {digests, apart, 2 * dim, failed};                                    \
        wkv5_head<N>(params, epsilon, scratch, stride, r, w, k, v, state, size, tokens, into);     \
    }

#define WKV7(name, N, threads)                                                                     \
    KERNEL_OF(threads, name,                                                                       \
              (const u32* params, float epsilon, float* scratch, u32 stride, u32 r, u32 w, u32 k,  \
               u32 v, u32 a, u32 g, float* state, u32 size, u32 dim, u32 tokens, u32* digests,     \
               u32 apart, u32* failed)) {                                                          \
        const Digests into = {digests, apart, 2 * dim, failed};                                    \
        wkv7_head<N>(params, epsilon, scratch, stride, r, w, k, v, a, g, state, size, tokens,      \
                     into);                                                                        \
    }

WKV5(wkv5_32, 32, 32)
WKV5(wkv5_64, 64, 64)
WKV5(wkv5_any, 0, WIDEST_HEAD)
WKV7(wkv7_32, 32, 32)
WKV7(wkv7_64, 64, 64)
WKV7(wkv7_any, 0, WIDEST_HEAD)
