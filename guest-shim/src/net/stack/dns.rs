//! Names: questions to the name servers that cards' owners have configured.

use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use core::task::{Context, Poll};

use smoltcp::socket::dns::{self, GetQueryResultError, QueryHandle, StartQueryError};
use smoltcp::wire::DnsQueryType;

use super::Stack;
use crate::net::{Error, Result};

const DNS_PORT: u16 = 53;

/// A question on its way: for the addresses of both families, as far as there is use for them.
pub(crate) struct Query {
    link: usize,
    open: Vec<QueryHandle>,
    found: Vec<IpAddr>,
}

impl Stack {
    /// Asks for the addresses of `name`.
    pub(crate) fn ask(&mut self, name: &str) -> Result<Query> {
        let servers: Vec<IpAddr> = self
            .links
            .iter()
            .flat_map(|link| link.name_servers().iter().copied())
            .collect();
        let first = *servers.first().ok_or(Error::NoNameServer)?;
        let way = |server| self.route(SocketAddr::new(server, DNS_PORT));
        let link = way(first).ok_or(Error::Unreachable)?;
        // A socket asks by way of its own link only.
        let servers: Vec<_> = servers
            .into_iter()
            .filter(|&server| way(server) == Some(link))
            .map(Into::into)
            .collect();
        let v6 = self.links.iter().any(|link| link.has_global_v6());
        let v4 = self.links.iter().any(|link| link.has_v4());
        let types = [(v6, DnsQueryType::Aaaa), (v4, DnsQueryType::A)];

        let at = &mut self.links[link];
        let handle = *at
            .dns
            .get_or_insert_with(|| at.sockets.add(dns::Socket::new(&[], Vec::new())));
        let socket = at.sockets.get_mut::<dns::Socket<'_>>(handle);
        socket.update_servers(&servers);
        let mut query = Query {
            link,
            open: Vec::new(),
            found: Vec::new(),
        };
        for (_, kind) in types.into_iter().filter(|(wanted, _)| *wanted) {
            match socket.start_query(at.interface.context(), name, kind) {
                Ok(handle) => query.open.push(handle),
                Err(StartQueryError::NoFreeSlot) => return Err(Error::NoMemory),
                Err(_) => return Err(Error::InvalidInput),
            }
        }
        self.touch();
        Ok(query)
    }

    /// Waits for the answer.
    pub(crate) fn poll_answer(
        &mut self,
        query: &mut Query,
        context: &mut Context<'_>,
    ) -> Poll<Result<Vec<IpAddr>>> {
        let link = &mut self.links[query.link];
        let Some(handle) = link.dns else {
            return Poll::Ready(Err(Error::NoNameServer));
        };
        let socket = link.sockets.get_mut::<dns::Socket<'_>>(handle);
        let Query { open, found, .. } = query;
        open.retain(|&handle| match socket.get_query_result(handle) {
            Ok(addresses) => {
                found.extend(addresses.into_iter().map(IpAddr::from));
                false
            }
            Err(GetQueryResultError::Pending) => {
                socket.register_query_waker(handle, context.waker());
                true
            }
            Err(GetQueryResultError::Failed) => false,
        });
        if !open.is_empty() {
            return Poll::Pending;
        }
        let found = core::mem::take(found);
        Poll::Ready(if found.is_empty() {
            // A server that is silent looks the same.
            Err(Error::NameNotFound)
        } else {
            Ok(found)
        })
    }

    /// Forgets a question.
    pub(crate) fn end_query(&mut self, query: &mut Query) {
        let link = &mut self.links[query.link];
        if let Some(handle) = link.dns {
            let socket = link.sockets.get_mut::<dns::Socket<'_>>(handle);
            query
                .open
                .drain(..)
                .for_each(|query| socket.cancel_query(query));
        }
    }
}
