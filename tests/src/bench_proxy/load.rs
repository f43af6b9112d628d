//! A load generator of HTTP/1.1: one thread for each connection, latencies of single requests.

use std::io::{self, Read, Write};
use std::net::{SocketAddrV6, TcpStream};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::failure::{Context, Failure, Result, ensure, fail};
use crate::http;

const HEAD_MAX: usize = 16 << 10;
const CHUNK: usize = 64 << 10;
const RECEIVE_BUFFER: usize = 16 << 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection on which this much breaks is given up.
const BROKEN_MAX: usize = 100;

/// What each connection does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub connections: u32,
    pub span: Duration,
    /// Whether a connection serves more than one request.
    pub keep_alive: bool,
    /// Requests per second of all connections together; `None`: the next one as soon as the answer is there.
    pub rate: Option<u32>,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Outcome {
    /// Sorted.
    latencies: Vec<Duration>,
    /// Exchanges that broke.
    pub broken: usize,
    pub elapsed: Duration,
}

impl Outcome {
    pub(super) fn requests(&self) -> usize {
        self.latencies.len()
    }

    pub(super) fn per_second(&self) -> f64 {
        f64::from(u32::try_from(self.requests()).unwrap_or(u32::MAX)) / self.elapsed.as_secs_f64()
    }

    /// The latency that this part (0 to 1000 per mille) of the requests do not exceed.
    pub(super) fn percentile(&self, per_mille: usize) -> Option<Duration> {
        let last = self.latencies.len().checked_sub(1)?;
        self.latencies.get(last * per_mille / 1000).copied()
    }
}

/// One request as it goes over the wire, and where to.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub address: SocketAddrV6,
    pub path: &'static str,
    pub authorization: String,
}

impl Target {
    pub(super) fn request(&self, keep_alive: bool) -> Vec<u8> {
        let close = if keep_alive { "" } else { "connection: close\r\n" };
        format!(
            "GET {} HTTP/1.1\r\nhost: [{}]:{}\r\nuser-agent: bench\r\naccept: application/json\r\n\
             authorization: {}\r\n{close}\r\n",
            self.path,
            self.address.ip(),
            self.address.port(),
            self.authorization
        )
        .into_bytes()
    }

    /// For use in the namespace of the machine.
    pub(super) fn connect(&self) -> Result<TcpStream> {
        let stream = http::connect(self.address).context(|| format!("connect to {}", self.address))?;
        stream.set_nodelay(true).context(|| "TCP_NODELAY".into())?;
        Ok(stream)
    }

    /// A connection that takes in little unread: hundreds of them would else use up what the kernel grants TCP.
    pub(super) fn connect_narrow(&self) -> Result<TcpStream> {
        let socket =
            Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP)).context(|| "socket".into())?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER).context(|| "SO_RCVBUF".into())?;
        let connecting = socket.connect_timeout(&self.address.into(), CONNECT_TIMEOUT);
        connecting.context(|| format!("connect to {}", self.address))?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(CONNECT_TIMEOUT)).context(|| "timeout".into())?;
        Ok(stream)
    }

    /// Runs the load; an answer other than 200 breaks an exchange, and more than one in a thousand fails it. For use in the namespace of the machine: threads that are
    /// made here stay in it.
    pub(super) fn run(&self, load: Load) -> Result<Outcome> {
        let start = Barrier::new(load.connections as usize + 1);
        let (mut outcome, mut broken) = (Outcome::default(), Vec::new());
        thread::scope(|scope| {
            let workers: Vec<_> = (0..load.connections)
                .map(|at| {
                    let start = &start;
                    scope.spawn(move || {
                        start.wait();
                        self.connection(load, at)
                    })
                })
                .collect();
            start.wait();
            let began = Instant::now();
            for worker in workers {
                match worker.join() {
                    Ok((latencies, reasons)) => {
                        outcome.latencies.extend(latencies);
                        broken.extend(reasons);
                    }
                    Err(_) => fail!("a connection of the load panicked"),
                }
            }
            outcome.elapsed = began.elapsed();
            Ok(())
        })?;
        outcome.latencies.sort_unstable();
        outcome.broken = broken.len();
        if let Some(why) = broken.pop().filter(|_| outcome.broken > outcome.requests() / 1000 + 1) {
            fail!("{} exchanges broke beside {} that did not: {why}", outcome.broken, outcome.requests());
        }
        ensure!(outcome.requests() > 0, "no request was answered");
        Ok(outcome)
    }

    /// Latencies, and why exchanges broke.
    fn connection(&self, load: Load, at: u32) -> (Vec<Duration>, Vec<Failure>) {
        let request = self.request(load.keep_alive);
        let began = Instant::now();
        // Connections take turns, and stay in step with the clock whatever a request took.
        let pause = load.rate.map(|rate| Duration::from_secs(1) * load.connections / rate);
        let mut due = pause.map(|pause| began + pause * at / load.connections);
        let mut stream = None;
        let (mut latencies, mut broken) = (Vec::new(), Vec::new());
        let mut buffer = vec![0; CHUNK];
        while began.elapsed() < load.span && broken.len() < BROKEN_MAX {
            if let (Some(at), Some(pause)) = (due, pause) {
                thread::sleep(at.saturating_duration_since(Instant::now()));
                due = Some(at + pause);
            }
            // A request that waits for a late one before it is late itself.
            let sent = Instant::now();
            match self.exchange(stream.take(), &request, &mut buffer) {
                Ok(connection) => {
                    latencies.push(sent.elapsed());
                    stream = load.keep_alive.then_some(connection);
                }
                Err(why) => broken.push(why),
            }
        }
        (latencies, broken)
    }

    fn exchange(&self, stream: Option<TcpStream>, request: &[u8], buffer: &mut [u8]) -> Result<TcpStream> {
        let mut stream = match stream {
            Some(stream) => stream,
            None => self.connect()?,
        };
        stream.write_all(request).context(|| "send a request".into())?;
        answer(&mut stream, buffer).context(|| "read an answer".into())?;
        Ok(stream)
    }
}

/// Reads one answer; returns the length of its body.
pub(super) fn answer(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<u64> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut filled = 0;
    let head = loop {
        let end = buffer[..filled].windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(end) = end {
            break end + 4;
        }
        if filled >= HEAD_MAX {
            return Err(bad("an endless header"));
        }
        let more = stream.read(&mut buffer[filled..])?;
        if more == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        filled += more;
    };
    let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
    if !text.starts_with("http/1.1 200 ") {
        return Err(bad(text.lines().next().unwrap_or_default()));
    }
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    let length: u64 = length.ok_or_else(|| bad("an answer without length"))?;
    let mut left = length.saturating_sub((filled - head) as u64);
    while left > 0 {
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let more = stream.read(&mut buffer[..most])?;
        if more == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        left -= more as u64;
    }
    Ok(length)
}
