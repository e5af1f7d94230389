//! gRPC server reflection, in both versions that clients use. A lookup without a result is reported
//! in the stream, which continues, as the protocol demands; tonic-reflection, whose messages are
//! used here, ends the call. Built by the server.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use futures_core::Stream;
use prost::Message as _;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet};
use tokio_stream::StreamExt as _;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_reflection::pb::{v1, v1alpha};

/// The descriptors of the services.
#[derive(Debug, Default)]
pub struct Reflected {
    services: Vec<String>,
    files: Vec<Vec<u8>>,
    /// The index in `files` by file name, and by symbol.
    by_name: HashMap<String, usize>,
    by_symbol: HashMap<String, usize>,
}

/// Serves both versions.
#[derive(Debug, Clone)]
pub struct Reflection(Arc<Reflected>);

/// A response, independent of the version.
enum LookupResult {
    File(Vec<u8>),
    Services(Vec<String>),
    /// The type has no extensions.
    NoExtensions(String),
    Error(Code, &'static str),
}

impl Reflected {
    /// Adds the files of an encoded `FileDescriptorSet`.
    ///
    /// # Errors
    /// The bytes are not a valid `FileDescriptorSet`.
    pub fn with(mut self, descriptors: &[u8]) -> Result<Self, prost::DecodeError> {
        for file in FileDescriptorSet::decode(descriptors)?.file {
            if !self.by_name.contains_key(file.name()) {
                self.add_file(&file);
            }
        }
        Ok(self)
    }

    fn add_file(&mut self, file: &FileDescriptorProto) {
        self.by_name.insert(file.name().to_owned(), self.files.len());
        let within = |name: &str| match file.package() {
            "" => name.to_owned(),
            package => format!("{package}.{name}"),
        };
        for service in &file.service {
            let name = within(service.name());
            service.method.iter().for_each(|method| self.add_symbol(format!("{name}.{}", method.name())));
            self.services.push(name.clone());
            self.add_symbol(name);
        }
        file.message_type.iter().for_each(|message| self.add_message(&within(message.name()), message));
        file.enum_type.iter().for_each(|one| self.add_enum(within(one.name()), one));
        self.files.push(file.encode_to_vec());
    }

    fn add_message(&mut self, name: &str, message: &DescriptorProto) {
        self.add_symbol(name.to_owned());
        message.field.iter().for_each(|field| self.add_symbol(format!("{name}.{}", field.name())));
        message.oneof_decl.iter().for_each(|one| self.add_symbol(format!("{name}.{}", one.name())));
        message.enum_type.iter().for_each(|one| self.add_enum(format!("{name}.{}", one.name()), one));
        for inner in &message.nested_type {
            self.add_message(&format!("{name}.{}", inner.name()), inner);
        }
    }

    fn add_enum(&mut self, name: String, one: &EnumDescriptorProto) {
        one.value.iter().for_each(|value| self.add_symbol(format!("{name}.{}", value.name())));
        self.add_symbol(name);
    }

    /// Adds a symbol of the file that is added next.
    fn add_symbol(&mut self, name: String) {
        self.by_symbol.insert(name, self.files.len());
    }

    fn file(&self, names: &HashMap<String, usize>, name: &str) -> LookupResult {
        match names.get(name).and_then(|&number| self.files.get(number)) {
            Some(file) => LookupResult::File(file.clone()),
            None => LookupResult::Error(Code::NotFound, "there is nothing with that name"),
        }
    }
}

impl From<Reflected> for Reflection {
    fn from(reflected: Reflected) -> Self {
        Self(Arc::new(reflected))
    }
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Serves one version; both have the same messages under different names.
macro_rules! serve {
    ($version:ident) => {
        impl Reflection {
            fn $version(
                &self,
                request: $version::ServerReflectionRequest,
            ) -> $version::ServerReflectionResponse {
                use $version::server_reflection_request::MessageRequest;
                use $version::server_reflection_response::MessageResponse;
                let reflected = &self.0;
                let answer = match request.message_request.clone() {
                    Some(MessageRequest::FileByFilename(name)) => reflected.file(&reflected.by_name, &name),
                    Some(MessageRequest::FileContainingSymbol(name)) => {
                        reflected.file(&reflected.by_symbol, &name)
                    }
                    Some(MessageRequest::ListServices(_)) => {
                        LookupResult::Services(reflected.services.clone())
                    }
                    Some(MessageRequest::AllExtensionNumbersOfType(name))
                        if reflected.by_symbol.contains_key(&name) =>
                    {
                        LookupResult::NoExtensions(name)
                    }
                    Some(
                        MessageRequest::AllExtensionNumbersOfType(_)
                        | MessageRequest::FileContainingExtension(_),
                    ) => LookupResult::Error(
                        Code::NotFound,
                        "there is no such type, or no such extension of it",
                    ),
                    None => LookupResult::Error(Code::InvalidArgument, "the request asks for nothing"),
                };
                let answer = match answer {
                    LookupResult::File(file) => {
                        let file_descriptor_proto = vec![file];
                        MessageResponse::FileDescriptorResponse($version::FileDescriptorResponse {
                            file_descriptor_proto,
                        })
                    }
                    LookupResult::Services(names) => {
                        let service =
                            names.into_iter().map(|name| $version::ServiceResponse { name }).collect();
                        MessageResponse::ListServicesResponse($version::ListServiceResponse { service })
                    }
                    LookupResult::NoExtensions(base_type_name) => {
                        MessageResponse::AllExtensionNumbersResponse($version::ExtensionNumberResponse {
                            base_type_name,
                            extension_number: Vec::new(),
                        })
                    }
                    LookupResult::Error(code, message) => {
                        MessageResponse::ErrorResponse($version::ErrorResponse {
                            error_code: code.into(),
                            error_message: message.to_owned(),
                        })
                    }
                };
                $version::ServerReflectionResponse {
                    valid_host: request.host.clone(),
                    original_request: Some(request),
                    message_response: Some(answer),
                }
            }
        }

        #[tonic::async_trait]
        impl $version::server_reflection_server::ServerReflection for Reflection {
            type ServerReflectionInfoStream = Responses<$version::ServerReflectionResponse>;

            async fn server_reflection_info(
                &self,
                requests: Request<Streaming<$version::ServerReflectionRequest>>,
            ) -> Result<Response<Self::ServerReflectionInfoStream>, Status> {
                let reflected = self.clone();
                let answers = requests.into_inner().map(move |request| Ok(reflected.$version(request?)));
                Ok(Response::new(Box::pin(answers)))
            }
        }
    };
}

serve!(v1);
serve!(v1alpha);
