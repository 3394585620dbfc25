// Products with matrices of floats. Weights and inputs pass through shared memory in stages, a
// thread keeps several results in registers, and these pass through shared memory once more, so that
// neighbouring threads store neighbouring rows.

// Where a product goes: y = f(v), y += v, or y += gate * v, in the scratch of a token.
struct Target {
    float* y;
    const float* gate;
    u32 stride;
    u32 f;

    METHOD void store(u32 token, u32 row, float v) const {
        const u64 at = (u64)token * stride + row;
        if (f != ADD) {
            y[at] = math::activate(f, v);
        } else {
            y[at] += gate ? gate[at] * v : v;
        }
    }

    // Stores the results of a block, rows of `PITCH` floats for each of `SIDE` tokens.
    template <u32 SIDE, u32 PITCH>
    METHOD void store_all(float (*results)[PITCH], u32 rows, u32 tokens) const {
#pragma unroll 1
        for (u32 item = threadIdx.x; item < SIDE * SIDE; item += THREADS) {
            const u32 row = blockIdx.x * SIDE + item % SIDE, token = blockIdx.y * SIDE + item / SIDE;
            if (row < rows && token < tokens) store(token, row, results[item / SIDE][item % SIDE]);
        }
    }
};

// A matrix as it lies in the image, without its header.
struct Matrix {
    const u32* payload;
    u32 rows, cols, tile_rows;
};

// The word of a row-major payload where row `row` begins, whose format has `scales` words of scales
// per row. `pair` is the rows that share their words.
DEVICE u32 row_word(const Matrix& m, u32 row, u32 line_words, u32 scales, u32 pair) {
    const u32 tile = row / m.tile_rows, inner = row % m.tile_rows;
    const u32 here = smaller(m.tile_rows, m.rows - tile * m.tile_rows);
    const u32 lines = ceil_div(m.tile_rows, pair) * pair * line_words;
    return tile * (1 + scales * m.tile_rows + lines) + 1 + scales * here + inner / pair * pair * line_words;
}

// The scale of a row of a row-major integer matrix.
DEVICE float row_scale(const Matrix& m, u32 row, u32 line_words, u32 pair) {
    const u32 tile = row / m.tile_rows;
    const u32 lines = ceil_div(m.tile_rows, pair) * pair * line_words;
    return to_float(m.payload[tile * (1 + m.tile_rows + lines) + 1 + row % m.tile_rows]);
}

// Row-major, by the rule of eight: eight lanes hold the accumulators of ROWS x TOKENS results.
// A block computes 32 rows of 32 tokens.
namespace eight {

enum { STAGE = 64, PITCH = STAGE + 2, SIDE = 32, ROWS = 8, TOKENS = 4 };

template <bool HALVES>
DEVICE void load_rows(const Matrix& m, const u32* lines, u32 first, float (*w)[PITCH]) {
    const u32 row0 = blockIdx.x * SIDE, words = HALVES ? STAGE / 2 : STAGE;
    for (u32 item = threadIdx.x; item < SIDE * words; item += THREADS) {
        const u32 row = item / words, word = item % words, k = first + word * (HALVES ? 2 : 1);
        const u32 bits = row0 + row < m.rows && k < m.cols
                             ? m.payload[lines[row] + (HALVES ? k / 2 : k)]
                             : 0;
        if (HALVES) {
            w[row][2 * word] = half_to_float(bits & 0xffff);
            w[row][2 * word + 1] = k + 1 < m.cols ? half_to_float(bits >> 16) : 0.0f;
        } else {
            w[row][word] = to_float(bits);
        }
    }
}

template <bool HALVES>
DEVICE void product(const Matrix m, const float* input, u32 stride, const Target target, u32 tokens) {
    SHARED float w[SIDE][PITCH];
    SHARED float x[SIDE][PITCH];
    SHARED float results[SIDE][SIDE + 1];
    SHARED u32 lines[SIDE];
    const u32 row0 = blockIdx.x * SIDE, token0 = blockIdx.y * SIDE;
    if (threadIdx.x < SIDE) {
        const u32 row = smaller(row0 + threadIdx.x, m.rows - 1);
        lines[threadIdx.x] = row_word(m, row, HALVES ? ceil_div(m.cols, 2) : m.cols, 0, 1);
    }
    const u32 lane = threadIdx.x % 8, group = threadIdx.x / 8;
    const u32 rows = group / 8 * ROWS, columns = group % 8 * TOKENS;
    float acc[ROWS][TOKENS] = {};
    for (u32 first = 0; first < m.cols; first += STAGE) {
        __syncthreads();
        load_rows<HALVES>(m, lines, first, w);
        for (u32 item = threadIdx.x; item < SIDE * STAGE; item += THREADS) {
            const u32 token = item / STAGE, k = item % STAGE;
            const bool there = token0 + token < tokens && first + k < m.cols;
            x[token][k] = there ? input[(u64)(token0 + token) * stride + first + k] : 0.0f;
        }
        __syncthreads();
        // What is beyond the last column adds +0, which changes no accumulator: none is ever -0.
        const u32 end = smaller(STAGE, m.cols - first);
        for (u32 k = lane; k < end + lane; k += 8) {
            float values[TOKENS];
#pragma unroll
            for (u32 t = 0; t < TOKENS; t++) values[t] = x[columns + t][k];
#pragma unroll
            for (u32 r = 0; r < ROWS; r++) {
                const float weight = w[rows + r][k];
#pragma unroll
                for (u32 t = 0; t < TOKENS; t++) acc[r][t] += weight * values[t];
            }
        }
    }
#pragma unroll
    for (u32 t = 0; t < TOKENS; t++) {
        float result = 0.0f;
#pragma unroll
        for (u32 r = 0; r < ROWS; r++) {
            const float sum = fold(acc[r][t]);
            result = lane == r ? sum : result;
        }
        results[columns + t][rows + lane] = result;
    }
    __syncthreads();
    target.store_all<SIDE>(results, m.rows, tokens);
}

}  // namespace eight

// Input-major, in natural order: a block computes 64 rows of 64 tokens, a thread 4 of 4.
namespace natural {

enum { STAGE = 32, SIDE = 64, EACH = 4, APART = SIDE / EACH };

template <bool HALVES>
DEVICE void product(const Matrix m, const float* input, u32 stride, const Target target, u32 tokens) {
    SHARED float w[STAGE][SIDE];
    SHARED float x[SIDE][STAGE + 1];
    SHARED float results[SIDE][SIDE + 4];
    const u32 row0 = blockIdx.x * SIDE, token0 = blockIdx.y * SIDE;
    const u32 column = 1 + (HALVES ? ceil_div(m.rows, 2) : m.rows);
    const u32 tx = threadIdx.x % APART, ty = threadIdx.x / APART;
    float acc[EACH][EACH] = {};
    for (u32 first = 0; first < m.cols; first += STAGE) {
        __syncthreads();
        for (u32 item = threadIdx.x; item < STAGE * SIDE; item += THREADS) {
            const u32 k = item / SIDE, row = row0 + item % SIDE;
            float weight = 0.0f;
            if (first + k < m.cols && row < m.rows) {
                const u32* line = m.payload + (u64)(first + k) * column + 1;
                weight = HALVES ? half_to_float(line[row / 2] >> 16 * (row % 2) & 0xffff)
                                : to_float(line[row]);
            }
            w[k][item % SIDE] = weight;
        }
        for (u32 item = threadIdx.x; item < SIDE * STAGE; item += THREADS) {
            const u32 token = item / STAGE, k = item % STAGE;
            const bool there = token0 + token < tokens && first + k < m.cols;
            x[token][k] = there ? input[(u64)(token0 + token) * stride + first + k] : 0.0f;
        }
        __syncthreads();
#pragma unroll 4
        for (u32 k = 0; k < STAGE; k++) {
            float weights[EACH];
#pragma unroll
            for (u32 r = 0; r < EACH; r++) weights[r] = w[k][tx + APART * r];
#pragma unroll
            for (u32 t = 0; t < EACH; t++) {
                // A zero's column is passed over, whatever its weights.
                const float value = x[ty + APART * t][k];
#pragma unroll
                for (u32 r = 0; r < EACH; r++) {
                    acc[r][t] += value == 0.0f ? 0.0f : weights[r] * value;
                }
            }
        }
    }
#pragma unroll
    for (u32 t = 0; t < EACH; t++) {
#pragma unroll
        for (u32 r = 0; r < EACH; r++) results[ty + APART * t][tx + APART * r] = acc[r][t];
    }
    __syncthreads();
    target.store_all<SIDE>(results, m.rows, tokens);
}

}  // namespace natural

#define FLOAT_PRODUCT(name, order, HALVES)                                                         \
    KERNEL(name, (const u32* payload, u32 rows, u32 cols, u32 tile_rows, const float* input,       \
                  u32 in_stride, float* y, const float* gate, u32 stride, u32 f, u32 tokens)) {    \
        const Matrix m = {payload, rows, cols, tile_rows};                                         \
        const Target target = {y, gate, stride, f};                                                \
        order::product<HALVES>(m, input, in_stride, target, tokens);                               \
    }

FLOAT_PRODUCT(rows_f32, eight, false)
FLOAT_PRODUCT(rows_f16, eight, true)
FLOAT_PRODUCT(columns_f32, natural, false)
FLOAT_PRODUCT(columns_f16, natural, true)
