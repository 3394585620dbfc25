/* What main.c needs of a board. */
#ifndef BOARD_H
#define BOARD_H

#include <stddef.h>

/* Writes to the board's serial port. */
void board_write(const void *bytes, size_t len);

#endif
