//! Planted faults: each is named exactly, and a fault of the flash is told from one of the core.

use rwkv_core::{
    Digest, Image, Logits, Model,
    exec::{Numbered, Work, Written},
    image::{Id, RECORD_WORDS, SectionKind},
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
    baked, formats, image_with,
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

/// What the operations of a token write.
#[derive(Default)]
struct Trace(Numbered, Vec<Operation>);

struct Operation {
    written: Written,
    record: Option<Id>,
    values: Vec<f32>,
}

impl Operation {
    fn digest(&self) -> Digest {
        let mut digest = Digest::default();
        digest.add(0, &self.values).expect("finite values");
        digest
    }
}

impl Logits for Trace {
    const LOOKS: bool = true;

    fn push(&mut self, _: u32, _: &[f32]) {}

    fn wrote(&mut self, work: Work, first: u32, values: &mut [f32]) {
        let written = self.0.piece(work, first);
        match self.1.last_mut().filter(|last| last.written == written) {
            Some(last) => last.values.extend_from_slice(values),
            None => {
                let (record, values) = (work.id, values.to_vec());
                self.1.push(Operation { written, record, values });
            }
        }
    }
}

/// What a token writes, from a state on.
fn trace(image: &Image<'_>, before: &[f32], token: u32) -> Vec<Operation> {
    let mut memory = Memory::new(image);
    let (mut state, scratch) = memory.split(image).expect("it fits");
    state.restore(before.iter().copied()).expect("it is its state");
    let mut model =
        Model::new(*image.header(), InPlace::new(image.words()), scratch).expect("it fits");
    let mut trace = Trace::default();
    model.step(state, token, &mut trace).expect("it steps");
    trace.1
}

/// Each operation of a token, and how many values it writes.
fn sizes(image: &Image<'_>) -> Vec<(Written, usize)> {
    let operations = trace(image, &state_after(image, &[]), 0);
    operations.iter().map(|operation| (operation.written, operation.values.len())).collect()
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
        let Wrong { first: Some(value), cause, .. } = &*wrong else {
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
        // The operation is one that reads the damaged record.
        let cause = &wrong.cause;
        assert!(is_flip(cause, flip), "{flip:?}: {wrong:?}");
        let Cause::Image { place, .. } = cause else { unreachable!() };
        let record = wrong.record.as_deref().expect("it reads one");
        assert!(place.ends_with(&format!("record {record}")), "{flip:?}: {wrong:?}");
        assert!(place.starts_with(&wrong.section_name), "{flip:?}: {wrong:?}");
    }
    // Checksums of blocks, which memory is trusted without, and bits that rounding drops.
    println!("{shown} faults named, {unread} that changed no bit");
    assert!(shown > SEEDS / 8);
}

/// Whether a cause is exactly a bit that was flipped.
fn is_flip(cause: &Cause, flip: Flip) -> bool {
    let Cause::Image { offset, page, host, device, words, .. } = *cause else { return false };
    let bit = 1 << (8 * (flip.offset % 4) as u32 + u32::from(flip.bit));
    (offset as usize, page, words) == (flip.offset / 4 * 4, offset / 4096, 1)
        && host ^ device == bit
}

/// A damaged start state is not there any more when a token is computed again; a damaged layer does
/// not explain what the core computes wrong in another.
#[test]
fn faults_of_the_flash_are_blamed_for_what_reads_them() {
    let file = image_with(random::small("4").path(), &formats()[2].1);
    let file = baked(&file, &text(9, 4));
    let image = file.open().unwrap();
    let run = |flip, fault| {
        let mut device = open(&image, &Options { flip, fault, ..Options::default() });
        let mut host = Host::stepwise(&image, GREEDY).unwrap();
        let prompt = prompt(&image, 1);
        let verdict = validate(&mut device, &mut host, GREEDY, &prompt, 0, |_| {}).unwrap();
        println!("{verdict}\n");
        verdict.finding.unwrap()
    };
    let start = image.sections().find(|section| section.kind == SectionKind::StartState).unwrap();
    // Behind the header of its record and the checksum of its first block.
    let flip = Flip { offset: start.range().start + 4 * (RECORD_WORDS + 1) + 2, bit: 6 };
    let Finding::NotReproduced { image: Some(cause) } = run(Some(flip), None) else {
        panic!("the flash is not blamed")
    };
    assert!(is_flip(&cause, flip), "{cause:?}");

    let written = Written { section: 1, operation: 2 };
    let fault = Some(Fault { token: None, written, element: 0, bit: 22 });
    let Finding::Operation(wrong) = run(Some(flip), fault) else { panic!("it is reproduced") };
    assert_eq!(wrong.written, written);
    assert_eq!(wrong.cause, Cause::Computation { pattern: Pattern::OneBit });
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

/// Compares the digests at every depth, some of the values, and the image.
pub(crate) fn shows_the_bits_of_the_host(device: &mut Device, image: &Image<'_>) {
    let prompt = prompt(image, 3);
    let before = state_after(image, &prompt);
    let found = bisect(device, image, &before, prompt[0]).expect("the device shows its operations");
    assert_eq!(found, Finding::NotReproduced { image: None });

    let operations = trace(image, &before, prompt[0]);
    let mut look = |depth| {
        device.write_state(&before).expect("the device takes its state");
        device.look(prompt[0], depth).expect("it shows what it writes")
    };
    let layers = image.header().dims.layers as u16;
    for section in 0..layers + 2 {
        let of_section = || operations.iter().filter(|o| o.written.section == section);
        let digests: Vec<Digest> = of_section().map(Operation::digest).collect();
        assert!(look(Depth::Operations { section }).digests == digests, "section {section}");
        // The last of them, which of the head are the logits.
        let last = of_section().next_back().expect("every section writes");
        let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        let looked = look(Depth::Values(last.written));
        assert!(bits(&looked.values) == bits(&last.values), "{:?}", last.record);
        assert!(looked.token.is_some() && looked.refused.is_none());
    }
    assert!(look(Depth::Operations { section: layers + 2 }).digests.is_empty());

    let words = image.words();
    let end = words.len();
    assert_eq!(device.read_image(0..70).expect("it reads"), words[..70]);
    assert_eq!(device.read_image(end - 65..end).expect("it reads"), words[end - 65..]);
    device.read_image(end..end + 1).expect_err("nothing is there");
}
