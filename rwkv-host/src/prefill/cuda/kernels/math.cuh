// Scalar functions, line by line those of rwkv_core::math, where they are explained.

namespace math {

#define LOG2_E to_float(0x3fb8aa3b)
#define LN2_HI to_float(0x3f317200)
#define LN2_LO to_float(0x35bfbe8e)
#define ROUNDER 12582912.0f
#define SIGN 0x80000000u
#define EXPONENT 0xff800000u

DEVICE i32 round_half_even(float x) { return (i32)(to_bits(x + ROUNDER) - to_bits(ROUNDER)); }

DEVICE float power_of_two(u32 k) { return to_float(k + 0x3f800000); }

DEVICE float exp_parts(float x, u32& t) {
    const float shifted = x * LOG2_E + ROUNDER;
    const float kf = shifted - ROUNDER;
    const float r = (x - kf * LN2_HI) - kf * LN2_LO;
    float p = to_float(0x3ab65b70) * r + to_float(0x3c0921b4);
    p = p * r + to_float(0x3d2aaa96);
    p = p * r + to_float(0x3e2aaa41);
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    t = to_bits(shifted);
    return p * r + 1.0f;
}

DEVICE float exp_up_to_89(float x) {
    u32 t;
    const float p = exp_parts(x < -104.0f ? -104.0f : x, t);
    const u32 half = t << 22 & EXPONENT;
    const u32 rest = (t << 23) - half;
    return p * power_of_two(half) * power_of_two(rest);
}

DEVICE float exp(float x) { return exp_up_to_89(x > 89.0f ? 89.0f : x); }

DEVICE float exp_of_negative(float x) { return exp_up_to_89(to_float(to_bits(x) | SIGN)); }

DEVICE float exp_within_87(float x) {
    u32 t;
    const float p = exp_parts(x, t);
    return p * power_of_two(t << 23);
}

DEVICE float ln(float x) {
    const u32 sqrt_half = 0x3f3504f3;
    const bool subnormal = x < to_float(0x00800000);
    const float scaled = subnormal ? x * 8388608.0f : x;
    const i32 bias = subnormal ? 127 + 23 : 127;
    const u32 bits = to_bits(scaled) + (0x3f800000 - sqrt_half);
    const float k = (float)((i32)(bits >> 23) - bias);
    const float f = to_float((bits & 0x007fffff) + sqrt_half) - 1.0f;
    const float s = f / (2.0f + f);
    const float z = s * s;
    float r = 0.29679233f;
    r = r * z + 0.39986157f;
    r = r * z + 0.6666669f;
    r = r * z;
    float y = (f - (s * (f - r) - k * LN2_LO)) + k * LN2_HI;
    y = x <= to_float(0x7f7fffff) ? y : x;
    y = x < 0.0f ? to_float(0x7fc00000) : y;
    return x == 0.0f ? to_float(0xff800000) : y;
}

DEVICE float tanh(float x) {
    const u32 sign = to_bits(x) & SIGN;
    const float a = to_float(to_bits(x) & ~SIGN);
    const float z = a * a;
    float p = -0.0059738784f;
    p = p * z + 0.020899992f;
    p = p * z - 0.053826172f;
    p = p * z + 0.13332553f;
    p = p * z - 0.33333325f;
    const float near = a + a * (p * z);
    const float far = 1.0f - 2.0f / (exp(a + a) + 1.0f);
    return to_float(to_bits(a < 0.625f ? near : far) | sign);
}

DEVICE float sigmoid(float x) {
    const float e = exp_of_negative(x);
    const float numerator = x < 0.0f ? e : 1.0f;
    return numerator / (1.0f + e);
}

DEVICE float softplus(float x) {
    const float f = exp_of_negative(x);
    const float s = f / (2.0f + f);
    const float z = s * s;
    float r = 0.28024456f;
    r = r * z + 0.27999142f;
    r = r * z + 0.400217f;
    r = r * z + 0.6666641f;
    r = r * z;
    const float y = f - s * (f - r);
    const float positive = x > 0.0f ? x : 0.0f;
    return positive + y;
}

DEVICE float sqrt(float x) { return __fsqrt_rn(x); }

DEVICE float rsqrt(float x) { return 1.0f / sqrt(x); }

DEVICE float activate(u32 f, float x) {
    switch (f) {
        case SIGMOID: return sigmoid(x);
        case TANH: return tanh(x);
        case SQUARED_RELU: return x < 0.0f ? 0.0f : x * x;
        case DECAY: return exp_within_87(to_float(0xbf1b459e) * sigmoid(x));
        case SILU: return x * sigmoid(x);
        case EXP_NEG_EXP: return exp(-exp(x));
        default: return x;
    }
}

}  // namespace math

// The functions alone, for a comparison over many values.
KERNEL(scalar_functions, (u32 function, const float* in, float* out, u32 count)) {
    const u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    const float x = in[i];
    switch (function) {
        case 0: out[i] = math::exp(x); break;
        case 1: out[i] = math::ln(x); break;
        case 2: out[i] = math::tanh(x); break;
        case 3: out[i] = math::sigmoid(x); break;
        case 4: out[i] = math::softplus(x); break;
        case 5: out[i] = math::sqrt(x); break;
        case 6: out[i] = math::rsqrt(x); break;
        default: out[i] = half_to_float(to_bits(x) & 0xffff);
    }
}
