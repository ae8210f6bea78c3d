//! What can go wrong in a network.

use core::fmt;

/// Result of something with a network.
pub type Result<T> = core::result::Result<T, Error>;

/// Why something with a network has not worked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The address or port is another socket's.
    AddressInUse,
    /// The address is none of this sliver's.
    AddressNotAvailable,
    /// The other end has ended the connection without completing it.
    ConnectionReset,
    /// Nobody accepts connections there.
    ConnectionRefused,
    /// This end of the connection has been closed.
    Closed,
    /// Something that nobody could send to, a port of 0 for instance, or a name that is none.
    InvalidInput,
    /// The datagram is longer than one packet.
    MessageTooLong,
    /// There is no memory for another socket's buffers.
    NoMemory,
    /// The name server knows no address for the name, or does not answer.
    NameNotFound,
    /// No name server is known.
    NoNameServer,
    /// It is not permitted to this process.
    NotPermitted,
    /// There is no way to the address.
    Unreachable,
    /// Nothing has come back in time.
    TimedOut,
    /// The connection has ended before all that was expected has come.
    UnexpectedEnd,
    /// Anything else, with the number that the host's kernel has for it, or 0.
    Other(i32),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AddressInUse => "the address is in use",
            Self::AddressNotAvailable => "the address is not this sliver's",
            Self::ConnectionReset => "the other end has reset the connection",
            Self::ConnectionRefused => "nobody accepts connections there",
            Self::Closed => "the connection is closed",
            Self::InvalidInput => "nobody has such an address or name",
            Self::MessageTooLong => "the datagram is longer than one packet",
            Self::NoMemory => "there is no memory for the socket's buffers",
            Self::NameNotFound => "no address is found for the name",
            Self::NoNameServer => "no name server is known",
            Self::NotPermitted => "not permitted",
            Self::Unreachable => "there is no way to the address",
            Self::TimedOut => "nothing has come back in time",
            Self::UnexpectedEnd => "the connection has ended too early",
            Self::Other(number) => return write!(f, "the host's error {number}"),
        })
    }
}

impl core::error::Error for Error {}

#[cfg(any(test, feature = "desktop"))]
impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind;
        match error.kind() {
            ErrorKind::AddrInUse => Self::AddressInUse,
            ErrorKind::AddrNotAvailable => Self::AddressNotAvailable,
            ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => Self::ConnectionReset,
            ErrorKind::ConnectionRefused => Self::ConnectionRefused,
            ErrorKind::BrokenPipe | ErrorKind::NotConnected => Self::Closed,
            ErrorKind::InvalidInput => Self::InvalidInput,
            ErrorKind::OutOfMemory => Self::NoMemory,
            ErrorKind::PermissionDenied => Self::NotPermitted,
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::NetworkDown => {
                Self::Unreachable
            }
            ErrorKind::TimedOut => Self::TimedOut,
            // No kind tells of it.
            _ if error.raw_os_error() == Some(libc::EMSGSIZE) => Self::MessageTooLong,
            ErrorKind::UnexpectedEof => Self::UnexpectedEnd,
            _ => Self::Other(error.raw_os_error().unwrap_or_default()),
        }
    }
}
