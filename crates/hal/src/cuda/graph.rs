//! Recorded commands as a graph of the driver.

use std::{ffi::c_int, fmt, sync::Arc};

use cudarc::driver::sys;

use super::{
    Encoder, Kernel,
    context::Shared,
    driver::{DriverError, DriverResult, driver},
    encoder::{Action, Command, argument_pointers},
};
use crate::{HalError, Result};

/// Which nodes of a graph wait for which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum GraphEdges {
    /// Each command for the one before. A graph that is one chain is launched and run fastest: on an
    /// H200 a replay of 200 small kernels costs the host 9 us, and each kernel 1 us.
    #[default]
    Chain,
    /// All commands between two barriers for those before the first: they may run side by side. That
    /// pays only where single kernels leave most of the GPU idle for long: on an H200 the same 200
    /// kernels in pairs cost the host 270 us, and take twice as long.
    Barriers,
}

/// A copy or fill is cut into nodes of at most this many bytes: the driver's limit on a row.
const MAX_NODE_BYTES: usize = 1 << 30;

/// The first driver with edges along which a kernel may start early.
const PROGRAMMATIC_EDGES_DRIVER: c_int = 12_030;

/// Commands prepared to run many times.
pub struct Graph {
    pub(super) label: Arc<str>,
    executable: sys::CUgraphExec,
    nodes: usize,
    /// Keeps the code of the nodes loaded.
    _kernels: Vec<Kernel>,
    shared: Arc<Shared>,
}

// SAFETY: the driver's handles may be used from any thread; launches are serialised by the queue.
unsafe impl Send for Graph {}
// SAFETY: as above.
unsafe impl Sync for Graph {}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Graph").field("label", &self.label).field("nodes", &self.nodes).finish()
    }
}

/// A graph being built; destroyed when dropped.
struct Building<'a> {
    graph: sys::CUgraph,
    shared: &'a Shared,
    nodes: usize,
    /// The kernel node added last.
    last_kernel: Option<sys::CUgraphNode>,
}

impl Drop for Building<'_> {
    fn drop(&mut self) {
        // SAFETY: created once, destroyed once; executable graphs do not refer to it.
        if let Err(error) = unsafe { driver!(cuGraphDestroy(self.graph)) } {
            self.shared.note(error);
        }
    }
}

impl<'a> Building<'a> {
    /// The context is current for as long as the result lives.
    fn new(shared: &'a Shared) -> DriverResult<Self> {
        let mut graph = std::ptr::null_mut();
        // SAFETY: stores the new graph.
        unsafe { driver!(cuGraphCreate(&mut graph, 0)) }?;
        Ok(Self { graph, shared, nodes: 0, last_kernel: None })
    }

    /// Adds the nodes of a command that run after all of `after`.
    fn add(
        &mut self,
        command: &Command,
        after: &[sys::CUgraphNode],
        nodes: &mut Vec<sys::CUgraphNode>,
    ) -> DriverResult {
        match &command.action {
            Action::Kernel { kernel, addresses, params, groups: [x, y, z], threads } => {
                let mut arguments = argument_pointers(addresses, params);
                let node = sys::CUDA_KERNEL_NODE_PARAMS {
                    func: kernel.function(),
                    gridDimX: *x,
                    gridDimY: *y,
                    gridDimZ: *z,
                    blockDimX: *threads,
                    blockDimY: 1,
                    blockDimZ: 1,
                    sharedMemBytes: kernel.dynamic_shared(),
                    kernelParams: arguments.as_mut_ptr(),
                    extra: std::ptr::null_mut(),
                    kern: std::ptr::null_mut(),
                    ctx: std::ptr::null_mut(),
                };
                // A kernel that waits by itself may start while the kernel before it still runs.
                let early = match after {
                    &[before] if kernel.starts_early() && self.last_kernel == Some(before) => {
                        (self.shared.properties.driver >= PROGRAMMATIC_EDGES_DRIVER).then_some(before)
                    }
                    _ => None,
                };
                let after = if early.is_some() { &[] } else { after };
                let added = self.node(|handle, graph| {
                    // SAFETY: as in `Command::launch`; the arguments are copied by the call.
                    unsafe { driver!(cuGraphAddKernelNode_v2(handle, graph, after.as_ptr(), after.len(), &node)) }
                })?;
                if let Some(before) = early {
                    self.connect_early(before, added)?;
                }
                self.last_kernel = Some(added);
                nodes.push(added);
            }
            Action::Copy { from, to, byte_len } => {
                for (offset, width) in rows(*byte_len) {
                    let node = sys::CUDA_MEMCPY3D {
                        srcMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_DEVICE,
                        srcDevice: from + offset as u64,
                        srcPitch: width,
                        srcHeight: 1,
                        dstMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_DEVICE,
                        dstDevice: to + offset as u64,
                        dstPitch: width,
                        dstHeight: 1,
                        WidthInBytes: width,
                        Height: 1,
                        Depth: 1,
                        ..no_copy()
                    };
                    let context = self.shared.context();
                    nodes.push(self.node(|handle, graph| {
                        // SAFETY: the ranges are valid as long as the graph is.
                        unsafe {
                            driver!(cuGraphAddMemcpyNode(handle, graph, after.as_ptr(), after.len(), &node, context))
                        }
                    })?);
                }
            }
            Action::Fill { to, byte_len, value } => {
                for (offset, width) in rows(*byte_len) {
                    let node = sys::CUDA_MEMSET_NODE_PARAMS {
                        dst: to + offset as u64,
                        pitch: width,
                        value: u32::from(*value),
                        elementSize: 1,
                        width,
                        height: 1,
                    };
                    let context = self.shared.context();
                    nodes.push(self.node(|handle, graph| {
                        // SAFETY: the range is valid as long as the graph is.
                        unsafe {
                            driver!(cuGraphAddMemsetNode(handle, graph, after.as_ptr(), after.len(), &node, context))
                        }
                    })?);
                }
            }
        }
        Ok(())
    }

    /// Lets kernel `to` start when all threadgroups of kernel `from` have allowed it or ended.
    fn connect_early(&self, from: sys::CUgraphNode, to: sys::CUgraphNode) -> DriverResult {
        let edge = sys::CUgraphEdgeData {
            from_port: sys::CU_GRAPH_KERNEL_NODE_PORT_PROGRAMMATIC as u8,
            to_port: 0,
            type_: sys::CUgraphDependencyType::CU_GRAPH_DEPENDENCY_TYPE_PROGRAMMATIC as u8,
            reserved: [0; 5],
        };
        // SAFETY: both are kernel nodes of this graph; the edge is copied by the call.
        unsafe { driver!(cuGraphAddDependencies_v2(self.graph, &from, &to, &edge, 1)) }
    }

    /// A node that runs after all of `after`, when they are several.
    fn join(&mut self, after: Vec<sys::CUgraphNode>) -> DriverResult<Vec<sys::CUgraphNode>> {
        if after.len() < 2 {
            return Ok(after);
        }
        // SAFETY: the nodes are of this graph.
        let add = |handle, graph| unsafe { driver!(cuGraphAddEmptyNode(handle, graph, after.as_ptr(), after.len())) };
        Ok(vec![self.node(add)?])
    }

    fn node(
        &mut self,
        add: impl FnOnce(*mut sys::CUgraphNode, sys::CUgraph) -> DriverResult,
    ) -> DriverResult<sys::CUgraphNode> {
        let mut node = std::ptr::null_mut();
        add(&mut node, self.graph)?;
        self.nodes += 1;
        Ok(node)
    }

    fn instantiate(&self) -> DriverResult<sys::CUgraphExec> {
        let mut executable = std::ptr::null_mut();
        // SAFETY: the graph is complete; stores the executable form.
        unsafe { driver!(cuGraphInstantiateWithFlags(&mut executable, self.graph, 0)) }?;
        Ok(executable)
    }
}

/// Offsets and lengths of the nodes for a range.
fn rows(byte_len: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..byte_len).step_by(MAX_NODE_BYTES).map(move |offset| (offset, MAX_NODE_BYTES.min(byte_len - offset)))
}

fn no_copy() -> sys::CUDA_MEMCPY3D {
    sys::CUDA_MEMCPY3D {
        srcXInBytes: 0,
        srcY: 0,
        srcZ: 0,
        srcLOD: 0,
        srcMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_DEVICE,
        srcHost: std::ptr::null(),
        srcDevice: 0,
        srcArray: std::ptr::null_mut(),
        reserved0: std::ptr::null_mut(),
        srcPitch: 0,
        srcHeight: 0,
        dstXInBytes: 0,
        dstY: 0,
        dstZ: 0,
        dstLOD: 0,
        dstMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_DEVICE,
        dstHost: std::ptr::null_mut(),
        dstDevice: 0,
        dstArray: std::ptr::null_mut(),
        reserved1: std::ptr::null_mut(),
        dstPitch: 0,
        dstHeight: 0,
        WidthInBytes: 0,
        Height: 0,
        Depth: 0,
    }
}

impl Graph {
    /// Builds a graph of the commands.
    pub(super) fn new(shared: &Arc<Shared>, encoder: &Encoder, edges: GraphEdges, label: &str) -> Result<Self> {
        shared.check_alive()?;
        let _current = shared.enter()?;
        let named = |command: &Command| {
            let name = command.label.clone();
            move |error: DriverError| match shared.fail(error) {
                HalError::Io { operation, message } => {
                    HalError::Io { operation, message: format!("command `{name}`: {message}") }
                }
                other => other,
            }
        };
        let failed = |error| shared.fail(error);
        let mut building = Building::new(shared).map_err(failed)?;
        let mut after = Vec::new();
        for part in encoder.parts() {
            let mut nodes = Vec::with_capacity(part.len());
            for command in part {
                building.add(command, &after, &mut nodes).map_err(named(command))?;
                if edges == GraphEdges::Chain {
                    after = building.join(std::mem::take(&mut nodes)).map_err(failed)?;
                }
            }
            if edges == GraphEdges::Barriers {
                after = building.join(nodes).map_err(failed)?;
            }
        }
        let executable = building.instantiate().map_err(failed)?;
        Ok(Self {
            label: label.into(),
            executable,
            nodes: building.nodes,
            _kernels: encoder.kernels(),
            shared: Arc::clone(shared),
        })
    }

    /// Puts one run on the stream. The context is current.
    pub(super) fn launch(&self) -> DriverResult {
        if self.nodes == 0 {
            return Ok(());
        }
        // SAFETY: the executable graph lives until the run has ended, and so does all it uses.
        unsafe { driver!(cuGraphLaunch(self.executable, self.shared.stream())) }
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: destroyed once; whatever runs the graph holds it.
        let destroyed = self.shared.enter().map(|_current| unsafe { driver!(cuGraphExecDestroy(self.executable)) });
        match destroyed {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.shared.note(error),
            Err(error) => tracing::debug!(%error, "destroying a graph"),
        }
    }
}
