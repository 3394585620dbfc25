/* Products of CMSIS-NN by the shape of the matrix, for the mode `cmsis-nn`. The library is not part
 * of this project: see `cargo xtask bench --cmsis-nn`. */

#include "arm_nnfunctions.h"

static const cmsis_nn_per_tensor_quant_params scale = { .multiplier = 0x50000000, .shift = -9 };

#define PARAMS(bits)                                                            \
    { .input_offset = (bits) == 8 ? 5 : 0, .filter_offset = 0, .output_offset = 0, \
      .activation = { -(1 << ((bits) - 1)), (1 << ((bits) - 1)) - 1 } }

#define CALL(function, bits)                                                    \
    const cmsis_nn_context context = { 0 };                                     \
    const cmsis_nn_fc_params params = PARAMS(bits);                             \
    const cmsis_nn_dims one = { 1, 1, 1, cols }, filter = { cols, 1, 1, rows };   \
    const cmsis_nn_dims bias_dims = { 1, 1, 1, rows }, out_dims = { 1, 1, 1, rows }; \
    return function(&context, &params, &scale, &one, x, &filter, w, &bias_dims, bias, &out_dims, y)

int rwkv_cmsis_s8(const int8_t *w, const int8_t *x, const int32_t *bias, int8_t *y, int rows, int cols)
{
    CALL(arm_fully_connected_s8, 8);
}

int rwkv_cmsis_s4(const int8_t *w, const int8_t *x, const int32_t *bias, int8_t *y, int rows, int cols)
{
    CALL(arm_fully_connected_s4, 8);
}

int rwkv_cmsis_s16(const int8_t *w, const int16_t *x, const int64_t *bias, int16_t *y, int rows, int cols)
{
    CALL(arm_fully_connected_s16, 16);
}
