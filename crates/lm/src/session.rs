//! A conversation with a model: its cache, and the passes that fill it.

use anymlx::{BackendKind, CommandGraph, DType, MlxBuffer, MlxDevice, Submission, Timing, ops, ops::SampleParams};

use crate::{
    LmError, Model, Result,
    cache::{CacheType, KvCache},
    forward::Pass,
    taps::Taps,
    workspace::{ActivationPrecision, LOGIT_ROWS, Workspace},
};

/// How a session works.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SessionOptions {
    /// Positions that fit; `None`: as many as the model was trained for.
    pub context: Option<usize>,
    /// Tokens of a prompt that are worked on together; `None`: [`Self::usual_chunk`].
    pub chunk: Option<usize>,
    /// Element type of the key-value cache.
    pub cache_type: CacheType,
    /// How projections see their inputs.
    pub precision: ActivationPrecision,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self { context: None, chunk: None, cache_type: CacheType::F16, precision: ActivationPrecision::EightBit }
    }
}

impl SessionOptions {
    /// Tokens that are worth working on together: caches of processors hold the activations of some hundreds, and GPUs
    /// unpack their weights once for all of them.
    pub fn usual_chunk(device: &MlxDevice) -> usize {
        match device.info().backend {
            BackendKind::Cuda => 2048,
            _ => 512,
        }
    }
}

/// Draws tokens on the device, one replay of a recorded graph each.
struct Decoder {
    /// One for each of the session's places for a token, used in turn: while the host reads a token, the device draws the
    /// next.
    graphs: Vec<CommandGraph>,
    params: SampleParams,
    /// The graph that draws the next token.
    turn: usize,
    /// The replay that draws the next token, if it was submitted ahead.
    ahead: Option<Submission>,
}

impl Decoder {
    /// Draws a token and submits the one after it, if there is `room` for both. The token's place, and how long the device
    /// worked on it.
    ///
    /// After an error the device may be ahead of what was drawn.
    fn step(&mut self, room: usize) -> Result<(usize, Timing)> {
        let place = self.turn;
        self.turn = (place + 1) % self.graphs.len();
        let submission = match self.ahead.take() {
            Some(submission) => submission,
            None => self.graphs[place].replay()?,
        };
        if self.turn != place && room > 1 {
            self.ahead = Some(self.graphs[self.turn].replay()?);
        }
        Ok((place, submission.wait()?))
    }
}

/// A context with a model.
pub struct Session {
    model: Model,
    cache: KvCache,
    workspace: Workspace,
    /// Buffers of the decode graph: one token.
    single: Workspace,
    step: MlxBuffer,
    /// Places for drawn tokens: two where a device works while the host reads.
    drawn: Vec<MlxBuffer>,
    decoder: Option<Decoder>,
    /// [`Self::first`] has drawn a token after the last one that was read.
    is_drawing: bool,
    /// The positions in use when the logits of the last of them were computed.
    logits_after: Option<usize>,
    used: usize,
    decode_timing: Option<Timing>,
}

impl Session {
    /// An empty context.
    ///
    /// # Errors
    /// `InvalidArgument` for a chunk or context of 0 tokens or a context longer than the model's;
    /// memory that does not suffice.
    pub fn new(model: &Model, options: SessionOptions) -> Result<Self> {
        const OPERATION: &str = "session";
        let trained = model.config().context_length;
        let capacity = options.context.unwrap_or(trained);
        if capacity > trained {
            let message = format!("a context of {capacity} tokens asked for, the model has {trained}");
            return Err(LmError::invalid(OPERATION, message));
        }
        let device = model.device();
        let chunk = options.chunk.unwrap_or_else(|| SessionOptions::usual_chunk(device));
        if chunk == 0 {
            return Err(LmError::invalid(OPERATION, "chunks of 0 tokens asked for, needed at least 1"));
        }
        Ok(Self {
            model: model.clone(),
            cache: KvCache::new(model, capacity, options.cache_type)?,
            workspace: Workspace::new(model, chunk.min(capacity), options.precision)?,
            single: Workspace::new(model, 1, options.precision)?,
            step: device.zeros(DType::U32, [1])?,
            drawn: (0..places(device)).map(|_| device.zeros(DType::U32, [1])).collect::<anymlx::Result<_>>()?,
            decoder: None,
            is_drawing: false,
            logits_after: None,
            used: 0,
            decode_timing: None,
        })
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Positions that fit.
    pub fn capacity(&self) -> usize {
        self.cache.capacity
    }

    /// Positions in use.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Forgets everything but the first `positions` tokens.
    ///
    /// # Errors
    /// `InvalidArgument` when there are fewer.
    pub fn truncate(&mut self, positions: usize) -> Result<()> {
        if positions > self.used {
            let message = format!("{positions} positions asked for, {} are in use", self.used);
            return Err(LmError::invalid("truncate", message));
        }
        self.end_drawing();
        self.used = positions;
        Ok(())
    }

    /// What [`Self::decode`] has begun ahead is of no use any more.
    fn end_drawing(&mut self) {
        self.is_drawing = false;
        if let Some(decoder) = &mut self.decoder {
            decoder.ahead = None;
        }
    }

    fn check_room(&self, operation: &'static str, given: usize) -> Result<()> {
        if given <= self.capacity() - self.used {
            return Ok(());
        }
        Err(LmError::ContextExceeded { operation, given, used: self.used, capacity: self.capacity() })
    }

    fn check_ids(&self, operation: &'static str, ids: &[u32]) -> Result<()> {
        let vocabulary = self.model.config().vocabulary;
        match ids.iter().find(|&&id| id as usize >= vocabulary) {
            None => Ok(()),
            Some(id) => {
                let message = format!("token id {id} is out of range, the vocabulary has {vocabulary} entries");
                Err(LmError::invalid(operation, message))
            }
        }
    }

    /// Tokens that are worked on together at most.
    pub(crate) fn chunk(&self) -> usize {
        self.workspace.tokens
    }

    /// Reads `ids` and gives `each` the inputs of all matrices, see [`Taps::read`].
    pub(crate) fn feed_tapped(
        &mut self,
        ids: &[u32],
        taps: &Taps,
        mut each: impl FnMut(String, usize, &[f32]),
    ) -> Result<()> {
        const OPERATION: &str = "read";
        self.check_room(OPERATION, ids.len())?;
        self.check_ids(OPERATION, ids)?;
        for chunk in ids.chunks(self.chunk()) {
            self.run_chunk(chunk, chunk.len(), Some(taps), |_, _| Ok(()))?;
            taps.read(chunk.len(), &mut each)?;
        }
        Ok(())
    }

    /// Runs `ids` (at most a chunk) at the next positions, then `after` on the same encoder, which may read the last
    /// `wanted` rows of the residual stream.
    fn run_chunk(
        &mut self,
        ids: &[u32],
        wanted: usize,
        taps: Option<&Taps>,
        after: impl FnOnce(&Pass<'_>, &mut anymlx::CommandEncoder) -> Result<()>,
    ) -> Result<()> {
        self.end_drawing();
        self.logits_after = None;
        let positions: Vec<u32> = (self.used..self.used + ids.len()).map(|position| position as u32).collect();
        self.workspace.ids.copy_from_slice(ids)?;
        self.workspace.positions.copy_from_slice(&positions)?;
        let pass = Pass { model: &self.model, cache: &self.cache, workspace: &self.workspace, taps };
        let mut encoder = self.model.device().command_encoder_labeled("prefill")?;
        pass.layers(&mut encoder, ids.len(), wanted)?;
        after(&pass, &mut encoder)?;
        encoder.commit_and_wait()?;
        self.used += ids.len();
        Ok(())
    }

    /// Reads `ids` and returns the logits that follow the last of them, `[vocabulary]`.
    ///
    /// # Errors
    /// `InvalidArgument` for no ids or an id past the vocabulary; `ContextExceeded`.
    pub fn prefill(&mut self, ids: &[u32]) -> Result<Vec<f32>> {
        self.feed(ids)?;
        Ok(self.workspace.logits.try_slice_view(0, self.model.config().vocabulary)?.to_vec()?)
    }

    /// As [`Self::prefill`], leaving the logits on the device.
    ///
    /// # Errors
    /// As [`Self::prefill`].
    pub fn feed(&mut self, ids: &[u32]) -> Result<()> {
        const OPERATION: &str = "prefill";
        if ids.is_empty() {
            return Err(LmError::invalid(OPERATION, "no tokens given, needed at least 1"));
        }
        self.check_room(OPERATION, ids.len())?;
        self.check_ids(OPERATION, ids)?;
        let chunks = ids.chunks(self.workspace.tokens);
        let last = chunks.len() - 1;
        for (index, chunk) in chunks.enumerate() {
            let wanted = usize::from(index == last);
            self.run_chunk(chunk, wanted, None, |pass, encoder| match wanted {
                0 => Ok(()),
                _ => pass.head(encoder, chunk.len() - 1, 1),
            })?;
        }
        self.logits_after = Some(self.used);
        Ok(())
    }

    /// Reads `ids` and calls `visit(i, logits)` with the logits that follow each of `ids[from..]`,
    /// in order.
    ///
    /// # Errors
    /// As [`Self::prefill`], and what `visit` returns.
    pub fn logits_from(
        &mut self,
        ids: &[u32],
        from: usize,
        mut visit: impl FnMut(usize, &[f32]) -> Result<()>,
    ) -> Result<()> {
        const OPERATION: &str = "logits";
        self.check_room(OPERATION, ids.len())?;
        self.check_ids(OPERATION, ids)?;
        let vocabulary = self.model.config().vocabulary;
        let mut done = 0;
        let chunk_len = self.workspace.tokens;
        for chunk in ids.chunks(chunk_len) {
            let mut first = from.saturating_sub(done).min(chunk.len());
            self.run_chunk(chunk, chunk.len() - first, None, |_, _| Ok(()))?;
            while first < chunk.len() {
                let rows = LOGIT_ROWS.min(chunk.len() - first).min(chunk_len);
                let pass = Pass { model: &self.model, cache: &self.cache, workspace: &self.workspace, taps: None };
                let mut encoder = self.model.device().command_encoder_labeled("logits")?;
                pass.head(&mut encoder, first, rows)?;
                encoder.commit_and_wait()?;
                let logits = self.workspace.logits.read::<f32>()?;
                for (row, logits) in logits.chunks_exact(vocabulary).take(rows).enumerate() {
                    visit(done + first + row, logits)?;
                }
                first += rows;
            }
            done += chunk.len();
        }
        Ok(())
    }

    /// Draws the token that follows [`Self::feed`]'s ids; [`Self::decode`] draws the ones after it.
    ///
    /// # Errors
    /// `InvalidArgument` for parameters out of range, and when [`Self::feed`] was not what read the last token.
    pub fn first(&mut self, params: SampleParams) -> Result<u32> {
        if self.logits_after != Some(self.used) {
            return Err(LmError::invalid("first", "no logits follow the last token: call `feed` or `prefill` before"));
        }
        self.end_drawing();
        self.record(params)?;
        self.step.copy_from_slice(&[0_u32])?;
        let vocabulary = self.model.config().vocabulary;
        let logits = self.workspace.logits.try_slice_view(0, vocabulary)?.with_shape([1, vocabulary])?;
        let mut encoder = self.model.device().command_encoder_labeled("sample")?;
        ops::sample(&mut encoder, &logits, &self.step, &self.drawn[0], params)?;
        ops::increment(&mut encoder, &self.step)?;
        encoder.copy_bytes(&self.drawn[0], &self.single.ids)?;
        encoder.commit_and_wait()?;
        self.single.positions.copy_from_slice(&[self.used as u32])?;
        self.is_drawing = true;
        self.drawn(0)
    }

    fn drawn(&self, place: usize) -> Result<u32> {
        Ok(self.drawn[place].to_vec::<u32>()?[0])
    }

    /// Reads the token drawn last and draws the next. A GPU begins with the one after that meanwhile, which nobody sees if
    /// it is not asked for.
    ///
    /// # Errors
    /// `ContextExceeded`; `InvalidArgument` when [`Self::first`] has not been called since the last token was read.
    pub fn decode(&mut self) -> Result<u32> {
        const OPERATION: &str = "decode";
        self.check_room(OPERATION, 1)?;
        let room = self.capacity() - self.used;
        let Some(decoder) = self.decoder.as_mut().filter(|_| self.is_drawing) else {
            return Err(LmError::invalid(OPERATION, "no token has been drawn yet: call `first`"));
        };
        self.model.place_weights();
        let step = decoder.step(room);
        if step.is_err() {
            self.end_drawing();
        }
        let (place, timing) = step?;
        self.decode_timing = Some(timing);
        self.used += 1;
        self.drawn(place)
    }

    /// How long the device worked on the token drawn last by [`Self::decode`].
    pub fn decode_timing(&self) -> Option<Timing> {
        self.decode_timing
    }

    /// The recorded commands of one decoded token.
    pub fn decode_graph(&self) -> Option<&CommandGraph> {
        self.decoder.as_ref().and_then(|decoder| decoder.graphs.first())
    }

    fn record(&mut self, params: SampleParams) -> Result<()> {
        match &mut self.decoder {
            Some(decoder) if decoder.params == params => decoder.turn = 0,
            _ => {
                let graphs = self.drawn.iter().map(|place| self.record_into(place, params)).collect::<Result<_>>()?;
                self.decoder = Some(Decoder { graphs, params, turn: 0, ahead: None });
            }
        }
        Ok(())
    }

    /// Commands that draw a token into `place`.
    fn record_into(&self, place: &MlxBuffer, params: SampleParams) -> Result<CommandGraph> {
        let pass = Pass { model: &self.model, cache: &self.cache, workspace: &self.single, taps: None };
        let mut encoder = self.model.device().command_encoder_labeled("decode")?;
        pass.layers(&mut encoder, 1, 1)?;
        pass.head(&mut encoder, 0, 1)?;
        ops::sample(&mut encoder, &self.single.logits, &self.step, place, params)?;
        ops::increment(&mut encoder, &self.step)?;
        encoder.copy_bytes(place, &self.single.ids)?;
        ops::increment(&mut encoder, &self.single.positions)?;
        Ok(encoder.into_graph()?)
    }
}

/// Tokens that may be drawn and not read: one more than are asked for, on devices that work while the host does not wait.
fn places(device: &MlxDevice) -> usize {
    if device.info().backend == BackendKind::Cpu { 1 } else { 2 }
}
