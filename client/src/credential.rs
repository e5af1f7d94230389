//! The caller's own secret: fixed, or read again from a source, so that a client survives the
//! rotation of its token. Created by the connection; read by every call.

use std::error::Error as StdError;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arc_swap::ArcSwap;
use secrecy::{ExposeSecret as _, SecretString};
use tokend_core::boot_instant::BootInstant;
use tonic::metadata::{Ascii, MetadataValue};
use zeroize::Zeroizing;

use crate::connection_error::ConnectionError;
pub use crate::connection_error::SourceError;

/// The interval between two reads of a source, and the shortest one after tokend has refused its
/// secret; in nanoseconds.
const INTERVAL: i64 = 5_000_000_000;
const MAX_INTERVAL: i64 = 100_000_000;

type ReadSecret = dyn Fn() -> Result<SecretString, SourceError> + Send + Sync;

/// The source of the secret.
#[derive(Clone)]
pub(crate) enum Source {
    Fixed(SecretString),
    Function(Arc<ReadSecret>),
}

/// A secret, and the metadata value for it.
#[derive(Debug)]
pub(crate) struct CurrentSecret {
    pub(crate) secret: SecretString,
    pub(crate) header: MetadataValue<Ascii>,
}

/// The credential of a client.
#[derive(Debug)]
pub(crate) struct Credential {
    current: ArcSwap<CurrentSecret>,
    source: Source,
    /// When the source was last read, by the boot clock.
    checked: AtomicI64,
}

impl Source {
    /// Reads the file at each request; white space around the secret is ignored.
    pub(crate) fn file(path: PathBuf) -> Self {
        Self::Function(Arc::new(move || {
            let text = Zeroizing::new(std::fs::read_to_string(&path)?);
            Ok(SecretString::from(text.trim()))
        }))
    }

    fn read(&self) -> Result<CurrentSecret, ConnectionError> {
        let secret = match self {
            Self::Fixed(secret) => secret.clone(),
            Self::Function(read) => read().map_err(ConnectionError::SecretSource)?,
        };
        Ok(CurrentSecret { header: header(&secret)?, secret })
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fixed(_) => "Fixed([redacted])",
            Self::Function(_) => "Function(..)",
        })
    }
}

impl Credential {
    /// Reads the secret for the first time.
    pub(crate) fn new(source: Source) -> Result<Self, ConnectionError> {
        let current = ArcSwap::from_pointee(source.read()?);
        Ok(Self { current, source, checked: AtomicI64::new(BootInstant::now().boot) })
    }

    /// Returns the secret, read again if the last read was a while ago.
    pub(crate) fn current(&self) -> Arc<CurrentSecret> {
        self.refresh(INTERVAL);
        self.current.load_full()
    }

    /// Returns whether there is another secret than this one, which tokend has refused.
    pub(crate) fn differs_from(&self, refused: &Arc<CurrentSecret>) -> bool {
        self.refresh(MAX_INTERVAL);
        !Arc::ptr_eq(&self.current.load(), refused)
    }

    fn refresh(&self, interval: i64) {
        if matches!(self.source, Source::Fixed(_)) {
            return;
        }
        let (now, checked) = (BootInstant::now().boot, self.checked.load(Ordering::Relaxed));
        let due = now - checked >= interval;
        // One caller reads it, the others continue with the known one.
        if !due || self.checked.compare_exchange(checked, now, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            return;
        }
        match self.source.read() {
            Ok(read) if read.secret.expose_secret() == self.current.load().secret.expose_secret() => {}
            Ok(read) => self.current.store(Arc::new(read)),
            Err(error) => {
                let cause = error.source().map(ToString::to_string);
                tracing::warn!(%error, cause, "the caller's own secret cannot be read again; the last one \
                     stays in use");
            }
        }
    }
}

fn header(secret: &SecretString) -> Result<MetadataValue<Ascii>, ConnectionError> {
    let word = secret.expose_secret();
    if word.is_empty() || !word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err(ConnectionError::Secret);
    }
    let header = Zeroizing::new(format!("Bearer {word}"));
    let mut value = MetadataValue::try_from(header.as_str()).map_err(|_| ConnectionError::Secret)?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn a_refused_secret_is_read_again_and_stays_if_that_fails() {
        let given = Arc::new(Mutex::new(Some("one".to_owned())));
        let giving = Arc::clone(&given);
        let source = Source::Function(Arc::new(move || {
            let text = giving.lock().unwrap().clone().ok_or("there is none")?;
            Ok(SecretString::from(text))
        }));
        let credential = Credential::new(source).unwrap();
        let first = credential.current();
        let again = || {
            credential.checked.store(i64::MIN / 2, Ordering::Relaxed);
            credential.differs_from(&first)
        };
        assert!(!again());
        for unusable in [None, Some("two words".to_owned())] {
            *given.lock().unwrap() = unusable;
            assert!(!again());
        }
        *given.lock().unwrap() = Some("two".to_owned());
        assert!(!credential.differs_from(&first), "read a moment ago");
        assert!(again());
        assert_eq!(credential.current().secret.expose_secret(), "two");
        assert!(!format!("{credential:?}").contains("two"));
    }
}
