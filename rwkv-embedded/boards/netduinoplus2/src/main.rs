//! The RWKV agent on QEMU's `netduinoplus2`, an STM32F405 with a Cortex-M4F.
//!
//! The host speaks over USART1 and loads the image at 0x0804_0000; log frames go to semihosting.
//! See the README for the command.

#![no_std]
#![no_main]

use core::ptr;

use board_support::{Machine, Tick, uart::Bytewise};
use cortex_m_rt::entry;

mod usart;

use usart::Usart;

/// CR1 and CNT of TIM2, a counter of 32 bits.
const TIM2_CR1: *mut u32 = 0x4000_0000 as *mut u32;
const TIM2_CNT: *mut u32 = 0x4000_0024 as *mut u32;
const CR1_ENABLE: u32 = 1 << 0;

struct NetduinoPlus2;

impl Machine for NetduinoPlus2 {
    const NAME: &'static str = "netduinoplus2";
    const CORE: &'static str = "Cortex-M4F";
    /// QEMU's TIM2 counts nanoseconds.
    const TICK: Tick = Tick::Instructions(1);
    type Uart = Bytewise<Usart>;

    unsafe fn start() -> (Self, Self::Uart) {
        // SAFETY: TIM2 and USART1 of this board, taken once.
        unsafe {
            ptr::write_volatile(TIM2_CR1, CR1_ENABLE);
            (Self, Bytewise(Usart::new()))
        }
    }

    fn now(&self) -> u32 {
        // SAFETY: a register of TIM2; reading it changes nothing.
        unsafe { ptr::read_volatile(TIM2_CNT) }
    }
}

#[entry]
fn main() -> ! {
    // SAFETY: this is the first function, and it runs once.
    unsafe { board_support::run::<NetduinoPlus2>() }
}
