//! Planted faults: each is named exactly, and a fault of the flash is told from one of the core.

use rwkv_core::{
    Image, Logits, Model,
    exec::{Numbered, Work, Written},
    sampler::SamplerConfig,
    stream::InPlace,
};
use rwkv_embedded::agent::protocol::Depth;
use rwkv_host::{
    device::{Device, DeviceSpec, Fault, Flip, Options},
    file::ImageFile,
    memory::Memory,
    validate::{Cause, Finding, Host, Pattern, Wrong, bisect, validate},
};
use rwkv_tests::{
    formats, image_with,
    random::{self, VERSIONS},
    text, xorshift,
};

const GREEDY: SamplerConfig = SamplerConfig::GREEDY;

/// Seeds of planted faults.
const SEEDS: usize = 1000;

/// Tokens of the prompt.
const PROMPT: usize = 5;

/// An image of every version, in one format after the other.
fn images() -> Vec<ImageFile> {
    let formats = formats();
    let image = |(index, version): (usize, &&str)| {
        let checkpoint = random::small(version);
        image_with(checkpoint.path(), &formats[index % formats.len()].1)
    };
    VERSIONS.iter().enumerate().map(image).collect()
}

/// How many values each operation of a token writes.
#[derive(Default)]
struct Sizes(Numbered, Vec<(Written, usize)>);

impl Logits for Sizes {
    const LOOKS: bool = true;

    fn push(&mut self, _: u32, _: &[f32]) {}

    fn wrote(&mut self, work: Work, first: u32, values: &mut [f32]) {
        let written = self.0.piece(work, first);
        match self.1.last_mut().filter(|(last, _)| *last == written) {
            Some((_, len)) => *len += values.len(),
            None => self.1.push((written, values.len())),
        }
    }
}

fn sizes(image: &Image<'_>) -> Vec<(Written, usize)> {
    let mut memory = Memory::new(image);
    let (state, scratch) = memory.split(image).unwrap();
    let mut model = Model::new(*image.header(), InPlace::new(image.words()), scratch).unwrap();
    let mut sizes = Sizes::default();
    model.step(state, 0, &mut sizes).unwrap();
    sizes.1
}

/// The state of a text.
fn state_after(image: &Image<'_>, tokens: &[u32]) -> Vec<f32> {
    let mut memory = Memory::new(image);
    let (mut state, scratch) = memory.split(image).unwrap();
    let mut model = Model::new(*image.header(), InPlace::new(image.words()), scratch).unwrap();
    for token in tokens {
        model.step(state.reborrow(), *token, ()).unwrap();
    }
    state.words().concat()
}

fn open(image: &Image<'_>, options: &Options) -> Device {
    Device::open(DeviceSpec::Sim, image, options).unwrap()
}

/// A prompt without repetition, so that a token names a place.
fn prompt(image: &Image<'_>, seed: u32) -> Vec<u32> {
    let vocab = image.header().dims.vocab;
    let mut prompt: Vec<u32> = Vec::new();
    prompt.extend(text(64, seed).iter().map(|token| token % vocab));
    prompt.sort_unstable();
    prompt.dedup();
    prompt.truncate(PROMPT);
    assert_eq!(prompt.len(), PROMPT);
    prompt
}

#[test]
fn planted_faults_of_the_core_are_named() {
    let files = images();
    let images: Vec<Image<'_>> = files.iter().map(|file| file.open().unwrap()).collect();
    let sizes: Vec<_> = images.iter().map(sizes).collect();
    let mut random = xorshift(1);
    let mut below = |n: usize| random() as usize % n;
    let (mut shown, mut masked) = (0, 0);
    for seed in 0..SEEDS {
        let at = seed % images.len();
        let (image, sizes) = (&images[at], &sizes[at]);
        let prompt = prompt(image, seed as u32);
        let index = below(prompt.len());
        let (written, len) = sizes[below(sizes.len())];
        let (element, bit) = (below(len) as u32, below(32) as u8);
        let fault = Fault { token: Some(prompt[index]), written, element, bit };
        let mut device = open(image, &Options { fault: Some(fault), ..Options::default() });
        let mut host = Host::stepwise(image, GREEDY).unwrap();
        let verdict = validate(&mut device, &mut host, GREEDY, &prompt, 0, |_| {}).unwrap();
        let finding = match &verdict.first_difference {
            Some(difference) => {
                assert_eq!(difference.index, index, "{fault:?}");
                shown += 1;
                verdict.finding.clone().unwrap()
            }
            // A bit that quantisation drops, or that nothing reads.
            None => {
                masked += 1;
                let before = state_after(image, &prompt[..index]);
                bisect(&mut device, image, &before, prompt[index]).unwrap()
            }
        };
        let Finding::Operation(wrong) = finding else { panic!("{fault:?}: {finding:?}") };
        let Wrong { first: Some(value), cause, .. } = &wrong else {
            panic!("{fault:?}: {wrong:?}")
        };
        assert_eq!((wrong.written, value.index), (written, element as usize), "{fault:?}");
        assert_eq!((wrong.values, wrong.differing), (len, 1), "{fault:?}");
        assert_eq!(value.host_bits ^ value.device_bits, 1 << bit, "{fault:?}");
        let Cause::Computation { pattern } = cause else { panic!("{fault:?}: {cause:?}") };
        assert!(matches!(pattern, Pattern::OneBit | Pattern::FlushToZero), "{fault:?}");
    }
    println!("{SEEDS} faults named: {shown} that a digest has shown, {masked} that nothing read");
    assert!(shown > SEEDS / 2);
}

#[test]
fn planted_faults_of_the_flash_are_named() {
    let files = images();
    let images: Vec<Image<'_>> = files.iter().map(|file| file.open().unwrap()).collect();
    let mut random = xorshift(2);
    let mut below = |n: usize| random() as usize % n;
    let (mut shown, mut unread) = (0, 0);
    for seed in 0..SEEDS / 4 {
        let image = &images[seed % images.len()];
        let prompt = prompt(image, seed as u32);
        // Behind the embedding, every token reads nearly everything.
        let first = image.header().layers_offset as usize;
        let flip = Flip { offset: first + below(image.bytes().len() - first), bit: below(8) as u8 };
        let mut device = open(image, &Options { flip: Some(flip), ..Options::default() });
        let mut host = Host::stepwise(image, GREEDY).unwrap();
        let verdict = validate(&mut device, &mut host, GREEDY, &prompt, 0, |_| {}).unwrap();
        let Some(finding) = &verdict.finding else {
            unread += 1;
            continue;
        };
        shown += 1;
        let Finding::Operation(wrong) = finding else { panic!("{flip:?}: {finding:?}") };
        let Cause::Image { offset, page, host, device, words, .. } = wrong.cause else {
            panic!("{flip:?}: {wrong:?}");
        };
        assert_eq!(offset as usize, flip.offset / 4 * 4, "{flip:?}");
        assert_eq!((page, words), (offset / 4096, 1), "{flip:?}");
        assert_eq!(host ^ device, 1 << (8 * (flip.offset % 4) as u32 + u32::from(flip.bit)));
    }
    // Checksums of blocks, which memory is trusted without, and bits that rounding drops.
    println!("{shown} faults named, {unread} that changed no bit");
    assert!(shown > SEEDS / 8);
}

/// Where nothing is wrong, nothing is found; and what a device shows is what the host computes.
#[test]
fn a_device_without_a_fault_shows_the_bits_of_the_host() {
    for file in images() {
        let image = file.open().unwrap();
        let mut device = open(&image, &Options::default());
        shows_the_bits_of_the_host(&mut device, &image);
    }
}

/// Compares digests at every depth, the logits as values, and the image.
pub(crate) fn shows_the_bits_of_the_host(device: &mut Device, image: &Image<'_>) {
    let prompt = prompt(image, 3);
    let before = state_after(image, &prompt);
    let found = bisect(device, image, &before, prompt[0]).expect("the device shows its operations");
    assert_eq!(found, Finding::NotReproduced);

    let mut memory = Memory::new(image);
    let (mut state, scratch) = memory.split(image).expect("it fits");
    state.restore(before.iter().copied()).expect("it is its state");
    let mut model =
        Model::new(*image.header(), InPlace::new(image.words()), scratch).expect("it fits");
    let dims = image.header().dims;
    let mut logits = vec![0.0; dims.vocab as usize];
    model.step(state, prompt[0], &mut logits[..]).expect("it steps");
    device.write_state(&before).expect("the device takes its state");
    // Of the head, the norm comes first.
    let head = Written { section: dims.layers as u16 + 1, operation: 1 };
    let looked = device.look(prompt[0], Depth::Values(head)).expect("it shows logits");
    let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&looked.values), bits(&logits));
    // A layer's operations, one digest each; there is no section behind the head.
    device.write_state(&before).expect("the device takes its state");
    let looked = device.look(prompt[0], Depth::Operations { section: 1 }).expect("it shows them");
    let operations = sizes(image).iter().filter(|(written, _)| written.section == 1).count();
    assert_eq!(looked.digests.len(), operations);
    let none = Depth::Operations { section: dims.layers as u16 + 2 };
    assert!(device.look(prompt[0], none).expect("it has none").digests.is_empty());

    let words = image.words();
    let end = words.len();
    assert_eq!(device.read_image(0..70).expect("it reads"), words[..70]);
    assert_eq!(device.read_image(end - 65..end).expect("it reads"), words[end - 65..]);
    device.read_image(end..end + 1).expect_err("nothing is there");
}
