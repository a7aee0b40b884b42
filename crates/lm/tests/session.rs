//! In which order a session may be used, and that drawing ahead shows nowhere.

mod support;

use anymlx::{MlxDevice, TraceOptions, ops::SampleParams};
use anymlx_lm::{Model, Session, SessionOptions};
use anymlx_testing::golden::Golden;

const SAMPLING: SampleParams = SampleParams { temperature: 1.0, top_k: 40, top_p: 0.95, min_p: 0.01, seed: 7 };

fn golden() -> Golden {
    support::goldens().swap_remove(0)
}

/// The processor draws when it is asked, the recording backend one token ahead.
fn devices() -> [MlxDevice; 2] {
    let trace = TraceOptions { unified: false, ..TraceOptions::default() };
    [MlxDevice::cpu().unwrap(), MlxDevice::trace(&trace).unwrap()]
}

#[test]
fn tokens_drawn_ahead_are_taken_back() {
    let golden = golden();
    let drawn = devices().map(|device| {
        let model = Model::open(&golden.model, &device).unwrap();
        let mut session = Session::new(&model, SessionOptions::default()).unwrap();
        let mut drawn = Vec::new();
        for (kept, tokens) in [(0, 5), (3, 1), (2, 8), (0, 3)] {
            session.truncate(kept).unwrap();
            session.feed(&golden.tokens[kept..9]).unwrap();
            drawn.push(session.first(SAMPLING).unwrap());
            for _ in 0..tokens {
                drawn.push(session.decode().unwrap());
            }
            assert_eq!(session.used(), 9 + tokens);
        }
        // More is read after what was drawn.
        session.feed(&golden.tokens[9..12]).unwrap();
        drawn.push(session.first(SampleParams::default()).unwrap());
        drawn.push(session.decode().unwrap());
        drawn
    });
    assert_eq!(drawn[0], drawn[1]);
}

#[test]
fn the_last_position_is_drawn_and_no_more() {
    let golden = golden();
    for device in devices() {
        let model = Model::open(&golden.model, &device).unwrap();
        let options = SessionOptions { context: Some(12), ..SessionOptions::default() };
        let mut session = Session::new(&model, options).unwrap();
        session.feed(&golden.tokens[..8]).unwrap();
        session.first(SAMPLING).unwrap();
        for _ in 8..12 {
            session.decode().unwrap();
        }
        let error = session.decode().unwrap_err().to_string();
        assert!(error.contains("holds 12"), "{error}");
    }
}

#[test]
fn drawing_needs_logits_and_a_first_token() {
    let golden = golden();
    for device in devices() {
        let model = Model::open(&golden.model, &device).unwrap();
        let mut session = Session::new(&model, SessionOptions::default()).unwrap();
        let refuses_first = |session: &mut Session| {
            let error = session.first(SAMPLING).unwrap_err().to_string();
            assert!(error.contains("call `feed`"), "{error}");
        };
        let refuses_decode = |session: &mut Session| {
            let error = session.decode().unwrap_err().to_string();
            assert!(error.contains("call `first`"), "{error}");
        };
        refuses_first(&mut session);
        refuses_decode(&mut session);
        session.feed(&golden.tokens[..5]).unwrap();
        refuses_decode(&mut session);
        session.first(SAMPLING).unwrap();
        session.decode().unwrap();
        refuses_first(&mut session);
        session.decode().unwrap();
        session.truncate(5).unwrap();
        refuses_decode(&mut session);
        session.feed(&golden.tokens[5..7]).unwrap();
        refuses_decode(&mut session);
        session.logits_from(&golden.tokens[7..9], 0, |_, _| Ok(())).unwrap();
        refuses_first(&mut session);
    }
}

#[test]
fn a_failed_token_ends_the_drawing() {
    let golden = golden();
    let [_, device] = devices();
    let model = Model::open(&golden.model, &device).unwrap();
    let mut session = Session::new(&model, SessionOptions::default()).unwrap();
    session.feed(&golden.tokens[..5]).unwrap();
    session.first(SAMPLING).unwrap();
    session.decode().unwrap();
    device.fail_next_submission("made up").unwrap();
    let failed = (0..2).map(|_| session.decode()).find_map(Result::err).expect("one of two replays fails");
    assert!(failed.to_string().contains("made up"), "{failed}");
    assert!(session.decode().unwrap_err().to_string().contains("call `first`"));
}
