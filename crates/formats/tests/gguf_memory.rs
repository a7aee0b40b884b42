//! Whatever a file says, parsing it neither panics nor takes more memory than a small multiple of its bytes.
//!
//! One test only: the allocator counts for the whole process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use anymlx_formats::gguf::{Array, Gguf, GgufWriter, Value};
use anymlx_formats::{DType, QuantType};

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn add(bytes: usize) {
    let live = LIVE.fetch_add(bytes, Ordering::Relaxed) + bytes;
    PEAK.fetch_max(live, Ordering::Relaxed);
}

// SAFETY: every call is passed on to `System`; the counters do not touch the memory. `realloc` is the provided method, so
// old and new block count together while both exist.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Peak bytes per byte of file, beyond a constant for error messages.
const ALLOWED_MULTIPLE: usize = 20;
const ALLOWED_CONSTANT: usize = 4096;

/// Whether the file was accepted, and the peak of memory meanwhile.
fn measured(file: &[u8]) -> (bool, usize) {
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let accepted = Gguf::parse(file).is_ok();
    (accepted, PEAK.load(Ordering::Relaxed) - before)
}

#[derive(Default)]
struct Tally {
    files: usize,
    accepted: usize,
    worst: f64,
}

impl Tally {
    #[track_caller]
    fn parse(&mut self, file: &[u8], what: &str) {
        let (accepted, peak) = measured(file);
        let allowed = ALLOWED_CONSTANT + ALLOWED_MULTIPLE * file.len();
        assert!(peak <= allowed, "{what}: {peak} bytes of memory for a file of {} bytes", file.len());
        self.files += 1;
        self.accepted += usize::from(accepted);
        self.worst = self.worst.max(peak.saturating_sub(ALLOWED_CONSTANT) as f64 / file.len().max(1) as f64);
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        // SplitMix64: <https://prng.di.unimi.it/splitmix64.c>.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

fn seed_files() -> Vec<Vec<u8>> {
    let nested = Array::Array(vec![Array::Array(vec![Array::U8(vec![1]); 3]); 3]);
    let writers = [
        GgufWriter::new()
            .metadata("general.architecture", "llama")
            .metadata("general.alignment", 32u32)
            .metadata("tokens", Array::String(["a", "", "<unk>", "é"].into_iter().collect()))
            .metadata("scores", vec![0.5f32, -1.0])
            .metadata("nested", nested)
            .metadata("flags", Array::Bool(vec![true, false]))
            .tensor("token_embd.weight", &[32, 4], QuantType::Q8_0, vec![1u8; 34 * 4])
            .tensor("output_norm.weight", &[32], DType::F32, vec![2u8; 128]),
        GgufWriter::new().metadata("empty", Value::Array(Array::Array(vec![]))),
        GgufWriter::new().tensor("t", &[1, 1, 1, 1], DType::F16, vec![0u8; 2]),
    ];
    writers
        .into_iter()
        .map(|writer| {
            let mut file = Vec::new();
            writer.write_to(&mut file).unwrap();
            file
        })
        .collect()
}

/// Overwrites, inserts, removes, duplicates or cuts at random places; often with numbers that lengths dislike.
fn mutate(file: &mut Vec<u8>, random: &mut Random) {
    const NUMBERS: [u64; 12] =
        [0, 1, 2, 9, 255, 1 << 16, 1 << 31, u32::MAX as u64, 1 << 32, 1 << 62, 1 << 63, u64::MAX];
    for _ in 0..=random.below(4) {
        if file.is_empty() {
            return;
        }
        let at = random.below(file.len());
        match random.below(7) {
            0 => file[at] = random.next() as u8,
            1 => file[at] ^= 1 << random.below(8),
            2 | 3 => {
                let number = NUMBERS[random.below(NUMBERS.len())].to_le_bytes();
                let width = [4, 8][random.below(2)].min(file.len() - at);
                file[at..at + width].copy_from_slice(&number[..width]);
            }
            4 => {
                let end = (at + random.below(24)).min(file.len());
                file.drain(at..end);
            }
            5 => {
                let end = (at + random.below(40)).min(file.len());
                let piece = file[at..end].to_vec();
                let to = random.below(file.len());
                file.splice(to..to, piece);
            }
            _ => file.truncate(at),
        }
    }
}

/// Headers that pretend: counts as large as the bytes that follow could hold, at every level.
fn pretending(fill: usize) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    let header = |tensors: u64, pairs: u64| {
        let mut file = b"GGUF\x03\0\0\0".to_vec();
        file.extend(tensors.to_le_bytes());
        file.extend(pairs.to_le_bytes());
        file
    };
    let key = |file: &mut Vec<u8>, value_type: u32| {
        file.extend(1u64.to_le_bytes());
        file.push(b'k');
        file.extend(value_type.to_le_bytes());
    };
    files.push(("many pairs".to_owned(), [header(0, fill as u64 / 14), vec![0xff; fill]].concat()));
    files.push(("many tensors".to_owned(), [header(fill as u64 / 25, 0), vec![0xff; fill]].concat()));
    for element in 0..=12u32 {
        for depth in 1..=4 {
            let mut file = header(0, fill as u64 / 14);
            key(&mut file, 9);
            for _ in 1..depth {
                file.extend(9u32.to_le_bytes());
                file.extend((fill as u64 / 12).to_le_bytes());
            }
            file.extend(element.to_le_bytes());
            file.extend((fill as u64 / 8).to_le_bytes());
            file.extend(vec![0; fill]);
            files.push((format!("array of {element} at depth {depth}"), file));
        }
    }
    // As many small real things as fit.
    let mut pairs = header(0, 2000);
    for index in 0..2000u32 {
        pairs.extend(2u64.to_le_bytes());
        pairs.extend([b'!' + (index / 90) as u8, b'!' + (index % 90) as u8]);
        pairs.extend(0u32.to_le_bytes());
        pairs.push(1);
    }
    files.push(("real pairs".to_owned(), pairs));
    let mut arrays = header(0, 1);
    key(&mut arrays, 9);
    arrays.extend(9u32.to_le_bytes());
    arrays.extend(2049u64.to_le_bytes());
    for _ in 0..2049 {
        arrays.extend(0u32.to_le_bytes());
        arrays.extend(0u64.to_le_bytes());
    }
    files.push(("real arrays".to_owned(), arrays));
    let mut tensors = header(2000, 0);
    for index in 0..2000u32 {
        tensors.extend(2u64.to_le_bytes());
        tensors.extend([b'!' + (index / 90) as u8, b'!' + (index % 90) as u8]);
        tensors.extend(0u32.to_le_bytes());
        tensors.extend(24u32.to_le_bytes());
        tensors.extend((u64::from(index) * 32).to_le_bytes());
    }
    files.push(("real tensors without data".to_owned(), tensors.clone()));
    tensors.resize(tensors.len() + 2001 * 32, 0);
    files.push(("real tensors".to_owned(), tensors));
    files
}

#[test]
fn memory_stays_within_a_multiple_of_the_file() {
    let mut tally = Tally::default();
    for fill in [100, 10_000, 1_000_000] {
        for (what, file) in pretending(fill) {
            tally.parse(&file, &what);
        }
    }
    let pretended = tally.files;
    let real = tally.accepted;
    assert!(real >= 9, "only {real} of the well-formed headers were accepted");

    let seeds = seed_files();
    for seed in &seeds {
        assert!(measured(seed).0, "the seeds are valid files");
    }
    let mut random = Random(0x5eed);
    for case in 0..100_000 {
        let mut file = seeds[random.below(seeds.len())].clone();
        mutate(&mut file, &mut random);
        tally.parse(&file, &format!("mutation {case}"));
    }
    let mutations = tally.files - pretended;
    let accepted = tally.accepted - real;
    assert!(accepted > mutations / 100, "mutations are so wild that nothing is accepted: {accepted} of {mutations}");
    assert!(accepted < mutations / 2, "mutations are so tame that most are accepted: {accepted} of {mutations}");
    println!(
        "{mutations} mutations, {accepted} accepted; worst peak {:.1} x file, allowed {ALLOWED_MULTIPLE}",
        tally.worst
    );
}
