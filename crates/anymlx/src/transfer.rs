//! Copies between devices.

use crate::{MlxBuffer, MlxDevice, MlxError, Result};

impl MlxBuffer {
    /// A copy of this handle's bytes on `device`, which may be another one, with the same dtype and
    /// shape. Returns when done.
    ///
    /// Two CUDA devices copy directly where they are linked; all others go through the host.
    ///
    /// # Errors
    /// As [`MlxDevice::alloc_buffer`] and [`Self::copy_to`].
    pub fn to_device(&self, device: &MlxDevice) -> Result<MlxBuffer> {
        let copy = device.alloc_buffer(self.data_byte_len(), self.dtype(), self.shape().to_vec())?;
        self.copy_to(&copy)?;
        Ok(copy)
    }

    /// Copies this handle's bytes to `target`, which may be on another device. Returns when done.
    ///
    /// Two CUDA devices copy directly where they are linked; all others go through the host.
    ///
    /// # Errors
    /// `InvalidArgument` unless both have the same dtype and number of bytes; `InFlight` while
    /// submitted work writes this buffer or uses the target, `Locked`, `Poisoned`, `ReadOnly`.
    pub fn copy_to(&self, target: &MlxBuffer) -> Result<()> {
        let [given, needed] = [self, target].map(|buffer| (buffer.dtype(), buffer.data_byte_len()));
        if given != needed {
            return Err(MlxError::invalid(
                "copy_to",
                format_args!(
                    "{} of shape {:?} ({} bytes) to {} of shape {:?} ({} bytes)",
                    given.0,
                    self.shape(),
                    given.1,
                    needed.0,
                    target.shape(),
                    needed.1
                ),
            ));
        }
        let byte_len = self.data_byte_len() as u64;
        Ok(self.storage().copy_to(self.byte_offset(), target.storage(), target.byte_offset(), byte_len)?)
    }
}

#[cfg(test)]
mod tests {
    use anymlx_hal::trace::TraceOptions;

    use crate::{DType, MlxDevice, MlxError};

    fn devices() -> Vec<MlxDevice> {
        let trace = |unified, index| {
            MlxDevice::trace(&TraceOptions { unified, index, ..TraceOptions::default() }).expect("opens")
        };
        let mut devices = vec![MlxDevice::cpu().expect("opens"), trace(true, 0), trace(false, 1)];
        match MlxDevice::cuda(0) {
            Ok(device) => devices.push(device),
            Err(error) => eprintln!("skipped: {error}"),
        }
        devices
    }

    #[test]
    fn bytes_and_shape_arrive_from_every_device_on_every_other() {
        let values: Vec<f32> = (0..7 * 33 * 11).map(|at| at as f32 * 0.5 - 9.0).collect();
        for source in devices() {
            let whole = source.buffer_from_slice(&values, DType::F32, [7, 33, 11]).expect("allocates");
            for target in devices() {
                let copy = whole.to_device(&target).expect("copies");
                assert!(copy.is_on(&target) && copy.shape() == [7, 33, 11] && copy.dtype() == DType::F32);
                assert_eq!(copy.to_vec::<f32>().expect("reads"), values);
                whole.slice_view(400, 33).copy_to(&copy.slice_view(28, 33)).expect("copies");
                let mut expected = values.clone();
                expected.copy_within(100..133, 7);
                assert_eq!(copy.to_vec::<f32>().expect("reads"), expected);
            }
        }
    }

    #[test]
    fn what_does_not_fit_or_is_held_is_refused() {
        let devices = devices();
        let a = devices[0].zeros(DType::F32, [4]).expect("allocates");
        let shorter = devices[1].zeros(DType::F32, [3]).expect("allocates");
        let other = devices[1].zeros(DType::I32, [4]).expect("allocates");
        for target in [&shorter, &other] {
            let error = a.copy_to(target).expect_err("does not fit");
            assert!(matches!(error, MlxError::InvalidArgument(_)), "{error}");
        }
        let target = devices[2].zeros(DType::F32, [4]).expect("allocates");
        let guard = target.read::<f32>().expect("reads");
        assert!(matches!(a.copy_to(&target), Err(MlxError::Locked(_))));
        drop(guard);
        let guard = a.write::<f32>().expect("writes");
        assert!(matches!(a.copy_to(&target), Err(MlxError::Locked(_))));
        drop(guard);
        a.copy_to(&target).expect("nothing is held any more");
        assert!(matches!(a.copy_to(&a), Err(MlxError::Locked(_))), "onto itself");
    }
}
