//! Gateways in tests, configured as docs/integrations.md shows.

pub(crate) use crate::support::program::{Running, TestDir, find, find_at, find_tool, free_address};

const GUIDE: &str = include_str!("../../docs/integrations.md");

/// Returns the block of the guide that is marked as this file.
pub(crate) fn shown(file: &str) -> &'static str {
    crate::support::program::shown(GUIDE, file)
}
