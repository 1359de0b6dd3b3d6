//! The real binary as a process, with nothing of this process's environment and a working directory of its own.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dev_upstream::DevUpstream;
use serde_json::{Value, json};

pub const SECRET: &str = "q7Vw3nK0pXz8Lb5Rt2Yd9Hc6Mf1Js4Ga";

/// Longer than anything here takes on a busy machine: it ends a test that would else hang.
pub const TIMEOUT_BOUND: Duration = Duration::from_mins(1);

/// A running gateway. Killed when it is dropped.
pub struct Gateway {
    child: Child,
    out: Arc<Mutex<String>>,
    err: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
    /// While nothing is read from its standard error.
    is_stalled: Arc<AtomicBool>,
    _folder: tempfile::TempDir,
    /// `http://…` of the API and of the operations port; empty until it serves.
    pub api: String,
    pub ops: String,
}

/// The binary, to be run in `cwd` with these variables alone.
pub fn command(cwd: &Path, args: &[&str], env: &[(&str, &str)]) -> Command {
    let binary = env!("CARGO_BIN_EXE_wukongim-gateway");
    let mut command = if hangups_are_ignored() {
        // It would inherit that.
        let mut command = Command::new("/usr/bin/env");
        command.args(["--default-signal=HUP", binary]);
        command
    } else {
        Command::new(binary)
    };
    command
        .args(args)
        .env_clear()
        .envs(env.iter().copied())
        .current_dir(cwd)
        .stdin(Stdio::null());
    command
}

/// Whether these tests run under `nohup` or the like.
fn hangups_are_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.is_some_and(|mask| u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask & 1 == 1))
}

/// Variables for free ports and a good secret.
pub fn usual() -> Vec<(&'static str, &'static str)> {
    vec![
        ("JWT_SECRET", SECRET),
        ("GATEWAY__SERVER__LISTEN", "127.0.0.1:0"),
        ("GATEWAY__SERVER__OPS_LISTEN", "127.0.0.1:0"),
    ]
}

impl Gateway {
    /// Starts it and waits until it says that it serves.
    pub fn start(args: &[&str], env: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let command = command(folder.path(), args, env);
        Self::start_by(command, folder)
    }

    /// Starts it in front of this WuKongIM, with the usual variables and these.
    pub fn before(upstream: &DevUpstream, more: &[(&str, &str)]) -> Self {
        let url = upstream.url();
        let mut env = usual();
        env.push(("WUKONGIM_API_URL", &url));
        env.extend(more);
        Self::start(&[], &env)
    }

    /// Starts it with the built-in WuKongIM, the usual variables and these.
    pub fn embedded(more: &[(&str, &str)]) -> Self {
        let mut env = usual();
        env.extend(more);
        Self::start(&["--embedded"], &env)
    }

    /// Starts it by a shell that hands on that this signal is ignored, as `nohup` does, with these variables alone.
    pub fn ignoring(signal: &str, env: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", &format!("trap '' {signal}; exec \"$0\"")])
            .arg(env!("CARGO_BIN_EXE_wukongim-gateway"))
            .env_clear()
            .envs(env.iter().copied())
            .current_dir(folder.path())
            .stdin(Stdio::null());
        Self::start_by(shell, folder)
    }

    /// Starts it by this command in this folder, and waits until it says that it serves.
    pub fn start_by(mut command: Command, folder: tempfile::TempDir) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (out, err, is_stalled) = (Arc::default(), Arc::default(), Arc::default());
        let readers = vec![
            collect(child.stdout.take().unwrap(), &out, &Arc::default()),
            collect(child.stderr.take().unwrap(), &err, &is_stalled),
        ];
        let mut gateway = Self {
            child,
            out,
            err,
            readers,
            is_stalled,
            _folder: folder,
            api: String::new(),
            ops: String::new(),
        };
        let serving = gateway.wait_for_line("serving");
        gateway.api = format!("http://{}", serving["listen"].as_str().unwrap());
        gateway.ops = format!("http://{}", serving["ops_listen"].as_str().unwrap());
        gateway
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Memory it has in RAM; 0 where the system does not tell.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
        kib.unwrap_or(0_u64) * 1024
    }

    /// Stops to read its standard error, or goes on.
    pub fn stall_stderr(&self, is_stalled: bool) {
        self.is_stalled.store(is_stalled, Ordering::Relaxed);
    }

    /// Standard output so far.
    pub fn stdout(&self) -> String {
        self.out.lock().unwrap().clone()
    }

    /// Standard error so far.
    pub fn stderr(&self) -> String {
        self.err.lock().unwrap().clone()
    }

    /// The log so far; every line must be JSON.
    pub fn log(&self) -> Vec<Value> {
        let text = self.stderr();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
            .collect()
    }

    /// The first line of the log with this message, once it is there.
    pub fn wait_for_line(&mut self, message: &str) -> Value {
        let deadline = Instant::now() + TIMEOUT_BOUND;
        loop {
            if let Some(line) = self
                .log()
                .into_iter()
                .find(|line| line["message"] == message)
            {
                return line;
            }
            let ended = self.child.try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "{ended:?}, and never {message:?}:\n{}",
                self.stderr()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends a signal, `TERM` or `INT`.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(status.unwrap().success());
    }

    /// Waits for the end, and for all that was written before it.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + TIMEOUT_BOUND;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "still runs:\n{}", self.stderr());
            std::thread::sleep(Duration::from_millis(10));
        };
        self.stall_stderr(false);
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        status
    }

    /// Tells it to end, and asserts that it does so with exit code 0.
    #[track_caller]
    pub fn ends(&mut self) {
        self.signal("TERM");
        self.has_ended();
    }

    /// Waits for the end, and asserts that the exit code is 0.
    #[track_caller]
    pub fn has_ended(&mut self) {
        assert_eq!(self.wait().code(), Some(0), "{}", self.stderr());
    }

    /// A request to the operations port.
    pub fn ops(&self, path: &str) -> reqwest::RequestBuilder {
        client().get(format!("{}{path}", self.ops))
    }

    /// A request of `token`'s user that posts this JSON.
    pub fn post_json(&self, token: &str, path: &str, body: &Value) -> reqwest::RequestBuilder {
        let request = self.post(path).bearer_auth(token);
        let request = request.header("content-type", "application/json");
        request.body(body.to_string())
    }

    pub fn get(&self, path: &str) -> reqwest::RequestBuilder {
        client().get(format!("{}/api/v1/im{path}", self.api))
    }

    pub fn post(&self, path: &str) -> reqwest::RequestBuilder {
        client().post(format!("{}/api/v1/im{path}", self.api))
    }

    /// Sends a message of `token`'s user to bob; its number is its text, so that a repeat is the same message.
    pub fn send(&self, token: &str, text: &str) -> reqwest::RequestBuilder {
        let body = json!({
            "channelId": "bob", "channelType": 1, "payload": STANDARD.encode(text), "clientMsgNo": text,
        });
        self.post_json(token, "/message/send", &body)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(
    from: impl Read + Send + 'static,
    to: &Arc<Mutex<String>>,
    is_stalled: &Arc<AtomicBool>,
) -> JoinHandle<()> {
    let (to, is_stalled) = (to.clone(), is_stalled.clone());
    std::thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = String::new();
        while from.read_line(&mut line).unwrap() > 0 {
            while is_stalled.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(5));
            }
            to.lock().unwrap().push_str(&line);
            line.clear();
        }
    })
}

/// A client that keeps no connection open.
pub fn client() -> reqwest::Client {
    let builder = wukongim_gateway::http_client::client().timeout(TIMEOUT_BOUND);
    builder.pool_max_idle_per_host(0).build().unwrap()
}

/// A token of `uid`, made by the binary.
pub fn token(uid: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let output = command(
        folder.path(),
        &["token", "--uid", uid],
        &[("JWT_SECRET", SECRET)],
    )
    .output();
    String::from_utf8(output.unwrap().stdout)
        .unwrap()
        .trim()
        .to_owned()
}

/// Status and JSON body.
pub async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (
        status,
        serde_json::from_str(&text).unwrap_or(Value::String(text)),
    )
}

/// Asks until the status is this one.
pub async fn becomes(status: u16, request: impl Fn() -> reqwest::RequestBuilder) -> Value {
    let deadline = Instant::now() + TIMEOUT_BOUND;
    loop {
        let (got, body) = answer(request()).await;
        if got == status {
            return body;
        }
        assert!(Instant::now() < deadline, "{got} {body}, not {status}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Says it whether or not the test passes: the test runner keeps `eprintln!` for failures.
pub fn say(text: &str) {
    let line = format!("{text}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// Runs the binary to its end: exit code, standard output, standard error.
pub fn run(cwd: &Path, args: &[&str], env: &[(&str, &str)]) -> (i32, String, String) {
    let output = command(cwd, args, env).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let code = output.status.code().unwrap();
    (code, text(output.stdout), text(output.stderr))
}
