//! The contract as its descriptors define it: every RPC, every field of its request including nested
//! ones, and messages encoded by hand, so that a test covers later additions to the contract.

use std::collections::HashMap;
use std::sync::LazyLock;

use prost::Message as _;
use prost::bytes::{Buf as _, BufMut as _};
use prost::encoding::{WireType, encode_key, encode_varint};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};
use tokend::api::proto::FILE_DESCRIPTOR_SET;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::replica::SERVICE;

/// An RPC: its service and name, and the fields of its request.
pub(crate) struct Rpc {
    service: String,
    pub(crate) name: String,
    pub(crate) fields: Vec<Field>,
}

/// A field, with the path of numbers and of names to it.
#[derive(Debug, Clone)]
pub(crate) struct Field {
    pub(crate) numbers: Vec<u32>,
    pub(crate) name: String,
    pub(crate) kind: Type,
    /// The full name of a message's type.
    pub(crate) type_name: String,
    pub(crate) repeated: bool,
}

/// The names of a field of a message.
pub(crate) struct Named {
    pub(crate) number: u32,
    pub(crate) name: String,
    pub(crate) json_name: String,
}

/// Returns the fields of a message of the service's package.
pub(crate) fn fields_of(message: &str) -> Vec<Named> {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let (package, _) = SERVICE.rsplit_once('.').unwrap();
    let fields = find(&set, &format!(".{package}.{message}")).field.iter();
    let named = fields.map(|field| Named {
        number: u32::try_from(field.number()).unwrap(),
        name: field.name().to_owned(),
        json_name: field.json_name().to_owned(),
    });
    named.collect()
}

/// Returns every RPC of every service of the package.
pub(crate) fn rpcs() -> Vec<Rpc> {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let (package, _) = SERVICE.rsplit_once('.').unwrap();
    let files = set.file.iter().filter(|file| file.package() == package);
    let services = files.flat_map(|file| &file.service);
    let rpcs = services.flat_map(|service| service.method.iter().map(move |method| (service, method)));
    let rpcs = rpcs.map(|(service, method)| {
        let mut fields = Vec::new();
        walk(&set, method.input_type(), &[], "", &mut fields);
        Rpc { service: format!("{package}.{}", service.name()), name: method.name().to_owned(), fields }
    });
    rpcs.collect()
}

fn walk(set: &FileDescriptorSet, message: &str, above: &[u32], prefix: &str, found: &mut Vec<Field>) {
    for field in &find(set, message).field {
        let numbers = [above, &[u32::try_from(field.number()).unwrap()]].concat();
        let name = format!("{prefix}{}", field.name());
        found.push(Field {
            kind: field.r#type(),
            type_name: field.type_name().to_owned(),
            repeated: field.label() == Label::Repeated,
            numbers: numbers.clone(),
            name: name.clone(),
        });
        if is_message(field) {
            walk(set, field.type_name(), &numbers, &format!("{name}."), found);
        }
    }
}

fn is_message(field: &FieldDescriptorProto) -> bool {
    field.r#type() == Type::Message
}

/// Finds a message by its full name, nested ones (of maps) included.
fn find<'a>(set: &'a FileDescriptorSet, name: &str) -> &'a DescriptorProto {
    let within = set.file.iter().find_map(|file| {
        let rest = name.strip_prefix(&format!(".{}.", file.package()))?;
        let mut parts = rest.split('.');
        let first = parts.next()?;
        let outer = file.message_type.iter().find(|message| message.name() == first)?;
        parts.try_fold(outer, |outer, part| outer.nested_type.iter().find(|inner| inner.name() == part))
    });
    within.unwrap_or_else(|| panic!("no message {name}"))
}

impl Field {
    /// Encodes the field once with this value: a text, a message or packed numbers.
    pub(crate) fn delimited(&self, value: &[u8]) -> Vec<u8> {
        self.times(value, 1)
    }

    /// Encodes the field `times` times.
    pub(crate) fn times(&self, value: &[u8], times: usize) -> Vec<u8> {
        let (own, above) = self.numbers.split_last().unwrap();
        let one = delimited(*own, value);
        above.iter().rev().fold(one.repeat(times), |inner, number| delimited(*number, &inner))
    }
}

fn delimited(number: u32, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_key(number, WireType::LengthDelimited, &mut bytes);
    encode_varint(value.len() as u64, &mut bytes);
    bytes.put_slice(value);
    bytes
}

/// The service of each RPC.
static SERVICES: LazyLock<HashMap<String, String>> =
    LazyLock::new(|| rpcs().into_iter().map(|rpc| (rpc.name, rpc.service)).collect());

/// Sends these bytes as an RPC's only message, and returns the bytes of the first response.
pub(crate) async fn call(
    channel: &Channel,
    bearer: &str,
    rpc: &str,
    message: Vec<u8>,
) -> Result<Vec<u8>, Status> {
    let mut client = Grpc::new(channel.clone());
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {bearer}").parse().unwrap());
    client.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
    let service = &SERVICES[rpc];
    let path = PathAndQuery::try_from(format!("/{service}/{rpc}")).unwrap();
    let mut answers = client.server_streaming(request, path, Raw).await?.into_inner();
    Ok(answers.message().await?.unwrap_or_default())
}

/// A codec that passes bytes unchanged in both directions.
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, message: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining()).to_vec()))
    }
}
