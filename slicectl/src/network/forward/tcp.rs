//! Streams: each accepted connection gets one to the guest, and what comes on one goes to the
//! other, in both directions, with their ends and their pauses.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::sleep;

use super::Shared;

/// What a connection holds for each direction, at most.
///
/// Measured over loopback, release build: a short connection takes about 80 us of processor time, a
/// GiB 0.65 s. With 64 KiB it is 100 us and 0.48 s; with `splice` and two pipes for each connection
/// 70 us and 0.4 s, at three times the descriptors.
const BUFFER: usize = 16 << 10;

/// How long to wait when the kernel has no descriptor or memory for another connection.
const SHORTAGE: Duration = Duration::from_millis(50);

/// A client that is silent this long is asked whether it is there.
const SILENCE: Duration = Duration::from_secs(60);

/// Accepts connections for ever and has each carried to the guest's port `to`.
pub(super) async fn accept_all(listener: TcpListener, to: SocketAddr, shared: Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                // Past the limit nothing more is accepted: clients wait in the kernel.
                let permit = Arc::clone(&shared.connections).acquire_owned().await;
                let Ok(permit) = permit else { return };
                tokio::spawn(carry(client, to, Arc::clone(&shared), permit));
            }
            Err(error) if is_the_client_s(&error) => {}
            Err(_) => sleep(SHORTAGE).await,
        }
    }
}

/// Carries one connection until both sides have ended it, or one has broken it.
async fn carry(
    mut client: TcpStream,
    to: SocketAddr,
    shared: Arc<Shared>,
    _permit: OwnedSemaphorePermit,
) {
    watch_for_silence(&client);
    let Ok(mut guest) = shared.patience.connect(to).await else {
        // Not an end, which would look like an empty answer.
        let _ = client.set_zero_linger();
        return;
    };
    // What cannot be set costs time, not truth.
    let _ = client.set_nodelay(true);
    let _ = guest.set_nodelay(true);
    let carried = copy_bidirectional_with_sizes(&mut client, &mut guest, BUFFER, BUFFER).await;
    if carried.is_err() {
        // A break on one side is told as a break on the other: half an answer is no answer.
        let _ = client.set_zero_linger();
        let _ = guest.set_zero_linger();
    }
}

/// Without it, clients that vanish would hold their places for ever.
fn watch_for_silence(client: &TcpStream) {
    let _ = sockopt::set_socket_keepalive(client, true);
    let _ = sockopt::set_tcp_keepidle(client, SILENCE);
    let _ = sockopt::set_tcp_keepintvl(client, SILENCE / 4);
    let _ = sockopt::set_tcp_keepcnt(client, 4);
}

/// Whether a connection was gone before it was accepted, which says nothing of the next one.
fn is_the_client_s(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | Interrupted
    )
}
