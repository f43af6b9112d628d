//! What is measured of a daemon while nobody attacks it.

use std::fs;
use std::thread;
use std::time::Duration;

use crate::bench::daemon::Running;
use crate::bench::host_cpu::HostCpu;
use crate::bench::world::{Source, World};
use crate::failure::{Context, Result};
use crate::many_ports::Plan;
use crate::wire;

/// A machine has given up by then.
const ANSWER_LIMIT: Duration = Duration::from_secs(4);
const START_LIMIT: Duration = Duration::from_secs(20);
/// Before a burst every port has had its answers, and its triggers are armed again.
const BURST_PAUSE: Duration = Duration::from_millis(500);
/// Losses of carrier below 1 s are flaps.
const CARRIER_DOWN: Duration = Duration::from_millis(1500);
const CARRIER_LIMIT: Duration = Duration::from_secs(5);

const SETTLE_WINDOW: Duration = Duration::from_secs(2);
const SETTLE_TRIES: u32 = 30;

/// A set of durations that were measured, and how many should have been.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples {
    pub sorted: Vec<Duration>,
    pub asked: usize,
}

impl Samples {
    pub(crate) fn of(mut values: Vec<Duration>, asked: usize) -> Self {
        values.sort_unstable();
        Self { sorted: values, asked }
    }

    /// The value that `percent` of what was asked for did not exceed. `None` where it never came.
    pub(crate) fn percentile(&self, percent: usize) -> Option<Duration> {
        let rank = (self.asked * percent).div_ceil(100).max(1);
        self.sorted.get(rank - 1).copied()
    }

    pub(crate) fn median(&self) -> Option<Duration> {
        self.percentile(50)
    }

    pub(crate) fn all(&self) -> Option<Duration> {
        self.percentile(100)
    }

    pub(crate) fn missing(&self) -> usize {
        self.asked - self.sorted.len()
    }
}

/// Random numbers for the bench: which port solicits when (SplitMix64, Steele et al. 2014).
#[derive(Debug, Clone)]
pub(crate) struct Chance(pub u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % (bound.max(1) as u64)).unwrap_or(0)
    }

    fn duration_below(&mut self, bound: Duration) -> Duration {
        let nanos = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX).max(1);
        Duration::from_nanos(self.next() % nanos)
    }

    fn shuffled(&mut self, mut values: Vec<usize>) -> Vec<usize> {
        for end in (1..values.len()).rev() {
            values.swap(end, self.below(end + 1));
        }
        values
    }
}

/// From the start of the process to the first advertisement of each port.
pub(crate) fn first_advertisements(world: &World, started: Duration) -> Result<Samples> {
    let mut first = vec![None; world.nics.len()];
    let mut missing = first.len();
    world.listen(started + START_LIMIT, |heard| {
        if heard.at >= started && first[heard.port].is_none() {
            first[heard.port] = Some(heard.at - started);
            missing -= 1;
        }
        missing > 0
    })?;
    Ok(Samples::of(first.iter().flatten().copied().collect(), first.len()))
}

/// From a solicitation to the next advertisement on its port. Solicits at random moments of `window`, from
/// random ports, `count` times; the same port again only after all others.
pub(crate) fn answers(
    world: &World,
    chance: &mut Chance,
    source: Source,
    ports: &[usize],
    count: usize,
    window: Duration,
) -> Result<Samples> {
    let mut moments: Vec<Duration> = (0..count).map(|_| chance.duration_below(window)).collect();
    moments.sort_unstable();
    let order = chance.shuffled(ports.to_vec());
    let mut pending = vec![None; world.nics.len()];
    let mut found = Vec::new();
    world.forget();
    let begin = wire::now();
    for (moment, port) in moments.into_iter().zip(order.iter().cycle().copied()) {
        world.listen(begin + moment, |heard| {
            take_answer(&mut pending, &mut found, heard.port, heard.at);
            true
        })?;
        // A solicitation of the same port that is still unanswered stays so.
        let frame = world.solicitation(port, source);
        pending[port] = Some(world.send(port, &frame)?);
    }
    world.listen(wire::now() + ANSWER_LIMIT, |heard| {
        take_answer(&mut pending, &mut found, heard.port, heard.at);
        pending.iter().any(Option::is_some)
    })?;
    Ok(Samples::of(found, count))
}

fn take_answer(pending: &mut [Option<Duration>], found: &mut Vec<Duration>, port: usize, at: Duration) {
    if let Some(sent) = pending[port].filter(|sent| *sent <= at) {
        pending[port] = None;
        found.push(at - sent);
    }
}

/// All ports solicit at once: from the first solicitation to the answer on each port.
pub(crate) fn burst(world: &World, source: Source) -> Result<Burst> {
    let frames: Vec<Vec<u8>> = (0..world.nics.len()).map(|port| world.solicitation(port, source)).collect();
    world.rest(BURST_PAUSE)?;
    world.forget();
    let begin = wire::now();
    world.send_from_all(&frames)?;
    let sending = wire::now() - begin;
    let mut first = vec![None; frames.len()];
    let mut missing = frames.len();
    world.listen(begin + ANSWER_LIMIT, |heard| {
        if heard.at >= begin && first[heard.port].is_none() {
            first[heard.port] = Some(heard.at - begin);
            missing -= 1;
        }
        missing > 0
    })?;
    Ok(Burst { answers: Samples::of(first.iter().flatten().copied().collect(), frames.len()), sending })
}

#[derive(Debug, Clone)]
pub(crate) struct Burst {
    pub answers: Samples,
    /// How long the sending alone took.
    pub sending: Duration,
}

/// What a daemon does while nobody asks it anything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Idle {
    pub span: Duration,
    pub cpu: Duration,
    /// Advertisements that arrived.
    pub sent: usize,
    pub rss_kib: u64,
}

pub(crate) fn idle(plan: &Plan<'_>, daemon: &Running, cpu: &CpuMeter, span: Duration) -> Result<Idle> {
    let sent = advertisements_received(plan)?;
    let (ran, used) = cpu.window(Some(daemon), span)?;
    let sent = advertisements_received(plan)? - sent;
    Ok(Idle { span: ran, cpu: used, sent, rss_kib: daemon.rss_kib()? })
}

/// Router Advertisements that the kernel has received at all far ends. Nobody has to wake for them, unlike
/// for those of a packet socket.
fn advertisements_received(plan: &Plan<'_>) -> Result<usize> {
    let count = || -> Result<usize> {
        let text = fs::read_to_string("/proc/thread-self/net/snmp6").context(|| "snmp6".into())?;
        let line = text.lines().find_map(|line| line.strip_prefix("Icmp6InRouterAdvertisements"));
        line.and_then(|value| value.trim().parse().ok()).context(|| "no count of advertisements".into())
    };
    plan.machines.iter().chain([&plan.rack]).map(|ns| ns.run(count)).sum()
}

/// Measures CPU time: of the daemon by the kernel's scheduler, or of everything by the host.
pub(crate) struct CpuMeter {
    host: Option<HostCpu>,
    /// What the machine uses in a second without any daemon.
    base: f64,
}

impl CpuMeter {
    /// Watches the machine without a daemon first: until it has come to rest.
    pub(crate) fn new(span: Duration) -> Result<Self> {
        let mut meter = Self { host: HostCpu::from_environment(), base: 0.0 };
        let mut least = f64::INFINITY;
        while meter.host.is_some() {
            let (ran, used) = meter.window(None, span)?;
            let used = used.as_secs_f64() / ran.as_secs_f64();
            if used > least * 0.9 {
                meter.base = least.min(used);
                break;
            }
            least = used;
        }
        Ok(meter)
    }

    /// Waits until the machine has come to rest again: what watches the neighbour table has a lot to read
    /// after a flood.
    pub(crate) fn settle(&self) -> Result<()> {
        for _ in 0..SETTLE_TRIES {
            let (ran, used) = self.window(None, SETTLE_WINDOW)?;
            if used <= ran.mul_f64(0.01) {
                break;
            }
        }
        Ok(())
    }

    pub(crate) fn base_percent(&self) -> f64 {
        self.base * 100.0
    }

    /// Length of the window, and the CPU time used in it.
    fn window(&self, daemon: Option<&Running>, span: Duration) -> Result<(Duration, Duration)> {
        let read = || match (&self.host, daemon) {
            (Some(host), _) => host.read(),
            (None, Some(daemon)) => daemon.cpu(),
            (None, None) => Ok(Duration::ZERO),
        };
        let before = read()?;
        let begin = wire::now();
        thread::sleep(span);
        let ran = wire::now() - begin;
        let used = read()? - before;
        Ok((ran, used.saturating_sub(ran.mul_f64(self.base))))
    }
}

/// From carrier coming up to the first advertisement, on each of some ports.
pub(crate) fn carrier(world: &World, chance: &mut Chance, ports: &[usize]) -> Result<Samples> {
    for port in ports {
        world.set_carrier(*port, false)?;
    }
    world.rest(CARRIER_DOWN)?;
    let mut up = vec![None; world.nics.len()];
    let mut found = Vec::new();
    for port in ports {
        let at = world.set_carrier(*port, true)?;
        up[*port] = Some(at);
        let pause = at + Duration::from_millis(50) + chance.duration_below(Duration::from_millis(150));
        world.listen(pause, |heard| {
            take_answer(&mut up, &mut found, heard.port, heard.at);
            true
        })?;
    }
    world.listen(wire::now() + CARRIER_LIMIT, |heard| {
        take_answer(&mut up, &mut found, heard.port, heard.at);
        up.iter().any(Option::is_some)
    })?;
    Ok(Samples::of(found, ports.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_came_counts_as_the_slowest() {
        let millis = |values: &[u64]| values.iter().map(|ms| Duration::from_millis(*ms)).collect();
        let samples = Samples::of(millis(&[3, 1, 2]), 4);
        assert_eq!(samples.median(), Some(Duration::from_millis(2)));
        assert_eq!(samples.percentile(75), Some(Duration::from_millis(3)));
        assert_eq!(samples.all(), None);
        assert_eq!(samples.missing(), 1);
    }
}
