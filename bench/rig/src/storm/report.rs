//! The storm's table, and which promises were not kept.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::gateway::Sample;
use crate::tally::Slowest;

/// `server.request_timeout`.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// `server.max_buffered`, and what a gateway may have beside it.
const MEMORY: u64 = 256 * 1024 * 1024 + 100_000_000;
/// Within which `/health` and `/readyz` tell the truth.
const TRUTH: Duration = Duration::from_secs(2);
/// Within which the throughput is back.
const BACK: Duration = Duration::from_secs(5);
/// What of it is enough.
const ENOUGH: f64 = 0.9;

type Truth = (Option<Duration>, Option<Duration>);

/// What was seen during one fault and after it.
pub struct Row {
    pub dialect: &'static str,
    pub name: &'static str,
    /// To what was asked during the fault.
    pub answers: u64,
    /// Successes in the middle one of the seconds before the fault.
    pub usual: f64,
    /// And during it, but for its first quarter.
    pub during: f64,
    pub failures: BTreeMap<&'static str, u64>,
    pub slowest: Slowest,
    pub memory: u64,
    pub tasks: u64,
    /// For how long not the truth was told after the fault began, and after it ended.
    pub health: Truth,
    pub readiness: Truth,
    /// When the first second with enough successes ended.
    pub back: Option<Duration>,
    /// Successes from 5 s after the fault on, over those before it.
    pub after: f64,
}

/// See the module.
#[derive(Default)]
pub struct Report {
    said: Vec<String>,
    rows: Vec<Row>,
    rests: Vec<(&'static str, Sample, Sample)>,
    broken: Vec<String>,
}

impl Report {
    /// A line above the table.
    pub fn say(&mut self, line: String) {
        eprintln!("{line}");
        self.said.push(line);
    }

    /// Notes a promise that was not kept.
    pub fn promise(&mut self, kept: bool, otherwise: String) {
        if !kept {
            eprintln!("  BROKEN: {otherwise}");
            self.broken.push(otherwise);
        }
    }

    /// Takes a row and holds it to what was promised; where the fault is `everywhere`, not to what goes on during it.
    pub fn add(&mut self, row: Row, everywhere: bool) {
        eprintln!("    {row}");
        let what = format!("{}, {}", row.dialect, row.name);
        let within =
            |truth: Option<Duration>, most: Duration| truth.is_some_and(|took| took <= most);
        self.promise(row.answers > 0, format!("{what}: nothing was asked"));
        self.promise(
            row.slowest.took <= REQUEST_TIMEOUT,
            format!("{what}: {} took {:?}", row.slowest.what, row.slowest.took),
        );
        self.promise(
            row.memory < MEMORY,
            format!("{what}: {} bytes of memory", row.memory),
        );
        for (who, (down, up)) in [("/health", row.health), ("/readyz", row.readiness)] {
            self.promise(
                within(down, TRUTH),
                format!("{what}: {who} told the truth after {down:?}"),
            );
            self.promise(
                within(up, TRUTH),
                format!("{what}: {who} saw the end after {up:?}"),
            );
        }
        self.promise(
            within(row.back, BACK),
            format!("{what}: back after {:?}", row.back),
        );
        self.promise(
            row.after >= ENOUGH,
            format!(
                "{what}: {:.2} of the usual throughput afterwards",
                row.after
            ),
        );
        if !everywhere {
            let share = row.during / row.usual;
            self.promise(
                share >= ENOUGH,
                format!("{what}: {share:.2} of the usual throughput during it"),
            );
        }
        self.rows.push(row);
    }

    /// Holds a gateway at rest after the storm to what it had before.
    pub fn rest(&mut self, dialect: &'static str, before: Sample, after: Sample) {
        eprintln!("  {dialect} at rest: {before:?}, then {after:?}");
        self.promise(
            after.tasks <= before.tasks,
            format!("{dialect}: tasks {} → {}", before.tasks, after.tasks),
        );
        self.promise(
            after.files <= before.files,
            format!("{dialect}: files {} → {}", before.files, after.files),
        );
        self.promise(
            after.threads <= before.threads,
            format!("{dialect}: threads {} → {}", before.threads, after.threads),
        );
        self.rests.push((dialect, before, after));
    }

    pub fn is_kept(&self) -> bool {
        self.broken.is_empty()
    }
}

#[expect(clippy::cast_precision_loss, reason = "a measurement")]
fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn seconds(took: Option<Duration>) -> String {
    took.map_or("never".to_owned(), |took| {
        format!("{:.1}", took.as_secs_f64())
    })
}

fn truth((down, up): Truth) -> String {
    format!("{} / {}", seconds(down), seconds(up))
}

impl fmt::Display for Row {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failures: Vec<String> = self
            .failures
            .iter()
            .map(|(code, count)| format!("{count} `{code}`"))
            .collect();
        let failures = if failures.is_empty() {
            "none".to_owned()
        } else {
            failures.join(", ")
        };
        write!(
            out,
            "| {}, {} | {} | {failures} | {:.0} → {:.0} | {:.2} ({}) | {} | {} | {} | {:.0} | {} |",
            self.dialect,
            self.name,
            self.answers,
            self.usual,
            self.during,
            self.slowest.took.as_secs_f64(),
            self.slowest.what,
            truth(self.health),
            truth(self.readiness),
            seconds(self.back),
            mb(self.memory),
            self.tasks,
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.said {
            writeln!(out, "- {line}")?;
        }
        writeln!(
            out,
            "\n| fault | answers | of them failures | done/s, before → during | slowest, s | `/health` true after s, bad / well | `/readyz` | 90 % back after s | memory at most, MB | tasks at most |"
        )?;
        writeln!(out, "|---|---|---|---|---|---|---|---|---|---|")?;
        for row in &self.rows {
            writeln!(out, "{row}")?;
        }
        writeln!(
            out,
            "\n| at rest | tasks | files | threads | memory, MB |\n|---|---|---|---|---|"
        )?;
        for (dialect, before, after) in &self.rests {
            for (when, sample) in [("before", before), ("after", after)] {
                let Sample {
                    tasks,
                    files,
                    threads,
                    memory,
                } = sample;
                writeln!(
                    out,
                    "| {dialect}, {when} | {tasks} | {files} | {threads} | {:.0} |",
                    mb(*memory)
                )?;
            }
        }
        for broken in &self.broken {
            writeln!(out, "\nBROKEN: {broken}")?;
        }
        Ok(())
    }
}
