//! Products of each type of weights, beside the limits of the machine: `cargo bench -p anymlx --bench products`.
//!
//! `mat_vec` reads every byte of its weights once: compare its GB/s with `limit::read`. `mat_mul` counts a product and
//! an addition as two operations: compare its Gitem/s with `limit::multiply_add`, which 8-bit products may pass.

use anymlx::{
    CommandGraph, DType, MlxDevice, QuantType, TensorType, Weight, bandwidth,
    ops::{MatmulInput, matmul, quantize_activations, quantize_activations_refined, quantized_activation_bytes},
};
use anymlx_formats::quant;
use anymlx_testing::Random;
use divan::{
    Bencher,
    counter::{BytesCount, ItemsCount},
};

fn main() {
    divan::main();
}

const ENCODINGS: [TensorType; 9] = [
    TensorType::Quantized(QuantType::Q4_0),
    TensorType::Quantized(QuantType::Q5_0),
    TensorType::Quantized(QuantType::Q8_0),
    TensorType::Quantized(QuantType::Q2_K),
    TensorType::Quantized(QuantType::Q4_K),
    TensorType::Quantized(QuantType::Q6_K),
    TensorType::Dense(DType::F32),
    TensorType::Dense(DType::F16),
    TensorType::Dense(DType::BF16),
];

/// A recorded product, and the bytes of its weights.
fn product(encoding: TensorType, tokens: usize, rows: usize, columns: usize) -> (CommandGraph, usize) {
    let device = MlxDevice::cpu().expect("a CPU device opens");
    let mut random = Random::new(1);
    // Values do not matter to the time: some rows, again and again.
    let values = random.normal_vec(64 * columns);
    let mut some = vec![0; encoding.byte_len(values.len() as u64).expect("whole blocks") as usize];
    quant::quantize(encoding, &values, &mut some).expect("every type here can be made");
    let bytes: Vec<u8> = some.iter().copied().cycle().take(some.len() / 64 * rows).collect();
    let (dtype, elements) = match encoding {
        TensorType::Dense(dtype) => (dtype, rows * columns),
        _ => (DType::U8, bytes.len()),
    };
    let data = device.buffer_from_slice(&bytes, dtype, [elements]).expect("memory suffices");
    let weight = Weight::new(data, encoding, rows, columns).expect("the shape fits");
    let input = random.normal_vec(tokens * columns);
    let input = device.buffer_from_slice(&input, DType::F32, [tokens, columns]).expect("memory suffices");
    let output = device.zeros(DType::F32, [tokens, rows]).expect("memory suffices");
    // As the model layer does: few tokens in two steps.
    let refined = tokens <= 8;
    let quantized = matches!(encoding, TensorType::Quantized(_)).then(|| {
        let row_bytes = quantized_activation_bytes(1, columns).expect("whole groups");
        device.zeros(DType::U8, [if refined { 2 * tokens } else { tokens }, row_bytes]).expect("memory suffices")
    });
    if let Some(quantized) = &quantized {
        let mut encoder = device.command_encoder().expect("an encoder opens");
        let quantize = if refined { quantize_activations_refined } else { quantize_activations };
        quantize(&mut encoder, &input, quantized).expect("the shape fits");
        encoder.commit_and_wait().expect("activations are finite");
    }
    let input = MatmulInput { values: &input, quantized: quantized.as_ref() };
    let graph = device.record(|encoder| matmul(encoder, input, &weight, &output, None)).expect("the shapes fit");
    (graph, bytes.len())
}

fn run(graph: &CommandGraph) {
    graph.replay().expect("the graph is ready").wait().expect("products do not fail");
}

/// One token, 48 million weights: more than caches hold.
#[divan::bench(args = ENCODINGS, sample_count = 30)]
fn mat_vec(bencher: Bencher, encoding: TensorType) {
    let (graph, bytes) = product(encoding, 1, 65_536, 768);
    bencher.counter(BytesCount::new(bytes)).bench_local(|| run(&graph));
}

/// 512 tokens.
#[divan::bench(args = ENCODINGS, sample_count = 30)]
fn mat_mul(bencher: Bencher, encoding: TensorType) {
    let (graph, _) = product(encoding, 512, 2048, 768);
    bencher.counter(ItemsCount::new(2_usize * 512 * 2048 * 768)).bench_local(|| run(&graph));
}

mod limit {
    use super::*;

    /// Memory of 256 MiB, read on all threads.
    #[divan::bench(sample_count = 5)]
    fn read(bencher: Bencher) {
        let device = MlxDevice::cpu().expect("a CPU device opens");
        let reader = bandwidth::Reader::new(&device).expect("memory suffices");
        bencher
            .counter(BytesCount::new(bandwidth::BYTES))
            .bench_local(|| reader.pass().expect("reading does not fail"));
    }

    /// Multiply-adds of `f32` in registers, on all threads.
    #[divan::bench(sample_count = 20)]
    fn multiply_add(bencher: Bencher) {
        const ROUNDS: usize = 1_000_000;
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        bencher.counter(ItemsCount::new(2 * 96 * ROUNDS * threads)).bench_local(|| {
            std::thread::scope(|scope| {
                (0..threads).for_each(|_| drop(scope.spawn(|| chains::best(ROUNDS))));
            });
        });
    }

    mod chains {
        /// 96 independent sums, twelve vectors of eight, with the best instructions there are.
        pub fn best(rounds: usize) -> f32 {
            #[cfg(target_arch = "x86_64")]
            if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
                // SAFETY: the processor has both.
                return unsafe { fused(rounds) };
            }
            sums(rounds, |factor, value, sum| factor * value + sum)
        }

        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        fn fused(rounds: usize) -> f32 {
            sums(rounds, f32::mul_add)
        }

        #[inline(always)]
        fn sums(rounds: usize, multiply_add: impl Fn(f32, f32, f32) -> f32) -> f32 {
            let (factor, mut sums) = (std::hint::black_box(0.999_f32), [1.0_f32; 96]);
            for _ in 0..rounds {
                for sum in &mut sums {
                    *sum = multiply_add(*sum, factor, 0.001);
                }
            }
            std::hint::black_box(sums.iter().sum())
        }
    }
}
