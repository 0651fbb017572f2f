//! Makes the connections of clients and nodes: plain, or within TLS to whom they want to reach.

use super::leave::Leave;
use super::read_ahead::ReadAhead;
use super::turned_away::TurnedAway;
use crate::guards::tls::{ClientTls, failed_handshake};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::error::Error;
use std::io;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

type Failed = Box<dyn Error + Send + Sync>;

/// Connects to `address`, `host:port`, which `endpoint` was made of; with `tls` only to a server that
/// proves to be there, and whom `tls` expects, for as long as it would be let in anew. The connection is made anew when it is lost, with
/// whatever certificates are in force then.
///
/// # Errors
/// Nobody answers, or not who was looked for.
pub async fn connect(
    endpoint: Endpoint,
    address: &str,
    tls: Option<&ClientTls>,
) -> Result<Channel, Failed> {
    let Some(tls) = tls else { return Ok(endpoint.connect().await?) };
    let origin: Uri = format!("https://{address}").parse()?;
    let (tls, address) = (tls.clone(), address.to_owned());
    let connector = service_fn(move |_: Uri| {
        let (tls, address) = (tls.clone(), address.clone());
        async move { secured(&address, &tls).await.map(TokioIo::new) }
    });
    Ok(endpoint.origin(origin).connect_with_connector(connector).await?)
}

async fn secured(address: &str, tls: &ClientTls) -> io::Result<Leave<TlsStream<ReadAhead>>> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the host is no name"))?;
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let connecting = TlsConnector::from(tls.config()).connect(name.clone(), ReadAhead::new(stream));
    let stream = connecting.await.map_err(|error| match TurnedAway::found_in(&error) {
        Some(turned_away) => io::Error::new(error.kind(), turned_away),
        None => {
            io::Error::new(error.kind(), format!("TLS handshake: {}", failed_handshake(&error)))
        }
    })?;
    let shown = stream.get_ref().1.peer_certificates();
    tls.check(shown)
        .map_err(|why| io::Error::new(io::ErrorKind::PermissionDenied, TurnedAway::Shown(why)))?;
    let no_more = tls.no_more(name, shown.unwrap_or_default());
    Ok(Leave::new(stream, no_more))
}
