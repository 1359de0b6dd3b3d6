//! The command line: its arguments, exit codes, and all commands except `serve`.

mod banner;

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use clap::{Parser, Subcommand};
use jsonwebtoken::{EncodingKey, Header};
use secrecy::ExposeSecret as _;
use serde_json::{Map, Value};
use url::Url;

use crate::auth::check_key_file;
use crate::config::{self, Auth, ConfigErrors, Generation, Loaded, Sources};
use crate::domain::Uid;
use crate::gateway::ServeError;
use crate::routes;

pub use banner::introduce;

/// Invalid configuration or arguments.
const EXIT_USAGE: u8 = 64;
/// Cannot bind or cannot open the store.
const EXIT_UNAVAILABLE: u8 = 69;
/// A bug, or the system refuses a required resource.
const EXIT_INTERNAL: u8 = 70;

/// How long `healthcheck` waits for its answer.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

/// The command, and the value of `--config`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// `--config FILE`.
    pub config: Option<PathBuf>,
    /// The subcommand.
    pub command: Command,
}

/// A subcommand with its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Serve, optionally on the built-in upstream of a generation.
    Serve {
        /// `--embedded[=v2|v3]`.
        embedded: Option<Generation>,
    },
    /// Print a JWT.
    Token {
        /// The uid; not empty.
        uid: String,
        /// Whether with admin rights.
        admin: bool,
        /// Its lifetime.
        ttl: Duration,
    },
    /// Print the effective configuration.
    CheckConfig,
    /// Print the OpenAPI document.
    OpenApi,
    /// Check the health of a gateway.
    Healthcheck {
        /// The URL; `/readyz` of the configured `ops_listen` by default.
        url: Option<Url>,
    },
}

/// The HTTP gateway in front of WuKongIM. Without a command it serves.
#[derive(Parser)]
#[command(name = "wukongim-gateway", version)]
struct Args {
    /// Configuration file (else GATEWAY_CONFIG, else config/gateway.toml when it exists)
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    serve: ServeArgs,
    #[command(subcommand)]
    command: Option<Sub>,
}

#[derive(clap::Args, Clone, Copy)]
struct ServeArgs {
    /// Run on a built-in development WuKongIM: needs no server, no configuration and no disk
    #[arg(long, value_name = "v2|v3", num_args = 0..=1, require_equals = true, default_missing_value = "v2", value_parser = generation)]
    embedded: Option<Generation>,
}

#[derive(Subcommand)]
enum Sub {
    /// Serve (the default)
    Serve(ServeArgs),
    /// Print a JWT signed with the configured secret, for development and scripts
    Token {
        /// Whose token
        #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
        uid: String,
        /// As an admin
        #[arg(long)]
        admin: bool,
        /// How long it is good, such as 30m or 12h
        #[arg(long, default_value = "1h", value_parser = ttl)]
        ttl: Duration,
    },
    /// Print the configuration in force, where each value came from, and warnings
    CheckConfig,
    /// Print the OpenAPI document
    #[command(name = "openapi")]
    OpenApi,
    /// Exit 0 when URL answers 200 within two seconds
    Healthcheck {
        /// An http address (default: /readyz of the configured ops_listen)
        #[arg(value_parser = http_url)]
        url: Option<Url>,
    },
}

fn generation(text: &str) -> Result<Generation, &'static str> {
    match text {
        "v2" => Ok(Generation::V2),
        "v3" => Ok(Generation::V3),
        _ => Err("must be v2 or v3"),
    }
}

fn ttl(text: &str) -> Result<Duration, &'static str> {
    const MAX: Duration = Duration::from_hours(10 * 365 * 24);
    let ttl = humantime::parse_duration(text).ok();
    ttl.filter(|ttl| (Duration::from_secs(1)..=MAX).contains(ttl))
        .ok_or("must be a duration with a unit, such as 30m or 12h, from 1s to ten years")
}

fn http_url(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text)
        .ok()
        .filter(|url| url.scheme() == "http" && url.has_host());
    url.ok_or("must be an http:// address")
}

/// Parses the arguments of a process, its name first. `Err` is the exit code, after the error has been printed.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Invocation, ExitCode> {
    let print_error = |error: &clap::Error| {
        // A closed pipe is not an error.
        let _ = error.print();
        if error.use_stderr() {
            ExitCode::from(EXIT_USAGE)
        } else {
            ExitCode::SUCCESS
        }
    };
    let args = Args::try_parse_from(args).map_err(|error| print_error(&error))?;
    let before = args.serve.embedded;
    let command = match args.command {
        None => Command::Serve { embedded: before },
        Some(Sub::Serve(serve)) => Command::Serve {
            embedded: serve.embedded.or(before),
        },
        Some(_) if before.is_some() => {
            eprintln!("error: --embedded goes with serve only");
            return Err(ExitCode::from(EXIT_USAGE));
        }
        Some(Sub::Token { uid, admin, ttl }) => Command::Token { uid, admin, ttl },
        Some(Sub::CheckConfig) => Command::CheckConfig,
        Some(Sub::OpenApi) => Command::OpenApi,
        Some(Sub::Healthcheck { url }) => Command::Healthcheck { url },
    };
    Ok(Invocation {
        config: args.config,
        command,
    })
}

/// Runs the command; for `serve` calls `serve` with the loaded configuration.
pub fn run(
    invocation: Invocation,
    serve: impl FnOnce(Loaded, Option<Generation>) -> Result<(), ServeError>,
) -> ExitCode {
    let load = |embedded| {
        let sources = Sources::from_process(invocation.config.clone(), embedded);
        config::load(&sources, check_key_file)
    };
    let outcome = match invocation.command {
        Command::Serve { embedded } => {
            load(embedded.is_some()).map(|loaded| exit_code(serve(loaded, embedded)))
        }
        Command::CheckConfig => load(false).map(|loaded| print(&config::describe(&loaded))),
        Command::Token { uid, admin, ttl } => load(false).map(|loaded| {
            let auth = &loaded.settings.auth;
            if admin && auth.admin_roles.is_empty() && auth.admin_permissions.is_empty() {
                let why =
                    "auth.admin_roles and auth.admin_permissions are empty: no user can be an admin";
                return fail(EXIT_USAGE, why);
            }
            if auth.jwt_secret.is_none() {
                let why = "auth.jwt_secret is not set: there is nothing to sign with";
                return fail(EXIT_USAGE, why);
            }
            if let Err(problem) = Uid::parse(&uid, loaded.settings.limits.id_bytes) {
                return fail(EXIT_USAGE, &format!("--uid {problem}"));
            }
            match token(auth, &uid, admin, ttl) {
                Ok(token) => print(&format!("{token}\n")),
                Err(error) => fail(EXIT_INTERNAL, &format!("cannot sign: {error}")),
            }
        }),
        Command::OpenApi => Ok(print(routes::document())),
        Command::Healthcheck { url: Some(url) } => Ok(healthcheck(&url)),
        // As if embedded: only the address is needed, so a missing secret is no error here.
        Command::Healthcheck { url: None } => load(true).map(|loaded| {
            match Url::parse(&format!(
                "http://{}/readyz",
                reachable(loaded.settings.server.ops_listen)
            )) {
                Ok(url) => healthcheck(&url),
                Err(error) => fail(EXIT_INTERNAL, &format!("no address to ask: {error}")),
            }
        }),
    };
    outcome.unwrap_or_else(|problems| refuse(&problems))
}

fn exit_code(served: Result<(), ServeError>) -> ExitCode {
    let Err(error) = served else {
        return ExitCode::SUCCESS;
    };
    let code = match error {
        ServeError::Unsupported(_) => EXIT_USAGE,
        ServeError::Unavailable(_) => EXIT_UNAVAILABLE,
        ServeError::Internal(_) | ServeError::Replaced => EXIT_INTERNAL,
    };
    fail(code, &error.to_string())
}

fn refuse(problems: &ConfigErrors) -> ExitCode {
    fail(
        EXIT_USAGE,
        &format!(
            "the configuration has problems ({}):\n{problems}",
            problems.0.len()
        ),
    )
}

fn fail(code: u8, why: &str) -> ExitCode {
    eprintln!("error: {why}");
    ExitCode::from(code)
}

/// `println!` would panic on a closed pipe. A reader that has enough (`… | head`) is no failure.
fn print(text: &str) -> ExitCode {
    let mut out = std::io::stdout();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => fail(EXIT_INTERNAL, &format!("cannot write: {error}")),
    }
}

/// Signs a JWT (HS256) that the gateway with these settings accepts: the uid in the first of `uid_claims`, issuer and audience where they
/// are asked for, and for an admin the first admin role, or else the first admin permission. Other required claims get a dummy value.
pub fn token(
    auth: &Auth,
    uid: &str,
    admin: bool,
    ttl: Duration,
) -> Result<String, jsonwebtoken::errors::Error> {
    use jsonwebtoken::errors::ErrorKind;
    let secret = auth
        .jwt_secret
        .as_ref()
        .ok_or(ErrorKind::InvalidKeyFormat)?;
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let mut claims = Map::new();
    let mut claim = |name: &str, value: Value| drop(claims.insert(name.to_owned(), value));
    claim(
        auth.uid_claims.first().map_or("sub", String::as_str),
        uid.into(),
    );
    claim("iat", now.as_secs().into());
    claim("exp", now.saturating_add(ttl).as_secs().into());
    if let Some(issuer) = &auth.issuer {
        claim("iss", issuer.as_str().into());
    }
    if let Some(audience) = &auth.audience {
        claim("aud", audience.as_str().into());
    }
    match (
        admin,
        auth.admin_roles.first(),
        auth.admin_permissions.first(),
    ) {
        (true, Some(role), _) => claim("roles", vec![role.as_str()].into()),
        (true, None, Some(permission)) => claim("permissions", vec![permission.as_str()].into()),
        // Without an admin role or permission in the configuration there is no such token.
        (true, None, None) | (false, ..) => {}
    }
    for required in &auth.required_claims {
        let nothing = match required.as_str() {
            "roles" | "permissions" => Value::Array(Vec::new()),
            _ => "none".into(),
        };
        claims.entry(required).or_insert(nothing);
    }
    let key = EncodingKey::from_secret(secret.expose_secret().as_bytes());
    jsonwebtoken::encode(&Header::default(), &claims, &key)
}

/// Converts a listen address to one for connecting.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

fn healthcheck(url: &Url) -> ExitCode {
    match status(url) {
        Ok(200) => ExitCode::SUCCESS,
        Ok(status) => fail(1, &format!("answered {status}")),
        Err(error) => fail(1, &error.to_string()),
    }
}

/// The status of a GET request. Written directly on a socket: an HTTP client with a runtime would cost more than the request, every few
/// seconds.
fn status(url: &Url) -> std::io::Result<u16> {
    let deadline = Instant::now() + HEALTH_TIMEOUT;
    // A zero timeout is an error, so the minimum is one millisecond.
    let left = || {
        deadline
            .saturating_duration_since(Instant::now())
            .max(Duration::from_millis(1))
    };
    let error = |what: &'static str| std::io::Error::other(what);
    let host = url.host_str().ok_or_else(|| error("no host to ask"))?;
    let port = url
        .port_or_known_default()
        .ok_or_else(|| error("no port to ask"))?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let mut stream = Err(error("host has no address"));
    for address in (bare, port).to_socket_addrs()? {
        stream = TcpStream::connect_timeout(&address, left());
        if stream.is_ok() {
            break;
        }
    }
    let mut stream = stream?;
    stream.set_write_timeout(Some(left()))?;
    let query = url
        .query()
        .map(|query| format!("?{query}"))
        .unwrap_or_default();
    let path = url.path();
    let request =
        format!("GET {path}{query} HTTP/1.1\r\nhost: {host}:{port}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    // "HTTP/1.1 200": twelve bytes are enough.
    let mut head = [0; 12];
    let mut filled = 0;
    while filled < head.len() {
        if Instant::now() >= deadline {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left()))?;
        match stream.read(&mut head[filled..])? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => filled += read,
        }
    }
    let text = std::str::from_utf8(&head)
        .ok()
        .filter(|text| text.starts_with("HTTP/1."));
    let code = text.and_then(|text| text.get(9..)?.parse().ok());
    code.ok_or_else(|| error("answered something that is no HTTP"))
}
