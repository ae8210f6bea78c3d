use super::*;
use crate::net::Error;

/// Sockets that the server's stack has.
fn sockets(stack: &Stack) -> usize {
    stack.links[0].sockets.iter().count()
}

#[test]
fn two_hundred_connect_at_once_and_all_are_accepted() {
    for to in [V4, V6] {
        let mut world = World::new(Quality::default());
        let listener = world.listen("[::]:80", TcpOptions::default());
        let options = TcpOptions {
            receive_buffer: 4096,
            send_buffer: 4096,
            ..TcpOptions::default()
        };
        let mut near: Vec<_> = (0..200)
            .map(|_| world.client.connect(address(to), &options).unwrap())
            .collect();
        // Those above the backlog are not refused: they ask again.
        world.pass(Duration::from_millis(100));
        assert_eq!(sockets(&world.server), TcpOptions::default().backlog);
        let mut far = 0;
        world.run(|world, context| {
            while let Some((id, _)) = accepted(world, listener, context) {
                far += 1;
                world.server.release(id, world.now);
            }
            near.retain(|&id| connected(world, id, context).map(Result::unwrap).is_none());
            (far == 200 && near.is_empty()).then_some(())
        });
    }
}

#[test]
fn a_connection_per_request_leaves_few_sockets_behind() {
    let mut world = World::new(Quality::default());
    let listener = world.listen("0.0.0.0:80", TcpOptions::default());
    let options = TcpOptions::default();
    let mut serving: Vec<SocketId> = Vec::new();
    let mut asking: Vec<(SocketId, bool, Vec<u8>)> = Vec::new();
    let (mut begun, mut answered, mut most) = (0, 0, 0);
    world.run(|world, context| {
        while begun < 3000 && asking.len() < 64 {
            asking.push((
                world.client.connect(address(V4), &options).unwrap(),
                false,
                Vec::new(),
            ));
            begun += 1;
        }
        while let Some((id, _)) = accepted(world, listener, context) {
            serving.push(id);
        }
        serving.retain(|&id| {
            let mut request = Vec::new();
            pull(&mut world.server, id, &mut request, context);
            if request.is_empty() {
                return true;
            }
            push(&mut world.server, id, &mut &b"answer"[..], context);
            world.server.release(id, world.now);
            false
        });
        asking.retain_mut(|(id, asked, answer)| {
            if !*asked && connected(world, *id, context).map(Result::unwrap).is_some() {
                push(&mut world.client, *id, &mut &b"request"[..], context);
                *asked = true;
            }
            if !*asked || !pull(&mut world.client, *id, answer, context) {
                return true;
            }
            assert_eq!(answer, b"answer");
            answered += 1;
            world.client.release(*id, world.now);
            false
        });
        most = most.max(sockets(&world.server));
        (answered == 3000).then_some(())
    });
    assert!(most <= 64 + 64 + 64, "{most} sockets");
    // After their time the last ones go, too.
    world.pass(Duration::from_secs(20));
    assert_eq!(sockets(&world.server), 0);
    assert_eq!(sockets(&world.client), 0);
}

#[test]
fn without_memory_a_client_waits_and_is_served_when_there_is_some() {
    let options = TcpOptions::default();
    let mut world = World::with_memory(Quality::default(), 2 * (128 << 10));
    let listener = world.listen("[::]:80", options);
    let first = world.connection(listener, V4, &options);
    let _second = world.connection(listener, V6, &options);
    let third = world.client.connect(address(V4), &options).unwrap();
    world.pass(Duration::from_millis(100));
    let mut context = Context::from_waker(Waker::noop());
    assert_eq!(connected(&mut world, third, &mut context), None);
    world.client.release(first.0, world.now);
    world.server.release(first.1, world.now);
    world
        .run(|world, context| connected(world, third, context))
        .unwrap();
}

#[test]
fn a_released_connection_sends_what_was_written_and_then_ends() {
    let options = TcpOptions::default();
    let mut world = World::new(Quality {
        loss: 20,
        ..Quality::default()
    });
    let listener = world.listen("[::]:80", options);
    let (near, far) = world.connection(listener, V6, &options);
    let data = noise(60_000);
    let mut context = Context::from_waker(Waker::noop());
    push(&mut world.server, far, &mut &data[..], &mut context);
    world.server.release(far, world.now);
    let mut got = Vec::new();
    world.run(|world, context| pull(&mut world.client, near, &mut got, context).then_some(()));
    assert_eq!(got, data);
}

#[test]
fn a_connection_can_end_well_after_a_long_silence() {
    let options = TcpOptions::default();
    let mut world = World::new(Quality::default());
    let listener = world.listen("[::]:80", options);
    let (near, far) = world.connection(listener, V6, &options);
    world.pass(Duration::from_secs(500));
    world.server.release(far, world.now);
    let mut got = Vec::new();
    world.run(|world, context| pull(&mut world.client, near, &mut got, context).then_some(()));
    world.pass(Duration::from_secs(30));
    world.client.release(near, world.now);
    world.pass(Duration::from_millis(1));
    assert_eq!(sockets(&world.client), 0);
}

#[test]
fn a_connection_whose_other_end_is_gone_ends_in_time() {
    let options = TcpOptions::default();
    let mut world = World::new(Quality::default());
    let listener = world.listen("[::]:80", options);
    let (_, released) = world.connection(listener, V4, &options);
    let (_, shut) = world.connection(listener, V4, &options);
    let (_, writing) = world.connection(listener, V4, &options);
    world.cable.cut();
    world.server.release(released, world.now);
    world.server.shut_down(shut, world.now);
    let mut context = Context::from_waker(Waker::noop());
    push(&mut world.server, writing, &mut &b"x"[..], &mut context);
    world.pass(Duration::from_secs(200));
    for id in [shut, writing] {
        let read = world.server.poll_read(id, &mut [0; 9], &mut context);
        assert_eq!(read, Poll::Ready(Err(Error::ConnectionReset)));
        world.server.release(id, world.now);
    }
    world.pass(Duration::from_secs(100));
    assert_eq!(sockets(&world.server), 0);
}

#[test]
fn one_direction_ends_and_the_other_goes_on() {
    let options = TcpOptions::default();
    let mut world = World::new(Quality::default());
    let listener = world.listen("[::]:80", options);
    let (near, far) = world.connection(listener, V4, &options);
    world.client.shut_down(near, world.now);
    let mut got = Vec::new();
    world.run(|world, context| pull(&mut world.server, far, &mut got, context).then_some(()));
    let mut context = Context::from_waker(Waker::noop());
    assert_eq!(
        world.client.poll_write(near, b"x", &mut context),
        Poll::Ready(Err(Error::Closed))
    );
    // It may last for as long as it likes.
    world.pass(Duration::from_secs(200));
    push(&mut world.server, far, &mut &b"late"[..], &mut context);
    world.server.release(far, world.now);
    world.run(|world, context| pull(&mut world.client, near, &mut got, context).then_some(()));
    assert_eq!(got, b"late");
}

#[test]
fn both_ends_know_both_addresses() {
    let options = TcpOptions::default();
    let mut world = World::new(Quality::default());
    let listener = world.listen("[::]:80", options);
    for to in [V4, V6] {
        let (near, far) = world.connection(listener, to, &options);
        let (near, far) = (world.client.ends(near), world.server.ends(far));
        assert_eq!(near.map(|(local, remote)| (remote, local)), far);
        assert_eq!(far.map(|(local, _)| local), Some(address(to)));
    }
}

#[test]
fn an_ipv4_address_mapped_into_ipv6_is_meant_as_itself() {
    let options = TcpOptions::default();
    let mut world = World::new(Quality::default());
    let listener = world.listen("[::ffff:192.0.2.1]:80", options);
    assert_eq!(world.server.listener_address(listener), Some(address(V4)));
    let id = world
        .client
        .connect(address("[::ffff:192.0.2.1]:80"), &options)
        .unwrap();
    assert_eq!(world.client.ends(id).map(|(_, to)| to), Some(address(V4)));
}

#[test]
fn small_segments_wait_for_each_other_only_if_asked_to() {
    let mut segments = Vec::new();
    for nodelay in [true, false] {
        let options = TcpOptions::default();
        let mut world = World::new(Quality::default());
        let listener = world.listen("[::]:80", options);
        let (near, _far) = world.connection(listener, V4, &options);
        world.pass(Duration::from_millis(1));
        world.client.set_nodelay(near, nodelay);
        let before = world.cable.frames();
        for _ in 0..10 {
            let mut context = Context::from_waker(Waker::noop());
            push(&mut world.client, near, &mut &b"small"[..], &mut context);
            world.client.poll(world.now);
        }
        segments.push(world.cable.frames() - before);
    }
    assert_eq!(segments, [10, 1]);
}

#[test]
fn an_abort_resets_the_other_end() {
    let options = TcpOptions::default();
    let mut world = World::new(Quality::default());
    let listener = world.listen("[::]:80", options);
    let (near, far) = world.connection(listener, V4, &options);
    world.client.abort(near);
    world.client.release(near, world.now);
    let read =
        world.run(|world, context| ready(world.server.poll_read(far, &mut [0; 10], context)));
    assert_eq!(read, Err(Error::ConnectionReset));
    let mut context = Context::from_waker(Waker::noop());
    let write = world.server.poll_write(far, b"x", &mut context);
    assert_eq!(write, Poll::Ready(Err(Error::ConnectionReset)));
    world.pass(Duration::from_millis(1));
    assert_eq!(sockets(&world.client), 0);
}

#[test]
fn where_nobody_listens_a_connection_is_refused() {
    let mut world = World::new(Quality::default());
    let id = world
        .client
        .connect(address(V6), &TcpOptions::default())
        .unwrap();
    let refused = world.run(|world, context| connected(world, id, context));
    assert_eq!(refused, Err(Error::ConnectionRefused));
}

#[test]
fn where_nobody_is_a_connection_takes_too_long() {
    let mut world = World::new(Quality::default());
    world.cable.cut();
    let start = world.now;
    let id = world
        .client
        .connect(address(V4), &TcpOptions::default())
        .unwrap();
    let given_up = world.run(|world, context| {
        let waited = world.now - start;
        ready(world.client.poll_connected(id, waited, context))
    });
    assert_eq!(given_up, Err(Error::TimedOut));
    // Nor is what it leaves behind kept for ever.
    world.client.release(id, world.now);
    world.pass(Duration::from_secs(70));
    assert_eq!(sockets(&world.client), 0);
}

#[test]
fn a_quiet_connection_needs_no_polls() {
    let options = TcpOptions::default();
    let mut world = World::new(Quality::default());
    let listener = world.listen("[::]:80", options);
    let (_near, far) = world.connection(listener, V4, &options);
    let mut context = Context::from_waker(Waker::noop());
    push(&mut world.server, far, &mut &b"hello"[..], &mut context);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.server.deadline(world.now), None);
    assert_eq!(world.client.deadline(world.now), None);
}

#[test]
fn a_prompt_answer_carries_the_acknowledgement() {
    let options = TcpOptions::default();
    let mut world = World::new(Quality::default());
    let listener = world.listen("[::]:80", options);
    let (near, far) = world.connection(listener, V4, &options);
    world.pass(Duration::from_millis(1));
    let before = world.cable.frames();
    for _ in 0..100 {
        let (mut there, mut back) = (Vec::new(), Vec::new());
        push(
            &mut world.client,
            near,
            &mut &b"ping"[..],
            &mut Context::from_waker(Waker::noop()),
        );
        world.run(|world, context| {
            pull(&mut world.server, far, &mut there, context);
            push(&mut world.server, far, &mut &there[..], context);
            there.clear();
            pull(&mut world.client, near, &mut back, context);
            (back == b"ping").then_some(())
        });
    }
    assert!(world.cable.frames() - before <= 201);
}

#[test]
fn whoever_waits_is_woken() {
    let options = TcpOptions::default();
    let mut world = World::new(Quality::default());
    let listener = world.listen("[::]:80", options);
    let count = Arc::new(Count(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&count));
    let mut context = Context::from_waker(&waker);
    assert!(
        world
            .server
            .poll_accept(listener, &mut context)
            .is_pending()
    );
    let near = world.client.connect(address(V4), &options).unwrap();
    assert!(
        world
            .client
            .poll_connected(near, Duration::ZERO, &mut context)
            .is_pending()
    );
    world.pass(Duration::from_millis(1));
    assert_eq!(count.0.swap(0, Ordering::Relaxed), 2);
    let Poll::Ready(Ok((far, _))) = world.server.poll_accept(listener, &mut context) else {
        panic!("woken for nothing");
    };
    assert!(
        world
            .server
            .poll_read(far, &mut [0; 9], &mut context)
            .is_pending()
    );
    push(
        &mut world.client,
        near,
        &mut &b"x"[..],
        &mut Context::from_waker(Waker::noop()),
    );
    world.pass(Duration::from_millis(1));
    assert_eq!(count.0.load(Ordering::Relaxed), 1);
}

#[test]
fn a_port_has_one_listener_until_it_ends() {
    let mut world = World::new(Quality::default());
    let options = TcpOptions::default();
    let any = world.listen("[::]:80", options);
    for taken in ["0.0.0.0:80", V4, V6, "[::]:80"] {
        let refused = world.server.listen(address(taken), options);
        assert_eq!(refused, Err(Error::AddressInUse), "{taken}");
    }
    assert_eq!(
        world.server.listen(address("192.0.2.9:80"), options),
        Err(Error::AddressNotAvailable)
    );
    let near = world.client.connect(address(V4), &options).unwrap();
    world.pass(Duration::from_millis(1));
    world.server.end_listener(any, world.now);
    // Who was not accepted learns it.
    let read =
        world.run(|world, context| ready(world.client.poll_read(near, &mut [0; 9], context)));
    assert_eq!(read, Err(Error::ConnectionReset));
    // One for each family, and one on any free port.
    world.listen("0.0.0.0:80", options);
    world.listen(V6, options);
    let free = world.listen("[::]:0", options);
    assert!(world.server.listener_address(free).unwrap().port() >= FIRST_FREE_PORT);
}

#[test]
fn a_stack_that_waits_for_others_rests_however_silent_they_are() {
    let mut world = World::new(Quality::default());
    let mut context = Context::from_waker(Waker::noop());
    let options = TcpOptions::default();
    let listener = world.listen(V4, options);
    let (held, far) = world.connection(listener, V4, &options);
    let (left, _) = world.connection(listener, V4, &options);
    world.cable.cut();
    // One with data under way, one that is ended, one on which this end only has ended.
    assert!(
        world
            .client
            .poll_write(held, &[1; 5000], &mut context)
            .is_ready()
    );
    world.client.release(left, world.now);
    world.server.shut_down(far, world.now);
    let socket = world.client.bind_udp(address("[::]:9")).unwrap();
    for nobody in ["192.0.2.99:1", "[2001:db8::99]:1", "[fe80::99]:1"] {
        world.client.connect(address(nobody), &options).unwrap();
        world.client.ping(address(nobody)).unwrap();
        let sent = world
            .client
            .poll_send(socket, b"x", address(nobody), &mut context);
        assert!(sent.is_ready());
    }
    world.client.end_udp(socket, world.now);
    for stack in [&mut world.client, &mut world.server] {
        let (mut now, mut polls) = (world.now, 0);
        while now < world.now + Duration::from_secs(200) {
            stack.poll(now);
            polls += 1;
            assert!(polls < 3000, "busy");
            match stack.deadline(now) {
                Some(at) => now = at.max(now + Duration::from_nanos(100)),
                None => break,
            }
        }
    }
}

#[test]
fn connections_that_are_given_up_leave_their_memory_to_others_at_once() {
    let options = TcpOptions::default();
    let mut world = World::with_memory(Quality::default(), 1 << 20);
    for _ in 0..20 {
        let id = world
            .server
            .connect(address("192.0.2.99:1"), &options)
            .expect("there is memory");
        world.pass(Duration::from_millis(10));
        world.server.give_up(id, world.now);
    }
    // Those that nobody answered are told after a while, and are no different.
    let id = world
        .server
        .connect(address("192.0.2.99:1"), &options)
        .unwrap();
    let mut context = Context::from_waker(Waker::noop());
    world.pass(Duration::from_secs(31));
    let told = world
        .server
        .poll_connected(id, Duration::from_secs(31), &mut context);
    assert_eq!(told, Poll::Ready(Err(Error::TimedOut)));
    world.server.give_up(id, world.now);
    let all = TcpOptions {
        receive_buffer: 1 << 19,
        send_buffer: 1 << 19,
        ..options
    };
    assert!(world.server.connect(address(V4), &all).is_ok());
}

#[test]
fn a_connection_that_is_complete_when_it_is_given_up_ends_as_others_do() {
    let options = TcpOptions::default();
    let mut world = World::new(Quality::default());
    let listener = world.listen(V4, options);
    let near = world.client.connect(address(V4), &options).unwrap();
    let (far, _) = world.run(|world, context| accepted(world, listener, context));
    world.client.give_up(near, world.now);
    let mut heard = Vec::new();
    world.run(|world, context| pull(&mut world.server, far, &mut heard, context).then_some(()));
}
