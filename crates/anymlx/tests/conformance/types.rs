//! Types that stand by themselves.

use anymlx::{
    CommandEncoder, CommandGraph, DType, FormatError, Kernel, KernelRegistry, MlxBuffer, MlxBufferPool, MlxDevice,
    MlxError, RawBuffer, ReadGuard, Submission, WriteGuard,
};

fn is_send<T: Send>() {}
fn is_send_and_sync<T: Send + Sync>() {}
fn is_clone_and_debug<T: Clone + std::fmt::Debug>() {}

#[test]
fn what_is_shared_may_be_shared() {
    is_send_and_sync::<MlxBuffer>();
    is_send_and_sync::<MlxDevice>();
    is_send_and_sync::<MlxError>();
    is_send_and_sync::<KernelRegistry>();
    is_send_and_sync::<Kernel>();
    is_send_and_sync::<RawBuffer>();
    is_send_and_sync::<Submission>();
    is_send_and_sync::<CommandGraph>();
    is_send_and_sync::<ReadGuard<[f32]>>();
    is_send_and_sync::<WriteGuard<[f32]>>();
    is_send::<CommandEncoder>();
    is_send::<MlxBufferPool>();
    is_clone_and_debug::<MlxBuffer>();
    is_clone_and_debug::<MlxDevice>();
}

#[test]
fn element_types_go_there_and_back() {
    for dtype in DType::ALL {
        let json = serde_json::to_string(&dtype).unwrap();
        assert_eq!(json, format!("\"{dtype}\""));
        assert_eq!(serde_json::from_str::<DType>(&json).unwrap(), dtype);
        assert_eq!(dtype.to_string(), dtype.name());
        assert_eq!(dtype.name(), dtype.name().to_ascii_lowercase());
        let bits: usize = dtype.name().trim_start_matches(|c: char| !c.is_ascii_digit()).parse().unwrap();
        assert_eq!(dtype.size_of() * 8, bits, "{dtype}");
    }
    assert!(serde_json::from_str::<DType>("\"q4_k\"").is_err());
}

#[test]
fn what_time_can_mend_is_transient() {
    let transient = [
        MlxError::InFlight(String::new()),
        MlxError::Locked(String::new()),
        MlxError::BufferAllocationError { bytes: 1, reason: String::new() },
        MlxError::Locked(String::new()).context("here"),
    ];
    transient.iter().for_each(|error| assert!(error.is_transient(), "{error:?}"));
    let lasting = [
        MlxError::InvalidArgument(String::new()),
        MlxError::DeviceNotFound(String::new()),
        MlxError::CommandBufferError(String::new()),
        MlxError::Poisoned(String::new()),
        MlxError::ReadOnly(String::new()),
        MlxError::NotHostVisible(String::new()),
        MlxError::KernelNotFound { name: String::new(), nearest: None },
        MlxError::InvalidArgument(String::new()).context("here"),
    ];
    lasting.iter().for_each(|error| assert!(!error.is_transient(), "{error:?}"));
}

#[test]
fn errors_name_their_place() {
    let error = MlxError::IoError("no such file".into()).context("loading blk.3");
    assert_eq!(error.to_string(), "loading blk.3: no such file");
    is_send_and_sync::<FormatError>();
}
