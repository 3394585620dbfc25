/* The RWKV-7 recurrence over sequences and its gradient, for a CPU with vectors; recurrence.py builds and calls it.

   Per batch row and head, with a state S[value][key] and vectors of N keys or values at each time:
       S <- S diag(w) + (S a) b' + v k',   y = S r
   Arrays are f32, row-major: sequences [batch, time, heads, N], states [batch, heads, N (value), N (key)]. The lanes
   of a vector are values, so the state is kept transposed in here. The gradient computes the states of each chunk again
   from its first one, which the forward pass leaves in `starts` [batch, heads, chunks, N (key), N (value)].

   The signatures are those of XLA's custom calls: arrays of pointers. dims is {batch, time, heads}. */
#include <stdint.h>
#include <string.h>

#define CHUNK 16
#define LANES 16
#define PARTS (N / LANES)

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4)));
typedef struct { vec part[PARTS]; } row;     /* one number for each value */
typedef struct { row key[N]; } matrix;       /* a state, transposed */

static inline row load(const float *x) { row y; memcpy(&y, x, sizeof y); return y; }
static inline void store(float *x, const row *y) { memcpy(x, y, sizeof *y); }

typedef float half __attribute__((vector_size(2 * LANES), aligned(4)));
typedef float quarter __attribute__((vector_size(LANES), aligned(4)));

static inline float sum(vec x)
{
    const half y = __builtin_shufflevector(x, x, 0, 1, 2, 3, 4, 5, 6, 7) + __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15);
    const quarter z = __builtin_shufflevector(y, y, 0, 1, 2, 3) + __builtin_shufflevector(y, y, 4, 5, 6, 7);
    return (z[0] + z[2]) + (z[1] + z[3]);
}

static inline float dot(const row *x, const row *y)
{
    vec s = x->part[0] * y->part[0];
    for (int p = 1; p < PARTS; p++) s += x->part[p] * y->part[p];
    return sum(s);
}

static inline void add(row *x, float scale, const row *y)
{
    for (int p = 0; p < PARTS; p++) x->part[p] += scale * y->part[p];
}

static void transpose(float *to, const float *from)
{
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) to[i * N + j] = from[j * N + i];
}

/* The state after one more token, from the one before it; `removed` is S a. */
static inline row step(matrix *after, const matrix *before, const float *w, const float *k, const float *v,
                       const float *a, const float *b)
{
    row removed = {0}, value = load(v);
    for (int j = 0; j < N; j++) add(&removed, a[j], &before->key[j]);
    for (int j = 0; j < N; j++)
        for (int p = 0; p < PARTS; p++)
            after->key[j].part[p] = before->key[j].part[p] * w[j] + b[j] * removed.part[p] + k[j] * value.part[p];
    return removed;
}

/* in: dims, r, w, k, v, a, b, state; out: y, state, starts */
void wkv7_forward(float **out, const void **in)
{
    const int32_t *dims = in[0];
    const int batch = dims[0], time = dims[1], heads = dims[2];
    const float *r = in[1], *w = in[2], *k = in[3], *v = in[4], *a = in[5], *b = in[6], *state = in[7];
    float *y = out[0], *end = out[1], *starts = out[2];
    for (int head = 0; head < batch * heads; head++) {
        matrix s;
        transpose((float *)&s, state + (size_t)head * N * N);
        for (int t = 0; t < time; t++) {
            const size_t at = (((size_t)(head / heads) * time + t) * heads + head % heads) * N;
            if (t % CHUNK == 0) {
                memcpy(starts, &s, sizeof s);
                starts += N * N;
            }
            step(&s, &s, w + at, k + at, v + at, a + at, b + at);
            row sum = {0};
            for (int j = 0; j < N; j++) add(&sum, r[at + j], &s.key[j]);
            store(y + at, &sum);
        }
        transpose(end + (size_t)head * N * N, (float *)&s);
    }
}

/* in: dims, r, w, k, v, a, b, starts, and the gradients of y and of the last state;
   out: the gradients of r, w, k, v, a, b and of the first state */
void wkv7_backward(float **out, const void **in)
{
    const int32_t *dims = in[0];
    const int batch = dims[0], time = dims[1], heads = dims[2], chunks = time / CHUNK;
    const float *r = in[1], *w = in[2], *k = in[3], *v = in[4], *a = in[5], *b = in[6], *starts = in[7], *dy = in[8];
    float *dr = out[0], *dw = out[1], *dk = out[2], *dv = out[3], *da = out[4], *db = out[5];
    for (int head = 0; head < batch * heads; head++) {
        matrix ds, states[CHUNK + 1];
        row removed[CHUNK];
        transpose((float *)&ds, (const float *)in[9] + (size_t)head * N * N);
        for (int c = chunks - 1; c >= 0; c--) {
            const size_t first = (((size_t)(head / heads) * time + c * CHUNK) * heads + head % heads) * N;
            memcpy(&states[0], starts + ((size_t)head * chunks + c) * N * N, sizeof states[0]);
            for (int t = 0; t < CHUNK; t++) {
                const size_t at = first + (size_t)t * heads * N;
                removed[t] = step(&states[t + 1], &states[t], w + at, k + at, v + at, a + at, b + at);
            }
            for (int t = CHUNK - 1; t >= 0; t--) {
                const size_t at = first + (size_t)t * heads * N;
                const row out_grad = load(dy + at), value = load(v + at);
                row value_grad = {0}, removed_grad = {0};
                for (int j = 0; j < N; j++) {
                    row d = ds.key[j];
                    add(&d, r[at + j], &out_grad);
                    ds.key[j] = d;
                    add(&value_grad, k[at + j], &d);
                    add(&removed_grad, b[at + j], &d);
                    dr[at + j] = dot(&states[t + 1].key[j], &out_grad);
                    dk[at + j] = dot(&d, &value);
                    db[at + j] = dot(&d, &removed[t]);
                    dw[at + j] = dot(&d, &states[t].key[j]);
                }
                for (int j = 0; j < N; j++) {
                    da[at + j] = dot(&states[t].key[j], &removed_grad);
                    for (int p = 0; p < PARTS; p++)
                        ds.key[j].part[p] = ds.key[j].part[p] * w[at + j] + a[at + j] * removed_grad.part[p];
                }
                store(dv + at, &value_grad);
            }
        }
        transpose(out[6] + (size_t)head * N * N, (float *)&ds);
    }
}
