//! Mixed traffic at half the gateway's maximum for a long time: whether its open files, tasks and memory stay as they are.

use std::io::Write as _;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::gateway::{Sample, Stage};
use crate::load::Load;
use crate::mix::Mix;
use crate::upstream::Upstream;

const CLIENTS: usize = 64;
/// Stretches of time that are compared with each other, by the middle one of their samples.
const WINDOWS: usize = 15;
/// Those at the beginning that are not judged: the buffers of some 500 connections to WuKongIM are as large as what went through them,
/// and take minutes to come to rest.
const FILLING: usize = 7;
/// By how much the highest may be above the lowest.
const FLAT: f64 = 1.05;
/// How often all clients send at once what takes the most connections to WuKongIM. A pool keeps those for 30 s that were needed at
/// the same time: without this there would be as many as the busiest moment of the last 30 s needed, which says more of the machine
/// than of the gateway. So all are as full as they get.
const BURST: Duration = Duration::from_secs(5);
const EVERY: Duration = Duration::from_secs(1);

type Of = fn(&Sample) -> u64;

/// What is judged, and how it is read from a sample.
const JUDGED: [(&str, Of); 3] = [
    ("open files", |sample| sample.files),
    ("tasks", |sample| sample.tasks),
    ("memory", |sample| sample.memory),
];

/// All of it; the table is printed. The verdict: whether it is flat.
///
/// # Errors
/// Where an answer was not the expected one: then no figure is printed.
pub async fn run(stage: &Stage, quick: bool) -> Result<bool, Box<dyn std::error::Error>> {
    let (most_time, window, numbers) = if quick {
        (Duration::from_secs(3), Duration::from_secs(4), "4s")
    } else {
        (Duration::from_secs(15), Duration::from_mins(1), "30s")
    };
    let tokens = stage.tokens()?;
    let upstream = Upstream::start(stage, false, 0, 1, Duration::ZERO).await?;
    let settings = [("GATEWAY__WUKONGIM__IDEMPOTENCY_WINDOW", numbers)];
    let most = {
        // A process of its own: what the rush leaves behind takes minutes to go, and is no part of what is judged.
        let gateway = stage.start(10, &upstream.nodes, &settings).await?;
        let load = Load::new(&gateway.api, Mix::new(tokens.clone(), "rush"), CLIENTS);
        let most = load.closed(CLIENTS, most_time).await;
        load.tally.borrow().check()?;
        most
    };
    let rate = most / 2.0;
    eprintln!("at most {most:.0} requests/s with {CLIENTS} clients; soaking at {rate:.0}");

    let gateway = stage.start(12, &upstream.nodes, &settings).await?;
    let load = Load::new(&gateway.api, Mix::new(tokens, "soak"), CLIENTS);
    let taken = upstream.sends();
    load.open(rate);
    load.bursts(CLIENTS, BURST);
    let began = Instant::now();
    let mut windows: Vec<Vec<Sample>> = Vec::new();
    let mut due = began;
    for _ in 0..WINDOWS {
        let end = due + window;
        let mut samples = Vec::new();
        while due < end {
            due += EVERY;
            sleep_until(due).await;
            samples.push(gateway.sample().await?);
            load.tally.borrow().check()?;
        }
        eprintln!("  {:?}", samples.last());
        windows.push(samples);
    }
    if !load.end().await {
        return Err("requests hang".into());
    }
    let taken = upstream.sends() - taken;
    let tally = load.tally.borrow();
    tally.check()?;
    let told = tally.sent();
    if told > taken {
        return Err(format!("{told} messages are told to be stored, {taken} arrived").into());
    }
    let asked = tally.asked();
    let took = began.elapsed().as_secs_f64();
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "- at most {most:.0} requests/s with {CLIENTS} clients; soaked with {asked} requests in {took:.0} s, all answered as expected; slowest {:.2} s",
        tally.phase(0).slowest.took.as_secs_f64()
    )?;
    writeln!(
        out,
        "\n| after, s | open files | tasks | threads | memory, MB |\n|---|---|---|---|---|"
    )?;
    for (index, samples) in windows.iter().enumerate() {
        let middle = |of: Of| middle(samples, of);
        writeln!(
            out,
            "| {} | {} | {} | {} | {:.1} |",
            window.as_secs() * (index as u64 + 1),
            middle(|sample| sample.files),
            middle(|sample| sample.tasks),
            middle(|sample| sample.threads),
            mb(middle(|sample| sample.memory)),
        )?;
    }
    writeln!(out)?;
    let mut is_flat = true;
    for (name, of) in JUDGED {
        let of_windows = windows[FILLING..].iter().map(|samples| middle(samples, of));
        let (low, high) = of_windows.fold((u64::MAX, 0), |(low, high), now| {
            (low.min(now), high.max(now))
        });
        let ratio = ratio(high, low);
        let flat = ratio <= FLAT;
        is_flat &= flat;
        let verdict = if flat { "flat" } else { "NOT FLAT" };
        writeln!(
            out,
            "- {name}: highest over lowest window {ratio:.3}: {verdict}"
        )?;
    }
    Ok(is_flat)
}

/// The middle one of the samples.
fn middle(samples: &[Sample], of: Of) -> u64 {
    let mut values: Vec<u64> = samples.iter().map(of).collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

#[expect(clippy::cast_precision_loss, reason = "a measurement")]
fn ratio(high: u64, low: u64) -> f64 {
    high as f64 / low as f64
}

#[expect(clippy::cast_precision_loss, reason = "a measurement")]
fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
