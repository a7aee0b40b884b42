//! Recording commands: checks, barriers, submission, graphs.

use std::{collections::HashMap, ops::Range};

use crate::{
    Access, Context, HalError, HazardTracker, Kernel, Result, Storage, any,
    backend::{Bound, Device as _, Encoder as _, Launch},
    context::{Backend, Submission},
    ledger::Use,
    sync::Arc,
    usage::Footprint,
};

/// A range of a storage and how a command uses it.
#[derive(Debug, Clone, Copy)]
pub struct Binding<'a> {
    /// The storage.
    pub storage: &'a Storage,
    /// First byte, from the start of the allocation.
    pub offset: u64,
    /// Bytes.
    pub byte_len: u64,
    /// Reads, writes or both.
    pub access: Access,
}

impl Binding<'_> {
    fn range(&self) -> Range<u64> {
        self.offset..self.offset + self.byte_len
    }

    fn bound(&self) -> Bound<'_, Backend> {
        Bound {
            buffer: &self.storage.memory().buffer,
            offset: self.offset,
            byte_len: self.byte_len,
            access: self.access,
        }
    }
}

#[derive(Debug, Default)]
struct Uses {
    storages: Vec<Storage>,
    footprints: Vec<Footprint>,
    index: HashMap<usize, usize>,
}

impl Uses {
    fn note(&mut self, binding: &Binding<'_>) {
        let key = Arc::as_ptr(binding.storage.memory()).addr();
        let at = *self.index.entry(key).or_insert_with(|| {
            self.storages.push(binding.storage.clone());
            self.footprints.push(Footprint::default());
            self.footprints.len() - 1
        });
        if binding.access.reads() {
            self.footprints[at].read(binding.range());
        }
        if binding.access.writes() {
            self.footprints[at].write(binding.range());
        }
    }

    fn finish(self) -> (Vec<Storage>, Arc<[Use]>) {
        let pairs = self.storages.iter().zip(self.footprints);
        let uses = pairs.map(|(storage, footprint)| Use { memory: Arc::clone(storage.memory()), footprint }).collect();
        (self.storages, uses)
    }
}

/// Commands being recorded. Nothing runs before [`Self::commit`]; dropping it abandons them.
#[derive(Debug)]
pub struct Recorder {
    context: Context,
    label: Arc<str>,
    encoder: Option<any::Encoder>,
    hazards: HazardTracker,
    uses: Uses,
    depth: usize,
}

impl Recorder {
    pub(crate) fn new(context: &Context, label: &str) -> Result<Self> {
        Ok(Self {
            context: context.clone(),
            label: label.into(),
            encoder: Some(context.core.device.encoder()?),
            hazards: HazardTracker::new(),
            uses: Uses::default(),
            depth: 0,
        })
    }

    /// Changes the label under which the commands are submitted.
    pub fn set_label(&mut self, label: &str) {
        self.label = label.into();
    }

    /// The device.
    pub fn context(&self) -> &Context {
        &self.context
    }

    fn encoder(&mut self, operation: &'static str) -> Result<&mut any::Encoder> {
        self.encoder.as_mut().ok_or_else(|| committed(operation))
    }

    fn check(&self, operation: &'static str, binding: &Binding<'_>) -> Result<()> {
        let invalid = |message| Err(HalError::InvalidUse { operation, message });
        if !Arc::ptr_eq(binding.storage.core(), &self.context.core) {
            return invalid("a buffer belongs to another device than the encoder".into());
        }
        let (offset, byte_len, whole) = (binding.offset, binding.byte_len, binding.storage.byte_len());
        if offset.checked_add(byte_len).is_none_or(|end| end > whole) {
            return invalid(format!("{byte_len} bytes at {offset} of an allocation of {whole} bytes"));
        }
        if binding.access.writes() && binding.storage.read_only() {
            return Err(HalError::ReadOnly { operation });
        }
        Ok(())
    }

    /// Checks everything first, so that an error leaves the recording as it was.
    fn order(&mut self, operation: &'static str, bindings: &[Binding<'_>]) -> Result<()> {
        self.encoder(operation)?;
        bindings.iter().try_for_each(|binding| self.check(operation, binding))?;
        let extents: Vec<(Range<u64>, Access)> = bindings
            .iter()
            .map(|binding| {
                let start = binding.storage.address() + binding.offset;
                (start..start + binding.byte_len, binding.access)
            })
            .collect();
        check_aliasing(operation, &extents)?;
        if self.hazards.access(&extents) {
            self.encoder(operation)?.barrier();
        }
        bindings.iter().for_each(|binding| self.uses.note(binding));
        Ok(())
    }

    /// Runs a kernel. A launch of 0 items or groups does nothing.
    ///
    /// # Errors
    /// `InvalidUse` after commit, for a kernel or buffer of another device, for a range outside its
    /// allocation, or when a written binding overlaps another one of the same command; `ReadOnly`.
    pub fn dispatch(
        &mut self,
        kernel: &Kernel,
        bindings: &[Binding<'_>],
        params: &[u8],
        launch: Launch,
        label: &str,
    ) -> Result<()> {
        const OPERATION: &str = "dispatch";
        if kernel.device != self.context.id() {
            let message = format!("kernel `{}` was compiled for another device", kernel.name);
            return Err(HalError::InvalidUse { operation: OPERATION, message });
        }
        if launch.items == 0 && launch.groups.contains(&0) {
            self.encoder(OPERATION)?;
            return Ok(());
        }
        self.order(OPERATION, bindings)?;
        let bound: Vec<_> = bindings.iter().map(Binding::bound).collect();
        self.encoder(OPERATION)?.dispatch(&kernel.kernel, &bound, params, launch, label)
    }

    /// Copies bytes between buffers.
    ///
    /// # Errors
    /// As [`Self::dispatch`], and `InvalidUse` for different lengths or overlapping ranges.
    pub fn copy(&mut self, from: Binding<'_>, to: Binding<'_>) -> Result<()> {
        const OPERATION: &str = "copy";
        if from.byte_len != to.byte_len {
            let message = format!("{} bytes to a range of {} bytes", from.byte_len, to.byte_len);
            return Err(HalError::InvalidUse { operation: OPERATION, message });
        }
        let (from, to) = (Binding { access: Access::Read, ..from }, Binding { access: Access::Write, ..to });
        self.order(OPERATION, &[from, to])?;
        if from.byte_len == 0 {
            return Ok(());
        }
        self.encoder(OPERATION)?.copy(from.bound(), to.bound())
    }

    /// Sets bytes.
    ///
    /// # Errors
    /// As [`Self::dispatch`].
    pub fn fill(&mut self, to: Binding<'_>, value: u8) -> Result<()> {
        const OPERATION: &str = "fill";
        let to = Binding { access: Access::Write, ..to };
        self.order(OPERATION, &[to])?;
        if to.byte_len == 0 {
            return Ok(());
        }
        self.encoder(OPERATION)?.fill(to.bound(), value)
    }

    /// Orders what follows after what came before, whatever the bindings say.
    ///
    /// # Errors
    /// `InvalidUse` after commit.
    pub fn barrier(&mut self) -> Result<()> {
        self.encoder("barrier")?.barrier();
        self.hazards.barrier();
        Ok(())
    }

    /// Opens a named group of commands, for profiles and captures.
    ///
    /// # Errors
    /// `InvalidUse` after commit.
    pub fn push_label(&mut self, label: &str) -> Result<()> {
        self.encoder("push_label")?.push_label(label);
        self.depth += 1;
        Ok(())
    }

    /// Closes the innermost named group.
    ///
    /// # Errors
    /// `InvalidUse` after commit, or when no group is open.
    pub fn pop_label(&mut self) -> Result<()> {
        if self.depth == 0 {
            let message = "no group is open: push_label comes first".into();
            return Err(HalError::InvalidUse { operation: "pop_label", message });
        }
        self.encoder("pop_label")?.pop_label();
        self.depth -= 1;
        Ok(())
    }

    fn take(&mut self, operation: &'static str) -> Result<(any::Encoder, Uses)> {
        let mut encoder = self.encoder.take().ok_or_else(|| committed(operation))?;
        (0..std::mem::take(&mut self.depth)).for_each(|_| encoder.pop_label());
        Ok((encoder, std::mem::take(&mut self.uses)))
    }

    /// Hands the commands to the device.
    ///
    /// # Errors
    /// `InvalidUse` after commit; `Locked` when a host guard conflicts; `Poisoned` when the work
    /// reads what earlier work failed to write; `DeviceLost`; what the backend reports. The commands
    /// are abandoned on an error.
    pub fn commit(&mut self) -> Result<Submission> {
        let (encoder, uses) = self.take("commit")?;
        let (_handles, uses) = uses.finish();
        let core = &self.context.core;
        core.residency.flush(&core.device, core.ledger.completed())?;
        let ticket =
            core.ledger.submit(&core.device, &self.label, &uses, || core.device.submit(encoder, &self.label))?;
        Ok(self.context.submission(ticket, &self.label))
    }

    /// Prepares the commands to run many times.
    ///
    /// # Errors
    /// `InvalidUse` after commit; what the backend reports.
    pub fn finish(&mut self) -> Result<Graph> {
        let (encoder, uses) = self.take("record")?;
        let (storages, uses) = uses.finish();
        let graph = Arc::new(self.context.core.device.instantiate(encoder, &self.label)?);
        Ok(Graph { label: Arc::clone(&self.label), graph, uses, device: self.context.id(), _storages: storages })
    }
}

fn committed(operation: &'static str) -> HalError {
    HalError::InvalidUse { operation, message: "the encoder was committed; ask the device for a new one".into() }
}

/// A written byte must be bound once: kernels may read and write their bindings in any order.
fn check_aliasing(operation: &'static str, extents: &[(Range<u64>, Access)]) -> Result<()> {
    for (index, (range, access)) in extents.iter().enumerate() {
        for (other, (other_range, other_access)) in extents.iter().enumerate().skip(index + 1) {
            let overlap = range.start.max(other_range.start) < range.end.min(other_range.end);
            if overlap && (access.writes() || other_access.writes()) {
                let message =
                    format!("bindings {index} and {other} overlap and one is written; use one read_write binding");
                return Err(HalError::InvalidUse { operation, message });
            }
        }
    }
    Ok(())
}

/// Commands prepared to run many times. Keeps everything that they use.
#[derive(Debug)]
pub struct Graph {
    label: Arc<str>,
    graph: Arc<any::Graph>,
    uses: Arc<[Use]>,
    device: u64,
    _storages: Vec<Storage>,
}

impl Graph {
    /// The recording's label.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The backend's graph.
    pub fn backend_graph(&self) -> &any::Graph {
        &self.graph
    }

    pub(crate) fn replay(&self, context: &Context) -> Result<Submission> {
        if self.device != context.id() {
            let message = "the graph was recorded on another device".into();
            return Err(HalError::InvalidUse { operation: "replay", message });
        }
        let core = &context.core;
        core.residency.flush(&core.device, core.ledger.completed())?;
        let submit = || core.device.replay(&self.graph);
        let ticket = core.ledger.submit(&core.device, &self.label, &self.uses, submit)?;
        Ok(context.submission(ticket, &self.label))
    }
}
