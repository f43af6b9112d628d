//! Netlink sockets of netfilter: transactions, dumps, and word of changes.

use std::io;
use std::time::Duration;

use netlink_packet_core::{NLMSG_DONE, NLMSG_ERROR};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};

use super::NftError;
use super::message::{Batch, request};
use crate::backend::kernel::{netlink_errno, netlink_messages};

/// NFNLGRP_NFTABLES (linux/netfilter/nfnetlink.h).
const GROUP_NFTABLES: u32 = 7;
/// Longest wait for the answer to one request, or for the next part of a dump.
const REPLY_TIMEOUT: Duration = Duration::from_secs(2);
/// The largest datagram that the kernel builds for a dump (net/netlink/af_netlink.c, netlink_recvmsg()).
const BUFFER_SIZE: usize = 1 << 15;
/// Parts of one dump at most.
const DUMP_PARTS_MAX: u32 = 1024;

pub(super) struct NftSocket(TokioSocket);

impl NftSocket {
    pub(super) fn open() -> Result<NftSocket, NftError> {
        let failed = |source| NftError::new("open a netfilter socket", source);
        let mut socket = TokioSocket::new(NETLINK_NETFILTER).map_err(failed)?;
        socket.socket_mut().bind_auto().map_err(failed)?;
        Ok(NftSocket(socket))
    }

    async fn receive(&self, buffer: &mut Vec<u8>) -> io::Result<()> {
        loop {
            buffer.clear();
            buffer.reserve(BUFFER_SIZE);
            // Any process may send to a netlink port; only the kernel's is 0.
            if self.0.recv_from(buffer).await?.port_number() == 0 {
                return Ok(());
            }
        }
    }

    async fn reply(&self, buffer: &mut Vec<u8>) -> io::Result<()> {
        match tokio::time::timeout(REPLY_TIMEOUT, self.receive(buffer)).await {
            Ok(received) => received,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Sends a transaction and waits for the kernel's verdict on all of it.
    pub(super) async fn commit(&self, operation: &'static str, batch: Batch) -> Result<(), NftError> {
        let (bytes, last) = batch.finish();
        self.verdict(&bytes, last).await.map_err(|source| NftError::new(operation, source))
    }

    async fn verdict(&self, bytes: &[u8], last: u32) -> io::Result<()> {
        self.0.send_to(bytes, &SocketAddr::new(0, 0)).await?;
        let mut buffer = Vec::new();
        loop {
            self.reply(&mut buffer).await?;
            for message in netlink_messages(&buffer).filter(|message| message.kind == NLMSG_ERROR) {
                match netlink_errno(message.payload) {
                    // Every message is acknowledged, in order, once the transaction is committed.
                    Some(0) if message.sequence == last => return Ok(()),
                    Some(0) => {}
                    Some(code) => return Err(io::Error::from_raw_os_error(code)),
                    None => return Err(io::ErrorKind::InvalidData.into()),
                }
            }
        }
    }

    /// The payloads of the messages that a dump consists of.
    pub(super) async fn dump(
        &self,
        operation: &'static str,
        request: Vec<u8>,
    ) -> Result<Vec<Vec<u8>>, NftError> {
        self.dump_parts(&request).await.map_err(|source| NftError::new(operation, source))
    }

    async fn dump_parts(&self, request: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        self.0.send_to(request, &SocketAddr::new(0, 0)).await?;
        let mut buffer = Vec::new();
        let mut payloads = Vec::new();
        for _ in 0..DUMP_PARTS_MAX {
            self.reply(&mut buffer).await?;
            for message in netlink_messages(&buffer).filter(|m| m.sequence == request::SEQUENCE) {
                match message.kind {
                    NLMSG_DONE | NLMSG_ERROR => match netlink_errno(message.payload) {
                        Some(code) if code != 0 => return Err(io::Error::from_raw_os_error(code)),
                        _ => return Ok(payloads),
                    },
                    _ => payloads.push(message.payload.to_vec()),
                }
            }
        }
        Err(io::ErrorKind::InvalidData.into())
    }
}

/// Word that somebody changed something in nf_tables.
pub struct Changes(NftSocket);

impl Changes {
    /// Subscribes.
    ///
    /// # Errors
    /// As for every use of nf_tables.
    pub fn subscribe() -> Result<Changes, NftError> {
        let socket = NftSocket::open()?;
        let failed = |source| NftError::new("subscribe to changes of nf_tables", source);
        socket.0.socket_ref().add_membership(GROUP_NFTABLES).map_err(failed)?;
        Ok(Changes(socket))
    }

    /// Waits for a change, or until changes are missed. Cancel-safe.
    pub async fn changed(&self) {
        let mut buffer = Vec::new();
        self.0.receive(&mut buffer).await.ok();
    }
}
