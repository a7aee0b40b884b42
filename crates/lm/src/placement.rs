//! Where weights lie in memory.

use std::sync::{Mutex, PoisonError};

use anymlx::{MlxDevice, Weight};

/// Tokens over which the weights move: each of them takes about a third longer.
const TOKENS: u64 = 16;

/// Moves the matrices that each decoded token reads into huge pages, a part with each token: a prompt that is only read,
/// and a first token, do not pay for what a long text gains by.
#[derive(Debug)]
pub(crate) struct Placement {
    state: Mutex<State>,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// No token has been decoded.
    Untouched,
    /// So many matrices have been moved.
    Moved(usize),
    Done,
}

impl Placement {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::new(State::Untouched) }
    }

    /// Moves some of `matrices`, the same with each call. A system that refuses is logged, and all stays as it is.
    pub(crate) fn advance<'a, I: Iterator<Item = &'a Weight>>(&self, device: &MlxDevice, matrices: impl Fn() -> I) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if *state == State::Done {
            return;
        }
        let total: u64 = matrices().map(Weight::byte_len).sum();
        let moved = match *state {
            State::Moved(moved) => moved,
            _ if device.info().memory_free / 2 < total => {
                tracing::info!(bytes = total, "too little memory is free to move the weights to huge pages");
                *state = State::Done;
                return;
            }
            _ => 0,
        };
        *state = State::Done;
        let mut bytes = 0;
        for (index, matrix) in matrices().enumerate().skip(moved) {
            if bytes > total / TOKENS {
                *state = State::Moved(index);
                return;
            }
            if let Err(error) = matrix.move_to_huge_pages() {
                tracing::warn!(%error, "the weights stay in the file's pages");
                return;
            }
            bytes += matrix.byte_len();
        }
    }
}
