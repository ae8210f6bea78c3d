//! The host's network cards.
#![allow(
    unsafe_code,
    reason = "the C library tells of cards in a list of pointers"
)]

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::ptr;

use crate::net::Interface;

/// The cards that are up.
pub(crate) fn interfaces() -> Vec<Interface> {
    let mut found = BTreeMap::new();
    let mut list = ptr::null_mut();
    // SAFETY: it stores a list, or fails and stores nothing.
    if unsafe { libc::getifaddrs(&mut list) } != 0 {
        return Vec::new();
    }
    let mut at = list;
    // SAFETY: the list's entries are valid until it is freed, below.
    while let Some(entry) = unsafe { at.as_ref() } {
        at = entry.ifa_next;
        if entry.ifa_flags & libc::IFF_UP as u32 == 0 {
            continue;
        }
        // SAFETY: an entry has a name.
        let name = unsafe { CStr::from_ptr(entry.ifa_name) };
        let name = name.to_string_lossy().into_owned();
        let card: &mut Interface = found.entry(name).or_insert_with_key(|name| card(name));
        // SAFETY: an entry's addresses are of the families they say, or are not there.
        let (address, mask) = unsafe { (ip(entry.ifa_addr), ip(entry.ifa_netmask)) };
        if let Some(address) = address {
            card.addresses.push((address, mask.map_or(0, prefix)));
        }
    }
    // SAFETY: from `getifaddrs`, and nothing of it is used from here on.
    unsafe { libc::freeifaddrs(list) };
    found.into_values().collect()
}

/// What the kernel's file system says of a card.
fn card(name: &str) -> Interface {
    let directory = Path::new("/sys/class/net").join(name);
    let read = |file| fs::read_to_string(directory.join(file)).unwrap_or_default();
    let mut mac = [0; 6];
    for (to, digits) in mac.iter_mut().zip(read("address").trim().split(':')) {
        *to = u8::from_str_radix(digits, 16).unwrap_or_default();
    }
    Interface {
        name: name.to_owned(),
        mac,
        mtu: read("mtu").trim().parse().unwrap_or_default(),
        addresses: Vec::new(),
    }
}

/// # Safety
///
/// `address` is null or points to a socket address of the family it says.
unsafe fn ip(address: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: by the word of the caller.
    let family = unsafe { address.as_ref() }?.sa_family;
    match i32::from(family) {
        libc::AF_INET => {
            // SAFETY: the family says that it is one of these.
            let address = unsafe { &*address.cast::<libc::sockaddr_in>() };
            Some(Ipv4Addr::from(address.sin_addr.s_addr.to_ne_bytes()).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let address = unsafe { &*address.cast::<libc::sockaddr_in6>() };
            Some(Ipv6Addr::from(address.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

/// Length of the prefix that a mask leaves.
fn prefix(mask: IpAddr) -> u8 {
    match mask {
        IpAddr::V4(mask) => mask.to_bits().leading_ones() as u8,
        IpAddr::V6(mask) => mask.to_bits().leading_ones() as u8,
    }
}
