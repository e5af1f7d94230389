//! The methods that exist and how their requests are read, from the descriptors that reflection
//! serves. Built by the server.

use std::collections::HashMap;

use prost::Message as _;
use prost_types::FileDescriptorSet;

/// How the request of a method is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Method {
    /// Whether the request is a stream of messages.
    pub(super) is_stream: bool,
    /// The most bytes of a message.
    pub(super) most: usize,
    /// Whether the method itself reports a message that is too long.
    pub(super) reports_too_long: bool,
}

/// The methods of all services, by path.
#[derive(Debug, Default)]
pub struct Methods(HashMap<String, Method>);

impl Methods {
    /// Adds the methods of an encoded `FileDescriptorSet`; their messages may have at most `most` bytes.
    ///
    /// # Errors
    /// The bytes are not a valid `FileDescriptorSet`.
    pub fn add(mut self, descriptors: &[u8], most: usize) -> Result<Self, prost::DecodeError> {
        for file in FileDescriptorSet::decode(descriptors)?.file {
            for service in &file.service {
                for method in &service.method {
                    let is_stream = method.client_streaming();
                    let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                    self.0.insert(path, Method { is_stream, most, reports_too_long: false });
                }
            }
        }
        Ok(self)
    }

    /// Has a method called with an empty message and a mark when it is sent a message that is too long.
    #[must_use]
    pub fn reporting_too_long(mut self, path: &str) -> Self {
        if let Some(method) = self.0.get_mut(path) {
            method.reports_too_long = true;
        }
        self
    }

    pub(super) fn get(&self, path: &str) -> Option<Method> {
        self.0.get(path).copied()
    }
}
