use super::*;

/// Sends `length` bytes from the client to the server, and back.
fn transfer(quality: Quality, to: &str, length: usize, options: TcpOptions) -> World {
    let mut world = World::new(quality);
    let listener = world.listen("[::]:80", options);
    let (near, far) = world.connection(listener, to, &options);
    let data = noise(length);
    let (mut out, mut there, mut back) = (&data[..], Vec::new(), Vec::new());
    let mut echoed = 0;
    world.run(|world, context| {
        push(&mut world.client, near, &mut out, context);
        if out.is_empty() {
            world.client.shut_down(near, world.now);
        }
        let end = pull(&mut world.server, far, &mut there, context);
        let mut rest = &there[echoed..];
        push(&mut world.server, far, &mut rest, context);
        echoed = there.len() - rest.len();
        if end && echoed == there.len() {
            world.server.shut_down(far, world.now);
        }
        pull(&mut world.client, near, &mut back, context).then_some(())
    });
    assert!(there == data, "changed on the way there");
    assert!(back == data, "changed on the way back");
    world
}

#[test]
fn bytes_arrive_as_they_were_sent() {
    for to in [V4, V6] {
        transfer(Quality::default(), to, 3 << 20, TcpOptions::default());
    }
}

#[test]
fn bytes_arrive_though_frames_are_lost_and_harmed() {
    for to in [V4, V6] {
        let quality = Quality {
            loss: 10,
            harm: 5,
            ..Quality::default()
        };
        transfer(quality, to, 1 << 20, TcpOptions::default());
    }
}

#[test]
fn long_segments_travel_whole() {
    let quality = Quality {
        offloads: true,
        ..Quality::default()
    };
    let options = TcpOptions {
        receive_buffer: 512 << 10,
        send_buffer: 512 << 10,
        ..TcpOptions::default()
    };
    let world = transfer(quality, V4, 16 << 20, options);
    assert!(world.cable.longest() > 60_000);
    // Two ways, one acknowledgement for each.
    let segments = 2 * (16 << 20) / 60_000;
    assert!(
        world.cable.frames() < segments * 4,
        "{} frames",
        world.cable.frames()
    );
}

#[test]
fn long_segments_that_are_lost_come_again() {
    let quality = Quality {
        offloads: true,
        loss: 20,
        harm: 0,
    };
    transfer(quality, V4, 4 << 20, TcpOptions::default());
}
