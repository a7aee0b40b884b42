//! Kernels as Rust functions over a partition of work items.

use std::{any::type_name, fmt, ops::Range, sync::Arc};

use bytemuck::{AnyBitPattern, Pod};

use crate::{Access, Launch};

/// Why a kernel gave up: reported as the failure of its submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelFault(pub String);

impl<T: fmt::Display> From<T> for KernelFault {
    fn from(message: T) -> Self {
        KernelFault(message.to_string())
    }
}

/// What a kernel returns.
pub type KernelResult = Result<(), KernelFault>;

type PartitionFn = fn(&Invocation<'_>) -> KernelResult;
type WholeFn = dyn Fn(&mut WholeArguments<'_>) -> KernelResult + Send + Sync;

#[derive(Clone)]
enum Body {
    Partitioned(PartitionFn),
    Whole(Arc<WholeFn>),
}

/// A kernel for the CPU backend.
#[derive(Clone)]
pub struct CpuKernel {
    body: Body,
}

impl fmt::Debug for CpuKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.body {
            Body::Partitioned(_) => "CpuKernel(partitioned)",
            Body::Whole(_) => "CpuKernel(whole)",
        })
    }
}

impl CpuKernel {
    /// A kernel that several threads run at the same time, each on its own work items.
    ///
    /// # Safety
    /// * Of each written binding, the function touches only bytes that belong to its own items
    ///   ([`Invocation::items`]); no byte belongs to two items.
    /// * It writes only bindings that its dispatch declares as written.
    pub const unsafe fn partitioned(function: fn(&Invocation<'_>) -> KernelResult) -> Self {
        Self { body: Body::Partitioned(function) }
    }

    /// A kernel that runs once per dispatch, on one thread, with exclusive access to what it
    /// writes: the safe way to bring a kernel of one's own.
    pub fn whole(function: impl Fn(&mut WholeArguments<'_>) -> KernelResult + Send + Sync + 'static) -> Self {
        Self { body: Body::Whole(Arc::new(function)) }
    }

    /// True for [`Self::whole`]: all items are handed out together.
    pub(crate) fn is_whole(&self) -> bool {
        matches!(self.body, Body::Whole(_))
    }

    pub(crate) fn run(&self, invocation: &Invocation<'_>) -> KernelResult {
        match &self.body {
            Body::Partitioned(function) => function(invocation),
            Body::Whole(function) => function(&mut WholeArguments { invocation }),
        }
    }
}

/// One bound range in host memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HostRange {
    pub(crate) start: *mut u8,
    pub(crate) byte_len: usize,
    pub(crate) access: Access,
}

// SAFETY: a range is only a description; who may touch its bytes when is decided by the
// submission order and the partition rule of `CpuKernel::partitioned`.
unsafe impl Send for HostRange {}
// SAFETY: as above.
unsafe impl Sync for HostRange {}

/// What one call of a partitioned kernel gets.
#[derive(Debug)]
pub struct Invocation<'a> {
    pub(crate) bindings: &'a [HostRange],
    pub(crate) params: &'a [u8],
    pub(crate) items: Range<usize>,
    pub(crate) total_items: usize,
    pub(crate) launch: Launch,
}

impl<'a> Invocation<'a> {
    /// The work items of this call.
    pub fn items(&self) -> Range<usize> {
        self.items.clone()
    }

    /// The work items of the whole dispatch.
    pub fn total_items(&self) -> usize {
        self.total_items
    }

    /// How the dispatch was spread, groups and threads for a GPU included.
    pub fn launch(&self) -> Launch {
        self.launch
    }

    /// Number of bound buffers.
    pub fn binding_count(&self) -> usize {
        self.bindings.len()
    }

    /// The parameter block.
    ///
    /// # Panics
    /// When the dispatch passed a block of another size (reported as a failed submission).
    pub fn params<T: AnyBitPattern>(&self) -> T {
        assert_eq!(self.params.len(), size_of::<T>(), "parameter block of {}", type_name::<T>());
        bytemuck::pod_read_unaligned(self.params)
    }

    fn range<T>(&self, index: usize) -> (*mut T, usize) {
        let range = self.bindings[index];
        assert!(
            range.start.cast::<T>().is_aligned() && range.byte_len.is_multiple_of(size_of::<T>()),
            "binding {index}: {} bytes at {:p} cannot be read as {}",
            range.byte_len,
            range.start,
            type_name::<T>()
        );
        (range.start.cast(), range.byte_len / size_of::<T>())
    }

    /// Binding `index`, which the dispatch declares as read only.
    ///
    /// # Panics
    /// When the length or alignment does not fit `T`, or the index is out of range (both reported
    /// as a failed submission).
    pub fn input<T: AnyBitPattern>(&self, index: usize) -> &'a [T] {
        let (start, len) = self.range::<T>(index);
        // SAFETY: bound ranges are valid for the submission; bytes that are only read have no
        // writer until the next barrier, and any bit pattern is a `T`.
        unsafe { std::slice::from_raw_parts(start, len) }
    }

    fn written<T>(&self, index: usize) -> (*mut T, usize) {
        assert!(self.bindings[index].access.writes(), "binding {index} is declared as read only");
        self.range(index)
    }

    /// Elements `elements` of binding `index`, which the dispatch declares as written.
    ///
    /// # Safety
    /// * The elements belong to this call's items, and no other reference to them is live.
    ///
    /// # Panics
    /// As [`Self::input`], when `elements` is out of range, and when the binding is declared as read
    /// only.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn output<T: Pod>(&self, index: usize, elements: Range<usize>) -> &'a mut [T] {
        let (start, len) = self.written::<T>(index);
        assert!(elements.start <= elements.end && elements.end <= len, "binding {index}: {elements:?} of {len}");
        // SAFETY: inside the bound range; exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(start.add(elements.start), elements.len()) }
    }

    /// Start and length in elements of binding `index`, for kernels whose items own scattered
    /// elements.
    ///
    /// # Panics
    /// As [`Self::input`], and when the binding is declared as read only.
    pub fn output_pointer<T: Pod>(&self, index: usize) -> (*mut T, usize) {
        self.written::<T>(index)
    }
}

/// What a [`CpuKernel::whole`] kernel gets.
#[derive(Debug)]
pub struct WholeArguments<'a> {
    invocation: &'a Invocation<'a>,
}

impl WholeArguments<'_> {
    /// How the dispatch was spread; see [`Invocation::launch`].
    pub fn launch(&self) -> Launch {
        self.invocation.launch()
    }

    /// How the dispatch declares to use binding `index`.
    ///
    /// # Panics
    /// When the index is out of range (reported as a failed submission).
    pub fn access(&self, index: usize) -> Access {
        self.invocation.bindings[index].access
    }

    /// The bytes of the parameter block.
    pub fn param_bytes(&self) -> &[u8] {
        self.invocation.params
    }

    /// Number of bound buffers.
    pub fn binding_count(&self) -> usize {
        self.invocation.binding_count()
    }

    /// The parameter block; see [`Invocation::params`].
    pub fn params<T: AnyBitPattern>(&self) -> T {
        self.invocation.params()
    }

    /// A copy of binding `index`: what other bindings alias stays what it was.
    pub fn to_vec<T: AnyBitPattern>(&self, index: usize) -> Vec<T> {
        self.invocation.input::<T>(index).to_vec()
    }

    /// Binding `index` for reading.
    ///
    /// # Panics
    /// As [`Invocation::input`].
    pub fn input<T: AnyBitPattern>(&self, index: usize) -> &[T] {
        self.invocation.input(index)
    }

    /// Binding `index` for writing.
    ///
    /// # Panics
    /// As [`Invocation::input`], and when the binding is declared as read only.
    pub fn output<T: Pod>(&mut self, index: usize) -> &mut [T] {
        let (_, len) = self.invocation.written::<T>(index);
        // SAFETY: the kernel runs on one thread and `&mut self` excludes every other reference that
        // it handed out.
        unsafe { self.invocation.output(index, 0..len) }
    }
}
