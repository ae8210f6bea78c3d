use super::*;
use crate::virtio::simulated::SimulatedDevice;
use crate::virtio::state::tests::state;
use crate::vsock::wire::{HEADER, HOST_CID};
use std::boxed::Box;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

struct Nowhere;

impl Window for Nowhere {
    fn write(&self, _: u64, _: u32) {}
}

fn header(there: u32, op: u16, len: usize) -> Header {
    Header {
        src_cid: HOST_CID,
        dst_cid: 3,
        src_port: there,
        dst_port: 7,
        kind: 1,
        op,
        len: len as u32,
        buf_alloc: 1 << 20,
        ..Header::default()
    }
}

/// Puts a packet into the next buffer of the receive queue.
fn deliver(device: &mut SimulatedDevice, header: Header, payload: &[u8]) {
    let (head, chain) = device.take().expect("the driver gives buffers");
    assert_eq!((chain[0].1, chain[0].2), (PACKET as u32, true));
    let packet = [&header.to_bytes()[..], payload].concat();
    // SAFETY: the driver has given the buffer to the device, and it is large enough.
    unsafe { std::ptr::copy(packet.as_ptr(), chain[0].0 as *mut u8, packet.len()) };
    device.give_back(head.into(), packet.len() as u32);
}

#[test]
fn packets_travel_and_buffers_go_round() {
    for features in [F_VERSION_1, F_VERSION_1 | F_EVENT_IDX] {
        let state: &'static DeviceState = Box::leak(Box::new(state()));
        state.config[0].store(3, Ordering::Relaxed);
        let vsock = Vsock::new(Nowhere, state, features, 256);
        let (receive, send) = {
            let inner = vsock.inner.lock();
            (inner.receive.queue.ring(), inner.send.ring())
        };
        let mut receive = SimulatedDevice::new(receive, features);
        let mut send = SimulatedDevice::new(send, features);
        let context = Context::from_waker(Waker::noop());
        vsock.mux().listen(7).unwrap();
        deliver(&mut receive, header(9, 1, 0), &[]);
        vsock.poll();
        let Poll::Ready(key) = vsock.mux().accept(7, &context) else {
            panic!("it was requested");
        };
        for round in 0..200u8 {
            deliver(&mut receive, header(9, 5, 3), &[round; 3]);
            vsock.poll();
            let mut bytes = [0; 10];
            let read = vsock.mux().read(key, &mut bytes, &context);
            assert_eq!(read, Poll::Ready(Ok(3)));
            assert_eq!(bytes[..3], [round; 3]);
            let written = vsock.mux().write(key, &bytes[..3], &context);
            assert_eq!(written, Poll::Ready(Ok(3)));
            vsock.poll();
            while let Some((head, chain)) = send.take() {
                let len = chain[0].1 as usize;
                // SAFETY: the driver names a packet that is whole until it is given back.
                let packet = unsafe { std::slice::from_raw_parts(chain[0].0 as *const u8, len) };
                let (sent, payload) = Header::parse(packet).unwrap();
                assert_eq!((sent.src_port, sent.dst_port), (7, 9));
                assert!(len == HEADER || payload == [round; 3]);
                send.give_back(head.into(), 0);
            }
        }
    }
}

#[test]
fn a_device_that_breaks_the_rules_ends_all_connections() {
    let state: &'static DeviceState = Box::leak(Box::new(state()));
    let vsock = Vsock::new(Nowhere, state, F_VERSION_1, 256);
    let mut send = SimulatedDevice::new(vsock.inner.lock().send.ring(), F_VERSION_1);
    let key = vsock.mux().connect(5);
    vsock.poll();
    send.pretend(5);
    vsock.poll();
    let context = Context::from_waker(Waker::noop());
    let connected = vsock.mux().connected(key, &context);
    assert_eq!(
        connected,
        Poll::Ready(Err(crate::net::Error::ConnectionReset))
    );
    // Later ones learn it, too.
    let key = vsock.mux().connect(5);
    vsock.poll();
    assert!(vsock.mux().connected(key, &context).is_ready());
}
