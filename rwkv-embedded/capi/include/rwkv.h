/*
 * RWKV language models in fixed memory. Written by cbindgen: change capi/src and run `cargo xtask c`.
 *
 * Nothing here allocates, and there are no global variables. All memory is the caller's: the opaque
 * structs below and the arrays whose sizes RWKV_STATE_WORDS and the functions rwkv_*_words give.
 * They are handed over with a pointer, must stay where they are for as long as the struct that took
 * them is in use, and are not touched meanwhile. A pointer is null only where it says so. Different
 * objects may be used by different threads; one object by one thread at a time.
 *
 * Every function that can fail returns an rwkv_error. An image, a model, a state, a sampler and
 * snapshots keep the details of the last failure of a function whose first argument they are:
 * which byte, token or word, and what was expected there.
 */

#ifndef RWKV_H
#define RWKV_H

#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>

/** No token. */
#define RWKV_NO_TOKEN 0xFFFFFFFFu

/** No stop text was found. */
#define RWKV_NO_STOP 0xFFFFFFFFu

/** Words of a state: layers and width of the model, and rows of recurrent state per layer, which
 * are 3 for version 4 and the head size from version 5 on. `rwkv info` prints all three. */
#define RWKV_STATE_WORDS(layers, dim, width) ((layers) * ((width) + 2u) * (dim))

/** Bytes of a saved state: its header, then the words. */
#define RWKV_SAVED_STATE_BYTES(state_words) (RWKV_SAVED_BYTES + 4u * (state_words))

/** Bytes of two slots for snapshots of a state, in a flash that erases `erase_size` bytes at once. */
#define RWKV_SNAPSHOTS_BYTES(state_words, erase_size) \
    (2u * ((64u + RWKV_SAVED_STATE_BYTES(state_words) + (erase_size) - 1u) / (erase_size) * (erase_size)))

/** Words of the buffer for weights that are read ahead, from IMAGE_BUFFER_WORDS and
 * IMAGE_ROW_WORDS of `rwkv info --c`. */
#define RWKV_AHEAD_WORDS(buffer_words, row_words) \
    (16u * sizeof(size_t) + 2u * (buffer_words) + (row_words))


/**
 * What a medium's functions return where another card is there than the one that was read first.
 */
#define RWKV_CHANGED -2

/**
 * Words of a buffer for rwkv_image_check.
 */
#define RWKV_CHECK_WORDS 128

/**
 * The most tokens that a sampler chooses from.
 */
#define RWKV_MAX_CANDIDATES 64

/**
 * Bytes of the header of a saved state.
 */
#define RWKV_SAVED_BYTES 64

/**
 * What a function returns. The numbers are stable: a later version only adds some. In brackets:
 * what the details say.
 */
enum rwkv_error
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * All went well.
   */
  RWKV_ERROR_OK = 0,
  /**
   * A pointer is null that may not be.
   */
  RWKV_ERROR_NULL_POINTER = 1,
  /**
   * A pointer is not aligned for what it points to.
   */
  RWKV_ERROR_MISALIGNED_POINTER = 2,
  /**
   * A struct was not initialised, or its initialisation failed.
   */
  RWKV_ERROR_UNINITIALISED = 3,
  /**
   * An array is too small (place: elements that are there; value: elements needed).
   */
  RWKV_ERROR_ROOM = 4,
  /**
   * The image holds no tokenizer that can be used: it is on a medium, or the host has it.
   */
  RWKV_ERROR_NO_TOKENIZER = 5,
  /**
   * The vocabulary has no such token (value: the token).
   */
  RWKV_ERROR_UNKNOWN_TOKEN = 6,
  /**
   * Weights on a medium need a buffer (value: words needed).
   */
  RWKV_ERROR_NO_BUFFER = 7,
  /**
   * The caller's function that takes text has failed.
   */
  RWKV_ERROR_WRITE = 8,
  /**
   * A stop text has no bytes.
   */
  RWKV_ERROR_EMPTY_STOP_TEXT = 9,
  /**
   * The token is not in the vocabulary (place: the token; value: tokens in the vocabulary).
   */
  RWKV_ERROR_TOKEN = 20,
  /**
   * The memory of a state has another size (place: words that are there; value: words needed).
   */
  RWKV_ERROR_STATE_SIZE = 21,
  /**
   * The scratch memory is too small (place: words that are there; value: words needed).
   */
  RWKV_ERROR_SCRATCH_SIZE = 22,
  /**
   * The array for logits is too small (value: tokens in the vocabulary).
   */
  RWKV_ERROR_LOGITS_SIZE = 23,
  /**
   * A value became infinite or not a number.
   */
  RWKV_ERROR_NON_FINITE = 24,
  /**
   * The state was never set, or a token failed half-way: reset or restore it.
   */
  RWKV_ERROR_BROKEN_STATE = 25,
  /**
   * A fault of the library: please report it.
   */
  RWKV_ERROR_INTERNAL = 26,
  /**
   * The image does not start on a word boundary.
   */
  RWKV_ERROR_IMAGE_MISALIGNED = 40,
  /**
   * The image ends early (place: bytes that are there; value: bytes needed).
   */
  RWKV_ERROR_IMAGE_TRUNCATED = 41,
  /**
   * More bytes follow the image (place: bytes that are there; value: bytes of the image).
   */
  RWKV_ERROR_IMAGE_TRAILING_BYTES = 42,
  /**
   * The first four bytes are not `RWKV`.
   */
  RWKV_ERROR_IMAGE_MAGIC = 43,
  /**
   * An image format that this library does not read (value: its version).
   */
  RWKV_ERROR_IMAGE_FORMAT_VERSION = 44,
  /**
   * An RWKV version that this library does not know (value: its code).
   */
  RWKV_ERROR_IMAGE_VERSION = 45,
  /**
   * A math mode that this library does not have (value: its code).
   */
  RWKV_ERROR_IMAGE_MATH_MODE = 46,
  /**
   * A state precision that this library does not have (value: its code).
   */
  RWKV_ERROR_IMAGE_STATE_PRECISION = 47,
  /**
   * A tokenizer that this library does not have (value: its code).
   */
  RWKV_ERROR_IMAGE_TOKENIZER = 48,
  /**
   * A header field is out of range (place: its byte offset).
   */
  RWKV_ERROR_IMAGE_HEADER_FIELD = 49,
  /**
   * The checksum of the header does not match.
   */
  RWKV_ERROR_IMAGE_HEADER_CHECKSUM = 50,
  /**
   * The section table is not that of this model (place: the entry).
   */
  RWKV_ERROR_IMAGE_SECTION_TABLE = 51,
  /**
   * The checksum of a section does not match (place: the section).
   */
  RWKV_ERROR_IMAGE_SECTION_CHECKSUM = 52,
  /**
   * A record is damaged or not the expected one (place: its byte offset; value: its identifier).
   */
  RWKV_ERROR_IMAGE_RECORD = 53,
  /**
   * A block of weights is damaged (place: its byte offset).
   */
  RWKV_ERROR_IMAGE_BLOCK_CHECKSUM = 54,
  /**
   * A section does not end with its records (place: the section).
   */
  RWKV_ERROR_IMAGE_SECTION_LENGTH = 55,
  /**
   * Scratch or block size in the header are not what the model needs.
   */
  RWKV_ERROR_IMAGE_PLAN = 56,
  /**
   * A value of the start state is infinite or not a number (place: its word).
   */
  RWKV_ERROR_IMAGE_START_STATE = 57,
  /**
   * The tables of the vocabulary do not fill their section.
   */
  RWKV_ERROR_VOCABULARY_SIZE = 60,
  /**
   * The bytes of a token are not in the vocabulary (place: the token).
   */
  RWKV_ERROR_VOCABULARY_ENTRY = 61,
  /**
   * The vocabulary is out of order (place: the entry).
   */
  RWKV_ERROR_VOCABULARY_ORDER = 62,
  /**
   * Some byte is not a token by itself.
   */
  RWKV_ERROR_VOCABULARY_SINGLES = 63,
  /**
   * The vocabulary has more tokens than the model (value: tokens of the vocabulary).
   */
  RWKV_ERROR_VOCABULARY_VOCAB = 64,
  /**
   * A read past the end of the image (place: its byte offset).
   */
  RWKV_ERROR_STREAM_OUT_OF_BOUNDS = 80,
  /**
   * The medium has failed (place: the byte offset of the read).
   */
  RWKV_ERROR_STREAM_MEDIUM = 81,
  /**
   * The buffer is too small for a block (value: words of the block).
   */
  RWKV_ERROR_STREAM_BUFFER = 82,
  /**
   * The image does not begin at a multiple of four bytes (place: where it does begin).
   */
  RWKV_ERROR_STREAM_MISPLACED = 83,
  /**
   * A placement is of another image (place: identity of its image; value: of this one).
   */
  RWKV_ERROR_STREAM_OTHER_IMAGE = 84,
  /**
   * Another card is there than the one that was read first (place: the byte offset of the read).
   */
  RWKV_ERROR_STREAM_CHANGED = 85,
  /**
   * The temperature is negative, subnormal, infinite or not a number.
   */
  RWKV_ERROR_SAMPLER_TEMPERATURE = 100,
  /**
   * `top_k` exceeds RWKV_MAX_CANDIDATES.
   */
  RWKV_ERROR_SAMPLER_TOP_K = 101,
  /**
   * `top_p` is outside 0..=1.
   */
  RWKV_ERROR_SAMPLER_TOP_P = 102,
  /**
   * A logit is infinite or not a number (place: its token).
   */
  RWKV_ERROR_SAMPLER_NON_FINITE_LOGIT = 103,
  /**
   * Logits came out of order (place: the token that came; value: the one that was due).
   */
  RWKV_ERROR_SAMPLER_OUT_OF_ORDER = 104,
  /**
   * No token was computed since the last one was chosen for a first time.
   */
  RWKV_ERROR_SAMPLER_NO_LOGITS = 105,
  /**
   * `min_p` is outside 0..=1.
   */
  RWKV_ERROR_SAMPLER_MIN_P = 106,
  /**
   * The repetition penalty is negative, subnormal, infinite or not a number.
   */
  RWKV_ERROR_SAMPLER_REPETITION = 107,
  /**
   * The presence or the frequency penalty is infinite or not a number.
   */
  RWKV_ERROR_SAMPLER_PENALTY = 108,
  /**
   * `penalty_decay` is outside 0..=1.
   */
  RWKV_ERROR_SAMPLER_PENALTY_DECAY = 109,
  /**
   * There is no such order.
   */
  RWKV_ERROR_SAMPLER_ORDER = 110,
  /**
   * Banned tokens do not stand in ascending order, or one stands twice.
   */
  RWKV_ERROR_SAMPLER_BANNED_ORDER = 111,
  /**
   * The mask allows no token of the vocabulary.
   */
  RWKV_ERROR_SAMPLER_NOTHING_ALLOWED = 112,
  /**
   * The saved state has another length (place: bytes that are there; value: bytes needed).
   */
  RWKV_ERROR_SAVED_LENGTH = 120,
  /**
   * The first four bytes are not `RWKS`.
   */
  RWKV_ERROR_SAVED_MAGIC = 121,
  /**
   * A layout of saved states that this library does not know (value: its version).
   */
  RWKV_ERROR_SAVED_VERSION = 122,
  /**
   * The checksum of the saved state's header does not match.
   */
  RWKV_ERROR_SAVED_HEADER_CHECKSUM = 123,
  /**
   * A header field of the saved state is out of range.
   */
  RWKV_ERROR_SAVED_FIELD = 124,
  /**
   * A state of another image (place: identity of its image; value: of this one).
   */
  RWKV_ERROR_SAVED_OTHER_IMAGE = 125,
  /**
   * The saved state has another shape than the image's.
   */
  RWKV_ERROR_SAVED_SHAPE = 126,
  /**
   * The pending token is not in the vocabulary (value: the token).
   */
  RWKV_ERROR_SAVED_PENDING = 127,
  /**
   * The checksum of the saved words does not match.
   */
  RWKV_ERROR_SAVED_CHECKSUM = 128,
  /**
   * A value is infinite or not a number (place: its word).
   */
  RWKV_ERROR_SAVED_NON_FINITE = 129,
  /**
   * The state was never set, or a token failed half-way.
   */
  RWKV_ERROR_SAVED_BROKEN = 130,
  /**
   * The core counts a subnormal operand as zero.
   */
  RWKV_ERROR_SELF_TEST_SUBNORMAL_INPUT = 140,
  /**
   * The core makes a subnormal result zero.
   */
  RWKV_ERROR_SELF_TEST_SUBNORMAL_OUTPUT = 141,
  /**
   * The core does not round to nearest even.
   */
  RWKV_ERROR_SELF_TEST_ROUNDING = 142,
  /**
   * Multiply and add are fused.
   */
  RWKV_ERROR_SELF_TEST_CONTRACTION = 143,
  /**
   * The flash that snapshots lie in has failed (place: the byte offset).
   */
  RWKV_ERROR_SNAPSHOT_FLASH = 160,
  /**
   * Two slots do not fit into the flash, or do not begin where it can be erased (place: bytes
   * from the first slot to the end of the flash; value: bytes needed).
   */
  RWKV_ERROR_SNAPSHOT_ROOM = 161,
  /**
   * What was written does not read back as it was (place: the byte offset of the slot).
   */
  RWKV_ERROR_SNAPSHOT_WORN = 162,
  /**
   * The flash reads or writes pieces that 64 bytes are not whole pieces of, or erases pieces
   * that are not multiples of 64 bytes.
   */
  RWKV_ERROR_SNAPSHOT_GEOMETRY = 163,
  /**
   * There is no snapshot; the state is as it was.
   */
  RWKV_ERROR_NO_SNAPSHOT = 164,
  /**
   * An error that this layer has no code for.
   */
  RWKV_ERROR_OTHER = 255,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum rwkv_error rwkv_error;
#else
typedef int32_t rwkv_error;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * An image that was opened. Zeroed memory is one that was not.
 */
typedef struct rwkv_image {
  /**
   * Not for the caller.
   */
  uint64_t words[22];
  /**
   * Not for the caller: what is smaller where pointers are.
   */
  size_t pointers[3];
} rwkv_image;

/**
 * What an image says of itself.
 */
typedef struct rwkv_info {
  /**
   * RWKV version: ten times the number, so 40, 50, 52, 60, 70; 71 for 7a.
   */
  uint32_t version;
  /**
   * Layers.
   */
  uint32_t layers;
  /**
   * Model width: elements of the hidden vector.
   */
  uint32_t dim;
  /**
   * Width of the channel mix.
   */
  uint32_t ffn;
  /**
   * Tokens in the vocabulary: elements of the logits.
   */
  uint32_t vocab;
  /**
   * Channels per head; 0 for version 4.
   */
  uint32_t head_size;
  /**
   * Rows of recurrent state per layer: the width of RWKV_STATE_WORDS.
   */
  uint32_t state_width;
  /**
   * Words of a state, and of a buffer that undoes a token.
   */
  uint32_t state_words;
  /**
   * Words of scratch.
   */
  uint32_t scratch_words;
  /**
   * Words of the buffer for weights on a medium that has room for every block.
   */
  uint32_t buffer_words;
  /**
   * Bytes of the image.
   */
  uint32_t bytes;
  /**
   * Names the image: a checksum of all of it.
   */
  uint32_t identity;
  /**
   * Whether rwkv_encode and rwkv_decode work.
   */
  bool has_tokenizer;
  /**
   * Whether it begins with a state of its own, such as a prompt that was read on the host.
   */
  bool has_start_state;
} rwkv_info;

/**
 * Where something failed and what was expected: see the error.
 */
typedef struct rwkv_detail {
  /**
   * Byte, token, word or section.
   */
  uint32_t place;
  /**
   * What was needed, or found.
   */
  uint32_t value;
} rwkv_detail;

/**
 * A model.
 */
typedef struct rwkv_model {
  /**
   * Not for the caller.
   */
  uint64_t words[24];
  /**
   * Not for the caller: what is smaller where pointers are.
   */
  size_t pointers[22];
} rwkv_model;

/**
 * The memory of a model, all of it the caller's. The sizes are in words of four bytes.
 */
typedef struct rwkv_memory {
  /**
   * What a token is computed in.
   */
  float *scratch;
  /**
   * Words of it: rwkv_scratch_words or more.
   */
  size_t scratch_words;
  /**
   * A copy of the state while a token is computed, so that one that fails leaves the state as it
   * was and may be tried again; null for none. Weights in memory hardly fail.
   */
  float *undo;
  /**
   * Words of it: rwkv_state_words or more.
   */
  size_t undo_words;
  /**
   * What weights on a medium are read into, all buffers one after the other; null for weights in
   * memory.
   */
  uint32_t *buffer;
  /**
   * Words of it: rwkv_buffer_words or more, or fewer, for long rows in pieces:
   * rwkv_least_buffer_words.
   */
  size_t buffer_words;
} rwkv_memory;

/**
 * The state of one sequence. Several may share a model.
 */
typedef struct rwkv_state {
  /**
   * Its words: of every layer the two shift rows, then of every layer the recurrent rows.
   */
  float *words;
  /**
   * How many there are: rwkv_state_words or more; what is beyond is not used.
   */
  size_t count;
  /**
   * 1 if the words are a state; 0 before rwkv_reset, and after a token that failed half-way.
   */
  uint32_t ready;
  /**
   * Details of the last failure of a function whose first argument this is.
   */
  struct rwkv_detail detail;
} rwkv_state;

/**
 * Takes the logits of `count` tokens from `first` on. All tokens come, in order.
 */
typedef void (*rwkv_push)(void *context, uint32_t first, const float *logits, uint32_t count);

/**
 * A sampler.
 */
typedef struct rwkv_sampler {
  /**
   * Not for the caller.
   */
  uint64_t words[160];
} rwkv_sampler;

/**
 * Two sums over the bits of values: equal where all bits are, on any machine.
 */
typedef struct rwkv_digest {
  /**
   * The first sum.
   */
  uint32_t low;
  /**
   * The second sum.
   */
  uint32_t high;
} rwkv_digest;

/**
 * How much a token surprises the model: -log2 of the probability that it gave it.
 */
typedef struct rwkv_surprise {
  /**
   * The caller's: the token that comes next.
   */
  uint32_t next;
  /**
   * What it costs in bits, 0 or more; -1 if the token failed, or the vocabulary has no such
   * next one.
   */
  float bits;
} rwkv_surprise;

/**
 * Where the results of a token go. Each may be null or left out, and costs nothing then; without
 * logits, push, sampler, digest and surprise the head of the network is not computed.
 */
typedef struct rwkv_output {
  /**
   * The logits of all tokens.
   */
  float *logits;
  /**
   * Elements of it: the vocabulary or more.
   */
  size_t logits_count;
  /**
   * Takes logits as they are computed, so that no array need hold them.
   */
  rwkv_push push;
  /**
   * Handed to the function.
   */
  void *context;
  /**
   * Sees every logit, and then chooses a token: rwkv_sampler_next.
   */
  struct rwkv_sampler *sampler;
  /**
   * The digest of the logits, for rwkv_token_digest.
   */
  struct rwkv_digest *digest;
  /**
   * The vector that the logits are computed from: what the model makes of all that it has read.
   */
  float *hidden;
  /**
   * Elements of it: the model width or more.
   */
  size_t hidden_count;
  /**
   * How much the token surprises that comes next, where the caller knows it.
   */
  struct rwkv_surprise *surprise;
} rwkv_output;

/**
 * Reads `len` bytes at byte `offset` of a medium into `out`; both are multiples of four. Returns
 * 0; RWKV_CHANGED; or anything else where not all of them could be read.
 */
typedef int (*rwkv_read)(void *context, uint32_t offset, void *out, uint32_t len);

/**
 * Begins such a read and returns at once: 0 if it was begun, anything else if not. Until
 * `rwkv_ready` says that it has ended, `out` is the medium's, and no other read is begun.
 */
typedef rwkv_read rwkv_begin;

/**
 * Whether the read that was begun has ended: 0 if all bytes are there, a positive number while it
 * goes on, a negative one if it has failed, RWKV_CHANGED among them. Whoever returns 0 or a
 * negative number has seen to it that nothing is written into `out` any more. It is asked again
 * and again while the read goes on, between blocks of computing and where there is nothing to
 * compute, and not after its end.
 */
typedef int (*rwkv_ready)(void *context);

/**
 * A medium that the core cannot address: a flash chip, a card.
 */
typedef struct rwkv_medium {
  /**
   * How it is read: by a function that waits until it has. Not used by rwkv_image_open_ahead.
   */
  rwkv_read read;
  /**
   * Handed to the functions.
   */
  void *context;
  /**
   * Where the image begins, in bytes, a multiple of four.
   */
  uint32_t offset;
  /**
   * How it is read while the core computes, for rwkv_image_open_ahead; else null.
   */
  rwkv_begin begin;
  /**
   * Whether it has been read, for rwkv_image_open_ahead; else null.
   */
  rwkv_ready ready;
} rwkv_medium;

/**
 * Parts of an image that lie in memories as well, as `rwkv place` chooses them. A range is three
 * numbers: its first word in the image, how many words, and where they begin in the memory. All
 * zeros places nothing.
 */
typedef struct rwkv_placement {
  /**
   * PLACED_IDENTITY: the identity of the image that the ranges are of.
   */
  uint32_t identity;
  /**
   * Ranges of the image in flash that the core can address, in ascending order.
   */
  const uint32_t (*flash_ranges)[3];
  /**
   * How many.
   */
  size_t flash_count;
  /**
   * Their words: `flash.bin`.
   */
  const uint32_t *flash;
  /**
   * How many.
   */
  size_t flash_words;
  /**
   * Ranges of the image in RAM, in ascending order.
   */
  const uint32_t (*ram_ranges)[3];
  /**
   * How many.
   */
  size_t ram_count;
  /**
   * Memory for their words, which are read from the medium when the image is opened.
   */
  uint32_t *ram;
  /**
   * How many.
   */
  size_t ram_words;
} rwkv_placement;

/**
 * How tokens are chosen. All zeros is greedy: the largest logit wins, ties go to the lower token.
 */
typedef struct rwkv_sampler_config {
  /**
   * Divides the logits; 0 is greedy.
   */
  float temperature;
  /**
   * Probability mass to choose from, 0..=1; 1 for all of it.
   */
  float top_p;
  /**
   * Choose among this many, up to RWKV_MAX_CANDIDATES, which 0 stands for.
   */
  uint32_t top_k;
  /**
   * Where the random numbers start.
   */
  uint64_t seed;
  /**
   * Least probability, as a share of the most likely token's, 0..=1; 0 is off.
   */
  float min_p;
  /**
   * Divides positive logits of tokens that were generated, multiplies the others; 0 or 1 is off.
   */
  float repetition;
  /**
   * Is subtracted from the logits of tokens that were generated; 0 is off.
   */
  float presence;
  /**
   * Is subtracted once more for each time that a token was generated; 0 is off.
   */
  float frequency;
  /**
   * What is left of each time after one more token, 0..=1; 0 or 1 forgets nothing.
   */
  float penalty_decay;
  /**
   * 0: temperature first, as most libraries do it; 1: last, as RWKV's own package does it.
   */
  uint32_t order;
} rwkv_sampler_config;

/**
 * Says whether a token may be chosen: 0 if not. It is asked once at most for each token of a row,
 * in the order of their ids.
 */
typedef int (*rwkv_allows)(void *context, uint32_t token);

/**
 * Which tokens may be chosen: those that all three allow. All zeros allows every token.
 */
typedef struct rwkv_mask {
  /**
   * Tokens that may not be chosen, in ascending order.
   */
  const uint32_t *banned;
  /**
   * How many.
   */
  size_t banned_count;
  /**
   * A bit for each token that may be chosen, bit `token % 32` of word `token / 32`, and none
   * beyond the last word; null for every token. The bits may change between tokens.
   */
  const uint32_t *allowed;
  /**
   * Words of them.
   */
  size_t allowed_words;
  /**
   * A function that says which may be chosen; null for every token.
   */
  rwkv_allows allows;
  /**
   * Handed to the function.
   */
  void *context;
} rwkv_mask;

/**
 * Two slots in a flash.
 */
typedef struct rwkv_snapshots {
  /**
   * Not for the caller.
   */
  uint64_t words[12];
} rwkv_snapshots;

/**
 * Writes `len` bytes at byte `offset` of a flash, where it is erased; both are multiples of 64.
 * Returns 0, or anything else where not all of them could be written.
 */
typedef int (*rwkv_flash_write)(void *context, uint32_t offset, const void *bytes, uint32_t len);

/**
 * Erases `len` bytes at byte `offset` of a flash, whole pieces that it erases. Returns 0, or
 * anything else where that has failed.
 */
typedef int (*rwkv_flash_erase)(void *context, uint32_t offset, uint32_t len);

/**
 * A flash that can be written, and its geometry. All functions wait until they have done.
 */
typedef struct rwkv_flash {
  /**
   * How it is read: 64 bytes at a time, from multiples of 64 on.
   */
  rwkv_read read;
  /**
   * How it is written.
   */
  rwkv_flash_write write;
  /**
   * How it is erased.
   */
  rwkv_flash_erase erase;
  /**
   * Handed to the functions.
   */
  void *context;
  /**
   * Bytes of the flash.
   */
  uint32_t bytes;
  /**
   * Bytes of the pieces that it reads, of which 64 bytes are whole ones; 1 for any.
   */
  uint32_t read_size;
  /**
   * Bytes of the pieces that it writes, of which 64 bytes are whole ones; 1 for any.
   */
  uint32_t write_size;
  /**
   * Bytes of the pieces that it erases, a multiple of 64.
   */
  uint32_t erase_size;
} rwkv_flash;

/**
 * What a saved state says beside its words.
 */
typedef struct rwkv_place {
  /**
   * Tokens that the state has read.
   */
  uint64_t position;
  /**
   * The token to read next, or RWKV_NO_TOKEN.
   */
  uint32_t pending;
} rwkv_place;

/**
 * Finds the first of several stop texts in bytes that come in pieces, and passes on what stands
 * before it. Bytes that may be the start of one are held back until it is certain that they are
 * not. Of several that end at the same byte, the longest is found.
 */
typedef struct rwkv_stop {
  /**
   * Not for the caller.
   */
  uint64_t words[8];
} rwkv_stop;

/**
 * Bytes of a text.
 */
typedef struct rwkv_text {
  /**
   * Where they are.
   */
  const uint8_t *bytes;
  /**
   * How many.
   */
  size_t len;
} rwkv_text;

/**
 * Takes `len` bytes of text; from rwkv_utf8_push, they are whole characters of UTF-8. Returns 0, or
 * anything else to stop.
 */
typedef int (*rwkv_write)(void *context, const uint8_t *text, size_t len);

/**
 * Makes whole characters of bytes that come in pieces.
 */
typedef struct rwkv_utf8 {
  /**
   * Not for the caller.
   */
  uint32_t words[5];
} rwkv_utf8;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The name of an error as it stands in this header, or null for a number that is none. The text
 * is constant and ends with a zero.
 */
const char *rwkv_error_name(int32_t error);

/**
 * Opens an image in memory that the core can address, and checks every byte of it. It starts at a
 * multiple of four bytes; what follows it in `len` bytes is left alone.
 */
rwkv_error rwkv_image_open(struct rwkv_image *image, const uint8_t *bytes, size_t len);

/**
 * What the image says of itself.
 */
rwkv_error rwkv_image_info(const struct rwkv_image *image, struct rwkv_info *info);

/**
 * Words of a state of the image, and of a buffer that undoes a token; 0 for an image that was not
 * opened.
 */
size_t rwkv_state_words(const struct rwkv_image *image);

/**
 * Words of scratch that a model needs; 0 for an image that was not opened.
 */
size_t rwkv_scratch_words(const struct rwkv_image *image);

/**
 * Words of the buffer for weights on a medium that has room for every block, for both buffers and
 * more where it is read ahead; 0 for weights in memory.
 */
size_t rwkv_buffer_words(const struct rwkv_image *image);

/**
 * As rwkv_buffer_words, of the shortest buffer for an image that `rwkv convert --block-bytes 512`,
 * or less, has made: longer rows come in pieces. For any other image, `rwkv info` says how few words
 * are enough.
 */
size_t rwkv_least_buffer_words(const struct rwkv_image *image);

/**
 * Details of why the image could not be opened.
 */
struct rwkv_detail rwkv_image_detail(const struct rwkv_image *image);

/**
 * The number that people use for an RWKV version, such as "5.2"; null for a code that is none.
 */
const char *rwkv_version_name(uint32_t version);

/**
 * Whether the core's floats are those that the bits rest on: subnormals kept, rounding to nearest
 * even, nothing fused. To be called once at start, before the first token.
 */
rwkv_error rwkv_self_test(void);

/**
 * A model over an image, in memory of the caller's.
 */
rwkv_error rwkv_model_init(struct rwkv_model *model,
                           const struct rwkv_image *image,
                           const struct rwkv_memory *memory);

/**
 * Sets a state to where the image begins: where nothing was read, or at the image's own start
 * state. Every sequence starts with this, or with rwkv_state_restore.
 */
rwkv_error rwkv_reset(struct rwkv_model *model, struct rwkv_state *state);

/**
 * Computes one token: the state moves on by it, results go to `output`, which may be null. What is
 * wrong with the arguments leaves the state as it was. So does a later failure, of a medium or of
 * values that become infinite, if the model has memory to undo; else the state is broken.
 */
rwkv_error rwkv_step(struct rwkv_model *model,
                     struct rwkv_state *state,
                     uint32_t token,
                     const struct rwkv_output *output);

/**
 * Computes `count` tokens, one after the other; results are those of the last one. No tokens do
 * nothing. Where one fails, those before it are computed.
 */
rwkv_error rwkv_prefill(struct rwkv_model *model,
                        struct rwkv_state *state,
                        const uint32_t *tokens,
                        size_t count,
                        const struct rwkv_output *output);

/**
 * As rwkv_prefill for the tokens of a text, which need no memory. The image has a tokenizer.
 */
rwkv_error rwkv_prompt(struct rwkv_model *model,
                       struct rwkv_state *state,
                       const uint8_t *text,
                       size_t len,
                       const struct rwkv_output *output);

/**
 * Columns of sparse products in all tokens so far, and how many of them were needed. Either may be
 * null.
 */
rwkv_error rwkv_model_columns(struct rwkv_model *model, uint64_t *needed, uint64_t *all);

/**
 * Details of the model's last failure.
 */
struct rwkv_detail rwkv_model_detail(const struct rwkv_model *model);

/**
 * Opens an image on a medium and checks its header and the table of its sections; weights are
 * checked as they are read. `buffer` holds both meanwhile, and is free again afterwards:
 * RWKV_ERROR_ROOM says how many words it needs.
 */
rwkv_error rwkv_image_open_medium(struct rwkv_image *image,
                                  const struct rwkv_medium *medium,
                                  uint32_t *buffer,
                                  size_t words);

/**
 * As rwkv_image_open_medium, with parts of the image in memories. What lies in one is not read
 * from the medium, and blocks of it are checked as all others are.
 */
rwkv_error rwkv_image_open_placed(struct rwkv_image *image,
                                  const struct rwkv_medium *medium,
                                  const struct rwkv_placement *placement,
                                  uint32_t *buffer,
                                  size_t words);

/**
 * As rwkv_image_open_placed, from a medium that reads by itself, with DMA or interrupts: a model
 * reads the next words into one buffer while it computes from another. `placement` may be null.
 */
rwkv_error rwkv_image_open_ahead(struct rwkv_image *image,
                                 const struct rwkv_medium *medium,
                                 const struct rwkv_placement *placement,
                                 uint32_t *buffer,
                                 size_t words);

/**
 * Reads the whole image and checks every byte of it, as rwkv_image_open does in memory: at the
 * start, or when the medium was written. `buffer` has RWKV_CHECK_WORDS or more, and is free again
 * afterwards.
 */
rwkv_error rwkv_image_check(struct rwkv_image *image, uint32_t *buffer, size_t words);

/**
 * A sampler at the start of its random numbers.
 */
rwkv_error rwkv_sampler_init(struct rwkv_sampler *sampler,
                             const struct rwkv_sampler_config *config);

/**
 * From now on, only tokens that a mask allows are chosen; null for all of them. The mask is asked
 * when a token's logits appear, so it is set before the token is computed. What it points to stays
 * where it is for as long as the sampler has it; on an error, the sampler keeps the mask that it
 * had.
 */
rwkv_error rwkv_sampler_within(struct rwkv_sampler *sampler, const struct rwkv_mask *mask);

/**
 * Chooses a token from the logits of the last one that was computed with the sampler as an output.
 * A second call chooses again from the same logits.
 */
rwkv_error rwkv_sampler_next(struct rwkv_sampler *sampler, uint32_t *token);

/**
 * Details of the sampler's last failure.
 */
struct rwkv_detail rwkv_sampler_detail(const struct rwkv_sampler *sampler);

/**
 * Two slots for states of an image, one after the other, from byte `first` of a flash on, where it
 * can be erased: RWKV_SNAPSHOTS_BYTES. What is there is left as it is.
 */
rwkv_error rwkv_snapshots_init(struct rwkv_snapshots *snapshots,
                               const struct rwkv_flash *flash,
                               uint32_t first,
                               const struct rwkv_image *image);

/**
 * Keeps a state of an image, with its place. Wherever power is lost meanwhile, and after an error,
 * the snapshot before is still there, unless the new one is whole.
 */
rwkv_error rwkv_snapshots_save(struct rwkv_snapshots *snapshots,
                               struct rwkv_state *state,
                               const struct rwkv_image *image,
                               struct rwkv_place place);

/**
 * Takes up the newest snapshot that is whole; RWKV_ERROR_NO_SNAPSHOT if there is none. That, and a
 * snapshot of another image, leaves the state as it was; a flash that fails half-way leaves it
 * broken. `place` may be null.
 */
rwkv_error rwkv_snapshots_load(struct rwkv_snapshots *snapshots,
                               struct rwkv_state *state,
                               const struct rwkv_image *image,
                               struct rwkv_place *place);

/**
 * Details of the last failure.
 */
struct rwkv_detail rwkv_snapshots_detail(const struct rwkv_snapshots *snapshots);

/**
 * A state over memory of `count` words, RWKV_STATE_WORDS or more. It is none before rwkv_reset or
 * rwkv_state_restore.
 */
rwkv_error rwkv_state_init(struct rwkv_state *state, float *words, size_t count);

/**
 * The header of a saved state, RWKV_SAVED_BYTES of it. Whoever keeps it keeps the first
 * rwkv_state_words words of the state behind it, as they lie in memory: the file that `rwkv
 * prefill` writes.
 */
rwkv_error rwkv_state_save(struct rwkv_state *state,
                           const struct rwkv_image *image,
                           struct rwkv_place place,
                           uint8_t *header);

/**
 * Takes up a saved state of the image, header and words in `len` bytes. An error leaves the state
 * as it was. `place` may be null.
 */
rwkv_error rwkv_state_restore(struct rwkv_state *state,
                              const struct rwkv_image *image,
                              const uint8_t *bytes,
                              size_t len,
                              struct rwkv_place *place);

/**
 * The digest of a token: of the state after it, and of its logits as an rwkv_output has left them.
 * It is equal on every machine, and what `rwkv validate` compares. `logits` may be null for a
 * state alone.
 */
rwkv_error rwkv_token_digest(struct rwkv_state *state,
                             const struct rwkv_image *image,
                             const struct rwkv_digest *logits,
                             struct rwkv_digest *digest);

/**
 * A stream at its start, over `count` stop texts of a byte or more; without any it has no end.
 * The texts and the array of them stay where they are for as long as the stream is in use.
 */
rwkv_error rwkv_stop_init(struct rwkv_stop *stop, const struct rwkv_text *texts, size_t count);

/**
 * Takes bytes, as rwkv_decode gives them, and writes those that are certain to stand before a stop
 * text. `found` receives which one was found, in these bytes or before, or RWKV_NO_STOP: whatever
 * comes after it is dropped. Where the function fails, the rest of the bytes is lost.
 */
rwkv_error rwkv_stop_push(struct rwkv_stop *stop,
                          const uint8_t *bytes,
                          size_t len,
                          rwkv_write write,
                          void *context,
                          uint32_t *found);

/**
 * Writes what was held back, which is no stop text, and begins anew.
 */
rwkv_error rwkv_stop_finish(struct rwkv_stop *stop, rwkv_write write, void *context);

/**
 * The tokens of a text. `count` receives how many there are, `tokens` as many of them as it has
 * room for, in elements: where that is too little, the error is RWKV_ERROR_ROOM. A token has one
 * byte of text or more. `tokens` may be null where `room` is 0.
 */
rwkv_error rwkv_encode(const struct rwkv_image *image,
                       const uint8_t *text,
                       size_t len,
                       uint32_t *tokens,
                       size_t room,
                       size_t *count);

/**
 * The bytes of a token, in the image or the library; they are not to be changed. A token may end
 * inside a character: see rwkv_utf8_push.
 */
rwkv_error rwkv_decode(const struct rwkv_image *image,
                       uint32_t token,
                       const uint8_t **text,
                       size_t *len);

/**
 * The token that ends a text, or RWKV_NO_TOKEN where there is none.
 */
uint32_t rwkv_end_of_text(const struct rwkv_image *image);

/**
 * A stream at its start.
 */
rwkv_error rwkv_utf8_init(struct rwkv_utf8 *stream);

/**
 * Takes bytes and writes the characters that they complete; U+FFFD stands for what is no
 * character. Where the function fails, the rest of the bytes is lost.
 */
rwkv_error rwkv_utf8_push(struct rwkv_utf8 *stream,
                          const uint8_t *bytes,
                          size_t len,
                          rwkv_write write,
                          void *context);

/**
 * Writes U+FFFD if the text ends inside a character, and begins anew.
 */
rwkv_error rwkv_utf8_finish(struct rwkv_utf8 *stream, rwkv_write write, void *context);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* RWKV_H */
