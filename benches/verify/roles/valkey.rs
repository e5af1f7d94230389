//! A limit in Valkey or Redis: one script on every Verify, by the rule that tokend uses, one round trip on
//! one connection for all calls. Nothing else of a Verify is done, so this is the most that it can answer.

use std::fmt::Write as _;

use prost::bytes::Bytes;
use tokend::api::proto::VerifyRequest;
use tokend::secret::{Prefix, Secret};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use super::canned::Replies;
use super::{REPLY, VALKEY, variable};

/// A million requests a second, with a burst of a second: 1 if it is admitted. In microseconds.
const SCRIPT: &str = "local time = redis.call('TIME') \
     local now = time[1] * 1000000 + time[2] \
     local full = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now) + tonumber(ARGV[1]) \
     if full - now > tonumber(ARGV[2]) then return 0 end \
     redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000)) \
     return 1";
const INTERVAL: &str = "1";
const BURST: &str = "1000000";

/// A command, and where its answer goes.
type Command = (String, Answer);

/// Gets whether a request is admitted, or what was answered instead.
type Answer = oneshot::Sender<Result<bool, String>>;

/// The queue of the connection, the script's name there, and the response.
#[derive(Debug)]
pub(crate) struct Valkey {
    commands: mpsc::UnboundedSender<Command>,
    script: String,
    reply: Bytes,
}

impl Valkey {
    pub(crate) async fn from_environment() -> anyhow::Result<Self> {
        let mut socket = TcpStream::connect(variable(VALKEY)?).await?;
        socket.set_nodelay(true)?;
        socket.write_all(encode(&["SCRIPT", "LOAD", SCRIPT]).as_bytes()).await?;
        // `$40`, and the name in 40 hexadecimal digits.
        let mut answer = [0; 47];
        socket.read_exact(&mut answer).await?;
        let script = String::from_utf8_lossy(&answer[5..45]).into_owned();
        let (read, write) = socket.into_split();
        let (commands, waiting) = mpsc::unbounded_channel();
        let (sent, unanswered) = mpsc::unbounded_channel();
        tokio::spawn(send(write, waiting, sent));
        tokio::spawn(receive(read, unanswered));
        Ok(Self { commands, script, reply: hex::decode(variable(REPLY)?)?.into() })
    }

    /// Returns whether a token's limit admits a request.
    async fn admits(&self, key: &str) -> Result<bool, String> {
        let (answer, answered) = oneshot::channel();
        let command = encode(&["EVALSHA", &self.script, "1", key, INTERVAL, BURST]);
        // If this fails, so does the next line.
        let _ = self.commands.send((command, answer));
        answered.await.map_err(|_| "the connection has ended".to_owned())?
    }
}

impl Replies for Valkey {
    async fn reply(&self, request: VerifyRequest) -> Result<Bytes, Status> {
        let secret = Secret::parse(&request.secret, &Prefix::default())
            .map_err(|error| Status::internal(error.to_string()))?;
        match self.admits(&secret.id().to_string()).await {
            Ok(true) => Ok(self.reply.clone()),
            Ok(false) => Err(Status::resource_exhausted("the limit is used up")),
            Err(message) => Err(Status::unavailable(message)),
        }
    }
}

/// Writes a command as an array of strings.
fn encode(words: &[&str]) -> String {
    let mut text = format!("*{}\r\n", words.len());
    for word in words {
        // Writing to a string never fails.
        let _ = write!(text, "${}\r\n{word}\r\n", word.len());
    }
    text
}

/// Sends the commands that wait, all at once.
async fn send(
    mut socket: OwnedWriteHalf,
    mut waiting: mpsc::UnboundedReceiver<Command>,
    sent: mpsc::UnboundedSender<Answer>,
) {
    let (mut commands, mut bytes) = (Vec::new(), String::new());
    while waiting.recv_many(&mut commands, 1_000).await > 0 {
        bytes.clear();
        for (command, answer) in commands.drain(..) {
            bytes.push_str(&command);
            let _ = sent.send(answer);
        }
        if socket.write_all(bytes.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Reads a number for each command, in order; anything else ends the connection.
async fn receive(socket: OwnedReadHalf, mut unanswered: mpsc::UnboundedReceiver<Answer>) {
    let (mut socket, mut line) = (BufReader::new(socket), Vec::new());
    while let Some(answer) = unanswered.recv().await {
        line.clear();
        let admitted = match (socket.read_until(b'\n', &mut line).await, line.as_slice()) {
            (Ok(_), b":1\r\n") => Ok(true),
            (Ok(_), b":0\r\n") => Ok(false),
            (Ok(_), other) => Err(String::from_utf8_lossy(other).into_owned()),
            (Err(error), _) => Err(error.to_string()),
        };
        let ends = admitted.is_err();
        // A call that has ended waits for no answer.
        let _ = answer.send(admitted);
        if ends {
            return;
        }
    }
}
