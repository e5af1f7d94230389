//! SIGTERM and Ctrl-C: the first asks the server to finish, the second ends the process. SIGUSR1 has it log
//! more, SIGUSR2 as configured again. SIGHUP has files read again.
//!
//! Serve installs them before its slow start, so that a signal meanwhile is not lost.

use std::io;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::telemetry::Telemetry;

/// Learns of the first signal. Clones learn of the same one.
#[derive(Clone)]
pub(super) struct Shutdown(watch::Receiver<bool>);

impl Shutdown {
    /// Installs the handlers; must be called within a runtime with more than one thread.
    pub(super) fn install() -> Result<Self, io::Error> {
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        let (sender, receiver) = watch::channel(false);
        tokio::spawn(count(terminate, interrupt, sender));
        Ok(Self(receiver))
    }

    /// Waits for the first signal.
    pub(super) async fn requested(mut self) {
        if self.0.wait_for(|requested| *requested).await.is_err() {
            // The runtime ends and takes the sender along; nobody asked to stop.
            std::future::pending::<()>().await;
        }
    }
}

/// Installs the handlers that change how much is logged; what is returned waits for the signals.
pub(super) fn log_levels(telemetry: Arc<Telemetry>) -> Result<impl Future<Output = ()>, io::Error> {
    let (mut more, mut less) = (signal(SignalKind::user_defined1())?, signal(SignalKind::user_defined2())?);
    Ok(async move {
        loop {
            tokio::select! {
                Some(()) = more.recv() => telemetry.log_more(),
                Some(()) = less.recv() => telemetry.log_as_configured(),
                else => return,
            }
        }
    })
}

/// Installs the handler of SIGHUP, which asks for everything to be read again; counts how often it came.
pub(super) fn hangups() -> Result<watch::Receiver<u64>, io::Error> {
    let mut hangup = signal(SignalKind::hangup())?;
    let (sender, receiver) = watch::channel(0);
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            sender.send_modify(|count| *count += 1);
        }
    });
    Ok(receiver)
}

async fn count(mut terminate: Signal, mut interrupt: Signal, sender: watch::Sender<bool>) {
    either(&mut terminate, &mut interrupt).await;
    tracing::info!("shutting down; a second signal ends the process at once");
    sender.send_replace(true);
    either(&mut terminate, &mut interrupt).await;
    tracing::warn!("second signal: ending without waiting for running calls");
    std::process::exit(1);
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
