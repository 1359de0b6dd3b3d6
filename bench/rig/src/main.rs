//! The programs `bench/run` needs beside wrk and nginx: the built-in upstream as WuKongIM, many idle connections, the
//! time a start takes, and clients of sockets with a WuKongIM for them.

mod client;
mod contract;
mod gateway;
mod idle;
mod load;
mod mix;
mod numbers;
mod soak;
mod socket_upstream;
mod sockets;
mod startup;
mod storm;
mod tally;
mod tokens;
mod truth;
mod upstream;
mod wire;

use std::process::ExitCode;
use std::time::Duration;

/// As the gateway's: the built-in upstream is to be as fast as it can be.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "usage:
  rig upstream v2|v3 ADDRESS SENDS_ADDRESS      a WuKongIM at ADDRESS; tells how many sends it took to whoever connects to SENDS_ADDRESS
  rig idle ADDRESS COUNT                        COUNT connections with one answered request each, held until killed
  rig socket-upstream TCP WEBSOCKET             WuKongIM's sockets at these addresses
  rig sockets send|recv|idle|unread ADDRESS COUNT SECONDS TOKENS
                                                COUNT clients of sockets, with the connect tokens in the file TOKENS: for SECONDS, or held
                                                until killed (idle, unread)
  rig storm|soak|numbers GATEWAY FOLDER PORT full|quick
                                                what bench/storm and bench/soak run: that binary, a folder for stores, the first of a
                                                hundred free ports
  rig tokens SECRET COUNT                       JWTs of m00000, m00001, …
  rig startup ADDRESS COMMAND…                  starts COMMAND; prints the µs until ADDRESS is healthy, and ends it";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match *words {
        ["upstream", dialect @ ("v2" | "v3"), listen, sends] => {
            let (Ok(listen), Ok(sends)) = (listen.parse(), sends.parse()) else {
                return usage();
            };
            upstream::run(dialect == "v3", listen, sends)
        }
        ["idle", address, count] => match count.parse() {
            Ok(count) => idle::run(address, count),
            Err(_) => return usage(),
        },
        ["socket-upstream", tcp, websocket] => {
            return verdict(local(async {
                socket_upstream::run(tcp, websocket).await?;
                Ok(true)
            }));
        }
        ["sockets", kind, address, count, seconds, tokens] => {
            let (Some(kind), Ok(count), Ok(seconds)) = (
                sockets::Kind::from_name(kind),
                count.parse(),
                seconds.parse(),
            ) else {
                return usage();
            };
            let time = Duration::from_secs(seconds);
            return verdict(local(sockets::run(kind, address, count, time, tokens)));
        }
        ["tokens", secret, count] => match count.parse() {
            Ok(count) => tokens::run(secret, count),
            Err(_) => return usage(),
        },
        ["startup", address, program, ref arguments @ ..] => {
            startup::run(address, program, arguments)
        }
        [
            what @ ("storm" | "soak" | "numbers"),
            gateway,
            work,
            port,
            length @ ("full" | "quick"),
        ] => {
            let Ok(port) = port.parse() else {
                return usage();
            };
            let (stage, quick) = (stage(gateway, work, port), length == "quick");
            return verdict(match what {
                "storm" => local(storm::run(&stage, quick)),
                "soak" => local(soak::run(&stage, quick)),
                _ => local(numbers::run(&stage, quick)),
            });
        }
        _ => return usage(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rig: {error}");
            ExitCode::FAILURE
        }
    }
}

fn stage(gateway: &str, work: &str, port: u16) -> gateway::Stage {
    gateway::Stage {
        gateway: gateway.to_owned(),
        work: work.to_owned(),
        port,
    }
}

type Judged = Result<bool, Box<dyn std::error::Error>>;

/// Runs what is one thread's.
fn local(work: impl Future<Output = Judged>) -> Judged {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    tokio::task::LocalSet::new().block_on(&runtime, work)
}

/// 0 where all promises were kept, 1 where not, 2 where there is no figure.
fn verdict(judged: Judged) -> ExitCode {
    match judged {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("rig: no figure: {error}");
            ExitCode::from(2)
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(64)
}
