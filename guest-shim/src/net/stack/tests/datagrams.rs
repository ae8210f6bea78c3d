use super::*;
use crate::net::Error;

#[test]
fn datagrams_go_there_and_back() {
    for to in [V4, V6] {
        let mut world = World::new(Quality::default());
        let server = world.server.bind_udp(address("[::]:80")).unwrap();
        let client = world.client.bind_udp(address("[::]:0")).unwrap();
        let mut buffer = [0; 2000];
        let data = noise(1400);
        let mut context = Context::from_waker(Waker::noop());
        let sent = world
            .client
            .poll_send(client, &data, address(to), &mut context);
        assert_eq!(sent, Poll::Ready(Ok(())));
        let (length, from) = world
            .run(|world, context| ready(world.server.poll_receive(server, &mut buffer, context)))
            .unwrap();
        assert_eq!(buffer[..length], data);
        assert_eq!(
            Some(from.port()),
            world.client.udp_address(client).map(|a| a.port())
        );
        let sent = world.server.poll_send(server, b"back", from, &mut context);
        assert_eq!(sent, Poll::Ready(Ok(())));
        // What does not fit is lost.
        let (length, from) = world
            .run(|world, context| {
                ready(world.client.poll_receive(client, &mut buffer[..3], context))
            })
            .unwrap();
        assert_eq!((&buffer[..length], from), (&b"bac"[..], address(to)));
    }
}

#[test]
fn what_cannot_be_sent_is_refused() {
    let mut world = World::new(Quality::default());
    let v4 = world.client.bind_udp(address("0.0.0.0:9")).unwrap();
    let any = world.client.bind_udp(address("[::]:10")).unwrap();
    let mut send = |id, length, to| {
        let mut context = Context::from_waker(Waker::noop());
        world
            .client
            .poll_send(id, &vec![0; length], address(to), &mut context)
    };
    assert_eq!(send(v4, 1472, V4), Poll::Ready(Ok(())));
    assert_eq!(send(v4, 1473, V4), Poll::Ready(Err(Error::MessageTooLong)));
    assert_eq!(send(any, 1453, V6), Poll::Ready(Err(Error::MessageTooLong)));
    assert_eq!(send(v4, 1, V6), Poll::Ready(Err(Error::InvalidInput)));
    assert_eq!(
        send(any, 1, "192.0.2.1:0"),
        Poll::Ready(Err(Error::InvalidInput))
    );
    assert_eq!(
        send(any, 1, "0.0.0.0:1"),
        Poll::Ready(Err(Error::InvalidInput))
    );
    assert_eq!(
        send(any, 1, "198.51.100.1:1"),
        Poll::Ready(Err(Error::Unreachable))
    );
    assert_eq!(
        world.client.bind_udp(address("[::]:9")),
        Err(Error::AddressInUse)
    );
    world.client.end_udp(v4, world.now);
    world.client.bind_udp(address("[::]:9")).unwrap();
}

#[test]
fn more_than_there_is_room_for_waits() {
    let mut world = World::new(Quality::default());
    let server = world.server.bind_udp(address(V4)).unwrap();
    let client = world.client.bind_udp(address("0.0.0.0:0")).unwrap();
    let (mut sent, mut received) = (0, 0);
    let mut buffer = [0; 2000];
    world.run(|world, context| {
        while sent < 1000
            && world
                .client
                .poll_send(client, &[1; 1000], address(V4), context)
                .is_ready()
        {
            sent += 1;
        }
        while world
            .server
            .poll_receive(server, &mut buffer, context)
            .is_ready()
        {
            received += 1;
        }
        (received == 1000).then_some(())
    });
}

#[test]
fn all_who_wait_for_one_socket_are_woken() {
    let mut world = World::new(Quality::default());
    let server = world.server.bind_udp(address(V4)).unwrap();
    let client = world.client.bind_udp(address("0.0.0.0:0")).unwrap();
    let sleepers: [Arc<Count>; 4] = Default::default();
    let wakers = sleepers.clone().map(Waker::from);
    let mut buffer = [0; 2000];
    for waker in &wakers[..2] {
        let mut context = Context::from_waker(waker);
        let received = world.server.poll_receive(server, &mut buffer, &mut context);
        assert!(received.is_pending());
    }
    for waker in &wakers[2..] {
        let mut context = Context::from_waker(waker);
        while world
            .client
            .poll_send(client, &[1; 1000], address(V4), &mut context)
            .is_ready()
        {}
    }
    world.pass(Duration::from_millis(10));
    for sleeper in sleepers {
        assert_eq!(sleeper.0.load(Ordering::Relaxed), 1);
    }
}

#[test]
fn datagrams_leave_though_nobody_holds_their_socket_any_more() {
    let mut world = World::new(Quality::default());
    let server = world.server.bind_udp(address(V4)).unwrap();
    let mut buffer = [0; 2000];
    for round in 0..3 {
        let client = world.client.bind_udp(address("0.0.0.0:9")).unwrap();
        let mut context = Context::from_waker(Waker::noop());
        let sent = world
            .client
            .poll_send(client, &[round], address(V4), &mut context);
        assert!(sent.is_ready());
        world.client.end_udp(client, world.now);
        let (length, _) = world
            .run(|world, context| ready(world.server.poll_receive(server, &mut buffer, context)))
            .unwrap();
        assert_eq!(buffer[..length], [round]);
    }
    // What cannot leave is given up in time, and does not get what is for another socket.
    let client = world.client.bind_udp(address("0.0.0.0:9")).unwrap();
    let mut context = Context::from_waker(Waker::noop());
    let nobody = address("192.0.2.99:1");
    let sent = world
        .client
        .poll_send(client, b"lost", nobody, &mut context);
    assert!(sent.is_ready());
    world.client.end_udp(client, world.now);
    let client = world.client.bind_udp(address("0.0.0.0:9")).unwrap();
    let sent = world
        .server
        .poll_send(server, b"for you", address("192.0.2.2:9"), &mut context);
    assert!(sent.is_ready());
    world
        .run(|world, context| ready(world.client.poll_receive(client, &mut buffer, context)))
        .unwrap();
    let sent = world
        .client
        .poll_send(client, b"lost", nobody, &mut context);
    assert!(sent.is_ready());
    world.client.end_udp(client, world.now);
    world.pass(Duration::from_secs(10));
    assert_eq!(world.client.deadline(world.now), None, "nothing is left");
}

#[test]
fn pings_are_answered() {
    let local = addresses::link_local([2, 0, 0, 0, 0, 1]);
    for to in [address(V4), address(V6), SocketAddr::new(local.into(), 0)] {
        let mut world = World::new(Quality::default());
        let id = world.client.ping(to).unwrap();
        world.run(|world, context| ready(world.client.poll_pong(id, context)));
        world.client.end_ping(id);
    }
    let mut world = World::new(Quality::default());
    assert!(matches!(
        world.client.ping(address("203.0.113.1:0")),
        Err(Error::Unreachable)
    ));
}

#[test]
fn names_are_asked_for_where_a_server_is_known() {
    let mut world = World::new(Quality::default());
    assert!(matches!(
        world.client.ask("example.org"),
        Err(Error::NoNameServer)
    ));
}

/// The answer to a question for `host`, of which only the addresses of one family are known.
fn answer(question: &[u8]) -> Vec<u8> {
    let mut out = question.to_vec();
    let kind = &question[question.len() - 4..question.len() - 2];
    // A response, one question; one answer, or none.
    let known = kind == [0, 1];
    out[2..4].copy_from_slice(&[0x81, 0x80]);
    out[6..8].copy_from_slice(&[0, u8::from(known)]);
    if known {
        // The name at offset 12, an address, class IN, 60 s, 4 bytes.
        out.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 203, 0, 113, 5]);
    }
    out
}

#[test]
fn a_name_server_is_asked_for_both_families() {
    let mut world = World::new(Quality::default());
    let here = Addressing {
        dns: vec![address(V4).ip()],
        ..addressing(3)
    };
    let cable = Cable::new(Quality::default());
    world.server = Stack::new(1 << 20, 1);
    world.client = Stack::new(1 << 20, 2);
    world
        .server
        .add("net0", cable.end(End::Server), addressing(1), world.now);
    world
        .client
        .add("net0", cable.end(End::Client), here, world.now);
    world.cable = cable;
    let server = world.server.bind_udp(address("0.0.0.0:53")).unwrap();
    let mut query = world.client.ask("host.example").unwrap();
    let mut buffer = [0; 600];
    let found = world.run(|world, context| {
        while let Poll::Ready(Ok((length, from))) =
            world.server.poll_receive(server, &mut buffer, context)
        {
            let answer = answer(&buffer[..length]);
            let sent = world.server.poll_send(server, &answer, from, context);
            assert!(sent.is_ready());
        }
        ready(world.client.poll_answer(&mut query, context))
    });
    assert_eq!(found, Ok(vec!["203.0.113.5".parse().unwrap()]));
    world.client.end_query(&mut query);
    assert!(matches!(
        world.client.ask("not..aname"),
        Err(Error::InvalidInput)
    ));
    // One that is given up leaves nothing behind.
    let mut query = world.client.ask("host.example").unwrap();
    world.client.end_query(&mut query);
}

#[test]
fn a_card_is_told_with_its_addresses() {
    let mut world = World::new(Quality::default());
    let told = &world.client.interfaces()[0];
    assert_eq!((told.name.as_str(), told.mtu), ("net0", 1500));
    assert_eq!(told.mac, [2, 0, 0, 0, 0, 2]);
    let local = addresses::link_local(told.mac);
    let expected = [
        ("192.0.2.2".parse().unwrap(), 24),
        ("2001:db8::2".parse().unwrap(), 64),
        (local.into(), 64),
    ];
    assert_eq!(told.addresses, expected);
    let mut context = Context::from_waker(Waker::noop());
    assert!(world.client.poll_configured(&mut context).is_ready());
    // With DHCP it has no IPv4 address yet.
    let asking = Addressing {
        dhcp: true,
        ..Addressing::default()
    };
    let cable = Cable::new(Quality::default());
    world
        .client
        .add("net1", cable.end(End::Client), asking, world.now);
    assert!(world.client.poll_configured(&mut context).is_pending());
    world.client.poll(world.now);
    assert_eq!(cable.frames(), 1, "it asks");
}

/// What a DHCP server says to a message: this is your address.
fn lease(message: &[u8]) -> Vec<u8> {
    use smoltcp::wire::{DhcpMessageType, DhcpPacket, DhcpRepr};
    let packet = DhcpPacket::new_checked(message).unwrap();
    let asked = DhcpRepr::parse(&packet).unwrap();
    let server = [192, 0, 2, 1].into();
    let answer = DhcpRepr {
        message_type: match asked.message_type {
            DhcpMessageType::Discover => DhcpMessageType::Offer,
            _ => DhcpMessageType::Ack,
        },
        your_ip: [192, 0, 2, 77].into(),
        server_ip: server,
        router: Some(server),
        subnet_mask: Some([255, 255, 255, 0].into()),
        server_identifier: Some(server),
        dns_servers: Some([server].into_iter().collect()),
        lease_duration: Some(3600),
        requested_ip: None,
        client_identifier: None,
        parameter_request_list: None,
        max_size: None,
        ..asked
    };
    let mut bytes = vec![0; answer.buffer_len()];
    answer
        .emit(&mut DhcpPacket::new_unchecked(&mut bytes[..]))
        .unwrap();
    bytes
}

#[test]
fn dhcp_gives_an_address_a_gateway_and_a_name_server() {
    let mut world = World::new(Quality::default());
    let asking = Addressing {
        dhcp: true,
        ..Addressing::default()
    };
    let cable = Cable::new(Quality::default());
    (world.server, world.client) = (Stack::new(1 << 20, 1), Stack::new(1 << 20, 2));
    world
        .server
        .add("net0", cable.end(End::Server), addressing(1), world.now);
    world
        .client
        .add("net0", cable.end(End::Client), asking, world.now);
    world.cable = cable;
    let server = world.server.bind_udp(address("0.0.0.0:67")).unwrap();
    let mut buffer = [0; 1500];
    world.run(|world, context| {
        while let Poll::Ready(Ok((length, _))) =
            world.server.poll_receive(server, &mut buffer, context)
        {
            let everyone = address("255.255.255.255:68");
            let answer = lease(&buffer[..length]);
            assert!(
                world
                    .server
                    .poll_send(server, &answer, everyone, context)
                    .is_ready()
            );
        }
        ready(world.client.poll_configured(context))
    });
    let told = &world.client.interfaces()[0].addresses;
    assert_eq!(told[0], ("192.0.2.77".parse().unwrap(), 24));
    assert_eq!(world.client.route(address("203.0.113.5:1")), Some(0));
    assert!(world.client.ask("host.example").is_ok());
}

#[test]
fn each_card_leads_to_its_own_network_and_one_to_all_others() {
    let now = Instant::from_nanos(1);
    let mut stack = Stack::new(1 << 20, 3);
    let (one, two) = (
        Cable::new(Quality::default()),
        Cable::new(Quality::default()),
    );
    stack.add("net0", one.end(End::Server), addressing(1), now);
    let outward = Addressing {
        v4: Some(([10, 0, 0, 5].into(), 8)),
        gateway4: Some([10, 0, 0, 1].into()),
        ..Addressing::default()
    };
    stack.add("net1", two.end(End::Client), outward, now);
    let routes = [
        ("192.0.2.7:1", Some(0)),
        ("10.1.2.3:1", Some(1)),
        ("203.0.113.5:1", Some(1)),
        ("[2001:db8::9]:1", Some(0)),
        ("[2001:db9::9]:1", None),
        ("[fe80::9]:1", Some(0)),
        ("[fe80::9%2]:1", Some(1)),
        ("[fe80::9%3]:1", None),
    ];
    for (to, link) in routes {
        assert_eq!(stack.route(address(to)), link, "{to}");
    }
}
