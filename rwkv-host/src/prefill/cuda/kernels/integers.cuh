// Products with matrices of integers, exact in wrapping 32-bit sums, whatever their order.
//
// Weights and inputs become planes of signed bytes in shared memory: an input of 8 bits is one
// plane, one of up to 15 bits two (low + 256 * high), a weight of int8 one, and a weight of int4
// times its sub-scale two. So every format and both layouts share the loops that multiply, by dot
// products of four bytes (`dot4`) or by the matrix instruction of a warp (`tensor`).

// A block computes 64 rows of 64 tokens, in stages of 128 inputs: 32 words of four.
enum { SIDE = 64, STAGE_WORDS = 32, GROUP_WORDS = GROUP / 4, RESULTS = 16 };

// Four words that are read at once.
struct alignas(16) Quad {
    u32 word[4];
};

// The words of 64 rows or tokens in a stage. The pitch spreads them over the banks.
struct Plane {
    Quad line[SIDE][STAGE_WORDS / 4 + 1];

    METHOD u32& at(u32 side, u32 word) { return line[side][word / 4].word[word % 4]; }
};

// Shared memory of a block: the planes of a stage, then the results, so that neighbouring threads
// store neighbouring rows.
template <int PLANES>
union Room {
    Plane planes[PLANES];
    i32 sums[SIDE][SIDE + 4];
};

// Where the rows of this block begin, for the formats that are row-major.
struct Lines {
    u32 word[SIDE];
};

// Weights of four bits times a sub-scale, as two bytes each, at byte `at` of two words.
DEVICE void put_scaled(i32 weight, i32 sub, u32 at, u32& low, u32& high) {
    const i32 value = weight * sub;
    low |= (value & 0xff) << 8 * at;
    high |= ((value - (i8)value) >> 8 & 0xff) << 8 * at;
}

// Four neighbouring weights of a row: 16 bits, times a sub-scale.
DEVICE void put_four(u32 nibbles, i32 sub, u32& low, u32& high) {
    for (u32 j = 0; j < 4; j++) {
        put_scaled((i32)(nibbles >> 4 * j & 15) - 8, sub, j, low, high);
    }
}

// A row-major format: a warp reads a line, four weights per thread.
template <class FORMAT>
struct RowMajor {
    enum { PLANES = FORMAT::PLANES };

    static METHOD void begin(const Matrix& m, Lines& lines) {
        const u32 groups = ceil_div(m.cols, GROUP);
        for (u32 i = threadIdx.x; i < SIDE; i += THREADS) {
            const u32 row = smaller(blockIdx.x * SIDE + i, m.rows - 1);
            lines.word[i] = row_word(m, row, FORMAT::line_words(groups), 1, FORMAT::PAIR);
        }
    }

    static METHOD void load(const Matrix& m, const Lines& lines, u32 first, Plane* planes) {
        const u32 groups = ceil_div(m.cols, GROUP);
        for (u32 item = threadIdx.x; item < SIDE * STAGE_WORDS; item += THREADS) {
            const u32 i = item / STAGE_WORDS, word = item % STAGE_WORDS;
            u32 bytes[PLANES] = {};
            if (blockIdx.x * SIDE + i < m.rows && first + word < groups * GROUP_WORDS) {
                FORMAT::read(m.payload + lines.word[i], groups, first + word,
                             (blockIdx.x * SIDE + i) % m.tile_rows % FORMAT::PAIR, bytes);
            }
            for (u32 p = 0; p < PLANES; p++) planes[p].at(i, word) = bytes[p];
        }
    }

    static METHOD float scale(const Matrix& m, u32 row) {
        return row_scale(m, row, FORMAT::line_words(ceil_div(m.cols, GROUP)), FORMAT::PAIR);
    }
};

struct Int8 {
    enum { PLANES = 1, PAIR = 1 };

    static METHOD u32 line_words(u32 groups) { return groups * GROUP_WORDS; }

    static METHOD void read(const u32* line, u32, u32 word, u32, u32* bytes) {
        bytes[0] = line[word] ^ 0x80808080;
    }
};

// Pairs of a row's weights lie 16 bits apart: a half of a word is four neighbours.
struct Int4 {
    enum { PLANES = 2, PAIR = 1 };

    static METHOD u32 line_words(u32 groups) { return ceil_div(groups, 4) + groups * 4; }

    static METHOD void read(const u32* line, u32 groups, u32 word, u32, u32* bytes) {
        const u32 group = word / GROUP_WORDS;
        const u32 sub = line[group / 4] >> 8 * (group % 4) & 0xff;
        const u32 nibbles = line[ceil_div(groups, 4) + word / 2] >> 16 * (word % 2);
        put_four(nibbles, sub, bytes[0], bytes[1]);
    }
};

// Two rows share their words: each has a half of every word.
struct Int4Lanes {
    enum { PLANES = 2, PAIR = 2 };

    static METHOD u32 line_words(u32 groups) { return ceil_div(groups, 4) + groups * 4; }

    static METHOD void read(const u32* line, u32 groups, u32 word, u32 lane, u32* bytes) {
        const u32 at = 2 * (word / GROUP_WORDS) + lane;
        const u32 sub = line[at / 4] >> 8 * (at % 4) & 0xff;
        put_four(line[2 * ceil_div(groups, 4) + word] >> 16 * lane, sub, bytes[0], bytes[1]);
    }
};

// An input-major format: a thread reads four rows of four inputs, and turns them.
template <class FORMAT>
struct InputMajor {
    enum { PLANES = FORMAT::PLANES };

    static METHOD void begin(const Matrix&, Lines&) {}

    static METHOD void load(const Matrix& m, const Lines&, u32 first, Plane* planes) {
        const u32 groups = ceil_div(m.rows, GROUP);
        const u32 column = 1 + FORMAT::line_words(groups);
        for (u32 item = threadIdx.x; item < SIDE / 4 * STAGE_WORDS; item += THREADS) {
            // Neighbours read neighbouring rows, and write to different banks.
            const u32 fours = item % 8 + item / THREADS * 8, word = item / 8 % STAGE_WORDS;
            const u32 row = blockIdx.x * SIDE + 4 * fours;
            u32 bytes[4][PLANES] = {};
            for (u32 j = 0; j < 4; j++) {
                const u32 input = 4 * (first + word) + j;
                if (row < m.rows && input < m.cols) {
                    FORMAT::read(m.payload + (u64)input * column + 1, groups, row / 4, j, bytes);
                }
            }
            for (u32 i = 0; i < 4; i++) {
                for (u32 p = 0; p < PLANES; p++) planes[p].at(4 * fours + i, word) = bytes[i][p];
            }
        }
    }

    // The scales follow the columns.
    static METHOD float scale(const Matrix& m, u32 row) {
        const u32* scales = m.payload + (u64)m.cols * (1 + FORMAT::line_words(ceil_div(m.rows, GROUP)));
        return parameter(scales, m.tile_rows, row);
    }
};

struct Int8Column {
    enum { PLANES = 1 };

    static METHOD u32 line_words(u32 groups) { return Int8::line_words(groups); }

    static METHOD void read(const u32* line, u32, u32 fours, u32 j, u32 (*bytes)[1]) {
        const u32 rows = line[fours] ^ 0x80808080;
        for (u32 i = 0; i < 4; i++) bytes[i][0] |= (rows >> 8 * i & 0xff) << 8 * j;
    }
};

struct Int4Column {
    enum { PLANES = 2 };

    static METHOD u32 line_words(u32 groups) { return Int4::line_words(groups); }

    static METHOD void read(const u32* line, u32 groups, u32 fours, u32 j, u32 (*bytes)[2]) {
        const u32 group = fours / GROUP_WORDS;
        const i32 sub = line[group / 4] >> 8 * (group % 4) & 0xff;
        const u32 nibbles = line[ceil_div(groups, 4) + fours / 2] >> 16 * (fours % 2);
        for (u32 i = 0; i < 4; i++) {
            put_scaled((i32)(nibbles >> 4 * i & 15) - 8, sub, j, bytes[i][0], bytes[i][1]);
        }
    }
};

// Dot products of four bytes: a thread has 4 rows of 4 tokens.
struct Dot4 {
    static METHOD u32 row(u32 result) { return threadIdx.x % 16 + 16 * (result / 4); }
    static METHOD u32 token(u32 result) { return threadIdx.x / 16 + 16 * (result % 4); }

    template <int PW, int PX>
    static METHOD void stage(Plane* w, Plane* x, u32 words, i32 (*sums)[RESULTS]) {
        for (u32 quad = 0; quad < words / 4; quad++) {
#pragma unroll
            for (int px = 0; px < PX; px++) {
                Quad inputs[4];
#pragma unroll
                for (u32 t = 0; t < 4; t++) inputs[t] = x[px].line[token(t)][quad];
#pragma unroll
                for (int pw = 0; pw < PW; pw++) {
#pragma unroll
                    for (u32 r = 0; r < 4; r++) {
                        const Quad weights = w[pw].line[row(4 * r)][quad];
#pragma unroll
                        for (u32 t = 0; t < 4; t++) {
                            i32& sum = sums[pw + px][4 * r + t];
#pragma unroll
                            for (u32 k = 0; k < 4; k++) {
                                sum = __dp4a((i32)weights.word[k], (i32)inputs[t].word[k], sum);
                            }
                        }
                    }
                }
            }
        }
    }
};

#ifndef RWKV_EMULATED
// c += a * b for 8 rows, 8 columns and 16 bytes; each lane of the warp holds a part.
DEVICE void multiply_8x8x16(i32* c, u32 a, u32 b) {
    asm("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0, %1}, {%2}, {%3}, {%0, %1};"
        : "+r"(c[0]), "+r"(c[1])
        : "r"(a), "r"(b));
}

#if __CUDA_ARCH__ >= 800
// c += a * b for 16 rows, 8 columns and 32 bytes; each lane of the warp holds a part.
DEVICE void multiply_16x8x32(i32* c, const u32* a, const u32* b) {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#endif
#endif

#if __CUDA_ARCH__ < 800
// In four instructions of the older kind, whose lanes hold the same parts.
DEVICE void multiply_16x8x32(i32* c, const u32* a, const u32* b) {
#pragma unroll
    for (u32 i = 0; i < 4; i++) multiply_8x8x16(c + i % 2 * 2, a[i], b[i / 2]);
}
#endif

// The matrix instruction: each of eight warps has 16 rows of 32 tokens.
struct Tensor {
    static METHOD u32 row(u32 result) {
        const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        return warp % 4 * 16 + lane / 4 + result % 4 / 2 * 8;
    }
    static METHOD u32 token(u32 result) {
        const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        return warp / 4 * 32 + result / 4 * 8 + lane % 4 * 2 + result % 2;
    }

    template <int PW, int PX>
    static METHOD void stage(Plane* w, Plane* x, u32 words, i32 (*sums)[RESULTS]) {
        const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        const u32 row = warp % 4 * 16 + lane / 4, token = warp / 4 * 32 + lane / 4;
        for (u32 word = lane % 4; word < words; word += GROUP_WORDS) {
#pragma unroll
            for (int pw = 0; pw < PW; pw++) {
                const u32 a[4] = {w[pw].at(row, word), w[pw].at(row + 8, word),
                                  w[pw].at(row, word + 4), w[pw].at(row + 8, word + 4)};
#pragma unroll
                for (int px = 0; px < PX; px++) {
#pragma unroll
                    for (u32 n = 0; n < 4; n++) {
                        const u32 b[2] = {x[px].at(token + 8 * n, word),
                                          x[px].at(token + 8 * n, word + 4)};
                        multiply_16x8x32(sums[pw + px] + 4 * n, a, b);
                    }
                }
            }
        }
    }
};

// The bytes of the inputs, as `quantise` left them.
template <int PX>
DEVICE void load_inputs(const u32* q, u32 plane, u32 words, u32 first, u32 tokens, Plane* planes) {
    for (u32 item = threadIdx.x; item < SIDE * STAGE_WORDS; item += THREADS) {
        const u32 i = item / STAGE_WORDS, word = item % STAGE_WORDS;
        const u32 token = blockIdx.y * SIDE + i;
        const bool there = token < tokens && first + word < words;
        for (u32 p = 0; p < PX; p++) {
            planes[p].at(i, word) = there ? q[p * plane + (u64)token * words + first + word] : 0;
        }
    }
}

template <class WEIGHTS, class LOOPS, int PX>
DEVICE void integer_product(const Matrix m, const u32* q, u32 plane, const float* scales,
                            const Target target, u32 tokens) {
    enum { PW = WEIGHTS::PLANES, SUMS = PW + PX - 1 };
    SHARED Room<PW + PX> room;
    SHARED Lines lines;
    WEIGHTS::begin(m, lines);
    // Sums of products of bytes, which count 1, 256 and 65,536.
    i32 sums[SUMS][RESULTS] = {};
    const u32 words = ceil_div(m.cols, GROUP) * GROUP_WORDS;
    for (u32 first = 0; first < words; first += STAGE_WORDS) {
        __syncthreads();
        WEIGHTS::load(m, lines, first, room.planes);
        load_inputs<PX>(q, plane, words, first, tokens, room.planes + PW);
        __syncthreads();
        const u32 here = smaller(STAGE_WORDS, words - first);
        LOOPS::template stage<PW, PX>(room.planes, room.planes + PW, here, sums);
    }
    __syncthreads();
#pragma unroll
    for (u32 result = 0; result < RESULTS; result++) {
        u32 sum = 0;
#pragma unroll
        for (u32 s = 0; s < SUMS; s++) sum += (u32)sums[s][result] << 8 * s;
        room.sums[LOOPS::token(result)][LOOPS::row(result)] = (i32)sum;
    }
    __syncthreads();
#pragma unroll 1
    for (u32 item = threadIdx.x; item < SIDE * SIDE; item += THREADS) {
        const u32 row = blockIdx.x * SIDE + item % SIDE, token = blockIdx.y * SIDE + item / SIDE;
        if (row < m.rows && token < tokens) {
            const float sum = (float)room.sums[item / SIDE][item % SIDE];
            target.store(token, row, sum * (scales[token] * WEIGHTS::scale(m, row)));
        }
    }
}

#define INTEGER_PRODUCT(name, WEIGHTS, LOOPS, PX)                                                  \
    KERNEL(name, (const u32* payload, u32 rows, u32 cols, u32 tile_rows, const u32* q, u32 plane,  \
                  const float* scales, float* y, const float* gate, u32 stride, u32 f,             \
                  u32 tokens)) {                                                                   \
        const Matrix m = {payload, rows, cols, tile_rows};                                         \
        const Target target = {y, gate, stride, f};                                                \
        integer_product<WEIGHTS, LOOPS, PX>(m, q, plane, scales, target, tokens);                  \
    }

// Inputs of 8 bits, and of 9 to 15.
#define INTEGER_PRODUCTS(name, WEIGHTS)                          \
    INTEGER_PRODUCT(name##_dot4_8, WEIGHTS, Dot4, 1)             \
    INTEGER_PRODUCT(name##_dot4_15, WEIGHTS, Dot4, 2)            \
    INTEGER_PRODUCT(name##_tensor_8, WEIGHTS, Tensor, 1)         \
    INTEGER_PRODUCT(name##_tensor_15, WEIGHTS, Tensor, 2)

INTEGER_PRODUCTS(rows_int8, RowMajor<Int8>)
INTEGER_PRODUCTS(rows_int4, RowMajor<Int4>)
INTEGER_PRODUCTS(rows_int4_lanes, RowMajor<Int4Lanes>)
INTEGER_PRODUCTS(columns_int8, InputMajor<Int8Column>)
INTEGER_PRODUCTS(columns_int4, InputMajor<Int4Column>)
