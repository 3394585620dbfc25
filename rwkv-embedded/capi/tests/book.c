/* What the book's chapter C shows, between the marks: `cargo xtask c` copies it there. `api.c`
 * includes and runs it. */

/* mask */
static const uint32_t BANNED[] = {'A', 'e', '|'}; /* in ascending order */

static int no_digit(void *context, uint32_t token) {
    (void)context;
    return token < '0' || token > '9';
}

static rwkv_error forbid(rwkv_sampler *sampler) {
    const rwkv_mask mask = {.banned = BANNED, .banned_count = 3, .allows = no_digit};
    return rwkv_sampler_within(sampler, &mask);
}
/* /mask */

/* stop */
static const rwkv_text STOPS[] = {{(const uint8_t *)"\n\n", 2}, {(const uint8_t *)"User:", 5}};

static rwkv_error answer(const rwkv_output *output, rwkv_write write, void *context) {
    rwkv_error error;
    rwkv_stop stop;
    uint32_t token, found = RWKV_NO_STOP;

    if ((error = rwkv_stop_init(&stop, STOPS, 2))) return error;
    for (int i = 0; i < 200 && found == RWKV_NO_STOP; i++) {
        const uint8_t *text;
        size_t len;
        if ((error = rwkv_sampler_next(output->sampler, &token))) return error;
        if ((error = rwkv_decode(&image, token, &text, &len))) return error;
        if ((error = rwkv_stop_push(&stop, text, len, write, context, &found))) return error;
        if ((error = rwkv_step(&model, &state, token, output))) return error;
    }
    return rwkv_stop_finish(&stop, write, context);
}
/* /stop */

/* snapshots */
static rwkv_snapshots kept;
static rwkv_place place;

/* At the start: where the device was, or where the image begins. */
static rwkv_error resume(const rwkv_flash *flash, uint32_t first) {
    rwkv_error error;
    if ((error = rwkv_snapshots_init(&kept, flash, first, &image))) return error;
    error = rwkv_snapshots_load(&kept, &state, &image, &place);
    /* None yet, or one of the image before an update. */
    if (error != RWKV_ERROR_NO_SNAPSHOT && error != RWKV_ERROR_SAVED_OTHER_IMAGE) return error;
    place = (rwkv_place){.position = 0, .pending = RWKV_NO_TOKEN};
    return rwkv_reset(&model, &state);
}

/* Now and then: `token` was chosen and is read next. */
static rwkv_error keep(uint64_t position, uint32_t token) {
    place = (rwkv_place){.position = position, .pending = token};
    return rwkv_snapshots_save(&kept, &state, &image, place);
}
/* /snapshots */

/* ahead */
static int begin(void *dma, uint32_t offset, void *out, uint32_t len) {
    return dma_start(dma, offset, out, len); /* 0 if it was begun; returns at once */
}

static int ready(void *dma) {
    if (dma_failed(dma)) return -1;
    return dma_runs(dma); /* 0 when all bytes are there */
}

static uint32_t buffers[RWKV_AHEAD_WORDS(IMAGE_BUFFER_WORDS, IMAGE_ROW_WORDS)];

static rwkv_error open_ahead(rwkv_image *on_chip, void *dma) {
    const rwkv_medium medium = {.begin = begin, .ready = ready, .context = dma, .offset = OFFSET};
    return rwkv_image_open_ahead(on_chip, &medium, NULL, buffers, sizeof buffers / 4);
}
/* /ahead */

/* placed */
#include "placement.h" /* rwkv place model.rwkv --flash 64K --ram 16K -o placed */

static uint32_t ram[16 * 1024 / 4];

/* `flash` is where flash.bin lies. */
static rwkv_error open_placed(rwkv_image *on_chip, const rwkv_medium *medium,
                              const uint32_t *flash, size_t flash_words) {
    const rwkv_placement placement = {
        .identity = PLACED_IDENTITY,
        .flash_ranges = placed_flash, .flash_count = PLACED_FLASH_RANGES,
        .flash = flash, .flash_words = flash_words,
        .ram_ranges = placed_ram, .ram_count = PLACED_RAM_RANGES,
        .ram = ram, .ram_words = sizeof ram / 4,
    };
    return rwkv_image_open_placed(on_chip, medium, &placement, buffers, IMAGE_BUFFER_WORDS);
}
/* /placed */
