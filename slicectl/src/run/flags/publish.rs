//! `--publish [IP:]HOST:GUEST[/tcp|/udp]`.

use std::net::IpAddr;

use crate::network::publish::{Protocol, Publish};

/// Reads one flag.
pub(super) fn read(text: &str) -> Result<Publish, String> {
    let (ports, protocol) = match text.rsplit_once('/') {
        None => (text, Protocol::Tcp),
        Some((ports, "tcp")) => (ports, Protocol::Tcp),
        Some((ports, "udp")) => (ports, Protocol::Udp),
        Some((_, other)) => return Err(format!("{other:?} is neither tcp nor udp")),
    };
    let (host, guest) = ports
        .rsplit_once(':')
        .ok_or("is not [IP:]HOST:GUEST, such as 8080:80")?;
    let (address, host) = match host.rsplit_once(':') {
        None => (None, host),
        Some((address, host)) => (Some(read_address(address)?), host),
    };
    Ok(Publish {
        address,
        host: read_port(host)?,
        guest: match read_port(guest)? {
            0 => return Err("the sliver's port cannot be 0".to_owned()),
            guest => guest,
        },
        protocol,
    })
}

/// An IPv6 address stands in brackets.
fn read_address(text: &str) -> Result<IpAddr, String> {
    let inner = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let address = match inner {
        Some(inner) => inner.parse().map(IpAddr::V6),
        None => text.parse().map(IpAddr::V4),
    };
    address.map_err(|_| format!("{text:?} is no address such as 127.0.0.1 or [::1]"))
}

fn read_port(text: &str) -> Result<u16, String> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let port = text.parse().ok().filter(|_| digits);
    port.ok_or_else(|| format!("{text:?} is no port: 0 to 65535"))
}
