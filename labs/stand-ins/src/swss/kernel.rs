//! rtnetlink: what vrfmgrd, intfmgrd and vlanmgrd do with `ip`, and what portsyncd and neighsyncd hear.
//!
//! Requests and events share one socket: when a request is acknowledged, what it caused is already here.
//! Only the event that names the request itself may be missing, because it counts as part of the answer.

mod mirror;

use std::collections::BTreeSet;
use std::pin::Pin;
use std::time::Duration;

use futures_util::{FutureExt, Stream, StreamExt, TryStreamExt};
use ipnet::IpNet;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::tc::TcAttribute;
use netlink_packet_route::{AddressFamily, address::AddressMessage};
use netlink_sys::AsyncSocket;
use nix::sys::socket::{setsockopt, sockopt};
use rtnetlink::{AddressMessageBuilder, Handle, LinkBridge, LinkDummy, LinkUnspec, LinkVrf, MulticastGroup};
use switch_agent_core::sim::SimSwitch;

use super::Error;
use super::neighbors::Change;
use mirror::Mirror;

/// Where vrfmgrd puts the rule of the local table, behind that of VRFs (1000).
const LOCAL_RULE_PRIORITY: u32 = 1001;
/// `local` of rt_tables.
const LOCAL_TABLE: u8 = 255;
/// A VRF that goes releases all its ports at once, some ten events each; what does not fit is lost, and the
/// answer to the request with it.
const RECEIVE_BUFFER: usize = 16 << 20;
/// Longest wait for an answer. One that is lost all the same makes swss start again.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

pub(super) type Message = NetlinkMessage<RouteNetlinkMessage>;

pub(super) struct Kernel {
    handle: Handle,
    messages: Pin<Box<dyn Stream<Item = Message>>>,
    mirror: Mirror,
}

/// Waits for the kernel's answer, but not for ever.
async fn answered<T>(
    step: String,
    request: impl Future<Output = Result<T, rtnetlink::Error>>,
) -> Result<T, Error> {
    match tokio::time::timeout(ANSWER_TIMEOUT, request).await {
        Ok(answer) => answer.map_err(|source| Error::Netlink { step, source }),
        Err(_) => Err(Error::Unanswered { step }),
    }
}

impl Kernel {
    pub(super) fn open() -> Result<Kernel, Error> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Neigh,
        ];
        let (mut connection, handle, messages) = rtnetlink::new_multicast_connection(&groups)
            .map_err(|source| Error::Io { step: "open a netlink socket", source })?;
        setsockopt(connection.socket_mut().socket_ref(), sockopt::RcvBufForce, &RECEIVE_BUFFER)
            .map_err(|errno| Error::Io { step: "size the netlink socket's buffer", source: errno.into() })?;
        tokio::spawn(connection);
        let messages = Box::pin(messages.map(|(message, _)| message));
        Ok(Kernel { handle, messages, mirror: Mirror::default() })
    }

    pub(super) async fn next_message(&mut self) -> Result<Message, Error> {
        self.messages.next().await.ok_or(Error::Ended("the netlink socket"))
    }

    pub(super) fn message_now(&mut self) -> Option<Message> {
        self.messages.next().now_or_never().flatten()
    }

    /// Takes over one event. Changes of links go to the model, those of neighbours are returned.
    pub(super) fn take(&mut self, message: Message, switch: &mut SimSwitch) -> Option<Change> {
        let NetlinkPayload::InnerMessage(message) = message.payload else {
            return None;
        };
        let changed = match message {
            RouteNetlinkMessage::NewLink(link) => self.mirror.new_link(&link),
            RouteNetlinkMessage::DelLink(link) => self.mirror.del_link(link.header.index),
            RouteNetlinkMessage::NewAddress(address) => self.mirror.address(&address, true),
            RouteNetlinkMessage::DelAddress(address) => self.mirror.address(&address, false),
            RouteNetlinkMessage::NewNeighbour(neighbor) => return self.mirror.neighbor(&neighbor, true),
            RouteNetlinkMessage::DelNeighbour(neighbor) => return self.mirror.neighbor(&neighbor, false),
            _ => return None,
        };
        for name in changed {
            switch.sync_link(&name, self.mirror.link(&name));
        }
        None
    }

    /// Reads links and addresses, and corrects the model where it differs.
    pub(super) async fn resync(&mut self, switch: &mut SimSwitch) -> Result<(), Error> {
        let links: Vec<_> =
            answered("list links".to_owned(), self.handle.link().get().execute().try_collect()).await?;
        let addresses: Vec<AddressMessage> =
            answered("list addresses".to_owned(), self.handle.address().get().execute().try_collect())
                .await?;
        self.mirror.replace(&links, &addresses);
        let known = switch.links().map(|(name, _)| name.to_owned());
        let names: BTreeSet<String> = known.chain(self.mirror.names()).collect();
        for name in names {
            let link = self.mirror.link(&name);
            if switch.link(&name) != link.as_ref() {
                switch.sync_link(&name, link);
            }
        }
        Ok(())
    }

    /// Every neighbour of the kernel, as changes.
    pub(super) async fn neighbors(&self) -> Result<Vec<Change>, Error> {
        let entries: Vec<_> =
            answered("list neighbours".to_owned(), self.handle.neighbours().get().execute().try_collect())
                .await?;
        Ok(entries.iter().filter_map(|entry| self.mirror.neighbor(entry, true)).collect())
    }

    /// Indexes of the links that have a clsact qdisc.
    pub(super) async fn with_ingress_filters(&self) -> Result<BTreeSet<u32>, Error> {
        let mut qdiscs = self.handle.qdisc().get().execute();
        let mut indexes = BTreeSet::new();
        while let Some(qdisc) = answered("list qdiscs".to_owned(), qdiscs.try_next()).await? {
            let clsact =
                |attribute: &TcAttribute| matches!(attribute, TcAttribute::Kind(kind) if kind == "clsact");
            if qdisc.attributes.iter().any(clsact) {
                indexes.extend(u32::try_from(qdisc.header.index));
            }
        }
        Ok(indexes)
    }

    fn index(&self, name: &str) -> Result<u32, Error> {
        self.mirror.index(name).ok_or_else(|| Error::Netlink {
            step: format!("find {name}"),
            source: rtnetlink::Error::RequestFailed,
        })
    }

    pub(super) async fn add_vrf(&self, name: &str, table: u32) -> Result<(), Error> {
        self.add_link(name, LinkVrf::new(name, table).up().build()).await
    }

    pub(super) async fn add_dummy(&self, name: &str) -> Result<(), Error> {
        self.add_link(name, LinkDummy::new(name).mtu(65536).up().build()).await
    }

    pub(super) async fn add_bridge(&self, name: &str) -> Result<(), Error> {
        self.add_link(name, LinkBridge::new(name).build()).await
    }

    async fn add_link(
        &self,
        name: &str,
        message: netlink_packet_route::link::LinkMessage,
    ) -> Result<(), Error> {
        answered(format!("add link {name}"), self.handle.link().add(message).execute()).await
    }

    pub(super) async fn del_link(&self, name: &str) -> Result<(), Error> {
        let index = self.index(name)?;
        answered(format!("delete link {name}"), self.handle.link().del(index).execute()).await
    }

    pub(super) async fn set_master(&mut self, port: &str, master: Option<&str>) -> Result<(), Error> {
        let index = self.index(port)?;
        let controller = match master {
            Some(master) => self.index(master)?,
            None => 0,
        };
        let message = LinkUnspec::new_with_index(index).controller(controller).build();
        let step = format!("set master {master:?} of {port}");
        answered(step, self.handle.link().change(message).execute()).await?;
        self.mirror.set_master(index, controller);
        Ok(())
    }

    pub(super) async fn add_address(&mut self, port: &str, address: IpNet) -> Result<(), Error> {
        let index = self.index(port)?;
        let request = self.handle.address().add(index, address.addr(), address.prefix_len());
        answered(format!("add {address} to {port}"), request.execute()).await?;
        self.mirror.set_address(index, address, true);
        Ok(())
    }

    pub(super) async fn del_address(&mut self, port: &str, address: IpNet) -> Result<(), Error> {
        let index = self.index(port)?;
        let message = match address {
            IpNet::V4(net) => AddressMessageBuilder::<std::net::Ipv4Addr>::new()
                .index(index)
                .address(net.addr(), net.prefix_len())
                .build(),
            IpNet::V6(net) => AddressMessageBuilder::<std::net::Ipv6Addr>::new()
                .index(index)
                .address(net.addr(), net.prefix_len())
                .build(),
        };
        let request = self.handle.address().del(message);
        answered(format!("delete {address} from {port}"), request.execute()).await?;
        self.mirror.set_address(index, address, false);
        Ok(())
    }

    /// Lets local addresses be looked up after VRFs, as vrfmgrd does when it starts. Already done is
    /// fine too.
    pub(super) async fn move_local_rules(&self) {
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut add = self
                .handle
                .rule()
                .add()
                .priority(LOCAL_RULE_PRIORITY)
                .table_id(u32::from(LOCAL_TABLE))
                .action(RuleAction::ToTable);
            add.message_mut().header.family = family;
            let added = add.execute().await;
            let mut rule = RuleMessage::default();
            rule.header.family = family;
            rule.header.table = LOCAL_TABLE;
            rule.header.action = RuleAction::ToTable;
            rule.attributes.push(RuleAttribute::Priority(0));
            let removed = self.handle.rule().del(rule).execute().await;
            tracing::debug!(?family, ?added, ?removed, "rule of the local table");
        }
    }
}
