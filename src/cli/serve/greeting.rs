//! What a person sees who starts a node on a terminal: where it is, and what to type next.

use crate::ops::settings::Settings;
use std::io::{self, IsTerminal, Write};
use std::net::{IpAddr, SocketAddr};

/// Greets, where standard output is a terminal.
pub fn print(rpc: SocketAddr, http: SocketAddr, settings: &Settings) {
    let mut output = io::stdout();
    if output.is_terminal() {
        let program = std::env::args().next().unwrap_or_else(|| "duramen".into());
        // A terminal that has gone away needs no greeting.
        let _ = output.write_all(text(&program, rpc, http, settings).as_bytes());
    }
}

fn text(program: &str, rpc: SocketAddr, http: SocketAddr, settings: &Settings) -> String {
    let local = |address: SocketAddr| {
        let ip = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => "127.0.0.1".into(),
            IpAddr::V6(ip) if ip.is_unspecified() => "[::1]".into(),
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        format!("{ip}:{}", address.port())
    };
    let (rpc, http) = (local(rpc), local(http));
    let at = if rpc == super::super::RPC_ADDR_DEFAULT {
        String::new()
    } else {
        format!(" --rpc-addr {rpc}")
    };
    let tls = settings.tls.dir.as_ref().map(|dir| dir.display());
    let at = at + tls.as_ref().map_or_else(String::new, |dir| format!(" --tls-dir {dir}")).as_str();
    let (scheme, shown) = match &tls {
        None if !settings.tls.is_on() => ("http", String::new()),
        None => ("https", " --cacert CA --cert CERTIFICATE --key KEY".into()),
        Some(dir) => {
            let files = format!("--cert {dir}/client.pem --key {dir}/client-key.pem");
            ("https", format!(" --cacert {dir}/ca.pem {files}"))
        }
    };
    let durability = settings.log.durability;
    let data_dir = settings.data_dir.display();
    format!(
        "\n  duramen {} serves\n\n  gRPC        {rpc}\n  HTTP        {scheme}://{http}\n  \
         durability  {durability}\n  data        {data_dir}\n\n  In another terminal:\n\n    \
         echo 'hello, log' | {program} produce log{at}\n    {program} consume log{at}\n    \
         curl{shown} {scheme}://{http}/v1/topics/log/records\n\n",
        env!("CARGO_PKG_VERSION")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_can_be_copied_as_they_are() {
        let settings = Settings::default();
        let text = text("./duramen", settings.rpc.addr, settings.http.addr, &settings);
        assert!(text.contains("\n    ./duramen consume log\n"), "{text}");
        assert!(text.contains("curl http://127.0.0.1:8080/v1/topics/log/records"), "{text}");
        let elsewhere = "0.0.0.0:9".parse().unwrap();
        let text = super::text("duramen", elsewhere, settings.http.addr, &settings);
        assert!(text.contains("duramen consume log --rpc-addr 127.0.0.1:9\n"), "{text}");
    }
}
