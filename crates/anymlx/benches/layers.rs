//! Times the steps of a transformer layer on a device, for one token: `cargo bench --bench layers -- [DEVICE] [8b|1b]`.
//!
//! Each step is recorded several times over weights of its own, so that no cache holds them, as one graph; the table
//! gives the median time of a step in replays of that graph, what it reads, and the share of the measured bandwidth.

use std::time::Duration;

use anymlx::{
    CommandEncoder, DType, MlxBuffer, MlxDevice, QuantType, Result, TensorType, Weight, bandwidth,
    ops::{
        self, Activation, AttentionParams, LayerInput, MatmulInput, Projection, RmsNormParams, RopeLayout, RopeParams,
        RotateAndCache, SampleParams,
    },
};

const REPLAYS: usize = 30;
/// More than caches hold.
const COLD_BYTES: u64 = 400 << 20;

#[derive(Debug, Clone, Copy)]
struct Shape {
    hidden: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    feed_forward: usize,
    vocabulary: usize,
}

const LLAMA_8B: Shape =
    Shape { hidden: 4096, heads: 32, kv_heads: 8, head_dim: 128, feed_forward: 14_336, vocabulary: 128_256 };
const LLAMA_1B: Shape =
    Shape { hidden: 2048, heads: 32, kv_heads: 8, head_dim: 64, feed_forward: 8192, vocabulary: 128_256 };

struct Bench {
    device: MlxDevice,
    bytes_per_second: f64,
    noise: Vec<u8>,
}

impl Bench {
    fn weight(&self, quant: QuantType, rows: usize, columns: usize) -> Result<Weight> {
        let encoding = TensorType::Quantized(quant);
        let bytes = encoding.byte_len((rows * columns) as u64).expect("whole blocks") as usize;
        let mut data = self.noise.iter().copied().cycle().take(bytes).collect::<Vec<_>>();
        // Scales of zero: the time does not depend on them, and sums stay finite.
        let (block, scale) = match quant {
            QuantType::Q6_K => (210, 208..210),
            _ => (144, 0..4),
        };
        data.chunks_exact_mut(block).for_each(|block| block[scale.clone()].fill(0));
        Weight::new(self.device.buffer_from_slice(&data, DType::U8, [bytes])?, encoding, rows, columns)
    }

    fn floats(&self, shape: impl Into<Vec<usize>>) -> Result<MlxBuffer> {
        self.device.zeros(DType::F32, shape)
    }

    /// A place for the 8-bit form of one row.
    fn form(&self, columns: usize) -> Result<MlxBuffer> {
        let bytes = ops::quantized_activation_bytes(1, columns).expect("a multiple of 32");
        self.device.zeros(DType::U8, [1, bytes])
    }

    /// Replays `repeats` recordings of a step and prints the time of one.
    fn time(
        &self,
        name: &str,
        bytes: u64,
        repeats: usize,
        mut record: impl FnMut(&mut CommandEncoder, usize) -> Result<()>,
    ) -> Result<Duration> {
        let graph = self.device.record(|encoder| (0..repeats).try_for_each(|index| record(encoder, index)))?;
        graph.replay()?.wait()?;
        let mut times =
            (0..REPLAYS).map(|_| Ok(graph.replay()?.wait()?.execution)).collect::<Result<Vec<Duration>>>()?;
        times.sort();
        let time = times[REPLAYS / 2] / repeats as u32;
        let rate = bytes as f64 / time.as_secs_f64();
        let share = 100.0 * rate / self.bytes_per_second;
        println!("{name:<28} {:>9.2} us {:>9.1} GB/s {share:>6.1} %", time.as_secs_f64() * 1e6, rate / 1e9);
        Ok(time)
    }

    fn layer(&self, shape: &Shape) -> Result<()> {
        use QuantType::{Q4_K, Q6_K};
        let Shape { hidden, heads, kv_heads, head_dim, feed_forward, vocabulary } = *shape;
        let (query, key_value) = (heads * head_dim, kv_heads * head_dim);
        let residual = self.floats([1, hidden])?;
        let norm = self.floats([hidden])?;
        let params = RmsNormParams { epsilon: 1e-5, weight_offset: 0.0 };
        let (normed, form) = (self.floats([1, hidden])?, self.form(hidden)?);
        let places = MatmulInput { values: &normed, quantized: Some(&form) };
        let input = LayerInput::Normed { rows: &residual, weight: &norm, params, normed: places };
        let outputs = [self.floats([1, query])?, self.floats([1, key_value])?, self.floats([1, key_value])?];
        let copies = |bytes: u64| COLD_BYTES.div_ceil(bytes).clamp(4, 64) as usize;
        let bytes_of = |weights: &[Weight]| weights.iter().map(|w| w.data().data_byte_len() as u64).sum::<u64>();

        for third in [Q4_K, Q6_K] {
            let set = || -> Result<[Weight; 3]> {
                Ok([
                    self.weight(Q4_K, query, hidden)?,
                    self.weight(Q4_K, key_value, hidden)?,
                    self.weight(third, key_value, hidden)?,
                ])
            };
            let first = set()?;
            let bytes = bytes_of(&first);
            let sets = (0..copies(bytes)).map(|_| set()).collect::<Result<Vec<_>>>()?;
            self.time(&format!("project q k v {third:?}"), bytes, sets.len(), |encoder, index| {
                let projections: Vec<_> = sets[index]
                    .iter()
                    .zip(&outputs)
                    .map(|(weight, output)| Projection { weight, bias: None, output })
                    .collect();
                ops::project(encoder, input, &projections)
            })?;
        }

        let gated = self.floats([1, feed_forward])?;
        let set = || -> Result<[Weight; 2]> {
            Ok([self.weight(Q4_K, feed_forward, hidden)?, self.weight(Q4_K, feed_forward, hidden)?])
        };
        let bytes = bytes_of(&set()?);
        let sets = (0..copies(bytes)).map(|_| set()).collect::<Result<Vec<_>>>()?;
        self.time("gated_projection", bytes, sets.len(), |encoder, index| {
            let [gate, up] = &sets[index];
            ops::gated_projection(encoder, input, gate, up, &gated, Activation::Silu)
        })?;

        for (name, columns, quant) in
            [("output", query, Q4_K), ("down", feed_forward, Q4_K), ("down", feed_forward, Q6_K)]
        {
            let row = self.floats([1, columns])?;
            let form = self.form(columns)?;
            let rows = LayerInput::Rows(MatmulInput { values: &row, quantized: Some(&form) });
            let bytes = bytes_of(&[self.weight(quant, hidden, columns)?]);
            let sets = (0..copies(bytes)).map(|_| self.weight(quant, hidden, columns)).collect::<Result<Vec<_>>>()?;
            self.time(&format!("project_add {name} {quant:?}"), bytes, sets.len(), |encoder, index| {
                let projection = Projection { weight: &sets[index], bias: None, output: &normed };
                ops::project_add(encoder, rows, projection, None, &residual)
            })?;
        }

        let head = self.weight(Q6_K, vocabulary, hidden)?;
        let logits = self.floats([1, vocabulary])?;
        self.time("project head Q6_K", bytes_of(std::slice::from_ref(&head)), 4, |encoder, _| {
            ops::project(encoder, input, &[Projection { weight: &head, bias: None, output: &logits }])
        })?;
        let (step, next) = (self.device.zeros(DType::U32, [1])?, self.device.zeros(DType::U32, [1])?);
        self.time("sample greedy", vocabulary as u64 * 4, 8, |encoder, _| {
            ops::sample(encoder, &logits, &step, &next, SampleParams::default())
        })?;
        self.attention(shape)
    }

    fn attention(&self, shape: &Shape) -> Result<()> {
        const CAPACITY: usize = 8448;
        let Shape { heads, kv_heads, head_dim, .. } = *shape;
        let rows = |heads: usize| self.floats([1, heads, head_dim]);
        let (queries, keys, values) = (rows(heads)?, rows(kv_heads)?, rows(kv_heads)?);
        let output = self.floats([1, heads * head_dim])?;
        let frequencies = self.floats([head_dim / 2])?;
        let cache = || self.device.zeros(DType::F16, [kv_heads, CAPACITY, head_dim]);
        let caches = (0..12).map(|_| Ok([cache()?, cache()?])).collect::<Result<Vec<[MlxBuffer; 2]>>>()?;
        for context in [128_usize, 2048, 8192] {
            let position = self.device.buffer_from_slice(&[context as u32 - 1], DType::U32, [1])?;
            let bytes = (2 * context * kv_heads * head_dim * 2) as u64;
            self.time(&format!("attention at {context}"), bytes, caches.len(), |encoder, index| {
                let [keys, values] = &caches[index];
                let params = AttentionParams { scale: 0.1, window: None, softcap: None };
                ops::attention(encoder, &queries, keys, values, &position, &output, params)
            })?;
        }
        let position = self.device.buffer_from_slice(&[9_u32], DType::U32, [1])?;
        self.time("rotate_and_cache", 0, caches.len(), |encoder, index| {
            let [key_cache, value_cache] = &caches[index];
            let operands = RotateAndCache {
                queries: &queries,
                keys: &keys,
                values: &values,
                norms: None,
                positions: &position,
                frequencies: &frequencies,
                rope: RopeParams { layout: RopeLayout::Interleaved, rotary_dims: head_dim, magnitude: 1.0 },
                key_cache,
                value_cache,
            };
            ops::rotate_and_cache(encoder, operands)
        })?;
        Ok(())
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let named = |name: &str| arguments.iter().any(|argument| argument == name);
    let device = match arguments.iter().find(|argument| argument.starts_with("cuda") || *argument == "cpu") {
        Some(name) => MlxDevice::open(name.parse()?)?,
        None => MlxDevice::new()?,
    };
    let bytes_per_second = bandwidth::measure_read(&device)?.bytes_per_second;
    println!("{}: {:.0} GB/s read", device.name(), bytes_per_second / 1e9);
    let mut state = 1_u32;
    let noise = (0..1 << 20)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect();
    let bench = Bench { device, bytes_per_second, noise };
    for (name, shape) in [("8b", &LLAMA_8B), ("1b", &LLAMA_1B)] {
        if named(name) || !named("8b") && !named("1b") {
            println!("llama {name}");
            bench.layer(shape)?;
        }
    }
    Ok(())
}
