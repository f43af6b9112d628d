//! A leaf whose ports are all in different states of one long test, and everything that was heard of them.
//!
//! The tests of Router Discovery are mostly waiting: they run side by side, each on a port with a partition
//! of its own, are recorded once, and judged one by one.

use std::fs;
use std::process::Stdio;
use std::sync::OnceLock;
use std::sync::mpsc;
use std::time::Duration;

use crate::failure::{Context, Failure, Result, ensure};
use crate::lab::Lab;
use crate::leaf::Leaf;
use crate::many_ports::Plan;
use crate::ns::Ns;
use crate::wire::{self, Advert, Injector, RsFrame, Tap};
use crate::{sys, wait};

/// Long enough for the third initial advertisement, which is due after at most 32 s.
const LENGTH: Duration = Duration::from_secs(40);

/// A solicitation, valid or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Solicitation {
    /// Valid, from a link-local address.
    LinkLocal,
    /// Valid, from `::`.
    Unspecified,
    HopLimit,
    Checksum,
    Code,
    /// 6 bytes.
    Short,
    OptionOfLengthZero,
    /// From `::` with the source link-layer address option.
    UnspecifiedWithOption,
}

impl Solicitation {
    /// All that RFC 4861 6.1.1 wants to be discarded, in the order of v6LC.2.2.4 A to F.
    pub(super) const INVALID: [Self; 6] = [
        Self::HopLimit,
        Self::Checksum,
        Self::Code,
        Self::Short,
        Self::OptionOfLengthZero,
        Self::UnspecifiedWithOption,
    ];

    fn frame(self, mac: [u8; 6]) -> Vec<u8> {
        let valid = RsFrame::link_local(mac);
        match self {
            Self::LinkLocal => valid,
            Self::Unspecified => RsFrame::unspecified(mac),
            Self::HopLimit => RsFrame { hop_limit: 254, ..valid },
            Self::Checksum => RsFrame { checksum_error: 1, ..valid },
            Self::Code => RsFrame { code: 1, ..valid },
            Self::Short => RsFrame { length: 6, ..valid },
            Self::OptionOfLengthZero => RsFrame { options: vec![1, 0, 0, 0, 0, 0, 0, 0], ..valid },
            Self::UnspecifiedWithOption => RsFrame { options: valid.options, ..RsFrame::unspecified(mac) },
        }
        .bytes()
    }
}

/// What happens to a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Send(Solicitation),
    Down,
    Up,
    /// Its row goes away.
    Leave,
}

/// A port with a partition of its own.
pub(super) struct Port {
    pub fields: &'static [(&'static str, &'static str)],
    /// In the boot network, and advertised.
    pub advertised: bool,
    /// The NIC at the far end says nothing by itself.
    pub silent: bool,
    /// Milliseconds after the port's first advertisement (of ports without one: after everybody's).
    pub script: &'static [(u64, Step)],
}

/// What one port was put through.
#[derive(Debug, Default)]
pub(super) struct Track {
    /// Steps as they were carried out; the time just before each.
    pub steps: Vec<(Duration, Step)>,
    /// Advertisements, by the kernel's stamp.
    pub heard: Vec<(Duration, Advert)>,
    pub began: Duration,
    pub ended: Duration,
}

impl Track {
    /// Times of the advertisements to all nodes.
    pub(super) fn multicasts(&self) -> Vec<Duration> {
        self.heard.iter().filter(|(_, advert)| advert.is_multicast_frame()).map(|(at, _)| *at).collect()
    }

    /// When a step was carried out, every time.
    pub(super) fn times_of(&self, step: Step) -> Vec<Duration> {
        self.steps.iter().filter(|(_, done)| *done == step).map(|(at, _)| *at).collect()
    }

    /// The first advertisement after a moment, and how long after it.
    pub(super) fn answer_to(&self, at: Duration) -> Option<(Duration, &Advert)> {
        let (heard, advert) = self.heard.iter().find(|(heard, _)| *heard >= at)?;
        Some((*heard - at, advert))
    }
}

pub(super) struct Recording {
    pub tracks: Vec<Track>,
}

/// The recording of `ports`, made when it is asked for first.
pub(super) fn recording(lab: &Lab, ports: &[Port]) -> Result<&'static Recording> {
    static MADE: OnceLock<Result<Recording, String>> = OnceLock::new();
    let made = MADE.get_or_init(|| record(lab, ports).map_err(|Failure(reason)| reason));
    made.as_ref().map_err(|reason| Failure(reason.clone()))
}

fn record(lab: &Lab, ports: &[Port]) -> Result<Recording> {
    let fields = |partition: u16| ports.get(usize::from(partition)).map_or(&[][..], |port| port.fields);
    let count = u16::try_from(ports.len()).context(|| "too many ports".into())?;
    let plan = Plan {
        leaf: Ns("leaf5"),
        ports: count,
        partitions: count,
        rack: Ns("rack5"),
        machines: &[],
        partition_fields: &fields,
        global_fields: &[("leak_method", "render-only")],
    };
    let leaf = Leaf::new(plan.leaf, &lab.root, &lab.bin);
    plan.create_links()?;
    for (index, _) in ports.iter().enumerate().filter(|(_, port)| port.silent) {
        let path = format!("/proc/sys/net/ipv6/conf/r{index}/disable_ipv6");
        plan.rack.run(|| fs::write(&path, "1").context(|| path.clone()))?;
    }
    plan.start_redis(&leaf)?;
    for index in (0..count).filter(|index| ports[usize::from(*index)].fields.is_empty()) {
        leaf.unconfigure(&[&format!("BOOT_NETWORK_PORT|{}", Plan::port(index))])?;
    }
    leaf.service("swss", "start")?;
    let result = Recorder::start(&plan, ports, &leaf).and_then(Recorder::run);
    leaf.service("swss", "kill")?;
    leaf.service("redis", "kill")?;
    result
}

struct Recorder<'a> {
    ports: &'a [Port],
    leaf: &'a Leaf,
    rack: Ns,
    ifindexes: Vec<u32>,
    injector: Injector,
    arrivals: mpsc::Receiver<wire::Arrival>,
    _tap: Tap,
    agent: std::process::Child,
    tracks: Vec<Track>,
    /// The next step of each port.
    next: Vec<usize>,
}

impl<'a> Recorder<'a> {
    fn start(plan: &Plan<'_>, ports: &'a [Port], leaf: &'a Leaf) -> Result<Self> {
        let ifindexes = (0..plan.ports)
            .map(|port| wire::ifindex(plan.rack, &plan.far_end(port).1))
            .collect::<Result<Vec<_>>>()?;
        let (sender, arrivals) = mpsc::channel();
        let tap = Tap::start(&[plan.rack], &sender)?;
        let injector = Injector::open(plan.rack)?;
        let mut command = crate::many_ports::agent_command(leaf);
        let log = std::env::var_os("LAB_OUT").context(|| "LAB_OUT is not set".into())?;
        let log = std::path::Path::new(&log).join("logs/leaf5-agent");
        let log = fs::File::create(&log).context(|| log.display().to_string())?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let (_, agent) = plan.leaf.spawn(&mut command)?;
        let tracks = ports.iter().map(|_| Track::default()).collect();
        Ok(Self {
            ports,
            leaf,
            rack: plan.rack,
            ifindexes,
            injector,
            arrivals,
            _tap: tap,
            agent,
            tracks,
            next: vec![0; ports.len()],
        })
    }

    fn run(mut self) -> Result<Recording> {
        let result = self.play();
        // It says no goodbye on the wire, and nothing depends on how it ended.
        let _ = self.agent.kill();
        let _ = self.agent.wait();
        result.map(|()| Recording { tracks: self.tracks })
    }

    fn play(&mut self) -> Result<()> {
        // Everything begins when the last port has advertised.
        let limit = wire::now() + wait::seconds(60);
        while let Some(missing) = self.silent_so_far() {
            self.hear(limit)?;
            ensure!(wire::now() < limit, "no advertisement on {}", Plan::port(missing));
            self.take_steps()?;
        }
        let begun = wire::now();
        for (track, port) in self.tracks.iter_mut().zip(self.ports) {
            if !port.advertised {
                track.began = begun;
            }
        }
        let end = begun + LENGTH;
        while wire::now() < end {
            let due = self.next_step().map_or(end, |(at, _)| at.min(end));
            self.hear(due)?;
            self.take_steps()?;
        }
        for track in &mut self.tracks {
            track.ended = end;
        }
        Ok(())
    }

    fn silent_so_far(&self) -> Option<u16> {
        let missing = self.tracks.iter().zip(self.ports);
        let at = missing.into_iter().position(|(track, port)| port.advertised && track.heard.is_empty());
        at.and_then(|at| u16::try_from(at).ok())
    }

    /// The step that is due next, of all ports.
    fn next_step(&self) -> Option<(Duration, usize)> {
        let due = |port: usize| {
            let began = self.tracks[port].began;
            let (after, _) = self.ports[port].script.get(self.next[port])?;
            (!began.is_zero()).then_some((began + Duration::from_millis(*after), port))
        };
        (0..self.ports.len()).filter_map(due).min()
    }

    fn take_steps(&mut self) -> Result<()> {
        while let Some((at, port)) = self.next_step().filter(|(at, _)| *at <= wire::now()) {
            ensure!(wire::now() - at < wait::seconds(2), "the test itself is late");
            let (_, step) = self.ports[port].script[self.next[port]];
            self.next[port] += 1;
            let began = wire::now();
            self.take(port, step)?;
            self.tracks[port].steps.push((began, step));
        }
        Ok(())
    }

    fn take(&self, port: usize, step: Step) -> Result<()> {
        let index = u16::try_from(port).context(|| "port".into())?;
        let set = |up| {
            let name = format!("r{port}");
            self.rack.run(|| sys::set_link_up(&name, up).context(|| format!("{name} up={up}")))
        };
        match step {
            Step::Send(solicitation) => {
                self.injector.send(self.ifindexes[port], &solicitation.frame(Plan::far_mac(index)))
            }
            Step::Down => set(false),
            Step::Up => set(true),
            Step::Leave => self.leaf.unconfigure(&[&format!("BOOT_NETWORK_PORT|{}", Plan::port(index))]),
        }
    }

    /// Takes in one advertisement, if one comes in time.
    fn hear(&mut self, until: Duration) -> Result<()> {
        let Ok(arrival) = self.arrivals.recv_timeout(until.saturating_sub(wire::now())) else {
            return Ok(());
        };
        let port = self.ifindexes.iter().position(|ifindex| *ifindex == arrival.ifindex);
        let track = &mut self.tracks[port.context(|| format!("ifindex {}", arrival.ifindex))?];
        if track.heard.is_empty() {
            track.began = arrival.at;
        }
        track.heard.push((arrival.at, Advert::parse(&arrival.frame)?));
        Ok(())
    }
}
