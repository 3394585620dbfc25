// Operations on vectors: a row of blocks per token, a thread per element.

// The element and the scratch of this thread's token.
#define ELEMENT(len)                                        \
    const u32 i = blockIdx.x * blockDim.x + threadIdx.x;    \
    float* const lane = scratch + (u64)blockIdx.y * stride; \
    if (i >= (len)) return

// How an input is blended with that of the token before it.
enum Blend { PLAIN, CURRENT, PREVIOUS };

DEVICE float blended(u32 blend, float x, float previous, float m) {
    return blend == CURRENT ? x * m + previous * (1.0f - m) : x + (previous - x) * m;
}

// The vectors that a token shift reads. `carry` is the vector before the first token.
struct Shifted {
    u32 blend;
    const u32* mix;
    u32 tile;
    const float* carry;
    const float* x;
    u32 stride;

    METHOD float at(u32 token, u32 i) const {
        const float value = x[(u64)token * stride + i];
        if (blend == PLAIN) return value;
        const float previous = token == 0 ? carry[i] : x[(u64)(token - 1) * stride + i];
        return blended(blend, value, previous, parameter(mix, tile, i));
    }
};

// A row of a table as floats. The row of a token is `token * times + plus`; `words` is a row with
// its checksum.
KERNEL(table_row,
       (u32 format, const u32* table, u32 words, const u32* tokens, u32 times, u32 plus,
        float* scratch, u32 stride, u32 out, u32 len)) {
    ELEMENT(len);
    const u32* row = table + ((u64)tokens[blockIdx.y] * times + plus) * words + 1;
    float value;
    if (format == F32) {
        value = to_float(row[i]);
    } else if (format == F16) {
        value = half_to_float(row[i / 2] >> 16 * (i % 2) & 0xffff);
    } else if (format == INT8) {
        const i32 weight = (i32)(row[1 + i / 4] >> 8 * (i % 4) & 0xff) - 128;
        value = (float)weight * to_float(row[0]);
    } else {
        const u32 groups = ceil_div(len, GROUP), group = i / GROUP, j = i % 8;
        const u32 sub = row[1 + group / 4] >> 8 * (group % 4) & 0xff;
        const u32 word = row[1 + ceil_div(groups, 4) + i / 8];
        const i32 weight = (i32)(word >> (4 * (j % 4) + 16 * (j / 4)) & 15) - 8;
        value = (float)weight * (to_float(row[0]) * (float)sub);
    }
    lane[out + i] = value;
}

// Eight lanes per token, each of them one accumulator of the rule of eight.
KERNEL(layer_norm,
       (const u32* params, u32 tile, float epsilon, float* scratch, u32 stride, u32 x, u32 out,
        u32 len, u32 tokens)) {
    const u32 token = (blockIdx.x * blockDim.x + threadIdx.x) / 8, first = threadIdx.x % 8;
    const bool live = token < tokens;
    float* const lane = scratch + (u64)(live ? token : 0) * stride;
    float sum = 0.0f, squares = 0.0f;
    for (u32 i = first; i < len; i += 8) sum += lane[x + i];
    const float mean = fold(sum) / (float)len;
    for (u32 i = first; i < len; i += 8) {
        const float d = lane[x + i] - mean;
        squares += d * d;
    }
    const float inverse = math::rsqrt(fold(squares) / (float)len + epsilon);
    if (!live) return;
    for (u32 i = first; i < len; i += 8) {
        const float weight = parameter(params, tile, 2 * i), bias = parameter(params, tile, 2 * i + 1);
        lane[out + i] = (lane[x + i] - mean) * inverse * weight + bias;
    }
}

KERNEL(shift,
       (u32 blend, const u32* mix, u32 tile, const float* carry, float* scratch, u32 stride, u32 x,
        u32 out, u32 len)) {
    ELEMENT(len);
    const Shifted input = {blend, mix, tile, carry, scratch + x, stride};
    lane[out + i] = input.at(blockIdx.y, i);
}

// Token shift over its own weights.
KERNEL(shift_by, (const float* carry, float* scratch, u32 stride, u32 weights, u32 x, u32 len)) {
    ELEMENT(len);
    const float previous = blockIdx.y == 0 ? carry[i] : *(lane - stride + x + i);
    lane[weights + i] = blended(PREVIOUS, lane[x + i], previous, lane[weights + i]);
}

KERNEL(vector, (const u32* params, u32 tile, float* scratch, u32 stride, u32 out, u32 len)) {
    ELEMENT(len);
    lane[out + i] = parameter(params, tile, i);
}

KERNEL(bias, (const u32* params, u32 tile, u32 f, float* scratch, u32 stride, u32 x, u32 len)) {
    ELEMENT(len);
    lane[x + i] = math::activate(f, lane[x + i] + parameter(params, tile, i));
}

KERNEL(copy, (float* scratch, u32 stride, u32 x, u32 out, u32 len)) {
    ELEMENT(len);
    lane[out + i] = lane[x + i];
}

KERNEL(multiply, (float* scratch, u32 stride, u32 x, u32 gate, u32 len)) {
    ELEMENT(len);
    lane[x + i] *= lane[gate + i];
}

KERNEL(lerp, (float* scratch, u32 stride, u32 x, u32 target, u32 weight, u32 len)) {
    ELEMENT(len);
    lane[x + i] += (lane[target + i] - lane[x + i]) * lane[weight + i];
}

// out[j] = sum of x[i] * matrix[i][j] in natural order, the matrix being the token's own.
KERNEL(product_by, (float* scratch, u32 stride, u32 x, u32 matrix, u32 out, u32 inputs, u32 len)) {
    ELEMENT(len);
    float sum = 0.0f;
    for (u32 k = 0; k < inputs; k++) sum += lane[matrix + k * len + i] * lane[x + k];
    lane[out + i] = sum;
}

// The last token's vector is kept for the token after it.
KERNEL(keep, (float* carry, float* scratch, u32 stride, u32 x, u32 len, u32 tokens)) {
    const u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < len) carry[i] = scratch[(u64)(tokens - 1) * stride + x + i];
}

// Notes a value that is infinite or not a number.
KERNEL(check_finite, (float* scratch, u32 stride, u32 x, u32 len, u32* failed)) {
    ELEMENT(len);
    if (!is_finite(lane[x + i])) atomicOr(failed, 1u);
}
