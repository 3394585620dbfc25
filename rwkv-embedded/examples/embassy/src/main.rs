//! Generates tokens in an embassy executor beside a task that blinks, on QEMU's `mps2-an386`.
//!
//! An image at 0x0008_0000 continues a prompt, three times: with weights in place, where all other
//! tasks wait for a token; through [`GivingWay`], where they wait for a block of weights; and through
//! [`ReadAhead`] from a flash whose reads end with an interrupt. The UART says what was written, the
//! digest of state and logits, and how long the light had to wait.

#![no_std]
#![no_main]

use core::{
    convert::Infallible,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use board_support::{
    cmsdk::{Timer, Uart},
    memory,
    uart::Bytewise,
};
use cortex_m::peripheral::syst::SystClkSource;
use cortex_m_rt::exception;
use embassy_executor::Spawner;
use embassy_futures::yield_now;
use embassy_sync::{blocking_mutex::raw::CriticalSectionRawMutex, signal::Signal};
use embedded_io::Write;
use embedded_storage_async::nor_flash::{ErrorType, ReadNorFlash};
use rwkv_core::{
    Digest, Error, Image,
    sampler::{Sampler, SamplerConfig},
    stream::{InPlace, Stream},
};
use rwkv_embedded::{
    firmware::in_arena,
    stream::{GivingWay, NorAsync, ReadAhead},
};
use static_cell::StaticCell;

const PROMPT: &str = "X:1\nT:";
/// Tokens to write.
const COUNT: u32 = 200;
const SAMPLER: SamplerConfig =
    SamplerConfig { temperature: 0.8, top_k: 40, top_p: 0.95, seed: 3, ..SamplerConfig::GREEDY };

const TIMER: usize = 0x4000_0000;
const UART: usize = 0x4000_4000;
/// Instructions per tick of TIMER and of SysTick, which both run at 25 MHz.
const INSTRUCTIONS_PER_TICK: u32 = 40;
/// Ticks between two toggles of the light: 10,000 instructions.
const PERIOD: u32 = 250;
/// A block of weights takes less than this part of a token.
const PART: u32 = 8;

/// Words of a buffer for weights: a block of 4 KB and what surrounds it, or a row of the embedding.
const BUFFER: usize = 1100;

/// It is time to toggle the light.
static DUE: Signal<CriticalSectionRawMutex, ()> = Signal::new();
/// How often the light was toggled.
static TOGGLES: AtomicU32 = AtomicU32::new(0);
/// When it was toggled last, in ticks, and the longest time between two toggles.
static LAST: AtomicU32 = AtomicU32::new(0);
static LONGEST: AtomicU32 = AtomicU32::new(0);
static CLOCK: StaticCell<Timer> = StaticCell::new();
/// A read of the flash has ended.
static ARRIVED: Signal<CriticalSectionRawMutex, ()> = Signal::new();
static BUFFERS: StaticCell<[[u32; BUFFER]; 3]> = StaticCell::new();

#[exception]
fn SysTick() {
    DUE.signal(());
    ARRIVED.signal(());
}

/// A flash as drivers with DMA have it: a read ends at the next interrupt, and others run meanwhile.
struct Flash(&'static [u8]);

impl ErrorType for Flash {
    type Error = Infallible;
}

impl ReadNorFlash for Flash {
    const READ_SIZE: usize = 4;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Infallible> {
        ARRIVED.reset();
        ARRIVED.wait().await;
        let source = self.0.iter().skip(offset as usize);
        bytes.iter_mut().zip(source).for_each(|(to, from)| *to = *from);
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.0.len()
    }
}

#[embassy_executor::task]
async fn blink(clock: &'static Timer) {
    loop {
        DUE.wait().await;
        TOGGLES.fetch_add(1, Relaxed);
        let now = clock.now();
        LONGEST.fetch_max(now.wrapping_sub(LAST.swap(now, Relaxed)), Relaxed);
    }
}

/// What a run computed, and what it cost.
struct Run {
    digest: Digest,
    /// Ticks of its shortest token.
    token: u32,
    /// Ticks between two toggles, at most.
    gap: u32,
    /// Toggles.
    toggles: u32,
}

/// Continues the prompt and says what comes.
async fn generate(
    image: &Image<'_>,
    stream: impl Stream,
    arena: &mut [f32],
    clock: &Timer,
    uart: &mut Bytewise<Uart>,
) -> Result<Run, Error> {
    let header = image.header();
    let mut ready = false;
    let (mut model, mut state) = in_arena(*header, stream, arena, &mut ready)?;
    let mut sampler = defmt::unwrap!(Sampler::new(SAMPLER));
    let mut run = Run { digest: Digest::default(), token: u32::MAX, gap: 0, toggles: 0 };
    LAST.store(clock.now(), Relaxed);
    LONGEST.store(0, Relaxed);
    let toggles = TOGGLES.load(Relaxed);

    model.reset_async(state.reborrow()).await?;
    sampler.begin();
    let prompt = PROMPT.bytes().map(u32::from);
    model.prefill_async(state.reborrow(), prompt, (&mut sampler, &mut run.digest)).await?;
    let Ok(()) = uart.write_all(PROMPT.as_bytes());
    for _ in 0..COUNT {
        let token = defmt::unwrap!(sampler.finish());
        // The vocabulary is that of bytes.
        let Ok(()) = uart.write_all(&[token as u8]);
        run.digest = Digest::default();
        sampler.begin();
        let start = clock.now();
        model.step_async(state.reborrow(), token, (&mut sampler, &mut run.digest)).await?;
        run.token = run.token.min(clock.now().wrapping_sub(start));
        yield_now().await;
    }
    run.digest = Digest::token(header, &state, run.digest)?;
    run.gap = LONGEST.load(Relaxed);
    run.toggles = TOGGLES.load(Relaxed).wrapping_sub(toggles);
    let Digest(low, high) = run.digest;
    defmt::unwrap!(writeln!(uart, "\ndigest {low:08x}{high:08x}").ok());
    Ok(run)
}

#[embassy_executor::main]
async fn main(spawner: Spawner) {
    defmt::unwrap!(rwkv_embedded::selftest::floats());
    // SAFETY: this is the first function, it runs once, and these are the board's addresses.
    let (arena, clock, mut uart, core) = unsafe {
        let core = cortex_m::Peripherals::steal();
        (memory::arena(), CLOCK.init(Timer::new(TIMER)), Bytewise(Uart::new(UART)), core)
    };
    let mut ticks = core.SYST;
    ticks.set_clock_source(SystClkSource::Core);
    ticks.set_reload(PERIOD - 1);
    ticks.clear_current();
    ticks.enable_interrupt();
    ticks.enable_counter();
    spawner.spawn(defmt::unwrap!(blink(clock)));

    let image = defmt::unwrap!(Image::open_prefix(memory::image()));
    let stream = InPlace::new(image.words());
    let plain = generate(&image, stream.clone(), arena, clock, &mut uart).await;
    let giving = generate(&image, GivingWay(stream), arena, clock, &mut uart).await;
    let [first, second, rows] =
        BUFFERS.init([[0; BUFFER]; 3]).each_mut().map(<[u32; _]>::as_mut_slice);
    let (flash, bytes) = (NorAsync(Flash(image.bytes())), image.header().bytes());
    let flash = defmt::unwrap!(ReadAhead::new(flash, 0, bytes, [first, second], rows));
    let stream = GivingWay(flash.stream::<true>());
    let ahead = flash.drive(generate(&image, stream, arena, clock, &mut uart)).await;
    let [plain, giving, ahead] = [plain, giving, ahead].map(|run| defmt::unwrap!(run));
    for (name, run) in [("in place", &plain), ("giving way", &giving), ("reading ahead", &ahead)] {
        let [gap, token] = [run.gap, run.token].map(|ticks| ticks * INSTRUCTIONS_PER_TICK);
        let toggles = run.toggles;
        let line = format_args!("{name}: {toggles} toggles, at most {gap} instructions apart");
        defmt::unwrap!(writeln!(uart, "{line}; a token takes {token}").ok());
    }
    defmt::assert!(plain.digest == giving.digest, "giving way changes the bits");
    defmt::assert!(plain.digest == ahead.digest, "reading ahead changes the bits");
    defmt::assert!(plain.gap >= plain.token, "the measure does not see that a token blocks");
    for run in [&giving, &ahead] {
        defmt::assert!(run.gap * PART < plain.token, "a block keeps others waiting for too long");
    }
    semihosting::process::exit(0)
}
