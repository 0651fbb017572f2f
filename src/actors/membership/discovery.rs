//! Finds a first peer without an address: a node that knows nobody says so to a multicast group of
//! its network. Only an address is learnt that way, and only that of who speaks; whether its gossip
//! is let in is for the gossip to decide.

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use tokio::net::UdpSocket;

const GREETING: &str = "duramen/1";
/// An announcement is one line; what is longer is none.
pub const BYTES_MAX: usize = 160;

/// A node that looks for others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The identity of its directory.
    pub uuid: String,
    /// Where it gossips.
    pub gossip_addr: SocketAddr,
}

/// What a node says that looks for others.
pub fn announcement(found: &Found) -> String {
    format!("{GREETING} {} {}", found.gossip_addr, found.uuid)
}

/// Reads an announcement; `None` for anything else, and for one that sends us to somebody else.
pub fn heard(bytes: &[u8], from: SocketAddr) -> Option<Found> {
    let text = std::str::from_utf8(bytes).ok().filter(|text| text.len() < BYTES_MAX)?;
    let mut parts = text.split(' ');
    let (greeting, address, uuid) = (parts.next()?, parts.next()?, parts.next()?);
    let gossip_addr: SocketAddr = address.parse().ok()?;
    let is_uuid = (1..=64).contains(&uuid.len()) && uuid.bytes().all(|b| b.is_ascii_graphic());
    let is_sound = greeting == GREETING && is_uuid && parts.next().is_none();
    (is_sound && gossip_addr.ip() == from.ip() && gossip_addr.port() != 0)
        .then(|| Found { uuid: uuid.to_owned(), gossip_addr })
}

/// A socket that hears the group and speaks to it, on the interface of `gossip_addr`.
///
/// # Errors
/// The system does not allow it, or the group is not one of IPv4.
pub fn open(group: SocketAddr, gossip_addr: SocketAddr) -> io::Result<UdpSocket> {
    let IpAddr::V4(group_ip) = group.ip() else {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "only groups of IPv4"));
    };
    let interface = match gossip_addr.ip() {
        IpAddr::V4(ip) => ip,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    };
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    // Several nodes on one machine hear the same group.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(group))?;
    socket.join_multicast_v4(&group_ip, &interface)?;
    socket.set_multicast_if_v4(&interface)?;
    socket.set_multicast_loop_v4(true)?;
    socket.set_multicast_ttl_v4(1)?;
    UdpSocket::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announcement_is_read_back_and_points_to_nobody_else() {
        let found = Found { uuid: "8d3c".into(), gossip_addr: "10.0.0.7:8401".parse().unwrap() };
        let text = announcement(&found);
        assert_eq!(heard(text.as_bytes(), "10.0.0.7:9".parse().unwrap()), Some(found));
        assert_eq!(heard(text.as_bytes(), "10.0.0.8:9".parse().unwrap()), None);
        let from = "10.0.0.7:9".parse().unwrap();
        let long = format!("{GREETING} 10.0.0.7:8401 {}", "x".repeat(200));
        for wrong in ["", "duramen/1", "duramen/2 10.0.0.7:8401 x", "duramen/1 a:1 x", &long] {
            assert_eq!(heard(wrong.as_bytes(), from), None, "{wrong}");
        }
        assert_eq!(heard(b"duramen/1 10.0.0.7:8401 x y", from), None);
        assert_eq!(heard(b"\xff\xff", from), None);
    }
}
