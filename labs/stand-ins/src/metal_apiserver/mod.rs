//! A metal-apiserver: the procedures of the metal-stack API v2 that switches and booting machines call, by
//! Connect RPC in JSON, with the roles, codes and token store of the real one.
//!
//! What a user of the API would do (allocate a machine), and what a test wants to know, goes over a unix
//! socket of its own.

mod boot;
mod calls;
mod control;
mod reply;
mod state;
mod tokens;

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::calls::Api;
use self::state::Data;
use crate::control_api;
use crate::control_socket;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Address and port to serve
    #[arg(long, value_name = "ADDR:PORT")]
    listen: SocketAddr,
    /// Directory with server.pem and server.key, as `control-api --make-ca` leaves them
    #[arg(long, value_name = "DIR")]
    pki: PathBuf,
    /// Switches and partitions, in the JSON of the API: {"switches": [...], "partitions": [...]}
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Token of the switches (infra role editor, machine role editor for all); made where there is none
    #[arg(long, value_name = "FILE")]
    infra_token: PathBuf,
    /// Unix socket of the user: GET /state, POST /allocations, PUT /switches
    #[arg(long, value_name = "PATH")]
    control: PathBuf,
    /// Password of the BMCs; without one the feature is disabled
    #[arg(long, value_name = "TEXT", default_value = "")]
    super_user_password: String,
    /// Path prefix of the API
    #[arg(long, value_name = "PATH", default_value = "")]
    base: String,
}

#[derive(Debug)]
pub(crate) enum Error {
    Serve(control_api::Error),
    Pki(control_api::pki::Error),
    File(PathBuf, io::Error),
    Data(PathBuf, serde_json::Error),
    Random,
    Io(&'static str, io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Serve(error) => write!(f, "{error}"),
            Error::Pki(error) => write!(f, "{error}"),
            Error::File(path, error) => write!(f, "{}: {error}", path.display()),
            Error::Data(path, error) => write!(f, "{}: {error}", path.display()),
            Error::Random => f.write_str("the system gives no random numbers"),
            Error::Io(step, error) => write!(f, "cannot {step}: {error}"),
        }
    }
}

impl std::error::Error for Error {}

pub(crate) fn run(args: Args) -> Result<(), Error> {
    let tls = Arc::new(control_api::pki::server_config(&args.pki).map_err(Error::Pki)?);
    let text = fs::read(&args.data).map_err(|error| Error::File(args.data.clone(), error))?;
    let data: Data = serde_json::from_slice(&text).map_err(|error| Error::Data(args.data.clone(), error))?;
    let infra_token = infra_token(&args.infra_token)?;
    let api = Arc::new(Api::new(data, &infra_token, args.super_user_password, args.base));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Error::Io("start the runtime", error))?;
    runtime.block_on(async {
        let control =
            control_socket::bind(&args.control).map_err(|error| Error::File(args.control.clone(), error))?;
        tokio::spawn(control::serve(control, api.clone()));
        let answer = move |request| {
            let api = api.clone();
            async move { api.answer(request).await }
        };
        control_api::serve(args.listen, tls, answer).await.map_err(Error::Serve)
    })
}

/// The token in the file, or a new one.
fn infra_token(path: &Path) -> Result<String, Error> {
    let failed = |error| Error::File(path.to_owned(), error);
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let token = tokens::secret().ok_or(Error::Random)?;
            let mut options = OpenOptions::new();
            let mut file = options.write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
            writeln!(file, "{token}").map_err(failed)?;
            Ok(token)
        }
        Err(error) => Err(failed(error)),
    }
}
