use super::*;
use crate::ops::test_devices::devices;

#[test]
fn counts_from_replay_to_replay() {
    for device in devices() {
        let values = device.buffer_from_slice(&[0_u32, 41, u32::MAX], DType::U32, [3]).unwrap();
        let graph = device.record(|encoder| increment(encoder, &values)).unwrap();
        graph.replay().unwrap().wait().unwrap();
        graph.replay().unwrap().wait().unwrap();
        assert_eq!(values.to_vec::<u32>().unwrap(), [2, 43, 1]);
    }
}

#[test]
fn refuses_other_types() {
    let device = crate::MlxDevice::cpu().unwrap();
    let values = device.zeros(DType::F32, [3]).unwrap();
    let mut encoder = device.command_encoder().unwrap();
    assert_eq!(increment(&mut encoder, &values).unwrap_err().to_string(), "increment: values is f32, needed u32");
}
