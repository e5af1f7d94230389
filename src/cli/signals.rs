//! SIGTERM and Ctrl-C: the first asks the server to finish, the second ends the process. SIGUSR1
//! raises the log level, SIGUSR2 resets it. SIGHUP has files read again. Serve installs the
//! handlers before its slow start, so that no signal is lost.

use std::io;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::telemetry::Telemetry;

/// Receives the first signal. Clones receive the same one.
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
            // The runtime ends and drops the sender; there was no signal.
            std::future::pending::<()>().await;
        }
    }
}

/// Installs the handlers that change the log level; the returned future waits for the signals.
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

/// Installs the handler of SIGHUP, which has files read again; counts the signals.
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
