//! The programs `bench/run` needs beside wrk and nginx: a fast fake WuKongIM, many idle connections, the time a start takes.

mod http;
mod idle;
mod log;
mod startup;
mod upstream;

use std::process::ExitCode;
use std::time::Duration;

const USAGE: &str = "usage:
  rig upstream v2|v3 ADDRESS VISIBLE_AFTER_US   a fake WuKongIM; v2 shows a message that long after it was sent
  rig idle ADDRESS COUNT                        COUNT connections with one answered request each, held until killed
  rig startup ADDRESS COMMAND…                  starts COMMAND; prints the µs until ADDRESS is healthy, and ends it";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match *words {
        [
            "upstream",
            dialect @ ("v2" | "v3"),
            address,
            visible_after_us,
        ] => match visible_after_us.parse().map(Duration::from_micros) {
            Ok(visible_after) => upstream::run(dialect == "v3", address, visible_after),
            Err(_) => return usage(),
        },
        ["idle", address, count] => match count.parse() {
            Ok(count) => idle::run(address, count),
            Err(_) => return usage(),
        },
        ["startup", address, program, ref arguments @ ..] => {
            startup::run(address, program, arguments)
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

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(64)
}
