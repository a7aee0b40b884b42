//! Kernels by name.

use anymlx::{CpuKernel, KernelSource, MlxError};

use crate::{
    gpu,
    subject::Subject,
    support::{add_one, assert_error, invalid, submit_add_one, u32s, values},
};

fn source<'a>(name: &'a str, gpu: &'a str) -> KernelSource<'a> {
    KernelSource { name, gpu, cpu: Some(CpuKernel::whole(|_| Ok(()))) }
}

pub fn unknown_names_get_the_nearest(subject: &Subject) {
    let kernels = subject.device.kernels();
    let nothing = kernels.get("rms_norm").unwrap_err();
    assert!(matches!(&nothing, MlxError::KernelNotFound { nearest: None, .. }), "{nothing}");
    let names = ["rms_norm_f32", "rms_norm_f16", "softmax_f32"];
    for name in names {
        kernels.register(source(name, &gpu::idle(names))).unwrap();
    }
    let near = kernels.get("rmsnorm_f32").unwrap_err();
    assert!(matches!(&near, MlxError::KernelNotFound { name, nearest: Some(nearest) }
        if name == "rmsnorm_f32" && nearest == "rms_norm_f32"));
    assert_eq!(near.to_string(), "kernel `rmsnorm_f32` is not registered; did you mean `rms_norm_f32`?");
    let far = kernels.get("transpose_rows").unwrap_err();
    assert!(matches!(&far, MlxError::KernelNotFound { nearest: None, .. }), "{far}");
    assert_eq!(kernels.get("softmax_f32").unwrap().name(), "softmax_f32");
    assert_eq!(kernels.names(), ["rms_norm_f16", "rms_norm_f32", "softmax_f32"]);
}

pub fn names_are_unique(subject: &Subject) {
    let kernels = subject.device.kernels();
    kernels.register(source("mine", "")).unwrap();
    assert_error(kernels.register(source("mine", "")), invalid, &["register", "`mine`", "already"]);
    assert_error(kernels.register(source("", "")), invalid, &["register", "empty"]);
    assert_eq!(kernels.names(), ["mine"]);
}

pub fn a_missing_implementation_is_a_compile_error(subject: &Subject) {
    let kernels = subject.device.kernels();
    kernels.register(KernelSource { name: "nowhere", gpu: "", cpu: None }).unwrap();
    for _ in 0..2 {
        let error = kernels.get("nowhere").unwrap_err();
        assert!(
            matches!(&error, MlxError::ShaderCompilationError { name, message }
            if name == "nowhere" && !message.is_empty()),
            "{error}"
        );
    }
}

pub fn kernels_are_shared_between_threads(subject: &Subject) {
    let device = &subject.device;
    add_one(device);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            scope.spawn(move || {
                device.kernels().register(source(&format!("thread_{thread}"), "")).unwrap();
                let (from, to) = (u32s(device, &[thread]), u32s(device, &[0]));
                submit_add_one(device, &from, &to).unwrap().wait().unwrap();
                assert_eq!(values(&to), [thread + 1]);
            });
        }
    });
    assert_eq!(device.kernels().names().len(), 9);
}
