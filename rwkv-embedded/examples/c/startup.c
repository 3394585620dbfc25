/* Start-up code and serial port of mps2-an386, a Cortex-M4F: no more than main.c needs. */

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "board.h"

extern uint32_t data_load[], data_start[], data_end[], bss_start[], bss_end[], stack_top[];
int main(void);

/* Coprocessors 10 and 11, the floating-point unit. */
#define CPACR (*(volatile uint32_t *)0xE000ED88u)
#define CPACR_FPU (0xFu << 20)

/* UART0, a CMSDK APB UART. */
struct uart {
    volatile uint32_t data, state, ctrl, interrupt, baud_divider;
};
#define UART0 ((struct uart *)0x40004000u)
#define UART_TX_FULL 1u
#define UART_TX_ENABLE 1u

void reset(void) {
    const uint32_t *from = data_load;
    for (uint32_t *to = data_start; to < data_end; to++) *to = *from++;
    for (uint32_t *to = bss_start; to < bss_end; to++) *to = 0;
    CPACR |= CPACR_FPU;
    __asm volatile("dsb\n isb");
    UART0->baud_divider = 16;
    UART0->ctrl = UART_TX_ENABLE;
    exit(main());
}

/* Leaves the emulator: semihosting's SYS_EXIT_EXTENDED. */
void __attribute__((noreturn)) _exit(int status) {
    const uint32_t arguments[2] = {0x20026, (uint32_t)status};
    register uint32_t operation __asm("r0") = 0x20;
    register const uint32_t *block __asm("r1") = arguments;
    __asm volatile("bkpt 0xAB" : "+r"(operation) : "r"(block) : "memory");
    for (;;) {
    }
}

static void fault(void) {
    _exit(2);
}

void board_write(const void *bytes, size_t len) {
    for (const uint8_t *byte = bytes; len > 0; byte++, len--) {
        while (UART0->state & UART_TX_FULL) {
        }
        UART0->data = *byte;
    }
}

/* There is no heap. Where newlib asks for one, as its streams do, this is seen and not a wild
 * pointer; snprintf does not. */
void *_sbrk(ptrdiff_t bytes) {
    (void)bytes;
    _exit(3);
}

__attribute__((section(".vectors"), used)) static void (*const vectors[16])(void) = {
    (void (*)(void))stack_top, reset, fault, fault, fault, fault, fault};
