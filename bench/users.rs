//! Memory after a million users and a million addresses have become idle: `cargo bench --bench users`. Linux only.
//!
//! Each sends one request through the whole router, on several threads and with the binary's allocator. The buckets' clock is advanced by
//! the benchmark, so that no user becomes idle before all have sent theirs.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{Request, StatusCode};
use tower::ServiceExt as _;
use wukongim_gateway::cli;
use wukongim_gateway::config::Settings;
use wukongim_gateway::gateway::Framed;
use wukongim_gateway::limits::{Peer, Time};
use wukongim_gateway::state::App;
use wukongim_gateway::store::Store;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USERS: u32 = 1_000_000;
/// Half of them IPv4, half of them /64s of IPv6.
const ADDRESSES: u32 = 1_000_000;
const THREADS: u32 = 2;
/// What may stay, in bytes.
const MAY_STAY: u64 = 20_000_000;

fn main() -> Result<(), Box<dyn Error>> {
    // cargo's own arguments (`--bench`) say nothing here.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS as usize)
        .enable_all()
        .build()?;
    // On a worker, as in the binary's tasks; this thread has a heap of its own.
    runtime
        .block_on(async { tokio::spawn(measure()).await? })
        .map_err(|error| error as Box<dyn Error>)
}

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

async fn measure() -> Outcome<()> {
    let secret = "a-secret-for-the-benchmark-and-nothing-else".to_owned();
    let mut settings = Settings::builtin(&secret.into()).map_err(|_| "the defaults are bad")?;
    // Both set, so that /config makes no call.
    settings.public.ws_url = Some("ws://127.0.0.1:5200".parse().map_err(|_| "an address")?);
    settings.public.tcp_addr = Some("127.0.0.1:5100".parse().map_err(|_| "an address")?);
    let settings = Arc::new(settings);
    let store = Store::open("sqlite::memory:", 1, Duration::from_secs(2)).await?;
    let time = Time::standing();
    let app = App::with_time(Settings::clone(&settings), Arc::new(store), &time)
        .map_err(|error| error.to_string())?;

    // What one request needs is there before the start is measured.
    come(&app, &settings, 0, 100).await?;
    forget(&app, &time).await?;
    let start = resident()?;
    println!("at the start            {:>6.1} MB", mb(start));

    come(&app, &settings, 0, USERS.max(ADDRESSES)).await?;
    let remembered = app.limits.tracked();
    if remembered != (USERS + ADDRESSES) as usize {
        return Err(format!("{remembered} are remembered").into());
    }
    println!("{remembered} remembered      {:>6.1} MB", mb(resident()?));

    forget(&app, &time).await?;
    if app.limits.tracked() != 0 {
        return Err("some are remembered for good".into());
    }
    let end = resident()?;
    println!("all of them idle        {:>6.1} MB", mb(end));
    if end > start + MAY_STAY {
        return Err("more than 20 MB stay".into());
    }
    Ok(())
}

/// One request of each user and one of each address, from all threads at once.
async fn come(app: &App, settings: &Arc<Settings>, from: u32, to: u32) -> Outcome<()> {
    let tasks: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (service, settings) = (Framed::api(app), settings.clone());
            tokio::spawn(async move {
                for number in (from + thread..to).step_by(THREADS as usize) {
                    if number < USERS {
                        user(&service, &settings, number).await?;
                    }
                    if number < ADDRESSES {
                        stranger(&service, number).await?;
                    }
                    // Else one task would never let go of its thread.
                    tokio::task::consume_budget().await;
                }
                Outcome::Ok(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(())
}

async fn user(service: &Framed, settings: &Settings, number: u32) -> Outcome<()> {
    let uid = format!("user-{number}");
    let token = cli::token(&settings.auth, &uid, false, Duration::from_hours(1))?;
    let request = Request::get("/api/v1/im/config")
        .header("authorization", format!("Bearer {token}"))
        .body(Body::empty())?;
    expect(service, request, StatusCode::OK).await
}

async fn stranger(service: &Framed, number: u32) -> Outcome<()> {
    let address = if number.is_multiple_of(2) {
        IpAddr::from(Ipv4Addr::from_bits(0x0b00_0000 + number))
    } else {
        let network = 0x2001_0db8_0000_0000 + u64::from(number);
        IpAddr::from(Ipv6Addr::from_bits(u128::from(network) << 64 | 1))
    };
    let mut request = Request::get("/api/v1/im/config").body(Body::empty())?;
    request.extensions_mut().insert(Peer(address));
    expect(service, request, StatusCode::UNAUTHORIZED).await
}

async fn expect(service: &Framed, request: Request<Body>, status: StatusCode) -> Outcome<()> {
    let answer = service.clone().oneshot(request).await?;
    if answer.status() == status {
        return Ok(());
    }
    Err(format!("{} for {status}", answer.status()).into())
}

/// Lets all buckets fill up, and sweeps three times as the server does every 5 s.
async fn forget(app: &App, time: &Time) -> Outcome<()> {
    time.pass(Duration::from_mins(1));
    for _ in 0..3 {
        let swept = app.clone();
        tokio::spawn(async move { swept.limits.sweep() }).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

/// Memory in RAM, in bytes.
fn resident() -> Outcome<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kib.ok_or("no VmRSS")? * 1024)
}

#[expect(clippy::cast_precision_loss, reason = "a measurement")]
fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
