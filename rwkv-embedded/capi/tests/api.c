/* Every function and what it refuses, on this machine, over an image with a byte tokenizer.
 * `cargo xtask c` builds it with the sanitizers of gcc and runs it for the models that ship. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rwkv.h"

#define CHECK(condition)                                                  \
    do {                                                                  \
        checks++;                                                         \
        if (!(condition)) {                                               \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
            exit(EXIT_FAILURE);                                           \
        }                                                                 \
    } while (0)
#define IS(error, call) CHECK(is(RWKV_ERROR_##error, (call)))
#define OK(call) IS(OK, call)
#define TEXT(text) (const uint8_t *)(text), strlen(text)

static unsigned checks;

static const struct {
    rwkv_error code;
    const char *name;
} NAMES[] = {
#include "names.h"
};

void rwkv_panic(void);
void rwkv_panic(void) {
    fputs("the library panicked\n", stderr);
    abort();
}

static int is(rwkv_error expected, rwkv_error found) {
    if (expected != found) {
        fprintf(stderr, "%s instead of %s\n", rwkv_error_name(found), rwkv_error_name(expected));
    }
    return expected == found;
}

/* An image, and a model and a state over it. */
static uint8_t *bytes;
static size_t size;
static rwkv_image image;
static rwkv_info info;
static rwkv_model model;
static rwkv_state state;
static rwkv_memory memory;

static void *words(size_t count) {
    void *memory_of = calloc(count, 4);
    CHECK(memory_of);
    return memory_of;
}

static void names(void) {
    const size_t count = sizeof NAMES / sizeof *NAMES;
    CHECK(count > 60);
    for (size_t i = 0; i < count; i++) {
        const char *name = rwkv_error_name(NAMES[i].code);
        CHECK(name && strcmp(name, NAMES[i].name) == 0);
    }
    CHECK(!rwkv_error_name(-1) && !rwkv_error_name(254));
    CHECK(strcmp(rwkv_version_name(71), "7a") == 0 && !rwkv_version_name(0));
    OK(rwkv_self_test());
}

static void opening(void) {
    rwkv_image other;
    memset(&other, 0, sizeof other);
    IS(UNINITIALISED, rwkv_image_info(&other, &info));
    IS(NULL_POINTER, rwkv_image_open(NULL, bytes, size));
    IS(NULL_POINTER, rwkv_image_open(&other, NULL, size));
    IS(IMAGE_TRUNCATED, rwkv_image_open(&other, bytes, 16));
    IS(IMAGE_TRUNCATED, rwkv_image_open(&other, bytes, size - 16));
    CHECK(rwkv_image_detail(&other).value == size && rwkv_image_detail(&other).place == size - 16);
    IS(UNINITIALISED, rwkv_image_info(&other, &info));
    CHECK(rwkv_state_words(&other) == 0 && rwkv_scratch_words(&other) == 0);

    uint8_t *copy = words(size / 4 + 1);
    memcpy(copy + 1, bytes, size);
    IS(IMAGE_MISALIGNED, rwkv_image_open(&other, copy + 1, size));
    memcpy(copy, bytes, size);
    for (size_t at = 0; at < 4096; at++) {
        copy[at] ^= 1;
        CHECK(rwkv_image_open(&other, copy, size) != RWKV_ERROR_OK);
        copy[at] ^= 1;
    }
    copy[size - 1] ^= 1;
    IS(IMAGE_SECTION_CHECKSUM, rwkv_image_open(&other, copy, size));
    free(copy);

    OK(rwkv_image_open(&image, bytes, size));
    IS(NULL_POINTER, rwkv_image_info(&image, NULL));
    OK(rwkv_image_info(&image, &info));
    CHECK(info.bytes == size && info.has_tokenizer && info.buffer_words == 0);
    CHECK(rwkv_state_words(&image) == RWKV_STATE_WORDS(info.layers, info.dim, info.state_width));
    CHECK(rwkv_state_words(&image) == info.state_words);
    CHECK(rwkv_scratch_words(&image) == info.scratch_words && rwkv_buffer_words(&image) == 0);
}

static void models(void) {
    float *scratch = words(info.scratch_words);
    memory.scratch = scratch;
    memory.scratch_words = info.scratch_words - 1;
    IS(NULL_POINTER, rwkv_model_init(&model, &image, NULL));
    IS(SCRATCH_SIZE, rwkv_model_init(&model, &image, &memory));
    CHECK(rwkv_model_detail(&model).value == info.scratch_words);
    IS(UNINITIALISED, rwkv_reset(&model, &state));
    memory.scratch = (float *)((uint8_t *)scratch + 1);
    IS(MISALIGNED_POINTER, rwkv_model_init(&model, &image, &memory));
    memory.scratch = scratch;
    memory.scratch_words++;
    OK(rwkv_model_init(&model, &image, &memory));

    float *of_state = words(info.state_words);
    IS(NULL_POINTER, rwkv_state_init(&state, NULL, info.state_words));
    OK(rwkv_state_init(&state, of_state, info.state_words - 1));
    IS(STATE_SIZE, rwkv_reset(&model, &state));
    CHECK(rwkv_model_detail(&model).value == info.state_words);
    OK(rwkv_state_init(&state, of_state, info.state_words));
    IS(BROKEN_STATE, rwkv_step(&model, &state, 'a', NULL));
    IS(NULL_POINTER, rwkv_step(&model, NULL, 'a', NULL));
    OK(rwkv_reset(&model, &state));
    IS(TOKEN, rwkv_step(&model, &state, info.vocab, NULL));
    CHECK(rwkv_model_detail(&model).place == info.vocab);
    CHECK(state.ready == 1);
}

static uint32_t pushed;

static void push(void *context, uint32_t first, const float *logits, uint32_t count) {
    CHECK(first == pushed);
    memcpy((float *)context + first, logits, count * sizeof *logits);
    pushed += count;
}

static rwkv_digest after(rwkv_model *of, rwkv_state *at, const char *text) {
    rwkv_digest digest;
    rwkv_output output = {0};
    output.digest = &digest;
    OK(rwkv_reset(of, at));
    OK(rwkv_prompt(of, at, TEXT(text), &output));
    OK(rwkv_token_digest(at, &image, &digest, &digest));
    return digest;
}

static int equal(rwkv_digest a, rwkv_digest b) {
    return a.low == b.low && a.high == b.high;
}

static void outputs(void) {
    float *logits = words(info.vocab), *taken = words(info.vocab), *hidden = words(info.dim);
    float *alone = words(info.dim);
    rwkv_sampler sampler;
    rwkv_sampler_config greedy = {0};
    rwkv_output output = {0};
    uint32_t token, best = 0;

    output.logits = logits;
    output.logits_count = info.vocab - 1;
    IS(LOGITS_SIZE, rwkv_step(&model, &state, 'a', &output));
    output.logits_count++;
    output.hidden = hidden;
    output.hidden_count = info.dim - 1;
    IS(ROOM, rwkv_step(&model, &state, 'a', &output));
    output.hidden_count++;
    memset(&sampler, 0, sizeof sampler);
    output.sampler = &sampler;
    IS(UNINITIALISED, rwkv_step(&model, &state, 'a', &output));
    OK(rwkv_sampler_init(&sampler, &greedy));
    IS(SAMPLER_NO_LOGITS, rwkv_sampler_next(&sampler, &token));
    output.push = push;
    output.context = taken;
    OK(rwkv_reset(&model, &state));
    OK(rwkv_prompt(&model, &state, TEXT("X:1\nT:"), &output));
    CHECK(pushed == info.vocab && memcmp(logits, taken, 4 * info.vocab) == 0);
    for (uint32_t i = 1; i < info.vocab; i++) {
        if (logits[i] > logits[best]) best = i;
    }
    IS(NULL_POINTER, rwkv_sampler_next(&sampler, NULL));
    OK(rwkv_sampler_next(&sampler, &token));
    CHECK(token == best);

    /* Token by token, and the hidden vector alone. */
    const uint32_t tokens[] = {'X', ':', '1', '\n', 'T', ':'};
    const rwkv_digest digest = after(&model, &state, "X:1\nT:");
    memset(&output, 0, sizeof output);
    output.hidden = alone;
    output.hidden_count = info.dim;
    OK(rwkv_reset(&model, &state));
    OK(rwkv_prefill(&model, &state, tokens, 4, NULL));
    OK(rwkv_step(&model, &state, 'T', NULL));
    OK(rwkv_prefill(&model, &state, tokens + 5, 1, &output));
    CHECK(memcmp(hidden, alone, 4 * info.dim) == 0);
    OK(rwkv_prefill(&model, &state, NULL, 0, &output));
    IS(NULL_POINTER, rwkv_prefill(&model, &state, NULL, 1, &output));
    CHECK(equal(digest, after(&model, &state, "X:1\nT:")));
    CHECK(!equal(digest, after(&model, &state, "X:1\nT;")));

    uint64_t needed, all;
    OK(rwkv_model_columns(&model, &needed, &all));
    CHECK(needed > 0 && needed < all);
    free(logits), free(taken), free(hidden), free(alone);
}

static void samplers(void) {
    rwkv_sampler sampler, twin;
    rwkv_sampler_config config = {.temperature = 1.0f, .top_p = 1.0f, .seed = 7};
    config.temperature = -1.0f;
    IS(SAMPLER_TEMPERATURE, rwkv_sampler_init(&sampler, &config));
    config.temperature = 1.0f;
    config.top_k = RWKV_MAX_CANDIDATES + 1;
    IS(SAMPLER_TOP_K, rwkv_sampler_init(&sampler, &config));
    config.top_k = 1u << 16;
    IS(SAMPLER_TOP_K, rwkv_sampler_init(&sampler, &config));
    config.top_k = 40;
    config.top_p = 1.5f;
    IS(SAMPLER_TOP_P, rwkv_sampler_init(&sampler, &config));
    IS(UNINITIALISED, rwkv_sampler_next(&sampler, &(uint32_t){0}));
    config.top_p = 0.9f;
    config.min_p = 2.0f;
    IS(SAMPLER_MIN_P, rwkv_sampler_init(&sampler, &config));
    config.min_p = 0.01f;
    config.repetition = -1.0f;
    IS(SAMPLER_REPETITION, rwkv_sampler_init(&sampler, &config));
    config.repetition = 1.1f;
    config.presence = 1.0f / 0.0f;
    IS(SAMPLER_PENALTY, rwkv_sampler_init(&sampler, &config));
    config.presence = 0.1f;
    config.penalty_decay = 1.5f;
    IS(SAMPLER_PENALTY_DECAY, rwkv_sampler_init(&sampler, &config));
    config.penalty_decay = 0.99f;
    config.order = 2;
    IS(SAMPLER_ORDER, rwkv_sampler_init(&sampler, &config));
    config.order = 1;
    OK(rwkv_sampler_init(&sampler, &config));
    OK(rwkv_sampler_init(&twin, &config));
    rwkv_output output = {0};
    OK(rwkv_reset(&model, &state));
    output.sampler = &sampler;
    OK(rwkv_prompt(&model, &state, TEXT("X:1\n"), &output));
    OK(rwkv_reset(&model, &state));
    output.sampler = &twin;
    OK(rwkv_prompt(&model, &state, TEXT("X:1\n"), &output));
    for (int i = 0; i < 100; i++) {
        uint32_t one, other;
        OK(rwkv_sampler_next(&sampler, &one));
        OK(rwkv_sampler_next(&twin, &other));
        CHECK(one == other);
    }
}

static void saving(void) {
    const size_t len = RWKV_SAVED_STATE_BYTES(info.state_words);
    uint8_t *saved = words(len / 4);
    rwkv_place place = {6, '|'};
    const rwkv_digest before = after(&model, &state, "X:1\nT:");
    rwkv_digest digest, again;
    OK(rwkv_token_digest(&state, &image, NULL, &digest));
    CHECK(!equal(before, digest));
    place.pending = info.vocab;
    IS(SAVED_PENDING, rwkv_state_save(&state, &image, place, saved));
    CHECK(state.detail.value == info.vocab);
    place.pending = '|';
    IS(NULL_POINTER, rwkv_state_save(&state, &image, place, NULL));
    OK(rwkv_state_save(&state, &image, place, saved));
    memcpy(saved + RWKV_SAVED_BYTES, state.words, 4 * info.state_words);

    after(&model, &state, "something else");
    OK(rwkv_state_restore(&state, &image, saved, len, &place));
    CHECK(place.position == 6 && place.pending == '|');
    OK(rwkv_token_digest(&state, &image, NULL, &again));
    CHECK(equal(digest, again));
    IS(SAVED_LENGTH, rwkv_state_restore(&state, &image, saved, len - 4, NULL));
    CHECK(state.detail.value == len && state.detail.place == len - 4);
    IS(SAVED_LENGTH, rwkv_state_restore(&state, &image, saved, 3, NULL));
    saved[len - 1] ^= 1;
    IS(SAVED_CHECKSUM, rwkv_state_restore(&state, &image, saved, len, NULL));
    saved[8] ^= 1;
    IS(SAVED_HEADER_CHECKSUM, rwkv_state_restore(&state, &image, saved, len, NULL));
    saved[0] ^= 1;
    IS(SAVED_MAGIC, rwkv_state_restore(&state, &image, saved, len, NULL));
    CHECK(state.ready == 1);
    state.ready = 0;
    IS(SAVED_BROKEN, rwkv_state_save(&state, &image, place, saved));
    IS(BROKEN_STATE, rwkv_token_digest(&state, &image, NULL, &digest));
    free(saved);
}

static int append(void *context, const uint8_t *text, size_t len) {
    strncat(context, (const char *)text, len);
    return 0;
}

static int refuse(void *context, const uint8_t *text, size_t len) {
    (void)context, (void)text, (void)len;
    return 1;
}

static void texts(void) {
    uint32_t tokens[4];
    size_t count, len;
    const uint8_t *text;
    IS(ROOM, rwkv_encode(&image, TEXT("hello"), NULL, 0, &count));
    CHECK(count == 5);
    IS(ROOM, rwkv_encode(&image, TEXT("hello"), tokens, 4, &count));
    OK(rwkv_encode(&image, TEXT("hell"), tokens, 4, &count));
    CHECK(count == 4 && tokens[0] == 'h' && tokens[3] == 'l');
    OK(rwkv_encode(&image, NULL, 0, NULL, 0, &count));
    CHECK(count == 0);
    OK(rwkv_decode(&image, tokens[1], &text, &len));
    CHECK(len == 1 && text[0] == 'e');
    IS(UNKNOWN_TOKEN, rwkv_decode(&image, 1u << 20, &text, &len));
    CHECK(rwkv_end_of_text(&image) == RWKV_NO_TOKEN);

    char out[32] = "";
    rwkv_utf8 stream;
    memset(&stream, 0, sizeof stream);
    IS(UNINITIALISED, rwkv_utf8_push(&stream, TEXT("a"), append, out));
    OK(rwkv_utf8_init(&stream));
    IS(NULL_POINTER, rwkv_utf8_push(&stream, TEXT("a"), NULL, out));
    OK(rwkv_utf8_push(&stream, TEXT("caf\xc3"), append, out));
    CHECK(strcmp(out, "caf") == 0);
    OK(rwkv_utf8_push(&stream, TEXT("\xa9 \xe2\x82"), append, out));
    OK(rwkv_utf8_finish(&stream, append, out));
    CHECK(strcmp(out, "caf\xc3\xa9 \xef\xbf\xbd") == 0);
    IS(WRITE, rwkv_utf8_push(&stream, TEXT("a"), refuse, out));
}

/* A chip whose n-th read fails, or comes with a flipped bit. */
struct chip {
    unsigned reads, fail, flip;
};

static int chip_read(void *context, uint32_t offset, void *out, uint32_t len) {
    struct chip *chip = context;
    const size_t at = offset - 4096;
    CHECK(offset % 4 == 0 && len % 4 == 0 && at <= size && len <= size - at);
    if (++chip->reads == chip->fail) return -1;
    memcpy(out, bytes + at, len);
    if (chip->reads == chip->flip) *((uint8_t *)out + len - 1) ^= 0x40;
    return 0;
}

static void media(void) {
    struct chip chip = {0};
    rwkv_medium medium = {chip_read, &chip, 4096};
    const rwkv_digest expected = after(&model, &state, "X:1\nT:");
    rwkv_image on_chip;
    rwkv_model slow;
    rwkv_memory of_slow = memory;
    of_slow.scratch = words(info.scratch_words);
    of_slow.buffer = words(16384);
    IS(ROOM, rwkv_image_open_medium(&on_chip, &medium, of_slow.buffer, 19));
    CHECK(rwkv_image_detail(&on_chip).value == 20);
    medium.offset = 4098;
    IS(STREAM_MISPLACED, rwkv_image_open_medium(&on_chip, &medium, of_slow.buffer, 1024));
    medium.offset = 4096;
    medium.read = NULL;
    IS(NULL_POINTER, rwkv_image_open_medium(&on_chip, &medium, of_slow.buffer, 1024));
    medium.read = chip_read;
    chip.fail = chip.reads + 1;
    IS(STREAM_MEDIUM, rwkv_image_open_medium(&on_chip, &medium, of_slow.buffer, 1024));
    chip.flip = chip.reads + 2;
    IS(IMAGE_HEADER_CHECKSUM, rwkv_image_open_medium(&on_chip, &medium, of_slow.buffer, 1024));
    OK(rwkv_image_open_medium(&on_chip, &medium, of_slow.buffer, 1024));
    rwkv_info told;
    OK(rwkv_image_info(&on_chip, &told));
    CHECK(told.identity == info.identity && told.buffer_words == rwkv_buffer_words(&on_chip));

    uint32_t *buffer = of_slow.buffer;
    of_slow.buffer = NULL;
    IS(NO_BUFFER, rwkv_model_init(&slow, &on_chip, &of_slow));
    of_slow.buffer = buffer;
    of_slow.buffer_words = told.buffer_words - 1;
    IS(ROOM, rwkv_model_init(&slow, &on_chip, &of_slow));
    CHECK(rwkv_model_detail(&slow).value == told.buffer_words);
    of_slow.buffer_words++;
    OK(rwkv_model_init(&slow, &on_chip, &of_slow));
    CHECK(equal(expected, after(&slow, &state, "X:1\nT:")));

    /* Without memory to undo, a token that fails leaves the state broken. */
    chip.fail = chip.reads + 9;
    IS(STREAM_MEDIUM, rwkv_step(&slow, &state, 'a', NULL));
    CHECK(rwkv_model_detail(&slow).place > 4096);
    IS(BROKEN_STATE, rwkv_step(&slow, &state, 'a', NULL));

    /* With it, the token may be tried again. */
    of_slow.undo = words(info.state_words);
    of_slow.undo_words = info.state_words - 1;
    IS(STATE_SIZE, rwkv_model_init(&slow, &on_chip, &of_slow));
    of_slow.undo_words++;
    OK(rwkv_model_init(&slow, &on_chip, &of_slow));
    after(&slow, &state, "X:1\nT");
    rwkv_digest digest;
    rwkv_output output = {0};
    output.digest = &digest;
    for (unsigned read = 1; read < 40; read++) {
        chip.fail = chip.reads + read;
        IS(STREAM_MEDIUM, rwkv_step(&slow, &state, ':', &output));
        chip.flip = chip.reads + read;
        const rwkv_error error = rwkv_step(&slow, &state, ':', &output);
        CHECK(error == RWKV_ERROR_IMAGE_BLOCK_CHECKSUM || error == RWKV_ERROR_IMAGE_RECORD);
    }
    OK(rwkv_step(&slow, &state, ':', &output));
    OK(rwkv_token_digest(&state, &image, &digest, &digest));
    CHECK(equal(expected, digest));
    free(of_slow.scratch), free(of_slow.undo), free(buffer);
}

int main(int count, char **arguments) {
    FILE *file = count == 2 ? fopen(arguments[1], "rb") : NULL;
    CHECK(file && fseek(file, 0, SEEK_END) == 0);
    size = (size_t)ftell(file);
    rewind(file);
    bytes = words(size / 4);
    CHECK(fread(bytes, 1, size, file) == size);
    fclose(file);
    names();
    opening();
    models();
    outputs();
    samplers();
    saving();
    texts();
    media();
    free(memory.scratch), free(state.words), free(bytes);
    printf("%u checks passed\n", checks);
    return EXIT_SUCCESS;
}
