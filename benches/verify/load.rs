//! Puts a load on a server and measures the responses: a fixed number of requests in flight, or a fixed
//! number per second whatever the server does. Called by `rounds`, once per scenario and round.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use hdrhistogram::Histogram;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::connection::{Connection, End, Mode, Outcome};
use super::frame::RequestHead;
use super::workload::{Order, Workload};

/// The largest latency that is distinguished from larger ones, in nanoseconds.
const LONGEST: u64 = 60_000_000_000;

/// How long to wait for responses after the last request.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The requests of a load, the server, and the pace.
#[derive(Debug)]
pub(crate) struct Load<'a> {
    pub(crate) address: SocketAddr,
    pub(crate) mode: Mode,
    pub(crate) workload: &'a Workload,
    pub(crate) connections: usize,
    pub(crate) pace: Pace,
    /// Whether the server may reject some requests.
    pub(crate) may_refuse: bool,
    /// Whether requests may be `RATE_LIMITED`.
    pub(crate) may_limit: bool,
    pub(crate) warm_up: Duration,
    pub(crate) duration: Duration,
}

/// When the next request is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// As soon as fewer than this are in flight.
    InFlight(usize),
    /// This many per second, at fixed times.
    PerSecond(f64),
}

/// The results.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) answers: u64,
    pub(crate) elapsed: Duration,
    /// In nanoseconds, from the scheduled time of a request.
    pub(crate) latency: Histogram<u64>,
    /// The latencies of rejected requests.
    pub(crate) refusals: Histogram<u64>,
    /// Requests that were `RATE_LIMITED`.
    pub(crate) limited: u64,
    wrong: u64,
    /// Requests from the measured time without a response.
    unanswered: u64,
}

impl Measured {
    /// Returns the responses per second.
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
    pub(crate) fn per_second(&self) -> f64 {
        self.answers as f64 / self.elapsed.as_secs_f64()
    }
}

/// The state of one load.
struct Driver<'a> {
    load: &'a Load<'a>,
    connections: Vec<Connection>,
    order: Order,
    started: Instant,
    /// In nanoseconds since the start.
    measured_from: u64,
    sent_until: u64,
    /// How many requests the schedule has released; the next one may wait for a window.
    scheduled: u64,
    turn: usize,
}

impl Load<'_> {
    /// Runs the load as this caller. `begun` is called when the measured time begins.
    pub(crate) fn run(&self, caller: &str, begun: impl FnOnce()) -> anyhow::Result<Measured> {
        let head = RequestHead::new(self.workload.method(), &self.address.to_string(), caller);
        let verdict = self.workload.verdict();
        let open = |_| Connection::open(self.address, head.clone(), self.mode, verdict);
        let connections =
            (0..self.connections).map(open).collect::<io::Result<_>>().context("no connection")?;
        let measured_from = nanos(self.warm_up);
        let driver = Driver {
            load: self,
            connections,
            order: self.workload.order(),
            started: Instant::now(),
            measured_from,
            sent_until: measured_from + nanos(self.duration),
            scheduled: 0,
            turn: 0,
        };
        let measured = driver.run(begun).context("the load broke off")?;
        let refused = measured.refusals.len();
        ensure!(refused == 0 || self.may_refuse, "{refused} workload were refused");
        ensure!(measured.limited == 0 || self.may_limit, "{} requests were limited", measured.limited);
        ensure!(measured.answers + measured.limited > 0, "there was no answer");
        ensure!(measured.wrong == 0, "{} answers were not the expected ones", measured.wrong);
        ensure!(measured.unanswered == 0, "{} workload were never answered", measured.unanswered);
        Ok(measured)
    }
}

impl Driver<'_> {
    fn run(mut self, begun: impl FnOnce()) -> anyhow::Result<Measured> {
        let times = || Histogram::new_with_bounds(1, LONGEST, 3);
        let mut measured = Measured {
            answers: 0,
            elapsed: Duration::ZERO,
            latency: times()?,
            refusals: times()?,
            limited: 0,
            wrong: 0,
            unanswered: 0,
        };
        let mut begun = Some(begun);
        let mut last_answer = 0;
        let deadline = self.sent_until + nanos(ANSWER_TIMEOUT);
        loop {
            let now = self.now();
            if now >= self.measured_from
                && let Some(begun) = begun.take()
            {
                begun();
            }
            let sending = now < self.sent_until && !self.order.is_exhausted();
            if sending {
                self.send(now);
            } else if self.outstanding() == 0 || now > deadline {
                break;
            }
            self.wait(sending)?;
            let received = self.now();
            let (from, until) = (self.measured_from, self.sent_until);
            let open = matches!(self.load.pace, Pace::PerSecond(_)) && !self.load.may_refuse;
            for connection in &mut self.connections {
                connection.receive(|outcome| {
                    // An open schedule counts the requests scheduled in the measured time, whenever
                    // their responses came; a closed one counts the responses in that time, and so does
                    // an overload, whose schedule falls behind.
                    let counted = if open { outcome.scheduled } else { received };
                    if (from..until).contains(&counted) {
                        last_answer = received;
                        measured.count(outcome, received);
                    }
                })?;
            }
        }
        measured.unanswered = self.outstanding() as u64;
        let end = if self.order.is_exhausted() { last_answer } else { self.sent_until };
        measured.elapsed = Duration::from_nanos(end.saturating_sub(self.measured_from).max(1));
        Ok(measured)
    }

    fn now(&self) -> u64 {
        nanos(self.started.elapsed())
    }

    fn outstanding(&self) -> usize {
        self.connections.iter().map(Connection::outstanding).sum()
    }

    /// Sends the requests that are due, on the connections in rotation.
    fn send(&mut self, now: u64) {
        match self.load.pace {
            Pace::InFlight(count) => {
                let share = count / self.connections.len();
                for connection in &mut self.connections {
                    while connection.outstanding() < share {
                        let Some(request) = self.order.next(self.load.workload) else { return };
                        if !connection.has_room(request.len()) {
                            self.order.put_back();
                            break;
                        }
                        connection.send(request, now);
                    }
                }
            }
            Pace::PerSecond(rate) => {
                while moment(self.scheduled, rate) <= now {
                    let Some(turn) = self.next_with_room() else { return };
                    let Some(request) = self.order.next(self.load.workload) else { return };
                    self.connections[turn].send(request, moment(self.scheduled, rate));
                    self.scheduled += 1;
                }
            }
        }
    }

    fn next_with_room(&mut self) -> Option<usize> {
        let size = self.load.workload.size();
        let count = self.connections.len();
        let turns = (self.turn..self.turn + count).map(|turn| turn % count);
        let turn = turns.into_iter().find(|&turn| self.connections[turn].has_room(size))?;
        self.turn = turn + 1;
        Some(turn)
    }

    /// Flushes, then sleeps until a response arrives or the next request is due.
    fn wait(&mut self, sending: bool) -> anyhow::Result<()> {
        for connection in &mut self.connections {
            connection.flush()?;
        }
        let sleep = match self.load.pace {
            Pace::PerSecond(rate) if sending => moment(self.scheduled, rate).saturating_sub(self.now()),
            _ => 50_000_000,
        };
        let timeout = Timespec {
            tv_sec: i64::try_from(sleep / 1_000_000_000)?,
            tv_nsec: i64::try_from(sleep % 1_000_000_000)?,
        };
        let mut sockets: Vec<PollFd<'_>> = self
            .connections
            .iter()
            .map(|connection| {
                let write = if connection.wants_to_write() { PollFlags::OUT } else { PollFlags::empty() };
                PollFd::new(&connection.socket, PollFlags::IN | write)
            })
            .collect();
        poll(&mut sockets, Some(&timeout))?;
        Ok(())
    }
}

impl Measured {
    fn count(&mut self, outcome: Outcome, received: u64) {
        let took = received.saturating_sub(outcome.scheduled).max(1);
        match outcome.end {
            End::Good => {
                self.answers += 1;
                self.latency.saturating_record(took);
            }
            End::Refused => self.refusals.saturating_record(took),
            End::Limited => self.limited += 1,
            End::Wrong => self.wrong += 1,
        }
    }
}

/// Returns when the request with this number is due, in nanoseconds since the start.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::cast_possible_truncation,
    reason = "small"
)]
fn moment(number: u64, rate: f64) -> u64 {
    (number as f64 * 1e9 / rate) as u64
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
