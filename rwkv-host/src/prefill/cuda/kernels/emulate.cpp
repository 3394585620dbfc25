// Runs the kernels on the CPU: the part of CUDA that they use, for a C++ compiler.
//
// The threads of a block are fibres of one thread of the host. A fibre runs until it waits at a
// barrier, of its block or (where a warp exchanges values) of its warp, and the next one goes on.
// Blocks run one after the other. What waits for a thread that is at its end, or never comes, is
// found and reported. Threads take turns in either direction: where a barrier is missing, one of
// the two differs.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

#define RWKV_EMULATED
#define DEVICE static inline
#define METHOD inline
#define SHARED static thread_local
#define KERNEL_OF(threads, name, ...)                                             \
    static void name __VA_ARGS__;                                                 \
    static emulate::Entry entry_##name(#name, threads, emulate::Bound<&name>{});  \
    static void name __VA_ARGS__

// Saves what a function must keep, and goes on with another stack.
extern "C" void rwkv_switch_fibre(void** from, void* to);

// A program has this file twice, for two kinds of device: no name may be shared.
namespace {

struct Dim3 {
    uint32_t x, y, z;
};

thread_local Dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulate {

constexpr uint32_t MOST_THREADS = 1024, WARP = 32, STACK = 64 * 1024;

// Kinds of arguments, as the other side of the interface counts them.
template <class T>
constexpr uint32_t kind = std::is_pointer_v<T> ? 0 : std::is_floating_point_v<T> ? 2 : 1;

// A kernel as a function of pointers to its arguments, as drivers take them.
template <auto F>
struct Bound;

template <class... A, void (*F)(A...)>
struct Bound<F> {
    static constexpr uint32_t count = sizeof...(A);
    static constexpr uint32_t kinds[] = {kind<A>...};

    template <size_t... I>
    static void call(void** arguments, std::index_sequence<I...>) {
        F(*static_cast<A*>(arguments[I])...);
    }

    static void run(void** arguments) { call(arguments, std::index_sequence_for<A...>()); }
};

// The kernels of this program, in a list.
struct Entry {
    const char* name;
    uint32_t threads;
    void (*run)(void**);
    const uint32_t* kinds;
    uint32_t count;
    Entry* next;

    static Entry*& first() {
        static Entry* entry = nullptr;
        return entry;
    }

    template <class B>
    Entry(const char* name, uint32_t threads, B)
        : name(name), threads(threads), run(B::run), kinds(B::kinds), count(B::count), next(first()) {
        first() = this;
    }
};

// What threads wait at.
struct Barrier {
    uint32_t arrived, passed;
};

struct Fibre {
    void* stack_pointer;
    uint32_t before, after;
};

// The block that runs.
struct Block {
    void* stack_pointer;
    char* stacks;
    Fibre fibres[MOST_THREADS];
    Barrier all, warps[MOST_THREADS / WARP];
    // What the lanes of a warp exchange, for this exchange and the one before it.
    uint64_t exchanged[2][MOST_THREADS][3];
    uint32_t threads, live, current, idle;
    bool backward, stuck;
    const Entry* entry;
    void** arguments;
};

thread_local Block block;

#if defined(__x86_64__) && defined(__ELF__)
asm(R"(
.text
.type rwkv_switch_fibre, @function
rwkv_switch_fibre:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size rwkv_switch_fibre, .-rwkv_switch_fibre
)");

// A stack that begins with a function: six registers, its address, and where it would return to.
inline void* prepare(char* top, void (*function)()) {
    auto* words = reinterpret_cast<void**>(top);
    words[-1] = nullptr;
    words[-2] = reinterpret_cast<void*>(function);
    memset(words - 8, 0, 6 * sizeof(void*));
    return words - 8;
}
#else
#error "the emulation has fibres for x86-64 and ELF alone: build without the feature cuda-emulation"
#endif

// Room for the stacks of a block, as long as the host's thread lives.
inline char* stacks() {
    thread_local std::unique_ptr<char[]> room(new (std::nothrow) char[size_t(MOST_THREADS) * STACK]);
    return room.get();
}

// Goes on with the next thread that is not at its end, or with the host if there is none or if
// nobody can go on.
inline void leave(void** from) {
    Block& b = block;
    const bool over = b.live == 0 || b.stuck;
    if (!over) {
        b.current = b.fibres[b.current].after;
        threadIdx = {b.current, 0, 0};
    }
    rwkv_switch_fibre(from, over ? b.stack_pointer : b.fibres[b.current].stack_pointer);
}

inline void wait(Barrier& barrier, uint32_t threads) {
    Block& b = block;
    if (++barrier.arrived == threads) {
        barrier.arrived = 0;
        barrier.passed++;
        b.idle = 0;
        return;
    }
    const uint32_t passed = barrier.passed;
    while (barrier.passed == passed) {
        // Everybody was asked, and nobody could go on.
        b.stuck = ++b.idle > 2 * b.threads;
        leave(&b.fibres[b.current].stack_pointer);
    }
    b.idle = 0;
}

inline void run_thread() {
    Block& b = block;
    b.entry->run(b.arguments);
    Fibre& fibre = b.fibres[b.current];
    b.fibres[fibre.before].after = fibre.after;
    b.fibres[fibre.after].before = fibre.before;
    b.live--;
    b.idle = 0;
    leave(&fibre.stack_pointer);
}

// Gives three words to the warp; returns those of all its lanes.
inline uint64_t (*exchange(uint64_t x, uint64_t y, uint64_t z))[3] {
    Block& b = block;
    const uint32_t warp = b.current / WARP;
    auto* slots = b.exchanged[b.warps[warp].passed % 2];
    uint64_t* slot = slots[b.current];
    slot[0] = x, slot[1] = y, slot[2] = z;
    wait(b.warps[warp], WARP);
    return slots + warp * WARP;
}

// Runs a block; false if threads wait for ever.
inline bool run_block() {
    Block& b = block;
    b.live = b.threads;
    b.idle = 0;
    b.stuck = false;
    b.all = {};
    memset(b.warps, 0, sizeof b.warps);
    for (uint32_t i = 0; i < b.threads; i++) {
        const uint32_t up = (i + 1) % b.threads, down = (i + b.threads - 1) % b.threads;
        char* top = b.stacks + size_t(i + 1) * STACK;
        b.fibres[i] = {prepare(top, run_thread), b.backward ? up : down, b.backward ? down : up};
    }
    b.current = b.backward ? b.threads - 1 : 0;
    threadIdx = {b.current, 0, 0};
    rwkv_switch_fibre(&b.stack_pointer, b.fibres[b.current].stack_pointer);
    return !b.stuck;
}

}  // namespace emulate

// What the kernels use of CUDA.

static inline void __syncthreads() { emulate::wait(emulate::block.all, emulate::block.threads); }

template <class T>
static inline T __shfl_xor_sync(uint32_t, T value, uint32_t lanes) {
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    const uint64_t* other = emulate::exchange(bits, 0, 0)[(threadIdx.x ^ lanes) % emulate::WARP];
    memcpy(&value, other, sizeof value);
    return value;
}

static inline float __uint_as_float(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline uint32_t __float_as_uint(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float __fsqrt_rn(float x) { return std::sqrt(x); }

static inline uint32_t max(uint32_t a, uint32_t b) { return a > b ? a : b; }

static inline void atomicAdd(uint32_t* to, uint32_t value) { *to += value; }
static inline void atomicOr(uint32_t* to, uint32_t value) { *to |= value; }

// sum + a * b over so many signed bytes, wrapping.
static inline int32_t dot_bytes(uint64_t a, uint64_t b, uint32_t bytes, int32_t sum) {
    for (uint32_t i = 0; i < bytes; i++) {
        const int32_t product = int8_t(a >> 8 * i) * int8_t(b >> 8 * i);
        sum = int32_t(uint32_t(sum) + uint32_t(product));
    }
    return sum;
}

static inline int32_t __dp4a(int32_t a, int32_t b, int32_t sum) {
    return dot_bytes(uint32_t(a), uint32_t(b), 4, sum);
}

// The matrix instructions: lane 4i + j holds bytes 4j to 4j + 3 of row i of a, and of column i of b,
// and the results of row i in columns 2j and 2j + 1. The larger one has four such parts of a, the
// rows 8 apart and then the bytes 16 apart, two of b and two of c.
static inline void multiply_8x8x16(int32_t* c, uint32_t a, uint32_t b) {
    const auto* lanes = emulate::exchange(a, b, 0);
    const uint32_t row = threadIdx.x % 32 / 4 * 4, column = threadIdx.x % 4 * 2;
    for (uint32_t i = 0; i < 2; i++) {
        for (uint32_t k = 0; k < 4; k++) {
            c[i] = dot_bytes(lanes[row + k][0], lanes[(column + i) * 4 + k][1], 4, c[i]);
        }
    }
}

#if __CUDA_ARCH__ >= 800
static inline void multiply_16x8x32(int32_t* c, const uint32_t* a, const uint32_t* b) {
    const auto pair = [](uint32_t low, uint32_t high) { return uint64_t(high) << 32 | low; };
    const auto* lanes = emulate::exchange(pair(a[0], a[2]), pair(a[1], a[3]), pair(b[0], b[1]));
    const uint32_t row = threadIdx.x % 32 / 4 * 4, column = threadIdx.x % 4 * 2;
    for (uint32_t i = 0; i < 4; i++) {
        for (uint32_t k = 0; k < 4; k++) {
            c[i] = dot_bytes(lanes[row + k][i / 2], lanes[(column + i % 2) * 4 + k][2], 8, c[i]);
        }
    }
}
#endif

#include "kernels.cu"

// Kernels with mistakes, which the emulation must notice.

KERNEL(mistake_missing_barrier, (u32* out)) {
    SHARED u32 shared[64];
    shared[threadIdx.x] = 100 + threadIdx.x;
    out[threadIdx.x] = shared[(threadIdx.x + 1) % 64];
}

KERNEL(mistake_barrier_for_some, (u32* out)) {
    if (threadIdx.x > 0) __syncthreads();
    out[threadIdx.x] = 1;
}

KERNEL(mistake_shuffle_for_some, (u32* out)) {
    if (threadIdx.x % 2) out[threadIdx.x] = __shfl_xor_sync(FULL_WARP, threadIdx.x, 1);
}

}  // namespace

// Runs a kernel. 0 is success; else 1 says that there is no such kernel, 2 that it takes other
// arguments, 3 that it takes another number of threads, 4 that threads wait for ever, and 5 that
// there is no memory for stacks.
extern "C" int RWKV_EMULATE(const char* name, uint32_t columns, uint32_t rows, uint32_t threads,
                            bool backward, void** arguments, const uint32_t* kinds,
                            uint32_t count) {
    using namespace emulate;
    const Entry* entry = Entry::first();
    while (entry && strcmp(entry->name, name) != 0) entry = entry->next;
    if (!entry) return 1;
    if (count != entry->count || memcmp(kinds, entry->kinds, count * sizeof *kinds) != 0) return 2;
    if (threads == 0 || threads > entry->threads || threads % WARP != 0) return 3;
    Block& b = block;
    b.stacks = stacks();
    if (!b.stacks) return 5;
    b.entry = entry;
    b.arguments = arguments;
    b.threads = threads;
    b.backward = backward;
    blockDim = {threads, 1, 1};
    gridDim = {columns, rows, 1};
    for (uint32_t y = 0; y < rows; y++) {
        for (uint32_t x = 0; x < columns; x++) {
            blockIdx = {x, y, 0};
            if (!run_block()) return 4;
        }
    }
    return 0;
}
