/* Every function and what it refuses, on this machine, over an image with a byte tokenizer.
 * `cargo xtask c` builds it with the sanitizers of gcc and runs it for the models that ship. It is
 * given what `rwkv place` puts into flash, and told what Rust generates: with the mask below; a stop
 * text, and what stands before that without the mask. */

#include <math.h>
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

static void *read_file(const char *path, size_t *len) {
    FILE *file = fopen(path, "rb");
    CHECK(file && fseek(file, 0, SEEK_END) == 0);
    *len = (size_t)ftell(file);
    rewind(file);
    void *content = words(*len / 4);
    CHECK(fread(content, 1, *len, file) == *len);
    fclose(file);
    return content;
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

    /* What the next token costs, from the logits: -log2 of its share. */
    rwkv_surprise surprise = {.next = 'H'};
    memset(&output, 0, sizeof output);
    output.surprise = &surprise;
    output.logits = logits;
    output.logits_count = info.vocab;
    OK(rwkv_reset(&model, &state));
    OK(rwkv_prefill(&model, &state, tokens, 6, &output));
    double sum = 0;
    for (uint32_t i = 0; i < info.vocab; i++) sum += exp(logits[i] - logits['H']);
    CHECK(fabs(surprise.bits - log2(sum)) < 1e-4);
    const float bits = surprise.bits;
    output.logits = NULL;
    OK(rwkv_reset(&model, &state));
    OK(rwkv_prefill(&model, &state, tokens, 6, &output));
    CHECK(surprise.bits == bits);
    surprise.next = info.vocab;
    OK(rwkv_step(&model, &state, 'H', &output));
    CHECK(surprise.bits == -1);

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

/* As in `cargo xtask c`. */
static const char PROMPT[] = "X:1\nT:";
static const rwkv_sampler_config SAMPLER = {
    .temperature = 0.8f, .top_p = 0.95f, .top_k = 40, .seed = 3};

static char text[4096];

static int append(void *context, const uint8_t *more, size_t len) {
    strncat(context, (const char *)more, len);
    return 0;
}

static int refuse(void *context, const uint8_t *more, size_t len) {
    (void)context, (void)more, (void)len;
    return 1;
}

/* Continues the prompt until a stop text is found, which is returned, or by `limit` tokens. */
static uint32_t generate(rwkv_sampler *sampler, rwkv_stop *stop, int limit) {
    uint32_t token, found = RWKV_NO_STOP;
    rwkv_output output = {0};
    output.sampler = sampler;
    text[0] = 0;
    OK(rwkv_reset(&model, &state));
    OK(rwkv_prompt(&model, &state, TEXT(PROMPT), &output));
    for (int i = 0; i < limit && found == RWKV_NO_STOP; i++) {
        const uint8_t *piece;
        size_t len;
        if (i > 0) OK(rwkv_step(&model, &state, token, &output));
        OK(rwkv_sampler_next(sampler, &token));
        OK(rwkv_decode(&image, token, &piece, &len));
        OK(rwkv_stop_push(stop, piece, len, append, text, &found));
    }
    OK(rwkv_stop_finish(stop, append, text));
    return found;
}

static unsigned asked;

/* No digits. */
static int allows(void *context, uint32_t token) {
    CHECK(context == &asked);
    asked++;
    return token < '0' || token > '9';
}

static void masks(const char *expected) {
    static const uint32_t banned[] = {'A', 'e', '|'};
    /* The line feed and what can be printed. */
    uint32_t allowed[4] = {1u << '\n', ~0u, ~0u, ~0u >> 1};
    rwkv_mask mask = {.banned = banned, .banned_count = 3, .allowed = allowed, .allowed_words = 4};
    rwkv_sampler sampler;
    rwkv_stop stop;
    OK(rwkv_stop_init(&stop, NULL, 0));
    memset(&sampler, 0, sizeof sampler);
    IS(UNINITIALISED, rwkv_sampler_within(&sampler, &mask));
    OK(rwkv_sampler_init(&sampler, &SAMPLER));
    CHECK(generate(&sampler, &stop, 200) == RWKV_NO_STOP);
    char *free_text = strcpy(words(sizeof text / 4), text);
    CHECK(strpbrk(free_text, "Ae|") && strpbrk(free_text, "0123456789"));

    mask.allows = allows;
    mask.context = &asked;
    OK(rwkv_sampler_init(&sampler, &SAMPLER));
    OK(rwkv_sampler_within(&sampler, &mask));
    const uint32_t unordered[] = {'e', 'A'};
    const rwkv_mask wrong = {.banned = unordered, .banned_count = 2};
    IS(SAMPLER_BANNED_ORDER, rwkv_sampler_within(&sampler, &wrong));
    CHECK(generate(&sampler, &stop, 200) == RWKV_NO_STOP);
    CHECK(asked > 0 && !strpbrk(text, "Ae|0123456789"));
    CHECK(strcmp(text, expected) == 0);

    /* The bits may change; where they allow nothing, there is nothing to choose. */
    uint32_t token;
    rwkv_output output = {0};
    output.sampler = &sampler;
    memset(allowed, 0, sizeof allowed);
    OK(rwkv_step(&model, &state, 'a', &output));
    IS(SAMPLER_NOTHING_ALLOWED, rwkv_sampler_next(&sampler, &token));
    allowed['q' / 32] = 1u << 'q' % 32;
    OK(rwkv_step(&model, &state, 'a', &output));
    OK(rwkv_sampler_next(&sampler, &token));
    CHECK(token == 'q');
    OK(rwkv_sampler_within(&sampler, NULL));
    OK(rwkv_sampler_init(&sampler, &SAMPLER));
    CHECK(generate(&sampler, &stop, 200) == RWKV_NO_STOP);
    CHECK(strcmp(text, free_text) == 0);
    free(free_text);
}

static void stops(const char *last, const char *expected) {
    const rwkv_text texts[] = {{TEXT("never, ever")}, {TEXT(last)}};
    rwkv_sampler sampler;
    rwkv_stop stop;
    uint32_t found;
    memset(&stop, 0, sizeof stop);
    IS(UNINITIALISED, rwkv_stop_push(&stop, TEXT("a"), append, text, &found));
    IS(EMPTY_STOP_TEXT, rwkv_stop_init(&stop, &(rwkv_text){TEXT("")}, 1));
    IS(NULL_POINTER, rwkv_stop_init(&stop, &(rwkv_text){NULL, 1}, 1));
    IS(NULL_POINTER, rwkv_stop_init(&stop, NULL, 1));
    OK(rwkv_stop_init(&stop, texts, 2));
    OK(rwkv_sampler_init(&sampler, &SAMPLER));
    /* A token is a byte here, so the stop text lies across tokens. */
    CHECK(strlen(last) > 1 && generate(&sampler, &stop, 200) == 1);
    CHECK(strcmp(text, expected) == 0);

    const rwkv_text ends[] = {{TEXT("\n\n")}, {TEXT("User:")}};
    OK(rwkv_stop_init(&stop, ends, 2));
    text[0] = 0;
    OK(rwkv_stop_push(&stop, TEXT("Yes.\nUs"), append, text, &found));
    CHECK(found == RWKV_NO_STOP && strcmp(text, "Yes.\n") == 0);
    OK(rwkv_stop_push(&stop, TEXT("er: and"), append, text, &found));
    CHECK(found == 1);
    OK(rwkv_stop_push(&stop, TEXT("lost"), append, text, &found));
    OK(rwkv_stop_finish(&stop, append, text));
    CHECK(found == 1 && strcmp(text, "Yes.\n") == 0);
    OK(rwkv_stop_push(&stop, TEXT("\n"), append, text, &found));
    OK(rwkv_stop_finish(&stop, append, text));
    CHECK(found == RWKV_NO_STOP && strcmp(text, "Yes.\n\n") == 0);
    IS(WRITE, rwkv_stop_push(&stop, TEXT("a"), refuse, text, &found));
    IS(NULL_POINTER, rwkv_stop_push(&stop, TEXT("a"), NULL, text, &found));
    IS(NULL_POINTER, rwkv_stop_push(&stop, TEXT("a"), append, text, NULL));
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

/* A flash whose power goes after so many bytes that are written or erased. */
enum { FLASH_FIRST = 8192, ERASED_AT_ONCE = 4096 };
struct flash {
    uint8_t *bytes;
    size_t size, power;
};

static int flash_read(void *context, uint32_t offset, void *out, uint32_t len) {
    struct flash *flash = context;
    CHECK(offset % 64 == 0 && len == 64 && offset <= flash->size - len);
    if (flash->power == 0) return -1;
    memcpy(out, flash->bytes + offset, len);
    return 0;
}

static int flash_write(void *context, uint32_t offset, const void *from, uint32_t len) {
    struct flash *flash = context;
    CHECK(offset >= FLASH_FIRST && offset % 64 == 0 && len == 64 && offset <= flash->size - len);
    for (uint32_t i = 0; i < len; i++) {
        if (flash->power == 0 || --flash->power == 0) return -1;
        CHECK(flash->bytes[offset + i] == 0xff);
        flash->bytes[offset + i] &= ((const uint8_t *)from)[i];
    }
    return 0;
}

static int flash_erase(void *context, uint32_t offset, uint32_t len) {
    struct flash *flash = context;
    CHECK(offset >= FLASH_FIRST && offset % ERASED_AT_ONCE == 0 && len % ERASED_AT_ONCE == 0);
    CHECK(len <= flash->size && offset <= flash->size - len);
    for (uint32_t i = 0; i < len; i++) {
        if (flash->power == 0 || --flash->power == 0) return -1;
        flash->bytes[offset + i] = 0xff;
    }
    return 0;
}

static rwkv_digest of_state(void) {
    rwkv_digest digest;
    OK(rwkv_token_digest(&state, &image, NULL, &digest));
    return digest;
}

static void snapshots(void) {
    const size_t both = RWKV_SNAPSHOTS_BYTES(info.state_words, ERASED_AT_ONCE);
    const uint32_t room = (uint32_t)(FLASH_FIRST + both);
    struct flash chip = {words(room / 4), room, ~(size_t)0};
    rwkv_flash flash = {flash_read, flash_write, flash_erase, &chip, room, 4, 8, ERASED_AT_ONCE};
    rwkv_snapshots kept;
    rwkv_place place = {6, 'A'};
    memset(&kept, 0, sizeof kept);
    IS(UNINITIALISED, rwkv_snapshots_load(&kept, &state, &image, &place));
    flash.bytes--;
    IS(SNAPSHOT_ROOM, rwkv_snapshots_init(&kept, &flash, FLASH_FIRST, &image));
    CHECK(rwkv_snapshots_detail(&kept).value == both);
    CHECK(rwkv_snapshots_detail(&kept).place == both - 1);
    flash.bytes++;
    IS(SNAPSHOT_ROOM, rwkv_snapshots_init(&kept, &flash, FLASH_FIRST - 64, &image));
    flash.write_size = 256;
    IS(SNAPSHOT_GEOMETRY, rwkv_snapshots_init(&kept, &flash, FLASH_FIRST, &image));
    flash.write_size = 8;
    for (uint32_t erased = 0; erased < 64; erased += 32) {
        flash.erase_size = erased;
        IS(SNAPSHOT_GEOMETRY, rwkv_snapshots_init(&kept, &flash, FLASH_FIRST, &image));
    }
    flash.erase_size = ERASED_AT_ONCE;
    flash.erase = NULL;
    IS(NULL_POINTER, rwkv_snapshots_init(&kept, &flash, FLASH_FIRST, &image));
    flash.erase = flash_erase;
    OK(rwkv_snapshots_init(&kept, &flash, FLASH_FIRST, &image));

    /* Nothing, one, and where both go on. */
    after(&model, &state, "X:1\nT:");
    const rwkv_digest first = of_state();
    IS(NO_SNAPSHOT, rwkv_snapshots_load(&kept, &state, &image, &place));
    CHECK(equal(first, of_state()));
    place.pending = info.vocab;
    IS(SAVED_PENDING, rwkv_snapshots_save(&kept, &state, &image, place));
    CHECK(rwkv_snapshots_detail(&kept).value == info.vocab);
    place.pending = 'A';
    OK(rwkv_snapshots_save(&kept, &state, &image, place));
    OK(rwkv_step(&model, &state, 'A', NULL));
    const rwkv_digest second = of_state();
    OK(rwkv_step(&model, &state, 'B', NULL));
    const rwkv_digest third = of_state();

    /* Power is lost somewhere in saving the second one: there is the first one then, or the second,
     * and either goes on as if nothing had been. */
    const size_t writes = both / 2 + 128 + 4 * info.state_words;
    uint8_t *before = words(room / 4);
    memcpy(before, chip.bytes, room);
    unsigned lost = 0;
    for (size_t power = 1; power < writes + 64; power += writes / 40) {
        memcpy(chip.bytes, before, room);
        OK(rwkv_snapshots_load(&kept, &state, &image, &place));
        OK(rwkv_step(&model, &state, place.pending, NULL));
        chip.power = power;
        const rwkv_place next = {7, 'B'};
        const rwkv_error error = rwkv_snapshots_save(&kept, &state, &image, next);
        CHECK(error == RWKV_ERROR_OK || error == RWKV_ERROR_SNAPSHOT_FLASH);
        chip.power = ~(size_t)0;
        OK(rwkv_reset(&model, &state));
        OK(rwkv_snapshots_load(&kept, &state, &image, &place));
        CHECK(place.position == 7 || error != RWKV_ERROR_OK);
        if (place.position == 6) {
            lost++;
            CHECK(place.pending == 'A' && equal(first, of_state()));
            OK(rwkv_step(&model, &state, place.pending, NULL));
            place.pending = 'B';
        }
        CHECK(place.pending == 'B' && equal(second, of_state()));
        OK(rwkv_step(&model, &state, place.pending, NULL));
        CHECK(equal(third, of_state()));
    }
    CHECK(lost > 30 && equal(third, of_state()));
    /* A flash that cannot be read leaves the state alone. */
    chip.power = 0;
    IS(SNAPSHOT_FLASH, rwkv_snapshots_load(&kept, &state, &image, &place));
    CHECK(rwkv_snapshots_detail(&kept).place == FLASH_FIRST && equal(third, of_state()));
    free(chip.bytes), free(before);
}

static void texts(void) {
    uint32_t tokens[4];
    size_t count, len;
    const uint8_t *piece;
    IS(ROOM, rwkv_encode(&image, TEXT("hello"), NULL, 0, &count));
    CHECK(count == 5);
    IS(ROOM, rwkv_encode(&image, TEXT("hello"), tokens, 4, &count));
    OK(rwkv_encode(&image, TEXT("hell"), tokens, 4, &count));
    CHECK(count == 4 && tokens[0] == 'h' && tokens[3] == 'l');
    OK(rwkv_encode(&image, NULL, 0, NULL, 0, &count));
    CHECK(count == 0);
    OK(rwkv_decode(&image, tokens[1], &piece, &len));
    CHECK(len == 1 && piece[0] == 'e');
    IS(UNKNOWN_TOKEN, rwkv_decode(&image, 1u << 20, &piece, &len));
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
    int code; /* of a read that fails, -1 unless told */
};

static int chip_read(void *context, uint32_t offset, void *out, uint32_t len) {
    struct chip *chip = context;
    const size_t at = offset - 4096;
    CHECK(offset % 4 == 0 && len % 4 == 0 && at <= size && len <= size - at);
    if (++chip->reads == chip->fail) return chip->code ? chip->code : -1;
    memcpy(out, bytes + at, len);
    if (chip->reads == chip->flip) *((uint8_t *)out + len - 1) ^= 0x40;
    return 0;
}

static void media(void) {
    struct chip chip = {0};
    rwkv_medium medium = {.read = chip_read, .context = &chip, .offset = 4096};
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
    /* Room for the header, and for what comes whole, at least. With less than for every block, rows
     * come in pieces. */
    of_slow.buffer_words = 16;
    IS(ROOM, rwkv_model_init(&slow, &on_chip, &of_slow));
    of_slow.buffer_words = rwkv_model_detail(&slow).value;
    OK(rwkv_model_init(&slow, &on_chip, &of_slow));
    CHECK(equal(expected, after(&slow, &state, "X:1\nT:")));
    const size_t least = rwkv_least_buffer_words(&on_chip);
    CHECK(least < told.buffer_words);
    const size_t rooms[] = {least, least + 9, told.buffer_words - 1, told.buffer_words};
    for (size_t i = 0; i < sizeof rooms / sizeof rooms[0]; i++) {
        of_slow.buffer_words = rooms[i];
        OK(rwkv_model_init(&slow, &on_chip, &of_slow));
        CHECK(equal(expected, after(&slow, &state, "X:1\nT:")));
    }

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
    /* Every read of a token. */
    const unsigned before = chip.reads;
    OK(rwkv_step(&slow, &state, ':', &output));
    const unsigned all = chip.reads - before;
    CHECK(all > 40);
    after(&slow, &state, "X:1\nT");
    rwkv_sampler choice;
    const rwkv_sampler_config greedy = {0};
    OK(rwkv_sampler_init(&choice, &greedy));
    output.sampler = &choice;
    for (unsigned read = 1; read <= all; read++) {
        chip.fail = chip.reads + read;
        chip.code = read % 2 ? RWKV_CHANGED : 0;
        const rwkv_error failed = rwkv_step(&slow, &state, ':', &output);
        CHECK(failed == (read % 2 ? RWKV_ERROR_STREAM_CHANGED : RWKV_ERROR_STREAM_MEDIUM));
        /* Part of a row is none. */
        uint32_t token;
        IS(SAMPLER_NO_LOGITS, rwkv_sampler_next(&choice, &token));
        chip.flip = chip.reads + read;
        const rwkv_error error = rwkv_step(&slow, &state, ':', &output);
        CHECK(error == RWKV_ERROR_IMAGE_BLOCK_CHECKSUM || error == RWKV_ERROR_IMAGE_RECORD);
    }
    OK(rwkv_step(&slow, &state, ':', &output));
    OK(rwkv_token_digest(&state, &image, &digest, &digest));
    CHECK(equal(expected, digest));

    /* The whole image, and any byte of it. */
    uint32_t pieces[RWKV_CHECK_WORDS];
    OK(rwkv_image_check(&on_chip, pieces, RWKV_CHECK_WORDS));
    IS(STREAM_BUFFER, rwkv_image_check(&on_chip, pieces, 4));
    OK(rwkv_image_check(&image, NULL, 0));
    for (size_t i = 0; i < 16; i++) {
        uint8_t *byte = bytes + i * (size / 16) + 5;
        *byte ^= 0x10;
        CHECK(rwkv_image_check(&on_chip, pieces, RWKV_CHECK_WORDS) != RWKV_ERROR_OK);
        *byte ^= 0x10;
    }
    OK(rwkv_image_check(&on_chip, pieces, RWKV_CHECK_WORDS));
    free(of_slow.scratch), free(of_slow.undo), free(buffer);
}

/* Ranges of a placement: every second stretch of `step` words, a third of them in RAM. */
enum { MOST_RANGES = 4096 };
static uint32_t ranges[2][MOST_RANGES][3];

static rwkv_placement placement_of(uint32_t step) {
    rwkv_placement placement = {.identity = info.identity};
    uint32_t counts[2] = {0}, held[2] = {0};
    uint32_t *memories[2] = {words(size / 4), words(size / 4)};
    for (uint32_t first = 0; first + step <= size / 4; first += 2 * step) {
        const unsigned in_ram = first / (2 * step) % 3 == 2;
        uint32_t *range = ranges[in_ram][counts[in_ram]++];
        CHECK(counts[in_ram] < MOST_RANGES);
        range[0] = first, range[1] = step, range[2] = held[in_ram];
        if (!in_ram) memcpy(memories[0] + held[0], bytes + 4 * first, 4 * step);
        held[in_ram] += step;
    }
    placement.flash_ranges = (const uint32_t (*)[3])ranges[0];
    placement.flash_count = counts[0];
    placement.flash = memories[0];
    placement.flash_words = held[0];
    placement.ram_ranges = (const uint32_t (*)[3])ranges[1];
    placement.ram_count = counts[1];
    placement.ram = memories[1];
    placement.ram_words = held[1];
    return placement;
}

static void placements(void) {
    struct chip chip = {0};
    const rwkv_medium medium = {.read = chip_read, .context = &chip, .offset = 4096};
    const rwkv_digest expected = after(&model, &state, "X:1\nT:");
    rwkv_image placed;
    rwkv_model partly;
    rwkv_memory of_partly = memory;
    of_partly.scratch = words(info.scratch_words);
    of_partly.buffer = words(16384);
    of_partly.buffer_words = 16384;
    uint32_t *buffer = of_partly.buffer;

    OK(rwkv_image_open_medium(&placed, &medium, buffer, 1024));
    OK(rwkv_model_init(&partly, &placed, &of_partly));
    chip.reads = 0;
    CHECK(equal(expected, after(&partly, &state, "X:1\nT:")));
    const unsigned all = chip.reads;

    for (uint32_t step = 800; step <= 3000; step += 1100) {
        rwkv_placement placement = placement_of(step);
        IS(NULL_POINTER, rwkv_image_open_placed(&placed, &medium, NULL, buffer, 1024));
        placement.identity ^= 1;
        IS(STREAM_OTHER_IMAGE, rwkv_image_open_placed(&placed, &medium, &placement, buffer, 1024));
        CHECK(rwkv_image_detail(&placed).value == info.identity);
        placement.identity ^= 1;
        placement.ram_words--;
        IS(STREAM_BUFFER, rwkv_image_open_placed(&placed, &medium, &placement, buffer, 1024));
        placement.ram_words++;
        chip.fail = chip.reads + 3;
        IS(STREAM_MEDIUM, rwkv_image_open_placed(&placed, &medium, &placement, buffer, 1024));
        chip.fail = 0;
        OK(rwkv_image_open_placed(&placed, &medium, &placement, buffer, 1024));
        OK(rwkv_model_init(&partly, &placed, &of_partly));
        chip.reads = 0;
        CHECK(equal(expected, after(&partly, &state, "X:1\nT:")));
        CHECK(chip.reads < all * 3 / 4);
        /* What lies in a memory is compared with its checksums, too. */
        for (size_t i = 0; i < placement.flash_words; i++) ((uint32_t *)placement.flash)[i] ^= 1;
        const rwkv_error error = rwkv_step(&partly, &state, 'a', NULL);
        CHECK(error == RWKV_ERROR_IMAGE_BLOCK_CHECKSUM || error == RWKV_ERROR_IMAGE_RECORD);
        free((void *)placement.flash), free(placement.ram);
    }
    free(of_partly.scratch), free(buffer);
}

/* A chip that reads by itself, and has read when it was asked `slow` times. */
struct dma {
    struct chip chip;
    void *out;
    uint32_t offset, len;
    unsigned begun, asks, slow, refuse, fail;
};

static int dma_begin(void *context, uint32_t offset, void *out, uint32_t len) {
    struct dma *dma = context;
    CHECK(!dma->out);
    if (++dma->begun == dma->refuse) return 5;
    dma->out = out, dma->offset = offset, dma->len = len, dma->asks = 0;
    memset(out, 0xA5, len);
    return 0;
}

static int dma_ready(void *context) {
    struct dma *dma = context;
    CHECK(dma->out);
    if (dma->asks++ < dma->slow) {
        /* It writes as long as it goes on. */
        memset(dma->out, (int)dma->asks, dma->len);
        return 1;
    }
    OK(chip_read(&dma->chip, dma->offset, dma->out, dma->len) ? RWKV_ERROR_OTHER : RWKV_ERROR_OK);
    dma->out = NULL;
    return dma->begun == dma->fail ? -1 : 0;
}

#define dma_start dma_begin
#define dma_failed(dma) (((struct dma *)(dma))->refuse != 0)
#define dma_runs dma_ready
#define OFFSET 4096
#include "image.h"
#include "book.c"

/* With what `rwkv info` and `rwkv place` wrote of this image. */
static void book(const char *flash_bin) {
    rwkv_sampler sampler;
    rwkv_output output = {0};
    output.sampler = &sampler;
    OK(rwkv_sampler_init(&sampler, &SAMPLER));
    OK(forbid(&sampler));
    OK(rwkv_reset(&model, &state));
    OK(rwkv_prompt(&model, &state, TEXT(PROMPT), &output));
    text[0] = 0;
    OK(answer(&output, append, text));
    CHECK(strlen(text) > 0 && !strstr(text, "\n\n") && !strpbrk(text, "Ae|0123456789"));

    const uint32_t room = (uint32_t)RWKV_SNAPSHOTS_BYTES(info.state_words, ERASED_AT_ONCE);
    struct flash chip = {words((FLASH_FIRST + room) / 4), FLASH_FIRST + room, ~(size_t)0};
    const rwkv_flash flash = {
        flash_read, flash_write, flash_erase, &chip, FLASH_FIRST + room, 1, 1, ERASED_AT_ONCE};
    OK(resume(&flash, FLASH_FIRST));
    CHECK(place.position == 0 && place.pending == RWKV_NO_TOKEN);
    const rwkv_digest expected = after(&model, &state, "X:1\nT:");
    const rwkv_digest digest = of_state();
    OK(keep(6, '|'));
    after(&model, &state, "another");
    OK(resume(&flash, FLASH_FIRST));
    CHECK(place.position == 6 && place.pending == '|' && equal(digest, of_state()));
    free(chip.bytes);

    struct dma dma = {.slow = 2};
    rwkv_image on_chip;
    rwkv_model quick;
    rwkv_memory of_quick = memory;
    of_quick.buffer = buffers;
    of_quick.buffer_words = sizeof buffers / 4;
    OK(open_ahead(&on_chip, &dma));
    CHECK(rwkv_buffer_words(&on_chip) <= sizeof buffers / 4);
    OK(rwkv_model_init(&quick, &on_chip, &of_quick));
    CHECK(equal(expected, after(&quick, &state, "X:1\nT:")));

    size_t len;
    uint32_t *words_of_flash = read_file(flash_bin, &len);
    struct chip slow = {0};
    const rwkv_medium medium = {.read = chip_read, .context = &slow, .offset = OFFSET};
    OK(open_placed(&on_chip, &medium, words_of_flash, len / 4));
    OK(rwkv_model_init(&quick, &on_chip, &of_quick));
    CHECK(equal(expected, after(&quick, &state, "X:1\nT:")));
    free(words_of_flash);
}

static unsigned meanwhile;

/* Counts the logits that come while the chip reads. */
static void watch(void *context, uint32_t first, const float *logits, uint32_t count) {
    (void)first, (void)logits;
    if (((struct dma *)context)->out) meanwhile += count;
}

static void reading_ahead(void) {
    struct dma dma = {.slow = 3};
    rwkv_medium medium = {.context = &dma, .offset = 4096, .begin = dma_begin};
    const rwkv_digest expected = after(&model, &state, "X:1\nT:");
    rwkv_image ahead;
    rwkv_model quick;
    rwkv_info told;
    rwkv_memory of_quick = memory;
    of_quick.scratch = words(info.scratch_words);
    of_quick.undo = words(info.state_words);
    of_quick.undo_words = info.state_words;
    uint32_t *buffer = words(65536);
    IS(NULL_POINTER, rwkv_image_open_ahead(&ahead, &medium, NULL, buffer, 1024));
    medium.ready = dma_ready;
    dma.refuse = 1;
    IS(STREAM_MEDIUM, rwkv_image_open_ahead(&ahead, &medium, NULL, buffer, 1024));
    dma.fail = dma.begun + 2;
    IS(STREAM_MEDIUM, rwkv_image_open_ahead(&ahead, &medium, NULL, buffer, 1024));
    OK(rwkv_image_open_ahead(&ahead, &medium, NULL, buffer, 1024));
    OK(rwkv_image_info(&ahead, &told));
    const size_t room = rwkv_buffer_words(&ahead);
    CHECK(told.identity == info.identity && told.buffer_words == room);

    of_quick.buffer = buffer;
    of_quick.buffer_words = 16;
    IS(ROOM, rwkv_model_init(&quick, &ahead, &of_quick));
    of_quick.buffer_words = rwkv_least_buffer_words(&ahead);
    CHECK(rwkv_model_detail(&quick).value <= of_quick.buffer_words);
    CHECK(of_quick.buffer_words < room);
    OK(rwkv_model_init(&quick, &ahead, &of_quick));
    CHECK(equal(expected, after(&quick, &state, "X:1\nT:")));
    of_quick.buffer = NULL;
    IS(NO_BUFFER, rwkv_model_init(&quick, &ahead, &of_quick));
    /* Anywhere in memory; and with room for more than one block. */
    for (size_t more = 0; more < 4000; more += 1333) {
        of_quick.buffer = buffer + more % 2;
        of_quick.buffer_words = room + more;
        OK(rwkv_model_init(&quick, &ahead, &of_quick));
        for (dma.slow = 0; dma.slow < 30; dma.slow = 3 * dma.slow + 1) {
            CHECK(equal(expected, after(&quick, &state, "X:1\nT:")));
            CHECK(!dma.out);
        }
    }

    /* Whatever fails, the state is as it was, and no read goes on. */
    rwkv_digest digest;
    rwkv_output output = {0};
    output.digest = &digest;
    dma.slow = 2;
    after(&quick, &state, "X:1\nT");
    for (unsigned read = 1; read < 40; read++) {
        dma.refuse = dma.begun + read;
        IS(STREAM_MEDIUM, rwkv_step(&quick, &state, ':', &output));
        CHECK(!dma.out && rwkv_model_detail(&quick).place >= 4096);
        dma.fail = dma.begun + read;
        IS(STREAM_MEDIUM, rwkv_step(&quick, &state, ':', &output));
        CHECK(!dma.out);
        dma.chip.flip = dma.chip.reads + read;
        const rwkv_error error = rwkv_step(&quick, &state, ':', &output);
        CHECK(error == RWKV_ERROR_IMAGE_BLOCK_CHECKSUM || error == RWKV_ERROR_IMAGE_RECORD);
        CHECK(!dma.out && state.ready == 1);
    }
    output.push = watch;
    output.context = &dma;
    OK(rwkv_step(&quick, &state, ':', &output));
    OK(rwkv_token_digest(&state, &image, &digest, &digest));
    CHECK(equal(expected, digest) && meanwhile > info.vocab / 2);

    /* With parts in memories. */
    rwkv_placement placement = placement_of(2000);
    OK(rwkv_image_open_ahead(&ahead, &medium, &placement, buffer, 1024));
    OK(rwkv_model_init(&quick, &ahead, &of_quick));
    CHECK(equal(expected, after(&quick, &state, "X:1\nT:")));
    free((void *)placement.flash), free(placement.ram);
    free(of_quick.scratch), free(of_quick.undo), free(buffer);
}

int main(int count, char **arguments) {
    CHECK(count == 6);
    bytes = read_file(arguments[1], &size);
    names();
    opening();
    models();
    outputs();
    samplers();
    masks(arguments[3]);
    stops(arguments[4], arguments[5]);
    saving();
    snapshots();
    texts();
    media();
    placements();
    reading_ahead();
    book(arguments[2]);
    free(memory.scratch), free(state.words), free(bytes);
    printf("%u checks passed\n", checks);
    return EXIT_SUCCESS;
}
