//! The gateway that is measured, in a process of its own.

use std::io;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::client::get;

const SECRET: &str = "a-secret-for-the-benchmark-and-nothing-else";
/// Longer than any start takes.
const PATIENCE: Duration = Duration::from_secs(20);
const USERS: usize = 64;

/// A process that ends with this value.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a process has at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Open files.
    pub files: u64,
    pub threads: u64,
    /// Tasks on all its runtimes.
    pub tasks: u64,
    /// Memory in RAM, bytes.
    pub memory: u64,
}

/// Memory in RAM of a process, in bytes, and its threads.
fn memory_and_threads(pid: u32) -> io::Result<(u64, u64)> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let number = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    match (number("VmRSS:"), number("Threads:")) {
        (Some(kib), Some(threads)) => Ok((kib * 1024, threads)),
        _ => Err(io::Error::other("the process has ended")),
    }
}

/// A running gateway.
pub struct Gateway {
    process: Process,
    pub api: String,
    pub ops: String,
}

/// Where things are.
pub struct Stage {
    /// The gateway's binary.
    pub gateway: String,
    /// A folder for stores.
    pub work: String,
    /// The first of the ports that may be used.
    pub port: u16,
}

impl Stage {
    pub fn address(&self, index: u16) -> String {
        format!("127.0.0.1:{}", self.port + index)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.gateway);
        command
            .env_clear()
            .env("GATEWAY__AUTH__JWT_SECRET", SECRET)
            .current_dir(&self.work)
            .stdin(Stdio::null());
        command
    }

    /// Tokens of `u000`, `u001`, …, good for a day.
    pub fn tokens(&self) -> io::Result<Rc<[String]>> {
        (0..USERS)
            .map(|user| self.token(&["--uid", &format!("u{user:03}")]))
            .collect()
    }

    /// A token, good for a day.
    pub fn token(&self, arguments: &[&str]) -> io::Result<String> {
        let output = self
            .command()
            .args(["token", "--ttl", "24h"])
            .args(arguments)
            .output()?;
        let token = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if token.is_empty() {
            return Err(io::Error::other("the gateway makes no token"));
        }
        Ok(token)
    }

    /// Starts a gateway at ports `index` and the next one, and waits until it is ready. Its limits for each user and address are lifted as
    /// far as they can be, since a few users on one machine do here what thousands do; all else is as it is by default, but for `settings`.
    pub async fn start(
        &self,
        index: u16,
        upstreams: &[String],
        settings: &[(&str, &str)],
    ) -> io::Result<Gateway> {
        let (api, ops) = (self.address(index), self.address(index + 1));
        let urls: Vec<String> = upstreams
            .iter()
            .map(|node| format!("http://{node}"))
            .collect();
        let child = self
            .command()
            .env("GATEWAY__SERVER__LISTEN", &api)
            .env("GATEWAY__SERVER__OPS_LISTEN", &ops)
            .env("GATEWAY__WUKONGIM__API_URLS", urls.join(","))
            .env(
                "GATEWAY__STORE__URL",
                format!("sqlite://{}/{api}.db", self.work),
            )
            .env("GATEWAY__SERVER__MAX_CONNECTIONS_PER_ADDRESS", "0")
            .env("GATEWAY__LIMITS__REQUESTS_PER_SECOND", "1000000")
            .env("GATEWAY__LIMITS__BURST", "1000000")
            .env("GATEWAY__LIMITS__ANONYMOUS_PER_SECOND", "1000000")
            .envs(settings.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let gateway = Gateway {
            process: Process(child),
            api,
            ops,
        };
        let began = Instant::now();
        while !matches!(get(&gateway.ops, "/readyz").await, Ok(answer) if answer.status == 200) {
            if began.elapsed() > PATIENCE {
                return Err(io::Error::other("the gateway does not get ready"));
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(gateway)
    }
}

impl Gateway {
    /// What it has now.
    pub async fn sample(&self) -> io::Result<Sample> {
        let tasks = self.metric("gateway_tasks").await?;
        let pid = self.process.0.id();
        let files = std::fs::read_dir(format!("/proc/{pid}/fd"))?.count();
        let (memory, threads) = memory_and_threads(pid)?;
        Ok(Sample {
            files: files as u64,
            threads,
            tasks,
            memory,
        })
    }

    /// Memory in RAM, in bytes.
    pub fn memory(&self) -> io::Result<u64> {
        Ok(memory_and_threads(self.process.0.id())?.0)
    }

    /// The sum of the samples of this name.
    pub async fn metric(&self, name: &str) -> io::Result<u64> {
        let answer = get(&self.ops, "/metrics").await?;
        let text = String::from_utf8_lossy(&answer.body);
        let samples = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let is_whole = rest.starts_with([' ', '{']);
            is_whole.then(|| rest.rsplit(' ').next()?.parse::<u64>().ok())?
        });
        let samples: Vec<u64> = samples.collect();
        if samples.is_empty() {
            return Err(io::Error::other(format!("no {name} in /metrics")));
        }
        Ok(samples.iter().sum())
    }
}
