/* Firmware in C: an image in flash continues a prompt, on QEMU's mps2-an386.
 *
 * All memory is static and its size known when the firmware is linked. The last line is the digest
 * of state and logits, which every machine computes alike. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image.h" /* from `rwkv info --c` */
#include "board.h"
#include "rwkv.h"

#define STATE_WORDS RWKV_STATE_WORDS(IMAGE_LAYERS, IMAGE_DIM, IMAGE_WIDTH)

/* The image lies behind the firmware's 512 KB: see firmware.ld. */
extern const uint8_t image_start[], image_end[];

static const char PROMPT[] = "X:1\nT:";
static const rwkv_sampler_config CONFIG = {
    .temperature = 0.8f, .top_p = 0.95f, .top_k = 40, .seed = 3};
enum { COUNT = 200 };

static float state_words[STATE_WORDS];
static float scratch[IMAGE_SCRATCH_WORDS];
static rwkv_image image;
static rwkv_model model;
static rwkv_sampler sampler;
static rwkv_state state;

static void say(const char *text) {
    board_write(text, strlen(text));
}

static void check(rwkv_error error, rwkv_detail detail) {
    char line[96];
    if (error != RWKV_ERROR_OK) {
        snprintf(line, sizeof line, "%s, place %lu, value %lu\n", rwkv_error_name(error),
                 (unsigned long)detail.place, (unsigned long)detail.value);
        say(line);
        exit(EXIT_FAILURE);
    }
}

/* Called where the library finds a fault of its own. */
void rwkv_panic(void) {
    say("panic\n");
    exit(EXIT_FAILURE);
}

static int print(void *context, const uint8_t *text, size_t len) {
    (void)context;
    board_write(text, len);
    return 0;
}

int main(void) {
    static const rwkv_detail none = {0, 0};
    rwkv_digest digest;
    const rwkv_output output = {.sampler = &sampler, .digest = &digest};
    const rwkv_memory memory = {.scratch = scratch, .scratch_words = IMAGE_SCRATCH_WORDS};
    rwkv_utf8 text;
    char line[32];

    check(rwkv_self_test(), none);
    check(rwkv_image_open(&image, image_start, (size_t)(image_end - image_start)),
          rwkv_image_detail(&image));
    check(rwkv_model_init(&model, &image, &memory), rwkv_model_detail(&model));
    check(rwkv_sampler_init(&sampler, &CONFIG), none);
    check(rwkv_state_init(&state, state_words, STATE_WORDS), none);
    check(rwkv_utf8_init(&text), none);

    check(rwkv_reset(&model, &state), rwkv_model_detail(&model));
    check(rwkv_prompt(&model, &state, (const uint8_t *)PROMPT, strlen(PROMPT), &output),
          rwkv_model_detail(&model));
    say(PROMPT);
    for (int i = 0; i < COUNT; i++) {
        uint32_t token;
        const uint8_t *bytes;
        size_t len;
        check(rwkv_sampler_next(&sampler, &token), rwkv_sampler_detail(&sampler));
        check(rwkv_decode(&image, token, &bytes, &len), none);
        check(rwkv_utf8_push(&text, bytes, len, print, NULL), none);
        check(rwkv_step(&model, &state, token, &output), rwkv_model_detail(&model));
    }
    check(rwkv_utf8_finish(&text, print, NULL), none);
    check(rwkv_token_digest(&state, &image, &digest, &digest), state.detail);
    snprintf(line, sizeof line, "\ndigest %08lx%08lx\n", (unsigned long)digest.low,
             (unsigned long)digest.high);
    say(line);
    return EXIT_SUCCESS;
}
