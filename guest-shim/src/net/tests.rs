//! The API, on the host's network.

use core::net::{Ipv4Addr, SocketAddr};

use super::*;
use crate::task::block_on;

fn any(family: &str) -> SocketAddr {
    SocketAddr::new(family.parse().unwrap(), 0)
}

/// The two ends of a connection over IPv4, the listener being one for both families.
async fn connection() -> Result<(TcpStream, TcpStream)> {
    // A host without IPv6 has no such listener.
    let listener = match TcpListener::bind(any("::")).await {
        Ok(listener) => listener,
        Err(_) => TcpListener::bind(any("0.0.0.0")).await?,
    };
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, listener.local_addr()?.port()));
    let near = TcpStream::connect(to).await?;
    let (far, from) = listener.accept().await?;
    assert_eq!(from, near.local_addr()?, "as itself, not mapped into IPv6");
    assert_eq!(from, far.peer_addr()?);
    assert_eq!(to, far.local_addr()?);
    Ok((near, far))
}

#[test]
fn halves_work_in_tasks_of_their_own_and_end_their_direction() {
    let sent: Vec<u8> = (0..3_000_000u32).map(|n| (n / 3) as u8).collect();
    let data = sent.clone();
    let got = block_on(async {
        let (near, far) = connection().await?;
        let (mut near_in, mut near_out) = near.into_split();
        let echo = task::spawn(async move {
            let mut far = far;
            let (mut from, mut to) = far.split();
            let mut buffer = vec![0; 10_000];
            loop {
                match from.read(&mut buffer).await? {
                    0 => return to.shutdown().await,
                    read => to.write_all(&buffer[..read]).await?,
                }
            }
        });
        let writing = task::spawn(async move { near_out.write_all(&data).await });
        let mut got = Vec::<u8>::new();
        let mut buffer = vec![0; 7000];
        loop {
            match near_in.read(&mut buffer).await? {
                0 => break,
                read => got.extend(&buffer[..read]),
            }
        }
        writing.await?;
        echo.await?;
        Result::Ok(got)
    });
    assert!(got.unwrap() == sent);
}

#[test]
fn what_ends_too_early_and_what_is_reset_are_told_apart() {
    block_on(async {
        let (mut near, mut far) = connection().await?;
        near.set_nodelay(false)?;
        far.write_all(b"abc").await?;
        far.flush().await?;
        drop(far);
        let ended = near.read_exact(&mut [0; 5]).await;
        assert_eq!(ended, Err(Error::UnexpectedEnd));

        let (near, mut far) = connection().await?;
        near.abort();
        assert_eq!(far.read(&mut [0; 5]).await, Err(Error::ConnectionReset));
        Result::Ok(())
    })
    .unwrap();
}

#[test]
fn errors_say_what_is_wrong() {
    block_on(async {
        let listener = TcpListener::bind(any("127.0.0.1")).await?;
        let address = listener.local_addr()?;
        let again = TcpListener::bind(address).await;
        assert_eq!(again.map(drop), Err(Error::AddressInUse));
        drop(listener);
        let refused = TcpStream::connect(address).await;
        assert_eq!(refused.map(drop), Err(Error::ConnectionRefused));
        let elsewhere = UdpSocket::bind("192.0.2.1:0".parse().unwrap()).await;
        assert_eq!(elsewhere.map(drop), Err(Error::AddressNotAvailable));
        let long = UdpSocket::bind(any("127.0.0.1")).await?;
        let sent = long.send_to(&[0; 70_000], address).await;
        assert_eq!(sent, Err(Error::MessageTooLong));
        Result::Ok(())
    })
    .unwrap();
}

#[test]
fn names_and_addresses_of_this_host_are_known() {
    let found = block_on(lookup("localhost")).unwrap();
    assert!(found.iter().all(IpAddr::is_loopback));
    assert_eq!(block_on(lookup("no such name")), Err(Error::NameNotFound));
    let addresses = interfaces().into_iter().flat_map(|card| card.addresses);
    assert!(
        addresses
            .into_iter()
            .any(|found| found == (Ipv4Addr::LOCALHOST.into(), 8))
    );
}

#[test]
fn this_host_answers_a_ping_if_it_lets_itself_be_asked() {
    let patience = Duration::from_secs(10);
    match block_on(ping(Ipv4Addr::LOCALHOST.into(), patience)) {
        Ok(time) => assert!(time <= patience),
        Err(error) => assert_eq!(error, Error::NotPermitted),
    }
}
