//! A connection of a client of the tests: small requests leave at once, and a hang is an error.

use std::io::{self, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long an answer may take: long enough for a busy machine, short enough to see a hang.
const PATIENCE: Duration = Duration::from_secs(30);

/// Connects.
pub(crate) fn connect(to: SocketAddr) -> io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(BufReader::new(stream))
}
