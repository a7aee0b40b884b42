//! Conversion of a tensor's rows, by many threads and a slab at a time.

use std::{
    io::{self, Write},
    sync::atomic::{AtomicUsize, Ordering},
};

use anymlx_formats::{FormatError, TensorType, quant};

/// Elements that one thread takes at a time, about.
const TASK_ELEMENTS: usize = 1 << 16;

/// Tasks of one slab: what is held in memory before it is written.
const SLAB_TASKS: usize = 64;

/// One tensor's conversion.
pub(super) struct Conversion<'a> {
    pub(super) name: &'a str,
    pub(super) from: TensorType,
    pub(super) to: TensorType,
    pub(super) columns: usize,
    pub(super) data: &'a [u8],
    /// Weights of the columns, one set for each equal part of the rows (experts); empty where there are none.
    pub(super) importance: &'a [f32],
}

impl Conversion<'_> {
    /// Writes the tensor in the new type; `done` hears how many bytes of the source have been used up since the last time.
    pub(super) fn write(&self, threads: usize, out: &mut dyn Write, done: &(dyn Fn(u64) + Sync)) -> io::Result<()> {
        if self.from == self.to {
            for part in self.data.chunks(1 << 24) {
                out.write_all(part)?;
                done(part.len() as u64);
            }
            return Ok(());
        }
        let row_bytes = |kind: TensorType| kind.byte_len(self.columns as u64).map(|bytes| bytes as usize);
        let (from_row, to_row) = (row_bytes(self.from).map_err(failed)?, row_bytes(self.to).map_err(failed)?);
        let rows = self.data.len() / from_row;
        let task_rows = (TASK_ELEMENTS / self.columns).clamp(1, rows.max(1));
        let slab_rows = task_rows * SLAB_TASKS;
        let mut converted = vec![0; slab_rows.min(rows) * to_row];
        for (slab, source) in self.data.chunks(slab_rows * from_row).enumerate() {
            let converted = &mut converted[..source.len() / from_row * to_row];
            let tasks: Vec<_> = source
                .chunks(task_rows * from_row)
                .zip(converted.chunks_mut(task_rows * to_row))
                .enumerate()
                .map(|(task, (source, target))| (slab * slab_rows + task * task_rows, source, target))
                .collect();
            self.run(tasks, threads, rows).map_err(failed)?;
            out.write_all(converted)?;
            done(source.len() as u64);
        }
        Ok(())
    }

    /// Converts tasks: first row, source and target of each.
    fn run(&self, tasks: Vec<(usize, &[u8], &mut [u8])>, threads: usize, rows: usize) -> Result<(), FormatError> {
        let next = AtomicUsize::new(0);
        let tasks: Vec<_> = tasks.into_iter().map(|task| std::sync::Mutex::new(Some(task))).collect();
        let work = || -> Result<(), FormatError> {
            let mut values = Vec::new();
            while let Some(task) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) {
                let task = task.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
                let Some((first_row, source, target)) = task else { continue };
                self.task(first_row, source, target, rows, &mut values)?;
            }
            Ok(())
        };
        let threads = threads.clamp(1, tasks.len().max(1));
        std::thread::scope(|scope| {
            let workers: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mut result = work();
            for worker in workers {
                let of_worker = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                result = result.and(of_worker);
            }
            result
        })
    }

    fn task(
        &self,
        first_row: usize,
        source: &[u8],
        target: &mut [u8],
        rows: usize,
        values: &mut Vec<f32>,
    ) -> Result<(), FormatError> {
        let from_row = self.from.byte_len(self.columns as u64)? as usize;
        values.resize(source.len() / from_row * self.columns, 0.0);
        quant::dequantize(self.from, source, values)?;
        if self.importance.is_empty() {
            return quant::quantize(self.to, values, target).map_err(|error| self.at(first_row, error));
        }
        let rows_of_set = rows / (self.importance.len() / self.columns);
        let to_row = target.len() / (values.len() / self.columns);
        let rows = values.chunks_exact(self.columns).zip(target.chunks_exact_mut(to_row));
        for (row, (values, target)) in (first_row..).zip(rows) {
            let weights = &self.importance[row / rows_of_set * self.columns..][..self.columns];
            quant::quantize_weighted(self.to, values, weights, target).map_err(|error| self.at(row, error))?;
        }
        Ok(())
    }

    fn at(&self, row: usize, error: FormatError) -> FormatError {
        FormatError::InvalidArgument {
            operation: "quantize",
            message: format!("tensor `{}`, from row {row}: {error}", self.name),
        }
    }
}

fn failed(error: FormatError) -> io::Error {
    io::Error::other(error)
}
