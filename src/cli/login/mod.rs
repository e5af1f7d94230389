//! `tokend login` and `tokend logout`: a token of the person's own for this command line, allowed in the console, and kept
//! in a file that nobody else can read.

pub(super) mod callback;
pub(super) mod file;
pub(super) mod renewal;

use std::process::{Command, Stdio};

use clap::Args;
use secrecy::ExposeSecret as _;
use tokend_client::{ErrorKind, RevocationTarget};

use super::client::{AddressFlag, ClientError, ServerAddress};
use super::output::{print, printable, remark, to_the_second};
use super::{CommandError, single_threaded};
use crate::clock;
use crate::config::{DurationProblem, Environment, parse_duration};
use crate::domain::login::{Host, LoginRequest};
use crate::secret::{CodeVerifier, TokenId};

use callback::{Callback, CodeError};
use file::{LoginFile, LoginFileError, StoredLogin};

/// Flags of `tokend login`.
#[derive(Args)]
pub(crate) struct LoginFlags {
    #[command(flatten)]
    address: AddressFlag,

    /// Print an address to open in any browser, and read the code that the page then shows
    #[arg(long)]
    no_browser: bool,

    /// How long the login lasts, 1m to 24h; never longer than the token that you are signed in to the console with
    #[arg(long, value_name = "DURATION", default_value = "8h", value_parser = parse_lifetime)]
    lifetime: time::Duration,

    /// Scope of tokens that you will create; may be repeated [default: all that you may issue]
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,

    /// Print as whom you are logged in, and until when; asks no server, and fails if you are not
    #[arg(long, conflicts_with_all = ["no_browser", "lifetime", "scopes"])]
    status: bool,
}

/// Flags of `tokend logout`.
#[derive(Args)]
pub(crate) struct LogoutFlags {
    #[command(flatten)]
    address: AddressFlag,

    /// Forget the login even if the server cannot be reached to revoke its token
    #[arg(long)]
    force: bool,
}

fn parse_lifetime(text: &str) -> Result<time::Duration, String> {
    let parsed = parse_duration(text).map_err(|problem| problem.to_string())?;
    let parsed = time::Duration::try_from(parsed).map_err(|_| DurationProblem::Malformed.to_string())?;
    LoginRequest::check_lifetime(parsed).map_err(|error| error.to_string())
}

/// Logs in, or says whether one is logged in.
pub(super) fn login(flags: LoginFlags, environment: &Environment) -> Result<(), CommandError> {
    if flags.status {
        return status(flags.address, environment);
    }
    single_threaded()?.block_on(log_in(flags, environment))
}

/// Logs out.
pub(super) fn logout(flags: LogoutFlags, environment: &Environment) -> Result<(), CommandError> {
    single_threaded()?.block_on(log_out(flags, environment))
}

fn status(address: AddressFlag, environment: &Environment) -> Result<(), CommandError> {
    let address = ServerAddress::resolve(address, environment)?;
    let file = LoginFile::of(address.text(), environment)?;
    let found = file.map(|file| file.read()).transpose().map_err(ClientError::from)?.flatten();
    match found {
        Some(login) if login.expire_time > clock::now().unix_timestamp() => {
            let (user, until) = (printable(&login.user_id), until(&login));
            print(&format!("logged in at {} as {user} until {until}\n", printable(&login.address)))
        }
        _ => Err(ClientError::NotLoggedIn { address: address.text().to_owned() }.into()),
    }
}

async fn log_in(flags: LoginFlags, environment: &Environment) -> Result<(), CommandError> {
    let address = ServerAddress::resolve(flags.address, environment)?;
    let client = address.clone().open()?;
    let file =
        LoginFile::of(address.text(), environment)?.ok_or(ClientError::from(LoginFileError::Nowhere))?;
    // A file that cannot be used is refused before anybody allows anything.
    file.read().map_err(ClientError::from)?;
    let page = client.inner().login_page().await.map_err(|error| client.failed(error))?;
    if !(page.starts_with("https://") || page.starts_with("http://")) {
        return Err(ClientError::Incomplete("address of a page").into());
    }
    let no_randomness = |error| ClientError::from(CodeError::Io(std::io::Error::other(error)));
    let verifier = CodeVerifier::generate(&mut clock::randomness()).map_err(no_randomness)?;
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("challenge", &verifier.challenge().render()).append_pair("host", &host());
    query.append_pair("lifetime", &flags.lifetime.whole_seconds().to_string());
    query.extend_pairs(flags.scopes.iter().map(|scope| ("scope", scope)));
    let code = if flags.no_browser {
        remark(&format!("Open this page in a browser:\n\n{page}?{}\n\nCode: ", query.finish()));
        callback::typed().map_err(ClientError::from)?
    } else {
        let callback = Callback::open().await.map_err(ClientError::from)?;
        let url = format!("{page}?{}", query.extend_pairs(callback.parameters()).finish());
        remark(&format!("Allow the login on this page, in a browser on this computer:\n\n{url}\n\n"));
        open(&url, environment)?;
        callback.code().await.map_err(ClientError::from)?
    };
    let made = client.inner().exchange_login_code(&code, verifier.text()).await;
    let made = made.map_err(|error| client.failed(error))?;
    let end =
        made.token.expire_time.map(|end| prost_types::Timestamp { seconds: end.unix_timestamp(), nanos: 0 });
    let locked = file.lock().await.map_err(ClientError::from)?;
    let before = locked.read().map_err(ClientError::from)?;
    let owner = (made.token.id.to_string(), made.token.user_id.as_str().to_owned());
    let secret = made.secret.expose_secret().to_owned();
    let login = StoredLogin::new(locked.address(), owner, secret, end, clock::now());
    locked.write(&login).map_err(ClientError::from)?;
    let (user, until) = (printable(&login.user_id), until(&login));
    remark(&format!("Logged in as {user} until {until}.\n"));
    if let Some(before) = before {
        // It expires by itself if this fails.
        let _ = revoke(&address, &before).await;
    }
    Ok(())
}

async fn log_out(flags: LogoutFlags, environment: &Environment) -> Result<(), CommandError> {
    let address = ServerAddress::resolve(flags.address, environment)?;
    // An address that is not valid is said first.
    address.clone().open()?;
    let none = || ClientError::NotLoggedIn { address: address.text().to_owned() };
    let file = LoginFile::of(address.text(), environment)?.ok_or_else(none)?;
    if file.read().map_err(ClientError::from)?.is_none() {
        return Err(none().into());
    }
    let locked = file.lock().await.map_err(ClientError::from)?;
    let login = locked.read().map_err(ClientError::from)?.ok_or_else(none)?;
    match revoke(&address, &login).await {
        Ok(()) => {}
        // It is neither accepted now nor later.
        Err(CommandError::Client(ClientError::LoginEnded { .. })) => {
            remark("the login had ended already\n");
        }
        Err(error) if flags.force => {
            remark(&format!(
                "{error}\nthe token of the login was not revoked, so it is accepted until it expires\n"
            ));
        }
        Err(source) => return Err(ClientError::NotLoggedOut { source: Box::new(source) }.into()),
    }
    locked.remove().map_err(ClientError::from)?;
    remark(&format!("Logged out of {}.\n", printable(locked.address())));
    Ok(())
}

/// Revokes the token of a login, and the one before, which is accepted for an hour after it was replaced.
async fn revoke(address: &ServerAddress, login: &StoredLogin) -> Result<(), CommandError> {
    let client = address.clone().of_login(login.secret()).open()?;
    if let Some(before) = login.previous_id.as_deref().and_then(|id| TokenId::parse(id).ok()) {
        // What was rotated from it ends with it: the login's own token.
        match client.inner().revoke_token(RevocationTarget::Id(before), "logout").await {
            Ok(_) => return Ok(()),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::FailedPrecondition) => {}
            Err(error) => return Err(client.failed(error)),
        }
    }
    let own = RevocationTarget::Secret(login.secret());
    client.inner().revoke_token(own, "logout").await.map(drop).map_err(|error| client.failed(error))
}

/// Opens a page in a browser, where there is one; the address is printed in any case.
fn open(url: &str, environment: &Environment) -> Result<(), CommandError> {
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let mut shown = cfg!(target_os = "macos");
    for variable in ["DISPLAY", "WAYLAND_DISPLAY"] {
        shown |= environment.text(variable)?.is_some();
    }
    if shown {
        let mut command = Command::new(program);
        let _ = command.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    }
    Ok(())
}

/// Returns what the page calls this computer.
fn host() -> String {
    let name = Command::new("uname").arg("-n").stderr(Stdio::null()).output();
    let name =
        name.map(|name| String::from_utf8_lossy(&name.stdout).trim().chars().take(60).collect::<String>());
    Host::parse(&name.unwrap_or_default())
        .map_or_else(|_| "a computer without a name".to_owned(), |host| host.as_str().to_owned())
}

fn until(login: &StoredLogin) -> String {
    to_the_second(prost_types::Timestamp { seconds: login.expire_time, nanos: 0 })
}
